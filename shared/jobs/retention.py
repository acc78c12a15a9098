"""Deletes finished jobs and standalone uploads beyond the retention settings."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from shared.jobs.files import JobFiles, remove_quietly
from shared.jobs.store import Store

log = logging.getLogger(__name__)

DAY = 24 * 3600.0
# Rows per query.
PAGE = 200


@dataclass(frozen=True)
class RetentionLimits:
    """Which finished jobs are kept: the newest `count`, for `days`, as long as their pictures fit into `megabytes`.

    None means no such limit. The size limit never removes the newest job.
    """

    count: int | None = None
    days: float | None = None
    megabytes: int | None = None


class Retention:
    """Applies the limits to the jobs of a database and their files."""

    def __init__(self, store: Store, files: JobFiles, limits: RetentionLimits) -> None:
        self._store = store
        self._files = files
        self._limits = limits

    def apply(self, now: float | None) -> int:
        """Delete finished jobs beyond the retention limits, and return their number.

        `now` is in seconds since 1970; None means that the clock is unreliable, so that nothing expires by age.
        """
        limits = self._limits
        if limits == RetentionLimits():
            return 0
        oldest = None if limits.days is None or now is None else now - limits.days * DAY
        if oldest is not None:
            self._expire_standalone_uploads(oldest)
        kept = size = deleted = 0
        before: int | None = None
        # After the clock was set back, some jobs end in the future. The next newer job that does not gives their age.
        latest = now
        while page := self._store.finished_before(before, PAGE):
            for job in page:
                size += self._files.pictures.disk_usage(job.images)
                latest = job.finished if now is not None and job.finished <= now else latest
                expired = (
                    (limits.count is not None and kept >= limits.count)
                    or (oldest is not None and latest is not None and latest < oldest)
                    or (limits.megabytes is not None and kept > 0 and size > limits.megabytes * 1e6)
                )
                kept += not expired
                row = self._store.get(job.id) if expired else None
                deleted += row is not None and self._files.delete_job(row)
            before = page[-1].number
        if deleted:
            log.info("deleted %d finished jobs beyond the retention limits", deleted)
        return deleted

    def _expire_standalone_uploads(self, before: float) -> None:
        for name in self._files.uploads.standalone_before(before):
            # Another request may just now send it again, or submit a job that needs it.
            with self._store.lock_uploads() as is_needed:
                if not self._files.uploads.is_standalone_before(name, before):
                    continue
                remove_quietly(self._files.uploads.unmark_standalone, name)
                if not is_needed(name):
                    remove_quietly(self._files.uploads.remove, name)
