"""Stuck jobs are reported, and a deliberate stop of the engine makes no job a suspect."""

import logging
import time
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.engine.client import EngineClient
from shared.jobs import cancel_timeout, runner
from shared.jobs.cancel_timeout import StuckJobWatch
from shared.jobs.job import State
from shared.settings import Settings
from shared.web.app import create_app
from shared.web.backend import Backend
from shared.web.routes.system import system_routes
from tests.fake_engine import BLOCKED, FakeEngine
from tests.harness import Harness, OpenHarness, new_job, wait_for, wait_until_running


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "RECONCILE_CONNECTED", 0.1)
    monkeypatch.setattr(cancel_timeout, "CHECK_INTERVAL", 0.02)


def busy_with_a_cancelled_job(harness: Harness, engine: FakeEngine) -> str:
    """Submit and cancel a job that the engine never stops. Return its id."""
    engine.seconds, engine.ignores_cancel = BLOCKED, True
    job_id = harness.submit()
    wait_until_running(engine, job_id)
    assert harness.runner.cancel(job_id)
    wait_for(lambda: job_id in engine.cancelled, "the cancellation did not reach the engine")
    return job_id


@pytest.mark.slow
def test_a_restart_for_a_stuck_job_makes_no_other_job_a_suspect(harness: Harness, engine: FakeEngine) -> None:
    cancelled = busy_with_a_cancelled_job(harness, engine)
    waiting = [harness.submit(), harness.submit()]
    wait_for(lambda: engine.submitted == [cancelled, *waiting], "the other jobs did not reach the engine")
    # One more check while all of them are in the queue.
    wait_for(lambda: engine.cancelled.count(cancelled) > 5, "the queue is not checked")
    reasons: list[str] = []

    def restart(reason: str) -> None:
        reasons.append(reason)
        engine.seconds, engine.ignores_cancel = 0.05, False
        engine.lose_jobs()

    watch = StuckJobWatch(harness.client, harness.store, 0.5, restart)
    started = time.monotonic()
    watch.start()
    try:
        rows = [harness.wait(job_id) for job_id in waiting]
    finally:
        watch.stop()
    assert time.monotonic() - started >= 0.5
    assert [(row.state, row.attempts) for row in rows] == [(State.COMPLETED, 0)] * 2
    assert [cancelled in reason for reason in reasons] == [True]
    assert engine.started == [cancelled, *waiting]


def test_a_stuck_job_is_watched_after_it_is_deleted(harness: Harness, engine: FakeEngine) -> None:
    cancelled = busy_with_a_cancelled_job(harness, engine)
    reasons: list[str] = []
    watch = StuckJobWatch(harness.client, harness.store, 0.0, lambda reason: reasons.append(reason))
    watch._timeout = 3600
    watch.check()
    harness.files.delete_job(harness.row(cancelled))
    assert harness.store.get(cancelled) is None
    watch._timeout = 0.0
    watch.check()
    assert len(reasons) == 1


def test_running_jobs_are_not_stuck(harness: Harness, engine: FakeEngine) -> None:
    reasons: list[str] = []
    watch = StuckJobWatch(harness.client, harness.store, 0.0, lambda reason: reasons.append(reason))
    engine.seconds = BLOCKED
    running = harness.submit()
    wait_until_running(engine, running)
    watch.check()
    harness.runner.cancel(running)
    # The engine checks for an interruption between two steps.
    engine.seconds = 0.05
    wait_for(lambda: engine.running is None, "the job was not interrupted")
    engine.seconds = BLOCKED
    other_prompt = new_job()
    harness.client.submit(other_prompt.id, dict(other_prompt.spec.graph), "theirs", 1.0)
    wait_until_running(engine, other_prompt.id)
    watch.check()
    watch.check()
    assert reasons == []


def test_a_cancellation_that_did_not_reach_the_engine_is_repeated(
    open_harness: OpenHarness, engine: FakeEngine
) -> None:
    """The service crashed after the database recorded the cancellation, before the engine received it."""
    engine.seconds = BLOCKED
    harness = open_harness()
    job_id = harness.submit()
    wait_until_running(engine, job_id)
    assert harness.store.cancel(job_id, {})
    reasons: list[str] = []
    watch = StuckJobWatch(harness.client, harness.store, 3600, lambda reason: reasons.append(reason))
    watch.check()
    engine.seconds = 0.05
    wait_for(lambda: engine.running is None, "the job was not interrupted")
    assert (engine.cancelled, reasons) == ([job_id], [])


def test_without_restart_a_stuck_job_is_logged_once(
    harness: Harness, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    cancelled = busy_with_a_cancelled_job(harness, engine)
    watch = StuckJobWatch(harness.client, harness.store, 0.0, None)
    with caplog.at_level(logging.WARNING, "shared.jobs.cancel_timeout"):
        for _ in range(3):
            watch.check()
    [message] = [record.getMessage() for record in caplog.records if record.name == "shared.jobs.cancel_timeout"]
    assert cancelled in message
    assert f"Restart the engine at {engine.address}" in message


def ready(backend: Backend) -> FlaskClient:
    return create_app("txt2img", backend.settings, [system_routes], backend).test_client()


@pytest.mark.parametrize("ours", [True, False])
def test_ready_reports_a_stuck_job(tmp_path: Path, harness: Harness, engine: FakeEngine, ours: bool) -> None:
    cancelled = busy_with_a_cancelled_job(harness, engine)
    engine_setting: dict[str, Any] = (
        {"engine_port": int(engine.address.rpartition(":")[2])} if ours else {"engine_url": engine.address}
    )
    backend = Backend(Settings(data_dir=tmp_path, database_url=f"sqlite:///{tmp_path}/jobs.sqlite", **engine_setting))
    try:
        assert ready(backend).get("/ready").status_code == 200
        with harness.store._write() as connection:
            connection.exec_driver_sql("UPDATE jobs SET finished = finished - 200")
        response = ready(backend).get("/ready")
        assert response.status_code == 503
        assert response.json is not None
        reason = response.json["reason"]
        assert f"the engine still runs job {cancelled}, which was cancelled 20" in reason
        assert ("the launcher will restart it" if ours else f"restart the engine at {engine.address}") in reason
    finally:
        backend.stop()


@pytest.mark.slow
def test_a_job_running_at_a_deliberate_stop_is_no_suspect(harness: Harness, engine: FakeEngine) -> None:
    engine.seconds = BLOCKED
    job_id = harness.submit()
    for count in range(1, 5):
        wait_for(lambda count=count: engine.submitted == [job_id] * count, "the job was not sent again")  # type: ignore[misc]
        harness.wait(job_id, State.RUNNING)
        wait_until_running(engine, job_id)
        # The launcher stops the engine, records the stop and starts it again.
        engine.stop()
        harness.store.record_engine_stop()
        engine.start()
    wait_for(lambda: engine.submitted == [job_id] * 5, "the job was not sent again")
    wait_until_running(engine, job_id)
    harness.wait(job_id, State.RUNNING)
    # A later crash counts.
    time.sleep(0.3)
    engine.lose_jobs()
    engine.seconds = 0.05
    assert harness.wait(job_id).attempts == 1


def test_a_job_that_waited_for_another_programs_prompt_is_no_suspect(harness: Harness, engine: FakeEngine) -> None:
    engine.seconds = BLOCKED
    other_prompt = new_job()
    harness.client.submit(other_prompt.id, dict(other_prompt.spec.graph), "theirs", -1.0)
    wait_until_running(engine, other_prompt.id)
    waiting_job = harness.submit()
    wait_for(lambda: harness.runner._others_ran, "the queue was not checked")
    engine.seconds = 0.05
    engine.lose_jobs()
    assert harness.wait(waiting_job).attempts == 0


def test_a_worker_that_reclaims_after_a_deliberate_stop_has_no_suspect(
    open_harness: OpenHarness, engine: FakeEngine
) -> None:
    """Of two services, one has the cancelled job, the other a job that waits for it."""
    first, second = open_harness(), open_harness()
    first.start()
    second.start()
    busy_with_a_cancelled_job(first, engine)
    waiting_job = second.submit()
    wait_for(lambda: second.runner._others_ran, "the queue was not checked")
    engine.seconds, engine.ignores_cancel = 0.05, False
    engine.lose_jobs()
    assert second.wait(waiting_job).attempts == 0


def test_an_engine_stop_counts_from_its_time(harness: Harness) -> None:
    assert not harness.store.engine_stopped_since(0.0)
    before = time.time()
    harness.store.record_engine_stop()
    harness.store.record_engine_stop()
    assert harness.store.engine_stopped_since(before)
    assert not harness.store.engine_stopped_since(time.time() + 1)


def test_the_watch_survives_an_unreachable_engine(tmp_path: Path, harness: Harness) -> None:
    watch = StuckJobWatch(EngineClient("http://127.0.0.1:9"), harness.store, 0.0, None)
    watch.start()
    time.sleep(0.2)
    assert watch._thread is not None
    assert watch._thread.is_alive()
    watch.stop()
    assert not watch._thread.is_alive()
