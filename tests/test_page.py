"""What the web page's buttons call, without an engine: nothing listens on port 9 of this machine."""

import io
import json
import random
import stat
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient

from launcher.house import build_control
from shared.child import Child, Keeper
from shared.engine.client import EngineClient
from shared.engine.manager import EngineManager, described
from shared.engine.process import engine_command, model_folders
from shared.engine.storing import checked_name, put
from shared.errors import AlreadyThere, DreamLayerError, InvalidValue, NotPossible, StorageFailed
from shared.keys import KeyRing
from shared.paths import ChosenPaths, PathsFile
from shared.settings import Settings
from shared.web.backend import Backend
from shared.web.choosing import read_paths
from shared.web.desktop import file_manager
from shared.web.model_upload import ModelUploads
from shared.web.serve import serve_waitress
from shared.web.suggestions import KINDS, suggest
from shared.web.titles import title
from tests.conftest import free_ports
from tests.house import wait_for_health
from tests.tiny import write_safetensors

PAGE = "http://localhost:8080"
PICTURE = "20261122-143210-3f2a9c1e0b7d_00001_.png"


@dataclass
class Control:
    """The control service, its engine's files by folder, and whether its engine was asked to start again."""

    backend: Backend
    uploads: ModelUploads
    manager: "Managed"
    files: dict[str, list[str]] = field(default_factory=dict)

    @property
    def client(self) -> FlaskClient:
        return build_control(self.backend, self.manager, self.uploads).test_client()

    @property
    def models(self) -> Path:
        return self.backend.settings.models_dir


class Managed(EngineManager):
    """A manager of an engine that is ours, and only said to be started again."""

    ours = True
    restarts = 0

    def restart(self, *, when_idle: bool) -> None:
        self.restarts += 1


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    settings = Settings(engine_url="http://127.0.0.1:9", data_dir=tmp_path, max_model_mb=4, max_body_mb=1)
    backend = Backend(settings)
    manager = Managed(backend.engine, None, list, backend.store.count_unfinished)
    made = Control(backend, ModelUploads(settings, backend.catalog), manager)
    monkeypatch.setattr(backend.catalog, "names", lambda folder, _age=1.0: made.files.get(folder, []))
    yield made
    backend.stop()


def body(response: Any) -> dict[str, Any]:
    told = response.json
    assert isinstance(told, dict)
    return told


def a_model(folder: Path) -> bytes:
    return write_safetensors(folder / "sent", {"lora.up": ("F16", (8, 8))}).read_bytes()


# Lists and suggestions


@pytest.mark.parametrize(
    ("route", "folder"), [("models", "checkpoints"), ("lora-models", "loras"), ("upscaler-models", "upscale_models")]
)
def test_lists_have_the_pages_form(control: Control, route: str, folder: str) -> None:
    control.files[folder] = ["sub/one.safetensors"]
    answer = control.client.get(f"/api/{route}", headers={"Origin": PAGE})
    expected = {"id": "sub/one.safetensors", "name": "one", "filename": "sub/one.safetensors"}
    assert body(answer) == {"status": "success", "models": [expected]}
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE


def test_controlnets_are_plain_names(control: Control) -> None:
    control.files["controlnet"] = ["canny.safetensors"]
    assert body(control.client.get("/api/controlnet/models"))["models"] == ["canny.safetensors"]


@pytest.mark.parametrize("kind", KINDS)
def test_suggestions_vary_and_can_be_had_again(kind: Any) -> None:
    several = [suggest(kind, random.Random(seed)) for seed in range(200)]
    assert len(set(several)) > 150
    assert suggest(kind, random.Random(7)) == several[7]
    for text in several:
        parts = text.split(", ")
        assert len(parts) == len(set(parts)), text
        assert 20 < len(text) < 300


def test_a_suggestion_is_fetched(control: Control) -> None:
    answer = control.client.get("/api/fetch-prompt?type=negative")
    assert body(answer)["status"] == "success"
    assert body(answer)["prompt"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert control.client.get("/api/fetch-prompt?type=other").status_code == 422


# Uploads


def send(control: Control, name: str, content: bytes, kind: str = "loras") -> Any:
    form = {"file": (io.BytesIO(content), name), "model_type": kind}
    return control.client.post("/api/upload-model", data=form, headers={"Origin": PAGE})


def left_over(control: Control) -> list[Path]:
    return list((control.models / ".incoming").glob("*"))


def test_a_model_is_kept_whole(control: Control, tmp_path: Path) -> None:
    content = a_model(tmp_path)
    answer = send(control, "folder/My Style.safetensors", content)
    told = body(answer)
    assert answer.status_code == 200
    assert told["filename"] == "My Style.safetensors"
    assert told["display_name"] == "My Style"
    assert told["filepath"] == "loras/My Style.safetensors"
    assert told["size"] == len(content)
    assert (control.models / "loras" / "My Style.safetensors").read_bytes() == content
    assert left_over(control) == []


def test_a_model_is_never_overwritten(control: Control, tmp_path: Path) -> None:
    content = a_model(tmp_path)
    assert send(control, "a.safetensors", content).status_code == 200
    again = send(control, "a.safetensors", content)
    assert again.status_code == 409
    assert body(again)["error"]["code"] == "already_there"
    control.files["vae"] = ["elsewhere.safetensors"]
    assert send(control, "elsewhere.safetensors", content, "vae").status_code == 409
    assert left_over(control) == []


@pytest.mark.parametrize(
    ("name", "content", "kind", "status", "says"),
    [
        ("a.ckpt", b"x", "loras", 422, "MODEL_SUFFIXES"),
        ("a.safetensors", b"no model", "loras", 422, "not a whole safetensors file"),
        ("a.safetensors", b"x", "../loras", 422, "model_type"),
        (".safetensors", b"x", "loras", 422, "cannot be the name"),
        ("con.safetensors", b"x", "loras", 422, "cannot be the name"),
    ],
)
def test_what_is_no_model_is_refused(
    control: Control, name: str, content: bytes, kind: str, status: int, says: str
) -> None:
    answer = send(control, name, content, kind)
    assert answer.status_code == status
    assert says in json.dumps(body(answer))
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert left_over(control) == []


def test_a_cut_model_and_a_form_without_one_are_refused(control: Control, tmp_path: Path) -> None:
    assert send(control, "a.safetensors", a_model(tmp_path)[:-1]).status_code == 422
    assert control.client.post("/api/upload-model", data={"model_type": "loras"}).status_code in (415, 422)
    wrong = control.client.post("/api/upload-model", data={"file": "text"}, content_type="multipart/form-data")
    assert body(wrong)["error"]["field"] == "file"


def test_names_of_other_kinds_are_a_setting() -> None:
    assert Settings(model_suffixes="ckpt, .PTH").model_suffixes == (".ckpt", ".pth")
    assert checked_name("C:\\models\\Größe_1.ckpt", (".ckpt",)) == "Größe_1.ckpt"
    with pytest.raises(InvalidValue):
        checked_name("a\n.ckpt", (".ckpt",))


def test_of_two_at_once_one_is_kept(tmp_path: Path) -> None:
    for each in ("one", "two"):
        (tmp_path / each).write_text(each)
    put(tmp_path / "one", tmp_path / "kept", "model")
    with pytest.raises(AlreadyThere):
        put(tmp_path / "two", tmp_path / "kept", "model")
    assert (tmp_path / "kept" / "model").read_text() == "one"


def test_a_full_disk_is_told_before_the_body_is_read(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.engine.storing.free_bytes", lambda _folder: 1000)
    assert send(control, "a.safetensors", b"x").status_code == 507
    headers = {"HOST": "localhost", "CONTENT_LENGTH": "5"}
    assert control.uploads.large_body("/api/upload-model", headers) is None


def test_only_an_admitted_upload_may_be_large(control: Control) -> None:
    allowed = {"HOST": "localhost:5002", "ORIGIN": PAGE, "CONTENT_LENGTH": "1000"}
    large = control.uploads.large_body("/api/upload-model", allowed)
    assert large is not None
    assert large[0] > 4 * 1024 * 1024
    assert control.uploads.large_body("/api/models", allowed) is None
    assert control.uploads.large_body("/api/upload-model", {**allowed, "ORIGIN": "http://evil.example"}) is None


def test_the_server_takes_large_bodies_on_that_route_alone(control: Control, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    app = build_control(control.backend, control.manager, control.uploads)
    settings = control.backend.settings
    threading.Thread(
        target=serve_waitress, args=(app, settings, port), kwargs={"large": control.uploads.large_body}, daemon=True
    ).start()
    url = f"http://127.0.0.1:{port}"
    wait_for_health(url)
    # Over four times the ordinary limit, which the server itself refuses elsewhere.
    large = write_safetensors(tmp_path / "large", {"w": ("F16", (1024, 2000))}).read_bytes()
    large_form = {"file": ("large.safetensors", large)}
    kept = requests.post(f"{url}/api/upload-model", files=large_form, data={"model_type": "loras"}, timeout=30)
    assert kept.status_code == 200, kept.text
    assert (control.models / "loras" / "large.safetensors").stat().st_size == len(large)
    assert left_over(control) == []
    for route in ("/api/upload-model", "/api/add-api-key"):
        # Only the head is sent: a whole body would race with the end of the connection.
        with requests.Session() as session:
            head = requests.Request("POST", url + route, headers={"Origin": PAGE, "Content-Type": "application/json"})
            prepared = session.prepare_request(head)
            prepared.headers["Content-Length"] = "9000000"
            refused = session.send(prepared, timeout=30)
        assert refused.status_code == 413
        assert refused.json()["error"]["code"] == "body_too_large"
        assert refused.headers["Access-Control-Allow-Origin"] == PAGE


# Pictures


def picture(control: Control) -> Path:
    path = control.backend.settings.output_dir / "20261122" / PICTURE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"png")
    return path


def test_a_picture_is_sent_on_and_served_at_both_addresses(control: Control) -> None:
    picture(control)
    for tab in ("img2img", "extras"):
        answer = control.client.post(f"/api/send-to-{tab}", json={"filename": PICTURE})
        assert body(answer)["status"] == "success"
        assert body(answer)["url"].endswith(f"/api/images/{PICTURE}")
    for address in ("/images/", "/api/images/"):
        served = control.client.get(address + PICTURE, headers={"Origin": PAGE})
        assert served.data == b"png"
        assert served.headers["Access-Control-Allow-Origin"] == PAGE
        served.close()


@pytest.mark.parametrize("name", ["../../etc/passwd", "other.png", 7, None])
def test_only_pictures_of_ours_are_shown(control: Control, name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.web.desktop.subprocess.Popen", None)
    for route in ("show-in-folder", "send-to-img2img", "send-to-extras"):
        assert control.client.post(f"/api/{route}", json={"filename": name}).status_code in (404, 422)


def test_without_a_desktop_it_is_said(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    path = picture(control)
    monkeypatch.setattr("shared.web.desktop.file_manager", lambda *_: None)
    answer = control.client.post("/api/show-in-folder", json={"filename": PICTURE})
    assert answer.status_code == 409
    assert body(answer)["message"] == "there is no desktop on this machine"
    assert str(path) in body(answer)["error"]["hint"]


def test_each_system_has_its_file_manager(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert file_manager(path, "darwin", {}) == ["open", "-R", str(path)]
    assert file_manager(path, "win32", {}) == ["explorer", f"/select,{path}"]
    assert file_manager(path, "linux", {"PATH": str(tmp_path)}) is None
    opener = tmp_path / "xdg-open"
    opener.touch(mode=0o755)
    assert file_manager(path, "linux", {"PATH": str(tmp_path), "DISPLAY": ":0"}) == [str(opener), str(tmp_path)]


# Folders


def test_untouched_fields_of_the_page_mean_the_defaults(control: Control) -> None:
    names = ("outputDirectory", "modelsDirectory", "controlNetModelsPath", "upscalerModelsPath", "vaeModelsPath")
    sent = {**dict.fromkeys(names, "/path/to/some/folder"), "loraEmbeddingsPath": "", "filenameFormat": None}
    answer = control.client.post("/api/settings/paths", json={**sent, "saveMetadata": True})
    assert body(answer)["status"] == "success"
    assert body(answer)["restart"] is False
    assert control.manager.restarts == 0
    assert control.backend.paths.read() == ChosenPaths()


def test_folders_are_kept_and_the_engine_is_started_again(control: Control, tmp_path: Path) -> None:
    chosen = tmp_path / "pictures"
    chosen.mkdir()
    answer = control.client.post("/api/settings/paths", json={"outputDirectory": str(chosen), "saveMetadata": False})
    assert body(answer)["restart"] is True
    assert control.manager.restarts == 1
    command = engine_command(Settings(), tmp_path, control.backend.settings.data_dir, cpu=True)
    assert command[command.index("--output-directory") + 1] == str(chosen)
    assert "--disable-metadata" in command
    (chosen / "20261122").mkdir()
    (chosen / "20261122" / PICTURE).write_bytes(b"png")
    assert control.backend.archive.pictures.find(PICTURE) is not None
    # And after the next choice, too.
    assert body(control.client.post("/api/settings/paths", json={}))["paths"]["outputDirectory"] is None
    assert control.backend.archive.pictures.find(PICTURE) is not None
    assert body(control.client.get("/api/settings/paths"))["paths"]["saveMetadata"] is True


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"outputDirectory": "relative"}, "outputDirectory"),
        ({"vaeModelsPath": "/a/../b"}, "vaeModelsPath"),
        ({"modelsDirectory": "/no/such/folder"}, "modelsDirectory"),
        ({"modelsDirectory": "/a\nloras: /b"}, "modelsDirectory"),
        ({"saveMetadata": "perhaps"}, "saveMetadata"),
        ({"filenameFormat": 7}, "filenameFormat"),
    ],
)
def test_wrong_folders_are_named(control: Control, sent: dict[str, Any], field: str) -> None:
    answer = control.client.post("/api/settings/paths", json=sent)
    assert answer.status_code == 422
    assert body(answer)["error"]["field"] == field
    assert control.manager.restarts == 0


def test_model_folders_are_told_to_the_engine_by_kind(tmp_path: Path) -> None:
    for name in ("models/loras", "models/vae", "flat", "both"):
        (tmp_path / name).mkdir(parents=True)
    paths = ChosenPaths(models=tmp_path / "models", vae=tmp_path / "flat", loras=tmp_path / "both")
    assert model_folders(paths) == {
        "loras": f"{tmp_path}/models/loras\n{tmp_path}/both",
        "vae": f"{tmp_path}/models/vae\n{tmp_path}/flat",
        "embeddings": f"{tmp_path}/both",
    }
    assert model_folders(ChosenPaths(models=tmp_path / "flat")) == {"checkpoints": f"{tmp_path}/flat"}


def test_a_damaged_file_of_folders_means_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "paths.json").write_text("{")
    assert PathsFile(tmp_path).read() == ChosenPaths()


def test_the_name_to_save_under_follows_the_format() -> None:
    facts = {"seed": 7, "model_name": "a/b.safetensors", "prompt": 'a "red" circle'}
    assert title("[date]-[seed]-{model}", PICTURE, facts) == "20261122-7-a-b"
    assert title("%job%_[number] [prompt]", PICTURE, facts) == "3f2a9c1e0b7d_1 a -red- circle"
    assert title("../[what]", PICTURE, facts) == "[what]"
    assert title("///", PICTURE, facts) == PICTURE.removesuffix(".png")
    _, warnings = read_paths({"filenameFormat": "a/[what]", "other": 1})
    assert len(warnings) == 3


def test_a_picture_is_offered_under_that_name(control: Control) -> None:
    picture(control)
    control.client.post("/api/settings/paths", json={"filenameFormat": "mine-[time]-ü"})
    served = control.client.get(f"/images/{PICTURE}")
    assert served.headers["Content-Disposition"].startswith("inline; filename*=UTF-8''mine-143210-")
    served.close()


# Keys


def test_a_key_is_kept_for_its_owner_alone_and_never_shown(control: Control, caplog: pytest.LogCaptureFixture) -> None:
    sent = {"alias": "SERVICE", "api-key": "very secret words"}
    answers = [control.client.post("/api/add-api-key", json=sent) for _ in range(2)]
    answers.append(control.client.post("/api/add-api-key", json={**sent, "alias": "a/b"}))
    answers.append(control.client.post("/api/add-api-key", json={**sent, "api-key": "very secret\nwords"}))
    assert [answer.status_code for answer in answers] == [200, 200, 422, 422]
    assert not any("secret" in answer.text for answer in answers)
    assert "secret" not in caplog.text
    file = control.backend.settings.data_dir / "api-keys.json"
    assert KeyRing(file.parent).get("SERVICE") == "very secret words"
    if sys.platform != "win32":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_damaged_file_of_keys_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "api-keys.json").write_text("very secret {")
    with pytest.raises(StorageFailed) as failed:
        KeyRing(tmp_path).add("a", "b")
    assert "secret" not in failed.value.message
    assert (tmp_path / "api-keys.json").read_text() == "very secret {"


# The engine


def test_an_engine_of_others_is_looked_at_only(tmp_path: Path) -> None:
    manager = EngineManager(EngineClient("http://127.0.0.1:9"), None, list, lambda: 0)
    told = manager.state()
    assert told["state"] == "external"
    assert told["answers"] is False
    with pytest.raises(NotPossible):
        manager.restart(when_idle=False)
    with pytest.raises(DreamLayerError):
        manager.free()


def test_what_an_engine_says_of_itself_is_told_without_its_command() -> None:
    stats = {
        "system": {"comfyui_version": "0.30.0", "python_version": "3.11.2 (main)", "argv": ["/secret"], "ram_total": 8},
        "devices": [{"name": "cpu", "type": "cpu", "vram_total": 8, "vram_free": 4}, "nonsense"],
    }
    told = described(stats)
    assert told["version"] == "0.30.0"
    assert told["python"] == "3.11.2"
    assert told["devices"] == [{"name": "cpu", "type": "cpu", "memory": {"total": 8, "free": 4}}]
    assert "secret" not in json.dumps(told)


class IdleEngine(EngineClient):
    """Answers that it has so many jobs."""

    jobs = 1

    def queue(self, timeout: float = 0) -> tuple[frozenset[str], frozenset[str]]:
        return frozenset(map(str, range(self.jobs))), frozenset()


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_restart_that_waits_comes_when_the_engine_is_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.engine.manager.LOOK", 0.02)
    monkeypatch.setattr("shared.child.FIRST_DELAY", 30.0)
    script = tmp_path / "script.py"
    script.write_text("import sys, time\nprint(sys.argv[1:], flush=True)\ntime.sleep(60)\n")
    child = Child("thing", [script, "old"], python=sys.executable, folder=tmp_path, log_path=tmp_path / "log")
    keeper = Keeper(child, lambda: child.pid is not None and child.last_lines() != "", 20)
    engine = IdleEngine("http://127.0.0.1:9")
    manager = EngineManager(engine, keeper, lambda: [str(script), "new"], lambda: 0)
    try:
        keeper.start()
        keeper.wait_ready()
        first = child.pid
        manager.restart(when_idle=True)
        time.sleep(0.3)
        assert child.pid == first
        assert manager.restart_pending
        engine.jobs = 0
        wait_until(lambda: keeper.restarts == 1 and keeper.state == "ready")
        assert child.last_lines() == "['new']"
        wait_until(lambda: not manager.restart_pending)
        manager.restart(when_idle=False)
        wait_until(lambda: keeper.restarts == 2 and keeper.state == "ready")
    finally:
        manager.close()
        keeper.stop()


def test_the_flag_of_a_restart_is_read(control: Control) -> None:
    assert control.client.post("/api/engine/restart").status_code == 202
    assert body(control.client.post("/api/engine/restart", json={"when_idle": True}))["when_idle"] is True
    assert control.client.post("/api/engine/restart", json={"when_idle": "maybe"}).status_code == 422
    assert control.client.post("/api/engine/free").status_code == 503
    assert control.client.get("/api/engine").status_code == 200
