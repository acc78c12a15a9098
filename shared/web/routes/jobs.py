"""Jobs: list, get, watch, retry, cancel and remove. Each service has all of them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Annotated, Any

from flask import Blueprint, Response, jsonify, request
from pydantic import Field

from shared.errors import (
    Busy,
    CallerUnclear,
    EngineUnavailable,
    InvalidValue,
    NotFinished,
    NotFound,
    QueueFull,
    RequestError,
    StorageFailed,
    UnsupportedBody,
)
from shared.jobs.job import JobRow, State
from shared.schema.body import RequestBody
from shared.schema.choices import find_choice
from shared.schema.replies import DeletedReply, InterruptReply, JobReply, JobsReply
from shared.web.backend import Backend, current_backend
from shared.web.callers import caller_of, newest_job_of
from shared.web.custom_graph import CUSTOM_FIELD
from shared.web.imported_graph_checks import check_imported_graph
from shared.web.openapi.components import ACCEPTED, NUMBER, STREAM, UUID
from shared.web.openapi.operation import BodySpec, Example, ParameterSpec, ReplySpec, describe
from shared.web.reply import job_body, result_body
from shared.web.request_body import Fields, check_arguments, number_argument, read_optional_fields, whole_number
from shared.web.waiting import accepted_reply, stream_reply

PAGE = 50
LARGEST_PAGE = 500
# The largest number of a job or event: the largest safe integer of JavaScript.
LARGEST_NUMBER = 2**53
KINDS = ("txt2img", "img2img", "workflow", "upscale", "extras")


job_routes = Blueprint("jobs", __name__)
JOB_ID = ParameterSpec("job_id", "path", "the id of the job", UUID)
SAMPLE = {"job_id": "3f2a9c1e-0b7d-4c5e-9a51-7d0f6f0e2b11"}


@job_routes.get("/api/jobs")
@describe(
    "Jobs",
    ReplySpec("a page of jobs", JobsReply),
    examples=(Example("Two completed jobs", query={"state": "completed", "limit": "2"}), Example("All jobs")),
    parameters=(
        ParameterSpec(
            "state", "query", f"one or more, separated by commas: {', '.join(state.value for state in State)}"
        ),
        ParameterSpec("kind", "query", "`txt2img`, `img2img`, `upscale`, `extras` or `workflow`"),
        ParameterSpec(
            "limit", "query", "the largest number of jobs", {**NUMBER, "maximum": LARGEST_PAGE, "default": PAGE}
        ),
        ParameterSpec("before", "query", "the value of `before` in the previous page", NUMBER),
    ),
    errors=(InvalidValue, StorageFailed),
)
def list_jobs() -> Response:
    """List jobs, newest first."""
    check_arguments("state", "kind", "limit", "before")
    states = [_parse_state(name) for value in request.args.getlist("state") for name in value.split(",")]
    limit = number_argument("limit", LARGEST_PAGE) or PAGE
    sent_kind = request.args.get("kind")
    kind = None if sent_kind is None else find_choice(sent_kind, KINDS)
    if sent_kind is not None and kind is None:
        raise InvalidValue(f"kind {sent_kind!r} does not exist", field="kind", hint=f"use one of {', '.join(KINDS)}")
    backend = current_backend()
    # Pages follow job numbers, so that new jobs do not shift them.
    page = backend.jobs.list(states=states, kind=kind, limit=limit, before=number_argument("before", LARGEST_NUMBER))
    urls = backend.urls()
    jobs = [job_body(row, urls) for row in page.rows]
    return jsonify({"status": "success", "jobs": jobs, "before": page.before})


@job_routes.get("/api/jobs/<job_id>")
@describe(
    "Jobs",
    ReplySpec("the job", JobReply),
    examples=(Example("A job", path=SAMPLE),),
    parameters=(JOB_ID,),
    errors=(NotFound, StorageFailed),
)
def get_job(job_id: str) -> Response:
    """Get a job with its state, and its result or error."""
    backend = current_backend()
    return jsonify({"status": "success", **_full_body(backend, backend.jobs.get(job_id))})


@job_routes.get("/api/jobs/<job_id>/events")
@describe(
    "Jobs",
    STREAM,
    ReplySpec("the job has no more events", status=204),
    examples=(Example("From the first event", path=SAMPLE),),
    parameters=(
        JOB_ID,
        ParameterSpec(
            "Last-Event-ID", "header", "the id of the last event that was received", {"type": "integer", "minimum": 0}
        ),
        ParameterSpec(
            "after",
            "query",
            "like `Last-Event-ID`, for clients that cannot set headers",
            {"type": "integer", "minimum": 0},
        ),
    ),
    errors=(NotFound, InvalidValue, Busy, StorageFailed),
)
def watch_job(job_id: str) -> Response:
    """Stream the events of a job."""
    backend = current_backend()
    row, after = backend.jobs.get(job_id), _last_event_id()
    if row.state.finished and not backend.jobs.events(job_id, after):
        # A browser does not reconnect after 204.
        return Response(status=204)
    with ExitStack() as slot:
        slot.enter_context(backend.streams.slot())
        return stream_reply(backend, row, slot.pop_all(), after)


@job_routes.post("/api/jobs/<job_id>/retry")
@describe(
    "Jobs",
    replace(ACCEPTED, description="the new job was accepted"),
    examples=(Example("Run again", path=SAMPLE, status=202),),
    parameters=(JOB_ID,),
    errors=(NotFound, NotFinished, InvalidValue, QueueFull, StorageFailed),
)
def retry_job(job_id: str) -> Response:
    """Run a finished job again, with the same seed."""
    # A field would ask for a different picture.
    read_optional_fields(request)
    backend = current_backend()
    row = backend.jobs.get(job_id)
    if row.has_imported_graph and row.state.finished:
        _check_still_allowed(backend, row)
    return accepted_reply(backend, backend.jobs.retry(row, caller_of(request).mark))


@job_routes.delete("/api/jobs/<job_id>")
@describe(
    "Jobs",
    ReplySpec("whether the job was cancelled or removed", DeletedReply),
    examples=(Example("A finished job", path=SAMPLE),),
    parameters=(JOB_ID,),
    errors=(NotFound, StorageFailed),
)
def delete_job(job_id: str) -> Response:
    """Cancel a job, or remove a finished one with its pictures."""
    jobs = current_backend().jobs
    row = jobs.get(job_id)
    if jobs.cancel(job_id):
        done, message = "cancelled", "the job is cancelled"
    else:
        jobs.delete(row)
        done, message = "removed", "the job and its pictures are removed"
    return jsonify({"status": "success", "message": message, "job_id": job_id, "done": done})


class InterruptBody(RequestBody):
    """Which job to cancel."""

    job_id: Annotated[
        str | None,
        Field(description="default: the newest unfinished job of this client; a 409 if clients cannot be told apart"),
    ] = None


_describe_interrupt = describe(
    "Jobs",
    ReplySpec("whether a job was cancelled", InterruptReply),
    examples=(Example("The newest job", {}),),
    body=BodySpec(InterruptBody, required=False),
    errors=(RequestError, UnsupportedBody, NotFound, CallerUnclear, InvalidValue, StorageFailed),
)


txt2img_interrupt_routes = Blueprint("txt2img-interrupt", __name__)
img2img_interrupt_routes = Blueprint("img2img-interrupt", __name__)


@txt2img_interrupt_routes.post("/api/txt2img/interrupt")
@_describe_interrupt
def interrupt_txt2img() -> Response:
    """Cancel the client's newest unfinished txt2img job, or the given one."""
    return _interrupt("txt2img")


@img2img_interrupt_routes.post("/api/img2img/interrupt")
@_describe_interrupt
def interrupt_img2img() -> Response:
    """Cancel the client's newest unfinished img2img job, or the given one."""
    return _interrupt("img2img")


def _interrupt(kind: str) -> Response:
    """Cancel the client's newest unfinished job of this kind, or the job of `job_id`."""
    job_id, jobs = _sent_id(read_optional_fields(request, "job_id")), current_backend().jobs
    if job_id is None:
        marks = jobs.unfinished_of(kind)
        job_id = newest_job_of(caller_of(request), marks)
        message = f"you have no unfinished job{_note_others(len(marks))}"
    else:
        job_id, message = jobs.get(job_id).id, "the job has already finished"
    if job_id is None or not jobs.cancel(job_id):
        return jsonify({"status": "success", "message": message, "cancelled": False})
    return jsonify({"status": "success", "message": "the job is cancelled", "cancelled": True, "job_id": job_id})


def _sent_id(fields: Fields) -> str | None:
    job_id = fields.values.get("job_id")
    if job_id is not None and not isinstance(job_id, str):
        raise InvalidValue("job_id must be text", field="job_id", hint="see GET /api/jobs")
    return job_id


def _note_others(count: int) -> str:
    return f"; other clients have {count}: send a job_id to cancel one of them" if count else ""


def _full_body(backend: Backend, row: JobRow) -> dict[str, Any]:
    """A job with its warnings, progress or result."""
    body = {**job_body(row, backend.urls()), "warnings": row.spec.warnings}
    if not row.state.finished:
        body |= {
            "position": backend.jobs.position(row),
            "eta_s": backend.jobs.eta(row),
            "progress": backend.jobs.progress(row),
        }
    if row.state is State.COMPLETED:
        body["result"] = result_body(row, backend.urls(), backend.jobs)
    return body


def _check_still_allowed(backend: Backend, row: JobRow) -> None:
    """Raise InvalidValue if the imported graph of a job is no longer allowed."""
    try:
        check_imported_graph(backend, row.spec.graph, CUSTOM_FIELD, {})
    except EngineUnavailable:
        # It was allowed before, so the job may wait for the engine like any other.
        return


def _parse_state(name: str) -> State:
    names = [state.value for state in State]
    state = find_choice(name, names, {"canceled": State.CANCELLED.value})
    if state is None:
        raise InvalidValue(f"state {name!r} does not exist", field="state", hint=f"use one of {', '.join(names)}")
    return State(state)


def _last_event_id() -> int:
    """The header that browsers send when they reconnect, else `after`."""
    header, argument = request.headers.get("Last-Event-ID"), request.args.get("after")
    if header:
        return whole_number("Last-Event-ID", header, 0, LARGEST_NUMBER)
    return 0 if argument is None else whole_number("after", argument, 0, LARGEST_NUMBER)
