"""What a job is to draw. It is typed everywhere; only the database holds it as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any


@dataclass(frozen=True)
class JobSpec:
    """A request that was understood, and the graph that draws it.

    `parameters` is what replies repeat: the API's fields as they were understood. `label_parameters` replaces some of
    them in the text that other programs read, for programs that lack our fields.

    `uploads` are the pictures that the job needs, by name, each with the folder of the engine that it goes to; None if
    it is only kept, as it was sent. `seeds`, and `size` in pixels, are those of the pictures to come, as far as they
    are known. `output_node` is the node whose picture is the answer where that is one picture.

    With `previews` the engine sends pictures of unfinished latents. Only a job that is `repeatable` can be repeated
    from its parameters alone; its pictures hold them if it `embeds_parameters`. A list of jobs may have `left_out`
    fields that are too large for it: these are empty then.
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
        """The spec as the database holds it."""
        stored = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "left_out"}
        return stored | {"warnings": list(self.warnings), "seeds": list(self.seeds)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> JobSpec:
        """The spec that `to_json` made; what it lacks has its default."""
        size = stored.get("size")
        lists = {name: tuple(stored.get(name, ())) for name in ("warnings", "seeds", "left_out")}
        return cls(**{**stored, **lists, "size": None if size is None else (size[0], size[1])})


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

    `model` and `work` serve the estimate of how long it will take: what it is drawn with, and pixels times steps.
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
    """A job as it is written down. Times are in seconds since 1970."""

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
        """Whether its graph is somebody's own, sent or as a file: its request then says little of what was drawn."""
        return self.kind == "workflow" or not self.spec.repeatable


@dataclass(frozen=True)
class UnfinishedWork:
    """The little that must be known of an unfinished job to tell how long it will take.

    `ends_at`: when it will be done by its own progress, in seconds since 1970; None while that cannot be told.
    """

    model: str
    work: float
    started: float | None
    ends_at: float | None = None


@dataclass(frozen=True)
class FinishedJob:
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


PendingEvent = tuple[str, Mapping[str, Any]]
"""An event that is not written down yet: its name and its data."""


@dataclass(frozen=True)
class JobUpdate:
    """What happened to a job since the last update: when it started (None: nothing new), and events in order."""

    job_id: str
    started: float | None
    events: Sequence[PendingEvent]
