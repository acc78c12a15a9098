"""Reports as zip files in a folder: written aside, so that one is there whole or not at all; only the newest stay."""

from __future__ import annotations

import logging
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.files import lies_within, not_written

log = logging.getLogger(__name__)

NAME = re.compile(r"report-\d{19}\.zip", re.ASCII)
KEPT = 2


class Bundles:
    """The folder. Safe to share between threads; only one report is written at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turn = threading.Lock()

    def make(self, fill: Callable[[zipfile.ZipFile], None]) -> Path:
        """The new report that `fill` writes. Raises StorageFailed, and what `fill` raises; then nothing is left."""
        with self._turn, self._translated():
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"report-{max(time.time_ns(), self._number() + 1):019}.zip"
            aside = path.with_suffix(".part")
            try:
                # PNGs are packed already.
                with zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
                    fill(archive)
                aside.replace(path)
            finally:
                aside.unlink(missing_ok=True)
            self._tidy()
        return path

    def newest(self) -> Path | None:
        """The report that was made last."""
        return max(self._reports(), default=None)

    def find(self, name: str) -> Path | None:
        """The report of that name, which may come from outside."""
        return next((path for path in self._reports() if path.name == name), None)

    def _number(self) -> int:
        """That of the newest report: the clock may have been set back since."""
        newest = self.newest()
        return 0 if newest is None else int(newest.stem.removeprefix("report-"))

    def _reports(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        named = (path for path in self._folder.iterdir() if NAME.fullmatch(path.name))
        return [path for path in named if lies_within(path, self._folder)]

    def _tidy(self) -> None:
        """Removes older reports, and what a process that died left half written."""
        for path in [*sorted(self._reports())[:-KEPT], *self._folder.glob("report-*.part")]:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                # Windows keeps a file that somebody is downloading; it goes the next time.
                log.info("an old report stays for now: %s", error)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise not_written("the report", error, self._folder) from error
