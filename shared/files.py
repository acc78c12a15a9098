"""Files and folders: atomic writes, free space, links, and permissions of the data folder."""

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

log = logging.getLogger(__name__)

# Error numbers of a full disk, or of a used-up quota.
FULL = (errno.ENOSPC, errno.EDQUOT)
# Permission bits of the group and of all other users.
OTHERS = 0o077
# What the program creates in the data folder. These are made private with everything below them ...
PRIVATE_FOLDERS = ("input", "logs", "output", "reports", "run", "temp", "uploads", "user", "workflows")
PRIVATE_FILES = ("api-keys.json", "paths.json")
PRIVATE_PREFIXES = ("jobs.sqlite", "launcher.", "setup.")
# ... and these are left as they are: other programs may share them.
SHARED_FOLDERS = ("custom_nodes", "engine", "models")


def is_folder(path: Path) -> bool:
    """Whether the folder exists. False, too, where `Path.is_dir` raises because its parent is not readable."""
    return os.path.isdir(path)  # noqa: PTH112


def is_within(path: Path, folder: Path) -> bool:
    """Whether `path` is below `folder` after all links of both are resolved.

    `folder` itself may be a link. False for circular links, and where the path is not accessible.
    """
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        return False


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield the files below `folder`, in linked folders too: the engine looks for models there as well.

    Skips links to a folder that contains them, because such a walk never ends.
    """
    ancestors: dict[Path, frozenset[str]] = {}
    for name, folders, names in os.walk(folder, followlinks=True):
        path = Path(name)
        ancestors[path] = ancestors.get(path.parent, frozenset()) | {os.path.realpath(path)}
        folders[:] = [child for child in sorted(folders) if os.path.realpath(path / child) not in ancestors[path]]
        yield from (path / file for file in sorted(names))


def write_atomic(path: Path, content: bytes, what: str) -> None:
    """Write a file that only its owner may read, completely or not at all, even if the power fails.

    Raises StorageFailed, which calls the file `what`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # mkstemp creates the file with owner-only permissions: at no time can others open it.
        handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(what, error, path.parent, len(content)) from error


def write_error(what: str, error: OSError, folder: Path, needed: int | None = None) -> StorageFailed:
    """Return the error for `what`, which could not be written to `folder`. `needed` is its size in bytes, if known."""
    if error.errno not in FULL:
        return StorageFailed(
            f"{what} could not be saved: {error.strerror}", hint="check that the data folder exists and is writable"
        )
    return disk_full_error(f"{what} could not be saved ({error.strerror})", folder, needed)


def disk_full_error(problem: str, folder: Path, needed: int | None = None) -> StorageFailed:
    """Return the error for a disk without room for `needed` bytes in `folder`. The message starts with `problem`."""
    sizes = {"free": free_bytes(folder), "needed": needed}
    numbers = ", ".join(f"{size / 1e6:.1f} MB {name}" for name, size in sizes.items() if size is not None)
    return StorageFailed(
        f"{problem}: the disk of the data folder is full" + (f" ({numbers})" if numbers else ""),
        hint="free some space: delete finished jobs (DELETE /api/jobs/<id>) or other files on that disk",
        disk_full=True,
    )


def free_bytes(folder: Path) -> int | None:
    """Free bytes on the disk of `folder`, which need not exist yet; None if the system does not report them."""
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        return shutil.disk_usage(existing).free
    except OSError:
        return None


def restrict_umask() -> None:
    """Make all files and folders that this process and its children create from now on private to their owner."""
    os.umask(OTHERS)


def restrict_permissions(data_dir: Path, *, ours: bool) -> int:
    """Remove the permissions of group and others from our files in the data folder; return how many had some.

    Prompts, pictures, keys and logs are private. The umask covers new files; this covers those that an earlier version
    or a copy left open. Links, files with unknown names, and models stay as they are. The data folder itself is closed
    if it is `ours`, or contains nothing else: a user may have chosen a folder that others use. Failures are logged.
    On Windows nothing is done: the folder has the permissions of the user's profile.
    """
    if os.name == "nt" or not data_dir.is_dir():
        return 0
    private, has_unknown = [], False
    with os.scandir(data_dir) as entries:
        for entry in entries:
            if _is_private(entry.name):
                private.append(entry)
            elif entry.name not in SHARED_FOLDERS:
                has_unknown = True
    # The data folder comes first: closing it protects everything in it at once.
    count = 0 if has_unknown and not ours else _restrict(str(data_dir.resolve()))
    count += sum(_restrict_tree(entry) for entry in private)
    if count:
        log.info("removed access by other users from %d files and folders in %s", count, data_dir)
    return count


def _is_private(name: str) -> bool:
    # A process that died while it wrote a file leaves such a name behind.
    is_partial = name.startswith(".") and name.endswith(".part")
    return name in (*PRIVATE_FOLDERS, *PRIVATE_FILES) or name.startswith(PRIVATE_PREFIXES) or is_partial


def _restrict_tree(entry: os.DirEntry[str], *, is_nested: bool = False) -> int:
    """Restrict a file, or a folder with everything below it, but follow no links; return how many were open."""
    try:
        if entry.is_symlink():
            return 0
        if not entry.is_dir(follow_symlinks=False):
            return _restrict(entry.path)
        if is_nested and not entry.stat(follow_symlinks=False).st_mode & OTHERS:
            # A folder is closed after its contents, so a closed one needs no walk: it may hold 100,000 pictures.
            return 0
        with os.scandir(entry.path) as children:
            count = sum(_restrict_tree(child, is_nested=True) for child in children)
        return count + _restrict(entry.path)
    except OSError as error:
        log.info("cannot check permissions in %s: %s", entry.path, error)
        return 0


def _restrict(path: str) -> bool:
    """Remove the permissions of others; return whether there were any."""
    try:
        status = os.lstat(path)
        # A file with a second hard link belongs to another folder too, and only the owner may change permissions.
        is_single = stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1)
        if not is_single or status.st_uid != os.geteuid() or not status.st_mode & OTHERS:
            return False
        os.chmod(path, stat.S_IMODE(status.st_mode) & ~OTHERS)  # noqa: PTH101 - faster than Path for many files
    except FileNotFoundError:
        return False
    except OSError as error:
        log.info("cannot remove access by other users from %s: %s", path, error)
        return False
    return True
