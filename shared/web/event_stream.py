"""A job's events in the format of text/event-stream, which browsers and `curl -N` understand. No Flask here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from shared.jobs.job import Event, State
from shared.json_limits import dump_json

FINAL_EVENTS = ("completed", "failed", "cancelled")
# Seconds between two reads of the events; jobs of other processes send no notification.
POLL_INTERVAL = 0.25
# Seconds between two reads of a queued job's position.
POSITION_INTERVAL = 1.0
# Seconds after which a silent stream sends a comment, so that neither proxies nor clients give it up.
HEARTBEAT_INTERVAL = 10.0

EventData = dict[str, Any]


class EventSource(Protocol):
    """What `event_stream` reads: the jobs, or their database."""

    def state(self, job_id: str) -> State | None:
        """The state of a job; None if there is none."""

    def events(self, job_id: str, after: int) -> Sequence[Event]:
        """The job's events with a number above `after`, in order."""


def event_stream(
    jobs: EventSource,
    job_id: str,
    after: int,
    wait: Callable[[float], object],
    *,
    event_data: Callable[[Event], EventData],
    queue_position: Callable[[], EventData | None],
    is_over: Callable[[], bool],
) -> Iterator[str]:
    """A job's events with a number above `after`, past and future, in the format of text/event-stream.

    `wait` waits for a change of the job, at most the given number of seconds. `event_data` returns an event's data as
    clients see it. `queue_position` returns a queued job's position, or None; a change of it becomes an event without a
    number. The stream ends after the final event, when the job is deleted, or when it `is_over`; a client can resume it
    from the last number that it received.
    """
    last_sent = position_read = time.monotonic()
    queued: EventData | None = None
    # Milliseconds after which a browser reconnects.
    yield "retry: 2000\n\n"
    while not is_over():
        # The state is read before the events, so that no event before its end is missed.
        state = jobs.state(job_id)
        for event in jobs.events(job_id, after):
            after, last_sent = event.number, time.monotonic()
            data = event_data(event)
            yield f"id: {event.number}\n{_frame(event.name, data)}"
            if event.name in FINAL_EVENTS:
                return
            queued = data if event.name == "queued" else None
        if state is None or state.finished:
            return
        now = time.monotonic()
        if queued is not None and now - position_read > POSITION_INTERVAL:
            position_read = now
            position = queue_position()
            if position is not None and position["position"] != queued["position"]:
                queued, last_sent = {**queued, **position}, now
                yield _frame("queued", queued)
        if now - last_sent > HEARTBEAT_INTERVAL:
            last_sent = now
            yield ": still here\n\n"
        wait(POLL_INTERVAL)


def _frame(name: str, data: EventData) -> str:
    return f"event: {name}\ndata: {dump_json(data)}\n\n"
