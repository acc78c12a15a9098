"""A job's events as a stream that browsers and `curl -N` understand (text/event-stream)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from shared.jobs.job import Event, State
from shared.jobs.notify import Subscription
from shared.json_limits import dump_json

LAST_EVENTS = ("completed", "failed", "cancelled")
# In seconds. Between two looks at the table for jobs of another process, whose notifier are not heard here.
LOOK = 0.25
# Between two looks at the position of a job that waits.
POSITION = 1.0
# A stream that was silent for so long proves that it lives.
HEARTBEAT = 10.0

Data = dict[str, Any]


class EventSource(Protocol):
    """Where events come from: the jobs, or their table."""

    def state(self, job_id: str) -> State | None:
        """Where a job stands; None if there is none."""

    def events(self, job_id: str, number: int) -> Sequence[Event]:
        """What happened to a job after event `number`, in order."""


def event_stream(
    jobs: EventSource,
    job_id: str,
    after: int,
    subscription: Subscription,
    *,
    dress: Callable[[Event], Data],
    waiting: Callable[[], Data | None],
    over: Callable[[], bool],
) -> Iterator[str]:
    """All events of a job after number `after`, those too that are still to come, until its last one.

    `subscription` is rung when there is news. `dress` gives an event's data as clients see it. `waiting` says where a
    queued job stands, or None if it is not queued; when that changed, it is told as an event without a number. The
    stream ends early when it is `over`, or when the job was removed; clients come back with the last number that they
    saw.
    """
    told = looked = time.monotonic()
    queued: Data | None = None
    # Tells a browser to come back soon if the connection breaks.
    yield "retry: 2000\n\n"
    while not over():
        # In this order: what is told of its end, or of its removal, is told before it is looked for.
        state = jobs.state(job_id)
        for event in jobs.events(job_id, after):
            after, told = event.number, time.monotonic()
            data = dress(event)
            yield f"id: {event.number}\n{frame(event.name, data)}"
            if event.name in LAST_EVENTS:
                return
            queued = data if event.name == "queued" else None
        if state is None or state.finished:
            return
        now = time.monotonic()
        if queued is not None and now - looked > POSITION:
            looked = now
            stands = waiting()
            if stands is not None and stands["position"] != queued["position"]:
                queued, told = {**queued, **stands}, now
                yield frame("queued", queued)
        if now - told > HEARTBEAT:
            told = now
            yield ": still here\n\n"
        subscription.wait(LOOK)


def frame(name: str, data: Data) -> str:
    """One event on the wire."""
    return f"event: {name}\ndata: {dump_json(data)}\n\n"
