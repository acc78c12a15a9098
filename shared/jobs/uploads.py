"""The pictures that jobs start from, kept as long as their jobs: a restarted engine, or a retry, needs them again.

Those that were sent alone, to be named by later requests, stay without a job too.
"""

from __future__ import annotations

import os
from pathlib import Path

from shared.errors import StorageFailed
from shared.files import lies_within, write_whole
from shared.images.embedded_text import read_size

# The ending of an empty file beside an upload that stays without a job.
MARK = ".kept"
# Bytes from which the size of a PNG is read.
HEAD = 24


class Uploads:
    """A folder of files whose names stand for their content, so that writing one twice is writing it once.

    The folder may be a link; a link in it that leads out is no upload, and is written over rather than followed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, content: bytes) -> None:
        """Keeps `content`, whole or not at all, even through a power cut. Raises StorageFailed."""
        path = self._folder / name
        if not (self._is_there(path) and path.stat().st_size == len(content)):
            write_whole(path, content, "the picture")

    def read(self, name: str) -> bytes:
        """The content of `name`. Raises StorageFailed."""
        path = self._folder / name
        if os.path.lexists(path) and not lies_within(path, self._folder):
            raise StorageFailed("a picture that the job needs was replaced by a link that leads elsewhere")
        try:
            return path.read_bytes()
        except OSError as error:
            raise StorageFailed(f"a picture that the job needs cannot be read: {error.strerror}") from error

    def find(self, name: str) -> bytes | None:
        """The content of `name`, a name from outside that was checked to be a hash; None if it is not here."""
        return self.read(name) if self._is_there(self._folder / name) else None

    def dimensions(self, name: str) -> tuple[int, int] | None:
        """Width and height in pixels of the PNG `name`, checked as for `find`; None if there is none."""
        path = self._folder / name
        try:
            with path.open("rb") as file:
                return read_size(file.read(HEAD)) if self._is_there(path) else None
        except OSError:
            return None

    def keep(self, name: str, content: bytes) -> None:
        """Keeps `content` without a job: who sent it knows its name, and may send that with any later request.

        Raises StorageFailed.
        """
        self.write(name, content)
        write_whole(self._mark(name), b"", "the picture")

    def is_kept(self, name: str) -> bool:
        """Whether it stays without a job."""
        return self._mark(name).is_file()

    def kept_before(self, time: float) -> list[str]:
        """The names of all that are kept without a job since before `time`, in seconds since 1970."""
        names = [mark.name.removesuffix(MARK) for mark in self._folder.glob(f"*{MARK}")]
        return [name for name in names if self.is_kept_before(name, time)]

    def is_kept_before(self, name: str, time: float) -> bool:
        """Whether it is kept without a job, and since before `time`."""
        try:
            return self._mark(name).stat().st_mtime < time
        except FileNotFoundError:
            return False

    def release(self, name: str) -> None:
        """From now on it stays only as long as its jobs. Raises OSError."""
        self._mark(name).unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Deletes a file that no job needs any more. Raises OSError."""
        (self._folder / name).unlink(missing_ok=True)

    def _is_there(self, path: Path) -> bool:
        return path.is_file() and lies_within(path, self._folder)

    def _mark(self, name: str) -> Path:
        return self._folder / f"{name}{MARK}"
