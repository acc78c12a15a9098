"""The jobs' database as methods: every change of a job is one short transaction, and survives the process.

All processes share one database: SQLite in WAL mode by default, or any other that SQLAlchemy supports.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError

from shared.errors import QueueFull, SetupError, StorageFailed
from shared.files import disk_full_error
from shared.jobs import database
from shared.jobs.database import JobPage, about, checkpoint, configure_sqlite, events, jobs, uploads, workers
from shared.jobs.disk_reserve import HAS_ROW, PUT_ROW, ROW, TAKE_ROW, Reserve
from shared.jobs.job import (
    UNFINISHED,
    Event,
    FinishedJob,
    JobRow,
    JobSpec,
    JobUpdate,
    NewJob,
    PendingEvent,
    State,
    UnfinishedWork,
)
from shared.jobs.migrations import UnknownVersionError, upgrade
from shared.settings import PREFIX, Settings

log = logging.getLogger(__name__)

# The event of a preview, which contains a picture. Only a running job's newest one is kept.
PREVIEW = "preview"
# The key in the table `about` of the time when a user or the launcher last stopped the engine, in seconds since 1970.
ENGINE_STOP = "engine_stop"
# Seconds by which the clocks of two running processes may differ.
CLOCK_TOLERANCE = 5.0

P = ParamSpec("P")
R = TypeVar("R")


def _using_reserve(method: Callable[Concatenate[Store, P], R]) -> Callable[Concatenate[Store, P], R]:
    """The method; if the disk is full, it releases the reserve and tries again."""

    @wraps(method)
    def retried(self: Store, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except StorageFailed as error:
            if not error.details.get("disk_full") or not self._release_reserve():
                raise
        return method(self, *args, **kwargs)

    return retried


class Store:
    """The database of jobs. Thread-safe.

    Every method raises StorageFailed if the database cannot be read or written.
    """

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, pool_size=16, max_overflow=112, pool_pre_ping=not url.startswith("sqlite"))
        # SQLite allows one writer at a time, and makes others poll for it. A lock wakes the threads of this process.
        self._write_lock = threading.Lock()
        self._reserve: Reserve | None = None
        if self._engine.dialect.name == "sqlite":
            self._reserve = Reserve(Path(self._engine.url.database or "").absolute())
            configure_sqlite(self._engine, self._reserve.journal_pages)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise
        self.refill_reserve()

    def add(self, job: NewJob, worker: str, limit: int) -> tuple[JobRow, bool]:
        """Insert a job; it is safely on disk on return. Returns its row, and whether it is new.

        A job is not new if its idempotency key is taken; the row is then that of the earlier job. Raises QueueFull if
        `limit` jobs are unfinished. Raises StorageFailed if the disk is full: the reserve is for ending and deleting.
        """
        if self._reserve is not None and not self._reserve.fill():
            raise _rejected_for_room(job, self._reserve)
        values = {
            "id": job.id, "kind": job.kind, "state": State.QUEUED.value, "client": job.client, "service": job.service,
            "worker": worker, "attempts": 0, "created": time.time(), "started": None,
            "finished": None, "model": job.model, "work": job.work, "spec": job.spec.to_json(), "images": [],
            "error": None,
            "idempotency_key": job.idempotency_key, "body_hash": job.body_hash,
        }  # fmt: skip
        try:
            with self._write(durable=True) as connection:
                unfinished = _count_unfinished(connection)
                if unfinished >= limit and not _key_taken(connection, job.idempotency_key):
                    raise QueueFull(
                        f"the queue is full: {unfinished} jobs are unfinished",
                        hint="try again when some of them are finished, or raise DREAM_LAYER_QUEUE_LIMIT",
                        retry_after=30,
                    )
                number = connection.execute(database.ADD, values).inserted_primary_key[0]  # type: ignore[index]
                if job.spec.uploads:
                    rows = [{"job_id": job.id, "name": name} for name in sorted(job.spec.uploads)]
                    connection.execute(uploads.insert(), rows)
                _add_events(connection, job.id, [("queued", {"position": unfinished})])
        except IntegrityError:
            earlier = None if job.idempotency_key is None else self.find_by_key(job.idempotency_key)
            if earlier is None:
                raise
            return earlier, False
        except StorageFailed as error:
            if self._reserve is None or not error.details.get("disk_full"):
                raise
            raise _rejected_for_room(job, self._reserve) from error
        return JobRow(**{**values, "spec": job.spec, "number": number, "state": State.QUEUED}), True

    def get(self, job_id: str) -> JobRow | None:
        """The job with this id; None if there is none."""
        # No database accepts lone surrogates, and some reject NUL.
        return self._first(database.GET, {"the_id": job_id}) if job_id.isprintable() else None

    def state(self, job_id: str) -> State | None:
        """The state of the job with this id; None if there is none."""
        with self._read() as connection:
            state = connection.scalar(database.STATE, {"the_id": job_id})
        return None if state is None else State(state)

    def find_by_id_prefix(self, prefix: str) -> JobRow | None:
        """The job whose id starts with these digits (see `shared.jobs.picture_names`); None if there is none."""
        # SQLite would not use the index for LIKE. All digits of an id sort before g.
        return self._first(sa.select(jobs).where(jobs.c.id >= prefix, jobs.c.id < f"{prefix}g").limit(1))

    def find_by_key(self, idempotency_key: str) -> JobRow | None:
        """The job with this idempotency key; None if there is none."""
        return self._first(sa.select(jobs).where(jobs.c.idempotency_key == idempotency_key))

    def unfinished_of(self, service: str) -> list[tuple[str, str]]:
        """Id and caller mark of a service's unfinished jobs, newest first."""
        query = sa.select(jobs.c.id, jobs.c.client).where(jobs.c.service == service, jobs.c.state.in_(UNFINISHED))
        with self._read() as connection:
            return [(row.id, row.client) for row in connection.execute(query.order_by(jobs.c.number.desc()))]

    def page(
        self,
        *,
        states: Sequence[State] = (),
        kind: str | None = None,
        ids: Sequence[str] = (),
        limit: int = 50,
        before: int | None = None,
    ) -> JobPage:
        """A page of jobs, newest first, with abridged specs (see `JobPage`).

        `before` is that of the previous page.
        """
        query = database.LIST.limit(limit + 1)
        if states:
            query = query.where(jobs.c.state.in_([state.value for state in states]))
        if kind is not None:
            query = query.where(jobs.c.kind == kind)
        if ids:
            query = query.where(jobs.c.id.in_(ids))
        if before is not None:
            query = query.where(jobs.c.number < before)
        with self._read() as connection, connection.execute(query) as result:
            return database.read_page(result, limit)

    def work_ahead(self, number: int) -> list[UnfinishedWork]:
        """The unfinished jobs with a lower number, in order."""
        query = (
            sa.select(jobs.c.id, jobs.c.model, jobs.c.work, jobs.c.started)
            .where(jobs.c.state.in_(UNFINISHED), jobs.c.number < number)
            .order_by(jobs.c.number)
        )
        with self._read() as connection:
            rows = connection.execute(query).all()
            # One query per running job; there are few.
            return [UnfinishedWork(*row[1:], ends_at=row.started and _ends_at(connection, row.id)) for row in rows]

    def ends_at(self, job_id: str) -> float | None:
        """When a running job is expected to end, from its progress, in seconds since 1970; None if that is unknown."""
        with self._read() as connection:
            return _ends_at(connection, job_id)

    def was_any_ahead(self, number: int, since: float) -> bool:
        """Whether a job with a lower number is unfinished, or finished after `since`, in seconds since 1970."""
        # A job that ended in the future ended before the clock was set back.
        unfinished_since = sa.or_(
            jobs.c.state.in_(UNFINISHED), jobs.c.finished.between(since, _latest_plausible_time())
        )
        with self._read() as connection:
            return bool(connection.scalar(sa.select(sa.exists().where(jobs.c.number < number, unfinished_since))))

    def count_unfinished(self, before: int | None = None) -> int:
        """The number of unfinished jobs; with `before`, of those with a lower number."""
        with self._read() as connection:
            return _count_unfinished(connection, before)

    def measured(self, limit: int) -> list[tuple[str, float, float]]:
        """Model, work and seconds of the jobs that completed last, newest first."""
        query = (
            sa.select(jobs.c.model, jobs.c.work, jobs.c.finished - jobs.c.started)
            # If the clock was set back while a job ran, its duration is unknown.
            .where(jobs.c.state == State.COMPLETED.value, jobs.c.finished > jobs.c.started)
            .order_by(jobs.c.number.desc())
            .limit(limit)
        )
        with self._read() as connection:
            return [(str(model), float(work), float(seconds)) for model, work, seconds in connection.execute(query)]

    @_using_reserve
    def save(self, worker: str, updates: Sequence[JobUpdate]) -> None:
        """Record the updates of jobs; skip those that are finished, or that this worker no longer owns."""
        ids = [update.job_id for update in updates]
        with self._write() as connection:
            owned = _still_owned(connection, ids, worker)
            for update in updates:
                if update.job_id not in owned:
                    continue
                if update.started is not None:
                    values = {"state": State.RUNNING.value, "started": update.started}
                    connection.execute(database.UPDATE_OWN, _owned_by(update.job_id, worker) | values)
                _add_events(connection, update.job_id, update.events)

    @_using_reserve
    def requeue(self, worker: str, lost: Sequence[tuple[JobRow, int]]) -> set[str]:
        """Return jobs that the engine lost to the queue, each with the number of crashes that it may have caused.

        Returns the ids of the requeued jobs; jobs that this worker no longer owns are skipped.
        """
        requeued = set()
        with self._write() as connection:
            for row, crashes in lost:
                values = {"state": State.QUEUED.value, "started": None, "attempts": crashes}
                if connection.execute(database.UPDATE_OWN, _owned_by(row.id, worker) | values).rowcount == 1:
                    position = _count_unfinished(connection, row.number)
                    _add_events(connection, row.id, [("queued", {"position": position, "attempt": crashes + 1})])
                    requeued.add(row.id)
        return requeued

    @_using_reserve
    def finish(
        self,
        row: JobRow,
        worker: str,
        state: State,
        *,
        images: Sequence[Mapping[str, str]] = (),
        error: Mapping[str, Any] | None = None,
        started: float | None = None,
        new_events: Sequence[PendingEvent] = (),
    ) -> JobRow | None:
        """Finish a job in this state, after recording its last events. Returns its new row.

        Returns None, and changes nothing, if the job is finished already, or if this worker no longer owns it.
        """
        values: dict[str, Any] = {"state": state.value, "finished": time.time(), "error": error, "images": list(images)}
        if started is not None:
            values["started"] = started
        with self._write() as connection:
            if connection.execute(database.UPDATE_OWN, _owned_by(row.id, worker) | values).rowcount == 0:
                return None
            _end(connection, row.id, new_events, state)
        return replace(row, **{**values, "state": state})

    @_using_reserve
    def cancel(self, job_id: str, error: Mapping[str, Any]) -> bool:
        """Cancel a job, whichever worker owns it; False if it is finished or unknown. Its worker has to check."""
        values = {"state": State.CANCELLED.value, "finished": time.time(), "error": error}
        with self._write() as connection:
            cancelled = connection.execute(database.END, {"the_id": job_id, **values}).rowcount == 1
            if cancelled:
                _end(connection, job_id, [], State.CANCELLED)
            return cancelled

    def still_owned(self, job_ids: Sequence[str], worker: str) -> set[str]:
        """The ids of those jobs that are unfinished, and that this worker owns."""
        with self._read() as connection:
            return _still_owned(connection, job_ids, worker)

    @_using_reserve
    def record_engine_stop(self) -> None:
        """Record that the engine is being stopped on purpose, so that no job is suspected of a crash."""
        with self._write() as connection:
            connection.execute(about.delete().where(about.c.key == ENGINE_STOP))
            connection.execute(about.insert().values(key=ENGINE_STOP, value=repr(time.time())))

    def engine_stopped_since(self, since: float) -> bool:
        """Whether the engine was stopped on purpose after `since`, in seconds since 1970."""
        with self._read() as connection:
            stopped_at = connection.scalar(sa.select(about.c.value).where(about.c.key == ENGINE_STOP))
        # A time in the future is from before the clock was set back. It would excuse every job until then.
        return stopped_at is not None and since <= float(stopped_at) <= _latest_plausible_time()

    @_using_reserve
    def beat(self, worker: str) -> None:
        """Renew the worker's heartbeat."""
        with self._write() as connection:
            _beat(connection, worker)

    @_using_reserve
    def deregister(self, worker: str) -> None:
        """Remove the worker, so that others reclaim its unfinished jobs at once."""
        with self._write() as connection:
            connection.execute(workers.delete().where(workers.c.id == worker))

    @_using_reserve
    def reclaim_orphans(self, worker: str, stale_before: float) -> list[JobRow]:
        """Take over the unfinished jobs, in order, of workers with no heartbeat since `stale_before`."""
        # A heartbeat in the future is from before the clock was set back. It would keep its jobs until then.
        latest = _latest_plausible_time()
        alive = sa.select(workers.c.id).where(workers.c.heartbeat.between(stale_before, latest))
        orphans = (jobs.c.state.in_(UNFINISHED), jobs.c.worker != worker, jobs.c.worker.not_in(alive))
        with self._read() as connection:
            if connection.execute(sa.select(jobs.c.id).where(*orphans).limit(1)).first() is None:
                return []
        with self._write() as connection:
            ids = list(connection.scalars(sa.select(jobs.c.id).where(*orphans)))
            connection.execute(jobs.update().where(jobs.c.id.in_(ids)).values(worker=worker))
            _beat(connection, worker)
            connection.execute(workers.delete().where(~workers.c.heartbeat.between(stale_before, latest)))
            query = sa.select(jobs).where(jobs.c.id.in_(ids)).order_by(jobs.c.number)
            return [_row(row) for row in connection.execute(query).mappings()]

    def finished_before(self, number: int | None, limit: int) -> list[FinishedJob]:
        """Finished jobs with a number below `number` (None: all), newest first."""
        query = (
            sa.select(jobs.c.number, jobs.c.id, jobs.c.finished, jobs.c.images)
            .where(jobs.c.state.not_in(UNFINISHED))
            .order_by(jobs.c.number.desc())
            .limit(limit)
        )
        if number is not None:
            query = query.where(jobs.c.number < number)
        with self._read() as connection:
            return [FinishedJob(*row) for row in connection.execute(query)]

    @_using_reserve
    def delete(self, job_id: str, discard: Callable[[str], None]) -> bool:
        """Delete a finished job and its events; False if it is unfinished or unknown.

        Calls `discard` for each upload that no other job needs, while no job can be submitted.
        """
        with self._write() as connection:
            unfinished = sa.select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.state.in_(UNFINISHED))
            if connection.execute(unfinished).first() is not None:
                return False
            names = list(connection.scalars(sa.select(uploads.c.name).where(uploads.c.job_id == job_id)))
            connection.execute(events.delete().where(events.c.job_id == job_id))
            connection.execute(uploads.delete().where(uploads.c.job_id == job_id))
            if connection.execute(jobs.delete().where(jobs.c.id == job_id)).rowcount == 0:
                return False
            needed = set(connection.scalars(sa.select(uploads.c.name).where(uploads.c.name.in_(names))))
            for name in names:
                if name not in needed:
                    discard(name)
            return True

    @contextmanager
    def lock_uploads(self) -> Iterator[Callable[[str], bool]]:
        """A context manager in which no job is added or deleted; returns a test of whether a job needs an upload."""
        query = sa.select(uploads.c.name).limit(1)
        with self._write() as connection:
            yield lambda upload: connection.execute(query.where(uploads.c.name == upload)).first() is not None

    def events(self, job_id: str, after: int) -> list[Event]:
        """The job's events with a number above `after`, in order."""
        with self._read() as connection:
            rows = connection.execute(database.EVENTS_AFTER, {"the_id": job_id, "the_number": after})
            return [Event(row.number, row.job_id, row.name, row.data) for row in rows]

    def last_event(self, job_id: str, name: str) -> Event | None:
        """The job's latest event with this name; None if there is none."""
        query = sa.select(events).where(events.c.job_id == job_id, events.c.name == name)
        with self._read() as connection:
            row = connection.execute(query.order_by(events.c.number.desc()).limit(1)).first()
        return None if row is None else Event(row.number, row.job_id, row.name, row.data)

    def refill_reserve(self) -> None:
        """Restore the reserve for a full disk, if there is room again. Call it periodically."""
        if self._reserve is None or not self._reserve.fill():
            return
        try:
            with self._read() as connection:
                exists = connection.execute(HAS_ROW).first() is not None
            if not exists:
                with self._write() as connection:
                    connection.execute(PUT_ROW)
        except (StorageFailed, IntegrityError) as error:
            # Another process may have inserted the row first, or the disk may be full again.
            log.info("the reserve in the database was not restored: %s", error)

    def _release_reserve(self) -> bool:
        """Release the reserve; whether there was one."""
        if self._reserve is None:
            return False
        log.warning("the disk is full: using the reserved space to finish and delete jobs")
        self._reserve.release()
        try:
            with self._read() as connection:
                checkpoint(connection)
            with self._write() as connection:
                connection.execute(TAKE_ROW)
        except StorageFailed as error:
            log.info("the reserve in the database was not released: %s", error)
        return True

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @_using_reserve
    def _prepare(self) -> None:
        """Create or migrate the tables. Raises SetupError if a later version of this program made them."""
        with self._write() as connection:
            try:
                upgrade(connection)
            except UnknownVersionError as error:
                raise SetupError(
                    "jobs",
                    str(error),
                    hint=f"use the version of this program that made it, or move it away: {self._engine.url}",
                ) from error

    def _first(self, query: sa.Select[Any], parameters: Mapping[str, Any] | None = None) -> JobRow | None:
        with self._read() as connection:
            row = connection.execute(query, parameters).mappings().first()
        return None if row is None else _row(row)

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _write(self, *, durable: bool = False) -> Iterator[Connection]:
        with (
            self._translated(),
            self._write_lock,
            self._engine.connect().execution_options(writes=True, durable=durable) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except (DBAPIError, sqlite3.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            if self._reserve is not None and self._reserve.is_disk_full(cause):
                raise disk_full_error("the jobs' database cannot be written", self._reserve.folder) from error
            raise StorageFailed(
                f"the jobs' database cannot be used: {cause}",
                hint="check that the disk has room and that the data folder is writable",
            ) from error


def open_store(settings: Settings) -> Store:
    """The database of these settings. Raises SetupError if it cannot be opened."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        return Store(settings.jobs_url)
    except (OSError, StorageFailed) as error:
        raise SetupError("jobs", str(error), hint=f"set {PREFIX}DATA_DIR to another folder") from error
    except (ArgumentError, ImportError) as error:
        # The message does not contain the URL, which may have a password.
        raise SetupError(
            "jobs", f"{PREFIX}DATABASE_URL cannot be used: {error}", hint="install the database's driver with pip"
        ) from error


def _latest_plausible_time() -> float:
    """Later times in the database are from before the clock was set back."""
    return time.time() + CLOCK_TOLERANCE


def _rejected_for_room(job: NewJob, reserve: Reserve) -> StorageFailed:
    # The size of its row, plus as much for the rest.
    return disk_full_error("the job could not be saved", reserve.folder, len(json.dumps(job.spec.to_json())) + ROW)


def _owned_by(job_id: str, worker: str) -> dict[str, Any]:
    return {"the_id": job_id, "the_worker": worker}


def _beat(connection: Connection, worker: str) -> None:
    if connection.execute(database.BEAT, {"the_worker": worker, "heartbeat": time.time()}).rowcount == 0:
        connection.execute(workers.insert().values(id=worker, heartbeat=time.time()))


def _still_owned(connection: Connection, job_ids: Sequence[str], worker: str) -> set[str]:
    query = sa.select(jobs.c.id).where(jobs.c.id.in_(job_ids), jobs.c.worker == worker, jobs.c.state.in_(UNFINISHED))
    return set(connection.scalars(query))


def _key_taken(connection: Connection, key: str | None) -> bool:
    query = sa.select(jobs.c.id).where(jobs.c.idempotency_key == key)
    return key is not None and connection.execute(query).first() is not None


def _end(connection: Connection, job_id: str, new_events: Sequence[PendingEvent], state: State) -> None:
    connection.execute(database.REMOVE_EVENTS, {"the_id": job_id, "the_name": PREVIEW})
    _add_events(connection, job_id, [*new_events, (state.value, {})])


def _add_events(connection: Connection, job_id: str, new_events: Sequence[PendingEvent]) -> None:
    if any(name == PREVIEW for name, _ in new_events):
        connection.execute(database.REMOVE_EVENTS, {"the_id": job_id, "the_name": PREVIEW})
    if new_events:
        rows = [{"job_id": job_id, "name": name, "data": dict(data)} for name, data in new_events]
        connection.execute(database.ADD_EVENTS, rows)


def _count_unfinished(connection: Connection, before: int | None = None) -> int:
    query, parameters = (database.COUNT, {}) if before is None else (database.COUNT_BEFORE, {"the_number": before})
    return int(connection.scalar(query, parameters) or 0)


def _ends_at(connection: Connection, job_id: str) -> float | None:
    data = connection.scalar(database.NEWEST_PROGRESS, {"the_id": job_id})
    return None if data is None else data.get("ends_at")


def _row(row: RowMapping) -> JobRow:
    return JobRow(**{**row, "state": State(row["state"]), "spec": JobSpec.from_json(row["spec"])})
