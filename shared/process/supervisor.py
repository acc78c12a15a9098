"""A child process: its log, its end, and its restart when it ends unasked."""

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
GRACE = 8.0
# Seconds before the first restart, at the most, and of a run after which the delay starts small again.
FIRST_DELAY, MAX_DELAY, STEADY = 1.0, 30.0, 10.0

# Seconds between two looks at whether a child still answers, and of silence after which it is taken for dead. Long, for
# a busy engine may not get to answer for a while.
CHECK, DEAF = 5.0, 120.0

State = Literal["stopped", "starting", "ready", "restarting"]


@dataclass(frozen=True)
class ChildGuard:
    """A Python file whose `install` is called in the child before its script, with a secret that `make` makes anew at
    each start. `make` may raise SetupError."""

    file: Path
    make: Callable[[], str]


class Child:
    """A Python script run as a child that cannot outlive us (see `shared.process.parent_watch`), its output appended to
    a log.

    `exit_with_thread` names the function of a thread without which it is as good as dead.
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
        """Its process id, while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def uptime(self) -> float | None:
        """Seconds since it was started, while it runs."""
        return None if self.pid is None else time.monotonic() - self._started

    def change(self, command: Sequence[str | Path]) -> None:
        """From its next start on it runs this command."""
        self._command = [*self._python, *map(str, command)]

    def start(self) -> None:
        """Starts the process. Ctrl-C in our terminal does not reach it: we stop our children ourselves, in order.

        Raises SetupError if its secret cannot be made.
        """
        self._close_lifeline()
        secret = None if self._guard is None else self._guard.make()
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
            # A child that has ended already is noticed by who waits for it.
            with suppress(OSError):
                os.write(self._process.stdin.fileno(), f"{secret}\n".encode())

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit code, once it has ended; None if `timeout` seconds pass first."""
        if self._process is None:
            return None
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """Ends it: asked first, then, after some seconds, made to."""
        self.end()
        self._close_lifeline()

    def end(self) -> None:
        """As `stop`, but who watches it may start it again meanwhile: only the process that runs now is ended."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            log.warning("%s did not stop when asked and was killed", self.name)
            process.kill()
            process.wait()

    def _close_lifeline(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()

    def last_lines(self, count: int = 15) -> str:
        """The end of what it has written since its last start."""
        with self.log_path.open("rb") as output:
            output.seek(self._log_start)
            lines = output.read().decode("utf-8", "replace").splitlines()
        return "\n".join([line for line in lines if line.strip()][-count:])


class Supervisor:
    """Keeps a child running: says when it is ready, and starts it again, with growing delays, when it ends."""

    def __init__(self, child: Child, is_ready: Callable[[], bool], start_timeout: float) -> None:
        self.child = child
        self.state: State = "stopped"
        self.restarts = 0
        self._is_ready = is_ready
        self._start_timeout = start_timeout
        self._stopping = threading.Event()
        self._asked = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the child and returns at once."""
        self.state = "starting"
        self.child.start()

    def wait_ready(self) -> None:
        """Waits until the child answers, and keeps it running from then on.

        Raises SetupError, with the child's last lines, if it ends before, or does not answer in time.
        """
        self._wait_ready()
        self._thread = threading.Thread(target=self._keep, name=f"supervisor-{self.child.name}", daemon=True)
        self._thread.start()

    def restart(self) -> None:
        """Ends the child, which is then started again at once. Only after `wait_ready`."""
        self._asked.set()
        self.child.end()

    def stop(self) -> None:
        """Ends the child and does not start it again."""
        self._stopping.set()
        self.child.stop()
        # Ctrl-C may have come before it was started.
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        # The thread may have been starting it at that very moment.
        self.child.stop()
        self.state = "stopped"

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + self._start_timeout
        while not self._is_ready():
            code = self.child.wait(timeout=0.1)
            if code is not None:
                raise SetupError(
                    self.child.name,
                    f"it ended while it started, with exit code {code}. Its last lines:\n{self.child.last_lines()}",
                    hint=f"all of them are in {self.child.log_path}",
                )
            if time.monotonic() > deadline:
                raise SetupError(
                    self.child.name,
                    f"it does not answer after {self._start_timeout:.0f} s. Its last lines:\n{self.child.last_lines()}",
                    hint=f"all of them are in {self.child.log_path}",
                )
        self.state = "ready"

    def _watch(self) -> int | None:
        """Waits for the child's end; its exit code. A child that has stopped answering is brought to its end."""
        answered = time.monotonic()
        while (code := self.child.wait(timeout=CHECK)) is None and not self._stopping.is_set():
            if self._is_ready():
                answered = time.monotonic()
            elif time.monotonic() - answered > DEAF:
                log.warning("%s runs but has not answered for %.0f s", self.child.name, DEAF)
                self.child.kill()
        return code

    def _keep(self) -> None:
        delay = 0.0
        while True:
            since = time.monotonic()
            code = self._watch()
            if self._stopping.is_set():
                return
            asked = self._asked.is_set()
            self._asked.clear()
            steady = time.monotonic() - since > STEADY
            self.state = "restarting"
            if asked:
                delay = 0.0
                log.info("%s is started again, as was asked", self.child.name)
            else:
                delay = FIRST_DELAY if steady else min(max(FIRST_DELAY, delay * 2), MAX_DELAY)
                log.warning("%s ended with exit code %s; it is started again in %.0f s", self.child.name, code, delay)
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
