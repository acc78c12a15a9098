"""What jobs leave on disk, and its end: removed with the job, by hand or when the settings say that it is time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from shared.errors import StorageFailed
from shared.jobs.database import JobRow
from shared.jobs.pictures import Pictures
from shared.jobs.store import Store
from shared.jobs.uploads import Uploads

log = logging.getLogger(__name__)

DAY = 24 * 3600.0
# Rows looked at in one query.
PAGE = 200


@dataclass(frozen=True)
class Retention:
    """How much of finished jobs is kept: the newest `count`, for `days`, and as many as fit into `megabytes`.

    None means: no limit of this kind. The newest job is never too large.
    """

    count: int | None = None
    days: float | None = None
    megabytes: int | None = None


class JobFiles:
    """The files of jobs: uploads, and pictures."""

    def __init__(self, store: Store, uploads: Uploads, pictures: Pictures, retention: Retention) -> None:
        self.uploads = uploads
        self.pictures = pictures
        self._store = store
        self._retention = retention

    def keep(self, uploads: Mapping[str, bytes]) -> None:
        """Writes uploads that are not there yet. Raises StorageFailed."""
        for name, content in uploads.items():
            self.uploads.write(name, content)

    def keep_alone(self, name: str, content: bytes) -> None:
        """Writes an upload that stays without a job, for as many days as finished jobs. Raises StorageFailed."""
        with self._store.hold():
            self.uploads.keep(name, content)

    def forget(self, row: JobRow) -> bool:
        """Removes a finished job and its files; False if it is gone already, or not finished."""

        def discard(name: str) -> None:
            if not self.uploads.is_kept(name):
                _tolerate(self.uploads.remove, name)
            folder = row.spec.uploads[name]
            if folder is not None:
                _tolerate(self.pictures.remove_upload, folder, name)

        try:
            removed = self._store.remove(row.id, discard)
        except StorageFailed as error:
            if not error.details.get("disk_full"):
                raise
            # The pictures are what takes the room.
            self.remove_pictures(row)
            removed = self._store.remove(row.id, discard)
        if removed:
            self.remove_pictures(row)
        return removed

    def drop(self, uploads: Iterable[str]) -> None:
        """Removes uploads of a job that was not accepted, but for those that others need."""
        try:
            with self._store.hold() as is_needed:
                for name in uploads:
                    if not is_needed(name) and not self.uploads.is_kept(name):
                        _tolerate(self.uploads.remove, name)
        except StorageFailed as error:
            log.warning("uploads of a job that was not accepted stay: %s", error)

    def embed_parameters(self, row: JobRow, names: Iterable[str]) -> None:
        """Puts the recipe into each of a job's pictures that are here. What fails is only logged."""
        for name in names:
            try:
                self.pictures.embed_parameters(row, name)
            except (OSError, ValueError, TypeError, LookupError) as error:
                log.warning("%s has no recipe in it: %s", name, error)

    def remove_pictures(self, row: JobRow) -> None:
        """Removes what a job saved so far. Files that cannot be removed stay, and are named in the log."""
        _tolerate(self.pictures.remove, row.spec.graph)

    def expire(self, now: float | None) -> int:
        """Forgets finished jobs beyond the limits, at `now` in seconds since 1970; how many.

        Without `now`, nothing is too old.
        """
        limits = self._retention
        if limits == Retention():
            return 0
        oldest = None if limits.days is None or now is None else now - limits.days * DAY
        if oldest is not None:
            self._release(oldest)
        kept = size = forgotten = 0
        before: int | None = None
        # Of what is finished ahead of now, because the clock was set back since, the jobs after it tell the age.
        latest = now
        while page := self._store.finished_before(before, PAGE):
            for job in page:
                size += self.pictures.size(job.images)
                latest = job.finished if now is not None and job.finished <= now else latest
                past = (
                    (limits.count is not None and kept >= limits.count)
                    or (oldest is not None and latest is not None and latest < oldest)
                    or (limits.megabytes is not None and kept > 0 and size > limits.megabytes * 1e6)
                )
                kept += not past
                row = self._store.get(job.id) if past else None
                forgotten += row is not None and self.forget(row)
            before = page[-1].number
        if forgotten:
            log.info("%d finished jobs were past their time and are removed", forgotten)
        return forgotten

    def _release(self, before: float) -> None:
        """Removes uploads that were sent alone before that time, but for those that jobs need."""
        for name in self.uploads.kept_before(before):
            # Meanwhile it may be sent again, or a job that names it accepted.
            with self._store.hold() as is_needed:
                if not self.uploads.is_kept_before(name, before):
                    continue
                _tolerate(self.uploads.release, name)
                if not is_needed(name):
                    _tolerate(self.uploads.remove, name)


def _tolerate(removal: Callable[..., None], *arguments: Any) -> None:
    try:
        removal(*arguments)
    except OSError as error:
        log.warning("a file of a job could not be removed: %s", error)
