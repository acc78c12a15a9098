"""What jobs leave on disk, and its end: removed with the job, by hand or when the settings say that it is time."""

from __future__ import annotations

import io
import logging
import os
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import StorageFailed
from shared.files import is_within, write_atomic
from shared.images.embedded_text import has_text, read_size
from shared.jobs.job import JobRow
from shared.jobs.picture_metadata import OURS, picture_parameters, with_parameters
from shared.jobs.picture_names import locate, save_prefixes
from shared.jobs.store import Store

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

    def __init__(self, store: Store, uploads: UploadFiles, pictures: PictureFiles, retention: Retention) -> None:
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


# The ending of an empty file beside an upload that stays without a job.
MARK = ".kept"


class UploadFiles:
    """A folder of files whose names stand for their content, so that writing one twice is writing it once.

    The folder may be a link; a link in it that leads out is no upload, and is written over rather than followed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, content: bytes) -> None:
        """Keeps `content`, whole or not at all, even through a power cut. Raises StorageFailed."""
        path = self._folder / name
        if not (self._is_there(path) and path.stat().st_size == len(content)):
            write_atomic(path, content, "the picture")

    def read(self, name: str) -> bytes:
        """The content of `name`. Raises StorageFailed."""
        path = self._folder / name
        if os.path.lexists(path) and not is_within(path, self._folder):
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
        write_atomic(self._mark(name), b"", "the picture")

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
        return path.is_file() and is_within(path, self._folder)

    def _mark(self, name: str) -> Path:
        return self._folder / f"{name}{MARK}"


# Bytes in which a recipe begins, if there is one.
HEAD = 256


class PictureFiles:
    """The engine's output folder, and its input folder for uploads; `chosen` tells of other folders for output, which
    may change while this runs.

    These folders may be links. A link inside of one that leads out of it is no picture: it is neither read nor written
    to, and nothing behind it is deleted.
    """

    def __init__(self, output_dir: Path, input_dir: Path, chosen: Callable[[], Sequence[Path]] = tuple) -> None:
        self._output_dir = output_dir
        self._chosen = chosen
        self._input_dir = input_dir

    def find(self, name: str) -> Path | None:
        """The file of a picture of ours, if it is here."""
        places = ((path, folder) for path, folder in self._places(name) if path.is_file())
        return next((path for path, folder in places if is_within(path, folder)), None)

    def leads_out(self, name: str) -> bool:
        """Whether a link stands in a picture's place and leads out of the folder: our engine would follow it."""
        there = [(path, folder) for path, folder in self._places(name) if os.path.lexists(path)]
        return bool(there) and not any(is_within(path, folder) for path, folder in there)

    def dimensions(self, name: str) -> tuple[int, int] | None:
        """Width and height of a picture of ours in pixels, as its file says; None if it is not here."""
        path = self.find(name)
        try:
            with path.open("rb") if path is not None else io.BytesIO() as file:
                return read_size(file.read(HEAD))
        except OSError:
            return None

    def finished(self, name: str) -> Path | None:
        """The file of a picture of ours, if it is here with its recipe."""
        path = self.find(name)
        return path if path is not None and _has_parameters(path) else None

    def embed_parameters(self, row: JobRow, name: str) -> None:
        """Puts the recipe into a job's picture, if its file is here without; whole or not at all. Raises OSError."""
        if picture_parameters(row, name) is None:
            return
        path = self.find(name)
        if path is None or _has_parameters(path):
            return
        before = path.read_bytes()
        after = with_parameters(before, row, name)
        if after is before:
            return
        aside = path.with_name(f".{uuid.uuid4().hex}.part")
        try:
            aside.write_bytes(after)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    def size(self, images: Iterable[Mapping[str, str]]) -> int:
        """Bytes of a job's pictures."""
        paths = (self.find(image["filename"]) for image in images)
        return sum(path.stat().st_size for path in paths if path is not None)

    def remove(self, graph: Mapping[str, Any]) -> None:
        """Deletes every picture that the job of this graph saved, those too that it had not finished with."""
        for prefix in save_prefixes(graph):
            folder, _, start = prefix.rpartition("/")
            if not folder or not start:
                continue
            ours = re.compile(re.escape(start) + r"_\d+_\.png")
            for output in self._outputs():
                inside = (output / folder).is_dir() and is_within(output / folder, output)
                for path in (output / folder).iterdir() if inside else ():
                    if ours.fullmatch(path.name):
                        path.unlink(missing_ok=True)

    def remove_upload(self, folder: str, name: str) -> None:
        """Deletes the engine's copy of an upload."""
        if is_within(self._input_dir / folder, self._input_dir):
            (self._input_dir / folder / name).unlink(missing_ok=True)

    def _places(self, name: str) -> list[tuple[Path, Path]]:
        """Where a picture of ours may lie, each with the output folder that it is below."""
        image = locate(name)
        if image is None:
            return []
        return [(folder / image.subfolder / image.filename, folder) for folder in self._outputs()]

    def _outputs(self) -> tuple[Path, ...]:
        return (*self._chosen(), self._output_dir)


def _has_parameters(path: Path) -> bool:
    with path.open("rb") as file:
        return has_text(file.read(HEAD), OURS)
