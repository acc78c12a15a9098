"""Room that is kept for the day when the disk is full: jobs can still be cancelled and removed then.

A database needs room even to delete a row: SQLite writes what changes into its journal first. So a file beside the
database takes some room while there is any, and is given up when a write fails. Inside of the database a row does the
same for its pages. Neither is used to accept new jobs.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import sqlalchemy as sa

from shared.files import free_bytes
from shared.jobs.database import about

# Bytes, and of a small disk no more than a part.
LARGEST, PART = 8_000_000, 8
# SQLite brings its journal into the database when it is so large a part of that. On a full disk this takes as much of
# what is kept; from then on the journal is written anew in the room that it has.
JOURNAL_PART = 4
PAGE = 4096
# Characters of the row, for the pages of some dozen events.
ROW = 100_000
KEY = "reserve"

TAKE_ROW = about.delete().where(about.c.key == KEY)
HAS_ROW = sa.select(about.c.key).where(about.c.key == KEY)
PUT_ROW = about.insert().values(key=KEY, value="0" * ROW)


class Reserve:
    """The file beside a database; processes that share the database share it."""

    def __init__(self, database: Path) -> None:
        self.folder = database.parent
        self._path = database.with_name(f"{database.name}-reserve")

    @property
    def journal_pages(self) -> int:
        """Of how many pages SQLite's journal should be at most."""
        return max(1, self._size() // JOURNAL_PART // PAGE)

    def _size(self) -> int:
        try:
            return min(LARGEST, shutil.disk_usage(self.folder).total // PART)
        except OSError:
            return LARGEST

    def fill(self) -> bool:
        """Whether it is there: made, if there is more room than it takes."""
        try:
            if self._path.exists():
                return True
            size = self._size()
            if shutil.disk_usage(self.folder).free < 2 * size:
                return False
            # Bytes that no file system can make smaller.
            with self._path.open("xb") as file:
                file.write(os.urandom(size))
        except FileExistsError:
            return True
        except OSError:
            self._path.unlink(missing_ok=True)
            return False
        return True

    def give_up(self) -> None:
        """Gives its room to others, if it is there."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            return

    def is_wanted(self, error: BaseException | None) -> bool:
        """Whether what SQLite says comes from a full disk: by its words, or by the room that is left."""
        text = str(error)
        if "disk is full" in text:
            return True
        # Where it finds no room for the files beside the database, it says no more than that.
        free = free_bytes(self.folder)
        return ("disk I/O" in text or "unable to open" in text) and free is not None and free < ROW
