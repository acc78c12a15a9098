"""Estimates of the remaining time of a job, from its own progress and from other jobs."""

import json
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.engine.websocket import JobCached, JobProgress, JobStarted
from shared.jobs.active_jobs import JobPhase, TrackedJob
from shared.jobs.estimate import ProgressEstimator, sampler_work, seconds_left
from shared.jobs.job import JobSpec, JobUpdate, NewJob, State, UnfinishedWork
from tests.control import Control, body
from tests.fake_engine import FakeEngine
from tests.harness import OpenHarness, new_job, wait_for

GOLDEN = Path(__file__).parent / "golden"
# The job is at its last step 538 s after its start; earlier jobs took ten times as long for the same work.
STEPS, RAN, SLOW = 20, 538.0, 5866.0


def golden(name: str) -> dict[str, Any]:
    graph: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))
    return graph


def test_the_work_of_a_sampler_is_its_pixels_times_its_steps() -> None:
    small, large = 512 * 512 * 12.0, 1024 * 1024 * 6.0
    expected = {"KSampler": small, "KSampler_2": large, "KSampler_3": small, "KSampler_4": large}
    assert sampler_work(golden("hires_batch"), None) == expected
    # The graph does not contain the size of an uploaded picture.
    assert set(sampler_work(golden("img2img"), 100.0).values()) == {
        100.0 * golden("img2img")["KSampler"]["inputs"]["steps"]
    }
    assert sampler_work(golden("extras_one"), None) == {}


def test_base_and_refiner_share_the_steps() -> None:
    graph = golden("refiner")
    shares = [node["inputs"] for node in graph.values() if node["class_type"] == "KSamplerAdvanced"]
    total = shares[0]["steps"] * 512 * 512
    assert sum(sampler_work(graph, None).values()) == total
    assert len(shares) == 2


@pytest.mark.parametrize(
    "graph",
    [
        {}, {"a": None}, {"a": {"class_type": "KSampler"}}, {"a": {"class_type": "KSampler", "inputs": None}},
        {"a": {"class_type": "KSampler", "inputs": {"steps": ["a", 0], "latent_image": ["a", 0], "width": "x"}}},
        {"a": {"class_type": "SamplerCustom", "inputs": {"sigmas": ["lost", 0], "latent_image": ["lost", 0]}}},
    ],
)  # fmt: skip
def test_unusual_graphs_are_estimated_without_errors(graph: dict[str, Any]) -> None:
    estimator = ProgressEstimator(graph, None)
    assert estimator.step("a", 1, 4, 10.0) is None
    assert estimator.step("b", 2, 4, 20.0) is None
    assert estimator.step("a", 2, 4, 20.0) == (pytest.approx(40.0) if graph.get("a") else None)


def test_progress_is_measured_from_the_first_step() -> None:
    sampler = {"class_type": "KSampler", "inputs": {"steps": 10, "latent_image": ["Size", 0]}}
    graph = {"Size": {"inputs": {"width": 64, "height": 64}}, "A": sampler, "B": sampler}
    estimator = ProgressEstimator(graph, None)
    # Loading took 100 s, which does not count.
    assert estimator.step("A", 1, 10, 100.0) is None
    assert estimator.step("A", 2, 10, 102.0) == pytest.approx(102.0 + 2 * 18)
    assert estimator.step("Decode", 1, 2, 103.0) is None
    assert estimator.step("A", 10, 10, 118.0) == pytest.approx(118.0 + 2 * 10)
    # The second sampler runs, so the first is finished.
    assert estimator.step("B", 10, 10, 138.0) == pytest.approx(138.0)


def test_samplers_that_do_not_run_are_not_counted() -> None:
    def sampler(latent: str) -> dict[str, Any]:
        return {"class_type": "KSampler", "inputs": {"steps": 10, "latent_image": [latent, 0]}}

    graph = {
        "Size": {"inputs": {"width": 64, "height": 64}},
        "A": sampler("Size"),
        "B": sampler("A"),
        "C": sampler("B"),
        "Save": {"inputs": {"images": ["C", 0]}},
    }
    for cached, remaining in ((("Size", "A"), 8 + 10), (("Size", "A", "B"), 8), (("B",), 8)):
        estimator = ProgressEstimator(graph, None, cached)
        # The first sampler that runs is B or C.
        node = "C" if "B" in cached else "B"
        assert estimator.step(node, 1, 10, 100.0) is None
        assert estimator.step(node, 2, 10, 101.0) == pytest.approx(101.0 + remaining)


def test_cached_nodes_reach_the_estimate(
    open_harness: OpenHarness, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = {**new_job().spec.graph, "Cached": {"class_type": "KSampler", "inputs": {"steps": 4000}}}
    active = TrackedJob(open_harness().store.add(new_job(spec={"graph": graph}), "me", 9)[0], phase=JobPhase.SENT)
    clock = iter((100.0, 101.0))
    active.observe(JobStarted(active.row.id))
    active.observe(JobCached(active.row.id, frozenset({"Cached"})))
    with monkeypatch.context() as patch:
        patch.setattr("shared.jobs.active_jobs.time.time", lambda: next(clock))
        active.observe(JobProgress(active.row.id, "KSampler", 1, 4))
        active.observe(JobProgress(active.row.id, "KSampler", 2, 4))
    update = active.update()
    assert update is not None
    assert update.events[-1][1]["ends_at"] == 103.0


def test_an_estimate_needs_a_measured_job() -> None:
    assert seconds_left([], UnfinishedWork("m", 1.0, None), [], now=0.0) is None


def test_an_estimate_is_work_times_the_median_rate_of_its_model() -> None:
    measured = [("m", 1.0, 2.0), ("m", 2.0, 2.0), ("m", 1.0, 90.0), ("other", 1.0, 7.0)]
    assert seconds_left([], UnfinishedWork("m", 10.0, None), measured, now=0.0) == 20.0
    assert seconds_left([], UnfinishedWork("other", 10.0, None), measured, now=0.0) == 70.0
    assert seconds_left([], UnfinishedWork("new", 10.0, None), measured, now=0.0) == 45.0
    ahead = [UnfinishedWork("m", 10.0, 95.0), UnfinishedWork("m", 1.0, 5.0)]
    # The first has 15 of its 20 seconds to go; the second should have ended long ago.
    assert seconds_left(ahead, UnfinishedWork("m", 10.0, None), measured, now=100.0) == 35.0
    assert seconds_left([], UnfinishedWork("m", 1.0, None), [("m", 0.0, 5.0)], now=0.0) == 0.0


def test_own_progress_takes_precedence_over_other_jobs() -> None:
    measured = [("m", 1.0, 100.0)]
    running = UnfinishedWork("m", 1.0, 0.0, ends_at=12.0)
    assert seconds_left([], running, measured, now=10.0) == 2.0
    assert seconds_left([], running, measured, now=20.0) == 0.0
    assert seconds_left([], running, [], now=10.0) == 2.0
    # Without other measurements, it also applies to the jobs behind it.
    assert seconds_left([running], UnfinishedWork("m", 2.0, None), [], now=10.0) == 2.0 + 24.0
    assert seconds_left([running], UnfinishedWork("m", 1.0, None), [("m", 1.0, 12.0)], now=10.0) == 2.0 + 12.0


def running_job(control: Control, ends_in: float) -> tuple[str, str]:
    """Return the ids of a job at its last step and of the next job. An earlier job took far longer."""
    store = control.backend.jobs.store
    ids = [str(uuid.uuid4()) for _ in range(3)]
    spec = JobSpec(parameters={"seed": 1})
    rows = [store.add(NewJob(job_id, "txt2img", "", "txt2img", spec, "m", 1.0), "me", 9)[0] for job_id in ids]
    store.finish(rows[0], "me", State.COMPLETED, started=time.time() - SLOW)
    started = time.time() - RAN
    progress = {"stage": "KSampler", "step": STEPS, "steps": STEPS, "ends_at": time.time() + ends_in}
    store.save("me", [JobUpdate(ids[1], started, [("started", {"attempt": 1}), ("progress", progress)])])
    return ids[1], ids[2]


def test_a_job_at_its_last_step_is_nearly_done(control: Control) -> None:
    job, behind = running_job(control, ends_in=30.0)
    reply = body(control.client.get(f"/api/jobs/{job}"))
    assert reply["position"] == 0
    assert 0 <= reply["eta_s"] <= 30
    waiting = body(control.client.get(f"/api/jobs/{behind}"))
    assert waiting["position"] == 1
    # The median of the slow job and this one, after the rest of this one.
    assert waiting["eta_s"] < (SLOW + RAN + 30) / 2 + 31


def test_a_stream_reports_the_estimated_end(control: Control) -> None:
    job, _ = running_job(control, ends_in=600.0)
    control.backend.jobs.store.cancel(job, {"message": "x", "error": {"code": "cancelled"}})
    stream = control.client.get(f"/api/jobs/{job}/events").text
    (progress,) = [part for part in stream.split("\n\n") if "event: progress" in part]
    reply = json.loads(progress.partition("data: ")[2])
    assert 0 < reply["eta_s"] <= 600


def test_a_lost_attempt_does_not_affect_the_next_estimate(control: Control) -> None:
    job, _ = running_job(control, ends_in=600.0)
    store = control.backend.jobs.store
    row = store.get(job)
    assert row is not None
    assert store.ends_at(job) is not None
    store.requeue("me", [(row, 1)])
    assert 4000 < body(control.client.get(f"/api/jobs/{job}"))["eta_s"] < SLOW + 1
    store.save("me", [JobUpdate(job, time.time(), [("started", {"attempt": 2})])])
    assert store.ends_at(job) is None
    sampler = {"K": {"class_type": "KSampler", "inputs": {"steps": 4}}}
    row = replace(row, spec=replace(row.spec, graph=sampler))
    active = TrackedJob(row, phase=JobPhase.SENT)
    for step in (1, 2):
        active.observe(JobProgress(job, "K", step, 4))
    update = active.update()
    assert update is not None
    assert "ends_at" in update.events[-1][1]
    active.reset(2)
    active.phase = JobPhase.SENT
    active.observe(JobProgress(job, "K", 1, 4))
    update = active.update()
    assert update is not None
    assert "ends_at" not in update.events[-1][1]


@pytest.mark.slow
def test_the_engines_steps_are_measured(engine: FakeEngine, open_harness: OpenHarness) -> None:
    harness, engine.seconds = open_harness(), 3.0
    earlier, _ = harness.store.add(new_job(), "another", 9)
    harness.store.finish(earlier, "another", State.COMPLETED, started=time.time() - SLOW)
    harness.start()
    job = harness.submit()
    wait_for(lambda: harness.store.ends_at(job) is not None, "the progress is not measured")
    row = harness.row(job)
    own = UnfinishedWork(row.model, row.work, row.started, harness.store.ends_at(job))
    remaining = seconds_left([], own, harness.store.measured(9), time.time())
    assert remaining is not None
    assert remaining < 60
    harness.wait(job)
