"""Stuck jobs: the engine still runs them after their end, such as a cancellation. Only a restart of it ends them.

ComfyUI checks for an interruption between nodes and between the steps of a sampler. A node that computes for hours
never checks, and one that reads a large model from a slow disk does not for minutes. So there is a timeout.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from shared.engine.client import EngineClient
from shared.errors import DreamLayerError, EngineError, StorageFailed
from shared.jobs.job import JobRow
from shared.jobs.store import Store

log = logging.getLogger(__name__)

# Seconds between two checks of the engine's queue, and for its answer.
CHECK_INTERVAL = 2.0
ENGINE_TIMEOUT = 5.0


def finished_but_running(engine: EngineClient, store: Store, timeout: float = ENGINE_TIMEOUT) -> list[JobRow]:
    """The finished jobs that the engine still runs. Raises EngineError and StorageFailed."""
    running, _ = engine.get_queue(timeout)
    return [row for job_id in running if (row := store.get(job_id)) is not None and row.state.finished]


class StuckJobWatch:
    """Checks one engine in a thread.

    If a finished job still runs after `timeout` seconds, it calls `restart` with the reason. Without `restart`, it logs
    a warning, once per job. Prompts that other programs sent to the engine are ignored.
    """

    def __init__(
        self, engine: EngineClient, store: Store, timeout: float, restart: Callable[[str], None] | None
    ) -> None:
        self._engine = engine
        self._store = store
        self._timeout = timeout
        self._restart = restart
        # When each finished job was first seen running, on the monotonic clock.
        self._since: dict[str, float] = {}
        # The running prompts that are jobs. Their rows may have been deleted since.
        self._known: set[str] = set()
        self._warned: set[str] = set()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="stuck-jobs", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stopped.set()
        # It may not have started yet if Ctrl-C interrupted `start`.
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout=ENGINE_TIMEOUT)

    def check(self) -> None:
        """Check once. Raises EngineError and StorageFailed."""
        running, _ = self._engine.get_queue(ENGINE_TIMEOUT)
        states = {job_id: self._store.state(job_id) for job_id in running}
        self._known = {job_id for job_id, state in states.items() if state is not None or job_id in self._known}
        now = time.monotonic()
        self._since = {
            job_id: self._since.get(job_id, now)
            for job_id in self._known
            if (state := states[job_id]) is None or state.finished
        }
        self._warned &= self._since.keys()
        for job_id, since in self._since.items():
            if now - since >= self._timeout:
                self._report(job_id, now - since)
            else:
                # The process that cancelled the job may have died before it reached the engine.
                self._engine.cancel(job_id)

    def _report(self, job_id: str, seconds: float) -> None:
        reason = f"the engine still runs job {job_id}, {seconds:.0f} s after its end"
        if self._restart is not None:
            log.warning("%s; restarting the engine", reason)
            self._restart(reason)
        elif job_id not in self._warned:
            self._warned.add(job_id)
            log.warning(
                "%s; other jobs wait for it. Restart the engine at %s, which was not started by this program",
                reason,
                self._engine.address,
            )

    def _run(self) -> None:
        while not self._stopped.wait(CHECK_INTERVAL):
            try:
                self.check()
            except (EngineError, StorageFailed) as error:
                log.debug("could not check for stuck jobs: %s", error)
            except DreamLayerError as error:
                log.warning("the engine could not be restarted: %s", error)
            except Exception:
                log.exception("a check for stuck jobs failed; the next one follows in %.0f s", CHECK_INTERVAL)
