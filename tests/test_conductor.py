"""Jobs end well whatever the engine forgets, mumbles or denies. Against an engine that does so when it is told to."""

import base64
import io
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shared.jobs import conductor as module
from shared.jobs import roster
from shared.jobs.tables import State
from tests.desk import Desk, wait_for
from tests.fake_engine import FakeEngine

OBJECTIONS = {
    "Last": {
        "errors": [
            {
                "type": "value_not_in_list",
                "message": "Value not in list",
                "details": "",
                "extra_info": {"input_name": "a"},
            }
        ],
        "dependent_outputs": ["Last"],
        "class_type": "SaveImage",
    }
}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    engine = FakeEngine(tmp_path / "output")
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture
def desk(tmp_path: Path, engine: FakeEngine) -> Iterator[Desk]:
    desk = Desk(tmp_path, engine)
    desk.start()
    yield desk
    desk.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that do not measure how soon the engine's queue is looked at."""
    monkeypatch.setattr(module, "SURVEY_HEARD", 0.1)


def saved(engine: FakeEngine) -> list[str]:
    return sorted(path.name for path in engine.output_dir.rglob("*.png"))


def wait_until_drawn(engine: FakeEngine, job_id: str) -> None:
    wait_for(lambda: engine.running is not None and engine.running.id == job_id, "the job does not run")


def test_a_job_is_a_row_before_the_engine_hears_of_it_and_ends_with_its_images(
    desk: Desk, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, found = desk.client.submit, []

    def watched(job_id: str, *rest: Any) -> None:
        found.append(desk.row(job_id).state)
        submit(job_id, *rest)

    monkeypatch.setattr(desk.client, "submit", watched)
    engine.seconds = 0.5
    job_id = desk.submit()
    assert found == [State.QUEUED]
    running = desk.wait(job_id, State.RUNNING)
    assert running.started is not None
    row = desk.wait(job_id)
    assert (row.state, row.error, row.attempts) == (State.COMPLETED, None, 0)
    assert [image["filename"] for image in row.images] == saved(engine)
    assert len(row.images) == 2
    told = desk.told(job_id)
    assert (told[:2], told[-1]) == (["queued", "started"], "completed")
    assert told.count("image") == 2
    assert "progress" in told
    wait_for(lambda: not engine.history, "the engine's memory was not cleared")


@pytest.mark.parametrize("fault", ["loses_end", "silent"])
def test_what_the_socket_does_not_tell_is_found_out(desk: Desk, engine: FakeEngine, fault: str) -> None:
    setattr(engine, fault, True)
    engine.seconds = 0.3
    row = desk.wait(desk.submit())
    assert row.state is State.COMPLETED
    assert row.finished is not None
    assert row.finished - row.created < 0.3 + 2
    assert len(engine.submitted) == 1


def test_that_a_job_is_drawn_is_found_out_without_the_socket(desk: Desk, engine: FakeEngine) -> None:
    engine.silent, engine.seconds = True, 30
    job_id = desk.submit()
    assert desk.wait(job_id, State.RUNNING).started is not None
    assert "started" in desk.told(job_id)


def test_a_socket_that_breaks_off_in_the_middle_of_a_job_costs_little(desk: Desk, engine: FakeEngine) -> None:
    engine.seconds = 0.5
    job_id = desk.submit()
    wait_until_drawn(engine, job_id)
    engine.drop_sockets()
    row = desk.wait(job_id)
    assert row.state is State.COMPLETED
    assert row.finished is not None
    assert row.finished - row.created < 0.5 + 2
    assert engine.submitted == [job_id]
    after = desk.submit()
    assert desk.wait(after).state is State.COMPLETED


def test_a_graph_that_is_taken_only_in_part_is_refused(desk: Desk, engine: FakeEngine) -> None:
    engine.node_errors, engine.seconds = OBJECTIONS, 2
    job_id = desk.submit()
    row = desk.row(job_id)
    assert row.state is State.FAILED
    assert row.error is not None
    assert row.error["error"]["code"] == "engine_rejected"
    assert row.error["error"]["problems"][0]["input"] == "a"
    assert engine.cancelled == [job_id]
    engine.node_errors, engine.seconds = {}, 0.05
    assert desk.wait(desk.submit(), seconds=8).state is State.COMPLETED


def test_a_500_fails_its_job_and_no_other(desk: Desk, engine: FakeEngine) -> None:
    engine.prompt_fault = "500"
    failed = desk.submit()
    engine.prompt_fault = None
    after = desk.submit()
    row = desk.row(failed)
    assert row.state is State.FAILED
    assert row.error is not None
    assert row.error["error"] == {"code": "engine_error", "job_id": failed}
    assert desk.wait(after).state is State.COMPLETED
    assert engine.submitted == [failed, after]


@pytest.mark.parametrize("fault", ["500 but taken", "taken but no answer"])
def test_a_job_that_was_taken_is_not_sent_again_whatever_the_answer_was(
    desk: Desk, engine: FakeEngine, fault: Any
) -> None:
    engine.prompt_fault, engine.seconds = fault, 0.3
    job_id = desk.submit()
    assert desk.wait(job_id).state is State.COMPLETED
    assert engine.submitted == [job_id]


def test_a_500_for_a_job_that_is_done_already_is_no_failure(desk: Desk, engine: FakeEngine) -> None:
    engine.prompt_fault, engine.silent, engine.delay = "500 but taken", True, 0.3
    assert desk.wait(desk.submit()).state is State.COMPLETED
    assert len(engine.submitted) == 1


def test_what_the_engine_forgot_is_sent_again_under_the_same_id(desk: Desk, engine: FakeEngine, quick: None) -> None:
    engine.seconds = 0.25
    ids = [desk.submit() for _ in range(3)]
    wait_until_drawn(engine, ids[0])
    engine.forget_everything()
    rows = [desk.wait(job_id) for job_id in ids]
    assert [row.state for row in rows] == [State.COMPLETED] * 3
    assert [row.attempts for row in rows] == [1, 0, 0]
    assert engine.submitted == ids * 2
    assert engine.begun == [ids[0], *ids]
    # What the first attempt saved is not left beside what the second one saved.
    assert sorted(image["filename"] for row in rows for image in row.images) == saved(engine)
    assert len(saved(engine)) == 6
    queued = [event.data for event in desk.store.events_after(ids[0], 0) if event.name == "queued"]
    assert queued == [{"position": 0}, {"position": 0, "attempt": 2}]


def test_a_job_that_the_engine_dies_of_three_times_is_given_up(desk: Desk, engine: FakeEngine, quick: None) -> None:
    engine.seconds = 30
    deadly = desk.submit()
    after = desk.submit()
    for death in range(1, 4):
        sent = [deadly, after] * death
        wait_for(lambda sent=sent: engine.submitted == sent, "the jobs were not sent again")  # type: ignore[misc]
        wait_until_drawn(engine, deadly)
        engine.forget_everything()
    row = desk.wait(deadly)
    assert row.state is State.FAILED
    assert row.error is not None
    assert row.error["error"]["code"] == "generation_failed"
    assert "died 3 times" in row.error["message"]
    engine.seconds = 0.05
    wait_until_drawn(engine, after)
    engine.forget_everything()
    row = desk.wait(after)
    assert (row.state, row.attempts) == (State.COMPLETED, 1)
    assert engine.begun == [deadly] * 3 + [after] * 2


def test_a_job_that_kills_the_engine_before_anybody_hears_of_it_is_given_up(
    desk: Desk, engine: FakeEngine, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, deadly = desk.client.queue, []

    def after_a_death() -> Any:
        if engine.running is not None and engine.running.id in deadly:
            engine.forget_everything()
        return queue()

    # What ended before it came stood never in front of it.
    assert desk.wait(desk.submit()).state is State.COMPLETED
    engine.silent, engine.seconds = True, 30
    monkeypatch.setattr(desk.client, "queue", after_a_death)
    deadly.append(desk.submit())
    after = desk.submit()
    assert desk.wait(*deadly).state is State.FAILED
    assert engine.begun.count(*deadly) == 3
    assert desk.row(after).attempts == 0


def test_a_job_that_is_sent_as_the_engine_dies_is_not_suspected(
    desk: Desk, engine: FakeEngine, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, late = desk.client.queue, []

    def while_it_is_asked() -> Any:
        """Another job comes, and the engine dies, between the question and its answer."""
        if not late:
            late.append(desk.submit())
            engine.forget_everything()
        return queue()

    engine.seconds = 0.3
    first = desk.submit()
    wait_until_drawn(engine, first)
    monkeypatch.setattr(desk.client, "queue", while_it_is_asked)
    wait_for(lambda: late, "the engine was not asked")
    assert [desk.wait(job_id).attempts for job_id in [first, *late]] == [1, 0]
    # Both were in the engine when it died, and were sent again.
    assert engine.submitted == [first, *late] * 2


def test_jobs_wait_in_order_for_an_engine_that_is_away(desk: Desk, engine: FakeEngine) -> None:
    engine.stop()
    ids = [desk.submit() for _ in range(4)]
    assert {desk.row(job_id).state for job_id in ids} == {State.QUEUED}
    engine.start()
    for job_id in ids:
        row = desk.wait(job_id)
        assert (row.state, row.attempts) == (State.COMPLETED, 0)
    assert engine.begun == engine.submitted == ids


def test_a_job_is_accepted_once_it_is_a_row_whatever_becomes_of_sending_it(desk: Desk, engine: FakeEngine) -> None:
    engine.stop()
    assert desk.wait(desk.submit(spec={"uploads": [["gone.png", "dream-layer"]]})).state is State.FAILED


def test_a_job_that_cannot_be_sent_does_not_hold_back_the_others(desk: Desk, engine: FakeEngine) -> None:
    engine.stop()
    first, broken = desk.submit(), desk.submit(spec={"uploads": [["gone.png", "dream-layer"]]})
    others = [desk.submit() for _ in range(2)]
    # Meanwhile it is tried.
    time.sleep(0.6)
    engine.start()
    assert desk.wait(broken).state is State.FAILED
    assert [desk.wait(job_id, seconds=8).state for job_id in [first, *others]] == [State.COMPLETED] * 3


def test_an_upload_reaches_the_engine_with_its_job(desk: Desk, engine: FakeEngine) -> None:
    desk.archive.uploads.write("kept.png", b"png")
    job_id = desk.submit(spec={"uploads": [["kept.png", "dream-layer"]]})
    assert desk.wait(job_id).state is State.COMPLETED
    assert engine.uploaded == {"dream-layer/kept.png": b"png"}


def test_the_engine_never_has_more_jobs_than_the_window(
    desk: Desk, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "WINDOW", 4)
    engine.seconds = 0.03
    ids = [desk.submit() for _ in range(16)]
    assert [desk.wait(job_id).state for job_id in ids] == [State.COMPLETED] * 16
    assert engine.begun == engine.submitted == ids
    assert engine.most == 4


@pytest.mark.parametrize("index", [0, 1, 3], ids=["running", "in-the-engine's-queue", "not-sent-yet"])
def test_a_cancel_hits_one_job_wherever_it_stands(
    desk: Desk, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    monkeypatch.setattr(roster, "WINDOW", 2)
    engine.seconds = 0.2
    ids = [desk.submit() for _ in range(4)]
    wait_until_drawn(engine, ids[0])
    assert desk.conductor.cancel(ids[index])
    row = desk.row(ids[index])
    assert row.state is State.CANCELLED
    assert row.error is not None
    assert row.error["error"] == {"code": "cancelled", "job_id": row.id}
    assert desk.told(row.id)[-1] == "cancelled"
    assert not desk.conductor.cancel(ids[index])
    others = [desk.wait(job_id) for job_id in ids if job_id != row.id]
    assert [other.state for other in others] == [State.COMPLETED] * 3
    # What the engine never had, it is not asked to let go.
    assert set(engine.cancelled) == ({row.id} if index < 2 else set())
    assert (row.id in engine.submitted) == (index < 2)
    wait_for(lambda: len(saved(engine)) == 6, "pictures of the cancelled job are left")


def test_a_cancelled_job_is_never_completed_even_if_it_ends_at_that_moment(desk: Desk, engine: FakeEngine) -> None:
    engine.seconds = 0.02
    outcomes = set()
    for _ in range(30):
        job_id = desk.submit()
        time.sleep(random.uniform(0, 0.06))
        cancelled = desk.conductor.cancel(job_id)
        assert desk.row(job_id).state is (State.CANCELLED if cancelled else State.COMPLETED)
        outcomes.add(cancelled)
    wait_for(lambda: engine.running is None and not desk.conductor._roster, "something is left")
    assert outcomes == {True, False}


def test_a_job_that_is_cancelled_while_the_engine_is_away_is_not_sent_to_it(desk: Desk, engine: FakeEngine) -> None:
    engine.stop()
    cancelled, kept = desk.submit(), desk.submit()
    assert desk.conductor.cancel(cancelled)
    engine.start()
    assert desk.wait(kept).state is State.COMPLETED
    assert engine.submitted == [kept]


def test_previews_become_small_jpegs(desk: Desk, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((512, 384), 50).save(buffer, "PNG")
    engine.preview, engine.seconds = buffer.getvalue(), 0.5
    plain, shown = desk.submit(), desk.submit(spec={"previews": True})
    wait_for(lambda: desk.store.last_event(shown, "preview") is not None, "no preview")
    preview = desk.store.last_event(shown, "preview")
    assert preview is not None
    kind, _, content = preview.data["image"].partition(",")
    assert kind == "data:image/jpeg;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    assert (picture.format, picture.size) == ("JPEG", (256, 192))
    assert desk.store.last_event(plain, "preview") is None
