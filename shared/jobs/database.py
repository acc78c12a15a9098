"""The database of jobs: its tables, a job as a row, the statements that every job needs, and what SQLite needs.

queued -> running -> completed | failed | cancelled
       ^         |
       +---------+   the engine died, and the job is sent again

A job is owned by the service that runs it. Each service renews its own heartbeat, and a job whose worker is silent may
be reclaimed by any other. What happens to a job is an event too, with a number, so that a stream can be replayed from
any point.

Parameters of conditions are named `the_...`; those of an update's values like their columns.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from shared.jobs.job import UNFINISHED, JobRow, JobSpec, State

# A change of these tables needs a migration (see `shared.jobs.migrations`).
metadata = sa.MetaData()

about = sa.Table("about", metadata, sa.Column("key", sa.String(40), primary_key=True), sa.Column("value", sa.Text))

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    # Seconds since 1970.
    sa.Column("heartbeat", sa.Float, nullable=False),
)

jobs = sa.Table(
    "jobs",
    metadata,
    # Order of arrival. The engine runs lower numbers first, so it is also the order of running.
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("kind", sa.String(40), nullable=False),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("client", sa.String(64), nullable=False),
    sa.Column("service", sa.String(40), nullable=False),
    sa.Column("worker", sa.String(36), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("started", sa.Float),
    sa.Column("finished", sa.Float),
    # For the ETA: what is drawn with, and how much of it (pixels times steps).
    sa.Column("model", sa.String(255), nullable=False),
    sa.Column("work", sa.Float, nullable=False),
    # See shared/jobs/job.py.
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("images", sa.JSON, nullable=False),
    sa.Column("error", sa.JSON),
    sa.Column("idempotency_key", sa.String(255), unique=True),
    sa.Column("body_hash", sa.String(64)),
    sa.Index("jobs_by_state", "state", "number"),
    sqlite_autoincrement=True,
)

uploads = sa.Table(
    "uploads",
    metadata,
    sa.Column("job_id", sa.String(36), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.String(255), primary_key=True, index=True),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.String(36), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("name", sa.String(20), nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Index("events_by_job", "job_id", "number"),
    sqlite_autoincrement=True,
)


_unfinished = jobs.c.state.in_(UNFINISHED)

COUNT = sa.select(sa.func.count()).select_from(jobs).where(_unfinished)
COUNT_BEFORE = COUNT.where(jobs.c.number < sa.bindparam("the_number"))

ADD = jobs.insert()
GET = sa.select(jobs).where(jobs.c.id == sa.bindparam("the_id"))
STATE = sa.select(jobs.c.state).where(jobs.c.id == sa.bindparam("the_id"))
# The one way in which an unfinished job changes: by its worker. Only the end may come from anybody.
MOVE = jobs.update().where(
    jobs.c.id == sa.bindparam("the_id"), jobs.c.worker == sa.bindparam("the_worker"), _unfinished
)
END = jobs.update().where(jobs.c.id == sa.bindparam("the_id"), _unfinished)

ADD_EVENTS = events.insert()
EVENTS_AFTER = (
    sa.select(events)
    .where(events.c.job_id == sa.bindparam("the_id"), events.c.number > sa.bindparam("the_number"))
    .order_by(events.c.number)
)
# What was told of an earlier attempt stands before the newest start, which tells nothing of progress.
NEWEST_PROGRESS = (
    sa.select(events.c.data)
    .where(events.c.job_id == sa.bindparam("the_id"), events.c.name.in_(("started", "progress")))
    .order_by(events.c.number.desc())
    .limit(1)
)
REMOVE_EVENTS = events.delete().where(
    events.c.job_id == sa.bindparam("the_id"), events.c.name == sa.bindparam("the_name")
)

BEAT = workers.update().where(workers.c.id == sa.bindparam("the_worker"))


# Characters, as they stand in the database: of one job's request or graph, and of all that a page holds.
LARGEST_PART = 50_000
LARGEST_PAGE = 4_000_000

_PLAIN = [column for column in jobs.c if not isinstance(column.type, sa.JSON)]
# Parts of a spec that are always short.
_SMALL = ("seeds", "size", "repeatable", "output_node", "uploads")
_LARGE = ("parameters", "graph")


def _if_short(text: sa.ColumnElement[str]) -> sa.ColumnElement[str | None]:
    """The text, or an empty one in place of one that is too long; NULL where there is none."""
    long = sa.func.length(text) > LARGEST_PART
    return sa.case((long, sa.literal("", sa.Text)), else_=text)


LIST = sa.select(
    *_PLAIN,
    *(sa.cast(jobs.c[name], sa.Text).label(name) for name in ("images", "error")),
    *(jobs.c.spec[name].label(name) for name in _SMALL),
    *(_if_short(jobs.c.spec[name].as_string()).label(name) for name in _LARGE),
).order_by(jobs.c.number.desc())


@dataclass(frozen=True)
class JobPage:
    """Jobs of a list, the newest first; `before` is the number that leads to the next page, None on the last.

    Their specs are `abridged`: they hold what lists show. A request or graph of more than LARGEST_PART characters is an
    empty object there, and named in `left_out`.
    """

    rows: list[JobRow]
    before: int | None = None


def read_page(found: Iterable[sa.Row[Any]], limit: int) -> JobPage:
    """The first `limit` rows of what QUERY found, or fewer: at most LARGEST_PAGE characters, but one row at least.

    Rows beyond are not asked for.
    """
    rows: list[JobRow] = []
    size = 0
    for row in found:
        size += sum(len(text) for text in (row.images, row.error, row.parameters, row.graph) if text)
        if rows and (len(rows) == limit or size > LARGEST_PAGE):
            return JobPage(rows, rows[-1].number)
        rows.append(_abridged(row))
    return JobPage(rows)


def _abridged(row: sa.Row[Any]) -> JobRow:
    told = row._mapping
    spec = {name: told[name] for name in _SMALL if told[name] is not None}
    spec |= {name: json.loads(told[name] or "{}") for name in _LARGE}
    spec["left_out"] = [name for name in _LARGE if told[name] == ""]
    plain = {column.name: told[column.name] for column in _PLAIN}
    texts = {name: None if told[name] is None else json.loads(told[name]) for name in ("images", "error")}
    return JobRow(**{**plain, **texts, "spec": JobSpec.from_json(spec), "state": State(told["state"])})


# Seconds that a write waits for other processes.
PATIENCE = 30.0


def tune(engine: Engine, journal_pages: int) -> None:
    """Readers never wait for the writer, and writers for each other. The journal has about so many pages at most."""

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        # Transactions are begun by us below: the driver would begin them as readers, and two readers that both want to
        # write then block each other for good.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={PATIENCE * 1000:.0f}")
        connection.execute("PRAGMA foreign_keys=ON")
        # Some builds write zeros over all that is deleted: on a full disk there is no room for that in the journal.
        connection.execute("PRAGMA secure_delete=FAST")
        _use_wal(connection)
        connection.execute(f"PRAGMA wal_autocheckpoint={journal_pages}")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        # Reads are of one statement each, and need no transaction.
        options = connection.get_execution_options()
        driver = connection.connection.driver_connection
        if options.get("writes") and driver is not None:
            # FULL waits for the disk, so that an accepted job outlives a power cut. What else could be lost is found
            # out again: a job whose end was not written is looked up in the engine, or run again.
            driver.execute(f"PRAGMA synchronous={'FULL' if options.get('durable') else 'NORMAL'}")
            driver.execute("BEGIN IMMEDIATE")


def empty_journal(connection: Connection) -> None:
    """Brings what stands in the journal into the database, so that it is written anew in the room that it has."""
    connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switches to WAL, which the file remembers. Unlike a write, this does not wait for another process to finish."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
