"""The ways to wait for a job: hold the request, watch a stream, or come back later."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from flask import Request, Response, jsonify, request

from shared.errors import WaitExpired
from shared.jobs.job import Event, JobRow, State
from shared.web.backend import Backend
from shared.web.reply import picture_facts, result_body, tell_warnings
from shared.web.stream import event_stream
from shared.web.urls import ReplyUrls

STREAM = "text/event-stream"
RESPOND_ASYNC = "respond-async"
CANCEL_ON_DISCONNECT = "cancel-on-disconnect"


def preferences(asked: Request) -> set[str]:
    """The names in the Prefer headers (RFC 7240)."""
    values = ",".join(asked.headers.getlist("Prefer")).split(",")
    return {value.split(";")[0].split("=")[0].strip().lower() for value in values}


def wants_stream(asked: Request) -> bool:
    """Whether the Accept header asks for an event stream, and for nothing else rather."""
    qualities = dict(asked.accept_mimetypes)
    return qualities.get(STREAM, 0) >= max([*qualities.values(), 0.001])


def wants_response_later(asked: Request) -> bool:
    """Whether the Prefer header asks for 202 at once."""
    return RESPOND_ASYNC in preferences(asked)


def accepted_reply(backend: Backend, row: JobRow) -> Response:
    """202: the job's id, where it can be looked at and watched, and when it will be done."""
    urls = backend.urls()
    url, events_url = urls.job(row.id), urls.events(row.id)
    body: dict[str, Any] = {"status": "accepted", "job_id": row.id, "url": url, "events_url": events_url}
    body["warnings"] = row.spec.warnings
    response = jsonify(body | {"position": backend.jobs.position(row), "eta_s": backend.jobs.eta(row)})
    response.status_code = 202
    response.headers["Location"] = url
    response.headers["X-Job-Id"] = row.id
    return tell_warnings(response, row)


def wait_for(backend: Backend, row: JobRow) -> JobRow:
    """Holds the request until the job is completed.

    Raises the job's own error, or WaitExpired while it goes on, which it also does without anybody waiting.
    """
    gone = _client_gone()
    done = backend.jobs.wait(row, backend.settings.request_timeout, gone)
    if done is not None:
        return done
    if gone() and CANCEL_ON_DISCONNECT in preferences(request):
        backend.jobs.cancel(row.id)
    url = backend.urls().job(row.id)
    raise WaitExpired("the pictures were not ready in time; the job goes on", hint=f"GET {url}", job_id=row.id, url=url)


def stream_reply(backend: Backend, row: JobRow, held: ExitStack, after: int = 0) -> Response:
    """The job's events from number `after` on. `held` is closed when the stream ends."""
    urls, gone = backend.urls(), _client_gone()
    cancels = CANCEL_ON_DISCONNECT in preferences(request)
    deadline = time.monotonic() + backend.settings.request_timeout

    def dress(event: Event) -> dict[str, Any]:
        return {"job_id": row.id, **event.data, **_more(backend, row, event, urls)}

    def waiting() -> dict[str, Any] | None:
        now = backend.jobs.find(row.id)
        if now is None or now.state is not State.QUEUED:
            return None
        return {"position": backend.jobs.position(now), "eta_s": backend.jobs.eta(now)}

    def over() -> bool:
        return time.monotonic() > deadline or gone()

    def events() -> Iterator[str]:
        with backend.jobs.subscribe(row.id) as subscription:
            yield from event_stream(
                backend.jobs.store, row.id, after, subscription, dress=dress, waiting=waiting, over=over
            )

    def close() -> None:
        held.close()
        if cancels and gone():
            backend.jobs.cancel(row.id)

    response = Response(events(), mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    # Proxies such as nginx would hold events back otherwise.
    response.headers["X-Accel-Buffering"] = "no"
    response.headers["X-Job-Id"] = row.id
    response.call_on_close(close)
    return tell_warnings(response, row)


def _more(backend: Backend, job: JobRow, event: Event, urls: ReplyUrls) -> dict[str, Any]:
    """What an event's data lacks in the table: addresses, for they depend on who asks, and what the job's row holds."""
    if event.name == "image":
        name = event.data["filename"]
        return {"url": urls.image(name), **picture_facts(job, name, backend.jobs.files.pictures)}
    if event.name == "queued":
        row = backend.jobs.find(job.id)
        return {} if row is None else {"eta_s": backend.jobs.eta(row)}
    if event.name == "progress" and "ends_at" in event.data:
        return {"eta_s": round(max(0.0, event.data["ends_at"] - time.time()), 1)}
    if event.name == State.COMPLETED.value:
        row = backend.jobs.find(job.id)
        return {} if row is None else result_body(row, urls, backend.jobs.files.pictures)
    if event.name in (State.FAILED.value, State.CANCELLED.value):
        row = backend.jobs.find(job.id)
        return {} if row is None or row.error is None else row.error
    return {}


def _client_gone() -> Callable[[], bool]:
    """Whether the client of this request has hung up, as far as the server can tell (waitress can)."""
    disconnected: Callable[[], bool] = request.environ.get("waitress.client_disconnected", lambda: False)
    return disconnected
