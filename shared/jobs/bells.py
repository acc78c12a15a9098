"""Wakes those who wait for news of a job, in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Bells:
    """One bell for each job that somebody waits for. Ringing a bell that nobody hears does nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard: dict[str, set[threading.Event]] = {}

    @contextmanager
    def hear(self, job_id: str) -> Iterator[threading.Event]:
        """An event that is set each time the job's bell is rung; who waited clears it."""
        bell = threading.Event()
        with self._lock:
            self._heard.setdefault(job_id, set()).add(bell)
        try:
            yield bell
        finally:
            with self._lock:
                self._heard[job_id].discard(bell)
                if not self._heard[job_id]:
                    del self._heard[job_id]

    def ring(self, job_id: str) -> None:
        """Wakes all who wait for news of this job."""
        with self._lock:
            for bell in self._heard.get(job_id, ()):
                bell.set()
