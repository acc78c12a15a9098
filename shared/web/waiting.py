"""The three ways to wait for a job: hold the request, watch a stream of events, or get 202 and check later."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from flask import Request, Response, jsonify, request

from shared.errors import WaitExpired
from shared.jobs.job import Event, JobRow, State
from shared.web.backend import Backend
from shared.web.event_stream import FINAL_EVENTS, EventData, event_stream
from shared.web.reply import picture_facts, result_body, with_warnings
from shared.web.urls import ReplyUrls

STREAM = "text/event-stream"
RESPOND_ASYNC = "respond-async"
CANCEL_ON_DISCONNECT = "cancel-on-disconnect"


def preferences(asked: Request) -> set[str]:
    """The names in the Prefer headers (RFC 7240)."""
    values = ",".join(asked.headers.getlist("Prefer")).split(",")
    return {value.split(";")[0].split("=")[0].strip().lower() for value in values}


def wants_stream(asked: Request) -> bool:
    """Whether the Accept header asks for an event stream, and prefers no other type."""
    qualities = dict(asked.accept_mimetypes)
    return qualities.get(STREAM, 0) >= max([*qualities.values(), 0.001])


def prefers_async(asked: Request) -> bool:
    """Whether the Prefer header asks for 202 at once."""
    return RESPOND_ASYNC in preferences(asked)


def accepted_reply(backend: Backend, row: JobRow) -> Response:
    """202 with the job's id, its URLs, its position in the queue and its ETA."""
    urls = backend.urls()
    url, events_url = urls.job(row.id), urls.events(row.id)
    body: dict[str, Any] = {"status": "accepted", "job_id": row.id, "url": url, "events_url": events_url}
    body["warnings"] = row.spec.warnings
    response = jsonify(body | _queue_position(backend, row))
    response.status_code = 202
    response.headers["Location"] = url
    response.headers["X-Job-Id"] = row.id
    return with_warnings(response, row)


def wait_for(backend: Backend, row: JobRow) -> JobRow:
    """Hold the request until the job is completed, and return it.

    Raises the job's own error, or WaitExpired if the request's time is over; the job continues then.
    """
    is_disconnected = _client_disconnected()
    completed = backend.jobs.wait(row, backend.settings.request_timeout, is_disconnected)
    if completed is not None:
        return completed
    if is_disconnected() and CANCEL_ON_DISCONNECT in preferences(request):
        backend.jobs.cancel(row.id)
    url = backend.urls().job(row.id)
    raise WaitExpired(
        "the pictures were not ready in time; the job continues", hint=f"GET {url}", job_id=row.id, url=url
    )


def stream_reply(backend: Backend, row: JobRow, slot: ExitStack, after: int = 0) -> Response:
    """A stream of the job's events with a number above `after`. Closes `slot` when the stream ends."""
    urls, is_disconnected = backend.urls(), _client_disconnected()
    cancels = CANCEL_ON_DISCONNECT in preferences(request)
    deadline = time.monotonic() + backend.settings.request_timeout

    def event_data(event: Event) -> EventData:
        return {"job_id": row.id, **event.data, **_computed_data(backend, row, event, urls)}

    def queue_position() -> EventData | None:
        latest = backend.jobs.find(row.id)
        return _queue_position(backend, latest) if latest is not None and latest.state is State.QUEUED else None

    def is_over() -> bool:
        return time.monotonic() > deadline or is_disconnected()

    def stream() -> Iterator[str]:
        with backend.jobs.subscribe(row.id) as subscription:
            yield from event_stream(
                backend.jobs,
                row.id,
                after,
                subscription.wait,
                event_data=event_data,
                queue_position=queue_position,
                is_over=is_over,
            )

    def close() -> None:
        slot.close()
        if cancels and is_disconnected():
            backend.jobs.cancel(row.id)

    response = Response(stream(), mimetype=STREAM)
    response.headers["Cache-Control"] = "no-store"
    # Keeps proxies such as nginx from buffering events.
    response.headers["X-Accel-Buffering"] = "no"
    response.headers["X-Job-Id"] = row.id
    response.call_on_close(close)
    return with_warnings(response, row)


def _computed_data(backend: Backend, row: JobRow, event: Event, urls: ReplyUrls) -> EventData:
    """The data of an event that is not recorded: URLs and estimates, which depend on the request, and the job's row."""
    if event.name == "image":
        name = event.data["filename"]
        return {"url": urls.image(name), **picture_facts(row, name, backend.jobs)}
    if event.name == "progress" and "ends_at" in event.data:
        return {"eta_s": round(max(0.0, event.data["ends_at"] - time.time()), 1)}
    if event.name not in ("queued", *FINAL_EVENTS):
        return {}
    latest = backend.jobs.find(row.id)
    if latest is None:
        return {}
    if event.name == "queued":
        return {"eta_s": backend.jobs.eta(latest)}
    if event.name == State.COMPLETED.value:
        return result_body(latest, urls, backend.jobs)
    return latest.error or {}


def _queue_position(backend: Backend, row: JobRow) -> EventData:
    return {"position": backend.jobs.position(row), "eta_s": backend.jobs.eta(row)}


def _client_disconnected() -> Callable[[], bool]:
    """A function that tells whether the client has disconnected, as far as the server knows (waitress does)."""
    is_disconnected: Callable[[], bool] = request.environ.get("waitress.client_disconnected", lambda: False)
    return is_disconnected
