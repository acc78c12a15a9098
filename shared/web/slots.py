"""Slots for requests that hold a thread of the server for long: there are fewer of them than threads."""

from __future__ import annotations

import threading

from shared.errors import Busy


class Slot:
    """A place that somebody holds, to be given back."""

    def __init__(self, places: threading.Semaphore) -> None:
        self._places = places
        self._lock = threading.Lock()
        self._held = True

    def release(self) -> None:
        """Gives the place back; a second time does nothing."""
        with self._lock:
            held, self._held = self._held, False
        if held:
            self._places.release()


class Slots:
    """So many places; `taken` says in words what holds them, `setting` names what gives more."""

    def __init__(self, count: int, taken: str, setting: str) -> None:
        self._count = count
        self._taken = taken
        self._setting = setting
        self._free = threading.Semaphore(count)

    def take(self) -> Slot:
        """A place; raises Busy at once when all are taken."""
        if not self._free.acquire(blocking=False):
            raise Busy(
                f"{self._count} {self._taken} already",
                hint=f"send `Prefer: respond-async` and look at the job later, or raise {self._setting}",
                retry_after=10,
            )
        return Slot(self._free)
