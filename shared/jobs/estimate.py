"""Estimates of when a job will be done: from its own progress, or from how long similar jobs took. Pure.

Work is measured in pixels times steps.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from shared.graph_walk import class_of, end_nodes, inputs_of, source_of, walk
from shared.jobs.job import UnfinishedWork

# The number of completed jobs whose durations are used, newest first.
MEASURED_JOBS = 50
SAMPLERS = frozenset(("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced"))
# A sampler's inputs for its latent.
LATENT_INPUTS = ("latent_image", "latent")
# For a sampler whose number of steps is unknown.
DEFAULT_STEPS = 20


def seconds_left(
    ahead: Sequence[UnfinishedWork], job: UnfinishedWork, measured: Sequence[tuple[str, float, float]], now: float
) -> float | None:
    """Seconds until `job` is done, after the unfinished jobs `ahead` of it; None if there is nothing to estimate from.

    `measured` has model, work and seconds of completed jobs, newest first; `now` is in seconds since 1970. A job that
    makes progress ends when its own estimate says. Any other takes its work times the median of seconds per unit of
    work, over the jobs with the same model, or over all if there are none; jobs in progress count too.
    """
    jobs = [*ahead, job]
    in_progress = [
        (other.model, other.work, other.ends_at - other.started)
        for other in jobs
        if other.ends_at is not None and other.started is not None
    ]
    if not measured and not in_progress:
        return None
    return sum(_job_seconds_left(other, [*in_progress, *measured], now) for other in jobs)


def _job_seconds_left(job: UnfinishedWork, measured: Sequence[tuple[str, float, float]], now: float) -> float:
    if job.ends_at is not None:
        return max(0.0, job.ends_at - now)
    rates = [seconds / work for model, work, seconds in measured if model == job.model and work > 0]
    if not rates:
        rates = [seconds / work for _, work, seconds in measured if work > 0] or [0.0]
    expected = statistics.median(rates) * job.work
    return expected if job.started is None else max(0.0, expected - (now - job.started))


class ProgressEstimator:
    """Estimates a job's end from the steps of its samplers. `graph` is what the engine runs.

    `pixels` is the size of a sampler whose size does not follow from the graph. Nodes whose output is `cached`, and
    nodes that only those need, do not run and do not count.
    """

    def __init__(self, graph: Mapping[str, Any], pixels: float | None, cached: Collection[str] = ()) -> None:
        nodes = _nodes_to_run(graph, cached)
        self._work = {name: work for name, work in sampler_work(graph, pixels).items() if name in nodes}
        self._done: dict[str, float] = {}
        self._first: tuple[float, float] | None = None

    def step(self, node: str, step: int, steps: int, now: float) -> float | None:
        """Record a step of `node` at the time `now`, and return the estimated end, on the same clock.

        None for a node that does not sample, and before the second step.
        """
        if node not in self._work or steps < 1:
            return None
        # A sampler starts once the samplers before it are done.
        self._done = {earlier: self._work[earlier] for earlier in self._done}
        self._done[node] = self._work[node] * min(1.0, step / steps)
        done = sum(self._done.values())
        if self._first is None:
            self._first = (now, done)
        first_time, first_done = self._first
        if done <= first_done:
            return None
        return now + (now - first_time) / (done - first_done) * (sum(self._work.values()) - done)


def sampler_work(graph: Mapping[str, Any], pixels: float | None) -> dict[str, float]:
    """The work of each sampler in the graph, in pixels times steps, by its node id.

    A sampler whose size does not follow from the graph gets `pixels`, or else the smallest size of the others.
    """
    sizes = {name: _pixels(graph, name) for name, node in graph.items() if class_of(node) in SAMPLERS}
    default = pixels or min((size for size in sizes.values() if size is not None), default=1.0)
    return {name: (size or default) * _steps(graph, name) for name, size in sizes.items()}


def _nodes_to_run(graph: Mapping[str, Any], cached: Collection[str]) -> set[str]:
    """The nodes that are not cached, and that some end of the graph needs although others are cached."""
    uncached = {name: node for name, node in graph.items() if name not in cached}
    return set(walk(uncached, end_nodes(graph)))


def _pixels(graph: Mapping[str, Any], sampler: str) -> float | None:
    starts = [source for key in LATENT_INPUTS if (source := source_of(graph, sampler, key)) is not None]
    inputs = _nearest(graph, starts, ("width", "height"))
    return None if inputs is None else float(inputs["width"] * inputs["height"])


def _steps(graph: Mapping[str, Any], sampler: str) -> float:
    inputs = _nearest(graph, [sampler], ("steps",))
    if inputs is None:
        return DEFAULT_STEPS
    # KSamplerAdvanced may run a part of the steps.
    first, last = inputs.get("start_at_step", 0), inputs.get("end_at_step", inputs["steps"])
    if not isinstance(first, int) or not isinstance(last, int):
        return float(inputs["steps"])
    return float(max(1, min(last, inputs["steps"]) - first))


def _nearest(graph: Mapping[str, Any], starts: list[str], keys: tuple[str, ...]) -> Mapping[str, Any] | None:
    """The inputs of the nearest node upstream of `starts`, or among them, with positive whole numbers for `keys`."""
    nodes = (inputs_of(graph[name]) for name in walk(graph, starts))
    return next((inputs for inputs in nodes if all(_is_positive(inputs.get(key)) for key in keys)), None)


def _is_positive(value: Any) -> bool:
    return type(value) is int and value > 0
