"""The jobs that one process follows, and which of them are to be sent next."""

from __future__ import annotations

import threading
import time

from shared.jobs.active import Active

# As many jobs stand in the engine's own queue: enough that it never waits for us, few enough to ask for often.
WINDOW = 64


class Roster:
    """The jobs that are followed. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: dict[str, Active] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._active)

    def enter(self, each: Active) -> bool:
        """Follows a job; whether it is the caller's to send at once, which it is never past one that waits."""
        with self._lock:
            room = len(self._active) < WINDOW and not self._closed
            each.sending = room and not any(other.waits for other in self._active.values())
            self._active[each.row.id] = each
            return each.sending

    def close(self, patience: float) -> None:
        """Lets nobody send any more, and waits for those who are at it: at most `patience` seconds."""
        with self._lock:
            self._closed = True
        deadline = time.monotonic() + patience
        while any(each.sending for each in self.in_order()) and time.monotonic() < deadline:
            time.sleep(0.01)

    def adopt(self, each: Active) -> None:
        """Follows a job that another process sent."""
        with self._lock:
            self._active[each.row.id] = each

    def leave(self, each: Active) -> bool:
        """Follows a job no more; whether others may have waited for its place in the window."""
        with self._lock:
            each.gone = True
            self._active.pop(each.row.id, None)
            return len(self._active) >= WINDOW

    def get(self, job_id: str) -> Active | None:
        """The job of that id, if it is followed."""
        with self._lock:
            return self._active.get(job_id)

    def in_order(self) -> list[Active]:
        """All jobs, in the order of their arrival."""
        with self._lock:
            return sorted(self._active.values(), key=lambda each: each.row.number)

    def next_to_send(self) -> Active | None:
        """The first that waits, if the window has room for it: it is the caller's to send."""
        with self._lock:
            waiting = [each for each in self._active.values() if each.waits]
            if not waiting or self._closed or len(self._active) - len(waiting) >= WINDOW:
                return None
            first = min(waiting, key=lambda each: each.row.number)
            first.sending = True
            return first
