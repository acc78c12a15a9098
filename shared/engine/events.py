"""Frames of ComfyUI's websocket become typed events. Pure."""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class JobEnded:
    """The engine is done with a job, well or badly. Its history entry is written by now."""

    job_id: str


def parse_frame(frame: str | bytes) -> JobEnded | None:
    """The event in `frame`, or None for anything that we do not follow (previews are binary frames).

    The one message after which the history is sure to be written is `executing` with node null; it comes after
    errors and interruptions too.
    """
    if isinstance(frame, bytes):
        return None
    try:
        message = json.loads(frame)
        data = message["data"]
        if message["type"] == "executing" and data["node"] is None:
            return JobEnded(job_id=str(data["prompt_id"]))
    except (ValueError, KeyError, TypeError):
        return None
    return None
