"""Files that are there whole or not at all, and folders that may be out of reach or linked."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shared.errors import StorageFailed

# The disk is full, or what its owner may use of it.
FULL = (errno.ENOSPC, errno.EDQUOT)


def is_folder(path: Path) -> bool:
    """Whether there is a folder; False also where nobody may look, and `Path.is_dir` raises."""
    return os.path.isdir(path)  # noqa: PTH112


def lies_within(path: Path, folder: Path) -> bool:
    """Whether `path` is in `folder` with all links followed, of both: links and junctions may lead out of a folder.

    The folder itself may be a link. False for links that lead in a circle, and where nobody may look.
    """
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        return False


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder and all below it, linked folders too: where the engine looks for models.

    A link to a folder that it lies in itself is passed over, for its way has no end.
    """
    above: dict[Path, frozenset[str]] = {}
    for name, folders, names in os.walk(folder, followlinks=True):
        place = Path(name)
        above[place] = above.get(place.parent, frozenset()) | {os.path.realpath(place)}
        folders[:] = [each for each in sorted(folders) if os.path.realpath(place / each) not in above[place]]
        yield from (place / name for name in sorted(names))


def write_whole(path: Path, content: bytes, what: str) -> None:
    """Writes a file that only its owner may read, whole or not at all, even through a power cut.

    Raises StorageFailed that names it as `what`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Made with owner-only rights, so that nobody can open it before they are set.
        handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        aside = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise not_written(what, error, path.parent, len(content)) from error


def not_written(what: str, error: OSError, folder: Path, needed: int | None = None) -> StorageFailed:
    """The error that says why `what` could not be written into `folder`; with the bytes that it `needed`, if known."""
    if error.errno not in FULL:
        return StorageFailed(
            f"{what} could not be kept: {error.strerror}", hint="is the disk full, or the data folder not writable?"
        )
    return disk_full(f"{what} could not be kept ({error.strerror})", folder, needed)


def disk_full(problem: str, folder: Path, needed: int | None = None) -> StorageFailed:
    """The error for a disk without room for `needed` bytes in `folder`. Its text begins with the `problem`."""
    sizes = {"free": free_bytes(folder), "needed": needed}
    told = ", ".join(f"{size / 1e6:.1f} MB {name}" for name, size in sizes.items() if size is not None)
    return StorageFailed(
        f"{problem}: the disk of the data folder is full" + (f" ({told})" if told else ""),
        hint="make room: finished jobs can be removed (DELETE /api/jobs/<id>), and other files on that disk",
        disk_full=True,
    )


def free_bytes(folder: Path) -> int | None:
    """Room on the disk that holds `folder`, which need not exist yet; None if it cannot be told."""
    try:
        there = next(each for each in (folder, *folder.parents) if each.exists())
        return shutil.disk_usage(there).free
    except OSError:
        return None
