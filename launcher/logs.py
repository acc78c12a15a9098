"""The `logs` command: shows the ends of the log files, and follows them."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from launcher.arguments import LOGS
from launcher.environment import SETUP_LOG
from launcher.terminal import BOLD, paint, print_error, strip_controls
from shared.settings import Settings

# Seconds between two reads of followed files.
POLL_INTERVAL = 0.3
CHUNK = 64 * 1024


def show_logs(settings: Settings, name: str | None, *, lines: int, follow: bool) -> int:
    """Write the last `lines` of one log or of all; with `follow`, also new lines until Ctrl-C.

    Returns the exit code: 1 if there is no such log yet. Raises OSError.
    """
    paths = {log: log_path(settings, log) for log in LOGS if name in (None, log)}
    existing = [log for log, path in paths.items() if path.is_file()]
    if not existing and not follow:
        print_error("logs", f"there is no {f'{name} ' if name else ''}log yet", f"logs are in {settings.log_dir}")
        return 1
    followed = {log: FollowedLog(path) for log, path in paths.items()}
    for log in existing:
        if len(paths) > 1:
            sys.stdout.write(f"\n{paint(f'{log}: {paths[log]}', BOLD)}\n")
        for line in tail(paths[log], lines):
            sys.stdout.write(f"{line}\n")
        followed[log].skip_to_end()
    sys.stdout.flush()
    try:
        while follow:
            for log, file in followed.items():
                for line in file.new_lines():
                    sys.stdout.write(f"{log}: {line}\n" if len(paths) > 1 else f"{line}\n")
            sys.stdout.flush()
            time.sleep(POLL_INTERVAL)
    except KeyboardInterrupt:
        sys.stdout.write("\n")
    return 0


def log_path(settings: Settings, name: str) -> Path:
    """Return the path of a log. The log of pip is written before the settings can be read."""
    return SETUP_LOG if name == "setup" else settings.log_dir / f"{name}.log"


def tail(path: Path, count: int) -> list[str]:
    """Return the last lines of a file without control characters; reads the file from its end."""
    if count == 0:
        return []
    with path.open("rb") as file:
        position, end = file.seek(0, os.SEEK_END), b""
        while position > 0 and end.count(b"\n") <= count:
            step = min(CHUNK, position)
            position = file.seek(position - step)
            end = file.read(step) + end
            file.seek(position)
    return [strip_controls(line) for line in end.decode("utf-8", "replace").splitlines()[-count:]]


class FollowedLog:
    """Reads the lines that are added to a log, also after the file was replaced by a new one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode, self._offset = 0, 0
        self._partial = b""

    def skip_to_end(self) -> None:
        """Skip the present content."""
        stat = self._path.stat()
        self._inode, self._offset = stat.st_ino, stat.st_size

    def new_lines(self) -> Iterator[str]:
        """Yield the complete lines that were added, without control characters."""
        try:
            with self._path.open("rb") as file:
                stat = os.fstat(file.fileno())
                if stat.st_ino != self._inode or stat.st_size < self._offset:
                    self._inode, self._offset, self._partial = stat.st_ino, 0, b""
                file.seek(self._offset)
                while chunk := file.read(CHUNK):
                    self._offset += len(chunk)
                    *lines, self._partial = (self._partial + chunk).split(b"\n")
                    yield from (strip_controls(line.decode("utf-8", "replace").rstrip("\r")) for line in lines)
        except FileNotFoundError:
            return
