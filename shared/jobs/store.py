"""Jobs as rows: what was accepted is written down before the engine hears of it, and outlives every process.

All processes share one database: SQLite in WAL mode by default, or any other that SQLAlchemy speaks to.
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
from sqlalchemy.exc import DBAPIError, IntegrityError

from shared.errors import QueueFull, SetupError, StorageFailed
from shared.files import disk_full_error
from shared.jobs import database
from shared.jobs.database import JobPage, about, empty_journal, events, jobs, tune, uploads, workers
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
from shared.jobs.reserve import HAS_ROW, PUT_ROW, ROW, TAKE_ROW, Reserve

log = logging.getLogger(__name__)

# Previews are pictures: only the newest of a job is kept, and none when it has ended.
PREVIEW = "preview"
# The row of `about` that says when somebody ended the engine last, in seconds since 1970.
ENGINE_STOP = "engine_stop"


# Seconds that the clock of a living process may be ahead of another's.
MOST_AHEAD = 5.0


P = ParamSpec("P")
R = TypeVar("R")


def _even_if_full(method: Callable[Concatenate[Store, P], R]) -> Callable[Concatenate[Store, P], R]:
    """The method, tried again with the room that is kept for it when the disk is full."""

    @wraps(method)
    def tried(self: Store, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except StorageFailed as error:
            if not error.details.get("disk_full") or not self._make_room():
                raise
        return method(self, *args, **kwargs)

    return tried


class Store:
    """The table of jobs. Safe to share between threads; every method is one short transaction.

    Each raises StorageFailed if the database cannot be read or written.
    """

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, pool_size=16, max_overflow=112, pool_pre_ping=not url.startswith("sqlite"))
        # SQLite takes one writer at a time, and lets others sleep for milliseconds; a lock wakes them at once.
        self._turn = threading.Lock()
        self._reserve: Reserve | None = None
        if self._engine.dialect.name == "sqlite":
            self._reserve = Reserve(Path(self._engine.url.database or "").absolute())
            tune(self._engine, self._reserve.journal_pages)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise
        self.refill()

    def add(self, job: NewJob, worker: str, limit: int) -> tuple[JobRow, bool]:
        """Accepts a job, safely on disk when this returns; the row, and whether it is new.

        It is not if its idempotency key is taken: then the row is the earlier job's. Raises QueueFull if `limit` jobs
        are unfinished, and StorageFailed if it would take the room that is kept for cancelling and removing others.
        """
        if self._reserve is not None and not self._reserve.fill():
            raise _no_room(job, self._reserve)
        values = {
            "id": job.id, "kind": job.kind, "state": State.QUEUED.value, "client": job.client, "service": job.service,
            "worker": worker, "attempts": 0, "created": time.time(), "started": None,
            "finished": None, "model": job.model, "work": job.work, "spec": job.spec.to_json(), "images": [],
            "error": None,
            "idempotency_key": job.idempotency_key, "body_hash": job.body_hash,
        }  # fmt: skip
        try:
            with self._write(durable=True) as connection:
                waiting = _count_unfinished(connection)
                if waiting >= limit and not _key_taken(connection, job.idempotency_key):
                    raise QueueFull(
                        f"{waiting} jobs are waiting already",
                        hint="try again when some of them are done, or raise DREAM_LAYER_QUEUE_LIMIT",
                        retry_after=30,
                    )
                number = connection.execute(database.ADD, values).inserted_primary_key[0]  # type: ignore[index]
                if job.spec.uploads:
                    rows = [{"job_id": job.id, "name": name} for name in sorted(job.spec.uploads)]
                    connection.execute(uploads.insert(), rows)
                _add_events(connection, job.id, [("queued", {"position": waiting})])
        except IntegrityError:
            earlier = None if job.idempotency_key is None else self.by_key(job.idempotency_key)
            if earlier is None:
                raise
            return earlier, False
        except StorageFailed as error:
            if self._reserve is None or not error.details.get("disk_full"):
                raise
            raise _no_room(job, self._reserve) from error
        return JobRow(**{**values, "spec": job.spec, "number": number, "state": State.QUEUED}), True

    def get(self, job_id: str) -> JobRow | None:
        """The job of that id."""
        # No database takes half of a character, and not each takes NUL.
        return self._first(database.GET, {"the_id": job_id}) if job_id.isprintable() else None

    def state(self, job_id: str) -> State | None:
        """Where the job of that id stands: what is asked most often."""
        with self._read() as connection:
            state = connection.scalar(database.STATE, {"the_id": job_id})
        return None if state is None else State(state)

    def by_beginning(self, beginning: str) -> JobRow | None:
        """The job whose id begins like this (see `shared.jobs.picture_names`)."""
        # Not LIKE, for which SQLite does not use the index. No digit of an id sorts behind g.
        return self._first(sa.select(jobs).where(jobs.c.id >= beginning, jobs.c.id < f"{beginning}g").limit(1))

    def by_key(self, idempotency_key: str) -> JobRow | None:
        """The job that was accepted under that idempotency key."""
        return self._first(sa.select(jobs).where(jobs.c.idempotency_key == idempotency_key))

    def unfinished_marks(self, service: str) -> list[tuple[str, str]]:
        """Id and caller's mark of that service's jobs that are not finished, the newest first."""
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
        """Jobs as lists show them, the newest first, and at most a few megabytes (see `JobPage`).

        `before` is a `number`: that of the page in front of this one.
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
        with self._read() as connection, connection.execute(query) as found:
            return database.read_page(found, limit)

    def in_front(self, number: int) -> list[UnfinishedWork]:
        """The unfinished jobs that were accepted before that number, in order."""
        query = (
            sa.select(jobs.c.id, jobs.c.model, jobs.c.work, jobs.c.started)
            .where(jobs.c.state.in_(UNFINISHED), jobs.c.number < number)
            .order_by(jobs.c.number)
        )
        with self._read() as connection:
            rows = connection.execute(query).all()
            # Few of them run.
            return [UnfinishedWork(*row[1:], ends_at=row.started and _ends_at(connection, row.id)) for row in rows]

    def ends_at(self, job_id: str) -> float | None:
        """When a running job will be done by its own progress, in seconds since 1970; None if that cannot be told."""
        with self._read() as connection:
            return _ends_at(connection, job_id)

    def stood_in_front(self, number: int, since: float) -> bool:
        """Whether a job of a lower number is unfinished, or was until after `since`, in seconds since 1970."""
        # What ended ahead of now did so before the clock was set back.
        waits_or_waited = sa.or_(jobs.c.state.in_(UNFINISHED), jobs.c.finished.between(since, _not_ahead()))
        with self._read() as connection:
            return bool(connection.scalar(sa.select(sa.exists().where(jobs.c.number < number, waits_or_waited))))

    def count_unfinished(self, before: int | None = None) -> int:
        """How many jobs are not finished; with `before`, of those in front of that number."""
        with self._read() as connection:
            return _count_unfinished(connection, before)

    def measured(self, limit: int) -> list[tuple[str, float, float]]:
        """Model, work and seconds of the jobs that were completed last."""
        query = (
            sa.select(jobs.c.model, jobs.c.work, jobs.c.finished - jobs.c.started)
            # Where the clock was set back meanwhile, it is not known how long it took.
            .where(jobs.c.state == State.COMPLETED.value, jobs.c.finished > jobs.c.started)
            .order_by(jobs.c.number.desc())
            .limit(limit)
        )
        with self._read() as connection:
            return [(str(model), float(work), float(seconds)) for model, work, seconds in connection.execute(query)]

    @_even_if_full
    def save(self, worker: str, updates: Sequence[JobUpdate]) -> None:
        """Writes down what happened to jobs of this worker, as far as they are not ended or taken over meanwhile."""
        ids = [update.job_id for update in updates]
        with self._write() as connection:
            ours = _unfinished(connection, ids, worker)
            for update in updates:
                if update.job_id not in ours:
                    continue
                if update.started is not None:
                    values = {"state": State.RUNNING.value, "started": update.started}
                    connection.execute(database.MOVE, _which(update.job_id, worker) | values)
                _add_events(connection, update.job_id, update.events)

    @_even_if_full
    def requeue(self, worker: str, lost: Sequence[tuple[JobRow, int]]) -> set[str]:
        """Back to the queue: the engine lost these jobs, each with the number of times that it died of the job.

        Returns the ids of those that are still this worker's, and passes over others.
        """
        moved = set()
        with self._write() as connection:
            for row, crashes in lost:
                values = {"state": State.QUEUED.value, "started": None, "attempts": crashes}
                if connection.execute(database.MOVE, _which(row.id, worker) | values).rowcount == 1:
                    position = _count_unfinished(connection, row.number)
                    _add_events(connection, row.id, [("queued", {"position": position, "attempt": crashes + 1})])
                    moved.add(row.id)
        return moved

    @_even_if_full
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
        """The end of a job, with the events before it; the row as it then is.

        None, and nothing changed, if it has ended (been cancelled) already, or is this worker's no more.
        """
        values: dict[str, Any] = {"state": state.value, "finished": time.time(), "error": error, "images": list(images)}
        if started is not None:
            values["started"] = started
        with self._write() as connection:
            if connection.execute(database.MOVE, _which(row.id, worker) | values).rowcount == 0:
                return None
            _end(connection, row.id, new_events, state)
        return replace(row, **{**values, "state": state})

    @_even_if_full
    def cancel(self, job_id: str, error: Mapping[str, Any]) -> bool:
        """Ends a job as cancelled, whoever runs it; False if it is finished or unknown. Its worker finds out."""
        values = {"state": State.CANCELLED.value, "finished": time.time(), "error": error}
        with self._write() as connection:
            cancelled = connection.execute(database.END, {"the_id": job_id, **values}).rowcount == 1
            if cancelled:
                _end(connection, job_id, [], State.CANCELLED)
            return cancelled

    def unfinished(self, job_ids: Sequence[str], worker: str) -> set[str]:
        """Which of these jobs are a worker's, and not finished."""
        with self._read() as connection:
            return _unfinished(connection, job_ids, worker)

    @_even_if_full
    def note_engine_stop(self) -> None:
        """Writes down that somebody ended the engine just now: no job is to blame for what it lost."""
        with self._write() as connection:
            connection.execute(about.delete().where(about.c.key == ENGINE_STOP))
            connection.execute(about.insert().values(key=ENGINE_STOP, value=repr(time.time())))

    def engine_stopped_since(self, since: float) -> bool:
        """Whether somebody ended the engine after `since`, in seconds since 1970."""
        with self._read() as connection:
            when = connection.scalar(sa.select(about.c.value).where(about.c.key == ENGINE_STOP))
        # One ahead of now was written before the clock was set back, and would excuse every job until then.
        return when is not None and since <= float(when) <= _not_ahead()

    @_even_if_full
    def beat(self, worker: str) -> None:
        """Renews the worker's heartbeat."""
        with self._write() as connection:
            _beat(connection, worker)

    @_even_if_full
    def deregister(self, worker: str) -> None:
        """Ends the worker's heartbeat: what it has not finished is for others to reclaim, at once."""
        with self._write() as connection:
            connection.execute(workers.delete().where(workers.c.id == worker))

    @_even_if_full
    def reclaim_orphans(self, worker: str, stale_before: float) -> list[JobRow]:
        """Takes over every unfinished job whose worker is gone, or silent since before then; in their order."""
        # One far ahead of now was written before the clock was set back, and would hold its jobs until then.
        ahead = _not_ahead()
        alive = sa.select(workers.c.id).where(workers.c.heartbeat.between(stale_before, ahead))
        orphans = (jobs.c.state.in_(UNFINISHED), jobs.c.worker != worker, jobs.c.worker.not_in(alive))
        with self._read() as connection:
            if connection.execute(sa.select(jobs.c.id).where(*orphans).limit(1)).first() is None:
                return []
        with self._write() as connection:
            ids = list(connection.scalars(sa.select(jobs.c.id).where(*orphans)))
            connection.execute(jobs.update().where(jobs.c.id.in_(ids)).values(worker=worker))
            _beat(connection, worker)
            connection.execute(workers.delete().where(~workers.c.heartbeat.between(stale_before, ahead)))
            query = sa.select(jobs).where(jobs.c.id.in_(ids)).order_by(jobs.c.number)
            return [_row(row) for row in connection.execute(query).mappings()]

    def finished_before(self, number: int | None, limit: int) -> list[FinishedJob]:
        """Finished jobs, the newest first, below `number`."""
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

    @_even_if_full
    def remove(self, job_id: str, discard: Callable[[str], None]) -> bool:
        """Forgets a finished job and its events; False if there is no such job, or if it is not finished.

        `discard` is called for each upload that no job needs any more, while no other can be accepted that does.
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
    def hold(self) -> Iterator[Callable[[str], bool]]:
        """While inside, no job is accepted or removed; gives what tells whether a job names an upload."""
        query = sa.select(uploads.c.name).limit(1)
        with self._write() as connection:
            yield lambda upload: connection.execute(query.where(uploads.c.name == upload)).first() is not None

    def events(self, job_id: str, number: int) -> list[Event]:
        """What happened to a job after event `number` (0: all), in order."""
        with self._read() as connection:
            rows = connection.execute(database.EVENTS_AFTER, {"the_id": job_id, "the_number": number})
            return [Event(row.number, row.job_id, row.name, row.data) for row in rows]

    def last_event(self, job_id: str, name: str) -> Event | None:
        """The newest event of that name."""
        query = sa.select(events).where(events.c.job_id == job_id, events.c.name == name)
        with self._read() as connection:
            row = connection.execute(query.order_by(events.c.number.desc()).limit(1)).first()
        return None if row is None else Event(row.number, row.job_id, row.name, row.data)

    def refill(self) -> None:
        """Takes the room again that is kept for a full disk, once there is some. To be called now and then."""
        if self._reserve is None or not self._reserve.fill():
            return
        try:
            with self._read() as connection:
                there = connection.execute(HAS_ROW).first() is not None
            if not there:
                with self._write() as connection:
                    connection.execute(PUT_ROW)
        except (StorageFailed, IntegrityError) as error:
            # Another process may have been quicker, and the disk full again.
            log.info("no room is kept in the database: %s", error)

    def _make_room(self) -> bool:
        """Gives up what was kept for a full disk; whether a write may succeed now."""
        if self._reserve is None:
            return False
        log.warning("the disk is full: the room that was kept is used to end and remove jobs")
        self._reserve.give_up()
        try:
            with self._read() as connection:
                empty_journal(connection)
            with self._write() as connection:
                connection.execute(TAKE_ROW)
        except StorageFailed as error:
            log.info("the database keeps no room: %s", error)
        return True

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    @_even_if_full
    def _prepare(self) -> None:
        """Makes the tables, or brings them to this version. Raises SetupError if they are a later version's."""
        with self._write() as connection:
            try:
                upgrade(connection)
            except UnknownVersionError as error:
                raise SetupError(
                    "jobs",
                    str(error),
                    hint=f"use the program that made it, or move it away: {self._engine.url}",
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
            self._turn,
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
            if self._reserve is not None and self._reserve.is_wanted(cause):
                raise disk_full_error("the jobs' database cannot be written", self._reserve.folder) from error
            raise StorageFailed(
                f"the jobs' database does not work: {cause}", hint="is the disk full, or the data folder not writable?"
            ) from error


def _not_ahead() -> float:
    """Of what was written down, nothing is later, unless the clock was set back since."""
    return time.time() + MOST_AHEAD


def _no_room(job: NewJob, reserve: Reserve) -> StorageFailed:
    # About what its row takes, and beside it the rest.
    return disk_full_error(
        "the job could not be written down", reserve.folder, len(json.dumps(job.spec.to_json())) + ROW
    )


def _which(job_id: str, worker: str) -> dict[str, Any]:
    return {"the_id": job_id, "the_worker": worker}


def _beat(connection: Connection, worker: str) -> None:
    if connection.execute(database.BEAT, {"the_worker": worker, "heartbeat": time.time()}).rowcount == 0:
        connection.execute(workers.insert().values(id=worker, heartbeat=time.time()))


def _unfinished(connection: Connection, job_ids: Sequence[str], worker: str) -> set[str]:
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
