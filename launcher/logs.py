"""`logs`: the ends of the log files, and what is added to them."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from launcher.arguments import LOGS
from launcher.environment import SETUP_LOG
from launcher.terminal import BOLD, paint, plain, print_error
from shared.settings import Settings

# Seconds between two looks at files that are followed.
LOOK = 0.3
CHUNK = 64 * 1024


def show_logs(settings: Settings, name: str | None, *, lines: int, follow: bool) -> int:
    """Writes the last `lines` of one log, or of each; with `follow` what is added too, until Ctrl-C.

    Returns the exit code: 1 if there is no such log yet. Raises OSError.
    """
    paths = {each: log_path(settings, each) for each in LOGS if name in (None, each)}
    there = [each for each, path in paths.items() if path.is_file()]
    if not there and not follow:
        print_error("logs", f"there is no log{f' of {name}' if name else ''} yet", f"in {settings.log_dir}")
        return 1
    followed = {each: Followed(path) for each, path in paths.items()}
    for each in there:
        if len(paths) > 1:
            sys.stdout.write(f"\n{paint(f'{each}: {paths[each]}', BOLD)}\n")
        for line in last_lines(paths[each], lines):
            sys.stdout.write(f"{line}\n")
        followed[each].skip()
    sys.stdout.flush()
    try:
        while follow:
            for each, file in followed.items():
                for line in file.new_lines():
                    sys.stdout.write(f"{each}: {line}\n" if len(paths) > 1 else f"{line}\n")
            sys.stdout.flush()
            time.sleep(LOOK)
    except KeyboardInterrupt:
        sys.stdout.write("\n")
    return 0


def log_path(settings: Settings, name: str) -> Path:
    """Where a log lies. That of set-up is written before any setting can be read."""
    return SETUP_LOG if name == "setup" else settings.log_dir / f"{name}.log"


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a file, read from its end, without control characters."""
    if count == 0:
        return []
    with path.open("rb") as file:
        position, tail = file.seek(0, os.SEEK_END), b""
        while position > 0 and tail.count(b"\n") <= count:
            step = min(CHUNK, position)
            position = file.seek(position - step)
            tail = file.read(step) + tail
            file.seek(position)
    return [plain(line) for line in tail.decode("utf-8", "replace").splitlines()[-count:]]


class Followed:
    """A log file of which what is added is read, also after it was replaced by a new one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode, self._read = 0, 0
        self._part = b""

    def skip(self) -> None:
        """What is there now is not read."""
        about = self._path.stat()
        self._inode, self._read = about.st_ino, about.st_size

    def new_lines(self) -> Iterator[str]:
        """The whole lines that were added, without control characters."""
        try:
            with self._path.open("rb") as file:
                about = os.fstat(file.fileno())
                if about.st_ino != self._inode or about.st_size < self._read:
                    self._inode, self._read, self._part = about.st_ino, 0, b""
                file.seek(self._read)
                while chunk := file.read(CHUNK):
                    self._read += len(chunk)
                    *lines, self._part = (self._part + chunk).split(b"\n")
                    yield from (plain(line.decode("utf-8", "replace").rstrip("\r")) for line in lines)
        except FileNotFoundError:
            return
