"""A web server in a thread of this process, which is restarted if it ends or hangs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from shared.errors import SetupError
from shared.web.server.loop import WebServer

log = logging.getLogger(__name__)

# Seconds between two checks, and checks in a row without progress after which a server counts as hanging. A number of
# checks, not of seconds: after the computer was suspended, much time has passed.
CHECK_INTERVAL, MAX_STALLED_CHECKS = 1.0, 120
# Seconds before a restart: the first delay and the longest one.
FIRST_DELAY, MAX_DELAY = 0.5, 30.0


class SupervisedServer:
    """Runs a server in a thread and restarts it. `make` returns a server that listens, or raises SetupError."""

    def __init__(self, name: str, make: Callable[[], WebServer]) -> None:
        self.name = name
        self.restarts = 0
        self._make = make
        self._iterations, self._stalled_checks = 0, 0
        self._server: WebServer | None = None
        self._thread: threading.Thread | None = None
        self._supervisor = threading.Thread(target=self._supervise, name=f"supervisor-{name}", daemon=True)
        self._stopping = threading.Event()

    @property
    def is_running(self) -> bool:
        """Whether the server's thread is running."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the server and its supervision. Raises SetupError."""
        self._start_server()
        self._supervisor.start()

    def stop(self) -> None:
        """Stop the server and its supervision."""
        self._stopping.set()
        if self._server is not None:
            self._server.stop()
        for thread in (self._supervisor, self._thread):
            if thread is not None and thread.is_alive():
                thread.join(2 * CHECK_INTERVAL)

    def _start_server(self) -> None:
        self._server = server = self._make()
        self._thread = threading.Thread(target=self._run, args=(server,), name=self.name, daemon=True)
        self._thread.start()

    def _run(self, server: WebServer) -> None:
        try:
            server.run()
        except Exception:
            log.exception("%s: the server failed", self.name)

    def _supervise(self) -> None:
        delay = FIRST_DELAY
        while not self._stopping.wait(CHECK_INTERVAL):
            if self._is_healthy():
                delay = FIRST_DELAY
                continue
            log.warning("the %s server has stopped; restarting it in %.1f s", self.name, delay)
            if self._stopping.wait(delay):
                return
            delay = min(2 * delay, MAX_DELAY)
            try:
                self._start_server()
            except SetupError as error:
                log.error("%s: %s: %s", self.name, error.step, error.message)
                continue
            self.restarts += 1
            log.info("the %s server is running again", self.name)

    def _is_healthy(self) -> bool:
        if self._server is None or not self.is_running:
            return False
        self._stalled_checks = self._stalled_checks + 1 if self._server.iterations == self._iterations else 0
        self._iterations = self._server.iterations
        if self._stalled_checks < MAX_STALLED_CHECKS:
            return True
        log.error("%s: the server hangs", self.name)
        self._server.release_ports()
        return False
