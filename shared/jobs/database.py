"""The jobs' database: its tables, the statements that every job needs, the query of lists, and the setup of SQLite.

Each worker renews its heartbeat. A job whose worker has no recent heartbeat may be reclaimed by any other.

In conditions, bound parameters are named `the_...`; in updates, they have the names of their columns.
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

# A change of the tables needs a migration (see `shared.jobs.migrations`).
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
    # The order of submission. The engine runs lower numbers first.
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
    # For estimates: a name for comparable jobs, and pixels times steps.
    sa.Column("model", sa.String(255), nullable=False),
    sa.Column("work", sa.Float, nullable=False),
    # A `JobSpec` (see shared/jobs/job.py).
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
# Only its worker may update an unfinished job; any process may end it.
UPDATE_OWN = jobs.update().where(
    jobs.c.id == sa.bindparam("the_id"), jobs.c.worker == sa.bindparam("the_worker"), _unfinished
)
END = jobs.update().where(jobs.c.id == sa.bindparam("the_id"), _unfinished)

ADD_EVENTS = events.insert()
EVENTS_AFTER = (
    sa.select(events)
    .where(events.c.job_id == sa.bindparam("the_id"), events.c.number > sa.bindparam("the_number"))
    .order_by(events.c.number)
)
# The latest start, which has no progress, hides the progress of earlier attempts.
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


# -- lists of jobs: the columns, and from the spec only what a list shows. A graph has up to a million characters, and a
# page has hundreds of jobs. So SQL extracts the parts of a spec, large ones stay in the database, and a large page ends
# early.

# Characters in the database: of a job's parameters or graph, and of a page.
LARGEST_PART = 50_000
LARGEST_PAGE = 4_000_000

_COLUMNS = [column for column in jobs.c if not isinstance(column.type, sa.JSON)]
# The keys of a spec that lists show. The values of the first are always small.
_SMALL = ("seeds", "size", "repeatable", "output_node", "uploads")
_LARGE = ("parameters", "graph")


def _unless_large(text: sa.ColumnElement[str]) -> sa.ColumnElement[str | None]:
    """The text; empty if it is too large, and NULL if there is none."""
    large = sa.func.length(text) > LARGEST_PART
    return sa.case((large, sa.literal("", sa.Text)), else_=text)


LIST = sa.select(
    *_COLUMNS,
    *(sa.cast(jobs.c[name], sa.Text).label(name) for name in ("images", "error")),
    *(jobs.c.spec[name].label(name) for name in _SMALL),
    *(_unless_large(jobs.c.spec[name].as_string()).label(name) for name in _LARGE),
).order_by(jobs.c.number.desc())


@dataclass(frozen=True)
class JobPage:
    """A page of jobs, newest first. `before` is the number that requests the next page; None on the last page.

    The specs contain only what lists show. Parameters or graphs above LARGEST_PART are empty, and named in `left_out`.
    """

    rows: list[JobRow]
    before: int | None = None


def read_page(result: Iterable[sa.Row[Any]], limit: int) -> JobPage:
    """The page of the first `limit` rows of LIST's result; fewer rows, but at least one, if they exceed LARGEST_PAGE.

    Does not fetch rows beyond the page.
    """
    rows: list[JobRow] = []
    size = 0
    for row in result:
        size += sum(len(text) for text in (row.images, row.error, row.parameters, row.graph) if text)
        if rows and (len(rows) == limit or size > LARGEST_PAGE):
            return JobPage(rows, rows[-1].number)
        rows.append(_abridged(row))
    return JobPage(rows)


def _abridged(row: sa.Row[Any]) -> JobRow:
    values = row._mapping
    spec = {name: values[name] for name in _SMALL if values[name] is not None}
    spec |= {name: json.loads(values[name] or "{}") for name in _LARGE}
    spec["left_out"] = [name for name in _LARGE if values[name] == ""]
    columns = {column.name: values[column.name] for column in _COLUMNS}
    decoded = {name: None if values[name] is None else json.loads(values[name]) for name in ("images", "error")}
    return JobRow(**{**columns, **decoded, "spec": JobSpec.from_json(spec), "state": State(values["state"])})


# -- SQLite

# Seconds that a connection waits for the lock of another process.
LOCK_TIMEOUT = 30.0


def configure_sqlite(engine: Engine, journal_pages: int) -> None:
    """Set up each connection: readers never wait for the writer, and writers wait for each other.

    SQLite moves its journal into the database at about `journal_pages` pages.
    """

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        # `on_begin` begins transactions. The driver would begin them as reads, and two reads that both turn into writes
        # block each other for ever.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={LOCK_TIMEOUT * 1000:.0f}")
        connection.execute("PRAGMA foreign_keys=ON")
        # Some builds overwrite deleted data with zeros. On a full disk, the journal has no room for that.
        connection.execute("PRAGMA secure_delete=FAST")
        _use_wal(connection)
        connection.execute(f"PRAGMA wal_autocheckpoint={journal_pages}")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        # A read is one statement, and needs no transaction.
        options = connection.get_execution_options()
        driver = connection.connection.driver_connection
        if options.get("writes") and driver is not None:
            # FULL waits for the disk, so that an accepted job survives a power cut. Other lost writes are repeated: a
            # job whose end was lost is looked up in the engine, or runs again.
            driver.execute(f"PRAGMA synchronous={'FULL' if options.get('durable') else 'NORMAL'}")
            driver.execute("BEGIN IMMEDIATE")


def checkpoint(connection: Connection) -> None:
    """Move the journal's content into the database, so that its file is reused from the start."""
    connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch the database to WAL. SQLite does not wait for locks here, so this retries."""
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
