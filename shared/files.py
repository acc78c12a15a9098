"""Files and folders: atomic writes, free space, links, and permissions of the data folder.

New files get their rights from the umask. What an earlier version, or a copy, left open is closed at each start: what
is ours, never a folder that the user chose. So links are not followed, names that are not ours are left alone, and so
are models, which may be shared with other programs. Windows gives the folder the rights of the profile it lies in.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shared.errors import StorageFailed

# The disk is full, or what its owner may use of it.
FULL = (errno.ENOSPC, errno.EDQUOT)


def is_folder(path: Path) -> bool:
    """Whether there is a folder; False also where nobody may look, and `Path.is_dir` raises."""
    return os.path.isdir(path)  # noqa: PTH112


def is_within(path: Path, folder: Path) -> bool:
    """Whether `path` is in `folder` with all links followed, of both: links and junctions may lead out of a folder.

    The folder itself may be a link. False for links that lead in a circle, and where nobody may look.
    """
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        return False


def walk_files(folder: Path) -> Iterator[Path]:
    """The files in a folder and all below it, linked folders too: where the engine looks for models.

    A link to a folder that it lies in itself is passed over, for its way has no end.
    """
    above: dict[Path, frozenset[str]] = {}
    for name, folders, names in os.walk(folder, followlinks=True):
        place = Path(name)
        above[place] = above.get(place.parent, frozenset()) | {os.path.realpath(place)}
        folders[:] = [each for each in sorted(folders) if os.path.realpath(place / each) not in above[place]]
        yield from (place / name for name in sorted(names))


def write_atomic(path: Path, content: bytes, what: str) -> None:
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
        raise write_error(what, error, path.parent, len(content)) from error


def write_error(what: str, error: OSError, folder: Path, needed: int | None = None) -> StorageFailed:
    """The error that says why `what` could not be written into `folder`; with the bytes that it `needed`, if known."""
    if error.errno not in FULL:
        return StorageFailed(
            f"{what} could not be kept: {error.strerror}", hint="is the disk full, or the data folder not writable?"
        )
    return disk_full_error(f"{what} could not be kept ({error.strerror})", folder, needed)


def disk_full_error(problem: str, folder: Path, needed: int | None = None) -> StorageFailed:
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


log = logging.getLogger(__name__)

OTHERS = 0o077
# What the program makes in the data folder: closed with all that is in it ...
PRIVATE_FOLDERS = ("input", "logs", "output", "reports", "run", "temp", "uploads", "user", "workflows")
PRIVATE_FILES = ("api-keys.json", "paths.json")
PRIVATE_PREFIXES = ("jobs.sqlite", "launcher.", "setup.")
# ... and what only the data folder itself closes.
SHARED_FOLDERS = ("custom_nodes", "engine", "models")


def restrict_umask() -> None:
    """From now on this process and its children make files and folders that only their owner can read."""
    os.umask(OTHERS)


def restrict_permissions(data_dir: Path, *, ours: bool) -> int:
    """Takes the rights of group and others from what is ours in the data folder; how many files and folders had some.

    The folder itself is closed too if it is `ours`, or if there is nothing else in it: a user may have named one that
    others use. What cannot be changed is only logged.
    """
    if os.name == "nt" or not data_dir.is_dir():
        return 0
    with os.scandir(data_dir) as entries:
        known, unknown = [], False
        for entry in entries:
            if _is_private(entry.name):
                known.append(entry)
            elif entry.name not in SHARED_FOLDERS:
                unknown = True
    # First, for it closes all that is in it.
    count = 0 if unknown and not ours else _close(str(data_dir.resolve()))
    count += sum(_close_all(entry) for entry in known)
    if count:
        log.info("%d files and folders in %s could be read by others, and are closed now", count, data_dir)
    return count


def _is_private(name: str) -> bool:
    # A file of ours that was being written when its process died is called so.
    left_over = name.startswith(".") and name.endswith(".part")
    return name in (*PRIVATE_FOLDERS, *PRIVATE_FILES) or name.startswith(PRIVATE_PREFIXES) or left_over


def _close_all(entry: os.DirEntry[str], *, nested: bool = False) -> int:
    """Closes the file, or the folder with all that is in it, without links and what is behind them; how many."""
    try:
        if entry.is_symlink():
            return 0
        if not entry.is_dir(follow_symlinks=False):
            return _close(entry.path)
        if nested and not entry.stat(follow_symlinks=False).st_mode & OTHERS:
            # There may be a hundred thousand pictures, and a folder is closed after what is in it.
            return 0
        with os.scandir(entry.path) as inside:
            count = sum(_close_all(each, nested=True) for each in inside)
        return count + _close(entry.path)
    except OSError as error:
        log.info("%s cannot be looked through: %s", entry.path, error)
        return 0


def _close(path: str) -> bool:
    """Whether others had rights to it, and have none now."""
    try:
        about = os.lstat(path)
        single = stat.S_ISDIR(about.st_mode) or (stat.S_ISREG(about.st_mode) and about.st_nlink == 1)
        # A file with a second name is in somebody else's folder too; and only its owner can change it.
        if not single or about.st_uid != os.geteuid() or not about.st_mode & OTHERS:
            return False
        os.chmod(path, stat.S_IMODE(about.st_mode) & ~OTHERS)  # noqa: PTH101 - there are many, and no Path is needed
    except FileNotFoundError:
        return False
    except OSError as error:
        log.info("others may still read %s: %s", path, error)
        return False
    return True
