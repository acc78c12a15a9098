"""Files of jobs: deleting a job or retention removes them, except those that other jobs use."""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from shared.jobs import retention as module
from shared.jobs.files import MARK, JobFiles, PictureFiles, UploadFiles
from shared.jobs.job import JobRow, JobSpec, NewJob, State
from shared.jobs.picture_names import filename_prefix
from shared.jobs.retention import DAY, Retention, RetentionLimits
from shared.jobs.store import Store

FOLDER = "dream-layer"


class FilesHarness:
    """The files of jobs with a store and folders, and methods to fill them."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.uploads, self.inputs, self.outputs = folder / "uploads", folder / "input", folder / "output"
        self.store = Store(f"sqlite:///{folder}/jobs.sqlite")
        self.files = JobFiles(self.store, UploadFiles(self.uploads), PictureFiles(self.outputs, self.inputs))
        self.retention = Retention(self.store, self.files, RetentionLimits(**limits))

    def add(self, *uploads: str) -> JobRow:
        job_id = str(uuid.uuid4())
        save = {"class_type": "SaveImage", "inputs": {"filename_prefix": filename_prefix(job_id, datetime.now())}}
        spec = JobSpec(graph={"Save": save}, uploads=dict.fromkeys(uploads, FOLDER))
        for name in uploads:
            self.files.uploads.write(name, b"png")
            (self.inputs / FOLDER).mkdir(parents=True, exist_ok=True)
            (self.inputs / FOLDER / name).write_bytes(b"png")
        return self.store.add(NewJob(job_id, "txt2img", "", "txt2img", spec), "me", 1000)[0]

    def save(self, job: JobRow, size: int, number: int = 1) -> Path:
        """Save a picture of `size` bytes."""
        path = self.outputs / f"{job.spec.graph['Save']['inputs']['filename_prefix']}_{number:05}_.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        return path

    def add_finished(self, *uploads: str, size: int = 1) -> tuple[JobRow, Path]:
        job = self.add(*uploads)
        path = self.save(job, size)
        image = {"filename": path.name, "subfolder": path.parent.name, "type": "output"}
        self.store.finish(job, "me", State.COMPLETED, images=[image])
        return job, path

    def saved_pictures(self) -> list[Path]:
        return sorted(path for path in self.outputs.rglob("*.png"))


Open = Callable[..., FilesHarness]


@pytest.fixture
def open_files(tmp_path: Path) -> Iterator[Open]:
    opened = []

    def open_files(**limits: Any) -> FilesHarness:
        opened.append(FilesHarness(tmp_path, **limits))
        return opened[-1]

    yield open_files
    for job_files in opened:
        job_files.store.close()


def test_only_the_newest_jobs_are_kept(open_files: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    job_files = open_files(count=2)
    jobs = [job_files.add_finished() for _ in range(5)]
    running = job_files.save(job_files.add(), 1)
    assert job_files.retention.apply(time.time()) == 3
    assert job_files.saved_pictures() == sorted([jobs[3][1], jobs[4][1], running])
    assert [job.id for job in job_files.store.page(states=[State.COMPLETED]).rows] == [jobs[4][0].id, jobs[3][0].id]
    assert job_files.retention.apply(time.time()) == 0


def test_jobs_older_than_the_limit_are_removed(open_files: Open) -> None:
    job_files = open_files(days=2.0)
    job_files.add_finished()
    unfinished = job_files.add()
    assert job_files.retention.apply(time.time() + 1.9 * DAY) == 0
    assert job_files.retention.apply(time.time() + 2.1 * DAY) == 1
    assert [job.id for job in job_files.store.page().rows] == [unfinished.id]
    assert job_files.saved_pictures() == []


def test_the_oldest_jobs_are_removed_until_the_pictures_fit(open_files: Open) -> None:
    job_files = open_files(megabytes=1)
    jobs = [job_files.add_finished(size=400_000) for _ in range(4)]
    assert job_files.retention.apply(time.time()) == 2
    assert job_files.saved_pictures() == sorted(path for _, path in jobs[2:])


def test_the_newest_job_is_kept_whatever_its_size(open_files: Open) -> None:
    job_files = open_files(megabytes=1)
    _, (_, newest) = job_files.add_finished(size=100_000), job_files.add_finished(size=2_000_000)
    assert job_files.retention.apply(time.time()) == 1
    assert job_files.saved_pictures() == [newest]


def test_without_limits_everything_is_kept(open_files: Open) -> None:
    job_files = open_files()
    job_files.add_finished()
    assert job_files.retention.apply(time.time() + 1000 * DAY) == 0
    assert len(job_files.saved_pictures()) == 1


def test_a_deleted_job_removes_its_own_files(open_files: Open) -> None:
    job_files = open_files()
    job, _ = job_files.add_finished("both.png", "mine.png")
    other, other_picture = job_files.add_finished("both.png")
    job_files.save(job, 1, number=2)
    unrelated = other_picture.with_name("stranger_00001_.png")
    unrelated.write_bytes(b"")
    assert job_files.files.delete_job(job)
    assert not job_files.files.delete_job(job)
    assert job_files.saved_pictures() == sorted([other_picture, unrelated])
    for folder in (job_files.uploads, job_files.inputs / FOLDER):
        assert [path.name for path in folder.iterdir()] == ["both.png"]
    other_picture.unlink()
    assert job_files.files.delete_job(other)
    assert list(job_files.uploads.iterdir()) == []


def test_a_standalone_upload_outlives_its_jobs(open_files: Open) -> None:
    job_files = open_files(days=2)
    job_files.files.add_standalone_upload("mine.png", b"png")
    job_files.files.add_standalone_upload("used.png", b"png")
    job, _ = job_files.add_finished("mine.png")
    assert job_files.files.delete_job(job)
    assert job_files.files.uploads.find("mine.png") == b"png"
    job_files.add("used.png")
    job_files.retention.apply(time.time() + DAY)
    assert job_files.files.uploads.find("mine.png") == b"png"
    job_files.retention.apply(time.time() + 3 * DAY)
    assert [path.name for path in job_files.uploads.iterdir()] == ["used.png"]


def test_a_standalone_upload_sent_again_during_expiry_is_kept(
    open_files: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_files = open_files(days=2)
    job_files.files.add_standalone_upload("mine.png", b"png")
    os.utime(job_files.uploads / f"mine.png{MARK}", (0, 0))
    find = job_files.files.uploads.standalone_before

    def slow(before: float) -> list[str]:
        names = find(before)
        job_files.files.add_standalone_upload("mine.png", b"png")
        return names

    monkeypatch.setattr(job_files.files.uploads, "standalone_before", slow)
    job_files.retention.apply(time.time())
    assert job_files.files.uploads.find("mine.png") == b"png"
    assert job_files.files.uploads.is_standalone("mine.png")


def test_a_job_accepted_during_expiry_keeps_its_upload(open_files: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    job_files = open_files(days=2)
    job_files.files.add_standalone_upload("mine.png", b"png")
    remove = job_files.files.uploads.remove

    def submit() -> None:
        job_files.add("mine.png")
        job_files.files.write_uploads({"mine.png": b"png"})

    submitting = threading.Thread(target=submit)

    def slow(name: str) -> None:
        submitting.start()
        submitting.join(0.3)
        remove(name)

    monkeypatch.setattr(job_files.files.uploads, "remove", slow)
    job_files.retention.apply(time.time() + 3 * DAY)
    submitting.join()
    assert job_files.files.uploads.find("mine.png") == b"png"


def test_a_mark_removed_by_another_process_is_not_an_error(tmp_path: Path) -> None:
    assert not UploadFiles(tmp_path).is_standalone_before("mine.png", time.time())


def test_an_unfinished_job_is_not_deleted(open_files: Open) -> None:
    job_files = open_files()
    job = job_files.add("mine.png")
    picture = job_files.save(job, 1)
    assert not job_files.files.delete_job(job)
    assert job_files.saved_pictures() == [picture]
    assert (job_files.uploads / "mine.png").exists()


@pytest.mark.parametrize("kind", ["picture", "upload", "input"])
def test_a_file_that_cannot_be_removed_does_not_block_deletion_of_its_job(open_files: Open, kind: str) -> None:
    job_files = open_files()
    job, picture = job_files.add_finished("mine.png")
    paths = {
        "picture": picture,
        "upload": job_files.uploads / "mine.png",
        "input": job_files.inputs / FOLDER / "mine.png",
    }
    paths[kind].unlink()
    paths[kind].mkdir()
    assert job_files.files.delete_job(job)
    assert job_files.store.get(job.id) is None
