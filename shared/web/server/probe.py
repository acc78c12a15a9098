"""How a supervisor learns that a service lives: at a listener of its own, which no crowd of strangers can fill.

The server's loop and threads answer there as they do everywhere; so a service that hangs is silent, and one that is
only crowded is not. Where it listens stands in a file, with a token, so that no other program is taken for it.
"""

from __future__ import annotations

import hmac
import secrets
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import urllib3

from shared.errors import SetupError
from shared.files import write_atomic
from shared.web.server.connections import Connections, Limits

if TYPE_CHECKING:
    from shared.web.server.loop import WebServer

# A supervisor has one connection at a time.
LIMITS = Limits(connections=8, spare=0, per_loopback=8, head_s=5, idle_s=5, held_bodies=0)
# Seconds for an answer.
TIMEOUT = 5.0


def listen_for_probes(server: WebServer, file: Path) -> None:
    """Makes a server answer probes, and writes into `file` where. Raises SetupError or StorageFailed."""
    from shared.web.server.body_limits import BodyLimits

    sock = _loopback_socket()
    path = f"/{secrets.token_urlsafe(16)}"
    connections = Connections(LIMITS)
    nothing = BodyLimits(large=lambda _path, _headers: None, admit=_admit, has_room=connections.has_room_for_body)
    options = {"channel_request_lookahead": 1, "max_request_header_size": 4096, "ident": None}
    # By the threads that no long request takes.
    server.listen(_application(path), [sock], options, nothing, connections, is_short=lambda _method, _path: True)
    name, port = sock.getsockname()
    write_atomic(file, f"http://{name}:{port}{path}\n".encode(), "where the service answers its supervisor")


def probe(file: Path) -> bool | None:
    """Whether the service that wrote `file` answers; None if there is no such file, as without waitress."""
    try:
        address = file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return False
    return _answers(address)


def _answers(address: str) -> bool:
    try:
        # No proxy, whatever the environment says.
        # Services do without requests, which takes 7 MB of each.
        answer = urllib3.request("GET", address, timeout=TIMEOUT, retries=False, headers={"Connection": "close"})
        return answer.status < 400
    except (urllib3.exceptions.HTTPError, ValueError):
        return False


def _loopback_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.bind(("127.0.0.1", 0))
    except OSError as error:
        sock.close()
        raise SetupError("probe", f"no port of this machine can be had: {error}") from error
    return sock


def _admit(_environ: dict[str, Any]) -> None:
    return None


def _application(path: str) -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    """Answers 204 to a request of `path`, 404 to all others."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        known = hmac.compare_digest(str(environ.get("PATH_INFO", "")).encode(), path.encode())
        start_response("204 No Content" if known else "404 Not Found", [("Content-Length", "0")])
        return []

    return answer
