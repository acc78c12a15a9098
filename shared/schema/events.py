"""The data of a job's events: the models of the OpenAPI document, by the names of the events."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from shared.schema.replies import ErrorReply, Image, Reply, ResultReply

JobId = Annotated[str, Field(description="the job's id")]
Attempt = Annotated[int, Field(ge=1, description="1, plus 1 for each crash of the engine during the job")]


class QueuedEvent(Reply):
    """The job waits. Sent again when its position changes, and after a crash of the engine."""

    job_id: JobId
    position: Annotated[int, Field(ge=0, description="unfinished jobs ahead of it")]
    eta_s: Annotated[float | None, Field(description="seconds until it is done; null while nothing was measured")] = (
        None
    )
    attempt: Attempt | None = None


class StartedEvent(Reply):
    """The engine has started the job."""

    job_id: JobId
    attempt: Attempt


class ProgressEvent(Reply):
    """The job has progressed."""

    job_id: JobId
    stage: Annotated[str, Field(description="node of the graph")]
    step: Annotated[int | None, Field(ge=0, description="step of the stage")] = None
    steps: Annotated[int | None, Field(ge=1, description="number of its steps")] = None
    fraction: Annotated[float | None, Field(ge=0, le=1, description="share of the stage that is done")] = None
    eta_s: Annotated[
        float | None, Field(ge=0, description="seconds until the job is done; from the second step on")
    ] = None
    ends_at: Annotated[float | None, Field(description="time at which the job will be done, in seconds since 1970")] = (
        None
    )


class PreviewEvent(Reply):
    """A picture of the work in progress."""

    job_id: JobId
    image: Annotated[
        str, Field(pattern="^data:image/jpeg;base64,", description="JPEG of at most 256 pixels, as a data URL")
    ]


class ImageEvent(Image):
    """A picture is ready."""

    job_id: JobId


class CompletedEvent(ResultReply):
    """The job is complete."""


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
