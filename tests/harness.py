"""The jobs of one service with a fake engine, assembled as in `Backend`, without HTTP."""

import time
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from shared.engine.client import TOKEN_FILE, EngineAccess, EngineClient
from shared.jobs.database import workers
from shared.jobs.files import JobFiles, PictureFiles, UploadFiles
from shared.jobs.job import JobRow, JobSpec, NewJob, State
from shared.jobs.picture_names import filename_prefix
from shared.jobs.retention import Retention, RetentionLimits
from shared.jobs.runner import JobRunner
from shared.jobs.store import Store
from tests.fake_engine import FakeEngine


def new_job(**fields: Any) -> NewJob:
    """A job that saves a picture, samples, and saves another one; `fields` replace the defaults."""
    job_id = str(uuid.uuid4())
    saves = {"class_type": "SaveImage", "inputs": {"filename_prefix": filename_prefix(job_id, datetime(2026, 11, 22))}}
    graph = {"First": saves, "KSampler": {"class_type": "KSampler", "inputs": {"steps": 4}}, "Last": saves}
    spec = JobSpec(**{"graph": graph, **fields.pop("spec", {})})
    defaults = {"id": job_id, "kind": "txt2img", "client": "127.0.0.1", "service": "txt2img", "spec": spec}
    return NewJob(**{**defaults, **fields})


def wait_for(condition: Callable[[], object], failure: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, failure
        time.sleep(0.01)


def wait_until_running(engine: FakeEngine, job_id: str) -> None:
    wait_for(lambda: engine.running is not None and engine.running.id == job_id, "the job does not run")


class Harness:
    """A runner with its store, client and files. Harnesses with the same folder are services of one stack."""

    def __init__(self, folder: Path, engine: FakeEngine) -> None:
        self.store = Store(f"sqlite:///{folder}/jobs.sqlite")
        self.client = EngineClient(engine.address, EngineAccess(file=folder / TOKEN_FILE))
        self.files = JobFiles(
            self.store, UploadFiles(folder / "uploads"), PictureFiles(engine.output_dir, folder / "input")
        )
        self.retention = Retention(self.store, self.files, RetentionLimits())
        self.runner = JobRunner(self.store, self.client, self.files, self.retention)

    def start(self) -> None:
        """Start the runner, and wait until its websocket is connected."""
        self.runner.start()
        wait_for(lambda: self.runner._listener.connected, "the websocket is not connected")

    def submit(self, **fields: Any) -> str:
        """Submit a job, and return its id."""
        return self.runner.submit(new_job(**fields), {}, limit=100)[0].id

    def row(self, job_id: str) -> JobRow:
        row = self.store.get(job_id)
        assert row is not None
        return row

    def wait(self, job_id: str, *states: State, seconds: float = 20) -> JobRow:
        """Wait until the job is in one of `states`, or finished if there are none, and return it."""

        def is_reached() -> bool:
            state = self.row(job_id).state
            return state in states if states else state.finished

        wait_for(is_reached, f"{self.row(job_id)}", seconds)
        return self.row(job_id)

    def event_names(self, job_id: str) -> list[str]:
        """The names of all events of a job."""
        return [event.name for event in self.store.events(job_id, 0)]

    def expire_heartbeats(self) -> None:
        """Make all heartbeats old."""
        with self.store._write() as connection:
            connection.execute(workers.update().values(heartbeat=0.0))

    def close(self) -> None:
        self.runner.stop()
        self.store.close()


OpenHarness = Callable[[], Harness]
