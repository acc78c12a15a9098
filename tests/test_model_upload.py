"""Model uploads: which are accepted, which are refused, and that no temporary files are left."""

import io
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import requests

from shared.errors import AlreadyThere, InvalidValue
from shared.models.storage import RESERVED_BYTES, move_into_place, parse_file_name
from shared.settings import Settings
from shared.web.app import control_app
from shared.web.server.run import serve_waitress
from tests.control import Control, body
from tests.payloads import ORIGIN
from tests.ports import free_ports
from tests.safetensors_factory import write_safetensors
from tests.stack import wait_for_health


def model_bytes(folder: Path) -> bytes:
    return write_safetensors(folder / "sent", {"lora.up": ("F16", (8, 8))}).read_bytes()


def send(control: Control, name: str, content: bytes, kind: str = "loras") -> Any:
    form = {"file": (io.BytesIO(content), name), "model_type": kind}
    return control.client.post("/api/upload-model", data=form, headers={"Origin": ORIGIN})


def leftover_files(control: Control) -> list[Path]:
    return list((control.models / ".incoming").glob("*"))


def test_a_model_is_stored_unchanged(control: Control, tmp_path: Path) -> None:
    content = model_bytes(tmp_path)
    answer = send(control, "folder/My Style.safetensors", content)
    reply = body(answer)
    assert answer.status_code == 200
    assert reply["filename"] == "My Style.safetensors"
    assert reply["display_name"] == "My Style"
    assert reply["filepath"] == "loras/My Style.safetensors"
    assert reply["size"] == len(content)
    assert (control.models / "loras" / "My Style.safetensors").read_bytes() == content
    assert leftover_files(control) == []


def test_a_model_of_another_type_than_claimed_is_stored_with_a_warning(control: Control, tmp_path: Path) -> None:
    lora = write_safetensors(tmp_path / "lora", {"x.lora_up.weight": ("F16", (8, 8))}).read_bytes()
    assert body(send(control, "a.safetensors", lora, "loras"))["warnings"] == []
    (warning,) = body(send(control, "a.safetensors", lora, "checkpoints"))["warnings"]
    assert warning == "model_type is checkpoints, but the contents of a.safetensors are loras"


def test_a_model_is_never_overwritten(control: Control, tmp_path: Path) -> None:
    content = model_bytes(tmp_path)
    assert send(control, "a.safetensors", content).status_code == 200
    again = send(control, "a.safetensors", content)
    assert again.status_code == 409
    assert body(again)["error"]["code"] == "already_there"
    control.files["vae"] = ["elsewhere.safetensors"]
    assert send(control, "elsewhere.safetensors", content, "vae").status_code == 409
    assert leftover_files(control) == []


@pytest.mark.parametrize(
    ("name", "content", "kind", "status", "message"),
    [
        ("a.ckpt", b"x", "loras", 422, "MODEL_SUFFIXES"),
        ("a.safetensors", b"no model", "loras", 422, "not a complete safetensors file"),
        ("a.safetensors", b"x", "../loras", 422, "model_type"),
        (".safetensors", b"x", "loras", 422, "not a valid name"),
        ("con.safetensors", b"x", "loras", 422, "not a valid name"),
    ],
)
def test_invalid_models_and_names_are_refused(
    control: Control, name: str, content: bytes, kind: str, status: int, message: str
) -> None:
    answer = send(control, name, content, kind)
    assert answer.status_code == status
    assert message in json.dumps(body(answer))
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert leftover_files(control) == []


def test_a_truncated_model_and_a_form_without_a_model_are_refused(control: Control, tmp_path: Path) -> None:
    assert send(control, "a.safetensors", model_bytes(tmp_path)[:-1]).status_code == 422
    assert control.client.post("/api/upload-model", data={"model_type": "loras"}).status_code in (415, 422)
    refused = control.client.post("/api/upload-model", data={"file": "text"}, content_type="multipart/form-data")
    assert body(refused)["error"]["field"] == "file"
    form = {"file": (io.BytesIO(model_bytes(tmp_path)), "a.safetensors")}
    assert body(control.client.post("/api/upload-model", data=form))["message"] == "model_type is missing"


def test_a_form_with_more_than_a_model_is_refused(control: Control, tmp_path: Path) -> None:
    two = [(io.BytesIO(model_bytes(tmp_path)), f"{name}.safetensors") for name in ("one", "two")]
    refused = control.client.post("/api/upload-model", data={"file": two, "model_type": "loras"})
    assert (refused.status_code, body(refused)["error"]["field"]) == (400, "file")
    fields = {f"field{number}": "x" for number in range(20)}
    many = control.client.post("/api/upload-model", data=fields, content_type="multipart/form-data")
    assert (many.status_code, body(many)["message"]) == (400, "the form has more than a model file and its type")
    assert leftover_files(control) == []
    assert not (control.models / "loras").exists()


def test_other_file_extensions_are_a_setting() -> None:
    assert Settings(model_suffixes="ckpt, .PTH").model_suffixes == (".ckpt", ".pth")
    assert parse_file_name("C:\\models\\Größe_1.ckpt", (".ckpt",)) == "Größe_1.ckpt"
    with pytest.raises(InvalidValue):
        parse_file_name("a\n.ckpt", (".ckpt",))


def test_the_second_of_two_models_with_the_same_name_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    move_into_place(tmp_path / "one", tmp_path / "kept", "model")
    with pytest.raises(AlreadyThere):
        move_into_place(tmp_path / "two", tmp_path / "kept", "model")
    assert (tmp_path / "kept" / "model").read_text() == "one"


def test_a_full_disk_is_reported_before_the_body_is_read(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.models.storage.free_bytes", lambda _folder: 1000)
    assert send(control, "a.safetensors", b"x").status_code == 507
    headers = {"HOST": "localhost", "CONTENT_LENGTH": "5"}
    assert control.uploads.large_body("/api/upload-model", headers) is None


def test_only_an_upload_that_fits_may_be_large(control: Control) -> None:
    allowed = {"HOST": "localhost:5002", "ORIGIN": ORIGIN, "CONTENT_LENGTH": "1000"}
    large = control.uploads.large_body("/api/upload-model", allowed)
    assert large is not None
    assert large[0] > 4 * 1024 * 1024
    assert control.uploads.large_body("/api/models", allowed) is None
    # More than any disk holds.
    assert control.uploads.large_body("/api/upload-model", {**allowed, "CONTENT_LENGTH": "9" * 17}) is None


def test_the_server_accepts_large_bodies_only_on_the_upload_route(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The system's temporary folder may be small, so it is not used.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "not there"))
    (port,) = free_ports(1)
    app = control_app(control.backend, control.manager, control.uploads)
    settings = control.backend.settings
    threading.Thread(
        target=serve_waitress, args=(app, settings, port), kwargs={"large": control.uploads.large_body}, daemon=True
    ).start()
    url = f"http://127.0.0.1:{port}"
    wait_for_health(url)
    # More than four times the usual limit, which applies to all other routes.
    large = write_safetensors(tmp_path / "large", {"w": ("F16", (1024, 2000))}).read_bytes()
    large_form = {"file": ("large.safetensors", large)}
    stored = requests.post(f"{url}/api/upload-model", files=large_form, data={"model_type": "loras"}, timeout=30)
    assert stored.status_code == 200, stored.text
    assert (control.models / "loras" / "large.safetensors").stat().st_size == len(large)
    assert leftover_files(control) == []
    for route in ("/api/upload-model", "/api/add-api-key"):
        # Only the head is sent: a body would race with the closing of the connection.
        with requests.Session() as session:
            head = requests.Request("POST", url + route, headers={"Origin": ORIGIN, "Content-Type": "application/json"})
            prepared = session.prepare_request(head)
            prepared.headers["Content-Length"] = "9000000"
            refused = session.send(prepared, timeout=30)
        assert refused.status_code == 413
        assert refused.json()["error"]["code"] == "body_too_large"
        assert refused.headers["Access-Control-Allow-Origin"] == ORIGIN
    # The disk has space for one copy, but an upload needs space for two.
    monkeypatch.setattr("shared.models.storage.free_bytes", lambda _folder: RESERVED_BYTES + 6_000_000)
    head = f"POST /api/upload-model HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: 4500000\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    assert exchange(port, head.encode()).startswith(b"HTTP/1.1 507 ")


@pytest.mark.parametrize("route", ["/api/models", "/api/upload-model"])
def test_a_refused_body_is_never_read_as_requests(control: Control, route: str) -> None:
    """A malicious page may send any body to any address; no part of it may be executed."""
    (port,) = free_ports(1)
    app = control_app(control.backend, control.manager, control.uploads)
    threading.Thread(
        target=serve_waitress,
        args=(app, control.backend.settings, port),
        kwargs={"large": control.uploads.large_body},
        daemon=True,
    ).start()
    wait_for_health(f"http://127.0.0.1:{port}")
    key = b'{"alias": "HF_TOKEN", "api-key": "of somebody else"}'
    hidden = f"POST /api/add-api-key HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n"
    hidden += f"Content-Length: {len(key)}\r\n\r\n"
    head = f"POST {route} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: keep-alive\r\n"
    head += "Origin: https://evil.example\r\nContent-Length: 270000000\r\n\r\n"
    answers = exchange(port, head.encode() + hidden.encode() + key + bytes(10_000))
    assert answers.startswith(b"HTTP/1.1 403 ")
    assert answers.count(b"HTTP/1.1 ") == 1
    assert not (control.backend.settings.data_dir / "api-keys.json").exists()


def exchange(port: int, sent: bytes) -> bytes:
    """Send raw bytes; return everything that the service sends until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(sent)
        answers = b""
        try:
            while piece := connection.recv(65536):
                answers += piece
        except ConnectionResetError:
            pass
        return answers
