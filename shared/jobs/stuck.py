"""Jobs that have ended and still run in the engine: only a restart of the engine ends those.

ComfyUI looks for an interruption between two nodes and between two steps of a sampler. A node that computes for hours
never looks, and one that loads a large model from a slow disk not for minutes. So the engine is given some patience.
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

# Seconds between two looks at the engine's queue, and in which it must answer.
LOOK = 2.0
TIMEOUT = 5.0


def ended_but_running(engine: EngineClient, store: Store, timeout: float = TIMEOUT) -> list[JobRow]:
    """The jobs that have ended, by their rows, and still run in the engine. Raises EngineError and StorageFailed."""
    running, _ = engine.get_queue(timeout)
    return [row for job_id in running if (row := store.get(job_id)) is not None and row.state.finished]


class StuckJobs:
    """Watches one engine in a thread of its own, and calls `restart` with a reason when a job has ended and still runs
    after `patience` seconds. Without `restart` it only says so, once for each job.

    A prompt that others sent to the engine has no row here, and is left alone.
    """

    def __init__(
        self, engine: EngineClient, store: Store, patience: float, restart: Callable[[str], None] | None
    ) -> None:
        self._engine = engine
        self._store = store
        self._patience = patience
        self._restart = restart
        # When each job that has ended was first seen to run still, on the monotonic clock.
        self._since: dict[str, float] = {}
        # What runs and had a row when it was seen first: the row may be removed meanwhile.
        self._ours: set[str] = set()
        self._told: set[str] = set()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread."""
        self._thread = threading.Thread(target=self._watch, name="stuck-jobs", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._closed.set()
        # Ctrl-C may have come before it was started.
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout=TIMEOUT)

    def look(self) -> None:
        """Looks once. Raises EngineError and StorageFailed."""
        running, _ = self._engine.get_queue(TIMEOUT)
        states = {job_id: self._store.state(job_id) for job_id in running}
        self._ours = {job_id for job_id, state in states.items() if state is not None or job_id in self._ours}
        now = time.monotonic()
        self._since = {
            job_id: self._since.get(job_id, now)
            for job_id in self._ours
            if (state := states[job_id]) is None or state.finished
        }
        self._told &= self._since.keys()
        for job_id, since in self._since.items():
            if now - since >= self._patience:
                self._end(job_id, now - since)
            else:
                # Whoever cancelled it may have died before the engine was told.
                self._engine.cancel(job_id)

    def _end(self, job_id: str, seconds: float) -> None:
        reason = f"job {job_id} has ended, and the engine still worked on it after {seconds:.0f} s"
        if self._restart is not None:
            log.warning("%s: it is started again", reason)
            self._restart(reason)
        elif job_id not in self._told:
            self._told.add(job_id)
            log.warning(
                "%s; nothing else is drawn until it is done. It was not started here: restart it where it runs (%s)",
                reason,
                self._engine.address,
            )

    def _watch(self) -> None:
        while not self._closed.wait(LOOK):
            try:
                self.look()
            except (EngineError, StorageFailed) as error:
                log.debug("no look at the engine's queue: %s", error)
            except DreamLayerError as error:
                log.warning("the engine could not be started again: %s", error)
            except Exception:
                log.exception("a look for jobs that are stuck failed; the next one comes")
