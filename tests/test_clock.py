"""Setting the wall clock ahead or back blocks, suspects or deletes no job."""

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from shared.jobs import runner as module
from shared.jobs.active_jobs import JobPhase, TrackedJob
from shared.jobs.database import about, jobs
from shared.jobs.estimate import seconds_left
from shared.jobs.job import JobRow, State, UnfinishedWork
from shared.jobs.retention import DAY
from shared.jobs.store import ENGINE_STOP, Store
from tests.fake_engine import FakeEngine
from tests.harness import Harness, wait_for
from tests.test_job_files import FilesHarness
from tests.test_store import add

YEAR = 365 * DAY


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite")
    yield store
    store.close()


@pytest.fixture
def harness(tmp_path: Path, engine: FakeEngine) -> Iterator[Harness]:
    harness = Harness(tmp_path, engine)
    yield harness
    harness.close()


def set_times(store: Store, row: JobRow, **times: float) -> None:
    """Set times as a wrong clock would have."""
    with store._write() as connection:
        connection.execute(jobs.update().where(jobs.c.id == row.id).values(**times))


def test_a_job_that_ended_in_the_future_was_not_ahead(store: Store) -> None:
    first, second = add(store), add(store)
    store.finish(first, "me", State.COMPLETED)
    assert store.was_any_ahead(second.number, time.time() - 60)
    set_times(store, first, finished=time.time() + YEAR)
    assert not store.was_any_ahead(second.number, time.time() - 60)


def test_an_engine_stop_in_the_future_clears_no_suspect(store: Store) -> None:
    store.record_engine_stop()
    assert store.engine_stopped_since(time.time() - 60)
    with store._write() as connection:
        connection.execute(about.update().where(about.c.key == ENGINE_STOP).values(value=repr(time.time() + YEAR)))
    assert not store.engine_stopped_since(time.time() - 60)


def test_a_job_with_a_negative_duration_is_not_measured(store: Store) -> None:
    for seconds in (4.0, -YEAR):
        row = add(store, model="a", work=2.0)
        store.finish(row, "me", State.COMPLETED, started=time.time())
        set_times(store, row, finished=time.time() + seconds, started=time.time())
    ((_, _, seconds),) = store.measured(9)
    assert seconds == pytest.approx(4.0, abs=1.0)
    assert seconds_left([], UnfinishedWork("a", 2.0, None), store.measured(9), time.time()) == pytest.approx(
        4.0, abs=1.0
    )


@pytest.mark.parametrize("ahead", [YEAR, 20 * YEAR])
def test_a_job_that_ended_in_the_future_expires_with_the_next_newer_one(tmp_path: Path, ahead: float) -> None:
    job_files = FilesHarness(tmp_path, days=2.0)
    (wrong, picture), _ = job_files.add_finished(), job_files.add_finished()
    set_times(job_files.store, wrong, finished=time.time() + ahead)
    assert job_files.retention.apply(time.time()) == 0
    assert picture.is_file()
    # The age of the other one is correct.
    assert job_files.retention.apply(time.time() + 1.9 * DAY) == 0
    assert job_files.retention.apply(time.time() + 2.1 * DAY) == 2
    assert not picture.exists()
    # A job of unknown age is kept.
    last, picture = job_files.add_finished()
    set_times(job_files.store, last, finished=time.time() + ahead)
    assert job_files.retention.apply(time.time() + 3 * DAY) == 0
    assert picture.is_file()
    job_files.store.close()


def test_without_a_reliable_clock_only_count_and_size_limits_apply(tmp_path: Path) -> None:
    job_files = FilesHarness(tmp_path, days=2.0, count=1)
    rows = [job_files.add_finished()[0] for _ in range(2)]
    for row in rows:
        set_times(job_files.store, row, finished=1.0)
    job_files.files.add_standalone_upload("mine.png", b"png")
    assert job_files.retention.apply(None) == 1
    assert job_files.files.uploads.find("mine.png") == b"png"
    assert job_files.retention.apply(time.time()) == 1
    job_files.store.close()


@pytest.mark.parametrize("jump", [YEAR, -YEAR])
def test_setting_the_clock_expires_nothing(harness: Harness, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    times: list[float | None] = []
    monkeypatch.setattr(module, "EXPIRE_INTERVAL", 0.0)
    monkeypatch.setattr(module, "HEARTBEAT_INTERVAL", 0.05)
    monkeypatch.setattr(harness.retention, "apply", lambda now: times.append(now) or 0)
    start, shift = time.time(), 0.0
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=time.sleep, time=lambda: time.time() + shift)
    monkeypatch.setattr(module, "time", clock)
    harness.start()
    wait_for(lambda: len(times) > 2, "nothing expires")
    # A clock that is wrong at boot is corrected soon.
    assert set(times) == {None}
    monkeypatch.setattr(module, "SETTLED_AFTER", 0.0)
    shift = jump
    times.clear()
    wait_for(lambda: len([now for now in times if now is not None]) > 2, "nothing expires")
    # The time is never later than the real time. An earlier time only keeps more jobs.
    assert max(now for now in times if now is not None) < start + 600
    job_id = harness.submit()
    assert harness.wait(job_id).state is State.COMPLETED


def test_times_from_before_the_clock_was_set_suspect_no_job(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = harness.runner
    job = TrackedJob(add(harness.store, runner.worker), phase=JobPhase.SENT, sent_at=time.monotonic() - 1)
    job.acknowledged = True
    runner._queue_seen_at = time.monotonic() - 0.5
    runner._check_clock(time.monotonic(), time.time() + 1.0)
    assert runner._suspects([job]) == [job]
    runner._check_clock(time.monotonic(), time.time() - YEAR)
    assert runner._suspects([job]) == []
    # The queue is checked again after the clock was set.
    runner._queue_seen_at = time.monotonic()
    assert runner._suspects([job]) == [job]
