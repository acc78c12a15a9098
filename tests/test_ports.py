"""Ports: checks before a start, and the ports of the web page, of which some may be in use."""

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from shared.errors import SetupError
from shared.settings import PREFIX, PROJECT_DIR, Settings
from shared.web.server.ports import check_port, find_free_ports
from tests.ports import free_ports
from tests.served import serving
from tests.stack import TIMEOUT, TestStack, launched, launcher_environment, wait_for_health

SERVER = """
import sys
from flask import Flask
from shared.settings import Settings
from shared.web.app import create_app
from shared.web.server.run import serve_waitress

settings = Settings()
serve_waitress(create_app("control", settings, []), settings, *map(int, sys.argv[1:]))
"""


def listen(port: int) -> socket.socket:
    """Listen on a port, like another program."""
    other = socket.socket()
    other.bind(("127.0.0.1", port))
    other.listen()
    return other


def test_the_ports_of_the_page_are_settings() -> None:
    assert Settings(runs_port=6000).page_ports == {
        f"{PREFIX}EXTRAS_PORT": 5003,
        f"{PREFIX}RUNS_PORT": 6000,
        f"{PREFIX}REPORT_PORT": 5006,
        f"{PREFIX}IMG2TXT_PORT": 5007,
    }


def test_free_ports_are_distinguished_from_ports_in_use() -> None:
    free, other = free_ports(2)
    with listen(other):
        usable, problems = find_free_ports("127.0.0.1", {"A": free, "B": other})
    assert usable == [free]
    (problem,) = problems
    assert (problem.step, problem.hint) == (f"port {other}", "stop that program, or set B to a free port")


def test_a_service_of_ours_on_the_port_is_distinguished_from_other_programs(tmp_path: Path) -> None:
    with (
        serving(Settings(threads=8, waiters=1, streams=1, data_dir=tmp_path)) as served,
        pytest.raises(SetupError) as wrong,
    ):
        check_port("127.0.0.1", served.port, "A")
    assert wrong.value.message == "the test service of Dream Layer is already running on it"
    assert "status" in str(wrong.value.hint)


@pytest.mark.parametrize("host", ["192.0.2.1", "999.1.1.1", "2001:db8::1"])
def test_a_host_that_is_not_this_machine_is_refused(host: str) -> None:
    with pytest.raises(SetupError) as wrong:
        check_port(host, free_ports(1)[0], "A")
    assert wrong.value.step == "host"
    assert f"{host} is not an address of this machine" in wrong.value.message
    assert "DREAM_LAYER_HOST" in str(wrong.value.hint)


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n\r\n[]", b'HTTP/1.1 200 OK\r\n\r\n{"a": 1}']
)
def test_a_port_in_use_by_another_program_is_reported(answer: bytes) -> None:
    (port,) = free_ports(1)
    with listen(port) as other, ThreadPoolExecutor(1) as pool:

        def answer_all() -> None:
            for _ in range(2):
                client, _ = other.accept()
                with client:
                    client.sendall(answer)

        answering = pool.submit(answer_all)
        with pytest.raises(SetupError, match="another program is using it"):
            check_port("127.0.0.1", port, "A")
        answering.result(timeout=TIMEOUT)


@pytest.mark.slow
def test_one_application_answers_on_many_ports() -> None:
    ports = free_ports(3)
    server = subprocess.Popen([sys.executable, "-c", SERVER, *map(str, ports)], cwd=PROJECT_DIR)
    try:
        for port in ports:
            wait_for_health(f"http://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait(timeout=15)


def test_every_port_of_the_launcher_has_every_route(stack: TestStack) -> None:
    for url in (stack.control, stack.extras, stack.runs, stack.report, stack.img2txt):
        assert requests.get(f"{url}/health", timeout=TIMEOUT).json()["service"] == "control"
        assert requests.get(f"{url}/api/runs", timeout=TIMEOUT).json()["status"] == "success"


@pytest.mark.parametrize("name", ["extras", "runs", "report", "img2txt"])
def test_the_page_may_send_requests_and_read_errors(stack: TestStack, name: str) -> None:
    url, origin = getattr(stack, name), {"Origin": "http://localhost:8080"}
    preflight = {"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "content-type"}
    allowed = requests.options(f"{url}/api/runs/1", headers={**origin, **preflight}, timeout=TIMEOUT)
    assert allowed.headers["Access-Control-Allow-Origin"] == "http://localhost:8080"
    assert "DELETE" in allowed.headers["Access-Control-Allow-Methods"]
    missing = requests.get(f"{url}/nowhere", headers=origin, timeout=TIMEOUT)
    assert (missing.status_code, missing.json()["status"]) == (404, "error")
    assert missing.headers["Access-Control-Allow-Origin"] == "http://localhost:8080"
    refused = requests.get(f"{url}/api/runs", headers={"Origin": "http://evil.example"}, timeout=TIMEOUT)
    assert refused.status_code == 403


def test_a_page_port_in_use_is_reported_and_the_others_are_served(stack: TestStack, tmp_path: Path) -> None:
    environ = launcher_environment(tmp_path / "data")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "models").symlink_to(stack.data_dir / "models", target_is_directory=True)
    port = int(environ[f"{PREFIX}RUNS_PORT"])
    with ExitStack() as opened:
        opened.enter_context(listen(port))
        running = opened.enter_context(launched(tmp_path, environ))
        assert f"without port {port}: another program is using it" in running.output()
        assert f"set {PREFIX}RUNS_PORT to a free port" in running.output()
        for url in (running.control, running.extras, running.report, running.img2txt):
            assert requests.get(f"{url}/api/runs", timeout=TIMEOUT).ok
