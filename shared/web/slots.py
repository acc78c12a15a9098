"""Slots for requests that hold a thread of the server for long: there are fewer of them than threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import Busy


class Slots:
    """So many slots; `taken` says in words what holds them, `setting` names what gives more."""

    def __init__(self, count: int, taken: str, setting: str) -> None:
        self._count = count
        self._taken = taken
        self._setting = setting
        self._free = threading.Semaphore(count)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Holds a slot while inside. Raises Busy at once when all are taken."""
        if not self._free.acquire(blocking=False):
            raise Busy(
                f"{self._count} {self._taken} already",
                hint=f"send `Prefer: respond-async` and look at the job later, or raise {self._setting}",
                retry_after=10,
            )
        try:
            yield
        finally:
            self._free.release()
