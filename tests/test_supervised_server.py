"""Liveness checks distinguish busy services from hanging ones, and failed servers in the launcher are restarted."""

import os
import socket
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import requests

from launcher.stack import is_service_alive
from launcher.supervised_server import SupervisedServer
from shared.jobs.cancel_timeout import StuckJobWatch
from shared.process.supervisor import Child, Supervisor
from shared.settings import PROJECT_DIR, Settings
from shared.web.app import create_app
from shared.web.server.connections import ConnectionLimits
from shared.web.server.liveness import check_liveness, listen_for_liveness_checks
from shared.web.server.loop import WebServer
from shared.web.server.run import make_server
from tests.harness import OpenHarness
from tests.ports import free_ports
from tests.served import PATIENCE, wait_until

# A service with room for four connections.
SERVICE = """
import sys, threading
from pathlib import Path
from flask import Blueprint
from shared.settings import Settings
from shared.web.app import create_app
from shared.web.server.connections import ConnectionLimits
from shared.web.server.liveness import listen_for_liveness_checks
from shared.web.server.run import make_server

routes = Blueprint("routes", __name__)

@routes.get("/wait")
def wait():
    threading.Event().wait(120)
    return ""

settings = Settings(threads=8, waiters=1, streams=1)
app = create_app("test", settings, [routes])
server = make_server(app, settings, int(sys.argv[1]), limits=ConnectionLimits(connections=4, spare=0, per_loopback=4))
listen_for_liveness_checks(server, Path(sys.argv[2]))
server.run()
"""


def answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/health", timeout=PATIENCE).ok
    except requests.RequestException:
        return False


def test_liveness_checks_are_answered_on_an_address_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "run" / "test.probe"
    assert check_liveness(file) is None
    server = make_server(create_app("test", Settings(), []), Settings(), 0, limits=ConnectionLimits(connections=8))
    listen_for_liveness_checks(server, file)
    served = SupervisedServer("test", lambda: server)
    served.start()
    try:
        wait_until(lambda: check_liveness(file) is True)
        address = file.read_text().strip()
        assert requests.get(address.rpartition("/")[0] + "/health", timeout=PATIENCE).status_code == 404
    finally:
        served.stop()
    wait_until(lambda: check_liveness(file) is False)


def test_a_server_that_fails_in_the_launcher_is_restarted() -> None:
    (port,) = free_ports(1)
    servers: list[WebServer] = []

    def make() -> WebServer:
        servers.append(make_server(create_app("test", Settings(), []), Settings(), port))
        return servers[-1]

    served = SupervisedServer("test", make)
    served.start()
    try:
        wait_until(lambda: answers(port))
        servers[0]._listeners[0].socket.close()
        wait_until(lambda: len(servers) == 2 and answers(port))
    finally:
        served.stop()


@pytest.mark.slow
def test_a_server_that_hangs_in_the_launcher_is_replaced_on_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.supervised_server.CHECK_INTERVAL", 0.1)
    monkeypatch.setattr("launcher.supervised_server.MAX_STALLED_CHECKS", 50)
    (port,) = free_ports(1)
    servers: list[WebServer] = []

    def make() -> WebServer:
        servers.append(make_server(create_app("test", Settings(), []), Settings(), port))
        return servers[-1]

    go_on = threading.Event()
    served = SupervisedServer("test", make)
    served.start()
    try:
        wait_until(lambda: answers(port))
        monkeypatch.setattr(servers[0], "_step", go_on.wait)
        wait_until(lambda: len(servers) == 2 and answers(port))
    finally:
        go_on.set()
        served.stop()


@pytest.mark.slow
def test_a_service_is_restarted_when_it_hangs_but_not_when_it_is_crowded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.process.supervisor.CHECK_INTERVAL", 0.05)
    (port,) = free_ports(1)
    probe_file, script = tmp_path / "test.probe", tmp_path / "service.py"
    script.write_text(SERVICE)
    child = Child(
        "test",
        [script, str(port), probe_file],
        python=sys.executable,
        folder=tmp_path,
        log_path=tmp_path / "test.log",
        environ={**os.environ, "PYTHONPATH": str(PROJECT_DIR)},
    )
    checks: list[bool] = []

    def check() -> bool:
        checks.append(is_service_alive(Settings(), port, probe_file))
        return checks[-1]

    supervisor = Supervisor(child, check, PATIENCE)
    supervisor.start()
    try:
        supervisor.wait_ready()
        first = child.pid
        assert first is not None
        with ExitStack() as stack:
            while answers(port):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
                client.sendall(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
            earlier = len(checks)
            wait_until(lambda: len(checks) > earlier + 10)
            assert not answers(port)
            assert all(checks[earlier:])
            assert child.pid == first
        monkeypatch.setattr("shared.process.supervisor.ANSWER_TIMEOUT", 1.0)
        monkeypatch.setattr("shared.web.server.liveness.TIMEOUT", 0.5)
        psutil.Process(first).suspend()
        wait_until(lambda: supervisor.restarts >= 1 and supervisor.state == "ready")
        assert child.pid != first
    finally:
        supervisor.stop()


def test_components_interrupted_during_their_start_can_be_stopped(
    open_harness: OpenHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may arrive at any moment, even while a thread starts."""
    harness, script = open_harness(), tmp_path / "script.py"
    script.write_text("import time\ntime.sleep(60)\n")
    child = Child("thing", [script], python=sys.executable, folder=tmp_path, log_path=tmp_path / "thing.log")
    stuck, supervisor = StuckJobWatch(harness.client, harness.store, 1.0, None), Supervisor(child, lambda: True, 20.0)
    monkeypatch.setattr(harness.runner._listener, "start", lambda: None)
    supervisor.start()

    def interrupted(_thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        for start in (harness.runner.start, stuck.start, supervisor.wait_ready):
            with pytest.raises(KeyboardInterrupt):
                start()
    for stop in (harness.runner.stop, stuck.stop, supervisor.stop):
        stop()
    assert child.pid is None
