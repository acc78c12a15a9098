"""The jobs over HTTP, the same in every process: list, look, watch, cancel, forget, repeat; the page's interrupt."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from flask import Blueprint, Response, jsonify, request

from shared.errors import EngineUnavailable, InvalidValue
from shared.jobs.job import JobRow, State
from shared.schema.words import find_word
from shared.web.backend import Backend
from shared.web.body import Fields, check_arguments, number_argument, read_optional_fields, whole_number
from shared.web.callers import caller_of, newest_job_of
from shared.web.custom import FIELD, check
from shared.web.reply import job_body, result_body
from shared.web.waiting import accepted_reply, stream_reply

PAGE = 50
LARGEST_PAGE = 500
# Of jobs and events: JavaScript has no larger whole ones.
LARGEST_NUMBER = 2**53
KINDS = ("txt2img", "img2img", "workflow", "upscale", "extras")


def job_routes(backend: Backend) -> Blueprint:
    """GET /api/jobs; GET and DELETE /api/jobs/<id>; GET /api/jobs/<id>/events; POST /api/jobs/<id>/retry."""
    routes = Blueprint("jobs", __name__)

    @routes.get("/api/jobs")
    def list_jobs() -> Response:
        check_arguments("state", "kind", "limit", "before")
        states = [_state(name) for value in request.args.getlist("state") for name in value.split(",")]
        limit = number_argument("limit", LARGEST_PAGE) or PAGE
        asked = request.args.get("kind")
        kind = None if asked is None else find_word(asked, KINDS)
        if asked is not None and kind is None:
            raise InvalidValue(f"kind {asked!r} does not exist", field="kind", hint=f"one of {', '.join(KINDS)}")
        # Pages are cut by number, so that jobs that come meanwhile do not shift them.
        page = backend.jobs.list(
            states=states, kind=kind, limit=limit, before=number_argument("before", LARGEST_NUMBER)
        )
        urls = backend.urls()
        jobs = [job_body(row, urls) for row in page.rows]
        return jsonify({"status": "success", "jobs": jobs, "before": page.before})

    @routes.get("/api/jobs/<job_id>")
    def get_job(job_id: str) -> Response:
        return jsonify({"status": "success", **_whole(backend, backend.jobs.get(job_id))})

    @routes.delete("/api/jobs/<job_id>")
    def delete_job(job_id: str) -> Response:
        row = backend.jobs.get(job_id)
        if backend.jobs.cancel(job_id):
            done, message = "cancelled", "the job is cancelled"
        else:
            backend.jobs.delete(row)
            done, message = "removed", "the job and its pictures are removed"
        return jsonify({"status": "success", "message": message, "job_id": job_id, "done": done})

    @routes.post("/api/jobs/<job_id>/retry")
    def retry_job(job_id: str) -> Response:
        # Whoever sends a field wants another picture than the job's.
        read_optional_fields(request)
        row = backend.jobs.get(job_id)
        if row.has_imported_graph and row.state.finished:
            _check_again(backend, row)
        return accepted_reply(backend, backend.jobs.retry(row, caller_of(request).mark))

    @routes.get("/api/jobs/<job_id>/events")
    def watch_job(job_id: str) -> Response:
        row, after = backend.jobs.get(job_id), _last_event_id()
        if row.state.finished and not backend.jobs.events(job_id, after):
            # To a browser, this says: do not come back.
            return Response(status=204)
        with ExitStack() as held:
            held.enter_context(backend.streams.slot())
            return stream_reply(backend, row, held.pop_all(), after)

    return routes


def interrupt_routes(backend: Backend, service: str) -> Blueprint:
    """POST /api/<service>/interrupt: cancels the client's newest unfinished job of that kind, or that of a `job_id`."""
    routes = Blueprint(f"{service}-interrupt", __name__)

    @routes.post(f"/api/{service}/interrupt")
    def interrupt() -> Response:
        job_id = _sent_id(read_optional_fields(request, "job_id"))
        if job_id is None:
            marks = backend.jobs.unfinished_of(service)
            job_id = newest_job_of(caller_of(request), marks)
            message = f"nothing of yours is being drawn{_others(len(marks))}"
        else:
            job_id, message = backend.jobs.get(job_id).id, "the job has ended already"
        if job_id is None or not backend.jobs.cancel(job_id):
            return jsonify({"status": "success", "message": message, "cancelled": False})
        return jsonify({"status": "success", "message": "the job is cancelled", "cancelled": True, "job_id": job_id})

    return routes


def _sent_id(fields: Fields) -> str | None:
    job_id = fields.values.get("job_id")
    if job_id is not None and not isinstance(job_id, str):
        raise InvalidValue("job_id must be text", field="job_id", hint="GET /api/jobs lists the ids")
    return job_id


def _others(count: int) -> str:
    return f"; {count} unfinished of other callers: send a job_id to cancel one of them" if count else ""


def _whole(backend: Backend, row: JobRow) -> dict[str, Any]:
    """A job with all that is known of it."""
    body = {**job_body(row, backend.urls()), "warnings": row.spec.warnings}
    if not row.state.finished:
        body |= {
            "position": backend.jobs.position(row),
            "eta_s": backend.jobs.eta(row),
            "progress": backend.jobs.progress(row),
        }
    if row.state is State.COMPLETED:
        body["result"] = result_body(row, backend.urls(), backend.jobs.files.pictures)
    return body


def _check_again(backend: Backend, row: JobRow) -> None:
    """Raises InvalidValue for a graph of somebody else that was let in then, and is not any more."""
    try:
        check(backend, row.spec.graph, FIELD, {})
    except EngineUnavailable:
        # It was let in once; so it may wait for the engine, as every job does.
        return


def _state(name: str) -> State:
    names = [state.value for state in State]
    found = find_word(name, names, {"canceled": State.CANCELLED.value})
    if found is None:
        raise InvalidValue(f"state {name!r} does not exist", field="state", hint=f"one of {', '.join(names)}")
    return State(found)


def _last_event_id() -> int:
    """The header that browsers send when they come back; `after` is for those who cannot set headers."""
    header, argument = request.headers.get("Last-Event-ID"), request.args.get("after")
    if header:
        return whole_number("Last-Event-ID", header, 0, LARGEST_NUMBER)
    return 0 if argument is None else whole_number("after", argument, 0, LARGEST_NUMBER)
