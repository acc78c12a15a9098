"""Child processes that log to a file, and a supervisor that restarts them when they end or stop answering."""

import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shared.errors import SetupError

log = logging.getLogger(__name__)

PARENT_WATCH = Path(__file__).with_name("parent_watch.py")
MAX_LOG_BYTES = 5_000_000
# Seconds between SIGTERM and SIGKILL.
GRACE = 8.0
# Seconds before a restart: first and longest delay, which doubles each time; a run of STEADY seconds resets it.
FIRST_DELAY, MAX_DELAY, STEADY = 1.0, 30.0, 10.0
# Seconds between two checks of whether a child answers, and without an answer until it is killed. The second is long
# because a busy engine may not answer for a while.
CHECK_INTERVAL, ANSWER_TIMEOUT = 5.0, 120.0

State = Literal["stopped", "starting", "ready", "restarting"]


@dataclass(frozen=True)
class ChildGuard:
    """A Python file whose `install` function the child calls before its script, with a secret as its argument.

    `make_secret` returns a new secret for each start; it may raise SetupError.
    """

    file: Path
    make_secret: Callable[[], str]


class Child:
    """A Python script as a child process that cannot outlive this one (see `shared.process.parent_watch`).

    Its output is appended to `log_path`. `exit_with_thread` names the function of a thread: the process exits when that
    thread dies.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        python: str | Path,
        folder: Path,
        log_path: Path,
        exit_with_thread: str | None = None,
        guard: ChildGuard | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.name = name
        self.log_path = log_path
        options = [] if exit_with_thread is None else ["--exit-with-thread", exit_with_thread]
        options += [] if guard is None else ["--guard", str(guard.file)]
        self._guard = guard
        self._python = [str(python), str(PARENT_WATCH), *options]
        self._command = [*self._python, *map(str, command)]
        self._folder = folder
        self._environ = {**environ, "PYTHONUNBUFFERED": "1"}
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._started = 0.0

    @property
    def pid(self) -> int | None:
        """The process id; None while the child does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def uptime(self) -> float | None:
        """Seconds since the start; None while the child does not run."""
        return None if self.pid is None else time.monotonic() - self._started

    def set_command(self, command: Sequence[str | Path]) -> None:
        """Set the command for the next start."""
        self._command = [*self._python, *map(str, command)]

    def start(self) -> None:
        """Start the process. Ctrl-C in our terminal does not reach it: we stop our children ourselves, in order.

        Raises SetupError if the secret of its guard cannot be made.
        """
        self._close_stdin()
        secret = None if self._guard is None else self._guard.make_secret()
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        if self.log_path.exists() and self.log_path.stat().st_size > MAX_LOG_BYTES:
            self.log_path.replace(self.log_path.with_suffix(".previous.log"))
        self._started = time.monotonic()
        with self.log_path.open("ab") as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environ,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        if secret is not None and self._process.stdin is not None:
            # If the child has ended already, `wait` reports it.
            with suppress(OSError):
                os.write(self._process.stdin.fileno(), f"{secret}\n".encode())

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end and return the exit code; None if `timeout` seconds pass first."""
        if self._process is None:
            return None
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """End the process: by SIGTERM, and by SIGKILL if it still runs after GRACE seconds."""
        self.terminate()
        self._close_stdin()

    def terminate(self) -> None:
        """End the current process like `stop`. A supervisor may start a new one in the meantime; that is left alone."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            log.warning("%s did not stop within %.0f s and was killed", self.name, GRACE)
            process.kill()
            process.wait()

    def _close_stdin(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        if self._process is not None:
            self._process.kill()

    def tail_log(self, count: int = 15) -> str:
        """Return the last lines that the process has logged since its start."""
        with self.log_path.open("rb") as output:
            output.seek(self._log_start)
            lines = output.read().decode("utf-8", "replace").splitlines()
        return "\n".join([line for line in lines if line.strip()][-count:])


class Supervisor:
    """Keeps a child running: waits until it is ready, and restarts it, with growing delays, when it ends."""

    def __init__(self, child: Child, is_ready: Callable[[], bool], start_timeout: float) -> None:
        self.child = child
        self.state: State = "stopped"
        self.restarts = 0
        self._is_ready = is_ready
        self._start_timeout = start_timeout
        self._stopping = threading.Event()
        self._restart_requested = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the child and return at once."""
        self.state = "starting"
        self.child.start()

    def wait_ready(self) -> None:
        """Wait until the child is ready, and keep it running from then on.

        Raises SetupError, with the end of the log, if the child ends or is not ready in time.
        """
        self._wait_ready()
        self._thread = threading.Thread(target=self._keep_running, name=f"supervisor-{self.child.name}", daemon=True)
        self._thread.start()

    def restart(self) -> None:
        """Restart the child without delay. Call it only after `wait_ready`."""
        self._restart_requested.set()
        self.child.terminate()

    def stop(self) -> None:
        """Stop the child for good."""
        self._stopping.set()
        self.child.stop()
        # The thread may not run yet: Ctrl-C can come at any time.
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        # The thread may have started the child after the first stop.
        self.child.stop()
        self.state = "stopped"

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + self._start_timeout
        while not self._is_ready():
            code = self.child.wait(timeout=0.1)
            if code is not None:
                raise SetupError(
                    self.child.name,
                    f"it ended during startup with exit code {code}. Its last lines:\n{self.child.tail_log()}",
                    hint=f"{self.child.log_path} has the whole log",
                )
            if time.monotonic() > deadline:
                raise SetupError(
                    self.child.name,
                    f"it does not answer after {self._start_timeout:.0f} s. Its last lines:\n{self.child.tail_log()}",
                    hint=f"{self.child.log_path} has the whole log",
                )
        self.state = "ready"

    def _wait_for_end(self) -> int | None:
        """Wait until the child ends and return its exit code. Kill it if it stops answering."""
        answered = time.monotonic()
        while (code := self.child.wait(timeout=CHECK_INTERVAL)) is None and not self._stopping.is_set():
            if self._is_ready():
                answered = time.monotonic()
            elif time.monotonic() - answered > ANSWER_TIMEOUT:
                log.warning("%s runs but has not answered for %.0f s; it is killed", self.child.name, ANSWER_TIMEOUT)
                self.child.kill()
        return code

    def _keep_running(self) -> None:
        delay = 0.0
        while True:
            started = time.monotonic()
            code = self._wait_for_end()
            if self._stopping.is_set():
                return
            was_requested = self._restart_requested.is_set()
            self._restart_requested.clear()
            was_steady = time.monotonic() - started > STEADY
            self.state = "restarting"
            if was_requested:
                delay = 0.0
                log.info("restarting %s, as requested", self.child.name)
            else:
                delay = FIRST_DELAY if was_steady else min(max(FIRST_DELAY, delay * 2), MAX_DELAY)
                log.warning("%s ended with exit code %s; restarting it in %.0f s", self.child.name, code, delay)
            if self._stopping.wait(delay):
                return
            self.restarts += 1
            try:
                self.child.start()
                self._wait_ready()
                log.info("%s is ready again", self.child.name)
            except SetupError as error:
                if self._stopping.is_set():
                    return
                log.error("%s: %s", error.step, error.message)
                self.child.stop()
