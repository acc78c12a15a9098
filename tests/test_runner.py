"""The runner against a fake engine that loses jobs, sends no events, or answers with errors."""

import base64
import io
import time
from typing import Any

import pytest
from PIL import Image

from shared.jobs import active_jobs
from shared.jobs.job import State
from tests.fake_engine import BLOCKED, FakeEngine
from tests.harness import Harness, wait_for, wait_until_running

NODE_ERRORS = {
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


def test_a_job_is_recorded_before_it_is_sent_and_ends_with_its_images(
    harness: Harness, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, states = harness.client.submit, []

    def record_and_submit(job_id: str, *rest: Any) -> None:
        states.append(harness.row(job_id).state)
        submit(job_id, *rest)

    monkeypatch.setattr(harness.client, "submit", record_and_submit)
    engine.seconds = BLOCKED
    job_id = harness.submit()
    assert states == [State.QUEUED]
    running = harness.wait(job_id, State.RUNNING)
    assert running.started is not None
    engine.seconds = 0.5
    row = harness.wait(job_id)
    assert (row.state, row.error, row.attempts) == (State.COMPLETED, None, 0)
    assert [image["filename"] for image in row.images] == engine.saved()
    assert len(row.images) == 2
    events = harness.event_names(job_id)
    assert (events[:2], events[-1]) == (["queued", "started"], "completed")
    assert events.count("image") == 2
    assert "progress" in events
    wait_for(lambda: not engine.history, "the engine's memory was not cleared")


@pytest.mark.parametrize("fault", ["omits_end_events", "sends_no_events"])
def test_a_job_completes_without_websocket_events(harness: Harness, engine: FakeEngine, fault: str) -> None:
    setattr(engine, fault, True)
    engine.seconds = 0.3
    row = harness.wait(harness.submit())
    assert row.state is State.COMPLETED
    assert row.finished is not None
    assert row.finished - row.created < 8
    assert len(engine.submitted) == 1


def test_a_job_is_running_without_websocket_events(harness: Harness, engine: FakeEngine) -> None:
    engine.sends_no_events, engine.seconds = True, BLOCKED
    job_id = harness.submit()
    assert harness.wait(job_id, State.RUNNING).started is not None
    assert "started" in harness.event_names(job_id)


def test_a_broken_websocket_delays_a_job_only_briefly(harness: Harness, engine: FakeEngine) -> None:
    engine.seconds = BLOCKED
    job_id = harness.submit()
    wait_until_running(engine, job_id)
    engine.drop_sockets()
    engine.seconds = 0.5
    row = harness.wait(job_id)
    assert row.state is State.COMPLETED
    assert row.finished is not None
    assert row.finished - row.created < 8
    assert engine.submitted == [job_id]
    after = harness.submit()
    assert harness.wait(after).state is State.COMPLETED


def test_a_partly_accepted_graph_fails_its_job(harness: Harness, engine: FakeEngine) -> None:
    engine.node_errors, engine.seconds = NODE_ERRORS, 2
    job_id = harness.submit()
    row = harness.row(job_id)
    assert row.state is State.FAILED
    assert row.error is not None
    assert row.error["error"]["code"] == "engine_rejected"
    assert row.error["error"]["problems"][0]["input"] == "a"
    assert engine.cancelled == [job_id]
    engine.node_errors, engine.seconds = {}, 0.05
    assert harness.wait(harness.submit(), seconds=8).state is State.COMPLETED


def test_a_500_fails_its_job_and_no_other(harness: Harness, engine: FakeEngine) -> None:
    engine.prompt_fault = "500"
    failed = harness.submit()
    engine.prompt_fault = None
    after = harness.submit()
    row = harness.row(failed)
    assert row.state is State.FAILED
    assert row.error is not None
    assert row.error["error"] == {"code": "engine_error", "job_id": failed}
    assert harness.wait(after).state is State.COMPLETED
    assert engine.submitted == [failed, after]


def test_a_job_that_cannot_be_serialized_fails_and_blocks_no_other(harness: Harness, engine: FakeEngine) -> None:
    # The API rejects such text; a job with it must not be retried forever.
    graph = {"Last": {"class_type": "SaveImage", "inputs": {"filename_prefix": "\ud800"}}}
    failed = [harness.submit(spec={"graph": graph}) for _ in range(3)]
    after = harness.submit()
    for job_id in failed:
        row = harness.wait(job_id)
        assert (row.state, row.attempts) == (State.FAILED, 0)
        assert row.error is not None
        assert row.error["error"]["code"] == "internal_error"
    assert harness.wait(after).state is State.COMPLETED
    assert engine.submitted == [after]


@pytest.mark.parametrize("fault", ["500 but taken", "taken but no answer"])
def test_an_accepted_job_is_not_sent_again_after_an_error_reply(
    harness: Harness, engine: FakeEngine, fault: Any
) -> None:
    engine.prompt_fault, engine.seconds = fault, 0.3
    job_id = harness.submit()
    assert harness.wait(job_id).state is State.COMPLETED
    assert engine.submitted == [job_id]


def test_a_500_for_a_completed_job_does_not_fail_it(harness: Harness, engine: FakeEngine) -> None:
    engine.prompt_fault, engine.sends_no_events, engine.delay = "500 but taken", True, 0.3
    assert harness.wait(harness.submit()).state is State.COMPLETED
    assert len(engine.submitted) == 1


def test_jobs_wait_in_order_while_the_engine_does_not_answer(harness: Harness, engine: FakeEngine) -> None:
    engine.stop()
    ids = [harness.submit() for _ in range(4)]
    assert {harness.row(job_id).state for job_id in ids} == {State.QUEUED}
    engine.start()
    for job_id in ids:
        row = harness.wait(job_id)
        assert (row.state, row.attempts) == (State.COMPLETED, 0)
        # The job never left the queue.
        assert harness.event_names(job_id).count("queued") == 1
    assert engine.started == engine.submitted == ids


def test_a_recorded_job_is_accepted_even_if_sending_it_fails(harness: Harness, engine: FakeEngine) -> None:
    engine.stop()
    assert harness.wait(harness.submit(spec={"uploads": {"gone.png": "dream-layer"}})).state is State.FAILED


def test_a_job_that_cannot_be_sent_does_not_block_the_others(harness: Harness, engine: FakeEngine) -> None:
    engine.stop()
    first, broken = harness.submit(), harness.submit(spec={"uploads": {"gone.png": "dream-layer"}})
    others = [harness.submit() for _ in range(2)]
    # Meanwhile, the runner tries to send them.
    time.sleep(0.6)
    engine.start()
    assert harness.wait(broken).state is State.FAILED
    assert [harness.wait(job_id, seconds=8).state for job_id in [first, *others]] == [State.COMPLETED] * 3


def test_an_upload_reaches_the_engine_with_its_job(harness: Harness, engine: FakeEngine) -> None:
    harness.files.uploads.write("kept.png", b"png")
    job_id = harness.submit(spec={"uploads": {"kept.png": "dream-layer"}})
    assert harness.wait(job_id).state is State.COMPLETED
    assert engine.uploaded == {"dream-layer/kept.png": b"png"}


def test_the_engine_never_has_more_jobs_than_the_window(
    harness: Harness, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(active_jobs, "WINDOW", 4)
    engine.seconds = BLOCKED
    ids = [harness.submit() for _ in range(16)]
    engine.seconds = 0.03
    assert [harness.wait(job_id).state for job_id in ids] == [State.COMPLETED] * 16
    assert engine.started == engine.submitted == ids
    assert engine.max_jobs == 4


@pytest.mark.parametrize("index", [0, 1, 3], ids=["running", "in-the-engine's-queue", "not-sent-yet"])
def test_a_cancellation_affects_one_job_in_any_phase(
    harness: Harness, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    monkeypatch.setattr(active_jobs, "WINDOW", 2)
    engine.seconds = BLOCKED
    ids = [harness.submit() for _ in range(4)]
    wait_until_running(engine, ids[0])
    assert harness.runner.cancel(ids[index])
    if index < 2:
        wait_for(lambda: engine.cancelled, "the cancellation did not reach the engine")
    engine.seconds = 0.2
    row = harness.row(ids[index])
    assert row.state is State.CANCELLED
    assert row.error is not None
    assert row.error["error"] == {"code": "cancelled", "job_id": row.id}
    assert harness.event_names(row.id)[-1] == "cancelled"
    assert not harness.runner.cancel(ids[index])
    others = [harness.wait(job_id) for job_id in ids if job_id != row.id]
    assert [other.state for other in others] == [State.COMPLETED] * 3
    # The engine gets no cancellation of a job that it never received.
    assert set(engine.cancelled) == ({row.id} if index < 2 else set())
    assert (row.id in engine.submitted) == (index < 2)
    wait_for(lambda: len(engine.saved()) == 6, "pictures of the cancelled job remain")


def test_a_service_that_stops_after_a_cancellation_cancels_the_job_in_the_engine(
    harness: Harness, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.seconds = BLOCKED
    job_id = harness.submit()
    wait_until_running(engine, job_id)
    # As if the job ended before the thread could reconcile.
    monkeypatch.setattr(harness.runner, "_reconcile", lambda: None)
    assert harness.runner.cancel(job_id)
    harness.runner.stop()
    # The thread may have been reconciling at that moment, and may have cancelled the job as well.
    assert set(engine.cancelled) == {job_id}


@pytest.mark.slow
def test_a_cancelled_job_is_not_completed_even_if_it_ends_at_that_moment(harness: Harness, engine: FakeEngine) -> None:
    engine.seconds = 0.02
    outcomes, delay = set(), 0.03
    for _ in range(40):
        job_id = harness.submit()
        time.sleep(delay)
        cancelled = harness.runner.cancel(job_id)
        assert harness.row(job_id).state is (State.CANCELLED if cancelled else State.COMPLETED)
        outcomes.add(cancelled)
        # Approach the moment at which jobs end on this machine, and stay near it.
        delay *= 1.2 if cancelled else 1 / 1.2
    wait_for(lambda: engine.running is None and not harness.runner._active_jobs, "a job is still active")
    assert outcomes == {True, False}


def test_a_job_cancelled_while_the_engine_does_not_answer_is_never_sent(harness: Harness, engine: FakeEngine) -> None:
    engine.stop()
    cancelled, other = harness.submit(), harness.submit()
    assert harness.runner.cancel(cancelled)
    engine.start()
    assert harness.wait(other).state is State.COMPLETED
    assert engine.submitted == [other]


def test_previews_become_small_jpegs(harness: Harness, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((512, 384), 50).save(buffer, "PNG")
    engine.preview, engine.seconds = buffer.getvalue(), 4
    job_id = harness.submit(spec={"previews": True})
    previews = [harness.store.last_event(job_id, "preview")]

    def has_preview() -> bool:
        previews.append(harness.store.last_event(job_id, "preview"))
        return previews[-1] is not None

    wait_for(has_preview, "no preview")
    engine.seconds = 0.05
    preview = previews[-1]
    assert preview is not None
    kind, _, content = preview.data["image"].partition(",")
    assert kind == "data:image/jpeg;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    assert (picture.format, picture.size) == ("JPEG", (256, 192))


def test_a_job_without_previews_gets_none(harness: Harness, engine: FakeEngine) -> None:
    engine.seconds = 6
    plain = harness.submit()
    # A preview follows the progress of its step.
    wait_for(lambda: harness.event_names(plain).count("progress") >= 2, "no progress")
    assert harness.store.last_event(plain, "preview") is None
