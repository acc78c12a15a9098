"""A supervisor tells a crowded service from one that hangs, and a server that ends in the launcher is started again."""

from pathlib import Path

import requests

from launcher.serving import ServedHere
from shared.settings import Settings
from shared.web.app import create_app
from shared.web.connections import Limits
from shared.web.probe import listen_for_probes, probe
from shared.web.serve import make_server
from shared.web.serving import WebServer
from tests.conftest import free_ports
from tests.served import PATIENCE, wait_until


def test_a_probe_is_answered_where_no_stranger_is(tmp_path: Path) -> None:
    file = tmp_path / "run" / "test.probe"
    assert probe(file) is None
    server = make_server(create_app("test", Settings(), []), Settings(), 0, limits=Limits(connections=8))
    listen_for_probes(server, file)
    served = ServedHere("test", lambda: server)
    served.start()
    try:
        wait_until(lambda: probe(file) is True)
        address = file.read_text().strip()
        assert requests.get(address.rpartition("/")[0] + "/health", timeout=PATIENCE).status_code == 404
    finally:
        served.stop()
    wait_until(lambda: probe(file) is False)


def test_a_server_that_fails_in_the_launcher_is_started_again() -> None:
    (port,) = free_ports(1)
    made: list[WebServer] = []

    def make() -> WebServer:
        made.append(make_server(create_app("test", Settings(), []), Settings(), port))
        return made[-1]

    def lives() -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{port}/health", timeout=PATIENCE).ok
        except requests.RequestException:
            return False

    served = ServedHere("test", make)
    served.start()
    try:
        wait_until(lives)
        made[0]._listeners[0].socket.close()
        wait_until(lambda: len(made) == 2 and lives())
    finally:
        served.stop()
