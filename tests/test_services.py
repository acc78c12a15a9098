"""GET /api/services: which services run, and where the caller finds their pages."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from shared.settings import Settings
from shared.web.backend import Backend
from shared.web.routes.system import docs_url, is_running, ports_of
from tests.ports import free_ports
from tests.served import serving
from tests.test_openapi import SERVICES

DEFAULTS = ports_of(Settings())
KEY = "correct horse battery"


@pytest.mark.parametrize(
    ("base", "found"),
    [
        ("http://localhost:5001", "http://localhost:5004/docs"),
        ("http://127.0.0.1:5002", "http://127.0.0.1:5004/docs"),
        ("http://[::1]:5007", "http://[::1]:5004/docs"),
        # By the public address of another of ours.
        ("http://studio.local:5001", "http://studio.local:5004/docs"),
        ("https://studio.example", None),
        ("https://studio.example/dream", None),
        ("http://localhost:5001/dream", None),
        ("http://localhost:8001", None),
        ("http://localhost", None),
    ],
)
def test_the_pages_are_where_the_caller_reaches_them(base: str, found: str | None) -> None:
    assert docs_url(base, 5004, DEFAULTS) == found


class Stranger(BaseHTTPRequestHandler):
    """Another program, which answers whatever it is asked."""

    content = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(params=[b"", b"<html>", b"[]", b'{"service": "other"}', b"{" * 100_000, b"\xff"], ids=len)
def stranger(request: pytest.FixtureRequest) -> Iterator[int]:
    handler = type("Handler", (Stranger,), {"content": request.param})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_another_program_is_none_of_ours(stranger: int) -> None:
    assert not is_running("127.0.0.1", stranger, "txt2img")


def test_a_service_of_ours_runs_until_it_ends() -> None:
    with serving() as served:
        assert is_running("127.0.0.1", served.port, "test")
        assert is_running("localhost", served.port, "test")
        assert not is_running("127.0.0.1", served.port, "txt2img")
    assert not is_running("127.0.0.1", served.port, "test")


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_tells_of_all(tmp_path: Path, service: str) -> None:
    names = ("txt2img", "img2img", "control", "extras", "runs", "report", "img2txt")
    ports = dict(zip((f"{name}_port" for name in names), free_ports(len(names)), strict=True))
    backend = Backend(Settings(engine_url="http://127.0.0.1:9", data_dir=tmp_path, api_key=KEY, **ports))
    try:
        client = SERVICES[service](backend).test_client()
        assert client.get("/api/services").status_code == 401
        reply = client.get(
            "/api/services", headers={"X-API-Key": KEY, "Host": f"localhost:{ports[f'{service}_port']}"}
        ).json
    finally:
        backend.stop()
    assert reply is not None
    assert [each["name"] for each in reply["services"]] == list(names)
    assert {each["service"] for each in reply["services"]} == set(SERVICES)
    assert not any(each["running"] for each in reply["services"])
    assert [each["docs"] for each in reply["services"]] == [f"http://localhost:{port}/docs" for port in ports.values()]
