"""Notifications of changes of jobs, within a process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from shared.jobs.job import JobRow


class Subscription:
    """A subscriber's view of one job."""

    def __init__(self) -> None:
        self.row: JobRow | None = None
        """The finished job, if this process finished it; it need not be read from the database."""
        self._notified = threading.Event()

    def wait(self, timeout: float) -> bool:
        """Wait for a notification, at most `timeout` seconds; whether there was one since the last call."""
        notified = self._notified.wait(timeout)
        self._notified.clear()
        return notified

    def notify(self, row: JobRow | None) -> None:
        """Wake the subscriber; `row` is the job if it is finished."""
        if row is not None:
            self.row = row
        self._notified.set()


class JobNotifier:
    """The subscriptions of a process, by job. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscriptions: dict[str, set[Subscription]] = {}

    @contextmanager
    def subscribe(self, job_id: str) -> Iterator[Subscription]:
        """A context manager that returns a subscription to the job, and cancels it at its end."""
        subscription = Subscription()
        with self._lock:
            self._subscriptions.setdefault(job_id, set()).add(subscription)
        try:
            yield subscription
        finally:
            with self._lock:
                self._subscriptions[job_id].discard(subscription)
                if not self._subscriptions[job_id]:
                    del self._subscriptions[job_id]

    def notify(self, job_id: str, row: JobRow | None = None) -> None:
        """Wake all subscribers of the job; `row` is the job if it is finished."""
        with self._lock:
            for subscription in self._subscriptions.get(job_id, ()):
                subscription.notify(row)
