"""When a job will be done: from its own progress, or from what similar jobs took before. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from shared.graphs import class_of, end_nodes, inputs_of, source_of, walk
from shared.jobs.job import UnfinishedWork

# How many of the jobs completed last are looked at.
MEASURED = 50


def seconds_left(
    ahead: Sequence[UnfinishedWork], job: UnfinishedWork, measured: Sequence[tuple[str, float, float]], now: float
) -> float | None:
    """Seconds until the unfinished `job` is done, after those `ahead` of it. None while nothing was measured.

    `measured` are model, work and seconds of completed jobs, the newest first; `now` is in seconds since 1970. Of a job
    that runs, its own progress tells. Any other is expected to take its work times the median of seconds by work, of
    jobs with its model if there are any, those that run included.
    """
    jobs = [*ahead, job]
    running = [
        (each.model, each.work, each.ends_at - each.started)
        for each in jobs
        if each.ends_at is not None and each.started is not None
    ]
    if not measured and not running:
        return None
    return sum(_left(each, [*running, *measured], now) for each in jobs)


def _left(job: UnfinishedWork, measured: Sequence[tuple[str, float, float]], now: float) -> float:
    if job.ends_at is not None:
        return max(0.0, job.ends_at - now)
    rates = [seconds / work for model, work, seconds in measured if model == job.model and work > 0]
    if not rates:
        rates = [seconds / work for _, work, seconds in measured if work > 0] or [0.0]
    expected = statistics.median(rates) * job.work
    return expected if job.started is None else max(0.0, expected - (now - job.started))


SAMPLERS = frozenset(("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced"))
# The inputs by which a sampler gets the latent that it works on.
LATENTS = ("latent_image", "latent")
# For a sampler of which it is not known how many steps it takes.
USUAL_STEPS = 20


class ProgressEstimator:
    """How fast a job gets on. `graph` is what the engine runs; `pixels` is the usual size of a picture of the job.

    Work is counted in pixels times steps, over all samplers of the graph that run: what is `cached` does not, and
    nothing that is needed for it alone.
    """

    def __init__(self, graph: Mapping[str, Any], pixels: float | None, cached: Collection[str] = ()) -> None:
        runs = _nodes_to_run(graph, cached)
        self._work = {name: work for name, work in sampler_work(graph, pixels).items() if name in runs}
        self._done: dict[str, float] = {}
        self._first: tuple[float, float] | None = None

    def step(self, node: str, step: int, steps: int, now: float) -> float | None:
        """Takes notice of a step of `node`; when the job will be done, in seconds on the clock of `now`.

        None for a node that does not sample, and until two steps were seen.
        """
        if node not in self._work or steps < 1:
            return None
        # A sampler begins when those before it are done.
        self._done = {each: self._work[each] for each in self._done}
        self._done[node] = self._work[node] * min(1.0, step / steps)
        done = sum(self._done.values())
        if self._first is None:
            self._first = (now, done)
        begun, done_then = self._first
        if done <= done_then:
            return None
        return now + (now - begun) / (done - done_then) * (sum(self._work.values()) - done)


def sampler_work(graph: Mapping[str, Any], pixels: float | None) -> dict[str, float]:
    """The work of each sampler in the graph, in pixels times steps, by its node id.

    A sampler whose size does not follow from the graph gets `pixels`, or else the smallest size of the others.
    """
    sizes = {name: _pixels(graph, name) for name, node in graph.items() if class_of(node) in SAMPLERS}
    usual = pixels or min((size for size in sizes.values() if size is not None), default=1.0)
    return {name: (size or usual) * _steps(graph, name) for name, size in sizes.items()}


def _nodes_to_run(graph: Mapping[str, Any], cached: Collection[str]) -> set[str]:
    """The nodes that are not cached, and that some end of the graph needs although others are cached."""
    uncached = {name: node for name, node in graph.items() if name not in cached}
    return set(walk(uncached, end_nodes(graph)))


def _pixels(graph: Mapping[str, Any], sampler: str) -> float | None:
    starts = [source for key in LATENTS if (source := source_of(graph, sampler, key)) is not None]
    inputs = _nearest(graph, starts, ("width", "height"))
    return None if inputs is None else float(inputs["width"] * inputs["height"])


def _steps(graph: Mapping[str, Any], sampler: str) -> float:
    inputs = _nearest(graph, [sampler], ("steps",))
    if inputs is None:
        return USUAL_STEPS
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
