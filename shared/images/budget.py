"""How much memory pictures may take together while a process decodes and encodes them."""

import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from shared.errors import BodyTooLarge, Busy

# Seconds that a picture waits for others to be done with.
PATIENCE = 10.0
MEGABYTE = 1_000_000


class MemoryBudget:
    """So many bytes, shared by all requests; `setting` names what gives more. Safe to use from several threads."""

    def __init__(self, limit: int, setting: str, patience: float = PATIENCE) -> None:
        self._limit = limit
        self._setting = setting
        self._patience = patience
        self._taken = 0
        # Reentrant, for a picture may be freed at any moment, in the midst of our own work too.
        self._changed = threading.Condition()

    @property
    def limit(self) -> int:
        """Bytes that there are in all."""
        return self._limit

    @property
    def setting(self) -> str:
        """The name of the setting that gives more."""
        return self._setting

    @property
    def taken(self) -> int:
        """Bytes that are in use now."""
        return self._taken

    @contextmanager
    def admit(self, size: int, field: str) -> Iterator[None]:
        """Work that takes `size` bytes until it is done.

        Raises BodyTooLarge for more than there can ever be, and Busy where others need too much of it for long.
        """
        if size > self._limit:
            raise BodyTooLarge(
                f"{field} needs {size // MEGABYTE} MB to be decoded, of {self._limit // MEGABYTE} MB for all pictures",
                field=field,
                hint=f"scale it down, or save it as PNG; whoever runs this service can raise {self._setting}",
            )
        self._take(size, field)
        try:
            yield
        finally:
            self._release(size)

    def hold(self, image: Image.Image, size: int) -> None:
        """Counts `size` bytes for as long as `image` is there. To be called within `admit`, which has room for it."""
        with self._changed:
            self._taken += size
        weakref.finalize(image, self._release, size).atexit = False

    def _take(self, size: int, field: str) -> None:
        deadline = time.monotonic() + self._patience
        with self._changed:
            while self._taken + size > self._limit:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Busy(
                        f"too many large pictures are being read or written for {field} to have room",
                        hint="try again later, or with a smaller picture; "
                        f"whoever runs this service can raise {self._setting}",
                        retry_after=10,
                    )
                self._changed.wait(left)
            self._taken += size

    def _release(self, size: int) -> None:
        with self._changed:
            self._taken -= size
            self._changed.notify_all()
