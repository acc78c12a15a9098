"""The jobs as the web knows them: submit, get, list, wait, cancel, delete and retry them; their events and files."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from shared.engine.client import EngineClient, SavedImage
from shared.errors import Cancelled, DreamLayerError, NotFinished, NotFound
from shared.jobs.cancel_timeout import StuckJobWatch, finished_but_running
from shared.jobs.database import JobPage
from shared.jobs.estimate import MEASURED_JOBS, seconds_left
from shared.jobs.files import JobFiles, PictureFiles, UploadFiles
from shared.jobs.job import Event, JobRow, NewJob, State, UnfinishedWork
from shared.jobs.notify import Subscription
from shared.jobs.picture_metadata import picture_parameters, with_parameters
from shared.jobs.picture_names import filename_prefix, job_id_prefix, with_prefix
from shared.jobs.retention import Retention, RetentionLimits
from shared.jobs.runner import JobRunner
from shared.jobs.store import Store, open_store
from shared.settings import Settings

# Seconds between two checks of a job that a request waits for. A lost notification delays the reply by no more.
POLL_INTERVAL = 1.0


def open_jobs(settings: Settings, engine: EngineClient, more_outputs: Callable[[], Sequence[Path]]) -> Jobs:
    """The jobs in the database of these settings.

    `more_outputs` returns the output folders that a user chose, besides the default one. Raises SetupError if the
    database cannot be opened.
    """
    store = open_store(settings)
    files = JobFiles(
        store,
        UploadFiles(settings.data_dir / "uploads"),
        PictureFiles(settings.output_dir, settings.input_dir, more_outputs),
    )
    retention = Retention(store, files, RetentionLimits(settings.keep_jobs, settings.keep_days, settings.keep_mb))
    runner = JobRunner(store, engine, files, retention)
    return Jobs(store, engine, files, runner, queue_limit=settings.queue_limit, cancel_timeout=settings.cancel_timeout)


class Jobs:
    """The jobs of all services that share a database. Thread-safe.

    Every method raises StorageFailed if the database cannot be read or written.
    """

    def __init__(
        self,
        store: Store,
        engine: EngineClient,
        files: JobFiles,
        runner: JobRunner,
        *,
        queue_limit: int,
        cancel_timeout: float,
    ) -> None:
        self.store = store
        self.files = files
        self.runner = runner
        self._engine = engine
        self._queue_limit = queue_limit
        self._cancel_timeout = cancel_timeout
        self._stuck_watch: StuckJobWatch | None = None

    def start(self, restart_engine: Callable[[str], None] | None = None, *, watch: bool = False) -> None:
        """Start to run jobs, including unfinished ones of workers that no longer run.

        With `watch`, detect jobs that the engine keeps running after their end: call `restart_engine` with the reason,
        or log it if there is no `restart_engine`.
        """
        self.runner.start()
        if watch:
            self._stuck_watch = StuckJobWatch(self._engine, self.store, self._cancel_timeout, restart_engine)
            self._stuck_watch.start()

    def stop(self) -> None:
        """Stop, and leave unfinished jobs to other workers."""
        if self._stuck_watch is not None:
            self._stuck_watch.stop()
        self.runner.stop()
        self.store.close()

    def submit(self, job: NewJob, uploads: Mapping[str, bytes]) -> tuple[JobRow, bool]:
        """Accept a job with its uploads, content by name. Returns its row, and whether it is new.

        A job is not new if its idempotency key was used before; the row is then that of the earlier job. Raises
        QueueFull.
        """
        return self.runner.submit(job, uploads, self._queue_limit)

    def get(self, job_id: str) -> JobRow:
        """The job with this id. Raises NotFound."""
        row = self.store.get(job_id)
        if row is None:
            raise NotFound(f"there is no job {job_id}", hint="GET /api/jobs lists the jobs")
        return row

    def find(self, job_id: str) -> JobRow | None:
        """The job with this id; None if there is none."""
        return self.store.get(job_id)

    def find_by_key(self, idempotency_key: str) -> JobRow | None:
        """The job that was submitted with this idempotency key; None if there is none."""
        return self.store.find_by_key(idempotency_key)

    def find_by_picture(self, filename: str) -> JobRow | None:
        """The job that made the picture with this file name; None if there is none."""
        return self.store.find_by_id_prefix(job_id_prefix(filename) or filename)

    def list(
        self,
        *,
        states: Sequence[State] = (),
        kind: str | None = None,
        ids: Sequence[str] = (),
        limit: int,
        before: int | None = None,
    ) -> JobPage:
        """A page of jobs, newest first, with abridged specs. `before` is that of the previous page (see `JobPage`)."""
        return self.store.page(states=states, kind=kind, ids=ids, limit=limit, before=before)

    def count_unfinished(self) -> int:
        """The number of queued and running jobs."""
        return self.store.count_unfinished()

    def unfinished_of(self, service: str) -> Sequence[tuple[str, str]]:
        """Id and caller mark (see `shared.web.callers`) of a service's unfinished jobs, newest first."""
        return self.store.unfinished_of(service)

    def finished_but_running(self, timeout: float) -> Sequence[JobRow]:
        """The jobs that are finished, and that the engine still runs; it must answer within `timeout` seconds.

        Raises EngineError.
        """
        return finished_but_running(self._engine, self.store, timeout)

    def position(self, row: JobRow) -> int | None:
        """The number of unfinished jobs ahead of this one; None if it is finished."""
        return None if row.state.finished else self.store.count_unfinished(row.number)

    def eta(self, row: JobRow) -> float | None:
        """Estimated seconds until the job is done; None if it is finished, or if there is nothing to estimate from."""
        if row.state.finished:
            return None
        ends_at = self.store.ends_at(row.id) if row.state is State.RUNNING else None
        job = UnfinishedWork(row.model, row.work, row.started, ends_at)
        left = seconds_left(self.store.work_ahead(row.number), job, self.store.measured(MEASURED_JOBS), time.time())
        return None if left is None else round(left, 1)

    def progress(self, row: JobRow) -> dict[str, Any] | None:
        """The data of a running job's latest `progress` event; None if there is none."""
        event = self.store.last_event(row.id, "progress") if row.state is State.RUNNING else None
        return None if event is None else event.data

    def state(self, job_id: str) -> State | None:
        """The state of the job with this id; None if there is none."""
        return self.store.state(job_id)

    def events(self, job_id: str, after: int = 0) -> Sequence[Event]:
        """The job's events with a number above `after`, in order."""
        return self.store.events(job_id, after)

    def subscribe(self, job_id: str) -> AbstractContextManager[Subscription]:
        """A context manager that returns a subscription to changes of the job, as far as this process makes them."""
        return self.runner.notifier.subscribe(job_id)

    def wait(self, row: JobRow, timeout: float, is_abandoned: Callable[[], bool] = lambda: False) -> JobRow | None:
        """Wait until the job is completed, and return it; None after `timeout` seconds, or once `is_abandoned`.

        Raises the error of a failed or cancelled job, and Cancelled for a deleted one.
        """
        deadline = time.monotonic() + timeout
        with self.subscribe(row.id) as subscription:
            while subscription.row is None and (state := self.store.state(row.id)) is not None and not state.finished:
                left = deadline - time.monotonic()
                if left <= 0 or is_abandoned():
                    break
                subscription.wait(min(POLL_INTERVAL, left))
        latest = subscription.row or self.store.get(row.id)
        if latest is None:
            raise Cancelled("the job was deleted before it was completed", job_id=row.id)
        if latest.error is not None:
            raise DreamLayerError.from_dict(latest.error)
        return latest if latest.state is State.COMPLETED else None

    def cancel(self, job_id: str) -> bool:
        """Cancel the job, queued or running, whichever worker runs it; False if it is finished or unknown."""
        return self.runner.cancel(job_id)

    def delete(self, row: JobRow) -> bool:
        """Delete a finished job and its files; False if it is not finished, or already deleted."""
        return self.files.delete_job(row)

    def retry(self, row: JobRow, caller: str) -> JobRow:
        """Submit a finished job again, as a new one of `caller`. Raises NotFinished and QueueFull."""
        if not row.state.finished:
            raise NotFinished(f"the job is {row.state.value}", hint="wait until it is finished, or cancel it first")
        new_id = str(uuid.uuid4())
        graph = with_prefix(row.spec.graph, filename_prefix(new_id, datetime.now()))
        job = NewJob(new_id, row.kind, caller, row.service, replace(row.spec, graph=graph), row.model, row.work)
        return self.submit(job, {})[0]

    def picture(self, image: SavedImage) -> Path | bytes | None:
        """A saved picture: its file or, if an engine elsewhere has it, its content; None if there is none."""
        path = self.files.pictures.find(image.filename)
        if path is not None or self.files.pictures.is_link_to_outside(image.filename):
            return path
        return self._engine.download_image(image)

    def picture_with_parameters(self, image: SavedImage, row: JobRow | None) -> Path | bytes | None:
        """As `picture`, with the parameters of its job `row` embedded; without them if there is no job."""
        source = self.picture(image)
        if source is None or row is None or picture_parameters(row, image.filename) is None:
            return source
        if isinstance(source, Path):
            if self.files.pictures.has_parameters(source):
                return source
            # Its job has not ended yet: the runner embeds them just before the end.
            source = source.read_bytes()
        return with_parameters(source, row, image.filename)

    def picture_path(self, filename: str) -> Path | None:
        """The file of the picture with this name; None if it is not on this machine."""
        return self.files.pictures.find(filename)

    def picture_size(self, filename: str) -> tuple[int, int] | None:
        """Width and height in pixels of the picture with this name; None if it is not on this machine."""
        return self.files.pictures.dimensions(filename)

    def disk_usage(self, row: JobRow) -> int:
        """Bytes that the job's pictures take on this machine."""
        return self.files.pictures.disk_usage(row.images)

    def store_upload(self, name: str, content: bytes) -> None:
        """Store a picture that later requests can name. It is kept as long as finished jobs are."""
        self.files.add_standalone_upload(name, content)

    def find_upload(self, name: str) -> bytes | None:
        """The content of an upload; None if there is none. `name` must be a checked hash, as it becomes a path."""
        return self.files.uploads.find(name)

    def upload_size(self, name: str) -> tuple[int, int] | None:
        """Width and height in pixels of the PNG upload with this name, checked as for `find_upload`."""
        return self.files.uploads.dimensions(name)
