"""Several workers: a worker reclaims the jobs of another, no job runs twice, and transient failures lose none."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from shared.errors import EngineUnavailable, QueueFull, StorageFailed
from shared.jobs import runner as module
from shared.jobs.active_jobs import TrackedJob
from shared.jobs.job import State
from shared.jobs.runner import send_to_engine
from tests.fake_engine import BLOCKED, FakeEngine
from tests.harness import Harness, OpenHarness, new_job, wait_for, wait_until_running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make services reclaim orphans and reconcile more often than usual."""
    monkeypatch.setattr(module, "HEARTBEAT_INTERVAL", 0.2)
    monkeypatch.setattr(module, "RECONCILE_CONNECTED", 0.3)


def block_calls(monkeypatch: pytest.MonkeyPatch, target: Any, name: str, until: threading.Event) -> threading.Event:
    """Block calls of a method until `until` is set; the returned event is set once a call is blocked."""
    method: Callable[..., Any] = getattr(target, name)
    blocked = threading.Event()

    def call_late(*args: Any) -> Any:
        blocked.set()
        until.wait(30)
        return method(*args)

    monkeypatch.setattr(target, name, call_late)
    return blocked


def test_jobs_of_a_killed_service_are_finished_by_another(open_harness: OpenHarness, engine: FakeEngine) -> None:
    killed, successor = open_harness(), open_harness()
    engine.seconds = BLOCKED
    ids = [killed.submit() for _ in range(3)]
    successor.start()
    time.sleep(0.1)
    assert {successor.row(job_id).worker for job_id in ids} == {killed.runner.worker}
    successor.expire_heartbeats()
    engine.seconds = 0.25
    rows = [successor.wait(job_id) for job_id in ids]
    assert [(row.state, row.attempts) for row in rows] == [(State.COMPLETED, 0)] * 3
    assert {row.worker for row in rows} == {successor.runner.worker}
    assert engine.submitted == ids


def test_a_stopping_service_finishes_sending_first(
    open_harness: OpenHarness, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping, successor = open_harness(), open_harness()
    arrived = threading.Event()
    block_calls(monkeypatch, stopping.client, "submit", arrived)
    stopping.start()
    with ThreadPoolExecutor(2) as pool:
        accepted = pool.submit(stopping.submit)
        wait_for(lambda: len(stopping.runner._active_jobs), "the job is not accepted")
        stopped = pool.submit(stopping.runner.stop)
        time.sleep(0.3)
        assert not stopped.done()
        arrived.set()
        stopped.result(10)
        assert engine.submitted == [accepted.result(10)]
        # A job that is accepted later is sent by another worker.
        later_id = stopping.submit()
    assert later_id not in engine.submitted
    successor.start()
    assert {successor.wait(job_id).state for job_id in (accepted.result(), later_id)} == {State.COMPLETED}
    assert engine.submitted == [accepted.result(), later_id]


def test_a_job_that_is_sent_twice_has_two_queue_numbers(harness: Harness, engine: FakeEngine) -> None:
    """ComfyUI's worker thread ends if its queue compares two items with the same number and id."""
    engine.seconds = BLOCKED
    row = harness.row(harness.submit())
    for _ in range(3):
        assert send_to_engine(TrackedJob(row), harness.client, harness.files.uploads, "client") is None
    queue = requests.get(f"{engine.address}/queue", timeout=5).json()
    numbers = [item[0] for item in queue["queue_running"] + queue["queue_pending"]]
    assert len(set(numbers)) == 4
    assert {int(number) for number in numbers} == {row.number}


def test_reclaimed_jobs_lost_by_the_engine_are_sent_again_without_counting_an_attempt(
    open_harness: OpenHarness, engine: FakeEngine
) -> None:
    killed, successor = open_harness(), open_harness()
    engine.seconds = BLOCKED
    ids = [killed.submit() for _ in range(3)]
    wait_until_running(engine, ids[0])
    engine.lose_jobs()
    engine.seconds = 0.05
    killed.expire_heartbeats()
    successor.start()
    rows = [successor.wait(job_id) for job_id in ids]
    assert [(row.state, row.attempts) for row in rows] == [(State.COMPLETED, 0)] * 3
    assert engine.submitted == ids * 2


@pytest.mark.parametrize("reclaimed", [False, True], ids=["by-the-same", "by-a-successor"])
def test_events_are_repeated_after_a_crash_of_the_engine(
    harness: Harness, open_harness: OpenHarness, engine: FakeEngine, reclaimed: bool
) -> None:
    engine.seconds = BLOCKED
    job_id = harness.submit()
    wait_for(lambda: "image" in harness.event_names(job_id), "the first picture was not reported")
    engine.lose_jobs()
    wait_for(lambda: harness.event_names(job_id).count("queued") == 2, "it was not sent again")
    if reclaimed:
        harness.runner.stop()
        open_harness().start()
    engine.seconds = 0.05
    row = harness.wait(job_id)
    events = harness.event_names(job_id)
    since = events[len(events) - events[::-1].index("queued") :]
    assert (row.state, since.count("image"), len(row.images)) == (State.COMPLETED, 2, 2)


def test_a_crash_caused_by_one_service_is_not_counted_for_jobs_of_another(
    harness: Harness, open_harness: OpenHarness, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = open_harness()
    other.start()
    engine.seconds = BLOCKED
    crashing, queue = harness.submit(), other.client.get_queue

    def queue_after_resubmission() -> Any:
        """Return the engine's queue once the first service has sent its job again or failed it."""
        wait_for(lambda: engine.running is not None or harness.row(crashing).state.finished, "it was not sent again")
        return queue()

    monkeypatch.setattr(other.client, "get_queue", queue_after_resubmission)
    other_job = other.submit()
    for crash in range(1, 4):
        wait_for(lambda crash=crash: engine.submitted.count(other_job) == crash, "it was not sent again")  # type: ignore[misc]
        wait_until_running(engine, crashing)
        # The service of the running job knows its state.
        wait_for(lambda: harness.row(crashing).state is State.RUNNING, "it does not run")
        engine.lose_jobs()
    assert harness.wait(crashing).state is State.FAILED
    engine.seconds = 0.05
    row = other.wait(other_job)
    assert (row.state, row.attempts) == (State.COMPLETED, 0)


def test_a_job_that_finished_while_no_service_ran_is_found_in_the_history(
    open_harness: OpenHarness, engine: FakeEngine
) -> None:
    killed = open_harness()
    job_id = killed.submit()
    wait_for(lambda: job_id in engine.history, "it did not run")
    killed.expire_heartbeats()
    successor = open_harness()
    successor.start()
    assert successor.wait(job_id).state is State.COMPLETED
    assert engine.submitted == [job_id]
    assert successor.event_names(job_id) == ["queued", "image", "image", "completed"]


def test_the_jobs_of_a_stopped_service_are_reclaimed_at_once(
    harness: Harness, open_harness: OpenHarness, engine: FakeEngine
) -> None:
    successor = open_harness()
    successor.start()
    engine.seconds = BLOCKED
    ids = [harness.submit() for _ in range(2)]
    harness.wait(ids[0], State.RUNNING)
    harness.runner.stop()
    # At once, long before its heartbeat is stale.
    wait_for(
        lambda: successor.row(ids[1]).worker == successor.runner.worker,
        "it was not reclaimed",
        seconds=module.STALE_AFTER - 2,
    )
    engine.seconds = 0.1
    assert [successor.wait(job_id).state for job_id in ids] == [State.COMPLETED] * 2
    assert engine.submitted == ids
    assert successor.event_names(ids[0]).count("image") == 2


def test_a_reclaimed_job_is_not_reclaimed_again_by_a_third_service(
    open_harness: OpenHarness, engine: FakeEngine
) -> None:
    killed, successor, third = open_harness(), open_harness(), open_harness()
    job_id = killed.submit()
    killed.expire_heartbeats()
    # The successor waits for the engine just after it reclaimed the job.
    engine.seconds, engine.delay = BLOCKED, 0.5
    successor.runner.start()
    wait_for(lambda: successor.row(job_id).worker == successor.runner.worker, "it was not reclaimed")
    assert third.store.reclaim_orphans("third", time.time() - module.STALE_AFTER) == []


def test_a_job_is_not_accepted_under_a_heartbeat_that_is_not_written_yet(
    open_harness: OpenHarness, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = open_harness(), open_harness()
    written = threading.Event()
    block_calls(monkeypatch, first.store, "beat", written)
    with ThreadPoolExecutor(2) as pool:
        submitted = [pool.submit(first.submit) for _ in range(2)]
        time.sleep(0.3)
        reclaimed = other.store.reclaim_orphans("other", time.time() - module.STALE_AFTER)
        written.set()
        assert reclaimed == []
        assert {future.result() for future in submitted} == set(engine.submitted)


def test_a_stopping_service_reclaims_nothing(harness: Harness, open_harness: OpenHarness, engine: FakeEngine) -> None:
    engine.seconds = BLOCKED
    job_id = harness.submit()
    harness.wait(job_id, State.RUNNING)
    successor = open_harness()
    harness.expire_heartbeats()
    successor.runner._stopping = True
    successor.runner._tick()
    assert successor.row(job_id).worker == harness.runner.worker
    successor.runner._stopping, successor.runner._orphans_checked_at = False, 0.0
    harness.expire_heartbeats()
    successor.runner._tick()
    assert successor.row(job_id).worker == successor.runner.worker


def test_a_job_reclaimed_from_a_slow_service_runs_once(
    harness: Harness, open_harness: OpenHarness, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    successor = open_harness()
    successor.start()
    engine.seconds = BLOCKED
    job_id = harness.submit()
    harness.wait(job_id, State.RUNNING)
    slow_resumes, successor_resumes = threading.Event(), threading.Event()
    # As if the engine did not answer for a while, or the process was suspended.
    blocked = block_calls(monkeypatch, harness.client, "get_queue", slow_resumes)
    block_calls(monkeypatch, successor.client, "get_queue", successor_resumes)
    assert blocked.wait(20)
    engine.seconds = 0.05
    wait_for(lambda: job_id in engine.history, "it did not run")
    harness.expire_heartbeats()
    wait_for(lambda: successor.row(job_id).worker == successor.runner.worker, "it was not reclaimed")
    # The slow service detects the end of the job first, but no longer owns it.
    slow_resumes.set()
    wait_for(lambda: not harness.runner._active_jobs, "the slow service still tracks it")
    time.sleep(0.5)
    successor_resumes.set()
    assert successor.wait(job_id).state is State.COMPLETED
    assert engine.submitted == [job_id]


def test_concurrent_requests_with_one_idempotency_key_create_one_job(harness: Harness, engine: FakeEngine) -> None:
    barrier = threading.Barrier(8)

    def submit(_: int) -> tuple[str, bool]:
        barrier.wait()
        row, new = harness.runner.submit(new_job(idempotency_key="k"), {}, limit=100)
        return row.id, new

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(8)))
    assert len({job_id for job_id, _ in answers}) == 1
    assert [new for _, new in answers].count(True) == 1
    assert harness.wait(answers[0][0]).state is State.COMPLETED
    assert len(engine.submitted) == 1


def test_a_full_queue_rejects_jobs(harness: Harness, engine: FakeEngine) -> None:
    engine.seconds = BLOCKED
    ids = [harness.submit() for _ in range(2)]
    with pytest.raises(QueueFull):
        harness.runner.submit(new_job(), {}, limit=2)
    assert [row.id for row in harness.store.page().rows] == ids[::-1]
    assert engine.submitted == ids


def test_a_slow_service_does_not_change_a_job_that_another_finished(
    harness: Harness, open_harness: OpenHarness, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    successor = open_harness()
    successor.start()
    engine.seconds = BLOCKED
    job_id = harness.submit()
    harness.wait(job_id, State.RUNNING)
    slow_resumes = threading.Event()
    blocked = block_calls(monkeypatch, harness.client, "get_queue", slow_resumes)
    assert blocked.wait(20)
    engine.seconds = 0.05
    wait_for(lambda: job_id in engine.history, "it did not run")
    harness.expire_heartbeats()
    assert successor.wait(job_id).state is State.COMPLETED
    wait_for(lambda: not engine.history, "the engine's memory was not cleared")
    # The slow service continues in the middle of its reconciliation.
    slow_resumes.set()
    wait_for(lambda: not harness.runner._active_jobs, "the slow service still tracks it")
    assert engine.submitted == [job_id]
    assert len(list(engine.output_dir.rglob("*.png"))) == 2


def fail_once(monkeypatch: pytest.MonkeyPatch, target: Any, name: str, error: Exception) -> threading.Event:
    """Make the next call of a method raise; the returned event is set once it has."""
    method: Callable[..., Any] = getattr(target, name)
    failed = threading.Event()

    def fails(*args: Any, **options: Any) -> Any:
        if failed.is_set():
            return method(*args, **options)
        failed.set()
        raise error

    monkeypatch.setattr(target, name, fails)
    return failed


@pytest.mark.parametrize("method", ["save", "finish", "still_owned", "beat"])
def test_a_transient_database_failure_loses_no_event(
    harness: Harness, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    engine.seconds = BLOCKED
    job_id = harness.submit()
    failed = fail_once(monkeypatch, harness.store, method, StorageFailed("the disk is full"))
    if method in ("still_owned", "beat"):
        assert failed.wait(20)
    engine.seconds = 0.8
    row = harness.wait(job_id)
    assert failed.is_set()
    assert row.state is State.COMPLETED
    events = [name for name in harness.event_names(job_id) if name != "progress"]
    assert events == ["queued", "started", "image", "image", "completed"]


def test_a_database_failure_during_sending_blocks_no_job(
    harness: Harness, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.stop()
    ids = [harness.submit() for _ in range(3)]
    engine.prompt_fault = "500"
    failed = fail_once(monkeypatch, harness.store, "finish", StorageFailed("the disk is full"))
    engine.start()
    assert [harness.wait(job_id, seconds=8).state for job_id in ids] == [State.FAILED] * 3
    assert failed.is_set()


def test_a_job_lost_during_a_database_failure_is_still_counted_and_reported(
    harness: Harness, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.seconds = BLOCKED
    ids = [harness.submit() for _ in range(2)]
    harness.wait(ids[0], State.RUNNING)
    failed = fail_once(monkeypatch, harness.store, "requeue", StorageFailed("the disk is full"))
    engine.lose_jobs()
    engine.seconds = 0.4
    rows = [harness.wait(job_id) for job_id in ids]
    assert failed.is_set()
    assert [(row.state, row.attempts) for row in rows] == [(State.COMPLETED, 1), (State.COMPLETED, 0)]
    assert harness.event_names(ids[0]).count("queued") == 2
    assert len(list(engine.output_dir.rglob("*.png"))) == 4


def test_a_transient_engine_failure_fails_no_job(
    harness: Harness, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.seconds = 0.3
    ids = [harness.submit() for _ in range(3)]
    for method in ("get_queue", "get_outcome", "delete_history"):
        fail_once(monkeypatch, harness.client, method, EngineUnavailable("it does not answer"))
    assert [harness.wait(job_id).state for job_id in ids] == [State.COMPLETED] * 3
    assert engine.submitted == ids
