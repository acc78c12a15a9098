"""The web server under slow, idle, broken and hostile clients."""

import email
import errno
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
from waitress import wasyncore

from shared.errors import SetupError
from shared.settings import Settings
from shared.web.api_key_throttle import BURST
from shared.web.security import KEYLESS_PATHS, SECURITY_HEADERS
from shared.web.server.channel import TIMEOUT_RESPONSE
from shared.web.server.connections import ConnectionLimits, ConnectionPhase
from shared.web.server.loop import BUSY_RESPONSE, MAX_FAILURES
from shared.web.server.ports import bind_sockets, listen_addresses
from shared.web.server.run import is_short, make_server
from tests.payloads import ORIGIN
from tests.served import PATIENCE, Served, needs_ipv6, read_all, serving, wait_until

# So short that a connection is closed within a test if a limit wrongly applies to it.
SHORT_LIMITS = ConnectionLimits(
    head_s=0.5, idle_s=0.5, idle_crowded_s=0.2, window_s=0.5, body_floor=1000, reader_window_s=0.5, reader_floor=1000
)
KEY = "a key that nobody guesses"


@pytest.fixture
def server() -> Iterator[Served]:
    with serving() as served:
        yield served


def is_closed(client: socket.socket) -> bool:
    """Return whether the server has closed the connection."""
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    finally:
        client.settimeout(PATIENCE)


# -- descriptors


def test_descriptors_above_1024_are_served(server: Served) -> None:
    """`select` would fail and end the server's thread."""
    with ExitStack() as stack:
        null = stack.enter_context(Path(os.devnull).open())
        for _ in range(1100):
            stack.callback(os.close, os.dup(null.fileno()))
        client = server.connect()
        assert client.fileno() > 1024
        assert server.get("/health").ok


def test_the_server_responds_despite_many_half_sent_bodies(tmp_path: Path) -> None:
    limits = ConnectionLimits(connections=60, per_loopback=60)
    body = bytes(600_000)
    with serving(limits=limits) as server:
        for _ in range(80):
            head = server.head("POST", "/quick", "Content-Length: 2000000")
            server.connect(head + body[:300_000])
        assert server.get("/health").ok
        assert server.get("/quick").ok
        assert len(server.connections) <= 60


@pytest.mark.slow
def test_accept_is_retried_after_descriptors_run_out(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = server.connect()
    wait_until(lambda: len(server.connections) == 1)
    listener = server.server._listeners[0]
    accept, failures = listener.accept, []

    def failing_accept() -> Any:
        if len(failures) < 3:
            failures.append(1)
            raise OSError(errno.EMFILE, "Too many open files")
        return accept()

    monkeypatch.setattr(listener, "accept", failing_accept)
    assert server.get("/health").ok
    assert len(failures) == 3
    # The idle connection was closed to free a descriptor.
    assert is_closed(idle)


@pytest.mark.parametrize("error", [OSError(errno.ECONNABORTED, "gone"), OSError(errno.EPERM, "no"), ValueError("odd")])
def test_a_failed_connection_does_not_close_the_listener(
    server: Served, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    listener = server.server._listeners[0]
    add, failures = listener._add, []

    def failing_add(*pair: Any) -> None:
        if not failures:
            failures.append(pair[0].close())
            raise error
        add(*pair)

    monkeypatch.setattr(listener, "_add", failing_add)
    with pytest.raises(requests.ConnectionError):
        server.get("/health")
    assert server.get("/health").ok


# -- the loop


def test_the_loop_continues_after_an_error(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, failures = wasyncore.loop, []

    def failing_loop(**kwargs: Any) -> None:
        if len(failures) < MAX_FAILURES - 1:
            failures.append(1)
            raise ValueError("filedescriptor out of range in select()")
        loop(**kwargs)

    monkeypatch.setattr(wasyncore, "loop", failing_loop)
    assert server.get("/health").ok
    assert len(failures) == MAX_FAILURES - 1


def test_a_connection_that_breaks_the_loop_is_closed(server: Served) -> None:
    broken, healthy = server.connect(), server.connect()
    wait_until(lambda: len(server.connections) == 2)
    port = broken.getsockname()[1]
    channel = next(item for item in server.connections._copy() if item.addr[1] == port)  # type: ignore[attr-defined]
    channel.readable = lambda: 1 / 0  # type: ignore[attr-defined]
    assert server.get("/health").ok
    assert is_closed(broken)
    assert not is_closed(healthy)


def test_a_loop_that_keeps_failing_raises_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    server = make_server(application(), Settings(), 0)

    def failing_loop(**_kwargs: Any) -> None:
        raise ValueError("the loop always fails")

    monkeypatch.setattr(wasyncore, "loop", failing_loop)
    with pytest.raises(ValueError, match="the loop always fails"):
        server.run()


def test_a_broken_listener_ends_the_loop() -> None:
    """The process that supervises the server can then restart it; otherwise no connection would be accepted."""
    server = make_server(application(), Settings(), 0)
    server._listeners[0].close()
    with pytest.raises(RuntimeError, match="a listening socket is broken"):
        server.run()


def application() -> Any:
    from shared.web.app import create_app

    return create_app("test", Settings(), [])


# -- deadlines


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nHost: loc", b"\r\n"])
def test_an_unfinished_head_times_out(sent: bytes) -> None:
    with serving(limits=SHORT_LIMITS) as server:
        answer = server.answer(sent)
        assert answer.startswith(b"HTTP/1.1 408 ") is bool(sent)


@pytest.mark.slow
@pytest.mark.parametrize("line", ["Content-Length: 50000", "Transfer-Encoding: chunked"])
def test_a_body_that_never_arrives_is_a_408(line: str) -> None:
    with serving(limits=SHORT_LIMITS) as server:
        answer = server.answer(server.head("POST", "/quick", line) + b"5\r\nhello")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body)["error"]["code"] == "request_timeout"
        assert server.calls == []


@pytest.mark.slow
def test_a_slow_body_is_accepted() -> None:
    with serving(limits=SHORT_LIMITS) as server:
        client = server.connect(server.head("POST", "/quick", "Content-Length: 20000", "Connection: close"))
        for _ in range(20):
            client.sendall(bytes(1000))
            time.sleep(0.1)
        assert b'"size":20000' in read_all(client).replace(b" ", b"")


@pytest.mark.slow
def test_running_requests_and_streams_have_no_deadline() -> None:
    limits = ConnectionLimits(**{**SHORT_LIMITS.__dict__, "connections": 10, "per_loopback": 10})
    with serving(limits=limits) as server, ThreadPoolExecutor() as pool:
        waiting = [pool.submit(server.get, path) for path in ("/wait", "/stream", "/wait")]
        wait_until(lambda: len(server.calls) == 3)
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            # A large number of connections does not end them either.
            server.connect()
            time.sleep(0.05)
        server.go_on.set()
        answers = [request.result(PATIENCE) for request in waiting]
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert answers[1].text == "data: first\n\ndata: last\n\n"


# -- many connections


def test_idle_connections_are_closed_for_new_ones() -> None:
    with serving(limits=ConnectionLimits(connections=20, per_loopback=15)) as server:
        idle = [server.connect() for _ in range(100)]
        for _ in range(5):
            assert server.get("/health").ok
        assert len(server.connections) <= 20
        wait_until(lambda: sum(is_closed(client) for client in idle) >= 85)


def test_connections_with_slow_heads_are_closed_for_new_ones() -> None:
    with serving(limits=ConnectionLimits(connections=20, per_loopback=15)) as server:
        for _ in range(60):
            server.connect(b"GET /health HTTP/1.1\r\nX-")
        assert server.get("/health").ok


def test_only_short_requests_are_served_when_all_connections_are_busy() -> None:
    with serving(limits=ConnectionLimits(connections=3, spare=3, per_loopback=3)) as server:
        wait = server.head("GET", "/wait")
        for _ in range(3):
            server.connect(wait)
        wait_until(lambda: len(server.calls) == 3)
        assert server.get("/health").ok
        busy = server.get("/quick", headers={"Origin": ORIGIN})
        assert (busy.status_code, busy.json()["error"]["code"]) == (503, "busy")
        assert busy.headers["Retry-After"] == "5"
        assert busy.headers["Access-Control-Allow-Origin"] == ORIGIN
        server.go_on.set()
        wait_until(lambda: server.get("/quick").status_code == 200)


def test_short_requests_are_served_when_all_threads_are_busy(server: Served) -> None:
    for _ in range(20):
        server.connect(server.head("GET", "/wait"))
    wait_until(lambda: len(server.calls) == 8)
    assert server.get("/health").ok


@pytest.mark.parametrize(
    ("method", "path", "short"),
    [
        ("GET", "/health", True),
        ("GET", "/ready", True),
        ("GET", "/api/jobs", True),
        ("GET", "/api/jobs/1", True),
        ("DELETE", "/api/jobs/1", True),
        ("POST", "/api/txt2img/interrupt", True),
        ("GET", "/api/jobs/1/events", False),
        ("POST", "/api/txt2img", False),
        ("GET", "/api/images/1.png", False),
    ],
)
def test_short_requests_are_recognized(method: str, path: str, short: bool) -> None:
    assert is_short(method, path) is short


# -- slow readers


def test_clients_that_do_not_read_hold_neither_memory_nor_threads() -> None:
    limits = ConnectionLimits(held_output=20_000_000)
    with serving(limits=limits) as server:
        for _ in range(12):
            server.connect(server.head("GET", "/picture"), buffer=4096)
        wait_until(lambda: len(server.calls) == 12)
        assert server.get("/quick").ok
        wait_until(lambda: sum(channel.output_bytes for channel in server.connections._copy()) <= limits.held_output)


@pytest.mark.slow
def test_only_a_client_that_stops_reading_is_disconnected() -> None:
    with serving(limits=SHORT_LIMITS) as server:
        stalled = server.connect(server.head("GET", "/picture"), buffer=4096)
        assert len(server.get("/picture").content) == server.size
        wait_until(lambda: len(server.connections) == 0)
        assert len(read_until_closed(stalled)) < server.size


def read_until_closed(client: socket.socket) -> bytes:
    try:
        return read_all(client)
    except ConnectionError:
        return b""


@pytest.mark.slow
def test_a_stream_is_closed_if_the_client_does_not_read(server: Served) -> None:
    with serving(limits=SHORT_LIMITS) as server:
        server.connect(server.head("GET", "/endless"), buffer=4096)
        wait_until(lambda: server.calls == ["/endless", "the end of /endless"])


def test_pipelined_requests_are_answered_in_order_one_at_a_time(server: Served) -> None:
    """Otherwise each request of a packet could occupy a thread while the client does not read."""
    pipelined = b"".join(server.head("GET", "/picture") for _ in range(3))
    for _ in range(10):
        server.connect(pipelined, buffer=4096)
    wait_until(lambda: len(server.calls) == 10)
    assert server.get("/quick").ok
    assert server.calls.count("/picture") == 10
    server.size = 1000
    answer = server.answer(
        pipelined + server.head("POST", "/quick", "Content-Length: 5", "Connection: close") + b"hello"
    )
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    assert b'"size":5' in answer.replace(b" ", b"")


def test_urgent_data_closes_the_connection(server: Served) -> None:
    client = server.connect()
    client.send(b"!", socket.MSG_OOB)
    wait_until(lambda: len(server.connections) == 0)
    assert server.get("/health").ok


# -- bodies


class TemporaryFileCounter:
    """Counts temporary files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import tempfile

        self.count, original = 0, tempfile.TemporaryFile

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(tempfile, "TemporaryFile", counted)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X-API-Key": "wrong"}, 401),
        ({"X-API-Key": KEY, "Origin": "https://evil.example"}, 403),
        ({"X-API-Key": KEY, "Host": "evil.example"}, 403),
        ({"X-API-Key": KEY, "Content-Encoding": "gzip"}, 415),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_refused_body_is_not_stored(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], status: int, chunked: bool
) -> None:
    temporary_files = TemporaryFileCounter(monkeypatch)
    body = bytes(3_000_000)
    with serving(Settings(api_key=KEY, threads=8, waiters=1, streams=1)) as server:
        sent: Any = iter([body[:1_000_000]] * 3) if chunked else body
        # Most clients send the whole body before they read the response.
        refused = requests.post(f"{server.url}/quick", data=sent, headers=headers, timeout=PATIENCE)
        assert refused.status_code == status
        assert refused.json()["status"] == "error"
        assert refused.headers["Connection"] == "close"
        assert temporary_files.count == 0
        assert server.calls == []
        accepted = requests.post(f"{server.url}/quick", data=body, headers={"X-API-Key": KEY}, timeout=PATIENCE)
        assert accepted.json()["size"] == len(body)
        assert temporary_files.count == 1


@pytest.mark.parametrize("path", KEYLESS_PATHS)
def test_keyless_paths_store_no_body_without_a_key(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    temporary_files = TemporaryFileCounter(monkeypatch)
    with serving(Settings(api_key=KEY, threads=8, waiters=1, streams=1)) as server:
        for method in ("POST", "GET"):
            refused = requests.request(method, server.url + path, data=bytes(1_000_000), timeout=PATIENCE)
            assert (refused.status_code, temporary_files.count) == (401, 0)
        assert requests.get(server.url + path, timeout=PATIENCE).ok


def test_a_throttled_client_cannot_test_keys_with_expect_100() -> None:
    with serving(Settings(api_key=KEY, threads=8, waiters=1, streams=1)) as server:

        def status_for(key: str) -> int:
            lines = ("Content-Length: 5", "Expect: 100-continue", "Connection: close", f"X-API-Key: {key}")
            return int(server.answer(server.head("POST", "/quick", *lines)).split(b" ", 2)[1])

        assert [status_for("wrong") for _ in range(BURST)] == [401] * BURST
        # Not 100 for the correct key.
        assert (status_for("wrong"), status_for(KEY)) == (429, 429)


def test_wrong_keys_are_counted_before_a_thread_is_used() -> None:
    with serving(Settings(api_key=KEY, threads=8, waiters=1, streams=1)) as server:
        head = server.head("POST", "/quick", "Content-Length: 5", "Connection: close", "X-API-Key: wrong")
        clients = [server.connect(head) for _ in range(3 * BURST)]
        codes = [int(read_all(client).split(b" ", 2)[1]) for client in clients]
        assert (codes.count(401), codes.count(429)) == (BURST, 2 * BURST)


def test_a_body_from_a_page_behind_a_trusted_proxy_is_accepted() -> None:
    proxied = {"X-Forwarded-Host": "draw.example", "X-Forwarded-Port": "8443", "X-Forwarded-Proto": "https"}
    headers = {"Origin": "https://draw.example:8443", **proxied}
    for trusted, status in (("127.0.0.1", 200), ("10.0.0.1", 403), ("", 403)):
        with serving(Settings(trusted_proxies=trusted, threads=8, waiters=1, streams=1)) as server:
            sent = requests.post(f"{server.url}/quick", data=b"x", headers=headers, timeout=PATIENCE)
            assert sent.status_code == status


def test_a_client_that_expects_100_continue_is_refused_before_it_sends_a_body(server: Served) -> None:
    head = ("Content-Length: 2000", "Expect: 100-continue")
    answer = server.answer(server.head("POST", "/quick", *head, "Origin: https://evil.example"))
    assert answer.startswith(b"HTTP/1.1 403 ")
    client = server.connect(server.head("POST", "/quick", *head, "Connection: close"))
    assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sendall(bytes(2000))
    assert b'"size":2000' in read_all(client).replace(b" ", b"")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused_in_json(chunked: bool) -> None:
    with serving(Settings(max_body_mb=1, threads=8, waiters=1, streams=1)) as server:
        piece = bytes(300_000)
        sent: Any = iter([piece] * 10) if chunked else piece * 10
        refused = requests.post(f"{server.url}/quick", data=sent, headers={"Origin": ORIGIN}, timeout=PATIENCE)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "body_too_large")
        assert refused.headers["Access-Control-Allow-Origin"] == ORIGIN
        exact = requests.post(f"{server.url}/quick", data=bytes(1024 * 1024), timeout=PATIENCE)
        assert exact.json()["size"] == 1024 * 1024


def test_the_bodies_of_all_clients_share_a_limit() -> None:
    with serving(limits=ConnectionLimits(held_bodies=1_000_000)) as server:
        client = server.connect(server.head("POST", "/quick", "Content-Length: 900000") + bytes(500_000))
        wait_until(lambda: sum(channel.body_bytes for channel in server.connections._copy()) == 500_000)
        busy = requests.post(f"{server.url}/quick", data=bytes(600_000), timeout=PATIENCE)
        assert (busy.status_code, busy.headers["Retry-After"]) == (503, "5")
        client.close()
        wait_until(lambda: requests.post(f"{server.url}/quick", data=bytes(600_000), timeout=PATIENCE).ok)


HIDDEN = b"0\r\n\r\nGET /quick HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 0"],
        ["transfer-encoding: CHUNKED", "CONTENT-LENGTH: 50"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked, chunked"],
        ["Transfer-Encoding: ,"],
        ["Transfer-Encoding: ,chunked"],
        ["Transfer-Encoding:"],
        ["Content-Length: 5", "Content-Length: 5"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: +5"],
        ["Content-Length: 5, 5"],
        ["Content-Length: " + "9" * 5000],
        ["Host: localhost", "Content-Length: 5"],
    ],
)
def test_ambiguous_framing_is_refused(server: Served, lines: list[str]) -> None:
    answer = server.answer(server.head("POST", "/quick", *lines) + HIDDEN)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "malformed_request"
    assert server.calls == []


@pytest.mark.parametrize("length", [[], ["Content-Length: 0"]])
def test_expect_100_without_a_body_is_answered(server: Served, length: list[str]) -> None:
    answer = server.answer(server.head("POST", "/quick", "Expect: 100-continue", "Connection: close", *length))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert server.calls == ["/quick"]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"\x16\x03\x01\x00\xf5\x01\x00\x00\xf1\x03\x03", b"use http:// for this port, not https://"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/2.0"),
        (b"GET /quick HTTP/1.1\r\n\r\n", b"the Host header is missing"),
    ],
)
def test_other_protocols_are_answered_at_once(server: Served, sent: bytes, expected: bytes) -> None:
    answer = server.answer(sent)
    assert answer.split(b" ", 2)[1] == b"400"
    assert expected in answer
    assert_error_headers(answer)
    assert server.calls == []


def test_a_chunked_body_over_http_1_0_is_refused(server: Served) -> None:
    head = server.head("POST", "/quick", "Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0")
    assert b" 400 " in server.answer(head + HIDDEN).partition(b"\r\n")[0]
    assert server.calls == []


@pytest.mark.parametrize(
    "body",
    [
        b"5;" + b"x" * 100_000,
        b"0\r\n" + b"X: y\r\n" * 50_000,
        b"1\r\nx\r\n" * 100_000,
    ],
    ids=["extension", "trailer", "tiny chunks"],
)
def test_chunks_that_are_mostly_framing_are_refused(server: Served, body: bytes) -> None:
    head = server.head("POST", "/quick", "Transfer-Encoding: chunked")
    assert server.answer(head + body).startswith(b"HTTP/1.1 400 ")
    assert server.calls == []


def test_a_body_in_small_chunks_is_accepted(server: Served) -> None:
    sent = requests.post(f"{server.url}/quick", data=iter([bytes(100)] * 5000), timeout=PATIENCE)
    assert sent.json()["size"] == 500_000


@pytest.mark.parametrize(
    ("first", "status", "code", "hint"),
    [
        (b"GET http://[ HTTP/1.1", 400, "malformed_request", "client for HTTP/1.1"),
        (b"nonsense", 400, "malformed_request", "client for HTTP/1.1"),
        (b"GET / HTTP/1.1 x", 400, "malformed_request", "client for HTTP/1.1"),
        (b"GET / HTTP/1.1\r\nX: a\r\n b", 400, "malformed_request", "client for HTTP/1.1"),
        (b"GET / HTTP/1.1\r\nX: \0", 400, "malformed_request", "client for HTTP/1.1"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000, 431, "headers_too_large", "cookies"),
        (b"GET /?" + b"a" * 70_000 + b" HTTP/1.1", 431, "headers_too_large", "in the body"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip", 501, "not_supported", "Content-Length"),
    ],
)
def test_a_malformed_request_is_answered_in_json(
    server: Served, first: bytes, status: int, code: str, hint: str
) -> None:
    answer = server.answer(first + b"\r\nHost: localhost\r\n\r\n")
    assert int(answer.split(b" ", 2)[1]) == status
    reply = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (reply["status"], reply["error"]["code"]) == ("error", code)
    assert hint in reply["error"]["hint"]
    assert_error_headers(answer)


def assert_error_headers(answer: bytes) -> None:
    """Check that an error written by the server has the same headers as one written by the application."""
    head = email.message_from_bytes(answer.partition(b"\r\n")[2])
    assert {name: head[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert (head.get_content_type(), head["Connection"]) == ("application/json", "close")
    assert int(head["Content-Length"]) == len(answer.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("answer", [TIMEOUT_RESPONSE, BUSY_RESPONSE])
def test_constant_error_responses_have_the_error_headers(answer: bytes) -> None:
    assert_error_headers(answer)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == "error"


def test_refused_bodies_have_the_error_headers(server: Served) -> None:
    for lines, status in (((f"Content-Length: {10**12}",), 413), (("Host: evil.example", "Content-Length: 5"), 400)):
        answer = server.answer(server.head("POST", "/quick", *lines) + b"x")
        assert int(answer.split(b" ", 2)[1]) == status
        assert_error_headers(answer)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br, identity", "identity, deflate", "x-unknown"])
def test_a_compressed_body_is_refused_by_its_encoding(server: Served, encoding: str) -> None:
    headers = {"Content-Encoding": encoding, "Origin": ORIGIN}
    refused = requests.post(f"{server.url}/quick", data=b"\x1f\x8b" * 100, headers=headers, timeout=PATIENCE)
    assert refused.status_code == 415
    assert encoding.replace("identity", "").strip(", ").lower() in refused.json()["message"]
    assert refused.headers["Access-Control-Allow-Origin"] == ORIGIN
    plain = requests.post(f"{server.url}/quick", data=b"x", headers={"Content-Encoding": "identity"}, timeout=PATIENCE)
    assert plain.json()["size"] == 1


# -- addresses


@needs_ipv6
def test_ipv4_and_ipv6_loopback_are_one_client(server: Served) -> None:
    replies = [requests.get(f"http://{name}:{server.port}/quick", timeout=PATIENCE) for name in ("127.0.0.1", "[::1]")]
    assert [answer.json()["address"] for answer in replies] == ["127.0.0.1", "127.0.0.1"]


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("127.0.0.1", ["127.0.0.1", "::1"]),
        ("localhost", ["127.0.0.1", "::1"]),
        ("::1", ["::1"]),
        ("0.0.0.0", ["0.0.0.0"]),
        ("127.0.0.2", ["127.0.0.2"]),
    ],
)
def test_a_loopback_server_listens_on_ipv4_and_ipv6(host: str, addresses: list[str]) -> None:
    assert listen_addresses(host) == addresses


def test_a_machine_without_ipv6_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    original = socket.socket

    def without_ipv6(family: int = socket.AF_INET, *args: Any, **kwargs: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return original(family, *args, **kwargs)

    monkeypatch.setattr("shared.web.server.ports.socket.socket", without_ipv6)
    (sock,) = bind_sockets("127.0.0.1", 0)
    assert sock.getsockname()[0] == "127.0.0.1"
    sock.close()


def test_a_port_in_use_is_reported_before_the_server_starts() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(SetupError, match="another program is using it"):
            bind_sockets("127.0.0.1", other.getsockname()[1])
    with pytest.raises(SetupError, match="is not available"):
        bind_sockets("no-such-host.invalid", 0)


def test_connection_phases_follow_the_request(server: Served) -> None:
    def phases() -> list[ConnectionPhase]:
        return [channel.phase for channel in server.connections._copy()]

    client = server.connect()
    wait_until(lambda: phases() == [ConnectionPhase.IDLE])
    client.sendall(b"POST /quick HTTP/1.1\r\n")
    wait_until(lambda: phases() == [ConnectionPhase.HEAD])
    client.sendall(b"Host: localhost\r\nContent-Length: 5\r\n\r\n")
    wait_until(lambda: phases() == [ConnectionPhase.BODY])
    client.sendall(b"hello" + server.head("GET", "/wait"))
    wait_until(lambda: phases() == [ConnectionPhase.PROCESSING])
    server.go_on.set()
    wait_until(lambda: phases() == [ConnectionPhase.IDLE])


def test_client_text_takes_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as server, caplog.at_level("INFO", logger="waitress"):
        assert server.get("/quick").ok
        logging.getLogger("waitress").info("Client disconnected while serving %s", "/a\nERROR\x1b[2J" + "b" * 60_000)
    (line,) = [record.getMessage() for record in caplog.records if "disconnected" in record.getMessage()]
    assert line.startswith("Client disconnected while serving /a\\x0aERROR\\x1b[2Jbbb")
    assert len(line) < 600
