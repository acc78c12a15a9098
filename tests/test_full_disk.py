"""On a full disk, jobs are cancelled and deleted. New jobs are rejected with the space that they need."""

import io
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy.engine import Connection

from shared.errors import Cancelled, StorageFailed
from shared.files import write_atomic
from shared.jobs import disk_reserve as module
from shared.jobs.disk_reserve import Reserve
from shared.jobs.job import JobRow, JobSpec, State
from shared.jobs.picture_names import filename_prefix, with_prefix
from shared.jobs.store import Store
from shared.settings import Settings
from shared.web.app import create_app
from shared.web.backend import Backend
from shared.web.routes.jobs import job_routes, txt2img_interrupt_routes
from shared.web.routes.pictures import picture_routes
from shared.web.routes.report import report_routes
from shared.web.routes.runs import run_routes
from tests.fake_engine import FakeEngine
from tests.golden_graphs import draw
from tests.harness import Harness, new_job, wait_for
from tests.stack import encoded
from tests.test_store import new

MANY = 10_000
ERROR = Cancelled("the job was cancelled").as_dict()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if sys.platform != "linux":
        pytest.skip("a small disk is made with Linux's tmpfs")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> None:
    """Fill the disk to the last byte, as another program may."""
    with (disk / "others").open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    assert shutil.disk_usage(disk).free == 0


def fill_except(disk: Path, size: int) -> None:
    """Fill the disk, except for `size` bytes."""
    (disk / "others").write_bytes(bytes(shutil.disk_usage(disk).free - size))


def add(store: Store, text: str = "", **fields: Any) -> JobRow:
    return store.add(new(spec=JobSpec({"prompt": text}), **fields), "me", MANY)[0]


def test_jobs_are_cancelled_finished_and_deleted_on_a_full_disk(small_disk: Path) -> None:
    store = Store(f"sqlite:///{small_disk}/jobs.sqlite")
    rows = [add(store, "x" * 20_000) for _ in range(20)]
    fill(small_disk)
    with pytest.raises(StorageFailed, match=r"full .*0\.0 MB free, 1\.\d MB needed"):
        add(store, "x" * 1_000_000)
    for row in rows[:10]:
        assert store.cancel(row.id, ERROR)
        assert store.delete(row.id, lambda _: None)
        # Another program takes all space that becomes free.
        fill(small_disk)
    assert store.finish(rows[10], "me", State.COMPLETED)
    store.beat("me")
    store.deregister("me")
    assert store.page(states=[State.CANCELLED]).rows == []
    store.close()


def test_the_reserve_is_not_used_for_new_jobs_and_is_restored(small_disk: Path) -> None:
    store = Store(f"sqlite:///{small_disk}/jobs.sqlite")
    rows = [add(store)]
    fill(small_disk)
    message = "could not be saved: the disk of the data folder is full"
    # Some jobs still fit into the free pages of the database.
    with pytest.raises(StorageFailed, match=message):
        rows.extend(add(store) for _ in range(1000))
    reserve = small_disk / "jobs.sqlite-reserve"
    assert reserve.is_file()
    for row in rows:
        assert store.cancel(row.id, ERROR)
    assert not reserve.exists()
    with pytest.raises(StorageFailed, match=message):
        add(store)
    (small_disk / "others").unlink()
    store.refill_reserve()
    assert reserve.is_file()
    row = add(store)
    fill(small_disk)
    assert store.cancel(row.id, ERROR)
    store.close()


def test_a_database_is_opened_on_a_full_disk(small_disk: Path) -> None:
    store = Store(f"sqlite:///{small_disk}/jobs.sqlite")
    row = add(store)
    store.close()
    fill(small_disk)
    start = time.monotonic()
    reopened = Store(f"sqlite:///{small_disk}/jobs.sqlite")
    assert reopened.cancel(row.id, ERROR)
    assert reopened.delete(row.id, lambda _: None)
    reopened.close()
    # SQLite's lock timeout does not apply to a full disk.
    assert time.monotonic() - start < 20


@pytest.fixture
def backend(small_disk: Path) -> Iterator[Backend]:
    backend = Backend(Settings(engine_url="http://127.0.0.1:9", data_dir=small_disk))
    yield backend
    backend.stop()


@pytest.fixture
def client(backend: Backend) -> FlaskClient:
    routes = [job_routes, run_routes, report_routes, picture_routes]
    routes += [txt2img_interrupt_routes]
    return create_app("txt2img", backend.settings, routes, backend).test_client()


def completed_job(backend: Backend, size: int) -> JobRow:
    """A completed job with a picture of `size` bytes."""
    job = new()
    prefix = filename_prefix(job.id, datetime.now())
    job = replace(job, spec=JobSpec(graph=with_prefix(draw(), prefix)))
    row, _ = backend.jobs.store.add(job, "me", MANY)
    path = backend.settings.output_dir / f"{prefix}_00001_.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    image = {"filename": path.name, "subfolder": path.parent.name, "type": "output"}
    finished = backend.jobs.store.finish(row, "me", State.COMPLETED, images=[image])
    assert finished is not None
    return finished


def test_the_api_cancels_and_deletes_jobs_on_a_full_disk(
    backend: Backend, client: FlaskClient, small_disk: Path
) -> None:
    completed, run = completed_job(backend, 100_000), completed_job(backend, 100_000)
    queued = add(backend.jobs.store)
    waiting = add(backend.jobs.store)
    fill(small_disk)
    reply = client.delete(f"/api/jobs/{waiting.id}")
    assert (reply.status_code, reply.get_json()["done"]) == (200, "cancelled")
    reply = client.post("/api/txt2img/interrupt", json={"job_id": queued.id})
    assert (reply.status_code, reply.get_json()["cancelled"]) == (200, True)
    fill(small_disk)
    refused = next(
        reply for _ in range(300) if (reply := client.post(f"/api/jobs/{completed.id}/retry")).status_code != 202
    )
    assert (refused.status_code, refused.get_json()["error"]["disk_full"]) == (507, True)
    assert "MB free" in refused.get_json()["message"]
    picture = {"file": (io.BytesIO(encoded(Image.effect_noise((256, 256), 90))), "a.png")}
    refused = client.post("/api/upload-controlnet-image", data=picture)
    assert (refused.status_code, refused.get_json()["error"].get("disk_full")) == (507, True)
    refused = client.post("/api/report-bundle", json={"run_ids": [run.id]})
    assert (refused.status_code, refused.get_json()["error"].get("disk_full")) == (507, True)
    assert client.delete(f"/api/runs/{run.id}").status_code == 200
    while jobs := client.get("/api/jobs").get_json()["jobs"]:
        for job in jobs:
            # The first request cancels an unfinished job.
            assert client.delete(f"/api/jobs/{job['job_id']}").status_code == 200
    assert not list(backend.settings.output_dir.rglob("*.png"))


def test_deleting_pictures_frees_space_without_a_reserve(
    backend: Backend, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [completed_job(backend, 300_000) for _ in range(2)]
    # An upgrade from a version without a reserve, on a full disk.
    monkeypatch.setattr(Reserve, "release", lambda _: None)
    fill(small_disk)
    for row in rows:
        assert backend.jobs.files.delete_job(row)
    assert backend.jobs.store.page().rows == []


def test_a_running_job_is_cancelled_in_the_engine_too(small_disk: Path, engine: FakeEngine) -> None:
    engine.seconds = 30
    harness = Harness(small_disk, engine)
    harness.start()
    job_id = harness.submit()
    harness.wait(job_id, State.RUNNING)
    fill(small_disk)
    assert harness.runner.cancel(job_id)
    wait_for(lambda: job_id in engine.cancelled, "the cancellation did not reach the engine")
    assert harness.row(job_id).state is State.CANCELLED
    harness.close()


def test_uploads_of_a_job_rejected_for_lack_of_space_are_removed(small_disk: Path, engine: FakeEngine) -> None:
    harness = Harness(small_disk, engine)
    fill_except(small_disk, 300_000)
    with pytest.raises(StorageFailed):
        harness.runner.submit(
            new_job(spec={"parameters": {"prompt": "x" * 1_000_000}}), {"a.png": bytes(100_000)}, limit=100
        )
    assert not list((small_disk / "uploads").iterdir())
    harness.close()


def test_jobs_are_finished_and_deleted_without_a_free_page(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite")
    rows = [add(store, "x" * (3_000 + number)) for number in range(40)]

    def no_more_pages(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")

    sa.event.listen(store._engine, "begin", no_more_pages)
    for row in rows[:20]:
        assert store.cancel(row.id, ERROR)
    for row in rows[20:]:
        assert store.finish(row, "me", State.FAILED, error=ERROR)
    with pytest.raises(StorageFailed, match="full"):
        add(store, "x" * 1_000_000)
    for row in rows:
        assert store.delete(row.id, lambda _: None)
    store.close()


def test_the_full_disk_error_names_free_and_needed_space(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(StorageFailed, match=r"^keys .* is full \(0\.0 MB free, 2\.0 MB needed\)") as raised:
        write_atomic(small_disk / "keys", bytes(2_000_000), "keys")
    assert raised.value.details["disk_full"] is True
    assert not list(small_disk.glob(".*"))


def test_other_database_errors_do_not_count_as_a_full_disk(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite")
    row = add(store)
    with store._write() as connection:
        connection.exec_driver_sql("ALTER TABLE events RENAME TO gone")
    with pytest.raises(StorageFailed, match="no such table") as raised:
        store.cancel(row.id, ERROR)
    assert "disk_full" not in raised.value.details
    assert (tmp_path / "jobs.sqlite-reserve").is_file()
    store.close()


def test_the_reserve_on_a_small_disk_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage: Any = lambda _: shutil._ntuple_diskusage(16_000, 1_000, 15_000)  # type: ignore[attr-defined]  # noqa: E731
    monkeypatch.setattr(module.shutil, "disk_usage", usage)
    assert Reserve(tmp_path / "jobs.sqlite").fill()
    assert (tmp_path / "jobs.sqlite-reserve").stat().st_size == 2_000
