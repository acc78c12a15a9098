"""The guard of the engine's port, tested with raw requests, and the access of our own clients."""

import json
import logging
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests
import websocket

from shared.engine.client import TOKEN_FILE, EngineAccess, EngineClient, create_token, engine_access
from shared.engine.process import GUARD
from shared.errors import EngineDenied, EngineError, SetupError
from shared.jobs.job import State
from shared.process.supervisor import Child, ChildGuard, Supervisor
from shared.settings import Settings
from tests.fake_engine import BLOCKED, FakeEngine
from tests.harness import Harness, wait_for, wait_until_running

TOKEN = "a-token-of-this-start"
# A server like ComfyUI's: a middleware that answers preflights, a sub-app at /internal, a websocket, static files.
SERVER = """
import asyncio, pathlib, sys
from aiohttp import web

@web.middleware
async def preflights(request, handler):
    return web.Response() if request.method == "OPTIONS" else await handler(request)

async def answer(request):
    return web.Response(text="reached")

async def listen(request):
    line = web.WebSocketResponse()
    await line.prepare(request)
    await line.send_str("reached")
    await line.close()
    return line

async def main():
    app, internal = web.Application(middlewares=[preflights]), web.Application()
    internal.add_routes([web.get("/logs", answer)])
    app.add_subapp("/internal", internal)
    app.add_routes([web.get("/", answer), web.get("/ws", listen), web.post("/prompt", answer)])
    app.add_routes([web.get("/view", answer), web.static("/", pathlib.Path.cwd())])
    app.middlewares.insert(0, preflights)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], sys.argv[1:], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@dataclass(frozen=True)
class Guarded:
    """A server behind the guard, in a child process started like the engine."""

    child: Child
    port: int

    def send(self, head: str, body: bytes = b"") -> tuple[int, str]:
        """Send a request with this head and return the status and text of the response. {port} is replaced."""
        lines = [*head.strip().replace("{port}", str(self.port)).splitlines(), f"Content-Length: {len(body)}"]
        sent = "".join(f"{line.strip()}\r\n" for line in [*lines, "Connection: close", ""]).encode("latin-1") + body
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as sock:
            sock.sendall(sent)
            response = b"".join(iter(lambda: sock.recv(65536), b""))
        return int(response.split()[1]), response.decode("utf-8", "replace")


def serve(folder: Path, token: str = TOKEN) -> Child:
    script = folder / "server.py"
    script.write_text(SERVER)
    (folder / "file.js").write_text("reached")
    return Child(
        "guarded",
        [script, "argument"],
        python=sys.executable,
        folder=folder,
        log_path=folder / "guarded.log",
        guard=ChildGuard(GUARD, lambda: token),
    )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    child = serve(tmp_path_factory.mktemp("guarded"))
    child.start()
    wait_for(
        lambda: child.tail_log().endswith("['argument']") or child.wait(0) is not None, "the server does not listen"
    )
    yield Guarded(child, int(child.tail_log().split()[0]))
    child.stop()


HOSTS = ("127.0.0.1:{port}", "localhost:{port}", "LocalHost:{port}", "[::1]:{port}")
FOREIGN_HOSTS = (
    *("evil.example", "evil.example:{port}", "localhost", "127.0.0.1", "localhost:1", "localhost.:{port}"),
    *("localhost.evil.example:{port}", "127.0.0.1.evil.example:{port}", "evil.example#127.0.0.1:{port}", ""),
    *("a@127.0.0.1:{port}", "127.0.0.2:{port}", "0.0.0.0:{port}", "[::]:{port}", "[::ffff:127.0.0.1]:{port}"),
    *("2130706433:{port}", "127.1:{port}", "localhost:{port}, evil.example", "localhost:{port}:{port}", "::1:{port}"),
    *("localhost:0{port}", "http://localhost:{port}", "[0:0:0:0:0:0:0:1]:{port}", "[::1%lo]:{port}"),
)
ROUTES = ("GET /", "GET /?token=old", "POST /prompt", "GET /view?filename=a.png", "GET /internal/logs", "GET /file.js")
OTHERS = ("GET /not-there", "OPTIONS /prompt", "HEAD /view", "PUT /prompt", "GET /ws", "GET //", "GET /..", "OPTIONS *")


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("route", ROUTES)
def test_requests_with_the_token_are_accepted(guarded: Guarded, host: str, route: str) -> None:
    for head in (f"Authorization: Bearer {TOKEN}", f"Cookie: a=b; dream_layer_engine_{{port}}={TOKEN}; c=d"):
        text = guarded.send(f"{route} HTTP/1.1\nHost: {host}\n{head}")
        assert (text[0], text[1].endswith("reached")) == (200, True)


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_another_host_is_refused_even_with_the_token(guarded: Guarded, host: str) -> None:
    for route in (*ROUTES, *OTHERS):
        status, text = guarded.send(f"{route} HTTP/1.1\nHost: {host}\nAuthorization: Bearer {TOKEN}")
        # aiohttp itself refuses an invalid Host with 400.
        assert status in (400, 403), route
        assert "reached" not in text


@pytest.mark.parametrize(
    "hosts",
    [
        "",
        "Host: localhost:{port}\nHost: evil.example",
        "Host: evil.example\nHost: localhost:{port}",
        "Host: localhost:{port}\nHost: localhost:{port}",
        "X-Forwarded-Host: localhost:{port}",
        "Host: evil.example\nX-Forwarded-Host: localhost:{port}\nForwarded: host=localhost",
    ],
)
def test_requests_need_exactly_one_host_header(guarded: Guarded, hosts: str) -> None:
    for version in ("1.1", "1.0"):
        status, text = guarded.send(f"GET / HTTP/{version}\n{hosts}\nAuthorization: Bearer {TOKEN}")
        assert status in (400, 403)
        assert "reached" not in text


@pytest.mark.parametrize(
    "target",
    ["http://evil.example/prompt", "http://localhost:{port}/prompt", "evil.example:80", "*", "//evil.example/prompt"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "CONNECT"])
def test_the_request_target_must_be_a_path(guarded: Guarded, method: str, target: str) -> None:
    head = f"{method} {target} HTTP/1.1\nHost: localhost:{{port}}\nAuthorization: Bearer {TOKEN}"
    status, text = guarded.send(head)
    # //evil.example/prompt is a path that does not exist. With the token, the server answers its preflight.
    assert status in (400, 403, 404, 405) or (method, target, status) == ("OPTIONS", "//evil.example/prompt", 200)
    assert "reached" not in text


@pytest.mark.parametrize(
    "head",
    [
        "Origin: http://evil.example",
        "Origin: http://evil.example:{port}",
        "Origin: http://localhost:8080",
        "Origin: http://localhost",
        "Origin: https://localhost:{port}",
        "Origin: http://127.0.0.1:{port}",
        "Origin: http://localhost:{port}/",
        "Origin: http://localhost:{port}.evil.example",
        "Origin: null",
        "Origin:",
        "Origin: http://localhost:{port}\nOrigin: http://evil.example",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Sec-Fetch-Site: whatever",
    ],
)
def test_requests_of_other_pages_are_refused_even_with_the_cookie(guarded: Guarded, head: str) -> None:
    """Browsers share cookies between the ports of a host, and pages of other ports are of the same site."""
    for route in (*ROUTES, *OTHERS):
        host = f"Host: localhost:{{port}}\nCookie: dream_layer_engine_{{port}}={TOKEN}"
        status, text = guarded.send(f"{route} HTTP/1.1\n{host}\n{head}")
        assert status == 403, route
        assert "reached" not in text


def test_requests_of_the_engines_own_page_are_accepted(guarded: Guarded) -> None:
    host = f"Host: localhost:{{port}}\nCookie: dream_layer_engine_{{port}}={TOKEN}"
    for head in ("Origin: http://localhost:{port}\nSec-Fetch-Site: same-origin", "Sec-Fetch-Site: none"):
        assert guarded.send(f"POST /prompt HTTP/1.1\n{host}\n{head}")[0] == 200


@pytest.mark.parametrize(
    "head",
    [
        "X-A: b",
        "Authorization: Bearer",
        "Authorization: Bearer wrong",
        f"Authorization: Bearer {TOKEN}x",
        f"Authorization: Bearer {TOKEN[:-1]}",
        f"Authorization: Basic {TOKEN}",
        f"Authorization: {TOKEN}",
        f"X-API-Key: {TOKEN}",
        "Authorization: Bearer \xe4\xf6\xff",
        "Authorization: Bearer ????????????????????",
        "Cookie: dream_layer_engine_{port}=",
        f"Cookie: dream_layer_engine_1={TOKEN}",
        f"Cookie: token={TOKEN}",
        'Cookie: a="{[; dream_layer_engine_{port}=wrong',
    ],
)
def test_requests_without_the_token_are_refused(guarded: Guarded, head: str) -> None:
    for route in (*ROUTES, *OTHERS, f"POST /?token={TOKEN}", f"GET /view?token={TOKEN}", "GET /?token=%ff%ed%a0%80"):
        if route == "OPTIONS *":
            continue
        status, text = guarded.send(f"{route} HTTP/1.1\nHost: localhost:{{port}}\n{head}")
        assert status == 401, route
        assert "reached" not in text
        assert TOKEN not in text
        assert "WWW-Authenticate: Bearer" in text


def test_a_request_is_refused_before_its_body_arrives(guarded: Guarded) -> None:
    head = f"POST /prompt HTTP/1.1\r\nHost: localhost:{guarded.port}\r\nContent-Length: 90000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=20) as sock:
        sock.sendall(head.encode())
        assert sock.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_a_refusal_has_a_hint(guarded: Guarded) -> None:
    status, text = guarded.send("GET /queue HTTP/1.1\nHost: evil.example")
    body = json.loads(text.partition("\r\n\r\n")[2])
    assert (status, body["status"], body["error"]["code"]) == (403, "error", "origin_not_allowed")
    assert "evil.example" in body["message"]
    assert f"localhost:{guarded.port}" in body["error"]["hint"]
    status, text = guarded.send("GET / HTTP/1.1\nHost: localhost:{port}\nAccept: text/html,*/*")
    assert status == 401
    assert "text/plain" in text
    assert "python dream_layer.py open engine" in text


def test_a_browser_gets_a_cookie_and_a_page_without_the_token_in_its_address(guarded: Guarded) -> None:
    browser = requests.Session()
    page = EngineAccess(file=Path("none"))
    page._read = lambda: TOKEN  # type: ignore[method-assign]
    opened = browser.get(page.page_url(f"http://127.0.0.1:{guarded.port}"), timeout=20)
    assert (opened.text, opened.url) == ("reached", f"http://127.0.0.1:{guarded.port}/")
    (redirect,) = opened.history
    assert redirect.status_code == 303
    cookie = redirect.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert browser.get(f"http://127.0.0.1:{guarded.port}/file.js", timeout=20).text == "reached"


def test_websockets_need_the_token(guarded: Guarded) -> None:
    url = f"ws://127.0.0.1:{guarded.port}/ws"
    line = websocket.create_connection(url, header={"Authorization": f"Bearer {TOKEN}"}, timeout=20)
    assert line.recv() == "reached"
    line.close()
    for status, options in (
        (401, {}),
        (403, {"origin": "http://evil.example", "header": {"Authorization": f"Bearer {TOKEN}"}}),
        (403, {"host": "evil.example", "origin": "http://evil.example"}),
        (403, {"host": f"evil.example:{guarded.port}", "cookie": f"dream_layer_engine_{guarded.port}={TOKEN}"}),
    ):
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            websocket.create_connection(url, timeout=20, **options)
        assert refused.value.status_code == status


def test_the_token_is_neither_in_arguments_nor_in_the_environment(guarded: Guarded) -> None:
    assert guarded.child.pid is not None
    process = psutil.Process(guarded.child.pid)
    assert TOKEN not in " ".join(process.cmdline())
    assert TOKEN not in str(process.environ())
    assert TOKEN not in guarded.child.tail_log(100)


def test_an_empty_token_ends_the_engine(tmp_path: Path) -> None:
    child = serve(tmp_path, token="")
    child.start()
    assert child.wait(20) == 1
    assert "the engine's token is empty" in child.tail_log()
    child.stop()


def test_each_start_creates_a_token_that_only_the_owner_can_read(tmp_path: Path) -> None:
    tokens = {create_token(tmp_path) for _ in range(3)}
    file = tmp_path / TOKEN_FILE
    assert len(tokens) == 3
    assert all(len(token) >= 43 for token in tokens)
    assert file.read_text().strip() in tokens
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 or sys.platform == "win32"


def test_a_token_that_cannot_be_saved_is_a_setup_error(tmp_path: Path) -> None:
    (tmp_path / TOKEN_FILE.parent).write_text("no folder")
    with pytest.raises(SetupError, match="the engine's token could not be saved") as failed:
        create_token(tmp_path)
    assert failed.value.step == "engine"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no program `true`")
def test_a_child_may_end_before_it_receives_the_secret(tmp_path: Path) -> None:
    child = Child(
        "brief",
        ["nothing"],
        python="true",
        folder=tmp_path,
        log_path=tmp_path / "brief.log",
        guard=ChildGuard(GUARD, lambda: "x" * 900),
    )
    for _ in range(20):
        child.start()
        assert child.wait(20) == 0
        child.stop()


def test_the_engine_is_started_again_if_its_token_cannot_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("shared.process.supervisor.FIRST_DELAY", 0.05)
    (tmp_path / "script.py").write_text("import time\ntime.sleep(60)\n")
    (tmp_path / "guard.py").write_text("def install(token): print('given', token)\n")
    faults: list[str] = []

    def make() -> str:
        if faults:
            raise SetupError("engine", faults.pop())
        return "secret"

    child = Child(
        "thing",
        [tmp_path / "script.py"],
        python=sys.executable,
        folder=tmp_path,
        log_path=tmp_path / "thing.log",
        guard=ChildGuard(tmp_path / "guard.py", make),
    )
    supervisor = Supervisor(child, lambda: child.pid is not None and "given secret" in child.tail_log(), 20)
    supervisor.start()
    supervisor.wait_ready()
    faults.append("the disk is full")
    child.kill()
    with caplog.at_level(logging.ERROR):
        wait_for(lambda: supervisor.restarts == 2 and supervisor.state == "ready", "the engine was not restarted")
    assert "the disk is full" in caplog.text
    supervisor.stop()


def write_token(folder: Path, token: str) -> None:
    (folder / TOKEN_FILE).parent.mkdir(exist_ok=True)
    (folder / TOKEN_FILE).write_text(f"{token}\n")


def test_jobs_continue_when_a_restart_changes_the_token(tmp_path: Path, engine: FakeEngine) -> None:
    engine.stop()
    engine.token = "first"
    write_token(tmp_path, "first")
    engine.start()
    harness = Harness(tmp_path, engine)
    try:
        harness.start()
        assert harness.wait(harness.submit()).state is State.COMPLETED
        engine.seconds = BLOCKED
        job = harness.submit()
        wait_until_running(engine, job)
        engine.stop()
        engine.token, engine.seconds = "second", 0.05
        write_token(tmp_path, "second")
        engine.start()
        assert harness.wait(job).state is State.COMPLETED
        wait_for(lambda: harness.runner._listener.connected, "the listener did not reconnect")
    finally:
        harness.close()


def test_jobs_wait_while_the_engine_refuses_the_token(tmp_path: Path, engine: FakeEngine) -> None:
    engine.stop()
    engine.token = "first"
    engine.start()
    harness = Harness(tmp_path, engine)
    try:
        with pytest.raises(EngineDenied, match="refused our token") as denied:
            harness.client.get_queue()
        assert str(TOKEN_FILE) in (denied.value.hint or "")
        harness.runner.start()
        job = harness.submit()
        time.sleep(0.5)
        assert harness.row(job).state is State.QUEUED
        write_token(tmp_path, "first")
        assert harness.wait(job).state is State.COMPLETED
    finally:
        harness.close()


def test_an_external_engine_gets_the_token_of_the_settings(tmp_path: Path, engine: FakeEngine) -> None:
    engine.stop()
    engine.token = "theirs"
    engine.start()
    # The token file of our own launcher is not for this engine.
    write_token(tmp_path, "ours")
    settings = Settings(engine_url=engine.address, engine_token="theirs", data_dir=tmp_path)
    assert EngineClient(engine.address, engine_access(settings)).get_queue() == (frozenset(), frozenset())
    for other in (None, "another"):
        settings = Settings(engine_url=engine.address, engine_token=other, data_dir=tmp_path)
        with pytest.raises(EngineDenied) as denied:
            EngineClient(engine.address, engine_access(settings)).get_queue()
        assert "DREAM_LAYER_ENGINE_TOKEN" in (denied.value.hint or "")
        assert "ours" not in str(denied.value)
    assert engine_access(settings).page_url("http://engine.example") == "http://engine.example/"
    assert "theirs" not in repr(Settings(engine_token="theirs"))


def test_redirects_are_not_followed(tmp_path: Path) -> None:
    """For example to a login page."""
    head = b"HTTP/1.1 302 Found\r\nLocation: https://login.example/?secret=1\r\nContent-Length: 0\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        client = EngineClient(address, EngineAccess(token="theirs"))

        def respond() -> None:
            line, _ = server.accept()
            with line:
                line.recv(65536)
                line.sendall(head)

        thread = threading.Thread(target=respond)
        thread.start()
        with pytest.raises(EngineError, match=r"redirection to https://login\.example$") as redirected:
            client.get_queue()
        thread.join()
    assert "DREAM_LAYER_ENGINE_URL" in (redirected.value.hint or "")
