"""An application behind the real HTTP server, on a free port, with limits set by the test."""

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
from flask import Blueprint, Response, jsonify, request, send_file

from shared.settings import Settings
from shared.web.app import create_app
from shared.web.server.connections import ConnectionLimits, Connections
from shared.web.server.loop import WebServer
from shared.web.server.run import make_server

# Seconds; generous, because the machine may be busy.
PATIENCE = 30.0


@dataclass
class Served:
    """A running server. `calls` are the paths of requests that reached a route; `go_on` releases waiting requests."""

    port: int
    server: WebServer
    thread: threading.Thread
    stack: ExitStack
    calls: list[str] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    size: int = 8_000_000

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> Connections:
        return self.server.connections

    def connect(self, sent: bytes = b"", *, buffer: int | None = None) -> socket.socket:
        """Open a connection and send these bytes; it is closed after the test."""
        client = socket.socket()
        self.stack.enter_context(client)
        if buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", self.port))
        client.sendall(sent)
        return client

    def get(self, path: str, **more: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=PATIENCE, **more)

    def head(self, method: str, path: str, *lines: str) -> bytes:
        return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: localhost:{self.port}", *lines, "", ""]).encode()

    def answer(self, sent: bytes) -> bytes:
        """Send these bytes, and return all that arrives until the server closes the connection."""
        return read_all(self.connect(sent))


def read_all(client: socket.socket) -> bytes:
    answer = b""
    while piece := client.recv(65536):
        answer += piece
    return answer


def wait_until(condition: Any, failure: str = "it did not happen") -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, failure
        time.sleep(0.01)


@contextmanager
def serving(settings: Settings | None = None, limits: ConnectionLimits | None = None) -> Iterator[Served]:
    """Run a server, and check at the end of the block that it still runs."""
    settings = settings or Settings(threads=8, waiters=1, streams=1)
    routes = Blueprint("routes", __name__)
    running: list[Served] = []

    @routes.route("/quick", methods=["GET", "POST"])
    def quick() -> Response:
        running[0].calls.append(request.path)
        return jsonify({"address": request.remote_addr, "size": len(request.get_data())})

    @routes.get("/wait")
    def wait() -> Response:
        running[0].calls.append(request.path)
        running[0].go_on.wait(PATIENCE)
        return jsonify({"status": "ok"})

    @routes.get("/stream")
    def stream() -> Response:
        def events() -> Iterator[str]:
            yield "data: first\n\n"
            running[0].calls.append("/stream")
            running[0].go_on.wait(PATIENCE)
            yield "data: last\n\n"

        return Response(events(), mimetype="text/event-stream")

    @routes.get("/endless")
    def endless() -> Response:
        def events() -> Iterator[bytes]:
            running[0].calls.append("/endless")
            try:
                while True:
                    yield bytes(100_000)
            finally:
                running[0].calls.append("the end of /endless")

        return Response(events(), mimetype="text/event-stream")

    @routes.get("/picture")
    def picture() -> Response:
        running[0].calls.append(request.path)
        return send_file(io.BytesIO(bytes(running[0].size)), mimetype="image/png")

    app = create_app("test", settings, [routes])
    server = make_server(app, settings, 0, limits=limits)
    errors: list[Exception] = []

    def run() -> None:
        try:
            server.run()
        except Exception as error:  # noqa: BLE001 - it must fail the test
            errors.append(error)

    thread = threading.Thread(target=run, name="server")
    port = server.ports[0]
    with ExitStack() as stack:
        running.append(Served(port, server, thread, stack))
        thread.start()
        try:
            yield running[0]
            assert not errors, errors
            assert thread.is_alive()
        finally:
            running[0].go_on.set()
            server.stop()
            thread.join(PATIENCE)


needs_ipv6 = pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
