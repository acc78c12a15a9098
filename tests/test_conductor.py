"""Jobs end well whatever the engine forgets, mumbles or denies. Against an engine that does so when it is told to."""

import base64
import io
import time
from typing import Any

import pytest
from PIL import Image

from shared.jobs import roster
from shared.jobs.tables import State
from tests.desk import Desk, wait_for, wait_until_drawn
from tests.fake_engine import HELD, FakeEngine

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


def test_a_job_is_a_row_before_the_engine_hears_of_it_and_ends_with_its_images(
    desk: Desk, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, found = desk.client.submit, []

    def watched(job_id: str, *rest: Any) -> None:
        found.append(desk.row(job_id).state)
        submit(job_id, *rest)

    monkeypatch.setattr(desk.client, "submit", watched)
    engine.seconds = HELD
    job_id = desk.submit()
    assert found == [State.QUEUED]
    running = desk.wait(job_id, State.RUNNING)
    assert running.started is not None
    engine.seconds = 0.5
    row = desk.wait(job_id)
    assert (row.state, row.error, row.attempts) == (State.COMPLETED, None, 0)
    assert [image["filename"] for image in row.images] == engine.saved()
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
    assert row.finished - row.created < 8
    assert len(engine.submitted) == 1


def test_that_a_job_is_drawn_is_found_out_without_the_socket(desk: Desk, engine: FakeEngine) -> None:
    engine.silent, engine.seconds = True, HELD
    job_id = desk.submit()
    assert desk.wait(job_id, State.RUNNING).started is not None
    assert "started" in desk.told(job_id)


def test_a_socket_that_breaks_off_in_the_middle_of_a_job_costs_little(desk: Desk, engine: FakeEngine) -> None:
    engine.seconds = HELD
    job_id = desk.submit()
    wait_until_drawn(engine, job_id)
    engine.drop_sockets()
    engine.seconds = 0.5
    row = desk.wait(job_id)
    assert row.state is State.COMPLETED
    assert row.finished is not None
    assert row.finished - row.created < 8
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


def test_a_job_that_cannot_even_be_written_down_for_the_engine_fails_and_holds_up_no_other(
    desk: Desk, engine: FakeEngine
) -> None:
    # Such text is refused long before; whatever slips through must not be tried for ever.
    graph = {"Last": {"class_type": "SaveImage", "inputs": {"filename_prefix": "\ud800"}}}
    failed = [desk.submit(spec={"graph": graph}) for _ in range(3)]
    after = desk.submit()
    for job_id in failed:
        row = desk.wait(job_id)
        assert (row.state, row.attempts) == (State.FAILED, 0)
        assert row.error is not None
        assert row.error["error"]["code"] == "internal_error"
    assert desk.wait(after).state is State.COMPLETED
    assert engine.submitted == [after]


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


def test_jobs_wait_in_order_for_an_engine_that_is_away(desk: Desk, engine: FakeEngine) -> None:
    engine.stop()
    ids = [desk.submit() for _ in range(4)]
    assert {desk.row(job_id).state for job_id in ids} == {State.QUEUED}
    engine.start()
    for job_id in ids:
        row = desk.wait(job_id)
        assert (row.state, row.attempts) == (State.COMPLETED, 0)
        # It never was anywhere else than in the queue.
        assert desk.told(job_id).count("queued") == 1
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
    engine.seconds = HELD
    ids = [desk.submit() for _ in range(16)]
    engine.seconds = 0.03
    assert [desk.wait(job_id).state for job_id in ids] == [State.COMPLETED] * 16
    assert engine.begun == engine.submitted == ids
    assert engine.most == 4


@pytest.mark.parametrize("index", [0, 1, 3], ids=["running", "in-the-engine's-queue", "not-sent-yet"])
def test_a_cancel_hits_one_job_wherever_it_stands(
    desk: Desk, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    monkeypatch.setattr(roster, "WINDOW", 2)
    engine.seconds = HELD
    ids = [desk.submit() for _ in range(4)]
    wait_until_drawn(engine, ids[0])
    assert desk.conductor.cancel(ids[index])
    if index < 2:
        wait_for(lambda: engine.cancelled, "the engine was not told")
    engine.seconds = 0.2
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
    wait_for(lambda: len(engine.saved()) == 6, "pictures of the cancelled job are left")


def test_a_service_that_ends_right_after_a_cancel_leaves_the_engine_no_work(
    desk: Desk, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.seconds = HELD
    job_id = desk.submit()
    wait_until_drawn(engine, job_id)
    # As if the end came before the thread got to ask the engine.
    monkeypatch.setattr(desk.conductor, "_survey", lambda: None)
    assert desk.conductor.cancel(job_id)
    desk.conductor.stop()
    assert engine.cancelled == [job_id]


def test_a_cancelled_job_is_never_completed_even_if_it_ends_at_that_moment(desk: Desk, engine: FakeEngine) -> None:
    engine.seconds = 0.02
    outcomes, patience = set(), 0.03
    for _ in range(40):
        job_id = desk.submit()
        time.sleep(patience)
        cancelled = desk.conductor.cancel(job_id)
        assert desk.row(job_id).state is (State.CANCELLED if cancelled else State.COMPLETED)
        outcomes.add(cancelled)
        # Closes in on the moment at which jobs end, wherever that is on this machine, and stays about it.
        patience *= 1.2 if cancelled else 1 / 1.2
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
    engine.preview, engine.seconds = buffer.getvalue(), 4
    shown = desk.submit(spec={"previews": True})
    previews = [desk.store.last_event(shown, "preview")]

    def seen() -> bool:
        previews.append(desk.store.last_event(shown, "preview"))
        return previews[-1] is not None

    wait_for(seen, "no preview")
    engine.seconds = 0.05
    preview = previews[-1]
    assert preview is not None
    kind, _, content = preview.data["image"].partition(",")
    assert kind == "data:image/jpeg;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    assert (picture.format, picture.size) == ("JPEG", (256, 192))


def test_a_job_that_wants_no_previews_gets_none(desk: Desk, engine: FakeEngine) -> None:
    engine.seconds = 6
    plain = desk.submit()
    # Previews come after the progress of their step.
    wait_for(lambda: desk.told(plain).count("progress") >= 2, "no progress")
    assert desk.store.last_event(plain, "preview") is None
