"""Ensures that one launcher runs on a data folder: a lock held by its process, and a record of what it runs.

The lock decides. The operating system releases it however the process ends, so the record of a killed launcher, or a
process id that another program has by now, is never mistaken for a running launcher. Standard library only.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

# Checking the lock takes it for an instant, so taking it is retried for this many seconds, with this pause.
LOCK_TIMEOUT, RETRY_PAUSE = 1.0, 0.05


@dataclass(frozen=True)
class InstanceRecord:
    """What a running launcher records about itself: `started` in seconds since 1970, its services' `addresses`."""

    pid: int
    command: str
    started: float
    ready: bool = False
    addresses: Mapping[str, Any] = field(default_factory=dict)


class InstanceLock:
    """The lock on a folder, which at most one process holds."""

    def __init__(self, folder: Path, name: str = "launcher") -> None:
        self._lock_path = folder / f"{name}.lock"
        self._record_path = folder / f"{name}.json"
        self._stop_path = folder / f"{name}.stop"
        self._file: BinaryIO | None = None

    def acquire(self, command: str, addresses: Mapping[str, Any] | None = None) -> bool:
        """Take the lock until `release` or the end of this process; False if another process holds it.

        Raises OSError.
        """
        self._lock_path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + LOCK_TIMEOUT
        while (file := self._try_lock()) is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(RETRY_PAUSE)
        self._file = file
        self._stop_path.unlink(missing_ok=True)
        self._write(InstanceRecord(os.getpid(), command, time.time(), addresses=addresses or {}))
        return True

    def mark_ready(self) -> None:
        """Record that everything has started."""
        record = self._read()
        if self._file is not None and record is not None:
            self._write(InstanceRecord(**{**asdict(record), "ready": True}))

    def release(self) -> None:
        """Release the lock, if this process holds it."""
        if self._file is None:
            return
        self._record_path.unlink(missing_ok=True)
        self._stop_path.unlink(missing_ok=True)
        self._file.close()
        self._file = None

    def holder(self) -> InstanceRecord | None:
        """Return the record of the process that holds the lock; None if there is none.

        Waits for a holder that has not written its record yet. Raises OSError.
        """
        deadline = time.monotonic() + LOCK_TIMEOUT
        while self._lock_path.exists():
            file = self._try_lock()
            if file is not None:
                file.close()
                return None
            record = self._read()
            if record is not None and _process_exists(record.pid):
                return record
            if time.monotonic() > deadline:
                return None
            time.sleep(RETRY_PAUSE)
        return None

    def request_stop(self, record: InstanceRecord, send: Callable[[int], None] | None) -> None:
        """Ask the holder to stop: with a signal (`send`), or with a file on systems without signals."""
        if send is None:
            self._stop_path.touch()
        else:
            send(record.pid)

    @property
    def stop_requested(self) -> bool:
        """Whether the holder, which polls this, was asked to stop by the file."""
        return self._stop_path.exists()

    def wait_for_end(self, timeout: float) -> bool:
        """Whether the holder ends within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self.holder() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(2 * RETRY_PAUSE)
        return True

    def _try_lock(self) -> BinaryIO | None:
        """Return the locked file, which child processes do not inherit; None if another process holds the lock."""
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

    def _write(self, record: InstanceRecord) -> None:
        temporary = self._record_path.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(record)), encoding="utf-8")
        temporary.replace(self._record_path)

    def _read(self) -> InstanceRecord | None:
        try:
            record = InstanceRecord(**json.loads(self._record_path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return record if isinstance(record.pid, int) and record.pid > 0 else None


def terminate(pid: int) -> None:
    """Ask a process to end, as `kill` does. Raises OSError, such as PermissionError."""
    import signal

    os.kill(pid, signal.SIGTERM)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

    def _process_exists(_pid: int) -> bool:
        return True  # `os.kill(pid, 0)` would end the process
else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _process_exists(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
