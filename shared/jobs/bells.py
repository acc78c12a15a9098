"""Wakes those who wait for news of a job, in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from shared.jobs.tables import JobRow


class Bell:
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

    def ring(self, row: JobRow | None) -> None:
        """There is news; `row` is the job if it has ended."""
        if row is not None:
            self.row = row
        self._rung.set()


class Bells:
    """One bell for each who waits for a job. Ringing for a job that nobody waits for does nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard: dict[str, set[Bell]] = {}

    @contextmanager
    def hear(self, job_id: str) -> Iterator[Bell]:
        """A bell that is rung when there is news of the job."""
        bell = Bell()
        with self._lock:
            self._heard.setdefault(job_id, set()).add(bell)
        try:
            yield bell
        finally:
            with self._lock:
                self._heard[job_id].discard(bell)
                if not self._heard[job_id]:
                    del self._heard[job_id]

    def ring(self, job_id: str, row: JobRow | None = None) -> None:
        """Wakes all who wait for news of this job; `row` is the job if it has ended."""
        with self._lock:
            for bell in self._heard.get(job_id, ()):
                bell.ring(row)
