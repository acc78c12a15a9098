"""Jobs, as routes see them: submitted, looked at, waited for, cancelled, deleted, repeated."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from typing import Any

from shared.engine.client import EngineClient, SavedImage
from shared.errors import Cancelled, DreamLayerError, NotFinished, NotFound
from shared.jobs.database import JobPage
from shared.jobs.estimate import MEASURED, seconds_left
from shared.jobs.files import JobFiles
from shared.jobs.job import Event, JobRow, NewJob, State, UnfinishedWork
from shared.jobs.notify import Subscription
from shared.jobs.picture_names import filename_prefix, job_beginning, with_prefix
from shared.jobs.runner import JobRunner
from shared.jobs.store import Store
from shared.jobs.stuck import StuckJobs, ended_but_running

# Seconds between two looks at a job that is waited for: a notification that got lost costs no more.
LOOK = 1.0


class Jobs:
    """The jobs of all services that share a database. Safe to share between threads.

    Every method raises StorageFailed if the database cannot be read or written.
    """

    def __init__(
        self, store: Store, engine: EngineClient, files: JobFiles, *, queue_limit: int, cancel_timeout: float
    ) -> None:
        self.store = store
        self.files = files
        self.runner = JobRunner(store, engine, files)
        self._engine = engine
        self._queue_limit = queue_limit
        self._cancel_timeout = cancel_timeout
        self._stuck: StuckJobs | None = None

    def start(self, restart_engine: Callable[[str], None] | None = None, *, watch: bool = False) -> None:
        """Starts following jobs, those too that were left unfinished when everything was last stopped.

        With `watch`, a cancelled job that the engine does not let go of is noticed: `restart_engine` is called with a
        reason then, and without it the log says so.
        """
        self.runner.start()
        if watch:
            self._stuck = StuckJobs(self._engine, self.store, self._cancel_timeout, restart_engine)
            self._stuck.start()

    def stop(self) -> None:
        """Hands unfinished jobs over to whoever comes next."""
        if self._stuck is not None:
            self._stuck.stop()
        self.runner.stop()
        self.store.close()

    def ended_but_running(self, timeout: float) -> Sequence[JobRow]:
        """The jobs that have ended and still run in the engine, which must answer in `timeout` seconds.

        Raises EngineError.
        """
        return ended_but_running(self._engine, self.store, timeout)

    def submit(self, job: NewJob, uploads: Mapping[str, bytes]) -> tuple[JobRow, bool]:
        """Accepts a job with the content of its uploads, by name; the row, and whether it is new.

        It is not if its idempotency key was used before: then the row is the earlier job's. Raises QueueFull.
        """
        return self.runner.submit(job, uploads, self._queue_limit)

    def get(self, job_id: str) -> JobRow:
        """The job of that id. Raises NotFound."""
        row = self.store.get(job_id)
        if row is None:
            raise NotFound(f"there is no job {job_id}", hint="GET /api/jobs lists them")
        return row

    def find(self, job_id: str) -> JobRow | None:
        """The job of that id; None if there is none."""
        return self.store.get(job_id)

    def with_key(self, idempotency_key: str) -> JobRow | None:
        """The job that was accepted under that idempotency key."""
        return self.store.by_key(idempotency_key)

    def of_picture(self, filename: str) -> JobRow | None:
        """The job that made the picture of that name, if it is still known."""
        return self.store.by_beginning(job_beginning(filename) or filename)

    def list(
        self,
        *,
        states: Sequence[State] = (),
        kind: str | None = None,
        ids: Sequence[str] = (),
        limit: int,
        before: int | None = None,
    ) -> JobPage:
        """Jobs, the newest first, with what lists show of them; `before` is that of the previous page."""
        return self.store.page(states=states, kind=kind, ids=ids, limit=limit, before=before)

    def unfinished(self) -> int:
        """How many jobs are queued or running."""
        return self.store.count_unfinished()

    def unfinished_of(self, service: str) -> Sequence[tuple[str, str]]:
        """Id and caller's mark of a service's unfinished jobs, the newest first."""
        return self.store.unfinished_marks(service)

    def position(self, row: JobRow) -> int | None:
        """How many unfinished jobs are in front of this one; None when it has ended."""
        return None if row.state.finished else self.store.count_unfinished(row.number)

    def eta(self, row: JobRow) -> float | None:
        """Seconds until the job will be done, as far as its progress and other jobs tell; None when it has ended."""
        if row.state.finished:
            return None
        ends_at = self.store.ends_at(row.id) if row.state is State.RUNNING else None
        job = UnfinishedWork(row.model, row.work, row.started, ends_at)
        left = seconds_left(self.store.in_front(row.number), job, self.store.measured(MEASURED), time.time())
        return None if left is None else round(left, 1)

    def progress(self, row: JobRow) -> dict[str, Any] | None:
        """Where a running job stands, as its newest `progress` event says."""
        event = self.store.last_event(row.id, "progress") if row.state is State.RUNNING else None
        return None if event is None else event.data

    def state(self, job_id: str) -> State | None:
        """Where the job of that id stands: what is asked most often."""
        return self.store.state(job_id)

    def events(self, job_id: str, number: int = 0) -> Sequence[Event]:
        """What happened to a job after event `number`, in order."""
        return self.store.events(job_id, number)

    def subscribe(self, job_id: str) -> AbstractContextManager[Subscription]:
        """While inside, what is notified when something happens to the job in this process."""
        return self.runner.notifier.subscribe(job_id)

    def wait(self, row: JobRow, seconds: float, given_up: Callable[[], bool] = lambda: False) -> JobRow | None:
        """The job when it is completed; None if it is not after `seconds`, or when nobody waits any more.

        Raises the error of a job that failed or was cancelled, and Cancelled for one that was deleted.
        """
        deadline = time.monotonic() + seconds
        with self.subscribe(row.id) as subscription:
            while subscription.row is None and (state := self.store.state(row.id)) is not None and not state.finished:
                left = deadline - time.monotonic()
                if left <= 0 or given_up():
                    break
                subscription.wait(min(LOOK, left))
        now = subscription.row or self.store.get(row.id)
        if now is None:
            raise Cancelled("the job was removed while it was waited for", job_id=row.id)
        if now.error is not None:
            raise DreamLayerError.from_dict(now.error)
        return now if now.state is State.COMPLETED else None

    def cancel(self, job_id: str) -> bool:
        """Cancels this job, queued or running, whoever runs it, and no other; False if it is finished or unknown."""
        return self.runner.cancel(job_id)

    def delete(self, row: JobRow) -> bool:
        """Removes a finished job and its files; False if it is gone already, or not finished."""
        return self.files.forget(row)

    def retry(self, row: JobRow, caller: str) -> JobRow:
        """A new job that does what a finished one did. Raises NotFinished, QueueFull."""
        if not row.state.finished:
            raise NotFinished(f"the job is {row.state.value}", hint="wait for its end, or cancel it first")
        new_id = str(uuid.uuid4())
        graph = with_prefix(row.spec.graph, filename_prefix(new_id, datetime.now()))
        job = NewJob(new_id, row.kind, caller, row.service, replace(row.spec, graph=graph), row.model, row.work)
        return self.submit(job, {})[0]

    def picture(self, image: SavedImage) -> bytes | None:
        """A picture's file, or, if the engine runs elsewhere, what it shows; None if there is none."""
        path = self.files.pictures.find(image.filename)
        if path is not None:
            return path.read_bytes()
        return None if self.files.pictures.leads_out(image.filename) else self._engine.download_image(image)
