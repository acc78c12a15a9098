"""Jobs lost in an engine crash are sent again, and a job that keeps crashing the engine fails."""

import threading
from typing import Any

import pytest

from shared.jobs import runner as module
from shared.jobs.job import State
from tests.fake_engine import BLOCKED, FakeEngine
from tests.harness import Harness, wait_for, wait_until_running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconcile more often than usual; these tests do not depend on the interval."""
    monkeypatch.setattr(module, "RECONCILE_CONNECTED", 0.1)


def test_a_lost_job_is_sent_again_under_the_same_id(harness: Harness, engine: FakeEngine) -> None:
    engine.seconds = BLOCKED
    ids = [harness.submit() for _ in range(3)]
    wait_until_running(engine, ids[0])
    engine.lose_jobs()
    engine.seconds = 0.05
    rows = [harness.wait(job_id) for job_id in ids]
    assert [row.state for row in rows] == [State.COMPLETED] * 3
    assert [row.attempts for row in rows] == [1, 0, 0]
    assert engine.submitted == ids * 2
    assert engine.started == [ids[0], *ids]
    # The pictures of the first attempt are removed.
    assert sorted(image["filename"] for row in rows for image in row.images) == engine.saved()
    assert len(engine.saved()) == 6
    queued = [event.data for event in harness.store.events(ids[0], 0) if event.name == "queued"]
    assert queued == [{"position": 0}, {"position": 0, "attempt": 2}]


def test_a_job_fails_after_three_crashes(harness: Harness, engine: FakeEngine) -> None:
    engine.seconds = BLOCKED
    crashing = harness.submit()
    after = harness.submit()
    for crash in range(1, 4):
        sent = [crashing, after] * crash
        wait_for(lambda sent=sent: engine.submitted == sent, "the jobs were not sent again")  # type: ignore[misc]
        wait_until_running(engine, crashing)
        engine.lose_jobs()
    row = harness.wait(crashing)
    assert row.state is State.FAILED
    assert row.error is not None
    assert row.error["error"]["code"] == "generation_failed"
    assert "crashed 3 times" in row.error["message"]
    wait_until_running(engine, after)
    engine.lose_jobs()
    engine.seconds = 0.05
    row = harness.wait(after)
    assert (row.state, row.attempts) == (State.COMPLETED, 1)
    assert engine.started == [crashing] * 3 + [after] * 2


def test_a_job_that_crashes_the_engine_before_any_event_fails(
    harness: Harness, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, crashing = harness.client.get_queue, []

    def crash_then_get_queue() -> Any:
        if engine.running is not None and engine.running.id in crashing:
            engine.lose_jobs()
        return queue()

    # A finished job is not ahead of a later one.
    assert harness.wait(harness.submit()).state is State.COMPLETED
    engine.sends_no_events, engine.seconds = True, BLOCKED
    monkeypatch.setattr(harness.client, "get_queue", crash_then_get_queue)
    crashing.append(harness.submit())
    after = harness.submit()
    assert harness.wait(*crashing).state is State.FAILED
    assert engine.started.count(*crashing) == 3
    assert harness.row(after).attempts == 0


def test_a_job_sent_during_a_crash_does_not_count_as_its_cause(
    harness: Harness, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, late = harness.client.get_queue, []

    def get_queue_during_crash() -> Any:
        """Submit another job and crash the engine between the query and its answer."""
        if not late:
            late.append(harness.submit())
            engine.lose_jobs()
            engine.seconds = 0.05
        return queue()

    engine.seconds = BLOCKED
    first = harness.submit()
    wait_until_running(engine, first)
    monkeypatch.setattr(harness.client, "get_queue", get_queue_during_crash)
    wait_for(lambda: late, "the engine was not queried")
    assert [harness.wait(job_id).attempts for job_id in [first, *late]] == [1, 0]
    # Both were in the engine when it crashed, and were sent again.
    assert engine.submitted == [first, *late] * 2


def test_a_job_sent_while_the_queue_is_read_does_not_count_as_lost(
    harness: Harness, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, queue = harness.client.submit, harness.client.get_queue
    blocked, release, late = threading.Event(), threading.Event(), threading.Thread(target=harness.submit)

    def slow(*args: Any) -> None:
        blocked.set()
        assert release.wait(30)
        submit(*args)

    def get_queue_then_accept() -> Any:
        """Let the engine accept the other job after it has answered, before the answer is processed."""
        jobs = queue()
        release.set()
        late.join()
        return jobs

    engine.seconds = BLOCKED
    harness.submit()
    monkeypatch.setattr(harness.client, "submit", slow)
    late.start()
    assert blocked.wait(20)
    monkeypatch.setattr(harness.client, "get_queue", get_queue_then_accept)
    late.join()
    engine.seconds = 0.05
    wait_for(lambda: not harness.runner._active_jobs, "they did not end")
    assert len(engine.submitted) == 2
