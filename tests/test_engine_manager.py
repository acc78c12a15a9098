"""The state of the engine in the control service, and restarts of the engine."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from shared.engine.client import EngineClient
from shared.engine.manager import EngineManager, summarise_stats
from shared.errors import DreamLayerError, NotPossible
from shared.process.supervisor import Child, Supervisor
from tests.control import Control, body


def test_an_external_engine_is_not_restarted(tmp_path: Path) -> None:
    manager = EngineManager(EngineClient("http://127.0.0.1:9"), None, list, lambda: 0)
    state = manager.state()
    assert state["state"] == "external"
    assert state["answers"] is False
    with pytest.raises(NotPossible):
        manager.restart(when_idle=False)
    with pytest.raises(DreamLayerError):
        manager.free_memory()


def test_stats_are_reported_without_the_command_line() -> None:
    stats = {
        "system": {"comfyui_version": "0.30.0", "python_version": "3.11.2 (main)", "argv": ["/secret"], "ram_total": 8},
        "devices": [{"name": "cpu", "type": "cpu", "vram_total": 8, "vram_free": 4}, "nonsense"],
    }
    summary = summarise_stats(stats)
    assert summary["version"] == "0.30.0"
    assert summary["python"] == "3.11.2"
    assert summary["devices"] == [{"name": "cpu", "type": "cpu", "memory": {"total": 8, "free": 4}}]
    assert "secret" not in json.dumps(summary)


class IdleEngine(EngineClient):
    """An engine client that reports a queue of `jobs` jobs."""

    jobs = 1

    def get_queue(self, timeout: float = 0) -> tuple[frozenset[str], frozenset[str]]:
        return frozenset(map(str, range(self.jobs))), frozenset()


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_pending_restart_happens_when_the_engine_is_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.engine.manager.IDLE_CHECK_INTERVAL", 0.02)
    monkeypatch.setattr("shared.process.supervisor.FIRST_DELAY", 30.0)
    script = tmp_path / "script.py"
    script.write_text("import sys, time\nprint(sys.argv[1:], flush=True)\ntime.sleep(60)\n")
    child = Child("thing", [script, "old"], python=sys.executable, folder=tmp_path, log_path=tmp_path / "log")
    supervisor = Supervisor(child, lambda: child.pid is not None and child.tail_log() != "", 20)
    engine = IdleEngine("http://127.0.0.1:9")
    manager = EngineManager(engine, supervisor, lambda: [str(script), "new"], lambda: 0)
    try:
        supervisor.start()
        supervisor.wait_ready()
        first = child.pid
        manager.restart(when_idle=True)
        time.sleep(0.3)
        assert child.pid == first
        assert manager.restart_pending
        engine.jobs = 0
        wait_until(lambda: supervisor.restarts == 1 and supervisor.state == "ready")
        assert child.tail_log() == "['new']"
        wait_until(lambda: not manager.restart_pending)
        manager.restart(when_idle=False)
        wait_until(lambda: supervisor.restarts == 2 and supervisor.state == "ready")
    finally:
        manager.close()
        supervisor.stop()


def test_when_idle_is_read_from_the_body_or_query(control: Control) -> None:
    assert control.client.post("/api/engine/restart").status_code == 202
    assert body(control.client.post("/api/engine/restart", json={"when_idle": True}))["when_idle"] is True
    assert body(control.client.post("/api/engine/restart?when_idle=true"))["when_idle"] is True
    assert control.client.post("/api/engine/restart", json={"when_idle": "maybe"}).status_code == 422
    assert control.client.post("/api/engine/restart?when_idle=maybe").status_code == 422
    assert control.client.post("/api/engine/free").status_code == 503
    assert control.client.get("/api/engine").status_code == 200
