"""The data of a job's events, by the names of the events, as the OpenAPI document tells it."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from shared.schema.replies import ErrorReply, Image, Reply, ResultReply

JobId = Annotated[str, Field(description="the job's id")]
Attempt = Annotated[int, Field(ge=1, description="1, and one more for each time that the engine died of the job")]


class QueuedEvent(Reply):
    """The job waits. It is told again when its position changes, and when the engine died."""

    job_id: JobId
    position: Annotated[int, Field(ge=0, description="unfinished jobs in front of it")]
    eta_s: Annotated[float | None, Field(description="seconds until it is done; null if nothing was measured yet")] = (
        None
    )
    attempt: Attempt | None = None


class StartedEvent(Reply):
    """The engine began with the job."""

    job_id: JobId
    attempt: Attempt


class ProgressEvent(Reply):
    """Where the job stands."""

    job_id: JobId
    stage: Annotated[str, Field(description="the node of the graph")]
    step: Annotated[int | None, Field(ge=0)] = None
    steps: Annotated[int | None, Field(ge=1)] = None
    fraction: Annotated[float | None, Field(ge=0, le=1, description="of the stage")] = None
    eta_s: Annotated[
        float | None, Field(ge=0, description="seconds until the job is done; from the second step on")
    ] = None
    ends_at: Annotated[float | None, Field(description="when the job will be done, in seconds since 1970")] = None


class PreviewEvent(Reply):
    """A picture of how far the job has come."""

    job_id: JobId
    image: Annotated[str, Field(pattern="^data:image/jpeg;base64,", description="a JPEG of at most 256 pixels")]


class ImageEvent(Image):
    """A picture is ready."""

    job_id: JobId


class CompletedEvent(ResultReply):
    """The job is done: what a waiting request gets."""


class FailedEvent(ErrorReply):
    """The job failed."""

    job_id: JobId


class CancelledEvent(ErrorReply):
    """The job was cancelled."""

    job_id: JobId


EVENTS: Mapping[str, type[Reply]] = {
    "queued": QueuedEvent,
    "started": StartedEvent,
    "progress": ProgressEvent,
    "preview": PreviewEvent,
    "image": ImageEvent,
    "completed": CompletedEvent,
    "failed": FailedEvent,
    "cancelled": CancelledEvent,
}
