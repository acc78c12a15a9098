"""Folders and options chosen on the web page, and names of downloads."""

import json
from pathlib import Path
from typing import Any

import pytest

from shared.engine.process import engine_command, extra_model_folders
from shared.paths import FILE, ChosenPaths, PathsFile
from shared.settings import Settings
from shared.web.picture_reply import download_name
from shared.web.routes.settings import read_paths
from tests.control import PICTURE, Control, body, picture


def test_unchanged_fields_of_the_page_mean_the_defaults(control: Control) -> None:
    names = ("outputDirectory", "modelsDirectory", "controlNetModelsPath", "upscalerModelsPath", "vaeModelsPath")
    sent = {**dict.fromkeys(names, "/path/to/some/folder"), "loraEmbeddingsPath": ""}
    sent["filenameFormat"] = "paste the path if it is outside project root"
    answer = control.client.post("/api/settings/paths", json={**sent, "saveMetadata": True})
    assert body(answer)["status"] == "success"
    assert body(answer)["restart"] is False
    assert control.manager.restarts == 0
    assert control.backend.paths.read() == ChosenPaths()


def test_placeholders_in_older_files_mean_the_defaults(control: Control, tmp_path: Path) -> None:
    stored = {
        "output": "/path/to/outputs", "models": "/path/to/parent/models", "controlnet": "", "vae": "path/to/vae",
        "filename_format": "paste the path if it is outside project root", "save_metadata": True,
    }  # fmt: skip
    (tmp_path / FILE).write_text(json.dumps(stored), "utf-8")
    assert control.backend.paths.read() == ChosenPaths()
    reply = body(control.client.get("/api/settings/paths"))["paths"]
    assert {name for name, value in reply.items() if value is not None} == {"saveMetadata"}
    path = picture(control)
    assert "Content-Disposition" not in control.client.get(f"/api/images/{path.name}", buffered=True).headers
    # Real choices next to placeholders are preserved.
    (tmp_path / FILE).write_text(json.dumps({**stored, "loras": str(tmp_path), "filename_format": "[seed]"}), "utf-8")
    assert PathsFile(tmp_path).read() == ChosenPaths(loras=tmp_path, filename_format="[seed]")


@pytest.mark.parametrize("chosen", [None, "mine-[time]"])
def test_a_picture_can_be_requested_as_a_download(control: Control, chosen: str | None) -> None:
    control.backend.paths.write(ChosenPaths(filename_format=chosen))
    path = picture(control)
    stem = path.stem if chosen is None else "mine-143210"

    def disposition(address: str) -> str | None:
        answer = control.client.get(address, buffered=True)
        assert (answer.status_code, answer.content_type) == (200, "image/png")
        return answer.headers.get("Content-Disposition")

    for folder in ("/images", "/api/images"):
        for value in ("=1", "=true", "", "="):
            header = disposition(f"{folder}/{path.name}?download{value}")
            assert header == f"attachment; filename*=UTF-8''{stem}.png"
        for shown in ("", "?download=0"):
            header = disposition(f"{folder}/{path.name}{shown}")
            assert header == (None if chosen is None else f"inline; filename*=UTF-8''{stem}.png")
    wrong = control.client.get(f"/api/images/{path.name}?download=perhaps")
    assert (wrong.status_code, body(wrong)["error"]["field"]) == (422, "download")


def test_an_external_engine_keeps_its_folders(control: Control, tmp_path: Path) -> None:
    control.manager.is_ours = False
    answer = control.client.post("/api/settings/paths", json={"filenameFormat": "[seed]"})
    assert (answer.status_code, body(answer)["restart"]) == (200, False)
    for sent in ({"outputDirectory": str(tmp_path)}, {"saveMetadata": False}):
        answer = control.client.post("/api/settings/paths", json={**sent, "filenameFormat": "[date]"})
        assert answer.status_code == 409
        assert "saveMetadata" in body(answer)["message"]
    # No part of a refused request is stored.
    assert control.backend.paths.read() == ChosenPaths(filename_format="[seed]")
    assert control.manager.restarts == 0


def test_folders_are_stored_and_the_engine_is_restarted(control: Control, tmp_path: Path) -> None:
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
    assert control.backend.jobs.files.pictures.find(PICTURE) is not None
    # Pictures in the previous folder are still found.
    assert body(control.client.post("/api/settings/paths", json={}))["paths"]["outputDirectory"] is None
    assert control.backend.jobs.files.pictures.find(PICTURE) is not None
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
        ({"filenameFormat": "a\ud800"}, "filenameFormat"),
        ({"modelsDirectory": f"/{'x' * 300}"}, "modelsDirectory"),
    ],
)
def test_invalid_folders_are_refused(control: Control, sent: dict[str, Any], field: str) -> None:
    answer = control.client.post("/api/settings/paths", json=sent)
    assert answer.status_code == 422
    assert body(answer)["error"]["field"] == field
    assert control.manager.restarts == 0


def test_model_folders_are_passed_to_the_engine_by_kind(tmp_path: Path) -> None:
    for name in ("models/loras", "models/vae", "flat", "both"):
        (tmp_path / name).mkdir(parents=True)
    paths = ChosenPaths(models=tmp_path / "models", vae=tmp_path / "flat", loras=tmp_path / "both")
    assert extra_model_folders(paths) == {
        "loras": f"{tmp_path}/models/loras\n{tmp_path}/both",
        "vae": f"{tmp_path}/models/vae\n{tmp_path}/flat",
        "embeddings": f"{tmp_path}/both",
    }
    assert extra_model_folders(ChosenPaths(models=tmp_path / "flat")) == {"checkpoints": f"{tmp_path}/flat"}


def test_a_damaged_paths_file_means_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "paths.json").write_text("{")
    assert PathsFile(tmp_path).read() == ChosenPaths()


def test_the_download_name_follows_the_format() -> None:
    facts = {"seed": 7, "model_name": "a/b.safetensors", "prompt": 'a "red" circle'}
    assert download_name("[date]-[seed]-{model}", PICTURE, facts) == "20261122-7-a-b"
    assert download_name("%job%_[number] [prompt]", PICTURE, facts) == "3f2a9c1e0b7d_1 a -red- circle"
    assert download_name("../[what]", PICTURE, facts) == "[what]"
    assert download_name("///", PICTURE, facts) == PICTURE.removesuffix(".png")
    _, warnings = read_paths({"filenameFormat": "a/[what]", "other": 1})
    assert len(warnings) == 3


def test_a_picture_is_served_with_its_download_name(control: Control) -> None:
    picture(control)
    control.client.post("/api/settings/paths", json={"filenameFormat": "mine-[time]-ü"})
    served = control.client.get(f"/images/{PICTURE}")
    assert served.headers["Content-Disposition"].startswith("inline; filename*=UTF-8''mine-143210-")
    served.close()
