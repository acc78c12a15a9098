"""The store: order, final states, reclaiming, and access by concurrent processes."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shared.errors import QueueFull
from shared.jobs.job import JobRow, JobSpec, JobUpdate, NewJob, State
from shared.jobs.store import Store

MANY = 10_000
ERROR = {"status": "error", "message": "no", "error": {"code": "generation_failed"}}
SAVED = {"filename": "a.png", "subfolder": "d", "type": "output"}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.sqlite"


@pytest.fixture
def open_store(url: str) -> Iterator[Callable[[], Store]]:
    """Open stores as separate processes do."""
    stores = []

    def open_store() -> Store:
        stores.append(Store(url))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    return open_store()


def new(**fields: Any) -> NewJob:
    known = {"id": str(uuid.uuid4()), "kind": "txt2img", "client": "127.0.0.1", "service": "txt2img", "spec": JobSpec()}
    return NewJob(**{**known, **fields})


def add(store: Store, worker: str = "me", **fields: Any) -> JobRow:
    return store.add(new(**fields), worker, MANY)[0]


def names(store: Store, row: JobRow) -> list[str]:
    return [event.name for event in store.events(row.id, 0)]


def start(store: Store, row: JobRow, worker: str = "me") -> None:
    store.save(worker, [JobUpdate(row.id, 5.0, [("started", {"attempt": 1})])])


def test_a_job_is_visible_to_other_processes_and_after_a_restart(
    store: Store, open_store: Callable[[], Store], url: str
) -> None:
    row = add(
        store,
        spec=JobSpec({"prompt": "ünï"}, seeds=(1, 2), size=(8, 8)),
        work=2.5,
        model="m",
        idempotency_key="k",
        body_hash="h",
    )
    assert (row.state, row.attempts, row.started, row.finished) == (State.QUEUED, 0, None, None)
    assert open_store().get(row.id) == row
    store.close()
    assert open_store().get(row.id) == row
    assert open_store().get(str(uuid.uuid4())) is None


def test_job_numbers_ascend_and_are_never_reused(store: Store) -> None:
    first, second = add(store), add(store)
    store.finish(second, "me", State.FAILED, error=ERROR)
    assert store.delete(second.id, lambda _: None)
    third = add(store)
    assert first.number < second.number < third.number


def test_a_job_ends_once(store: Store) -> None:
    row = add(store)
    start(store, row)
    assert store.finish(row, "me", State.COMPLETED, images=[SAVED], new_events=[("image", SAVED)])
    assert not store.finish(row, "me", State.FAILED, error=ERROR)
    assert not store.cancel(row.id, ERROR)
    store.requeue("me", [(row, 1)])
    finished = store.get(row.id)
    assert finished is not None
    assert (finished.state, finished.images, finished.error, finished.attempts) == (State.COMPLETED, [SAVED], None, 0)
    assert finished.started == 5.0
    assert finished.finished is not None
    assert names(store, row) == ["queued", "started", "image", "completed"]


def test_a_cancelled_job_is_never_completed(store: Store, open_store: Callable[[], Store]) -> None:
    row = add(store)
    start(store, row)
    assert open_store().cancel(row.id, ERROR)
    assert not store.cancel(row.id, ERROR)
    assert not store.finish(row, "me", State.COMPLETED, images=[SAVED])
    finished = store.get(row.id)
    assert finished is not None
    assert (finished.state, finished.images, finished.error) == (State.CANCELLED, [], ERROR)
    assert names(store, row) == ["queued", "started", "cancelled"]
    assert not store.cancel(str(uuid.uuid4()), ERROR)


def test_no_event_is_recorded_after_a_job_is_finished(store: Store) -> None:
    row, other = add(store), add(store)
    store.cancel(row.id, ERROR)
    # A worker may report on a job before it learns of its cancellation.
    late = JobUpdate(row.id, 5.0, [("progress", {"step": 1}), ("preview", {"image": "data:"})])
    store.save("me", [late, JobUpdate(other.id, None, [("progress", {"step": 2})])])
    assert names(store, row) == ["queued", "cancelled"]
    assert names(store, other) == ["queued", "progress"]
    store.delete(row.id, lambda _: None)
    store.save("me", [late, JobUpdate(other.id, None, [("progress", {"step": 3})])])
    assert names(store, other) == ["queued", "progress", "progress"]


def test_only_its_worker_updates_a_job(store: Store) -> None:
    row = add(store)
    start(store, row, "another")
    assert not store.finish(row, "another", State.FAILED)
    store.requeue("another", [(row, 1)])
    assert store.get(row.id) == row
    assert names(store, row) == ["queued"]
    assert store.still_owned([row.id, str(uuid.uuid4())], "me") == {row.id}
    assert store.still_owned([row.id], "another") == set()


def test_a_lost_job_is_requeued(store: Store) -> None:
    add(store)
    row = add(store)
    start(store, row)
    store.requeue("me", [(row, 1)])
    requeued = store.get(row.id)
    assert requeued is not None
    assert (requeued.state, requeued.started, requeued.attempts, requeued.number) == (State.QUEUED, None, 1, row.number)
    assert store.events(row.id, 0)[-1].data == {"position": 1, "attempt": 2}


def test_orphans_are_reclaimed_once_and_in_order(store: Store, open_store: Callable[[], Store]) -> None:
    store.beat("dead")
    rows = [add(store, "dead") for _ in range(4)]
    start(store, rows[0], "dead")
    store.finish(rows[1], "dead", State.COMPLETED)
    successor, late = open_store(), open_store()
    successor.beat("successor")
    assert successor.reclaim_orphans("successor", time.time() - 60) == []
    store.deregister("dead")
    reclaimed = successor.reclaim_orphans("successor", time.time() - 60)
    assert [row.id for row in reclaimed] == [rows[0].id, rows[2].id, rows[3].id]
    assert [row.state for row in reclaimed] == [State.RUNNING, State.QUEUED, State.QUEUED]
    assert {row.worker for row in reclaimed} == {"successor"}
    assert late.reclaim_orphans("late", time.time() - 60) == []
    assert successor.reclaim_orphans("successor", time.time() - 60) == []
    assert not store.finish(rows[0], "dead", State.COMPLETED)
    assert store.finish(rows[0], "successor", State.COMPLETED)


def test_a_worker_with_an_old_heartbeat_loses_its_jobs(store: Store) -> None:
    store.beat("slow")
    row = add(store, "slow")
    time.sleep(0.02)
    silent_since = time.time()
    store.beat("alive")
    alive = add(store, "alive")
    assert [row.id for row in store.reclaim_orphans("alive", silent_since)] == [row.id]
    store.beat("slow")
    assert store.reclaim_orphans("slow", silent_since) == []
    assert store.still_owned([row.id, alive.id], "alive") == {row.id, alive.id}


def test_a_heartbeat_in_the_future_does_not_count(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    rows = {}
    for worker, ahead in (("killed before the clock was set back", 3600), ("alive", 1)):
        with monkeypatch.context() as clock:
            clock.setattr(time, "time", lambda ahead=ahead: now() + ahead)
            store.beat(worker)
            rows[worker] = add(store, worker)
    reclaimed = store.reclaim_orphans("new worker", time.time() - 8)
    assert [row.id for row in reclaimed] == [rows["killed before the clock was set back"].id]
    assert store.reclaim_orphans("new worker", time.time() - 8) == []


def test_concurrent_workers_reclaim_each_job_once(store: Store, open_store: Callable[[], Store]) -> None:
    rows = [add(store, "dead") for _ in range(20)]
    successors = [open_store() for _ in range(4)]
    barrier = threading.Barrier(len(successors))

    def reclaim(index: int) -> list[str]:
        successors[index].beat(f"successor {index}")
        barrier.wait()
        return [row.id for row in successors[index].reclaim_orphans(f"successor {index}", time.time() - 60)]

    with ThreadPoolExecutor(len(successors)) as pool:
        reclaimed = list(pool.map(reclaim, range(len(successors))))
    assert [job_id for ids in reclaimed for job_id in ids] == [row.id for row in rows]


def test_an_idempotency_key_is_used_once(store: Store, open_store: Callable[[], Store]) -> None:
    first, is_new = store.add(new(idempotency_key="k", body_hash="h"), "me", MANY)
    assert is_new
    assert open_store().add(new(idempotency_key="k"), "another", MANY) == (first, False)
    assert store.find_by_key("k") == first
    assert store.find_by_key("other") is None
    assert store.count_unfinished() == 1
    assert not add(store).idempotency_key
    assert add(store).number > first.number


def test_a_full_queue_rejects_jobs_but_answers_a_repeated_key(store: Store) -> None:
    first, _ = store.add(new(idempotency_key="k"), "me", 2)
    add(store)
    with pytest.raises(QueueFull) as full:
        store.add(new(), "me", 2)
    assert full.value.retry_after
    assert store.add(new(idempotency_key="k"), "me", 2) == (first, False)
    store.finish(first, "me", State.COMPLETED)
    assert store.add(new(), "me", 2)[1]


def test_events_are_replayed_from_any_point(store: Store) -> None:
    row, other = add(store), add(store)
    store.save("me", [JobUpdate(row.id, None, [("progress", {"step": step}) for step in range(3)])])
    store.save("me", [JobUpdate(other.id, None, [("progress", {"step": 9})])])
    events = store.events(row.id, 0)
    assert events[0].data == {"position": 0}
    assert [event.data["step"] for event in events[1:]] == [0, 1, 2]
    assert store.events(row.id, events[1].number) == events[2:]
    assert store.events(row.id, events[-1].number) == []
    assert store.last_event(row.id, "progress") == events[-1]
    assert store.last_event(row.id, "image") is None


def test_only_the_newest_preview_is_stored_and_none_after_the_end(store: Store) -> None:
    row, other = add(store), add(store)
    for image in ("one", "two"):
        store.save("me", [JobUpdate(job.id, None, [("preview", {"image": image})]) for job in (row, other)])
    assert names(store, row) == ["queued", "preview"]
    assert store.events(row.id, 0)[-1].data == {"image": "two"}
    store.finish(row, "me", State.COMPLETED)
    store.cancel(other.id, ERROR)
    assert names(store, row) == ["queued", "completed"]
    assert names(store, other) == ["queued", "cancelled"]


def test_unfinished_jobs_are_listed_with_their_client_newest_first(store: Store) -> None:
    mine, newer = add(store, client="me"), add(store, client="me")
    other = add(store, client="another")
    add(store, service="img2img")
    assert store.unfinished_of("txt2img") == [(other.id, "another"), (newer.id, "me"), (mine.id, "me")]
    store.cancel(newer.id, ERROR)
    assert store.unfinished_of("txt2img") == [(other.id, "another"), (mine.id, "me")]
    store.finish(mine, "me", State.COMPLETED)
    store.cancel(other.id, ERROR)
    assert store.unfinished_of("txt2img") == []


def test_pages_of_jobs_are_filtered_by_state_and_kind(store: Store) -> None:
    rows = [add(store, kind=kind) for kind in ("txt2img", "img2img", "txt2img", "txt2img", "img2img")]
    page = store.page(limit=2)
    first = page.rows
    assert [row.id for row in first] == [rows[4].id, rows[3].id]
    assert [row.id for row in store.page(limit=9, before=page.before).rows] == [row.id for row in rows[2::-1]]
    start(store, rows[1])
    store.cancel(rows[2].id, ERROR)
    assert [row.id for row in store.page(states=[State.RUNNING]).rows] == [rows[1].id]
    assert [row.id for row in store.page(states=[State.CANCELLED, State.RUNNING]).rows] == [rows[2].id, rows[1].id]
    assert [row.id for row in store.page(kind="img2img").rows] == [rows[4].id, rows[1].id]
    assert [work.started for work in store.work_ahead(rows[3].number)] == [None, 5.0]
    assert (store.count_unfinished(), store.count_unfinished(rows[3].number)) == (4, 2)
    assert [store.was_any_ahead(row.number, time.time() + 60) for row in rows] == [False, True, True, True, True]
    assert [row.id for row in store.finished_before(None, 9)] == [rows[2].id]
    assert store.finished_before(rows[2].number, 9) == []


def test_durations_of_completed_jobs_are_listed_newest_first(store: Store) -> None:
    for seconds in (1.0, 2.0, 3.0):
        row = add(store, model="m", work=seconds * 10)
        store.finish(row, "me", State.COMPLETED, started=time.time() - seconds)
    store.finish(add(store), "me", State.FAILED, started=time.time() - 9)
    assert [(model, work, round(seconds)) for model, work, seconds in store.measured(2)] == [
        ("m", 30.0, 3),
        ("m", 20.0, 2),
    ]


def test_a_job_was_ahead_until_its_end(store: Store) -> None:
    first, second = add(store), add(store)
    before = time.time()
    store.finish(first, "me", State.COMPLETED)
    assert store.was_any_ahead(second.number, before - 1)
    assert not store.was_any_ahead(second.number, time.time() + 1)


def test_a_deleted_job_leaves_only_uploads_that_others_need(store: Store) -> None:
    both, mine = {"both.png": "in"}, {"mine.png": "in"}
    row, other = add(store, spec=JobSpec(uploads=both | mine)), add(store, spec=JobSpec(uploads=both))
    discarded: list[str] = []
    assert not store.delete(row.id, discarded.append)
    store.finish(row, "me", State.COMPLETED)
    store.finish(other, "me", State.COMPLETED)
    assert store.delete(row.id, discarded.append)
    assert discarded == ["mine.png"]
    assert not store.delete(row.id, discarded.append)
    assert store.get(row.id) is None
    assert store.events(row.id, 0) == []
    assert names(store, other) == ["queued", "completed"]
    assert store.delete(other.id, discarded.append)
    assert discarded == ["mine.png", "both.png"]
