"""Cancelled jobs that the engine does not let go of; and who is blamed when the engine is ended on purpose: nobody."""

import logging
import time
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.engine.client import EngineClient
from shared.jobs import conductor, stuck
from shared.jobs.stuck import StuckJobs
from shared.jobs.tables import State
from shared.settings import Settings
from shared.web.app import create_app
from shared.web.backend import Backend
from shared.web.ready import ready_routes
from tests.desk import Desk, OpenDesk, new_job, wait_for, wait_until_drawn
from tests.fake_engine import HELD, FakeEngine


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conductor, "SURVEY_HEARD", 0.1)
    monkeypatch.setattr(stuck, "LOOK", 0.02)


def busy_with_a_cancelled_job(desk: Desk, engine: FakeEngine) -> str:
    """Its id; the engine works on it for ever."""
    engine.seconds, engine.deaf = HELD, True
    job_id = desk.submit()
    wait_until_drawn(engine, job_id)
    assert desk.conductor.cancel(job_id)
    wait_for(lambda: job_id in engine.cancelled, "the engine was not told")
    return job_id


def test_the_engine_is_started_again_for_a_cancelled_job_and_nobody_is_blamed(desk: Desk, engine: FakeEngine) -> None:
    cancelled = busy_with_a_cancelled_job(desk, engine)
    after = [desk.submit(), desk.submit()]
    wait_for(lambda: engine.submitted == [cancelled, *after], "the others wait in the engine")
    # Its queue is looked at once more with all of them in it.
    wait_for(lambda: engine.cancelled.count(cancelled) > 5, "the queue is not looked at")
    reasons: list[str] = []

    def restart(reason: str) -> None:
        reasons.append(reason)
        engine.seconds, engine.deaf = 0.05, False
        engine.forget_everything()

    watch = StuckJobs(desk.client, desk.store, 0.5, restart)
    begun = time.monotonic()
    watch.start()
    try:
        rows = [desk.wait(job_id) for job_id in after]
    finally:
        watch.stop()
    assert time.monotonic() - begun >= 0.5
    assert [(row.state, row.attempts) for row in rows] == [(State.COMPLETED, 0)] * 2
    assert [cancelled in reason for reason in reasons] == [True]
    assert engine.begun == [cancelled, *after]


def test_a_cancelled_job_that_was_removed_is_not_forgotten(desk: Desk, engine: FakeEngine) -> None:
    cancelled = busy_with_a_cancelled_job(desk, engine)
    reasons: list[str] = []
    watch = StuckJobs(desk.client, desk.store, 0.0, lambda reason: reasons.append(reason))
    watch._patience = 3600
    watch.look()
    desk.archive.forget(desk.row(cancelled))
    assert desk.store.get(cancelled) is None
    watch._patience = 0.0
    watch.look()
    assert len(reasons) == 1


def test_what_runs_and_was_not_cancelled_is_left_alone(desk: Desk, engine: FakeEngine) -> None:
    reasons: list[str] = []
    watch = StuckJobs(desk.client, desk.store, 0.0, lambda reason: reasons.append(reason))
    engine.seconds = HELD
    running = desk.submit()
    wait_until_drawn(engine, running)
    watch.look()
    desk.conductor.cancel(running)
    # It looks for an interruption between two steps.
    engine.seconds = 0.05
    wait_for(lambda: engine.running is None, "it was not interrupted")
    engine.seconds = HELD
    stranger = new_job()
    desk.client.submit(stranger.id, dict(stranger.spec["graph"]), "theirs", 1.0)
    wait_until_drawn(engine, stranger.id)
    watch.look()
    watch.look()
    assert reasons == []


def test_a_job_of_which_the_engine_was_never_told_that_it_is_cancelled_is_only_interrupted(
    open_desk: OpenDesk, engine: FakeEngine
) -> None:
    """Its service died between the two."""
    engine.seconds = HELD
    desk = open_desk()
    job_id = desk.submit()
    wait_until_drawn(engine, job_id)
    assert desk.store.cancel(job_id, {})
    reasons: list[str] = []
    watch = StuckJobs(desk.client, desk.store, 3600, lambda reason: reasons.append(reason))
    watch.look()
    engine.seconds = 0.05
    wait_for(lambda: engine.running is None, "it was not interrupted")
    assert (engine.cancelled, reasons) == ([job_id], [])


def test_of_an_engine_of_others_it_is_said_once_what_to_do(
    desk: Desk, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    cancelled = busy_with_a_cancelled_job(desk, engine)
    watch = StuckJobs(desk.client, desk.store, 0.0, None)
    with caplog.at_level(logging.WARNING, "shared.jobs.stuck"):
        for _ in range(3):
            watch.look()
    [said] = [record.getMessage() for record in caplog.records if record.name == "shared.jobs.stuck"]
    assert cancelled in said
    assert f"restart it where it runs ({engine.address})" in said


def ready(backend: Backend) -> FlaskClient:
    return create_app("txt2img", backend.settings, [ready_routes(backend)]).test_client()


@pytest.mark.parametrize("ours", [True, False])
def test_readiness_tells_of_a_job_that_does_not_let_go(
    tmp_path: Path, desk: Desk, engine: FakeEngine, ours: bool
) -> None:
    cancelled = busy_with_a_cancelled_job(desk, engine)
    where: dict[str, Any] = (
        {"engine_port": int(engine.address.rpartition(":")[2])} if ours else {"engine_url": engine.address}
    )
    backend = Backend(Settings(data_dir=tmp_path, database_url=f"sqlite:///{tmp_path}/jobs.sqlite", **where))
    try:
        assert ready(backend).get("/ready").status_code == 200
        with desk.store._write() as connection:
            connection.exec_driver_sql("UPDATE jobs SET finished = finished - 200")
        answer = ready(backend).get("/ready")
        assert answer.status_code == 503
        assert answer.json is not None
        reason = answer.json["reason"]
        assert f"the engine still works on job {cancelled}, which was cancelled 20" in reason
        assert ("the launcher restarts it" if ours else f"restart it where it runs ({engine.address})") in reason
    finally:
        backend.stop()


def test_who_was_drawn_when_somebody_ended_the_engine_is_not_blamed(desk: Desk, engine: FakeEngine) -> None:
    engine.seconds = HELD
    drawn = desk.submit()
    for count in range(1, 5):
        wait_for(lambda count=count: engine.submitted == [drawn] * count, "it was not sent again")  # type: ignore[misc]
        desk.wait(drawn, State.RUNNING)
        wait_until_drawn(engine, drawn)
        # As the launcher does it: the end first, then the note, long before there is a new engine.
        desk.store.note_engine_stop()
        engine.forget_everything()
    wait_for(lambda: engine.submitted == [drawn] * 5, "it was not sent again")
    wait_until_drawn(engine, drawn)
    desk.wait(drawn, State.RUNNING)
    # And a death after that is one.
    time.sleep(0.3)
    engine.forget_everything()
    engine.seconds = 0.05
    assert desk.wait(drawn).attempts == 1


def test_a_job_that_waited_behind_a_stranger_s_is_not_blamed(desk: Desk, engine: FakeEngine) -> None:
    engine.seconds = HELD
    stranger = new_job()
    desk.client.submit(stranger.id, dict(stranger.spec["graph"]), "theirs", -1.0)
    wait_until_drawn(engine, stranger.id)
    waits = desk.submit()
    wait_for(lambda: desk.conductor._others_ran, "the queue was not looked at")
    engine.seconds = 0.05
    engine.forget_everything()
    assert desk.wait(waits).attempts == 0


def test_a_service_that_takes_over_does_not_blame_either(open_desk: OpenDesk, engine: FakeEngine) -> None:
    """Two services, of which one has the cancelled job and the other what waits behind it."""
    first, second = open_desk(), open_desk()
    first.start()
    second.start()
    busy_with_a_cancelled_job(first, engine)
    waits = second.submit()
    wait_for(lambda: second.conductor._others_ran, "the queue was not looked at")
    engine.seconds, engine.deaf = 0.05, False
    engine.forget_everything()
    assert second.wait(waits).attempts == 0


def test_a_note_of_the_engine_s_end_counts_from_its_time_on(desk: Desk) -> None:
    assert not desk.store.engine_stopped_since(0.0)
    before = time.time()
    desk.store.note_engine_stop()
    desk.store.note_engine_stop()
    assert desk.store.engine_stopped_since(before)
    assert not desk.store.engine_stopped_since(time.time() + 1)


def test_an_engine_that_does_not_answer_ends_no_watch(tmp_path: Path, desk: Desk) -> None:
    watch = StuckJobs(EngineClient("http://127.0.0.1:9"), desk.store, 0.0, None)
    watch.start()
    time.sleep(0.2)
    assert watch._thread is not None
    assert watch._thread.is_alive()
    watch.stop()
    assert not watch._thread.is_alive()
