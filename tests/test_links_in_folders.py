"""Symbolic links out of our folders are not followed; folders that are links themselves work."""

import io
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image

from launcher.models.library import list_models
from shared.engine.client import SavedImage
from shared.errors import StorageFailed
from shared.files import is_within
from shared.jobs.files import UploadFiles
from shared.jobs.picture_names import with_prefix
from shared.paths import ChosenPaths
from shared.settings import Settings
from shared.web.app import create_app
from shared.web.backend import Backend
from shared.web.routes.pictures import picture_page_routes, picture_routes
from shared.web.routes.report import ReportFolder, report_routes
from shared.web.routes.runs import run_routes
from tests.control import Control
from tests.golden_graphs import draw
from tests.job_factory import finish
from tests.payloads import ORIGIN
from tests.safetensors_factory import write_safetensors
from tests.stack import encoded

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows makes links for administrators alone")

DAY, NAME = "20261122", "20261122-143210-3f2a9c1e0b7d_00001_.png"
IMAGE = {"filename": NAME, "subfolder": DAY, "type": "output"}
GRAPH = with_prefix(draw(), f"{DAY}/{NAME.removesuffix('_00001_.png')}")


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    backend = Backend(Settings(data_dir=tmp_path / "data"))
    # ComfyUI follows links.
    follow: Any = lambda image: (backend.settings.output_dir / image.subfolder / image.filename).read_bytes()  # noqa: E731
    monkeypatch.setattr(backend.engine, "download_image", follow)
    yield backend
    backend.stop()


@pytest.fixture
def client(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    monkeypatch.setattr(
        "shared.web.routes.pictures.show_in_file_manager", lambda path: pytest.fail(f"{path} was shown")
    )
    routes = [picture_routes, run_routes, report_routes, picture_page_routes]
    return create_app("control", backend.settings, routes, backend).test_client()


@pytest.fixture(params=["file", "folder", "folder of another day", "circle"])
def outside(backend: Backend, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A file outside the output folder, reached through a link in that folder: to the file or to its folder."""
    private, output = tmp_path / "private", backend.settings.output_dir
    private.mkdir()
    picture = private / NAME
    picture.write_bytes(encoded(Image.new("RGB", (8, 8), "red")))
    output.mkdir(parents=True)
    if request.param == "file":
        (output / DAY).mkdir()
        (output / DAY / NAME).symlink_to(picture)
    elif request.param == "folder":
        (output / DAY).symlink_to(private, target_is_directory=True)
    elif request.param == "circle":
        (output / DAY).mkdir()
        (output / DAY / NAME).symlink_to(output / DAY / NAME)
    else:
        (output / "other").symlink_to(private, target_is_directory=True)
        (output / DAY).symlink_to("other", target_is_directory=True)
    return picture


def test_a_picture_behind_a_link_is_not_served(client: FlaskClient, outside: Path) -> None:
    assert outside.is_file()
    for ending in ("png", "webp", "jpg"):
        name = f"{NAME.removesuffix('.png')}.{ending}"
        for path in (f"/api/images/{name}", f"/images/{name}"):
            assert client.get(path).status_code == 404
    for route in ("send-to-img2img", "send-to-extras", "show-in-folder"):
        assert client.post(f"/api/{route}", json={"filename": NAME}).status_code == 404


def test_a_picture_behind_a_link_is_not_measured_counted_or_changed(backend: Backend, outside: Path) -> None:
    before = outside.read_bytes()
    pictures, row = backend.jobs.files.pictures, finish(backend)
    assert (pictures.find(NAME), pictures.dimensions(NAME)) == (None, None)
    assert backend.jobs.picture_with_parameters(SavedImage(**IMAGE), row) is None
    assert pictures.disk_usage([IMAGE]) == 0
    pictures.embed_parameters(row, NAME)
    assert outside.read_bytes() == before


def test_a_picture_behind_a_link_is_not_in_a_report(backend: Backend, client: FlaskClient, outside: Path) -> None:
    row = finish(backend, pictures=0)
    with backend.jobs.store._write() as connection:
        connection.exec_driver_sql("UPDATE jobs SET images = ? WHERE id = ?", (json.dumps([IMAGE]), row.id))
    report = client.post("/api/report-bundle", json={"run_ids": [row.id]}).get_json()
    assert report["missing"] == [NAME]
    with zipfile.ZipFile(io.BytesIO(client.get("/api/report-bundle/download", buffered=True).data)) as archive:
        assert not [name for name in archive.namelist() if name.startswith("images/")]
    assert outside.is_file()


def test_a_file_behind_a_link_is_not_deleted(backend: Backend, outside: Path) -> None:
    backend.jobs.files.pictures.remove(GRAPH)
    assert outside.is_file()


@pytest.mark.parametrize("chosen", [False, True])
def test_an_output_folder_that_is_a_link_works(
    backend: Backend, client: FlaskClient, tmp_path: Path, *, chosen: bool
) -> None:
    disk, link = tmp_path / "disk", tmp_path / "pictures" if chosen else backend.settings.output_dir
    (disk / DAY).mkdir(parents=True)
    (disk / DAY / NAME).write_bytes(encoded(Image.new("RGB", (8, 8), "red")))
    link.symlink_to(disk, target_is_directory=True)
    if chosen:
        backend.paths.write(ChosenPaths(output=link))
    assert client.get(f"/api/images/{NAME}", buffered=True).status_code == 200
    assert backend.jobs.files.pictures.dimensions(NAME) == (8, 8)
    backend.jobs.files.pictures.remove(GRAPH)
    assert not list((disk / DAY).iterdir())


def test_an_upload_behind_a_link_is_not_read_and_is_overwritten(tmp_path: Path) -> None:
    private, name = tmp_path / "private", f"{'0' * 64}.png"
    private.write_bytes(b"something")
    uploads = UploadFiles(tmp_path / "uploads")
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / name).symlink_to(private)
    assert uploads.find(name) is None
    with pytest.raises(StorageFailed, match="replaced by a link"):
        uploads.read(name)
    # The content is as long as the target of the link.
    uploads.write(name, b"a picture")
    assert (uploads.read(name), private.read_bytes()) == (b"a picture", b"something")
    uploads.remove(name)
    assert private.is_file()


def test_an_uploads_folder_that_is_a_link_works(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "uploads").symlink_to(tmp_path / "disk", target_is_directory=True)
    uploads = UploadFiles(tmp_path / "uploads")
    uploads.write("a.png", b"png")
    assert (uploads.find("a.png"), (tmp_path / "disk" / "a.png").read_bytes()) == (b"png", b"png")


def test_the_engines_copy_of_an_upload_is_not_deleted_behind_a_link(backend: Backend, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "a.png").write_bytes(b"png")
    backend.settings.input_dir.mkdir(parents=True)
    (backend.settings.input_dir / "dream-layer").symlink_to(tmp_path / "private", target_is_directory=True)
    backend.jobs.files.pictures.remove_upload_copy("dream-layer", "a.png")
    assert (tmp_path / "private" / "a.png").is_file()


def test_a_report_behind_a_link_is_not_served(tmp_path: Path) -> None:
    name = f"report-{1:019}.zip"
    (tmp_path / "private").write_bytes(b"PK")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / name).symlink_to(tmp_path / "private")
    bundles = ReportFolder(tmp_path / "reports")
    assert (bundles.newest(), bundles.find(name)) == (None, None)


@pytest.mark.parametrize("linked", ["models", "models/loras"])
def test_models_folders_that_are_links_work(control: Control, tmp_path: Path, linked: str) -> None:
    disk, link = tmp_path / "disk", control.backend.settings.data_dir / linked
    disk.mkdir()
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(disk, target_is_directory=True)
    content = write_safetensors(tmp_path / "sent", {"lora.up": ("F16", (8, 8))}).read_bytes()
    form = {"file": (io.BytesIO(content), "a.safetensors"), "model_type": "loras"}
    assert control.client.post("/api/upload-model", data=form, headers={"Origin": ORIGIN}).status_code == 200
    assert [model.name for model in list_models(control.models)] == ["a.safetensors"]
    assert next(disk.rglob("a.safetensors")).read_bytes() == content


def test_a_link_inside_a_folder_does_not_lead_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "folder" / "real").mkdir(parents=True)
    (tmp_path / "folder" / "link").symlink_to("real", target_is_directory=True)
    (tmp_path / "folder" / "out").symlink_to(tmp_path, target_is_directory=True)
    assert is_within(tmp_path / "folder" / "link" / "a", tmp_path / "folder")
    assert not is_within(tmp_path / "folder" / "out" / "a", tmp_path / "folder")
    assert not is_within(tmp_path / "folder-beside", tmp_path / "folder")
