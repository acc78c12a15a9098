"""When a job will be done, from what jobs of its kind took before. Pure."""

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

    `measured` are model, work and seconds of completed jobs, the newest first; `now` is in seconds since 1970. A job is
    expected to take its work times the median of seconds by work, of jobs with its model if there are any.
    """
    if not measured:
        return None
    return sum(_left(each, measured, now) for each in [*ahead, job])


def _left(job: Work, measured: Sequence[tuple[str, float, float]], now: float) -> float:
    rates = [seconds / work for model, work, seconds in measured if model == job.model and work > 0]
    if not rates:
        rates = [seconds / work for _, work, seconds in measured if work > 0] or [0.0]
    expected = statistics.median(rates) * job.work
    return expected if job.started is None else max(0.0, expected - (now - job.started))
