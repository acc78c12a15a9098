"""The control service for the web page: lists, prompts, pictures and keys."""

import json
import random
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.errors import StorageFailed
from shared.site_keys import KeyRing
from shared.web.routes.pictures import file_manager_command
from shared.web.routes.prompts import KINDS, suggest
from tests.control import PICTURE, Control, body, picture
from tests.payloads import ORIGIN


@pytest.mark.parametrize(
    ("route", "folder"), [("models", "checkpoints"), ("lora-models", "loras"), ("upscaler-models", "upscale_models")]
)
def test_lists_have_the_format_of_the_web_page(control: Control, route: str, folder: str) -> None:
    control.files[folder] = ["sub/one.safetensors"]
    response = control.client.get(f"/api/{route}", headers={"Origin": ORIGIN})
    expected = {"id": "sub/one.safetensors", "name": "one", "filename": "sub/one.safetensors"}
    assert body(response) == {"status": "success", "models": [expected]}
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


def test_controlnets_are_plain_names(control: Control) -> None:
    control.files["controlnet"] = ["canny.safetensors"]
    assert body(control.client.get("/api/controlnet/models"))["models"] == ["canny.safetensors"]


@pytest.mark.parametrize("kind", KINDS)
def test_suggestions_vary_and_are_reproducible(kind: Any) -> None:
    several = [suggest(kind, random.Random(seed)) for seed in range(200)]
    assert len(set(several)) > 150
    assert suggest(kind, random.Random(7)) == several[7]
    for text in several:
        parts = text.split(", ")
        assert len(parts) == len(set(parts)), text
        assert 20 < len(text) < 300


def test_a_suggestion_is_returned(control: Control) -> None:
    response = control.client.get("/api/fetch-prompt?type=negative")
    assert body(response)["status"] == "success"
    assert body(response)["prompt"]
    assert response.headers["Cache-Control"] == "no-store"
    assert control.client.get("/api/fetch-prompt?type=other").status_code == 422


def test_a_seed_makes_a_suggestion_reproducible(control: Control) -> None:
    def fetch(query: str) -> str:
        return str(body(control.client.get(f"/api/fetch-prompt?type=positive{query}"))["prompt"])

    assert len({fetch("&seed=7") for _ in range(5)}) == 1
    assert len({fetch(f"&seed={seed}") for seed in range(5)}) > 1
    assert len({fetch("") for _ in range(5)}) > 1


def test_img2txt_is_not_supported(control: Control) -> None:
    sent = {"input_image": "data:image/png;base64,AAAA", "prompt": "what is this?", "model": "blip", "seed": 42}
    response = control.client.post("/api/img2txt", json=sent, headers={"Origin": ORIGIN})
    assert (response.status_code, body(response)["status"]) == (501, "error")
    assert body(response)["error"]["code"] == "not_supported"
    assert "img2txt is not available" in body(response)["message"]
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


def test_a_picture_is_sent_to_a_tab_and_served_at_both_paths(control: Control) -> None:
    picture(control)
    for tab in ("img2img", "extras"):
        response = control.client.post(f"/api/send-to-{tab}", json={"filename": PICTURE})
        assert body(response)["status"] == "success"
        assert body(response)["url"].endswith(f"/api/images/{PICTURE}")
    # The page uses the name in the format that it requested.
    webp = PICTURE.replace(".png", ".webp")
    response = control.client.post("/api/send-to-img2img", json={"filename": webp})
    assert body(response)["url"].endswith(f"/api/images/{webp}")
    for address in ("/images/", "/api/images/"):
        served = control.client.get(address + PICTURE, headers={"Origin": ORIGIN})
        assert served.data == b"png"
        assert served.headers["Access-Control-Allow-Origin"] == ORIGIN
        served.close()


@pytest.mark.parametrize("name", ["../../etc/passwd", "other.png", 7, None])
def test_only_generated_pictures_can_be_shown_or_sent(
    control: Control, name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.web.routes.pictures.subprocess.Popen", None)
    for route in ("show-in-folder", "send-to-img2img", "send-to-extras"):
        assert control.client.post(f"/api/{route}", json={"filename": name}).status_code in (404, 422)


def test_without_a_desktop_the_error_has_the_path(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    path = picture(control)
    monkeypatch.setattr("shared.web.routes.pictures.file_manager_command", lambda *_: None)
    response = control.client.post("/api/show-in-folder", json={"filename": PICTURE})
    assert response.status_code == 409
    assert body(response)["message"] == "the machine of the service has no desktop"
    assert str(path) in body(response)["error"]["hint"]


def test_each_system_has_its_file_manager(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert file_manager_command(path, "darwin", {}) == ["open", "-R", str(path)]
    assert file_manager_command(path, "win32", {}) == ["explorer", f"/select,{path}"]
    assert file_manager_command(path, "linux", {"PATH": str(tmp_path)}) is None
    opener = tmp_path / "xdg-open"
    opener.touch(mode=0o755)
    assert file_manager_command(path, "linux", {"PATH": str(tmp_path), "DISPLAY": ":0"}) == [str(opener), str(tmp_path)]


def test_a_key_is_readable_only_by_its_owner_and_never_shown(
    control: Control, caplog: pytest.LogCaptureFixture
) -> None:
    sent = {"alias": "SERVICE", "api-key": "very secret words"}
    responses = [control.client.post("/api/add-api-key", json=sent) for _ in range(2)]
    responses.append(control.client.post("/api/add-api-key", json={**sent, "alias": "a/b"}))
    responses.append(control.client.post("/api/add-api-key", json={**sent, "api-key": "very secret\nwords"}))
    assert [response.status_code for response in responses] == [200, 200, 422, 422]
    assert "replaces the earlier one" not in body(responses[0])["message"]
    assert "replaces the earlier one" in body(responses[1])["message"]
    assert not any("secret" in response.text for response in responses)
    assert "secret" not in caplog.text
    file = control.backend.settings.data_dir / "api-keys.json"
    assert json.loads(file.read_text()) == {"SERVICE": "very secret words"}
    if sys.platform != "win32":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_damaged_key_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "api-keys.json").write_text("very secret {")
    with pytest.raises(StorageFailed) as failed:
        KeyRing(tmp_path).add("a", "b")
    assert "secret" not in failed.value.message
    assert (tmp_path / "api-keys.json").read_text() == "very secret {"
