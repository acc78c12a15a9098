"""When a job will be done, from its own progress, or from what jobs of its kind took before. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from shared.jobs.tables import Work

# How many of the jobs completed last are looked at.
MEASURED = 50


def seconds_left(
    ahead: Sequence[Work], job: Work, measured: Sequence[tuple[str, float, float]], now: float
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


def _left(job: Work, measured: Sequence[tuple[str, float, float]], now: float) -> float:
    if job.ends_at is not None:
        return max(0.0, job.ends_at - now)
    rates = [seconds / work for model, work, seconds in measured if model == job.model and work > 0]
    if not rates:
        rates = [seconds / work for _, work, seconds in measured if work > 0] or [0.0]
    expected = statistics.median(rates) * job.work
    return expected if job.started is None else max(0.0, expected - (now - job.started))
