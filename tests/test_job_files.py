"""What jobs leave on disk, and how it goes: by hand, by number, by age, by size; and nothing that others need."""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from shared.jobs import files as module
from shared.jobs.files import DAY, MARK, JobFiles, PictureFiles, Retention, UploadFiles
from shared.jobs.job import JobRow, JobSpec, NewJob, State
from shared.jobs.picture_names import filename_prefix
from shared.jobs.store import Store

FOLDER = "dream-layer"


class Cellar:
    """An archive with its store and its folders, and ways to fill it."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.uploads, self.inputs, self.outputs = folder / "uploads", folder / "input", folder / "output"
        self.store = Store(f"sqlite:///{folder}/jobs.sqlite")
        self.archive = JobFiles(
            self.store, UploadFiles(self.uploads), PictureFiles(self.outputs, self.inputs), Retention(**limits)
        )

    def add(self, *uploads: str) -> JobRow:
        job_id = str(uuid.uuid4())
        save = {"class_type": "SaveImage", "inputs": {"filename_prefix": filename_prefix(job_id, datetime.now())}}
        spec = JobSpec(graph={"Save": save}, uploads=dict.fromkeys(uploads, FOLDER))
        for name in uploads:
            self.archive.uploads.write(name, b"png")
            (self.inputs / FOLDER).mkdir(parents=True, exist_ok=True)
            (self.inputs / FOLDER / name).write_bytes(b"png")
        return self.store.add(NewJob(job_id, "txt2img", "", "txt2img", spec), "me", 1000)[0]

    def save(self, job: JobRow, size: int, number: int = 1) -> Path:
        """A picture of that many bytes."""
        path = self.outputs / f"{job.spec.graph['Save']['inputs']['filename_prefix']}_{number:05}_.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        return path

    def finished(self, *uploads: str, size: int = 1) -> tuple[JobRow, Path]:
        job = self.add(*uploads)
        path = self.save(job, size)
        image = {"filename": path.name, "subfolder": path.parent.name, "type": "output"}
        self.store.finish(job, "me", State.COMPLETED, images=[image])
        return job, path

    def files(self) -> list[Path]:
        return sorted(path for path in self.outputs.rglob("*.png"))


Open = Callable[..., Cellar]


@pytest.fixture
def open_cellar(tmp_path: Path) -> Iterator[Open]:
    cellars = []

    def open_cellar(**limits: Any) -> Cellar:
        cellars.append(Cellar(tmp_path, **limits))
        return cellars[-1]

    yield open_cellar
    for cellar in cellars:
        cellar.store.close()


def test_only_the_newest_jobs_are_kept(open_cellar: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    cellar = open_cellar(count=2)
    jobs = [cellar.finished() for _ in range(5)]
    running = cellar.save(cellar.add(), 1)
    assert cellar.archive.expire(time.time()) == 3
    assert cellar.files() == sorted([jobs[3][1], jobs[4][1], running])
    assert [job.id for job in cellar.store.page(states=[State.COMPLETED]).rows] == [jobs[4][0].id, jobs[3][0].id]
    assert cellar.archive.expire(time.time()) == 0


def test_jobs_are_kept_for_days(open_cellar: Open) -> None:
    cellar = open_cellar(days=2.0)
    cellar.finished()
    unfinished = cellar.add()
    assert cellar.archive.expire(time.time() + 1.9 * DAY) == 0
    assert cellar.archive.expire(time.time() + 2.1 * DAY) == 1
    assert [job.id for job in cellar.store.page().rows] == [unfinished.id]
    assert cellar.files() == []


def test_as_many_jobs_are_kept_as_fit(open_cellar: Open) -> None:
    cellar = open_cellar(megabytes=1)
    jobs = [cellar.finished(size=400_000) for _ in range(4)]
    assert cellar.archive.expire(time.time()) == 2
    assert cellar.files() == sorted(path for _, path in jobs[2:])


def test_the_newest_job_is_kept_however_large_it_is(open_cellar: Open) -> None:
    cellar = open_cellar(megabytes=1)
    _, (_, newest) = cellar.finished(size=100_000), cellar.finished(size=2_000_000)
    assert cellar.archive.expire(time.time()) == 1
    assert cellar.files() == [newest]


def test_without_limits_everything_is_kept(open_cellar: Open) -> None:
    cellar = open_cellar()
    cellar.finished()
    assert cellar.archive.expire(time.time() + 1000 * DAY) == 0
    assert len(cellar.files()) == 1


def test_a_forgotten_job_takes_its_own_files_with_it(open_cellar: Open) -> None:
    cellar = open_cellar()
    (job, _), (other, kept) = cellar.finished("both.png", "mine.png"), cellar.finished("both.png")
    cellar.save(job, 1, number=2)
    stranger = kept.with_name("stranger_00001_.png")
    stranger.write_bytes(b"")
    assert cellar.archive.delete_job(job)
    assert not cellar.archive.delete_job(job)
    assert cellar.files() == sorted([kept, stranger])
    for folder in (cellar.uploads, cellar.inputs / FOLDER):
        assert [path.name for path in folder.iterdir()] == ["both.png"]
    kept.unlink()
    assert cellar.archive.delete_job(other)
    assert list(cellar.uploads.iterdir()) == []


def test_a_picture_that_was_sent_alone_outlives_its_jobs(open_cellar: Open) -> None:
    cellar = open_cellar(days=2)
    cellar.archive.add_standalone_upload("mine.png", b"png")
    cellar.archive.add_standalone_upload("used.png", b"png")
    job, _ = cellar.finished("mine.png")
    assert cellar.archive.delete_job(job)
    assert cellar.archive.uploads.find("mine.png") == b"png"
    cellar.add("used.png")
    cellar.archive.expire(time.time() + DAY)
    assert cellar.archive.uploads.find("mine.png") == b"png"
    cellar.archive.expire(time.time() + 3 * DAY)
    assert [path.name for path in cellar.uploads.iterdir()] == ["used.png"]


def test_what_is_sent_alone_again_during_a_sweep_stays(open_cellar: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    cellar = open_cellar(days=2)
    cellar.archive.add_standalone_upload("mine.png", b"png")
    os.utime(cellar.uploads / f"mine.png{MARK}", (0, 0))
    find = cellar.archive.uploads.standalone_before

    def slow(before: float) -> list[str]:
        found = find(before)
        cellar.archive.add_standalone_upload("mine.png", b"png")
        return found

    monkeypatch.setattr(cellar.archive.uploads, "standalone_before", slow)
    cellar.archive.expire(time.time())
    assert cellar.archive.uploads.find("mine.png") == b"png"
    assert cellar.archive.uploads.is_standalone("mine.png")


def test_a_job_that_is_accepted_during_a_sweep_has_its_picture(
    open_cellar: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    cellar = open_cellar(days=2)
    cellar.archive.add_standalone_upload("mine.png", b"png")
    remove = cellar.archive.uploads.remove

    def submit() -> None:
        cellar.add("mine.png")
        cellar.archive.write_uploads({"mine.png": b"png"})

    submitting = threading.Thread(target=submit)

    def slow(name: str) -> None:
        submitting.start()
        submitting.join(0.3)
        remove(name)

    monkeypatch.setattr(cellar.archive.uploads, "remove", slow)
    cellar.archive.expire(time.time() + 3 * DAY)
    submitting.join()
    assert cellar.archive.uploads.find("mine.png") == b"png"


def test_a_mark_that_another_sweep_removed_is_no_error(tmp_path: Path) -> None:
    assert not UploadFiles(tmp_path).is_standalone_before("mine.png", time.time())


def test_an_unfinished_job_is_not_forgotten(open_cellar: Open) -> None:
    cellar = open_cellar()
    job = cellar.add("mine.png")
    picture = cellar.save(job, 1)
    assert not cellar.archive.delete_job(job)
    assert cellar.files() == [picture]
    assert (cellar.uploads / "mine.png").exists()


@pytest.mark.parametrize("what", ["picture", "upload", "input"])
def test_a_file_that_cannot_be_removed_stays_and_the_job_goes(open_cellar: Open, what: str) -> None:
    cellar = open_cellar()
    job, picture = cellar.finished("mine.png")
    stubborn = {"picture": picture, "upload": cellar.uploads / "mine.png", "input": cellar.inputs / FOLDER / "mine.png"}
    stubborn[what].unlink()
    stubborn[what].mkdir()
    assert cellar.archive.delete_job(job)
    assert cellar.store.get(job.id) is None
