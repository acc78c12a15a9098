"""Event streams: resuming, heartbeats, queue positions and the end."""

import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from shared.jobs.job import Event, JobRow, JobSpec, JobUpdate, NewJob, State
from shared.jobs.notify import Subscription
from shared.jobs.store import Store
from shared.web import event_stream as module
from shared.web.event_stream import event_stream
from shared.web.waiting import wants_stream


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite")
    yield store
    store.close()


@pytest.fixture
def job(store: Store) -> JobRow:
    return store.add(NewJob(str(uuid.uuid4()), "txt2img", "", "txt2img", JobSpec()), "me", 10)[0]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_INTERVAL", 0.01)


def never() -> bool:
    return False


def within(seconds: float) -> Callable[[], bool]:
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() > deadline


def with_mark(event: Event) -> dict[str, Any]:
    return {"marked": True, **event.data}


def watch(
    store: Store,
    job: JobRow,
    after: int = 0,
    *,
    subscription: Subscription | None = None,
    over: Callable[[], bool] = never,
    waiting: Callable[[], dict[str, Any] | None] = lambda: None,
) -> Iterator[str]:
    stream = event_stream(
        store,
        job.id,
        after,
        (subscription or Subscription()).wait,
        event_data=with_mark,
        queue_position=waiting,
        is_over=over,
    )
    assert next(stream) == "retry: 2000\n\n"
    return stream


def read(frame: str) -> tuple[int | None, str, dict[str, Any]]:
    assert frame.endswith("\n\n")
    fields = dict(line.split(": ", 1) for line in frame.strip().split("\n"))
    return int(fields["id"]) if "id" in fields else None, fields["event"], json.loads(fields["data"])


def progress(store: Store, job: JobRow, step: int) -> None:
    store.save("me", [JobUpdate(job.id, None, [("progress", {"step": step})])])


def test_a_stream_has_all_events_and_ends_with_the_final_one(store: Store, job: JobRow) -> None:
    progress(store, job, 1)
    store.finish(job, "me", State.COMPLETED)
    events = [read(frame) for frame in watch(store, job)]
    assert [name for _, name, _ in events] == ["queued", "progress", "completed"]
    assert [number for number, _, _ in events] == [event.number for event in store.events(job.id, 0)]
    assert events[1][2] == {"marked": True, "step": 1}


def test_a_stream_resumes_after_any_event_number(store: Store, job: JobRow) -> None:
    for step in range(3):
        progress(store, job, step)
    store.cancel(job.id, {})
    numbers = [event.number for event in store.events(job.id, 0)]
    for index, number in enumerate(numbers[:-1]):
        assert [read(frame)[0] for frame in watch(store, job, number)] == numbers[index + 1 :]


@pytest.mark.usefixtures("quick")
def test_events_of_another_process_arrive_without_a_notification(store: Store, job: JobRow) -> None:
    stream = watch(store, job, over=within(10))
    assert read(next(stream))[1] == "queued"
    threading.Timer(0.1, store.finish, (job, "me", State.FAILED)).start()
    assert [read(frame)[1] for frame in stream] == ["failed"]


def test_a_notification_wakes_a_stream_at_once(store: Store, job: JobRow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_INTERVAL", 30.0)
    subscription = Subscription()
    stream = watch(store, job, subscription=subscription)
    next(stream)

    def end() -> None:
        store.finish(job, "me", State.COMPLETED)
        subscription.notify(None)

    threading.Timer(0.1, end).start()
    started = time.monotonic()
    assert read(next(stream))[1] == "completed"
    assert time.monotonic() - started < 5


@pytest.mark.usefixtures("quick")
def test_a_silent_stream_sends_heartbeats(store: Store, job: JobRow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_INTERVAL", 0.05)
    stream = watch(store, job, over=within(5))
    started = time.monotonic()
    next(stream)
    assert [next(stream) for _ in range(2)] == [": still here\n\n"] * 2
    assert time.monotonic() - started >= 0.1
    progress(store, job, 1)
    assert read(next(stream))[1] == "progress"


@pytest.mark.usefixtures("quick")
def test_a_queued_job_reports_its_new_position(store: Store, job: JobRow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POSITION_INTERVAL", 0.02)
    positions = itertools.chain([3, 3, 2, 2, 2, 1], itertools.repeat(1))

    def waiting() -> dict[str, Any]:
        return {"position": next(positions), "eta_s": 1.5}

    stream = watch(store, job, over=within(5), waiting=waiting)
    assert read(next(stream))[2] == {"marked": True, "position": 0}
    updates = [read(next(stream)) for _ in range(3)]
    assert [data["position"] for _, _, data in updates] == [3, 2, 1]
    assert {(number, name, data["marked"], data["eta_s"]) for number, name, data in updates} == {
        (None, "queued", True, 1.5)
    }
    # A running job has no position.
    progress(store, job, 1)
    assert read(next(stream))[1] == "progress"
    monkeypatch.setattr(module, "HEARTBEAT_INTERVAL", 0.1)
    positions = itertools.chain([9])
    assert next(stream) == ": still here\n\n"


@pytest.mark.usefixtures("quick")
def test_a_stream_ends_at_its_deadline(store: Store, job: JobRow) -> None:
    assert [read(frame)[1] for frame in watch(store, job, over=within(0.2))] == ["queued"]
    assert list(watch(store, job, over=lambda: True)) == []


@pytest.mark.usefixtures("quick")
def test_a_stream_resumed_after_the_final_event_ends_at_once(store: Store, job: JobRow) -> None:
    store.finish(job, "me", State.COMPLETED)
    last = store.events(job.id, 0)[-1].number
    over = within(2)
    assert list(watch(store, job, last, over=over)) == []
    assert not over()


@pytest.mark.usefixtures("quick")
def test_the_stream_of_a_deleted_job_ends(store: Store, job: JobRow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_INTERVAL", 0.1)
    over = within(2)
    stream = watch(store, job, over=over)
    next(stream)
    store.cancel(job.id, {})
    store.delete(job.id, lambda _: None)
    assert list(stream) == []
    assert not over()


@pytest.mark.parametrize(
    ("accept", "streams"),
    [
        ("text/event-stream", True),
        ("text/event-stream, */*", True),
        ("application/json, text/event-stream", True),
        ("text/event-stream;q=0.8, */*;q=0.5", True),
        ("image/png, text/event-stream;q=0.1", False),
        ("text/event-stream;q=0", False),
        ("*/*", False),
        ("text/*", False),
        ("", False),
    ],
)
def test_a_stream_is_sent_if_no_other_type_is_preferred(accept: str, streams: bool) -> None:
    assert wants_stream(Request(EnvironBuilder(headers={"Accept": accept}).get_environ())) is streams
