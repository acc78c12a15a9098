"""The engine as the control service sees it: its state, and its restarts."""

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

# Seconds that the engine may take to report its state, and between two checks of whether it is idle.
STATE_TIMEOUT = 3.0
IDLE_CHECK_INTERVAL = 0.5
REQUESTED = "requested by a client"


class EngineManager:
    """Reports the state of one engine and restarts it. `supervisor` is None for an engine that others started.

    `make_command` builds its command line from the current settings. `count_unfinished` counts the unfinished jobs.
    `on_stopped` is called each time the engine was ended on purpose.
    """

    def __init__(
        self,
        engine: EngineClient,
        supervisor: Supervisor | None,
        make_command: Callable[[], Sequence[str | Path]],
        count_unfinished: Callable[[], int],
        on_stopped: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._supervisor = supervisor
        self._make_command = make_command
        self._count_unfinished = count_unfinished
        self._on_stopped = on_stopped
        self._last_restart: dict[str, Any] | None = None
        self._lock = threading.Lock()
        self._idle_restart: threading.Thread | None = None
        # The id of the process that is to end as soon as it is idle.
        self._outdated_pid: int | None = None
        self._closed = threading.Event()

    @property
    def is_ours(self) -> bool:
        """Whether this launcher started the engine."""
        return self._supervisor is not None

    def state(self) -> dict[str, Any]:
        """Return the body of GET /api/engine, without the facts that only the engine knows while it does not answer."""
        supervisor = self._supervisor
        state: dict[str, Any] = {"state": "external"}
        if supervisor is not None:
            uptime = supervisor.child.uptime
            state = {
                "state": supervisor.state,
                "pid": supervisor.child.pid,
                "restarts": supervisor.restarts,
                "uptime_s": None if uptime is None else round(uptime, 1),
                "restart_pending": self.restart_pending,
                "last_restart": self._last_restart,
            }
        state |= {"address": self._engine.address, "answers": False, "unfinished_jobs": self._count_unfinished()}
        try:
            state |= summarise_stats(self._engine.get_system_stats(STATE_TIMEOUT))
            running, pending = self._engine.get_queue(STATE_TIMEOUT)
        except EngineError as error:
            return {**state, "message": error.message}
        return {**state, "answers": True, "queue": {"running": len(running), "pending": len(pending)}}

    @property
    def restart_pending(self) -> bool:
        """Whether the engine will be restarted as soon as it is idle."""
        thread = self._idle_restart
        return thread is not None and thread.is_alive()

    def restart(self, *, when_idle: bool, reason: str = REQUESTED) -> None:
        """Restart the engine with the current settings: at once, or in the background when no job is left.

        `state` reports the `reason`. Running jobs are sent again. Raises NotPossible for an engine that others started,
        and EngineUnavailable for one that is still starting.
        """
        supervisor = self._supervisor
        if supervisor is None:
            raise NotPossible(
                "this launcher did not start the engine, so it cannot restart it",
                hint="restart it where it runs, or unset DREAM_LAYER_ENGINE_URL",
            )
        if not when_idle and supervisor.state in ("starting", "stopped"):
            raise EngineUnavailable("the engine is still starting", retry_after=5)
        supervisor.child.set_command([str(part) for part in self._make_command()])
        if not when_idle:
            self._restart_supervised(supervisor, reason)
            return
        with self._lock:
            self._outdated_pid = supervisor.child.pid
            if not self.restart_pending:
                self._idle_restart = threading.Thread(target=self._restart_idle, name="engine-restart", daemon=True)
                self._idle_restart.start()

    def restart_now(self, reason: str) -> None:
        """Restart the engine at once (see `restart`)."""
        self.restart(when_idle=False, reason=reason)

    def free_memory(self) -> None:
        """Let the engine drop models and cached results from memory, as soon as no job runs. Raises EngineError."""
        self._engine.free_memory()

    def close(self) -> None:
        """Cancel a pending restart."""
        self._closed.set()

    def _restart_idle(self) -> None:
        supervisor = self._supervisor
        if supervisor is None:
            return
        while not self._closed.wait(IDLE_CHECK_INTERVAL):
            if supervisor.state != "ready":
                continue
            # A process that died in the meantime was restarted with the new command already.
            if supervisor.child.pid != self._outdated_pid:
                return
            if self._is_idle():
                log.info("no job is left: restarting the engine, as requested")
                self._restart_supervised(supervisor, REQUESTED)
                return

    def _restart_supervised(self, supervisor: Supervisor, reason: str) -> None:
        self._last_restart = {"at": round(time.time(), 1), "reason": reason}
        supervisor.restart()
        self._on_stopped()

    def _is_idle(self) -> bool:
        try:
            return self._count_unfinished() == 0 and not any(self._engine.get_queue())
        except EngineError:
            return False


def summarise_stats(stats: dict[str, Any]) -> dict[str, Any]:
    """Pick version, memory and devices from /system_stats, and leave out the command line and other private facts."""
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
