"""The engine as its supervisor sees it: what it is, how it does, and when it may be started again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shared.engine.client import EngineClient
from shared.errors import EngineError, EngineUnavailable, NotPossible
from shared.process.supervisor import Supervisor

log = logging.getLogger(__name__)

# Seconds in which it must answer who asks for its state, and between two looks at whether it has become idle.
TIMEOUT = 3.0
LOOK = 0.5
ASKED = "somebody asked for it"


class EngineManager:
    """One engine; `supervisor` is None for one that others started, which can be looked at but not started again.

    `command` makes its command line anew, from what is set now. `unfinished` counts the jobs that are still to be done.
    `stopped` is called each time when the engine was ended on purpose.
    """

    def __init__(
        self,
        engine: EngineClient,
        supervisor: Supervisor | None,
        command: Callable[[], Sequence[str | Path]],
        unfinished: Callable[[], int],
        stopped: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._keeper = supervisor
        self._command = command
        self._unfinished = unfinished
        self._stopped = stopped
        self._last_restart: dict[str, Any] | None = None
        self._lock = threading.Lock()
        self._waiting: threading.Thread | None = None
        # The process that is to end as soon as it is idle.
        self._outdated: int | None = None
        self._closed = threading.Event()

    @property
    def ours(self) -> bool:
        """Whether it was started here."""
        return self._keeper is not None

    def state(self) -> dict[str, Any]:
        """Everything that GET /api/engine tells. What only the engine knows is left out while it does not answer."""
        supervisor = self._keeper
        told: dict[str, Any] = {"state": "external"}
        if supervisor is not None:
            uptime = supervisor.child.uptime
            told = {
                "state": supervisor.state,
                "pid": supervisor.child.pid,
                "restarts": supervisor.restarts,
                "uptime_s": None if uptime is None else round(uptime, 1),
                "restart_pending": self.restart_pending,
                "last_restart": self._last_restart,
            }
        told |= {"address": self._engine.address, "answers": False, "unfinished_jobs": self._unfinished()}
        try:
            told |= summarise_stats(self._engine.system_stats(TIMEOUT))
            running, pending = self._engine.queue(TIMEOUT)
        except EngineError as error:
            return {**told, "message": error.message}
        return {**told, "answers": True, "queue": {"running": len(running), "pending": len(pending)}}

    @property
    def restart_pending(self) -> bool:
        """Whether it will be started again as soon as it is idle."""
        waiting = self._waiting
        return waiting is not None and waiting.is_alive()

    def restart(self, *, when_idle: bool, reason: str = ASKED) -> None:
        """Starts it again, with what is set now: at once, or when no job is left, without waiting for that.

        `reason` is told by `state`. Jobs that it runs are drawn again. Raises NotPossible for an engine of others,
        EngineUnavailable for one that has not been ready yet and would have to start again at once.
        """
        supervisor = self._keeper
        if supervisor is None:
            raise NotPossible(
                "this engine was not started here, so it cannot be started again from here",
                hint="restart it where it runs, or unset DREAM_LAYER_ENGINE_URL",
            )
        if not when_idle and supervisor.state in ("starting", "stopped"):
            raise EngineUnavailable("the engine is still starting", retry_after=5)
        supervisor.child.set_command([str(part) for part in self._command()])
        if not when_idle:
            self._end(supervisor, reason)
            return
        with self._lock:
            self._outdated = supervisor.child.pid
            if not self.restart_pending:
                self._waiting = threading.Thread(target=self._restart_idle, name="engine-restart", daemon=True)
                self._waiting.start()

    def restart_now(self, reason: str) -> None:
        """As `restart`, at once."""
        self.restart(when_idle=False, reason=reason)

    def free(self) -> None:
        """Has it drop models and cached results from memory, as soon as no job runs. Raises EngineError."""
        self._engine.free()

    def close(self) -> None:
        """Gives up waiting for the engine to be idle."""
        self._closed.set()

    def _restart_idle(self) -> None:
        supervisor = self._keeper
        if supervisor is None:
            return
        while not self._closed.wait(LOOK):
            if supervisor.state != "ready":
                continue
            # The same process still, or did it die meanwhile, and was started as it is wanted?
            if supervisor.child.pid != self._outdated:
                return
            if self._idle():
                log.info("no job is left, so the engine is started again, as was asked")
                self._end(supervisor, ASKED)
                return

    def _end(self, supervisor: Supervisor, reason: str) -> None:
        self._last_restart = {"at": round(time.time(), 1), "reason": reason}
        supervisor.restart()
        self._stopped()

    def _idle(self) -> bool:
        try:
            return self._unfinished() == 0 and not any(self._engine.queue())
        except EngineError:
            return False


def summarise_stats(stats: dict[str, Any]) -> dict[str, Any]:
    """What an engine says of itself, without its command line and other matters of its machine."""
    system, devices = stats.get("system"), stats.get("devices")
    system = system if isinstance(system, dict) else {}
    return {
        "version": system.get("comfyui_version"),
        "python": str(system.get("python_version", "")).split(" ")[0] or None,
        "torch": system.get("pytorch_version"),
        "memory": {"total": system.get("ram_total"), "free": system.get("ram_free")},
        "devices": [
            {
                "name": device.get("name"),
                "type": device.get("type"),
                "memory": {"total": device.get("vram_total"), "free": device.get("vram_free")},
            }
            for device in (devices if isinstance(devices, list) else [])
            if isinstance(device, dict)
        ],
    }
