"""A memory budget for the pictures that a process decodes and encodes at the same time."""

import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from shared.errors import BodyTooLarge, Busy

# Seconds that a request waits for memory.
PATIENCE = 10.0
MEGABYTE = 1_000_000


class MemoryBudget:
    """`limit` bytes for the pictures of all requests; `setting` names the setting that raises it. Thread-safe."""

    def __init__(self, limit: int, setting: str, patience: float = PATIENCE) -> None:
        self._limit = limit
        self._setting = setting
        self._patience = patience
        self._used = 0
        # A condition's lock is reentrant: the garbage collector may free a picture while this thread holds the lock.
        self._changed = threading.Condition()

    @property
    def limit(self) -> int:
        """The bytes of the whole budget."""
        return self._limit

    @property
    def setting(self) -> str:
        """The name of the setting that raises the limit."""
        return self._setting

    @property
    def used(self) -> int:
        """The bytes that are reserved now."""
        return self._used

    @contextmanager
    def reserve(self, size: int, field: str) -> Iterator[None]:
        """Reserve `size` bytes for the body of the `with` statement.

        Raises BodyTooLarge if the whole budget is too small, and Busy if other pictures use too much of it for long.
        """
        if size > self._limit:
            raise BodyTooLarge(
                f"{field} needs {size // MEGABYTE} MB of memory, more than the {self._limit // MEGABYTE} MB for all "
                "pictures",
                field=field,
                hint=f"scale it down or save it as PNG; the operator of this service can raise {self._setting}",
            )
        self._take(size, field)
        try:
            yield
        finally:
            self._release(size)

    def hold(self, image: Image.Image, size: int) -> None:
        """Reserve `size` bytes until `image` is garbage-collected. Call it within `reserve`, which makes room."""
        with self._changed:
            self._used += size
        weakref.finalize(image, self._release, size).atexit = False

    def _take(self, size: int, field: str) -> None:
        deadline = time.monotonic() + self._patience
        with self._changed:
            while self._used + size > self._limit:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Busy(
                        f"{field} has to wait: other large pictures use the memory",
                        hint="try again later or send a smaller picture; "
                        f"the operator of this service can raise {self._setting}",
                        retry_after=10,
                    )
                self._changed.wait(left)
            self._used += size

    def _release(self, size: int) -> None:
        with self._changed:
            self._used -= size
            self._changed.notify_all()
