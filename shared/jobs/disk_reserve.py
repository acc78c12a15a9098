"""Reserved disk space, so that jobs can still be cancelled and deleted when the disk is full.

A database needs space even to delete a row: SQLite first writes the change to its journal. The reserve is a file next
to the database, and a large row in it for its pages. Both are released when a write fails, and never used to accept
jobs.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import sqlalchemy as sa

from shared.files import free_bytes
from shared.jobs.database import about

# The file's size is LARGEST bytes, but at most a DISK_PART-th of the disk.
LARGEST, DISK_PART = 8_000_000, 8
# The journal grows up to a JOURNAL_PART-th of the file before SQLite moves it into the database. That move needs as
# much space from the reserve on a full disk. Afterwards SQLite reuses the journal's file.
JOURNAL_PART = 4
PAGE_BYTES = 4096
# Characters of the row, enough for the pages of a few dozen events.
ROW = 100_000
KEY = "reserve"

TAKE_ROW = about.delete().where(about.c.key == KEY)
HAS_ROW = sa.select(about.c.key).where(about.c.key == KEY)
PUT_ROW = about.insert().values(key=KEY, value="0" * ROW)


class Reserve:
    """The reserve file next to a database. Processes that share the database share the file."""

    def __init__(self, database: Path) -> None:
        self.folder = database.parent
        self._path = database.with_name(f"{database.name}-reserve")

    @property
    def journal_pages(self) -> int:
        """The number of pages up to which SQLite's journal should grow."""
        return max(1, self._size() // JOURNAL_PART // PAGE_BYTES)

    def _size(self) -> int:
        try:
            return min(LARGEST, shutil.disk_usage(self.folder).total // DISK_PART)
        except OSError:
            return LARGEST

    def fill(self) -> bool:
        """Create the file, unless it exists or takes more than half of the free space. Returns whether it exists."""
        try:
            if self._path.exists():
                return True
            size = self._size()
            if shutil.disk_usage(self.folder).free < 2 * size:
                return False
            # Random bytes, which no file system can compress.
            with self._path.open("xb") as file:
                file.write(os.urandom(size))
        except FileExistsError:
            return True
        except OSError:
            self._path.unlink(missing_ok=True)
            return False
        return True

    def release(self) -> None:
        """Remove the file."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            return

    def is_disk_full(self, error: BaseException | None) -> bool:
        """Whether an error of SQLite means that the disk is full: by its message, or by the free space."""
        text = str(error)
        if "disk is full" in text:
            return True
        # SQLite reports only this if there is no room for the files next to the database.
        free = free_bytes(self.folder)
        return ("disk I/O" in text or "unable to open" in text) and free is not None and free < ROW
