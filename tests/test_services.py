"""GET /api/services: the state of the services and the URLs of their docs pages."""

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
    ("base", "expected"),
    [
        ("http://localhost:5001", "http://localhost:5004/docs"),
        ("http://127.0.0.1:5002", "http://127.0.0.1:5004/docs"),
        ("http://[::1]:5007", "http://[::1]:5004/docs"),
        # Requested through another service of the stack.
        ("http://studio.local:5001", "http://studio.local:5004/docs"),
        ("https://studio.example", None),
        ("https://studio.example/dream", None),
        ("http://localhost:5001/dream", None),
        ("http://localhost:8001", None),
        ("http://localhost", None),
    ],
)
def test_docs_urls_use_the_address_that_the_client_used(base: str, expected: str | None) -> None:
    assert docs_url(base, 5004, DEFAULTS) == expected


class OtherProgram(BaseHTTPRequestHandler):
    """Another program, which answers every request with the same content."""

    content = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(params=[b"", b"<html>", b"[]", b'{"service": "other"}', b"{" * 100_000, b"\xff"], ids=len)
def other_program(request: pytest.FixtureRequest) -> Iterator[int]:
    handler = type("Handler", (OtherProgram,), {"content": request.param})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_another_program_on_the_port_is_not_a_running_service(other_program: int) -> None:
    assert not is_running("127.0.0.1", other_program, "txt2img")


def test_a_service_is_running_until_it_stops() -> None:
    with serving() as served:
        assert is_running("127.0.0.1", served.port, "test")
        assert is_running("localhost", served.port, "test")
        assert not is_running("127.0.0.1", served.port, "txt2img")
    assert not is_running("127.0.0.1", served.port, "test")


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_lists_all_services(tmp_path: Path, service: str) -> None:
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
    assert [entry["name"] for entry in reply["services"]] == list(names)
    assert {entry["service"] for entry in reply["services"]} == set(SERVICES)
    assert not any(entry["running"] for entry in reply["services"])
    assert [entry["docs"] for entry in reply["services"]] == [
        f"http://localhost:{port}/docs" for port in ports.values()
    ]
