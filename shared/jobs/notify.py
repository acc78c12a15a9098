"""Wakes those who wait for news of a job, in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from shared.jobs.job import JobRow


class Subscription:
    """What one listener hears of one job."""

    def __init__(self) -> None:
        self.row: JobRow | None = None
        """The job after its end, if that was rung here: it need not be looked up."""
        self._rung = threading.Event()

    def wait(self, timeout: float) -> bool:
        """Whether there is news since it was asked last; waits for some, for at most `timeout` seconds."""
        rung = self._rung.wait(timeout)
        self._rung.clear()
        return rung

    def notify(self, row: JobRow | None) -> None:
        """There is news; `row` is the job if it has ended."""
        if row is not None:
            self.row = row
        self._rung.set()


class JobNotifier:
    """One subscription for each who waits for a job. Ringing for a job that nobody waits for does nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard: dict[str, set[Subscription]] = {}

    @contextmanager
    def subscribe(self, job_id: str) -> Iterator[Subscription]:
        """A subscription that is rung when there is news of the job."""
        subscription = Subscription()
        with self._lock:
            self._heard.setdefault(job_id, set()).add(subscription)
        try:
            yield subscription
        finally:
            with self._lock:
                self._heard[job_id].discard(subscription)
                if not self._heard[job_id]:
                    del self._heard[job_id]

    def notify(self, job_id: str, row: JobRow | None = None) -> None:
        """Wakes all who wait for news of this job; `row` is the job if it has ended."""
        with self._lock:
            for subscription in self._heard.get(job_id, ()):
                subscription.notify(row)
