"""The database's tables, and a job as one row of them.

    queued -> running -> completed | failed | cancelled
       ^         |
       +---------+   the engine died, and the job is sent again

A job is owned by the service that runs it. Each service renews its own heartbeat, and a job whose owner is silent may
be adopted by any other. What happens to a job is an event too, with a number, so that a stream can be replayed from
any point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import sqlalchemy as sa

# Raised with every change of the tables below.
SCHEMA_VERSION = 1

metadata = sa.MetaData()

about = sa.Table("about", metadata, sa.Column("key", sa.String(40), primary_key=True), sa.Column("value", sa.Text))

owners = sa.Table(
    "owners",
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
    sa.Column("owner", sa.String(36), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("started", sa.Float),
    sa.Column("finished", sa.Float),
    # For the ETA: what is drawn with, and how much of it (pixels times steps).
    sa.Column("model", sa.String(255), nullable=False),
    sa.Column("work", sa.Float, nullable=False),
    # What the job is: the request as it was understood, the graph, names of the uploads, warnings.
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


class State(str, Enum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """Whether nothing will happen to the job any more."""
        return self.value not in UNFINISHED


UNFINISHED = ("queued", "running")


@dataclass(frozen=True)
class NewJob:
    """What is known of a job when it is accepted. `id` is a canonical lowercase UUID.

    `spec` holds `request` (its parameters), `graph`, `warnings`, `uploads` (pairs of name and folder, or None for
    what is only kept), `previews`, of the pictures the `seeds` and the `size`, whether it is `repeatable` by its
    parameters alone, whether its pictures get their `recipe`, and the `output_node` that was asked for.
    """

    id: str
    kind: str
    client: str
    service: str
    spec: Mapping[str, Any]
    model: str = ""
    work: float = 1.0
    idempotency_key: str | None = None
    body_hash: str | None = None


@dataclass(frozen=True)
class JobRow:
    """A job as it is written down. Times are in seconds since 1970."""

    number: int
    id: str
    kind: str
    state: State
    client: str
    service: str
    owner: str
    attempts: int
    created: float
    started: float | None
    finished: float | None
    model: str
    work: float
    spec: dict[str, Any]
    images: list[dict[str, str]]
    error: dict[str, Any] | None
    idempotency_key: str | None
    body_hash: str | None

    @property
    def foreign(self) -> bool:
        """Whether its graph is somebody's own, sent or as a file: its request then says little of what was drawn."""
        return self.kind == "workflow" or not self.spec.get("repeatable", True)


@dataclass(frozen=True)
class Work:
    """The little that must be known of an unfinished job to tell how long it will take.

    `ends_at`: when it will be done by its own progress, in seconds since 1970; None while that cannot be told.
    """

    model: str
    work: float
    started: float | None
    ends_at: float | None = None


@dataclass(frozen=True)
class Finished:
    """The little that must be known of a finished job to tell whether it is kept."""

    number: int
    id: str
    finished: float
    images: list[dict[str, str]]


@dataclass(frozen=True)
class Event:
    """Something that happened to a job; `number` rises over all jobs."""

    number: int
    job_id: str
    name: str
    data: dict[str, Any]


Note = tuple[str, Mapping[str, Any]]
"""An event that is not written down yet: its name and its data."""


@dataclass(frozen=True)
class Report:
    """What happened to a job since the last report: when it started (None: nothing new), and events in order."""

    job_id: str
    started: float | None
    notes: Sequence[Note]
