"""A job: what it runs, its states, its row in the database, and its events.

    queued -> running -> completed | failed | cancelled
           ^         |
           +---------+   the engine lost the job, which is sent again

Each job belongs to the worker that runs it. Times are in seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any


class State(str, Enum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """Whether this state is final."""
        return self.value not in UNFINISHED


UNFINISHED = ("queued", "running")


@dataclass(frozen=True)
class JobSpec:
    """A parsed request, and the graph that it became. The database stores it as JSON.

    `parameters` are the API's fields as they were parsed; replies return them. `label_parameters` replace some of them
    in the text that other programs read from pictures, for programs without those fields.

    `uploads` maps the names of the pictures that the job needs to the engine's folder that each is uploaded to; None
    means that the picture is only stored, as the client sent it. `seeds` and `size` (width and height in pixels) are
    those of the expected pictures, where known. `output_node` is the node whose picture answers a request for a single
    picture.

    With `previews`, the engine sends pictures of unfinished latents. A job is `repeatable` if its parameters alone
    reproduce it; if it `embeds_parameters` too, its pictures contain them. In a list of jobs, fields that are too large
    are empty, and named in `left_out`.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    graph: dict[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    uploads: Mapping[str, str | None] = field(default_factory=dict)
    seeds: Sequence[int] = ()
    size: tuple[int, int] | None = None
    previews: bool = False
    repeatable: bool = True
    output_node: str | None = None
    label_parameters: Mapping[str, Any] = field(default_factory=dict)
    embeds_parameters: bool = True
    left_out: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """The spec as the database stores it."""
        stored = {spec_field.name: getattr(self, spec_field.name) for spec_field in fields(self)}
        del stored["left_out"]
        return stored | {"warnings": list(self.warnings), "seeds": list(self.seeds)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> JobSpec:
        """The spec from the output of `to_json`; a missing key has its default."""
        size = stored.get("size")
        lists = {name: tuple(stored.get(name, ())) for name in ("warnings", "seeds", "left_out")}
        return cls(**{**stored, **lists, "size": None if size is None else (size[0], size[1])})


@dataclass(frozen=True)
class NewJob:
    """A job that is to be submitted. `id` is a canonical lowercase UUID.

    `client` is the mark of the caller (see `shared.web.callers`). For estimates of its duration, `model` names what is
    comparable, and `work` is pixels times steps.
    """

    id: str
    kind: str
    client: str
    service: str
    spec: JobSpec
    model: str = ""
    work: float = 1.0
    idempotency_key: str | None = None
    body_hash: str | None = None


@dataclass(frozen=True)
class JobRow:
    """A job as the database has it. `attempts` counts the crashes of the engine that the job may have caused."""

    number: int
    id: str
    kind: str
    state: State
    client: str
    service: str
    worker: str
    attempts: int
    created: float
    started: float | None
    finished: float | None
    model: str
    work: float
    spec: JobSpec
    images: list[dict[str, str]]
    error: dict[str, Any] | None
    idempotency_key: str | None
    body_hash: str | None

    @property
    def has_imported_graph(self) -> bool:
        """Whether its graph is a custom graph or a named workflow. Its parameters then do not describe the pictures."""
        return self.kind == "workflow" or not self.spec.repeatable


@dataclass(frozen=True)
class UnfinishedWork:
    """The part of an unfinished job that estimates need. `ends_at` is known once the job makes progress."""

    model: str
    work: float
    started: float | None
    ends_at: float | None = None


@dataclass(frozen=True)
class FinishedJob:
    """The part of a finished job that its retention depends on."""

    number: int
    id: str
    finished: float
    images: list[dict[str, str]]


@dataclass(frozen=True)
class Event:
    """An event of a job. Numbers increase over all jobs, so that a stream can resume after any of them."""

    number: int
    job_id: str
    name: str
    data: dict[str, Any]


PendingEvent = tuple[str, Mapping[str, Any]]
"""An event that is not recorded yet: its name and its data."""


@dataclass(frozen=True)
class JobUpdate:
    """The changes of a running job since its last update: its start, if that is new, and events in order."""

    job_id: str
    started: float | None
    events: Sequence[PendingEvent]
