"""An application that is served by a thread of this process, and again if that ends or hangs: no port stays dead."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from shared.errors import SetupError
from shared.web.server.loop import WebServer

log = logging.getLogger(__name__)

# Seconds between two looks, and looks in a row that find it in the same place, after which a server is taken for dead.
# Not seconds: after a computer's sleep much time has passed.
CHECK, DEAF = 1.0, 120
# Seconds before another takes its place: at first, and at the most.
FIRST_DELAY, MAX_DELAY = 0.5, 30.0


class ServedHere:
    """Keeps an application served. `make` makes a server that listens already; it raises SetupError if it cannot."""

    def __init__(self, name: str, make: Callable[[], WebServer]) -> None:
        self.name = name
        self.restarts = 0
        self._make = make
        self._turns, self._deaf = 0, 0
        self._server: WebServer | None = None
        self._thread: threading.Thread | None = None
        self._keeper = threading.Thread(target=self._keep, name=f"supervisor-{name}", daemon=True)
        self._stopping = threading.Event()

    @property
    def serves(self) -> bool:
        """Whether a server runs now."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Serves from now on. Raises SetupError."""
        self._serve()
        self._keeper.start()

    def stop(self) -> None:
        """Serves no longer."""
        self._stopping.set()
        if self._server is not None:
            self._server.stop()
        for thread in (self._keeper, self._thread):
            if thread is not None and thread.is_alive():
                thread.join(2 * CHECK)

    def _serve(self) -> None:
        self._server = server = self._make()
        self._thread = threading.Thread(target=self._run, args=(server,), name=self.name, daemon=True)
        self._thread.start()

    def _run(self, server: WebServer) -> None:
        try:
            server.run()
        except Exception:
            log.exception("%s: the server cannot go on", self.name)

    def _keep(self) -> None:
        delay = FIRST_DELAY
        while not self._stopping.wait(CHECK):
            if self._is_well():
                delay = FIRST_DELAY
                continue
            log.warning("%s has stopped serving; it is started again in %.1f s", self.name, delay)
            if self._stopping.wait(delay):
                return
            delay = min(2 * delay, MAX_DELAY)
            try:
                self._serve()
            except SetupError as error:
                log.error("%s: %s: %s", self.name, error.step, error.message)
                continue
            self.restarts += 1
            log.info("%s serves again", self.name)

    def _is_well(self) -> bool:
        if self._server is None or not self.serves:
            return False
        self._deaf = self._deaf + 1 if self._server.iterations == self._turns else 0
        self._turns = self._server.iterations
        if self._deaf < DEAF:
            return True
        log.error("%s: the server hangs", self.name)
        self._server.release_ports()
        return False
