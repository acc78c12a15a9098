"""The files of jobs: uploads and pictures. They are removed with their job."""

from __future__ import annotations

import logging
import os
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
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

# Suffix of the empty file that marks an upload as standalone.
MARK = ".kept"
# Bytes at the start of a picture that contain its size and, if it has any, the beginning of its parameters.
HEAD = 256


class JobFiles:
    """The uploads and pictures of all jobs, and their removal."""

    def __init__(self, store: Store, uploads: UploadFiles, pictures: PictureFiles) -> None:
        self.uploads = uploads
        self.pictures = pictures
        self._store = store

    def write_uploads(self, uploads: Mapping[str, bytes]) -> None:
        """Write uploads, content by name, that do not exist yet. Raises StorageFailed."""
        for name, content in uploads.items():
            self.uploads.write(name, content)

    def add_standalone_upload(self, name: str, content: bytes) -> None:
        """Write an upload that needs no job; it expires after as many days as finished jobs. Raises StorageFailed."""
        with self._store.lock_uploads():
            self.uploads.write_standalone(name, content)

    def delete_job(self, row: JobRow) -> bool:
        """Delete a finished job and its files; False if it is not finished, or already deleted."""

        def discard(name: str) -> None:
            if not self.uploads.is_standalone(name):
                remove_quietly(self.uploads.remove, name)
            folder = row.spec.uploads[name]
            if folder is not None:
                remove_quietly(self.pictures.remove_upload_copy, folder, name)

        try:
            deleted = self._store.delete(row.id, discard)
        except StorageFailed as error:
            if not error.details.get("disk_full"):
                raise
            # Removing the pictures first makes room for the database's journal.
            self.remove_pictures(row)
            deleted = self._store.delete(row.id, discard)
        if deleted:
            self.remove_pictures(row)
        return deleted

    def discard_uploads(self, names: Iterable[str]) -> None:
        """Remove the uploads of a rejected job, except those that other jobs need."""
        try:
            with self._store.lock_uploads() as is_needed:
                for name in names:
                    if not is_needed(name) and not self.uploads.is_standalone(name):
                        remove_quietly(self.uploads.remove, name)
        except StorageFailed as error:
            log.warning("the uploads of a rejected job could not be removed: %s", error)

    def embed_parameters(self, row: JobRow, filenames: Iterable[str]) -> None:
        """Embed the job's parameters in those of its pictures that are on this machine. Failures are only logged."""
        for filename in filenames:
            try:
                self.pictures.embed_parameters(row, filename)
            except (OSError, ValueError, TypeError, LookupError) as error:
                log.warning("could not embed the parameters in %s: %s", filename, error)

    def remove_pictures(self, row: JobRow) -> None:
        """Remove all pictures that the job has saved so far. Failures are only logged."""
        remove_quietly(self.pictures.remove, row.spec.graph)


class UploadFiles:
    """The folder of uploads, whose names are hashes of their content. A restarted engine, and a retry, need them again.

    A standalone upload was sent on its own, and is kept without a job.

    The folder itself may be a symbolic link. A link in it that leads out of it counts as missing; it is overwritten,
    never followed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, content: bytes) -> None:
        """Write an upload atomically and durably, unless it exists. Raises StorageFailed."""
        path = self._folder / name
        if not (self._exists(path) and path.stat().st_size == len(content)):
            write_atomic(path, content, "the picture")

    def read(self, name: str) -> bytes:
        """The content of an upload. Raises StorageFailed."""
        path = self._folder / name
        if os.path.lexists(path) and not is_within(path, self._folder):
            raise StorageFailed("a picture that the job needs was replaced by a link to another folder")
        try:
            return path.read_bytes()
        except OSError as error:
            raise StorageFailed(f"a picture that the job needs cannot be read: {error.strerror}") from error

    def find(self, name: str) -> bytes | None:
        """The content of an upload; None if there is none. `name` must be a checked hash, as it becomes a path."""
        return self.read(name) if self._exists(self._folder / name) else None

    def dimensions(self, name: str) -> tuple[int, int] | None:
        """Width and height in pixels of a PNG upload, its name checked as for `find`; None if there is none."""
        path = self._folder / name
        try:
            with path.open("rb") as file:
                return read_size(file.read(HEAD)) if self._exists(path) else None
        except OSError:
            return None

    def write_standalone(self, name: str, content: bytes) -> None:
        """Write an upload, and mark it as standalone. Raises StorageFailed."""
        self.write(name, content)
        write_atomic(self._mark(name), b"", "the picture")

    def is_standalone(self, name: str) -> bool:
        """Whether the upload is kept without a job."""
        return self._mark(name).is_file()

    def standalone_before(self, time: float) -> list[str]:
        """The names of the standalone uploads that were sent before `time`, in seconds since 1970."""
        names = [mark.name.removesuffix(MARK) for mark in self._folder.glob(f"*{MARK}")]
        return [name for name in names if self.is_standalone_before(name, time)]

    def is_standalone_before(self, name: str, time: float) -> bool:
        """Whether the upload is standalone, and was sent before `time`."""
        try:
            return self._mark(name).stat().st_mtime < time
        except FileNotFoundError:
            return False

    def unmark_standalone(self, name: str) -> None:
        """Keep the upload only as long as its jobs. Raises OSError."""
        self._mark(name).unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Remove the upload. Raises OSError."""
        (self._folder / name).unlink(missing_ok=True)

    def _exists(self, path: Path) -> bool:
        return path.is_file() and is_within(path, self._folder)

    def _mark(self, name: str) -> Path:
        return self._folder / f"{name}{MARK}"


class PictureFiles:
    """The pictures in the folders of the engine that the launcher starts. An engine elsewhere has its own.

    `more_outputs` returns the output folders that a user chose, besides the default one; they may change at any time.

    The folders themselves may be symbolic links. A link in one that leads out of it counts as missing: it is neither
    read nor written, and its target is never removed.
    """

    def __init__(self, output_dir: Path, input_dir: Path, more_outputs: Callable[[], Sequence[Path]] = tuple) -> None:
        self._output_dir = output_dir
        self._input_dir = input_dir
        self._more_outputs = more_outputs

    def find(self, filename: str) -> Path | None:
        """The file of the picture with this name; None if it is not on this machine."""
        existing = ((path, folder) for path, folder in self._candidates(filename) if path.is_file())
        return next((path for path, folder in existing if is_within(path, folder)), None)

    def is_link_to_outside(self, filename: str) -> bool:
        """Whether the picture was replaced by a link out of its folder. The engine would follow it."""
        existing = [(path, folder) for path, folder in self._candidates(filename) if os.path.lexists(path)]
        return bool(existing) and not any(is_within(path, folder) for path, folder in existing)

    def dimensions(self, filename: str) -> tuple[int, int] | None:
        """Width and height in pixels of the picture with this name; None if it is not on this machine."""
        path = self.find(filename)
        try:
            return None if path is None else read_size(_head(path))
        except OSError:
            return None

    def has_parameters(self, path: Path) -> bool:
        """Whether the picture file has parameters embedded. Raises OSError."""
        return has_text(_head(path), OURS)

    def embed_parameters(self, row: JobRow, filename: str) -> None:
        """Embed the job's parameters in its picture, atomically, unless it has them. Raises OSError."""
        if picture_parameters(row, filename) is None:
            return
        path = self.find(filename)
        if path is None or self.has_parameters(path):
            return
        before = path.read_bytes()
        after = with_parameters(before, row, filename)
        if after is before:
            return
        part = path.with_name(f".{uuid.uuid4().hex}.part")
        try:
            part.write_bytes(after)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def disk_usage(self, images: Iterable[Mapping[str, str]]) -> int:
        """Bytes that the pictures take on this machine."""
        paths = (self.find(image["filename"]) for image in images)
        return sum(path.stat().st_size for path in paths if path is not None)

    def remove(self, graph: Mapping[str, Any]) -> None:
        """Remove every picture that the job with this graph saved, including those of unfinished attempts."""
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

    def remove_upload_copy(self, folder: str, name: str) -> None:
        """Remove the engine's copy of an upload from a folder in its input folder."""
        if is_within(self._input_dir / folder, self._input_dir):
            (self._input_dir / folder / name).unlink(missing_ok=True)

    def _candidates(self, filename: str) -> list[tuple[Path, Path]]:
        """The paths at which a picture may be, each with its output folder."""
        image = locate(filename)
        if image is None:
            return []
        return [(folder / image.subfolder / image.filename, folder) for folder in self._outputs()]

    def _outputs(self) -> tuple[Path, ...]:
        return (*self._more_outputs(), self._output_dir)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def remove_quietly(remove: Callable[..., None], *arguments: Any) -> None:
    """Call a function that removes files. Failures are only logged."""
    try:
        remove(*arguments)
    except OSError as error:
        log.warning("a file of a job could not be removed: %s", error)
