"""Frames of ComfyUI's websocket become typed events. Pure."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

from shared.engine.client import SavedImage

# The kind of a binary frame that holds a preview, and says of which job.
PREVIEW_WITH_METADATA = 4


@dataclass(frozen=True)
class Connection:
    """The websocket was connected or lost: jobs may have ended unheard."""

    connected: bool


@dataclass(frozen=True)
class JobStarted:
    """The engine began with a job."""

    job_id: str


@dataclass(frozen=True)
class JobCached:
    """The engine has what these nodes of a job return from an earlier one, and runs them not."""

    job_id: str
    nodes: frozenset[str]


@dataclass(frozen=True)
class JobProgress:
    """A job is in `node` (its name in the graph), at `step` of `steps`; both are 0 for a node without steps."""

    job_id: str
    node: str
    step: int = 0
    steps: int = 0


@dataclass(frozen=True)
class Preview:
    """A picture of how far a job has come, as an encoded file."""

    job_id: str
    picture: bytes


@dataclass(frozen=True)
class ImagesSaved:
    """A node of a job saved pictures."""

    job_id: str
    images: tuple[SavedImage, ...]


@dataclass(frozen=True)
class JobEnded:
    """The engine is done with a job, well or badly. Its history entry is written by now."""

    job_id: str


JobEvent = JobStarted | JobCached | JobProgress | Preview | ImagesSaved | JobEnded
EngineEvent = Connection | JobEvent


def parse_frame(frame: str | bytes) -> JobEvent | None:
    """The event in `frame`, or None for anything that we do not follow.

    The one message after which the history is sure to be written is `executing` with node null; it comes after errors
    and interruptions too.
    """
    try:
        return _parse_binary(frame) if isinstance(frame, bytes) else _parse_text(json.loads(frame))
    except (ValueError, KeyError, TypeError, struct.error, AttributeError):
        return None


def _parse_text(message: dict[str, Any]) -> JobEvent | None:
    data, kind = message["data"], message["type"]
    if kind not in ("execution_start", "execution_cached", "progress", "executing", "executed"):
        return None
    job_id = str(data["prompt_id"])
    if kind == "execution_start":
        return JobStarted(job_id)
    if kind == "execution_cached":
        return JobCached(job_id, frozenset(map(str, data["nodes"])))
    if kind == "progress":
        return JobProgress(job_id, str(data["node"]), int(data["value"]), int(data["max"]))
    if kind == "executing":
        return JobEnded(job_id) if data["node"] is None else JobProgress(job_id, str(data["node"]))
    images = tuple(
        SavedImage(str(image["filename"]), str(image.get("subfolder", "")), str(image["type"]))
        for image in (data["output"] or {}).get("images") or ()
        if image.get("type") == "output"
    )
    return ImagesSaved(job_id, images) if images else None


def _parse_binary(frame: bytes) -> JobEvent | None:
    kind, length = struct.unpack_from(">II", frame)
    if kind != PREVIEW_WITH_METADATA:
        return None
    about = json.loads(frame[8 : 8 + length])
    return Preview(str(about["prompt_id"]), frame[8 + length :])
