"""The routes of jobs."""

from typing import Annotated

from pydantic import Field

from shared.errors import (
    Busy,
    CallerUnclear,
    InvalidValue,
    NotFinished,
    NotFound,
    QueueFull,
    RequestError,
    StorageFailed,
    UnsupportedBody,
)
from shared.jobs.job import State
from shared.schema.body import Body as Fields
from shared.schema.replies import DeletedReply, InterruptReply, JobReply, JobsReply
from shared.web.openapi.drawing import ACCEPTED, STREAM
from shared.web.openapi.operation import Body, Example, Operation, Parameter, Reply
from shared.web.routes.jobs import LARGEST_PAGE, PAGE

JOB_ID = Parameter("job_id", "path", "the job's id", {"type": "string", "format": "uuid"})
THAT = {"job_id": "3f2a9c1e-0b7d-4c5e-9a51-7d0f6f0e2b11"}
NUMBER = {"type": "integer", "minimum": 1}


class InterruptBody(Fields):
    """Which job to cancel."""

    job_id: Annotated[
        str | None,
        Field(description="the caller's newest unfinished one if left out; a 409 where that would be a guess"),
    ] = None


def _interrupt(kind: str) -> Operation:
    return Operation(
        "POST",
        f"/api/{kind}/interrupt",
        "Jobs",
        f"Cancel the caller's newest unfinished {kind} job, or one of your choice",
        (Reply("whether there was one", InterruptReply),),
        (Example("The newest", {}),),
        body=Body(InterruptBody, required=False),
        errors=(RequestError, UnsupportedBody, NotFound, CallerUnclear, InvalidValue, StorageFailed),
    )


OPERATIONS = (
    Operation(
        "GET",
        "/api/jobs",
        "Jobs",
        "The jobs, the newest first",
        (Reply("a page of jobs", JobsReply),),
        (Example("Those that are done", query={"state": "completed", "limit": "2"}), Example("All")),
        parameters=(
            Parameter("state", "query", f"one or more with commas: {', '.join(state.value for state in State)}"),
            Parameter("kind", "query", "`txt2img`, `img2img`, `upscale`, `extras` or `workflow`"),
            Parameter("limit", "query", "at most so many", {**NUMBER, "maximum": LARGEST_PAGE, "default": PAGE}),
            Parameter("before", "query", "the `before` of the page in front of this one", NUMBER),
        ),
        errors=(InvalidValue, StorageFailed),
    ),
    Operation(
        "GET",
        "/api/jobs/<job_id>",
        "Jobs",
        "A job: its state, and its result or error",
        (Reply("the job", JobReply),),
        (Example("A job", path=THAT),),
        parameters=(JOB_ID,),
        errors=(NotFound, StorageFailed),
    ),
    Operation(
        "GET",
        "/api/jobs/<job_id>/events",
        "Jobs",
        "Watch a job",
        (STREAM, Reply("there will be no more events", status=204)),
        (Example("From its first event", path=THAT),),
        parameters=(
            JOB_ID,
            Parameter("Last-Event-ID", "header", "the last event that was seen", {"type": "integer", "minimum": 0}),
            Parameter("after", "query", "the same, for who cannot set headers", {"type": "integer", "minimum": 0}),
        ),
        errors=(NotFound, InvalidValue, Busy, StorageFailed),
    ),
    Operation(
        "POST",
        "/api/jobs/<job_id>/retry",
        "Jobs",
        "Draw a finished job again, with the same seed",
        (ACCEPTED,),
        (Example("Once more", path=THAT, status=202),),
        parameters=(JOB_ID,),
        errors=(NotFound, NotFinished, InvalidValue, QueueFull, StorageFailed),
    ),
    Operation(
        "DELETE",
        "/api/jobs/<job_id>",
        "Jobs",
        "Cancel a job; remove one that is finished, with its pictures",
        (Reply("what was done", DeletedReply),),
        (Example("A finished one", path=THAT),),
        parameters=(JOB_ID,),
        errors=(NotFound, StorageFailed),
    ),
    _interrupt("txt2img"),
    _interrupt("img2img"),
)
