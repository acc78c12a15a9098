"""Which launcher runs on a data folder: a lock that ends with its process, and beside it what that says of itself.

The lock decides. The operating system releases it however the process ends, so a file that a killed launcher left, or
a process id that another program has by now, is never taken for a launcher that runs. Standard library only.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

# Who only looks whether the lock is held has it for a moment; who wants to hold it tries again for so many seconds.
PATIENCE, PAUSE = 1.0, 0.05


@dataclass(frozen=True)
class Record:
    """What a launcher says of itself. `started` in seconds since 1970; `addresses` of its services, by their names."""

    pid: int
    command: str
    started: float
    ready: bool = False
    addresses: Mapping[str, Any] = field(default_factory=dict)


class Instance:
    """The launcher of one folder: at most one process holds it."""

    def __init__(self, folder: Path, name: str = "launcher") -> None:
        self._lock_path = folder / f"{name}.lock"
        self._record_path = folder / f"{name}.json"
        self._stop_path = folder / f"{name}.stop"
        self._file: BinaryIO | None = None

    def hold(self, command: str, addresses: Mapping[str, Any] | None = None) -> bool:
        """Takes the lock until `release` or the end of this process; False if another has it. Raises OSError."""
        self._lock_path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + PATIENCE
        while (file := self._try_lock()) is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(PAUSE)
        self._file = file
        self._stop_path.unlink(missing_ok=True)
        self._write(Record(os.getpid(), command, time.time(), addresses=addresses or {}))
        return True

    def ready(self) -> None:
        """Writes down that everything is up."""
        record = self._read()
        if self._file is not None and record is not None:
            self._write(Record(**{**asdict(record), "ready": True}))

    def release(self) -> None:
        """Lets go of the lock; does nothing if it is not held."""
        if self._file is None:
            return
        self._record_path.unlink(missing_ok=True)
        self._stop_path.unlink(missing_ok=True)
        self._file.close()
        self._file = None

    def running(self) -> Record | None:
        """What the launcher that holds the lock says of itself; None if there is none.

        A holder that has not written yet is waited for. Raises OSError.
        """
        deadline = time.monotonic() + PATIENCE
        while self._lock_path.exists():
            file = self._try_lock()
            if file is not None:
                file.close()
                return None
            record = self._read()
            if record is not None and _exists(record.pid):
                return record
            if time.monotonic() > deadline:
                return None
            time.sleep(PAUSE)
        return None

    def ask_to_stop(self, record: Record, send: Callable[[int], None] | None) -> None:
        """Asks the holder to end in good order: by a signal (`send`), or, where a system has none, by a file."""
        if send is None:
            self._stop_path.touch()
        else:
            send(record.pid)

    @property
    def asked_to_stop(self) -> bool:
        """Whether somebody asked by the file. For the holder, which looks at it from time to time."""
        return self._stop_path.exists()

    def wait_for_end(self, timeout: float) -> bool:
        """Whether the holder has ended within so many seconds."""
        deadline = time.monotonic() + timeout
        while self.running() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(2 * PAUSE)
        return True

    def _try_lock(self) -> BinaryIO | None:
        """The locked file, which Python hands to no child; None if another process has the lock."""
        file = self._lock_path.open("ab")
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            file.close()
            return None
        except OSError:
            file.close()
            raise
        return file

    def _write(self, record: Record) -> None:
        aside = self._record_path.with_suffix(".new")
        aside.write_text(json.dumps(asdict(record)), encoding="utf-8")
        aside.replace(self._record_path)

    def _read(self) -> Record | None:
        try:
            record = Record(**json.loads(self._record_path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return record if isinstance(record.pid, int) and record.pid > 0 else None


def terminate(pid: int) -> None:
    """Asks a process to end, as `kill` does. Raises OSError, such as PermissionError."""
    import signal

    os.kill(pid, signal.SIGTERM)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

    def _exists(_pid: int) -> bool:
        return True  # `os.kill(pid, 0)` would end it
else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _exists(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
