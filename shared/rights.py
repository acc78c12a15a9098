"""The data folder is for its owner alone: prompts, pictures, keys and logs are nobody else's business.

New files get their rights from the umask. What an earlier version, or a copy, left open is closed at each start: what
is ours, never a folder that the user chose. So links are not followed, names that are not ours are left alone, and so
are models, which may be shared with other programs. Windows gives the folder the rights of the profile it lies in.
"""

import logging
import os
import stat
from pathlib import Path

log = logging.getLogger(__name__)

OTHERS = 0o077
# What the program makes in the data folder: closed with all that is in it ...
PRIVATE = ("input", "logs", "output", "reports", "run", "temp", "uploads", "user", "workflows")
FILES = ("api-keys.json", "paths.json")
BEGINNINGS = ("jobs.sqlite", "launcher.", "setup.")
# ... and what only the data folder itself closes.
SHARED = ("custom_nodes", "engine", "models")


def keep_new_files_private() -> None:
    """From now on this process and its children make files and folders that only their owner can read."""
    os.umask(OTHERS)


def close_to_others(data_dir: Path, *, ours: bool) -> int:
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
            elif entry.name not in SHARED:
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
    return name in (*PRIVATE, *FILES) or name.startswith(BEGINNINGS) or left_over


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
