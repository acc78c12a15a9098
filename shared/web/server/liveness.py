"""Liveness checks: a listening socket for the supervisor alone, which a crowd of clients cannot fill.

The server's loop and threads answer there as they do everywhere else: a service that hangs does not answer, one that is
merely busy does. The service writes the URL, with a random token, to a file, so that no other program is mistaken for
it.
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
from shared.web.server.connections import ConnectionLimits, Connections

if TYPE_CHECKING:
    from shared.web.server.loop import WebServer

# A supervisor opens one connection at a time.
LIMITS = ConnectionLimits(connections=8, spare=0, per_loopback=8, head_s=5, idle_s=5, held_bodies=0)
# Seconds within which the service must answer.
TIMEOUT = 5.0


def listen_for_liveness_checks(server: WebServer, file: Path) -> None:
    """Make a server answer liveness checks, and write their URL to `file`. Raises SetupError or StorageFailed."""
    from shared.web.server.request_parser import BodyLimits

    sock = _bind_loopback()
    path = f"/{secrets.token_urlsafe(16)}"
    connections = Connections(LIMITS)
    no_bodies = BodyLimits(
        large=lambda _path, _headers: None, check_head=_accept_head, has_room=connections.has_room_for_body
    )
    options = {"channel_request_lookahead": 1, "max_request_header_size": 4096, "ident": None}
    # Short requests have threads of their own, which no long request occupies.
    server.listen(_application(path), [sock], options, no_bodies, connections, is_short=lambda _method, _path: True)
    host, port = sock.getsockname()
    write_atomic(file, f"http://{host}:{port}{path}\n".encode(), "where the service answers its supervisor")


def check_liveness(file: Path) -> bool | None:
    """Whether the service that wrote `file` answers; None if there is no such file, as without waitress."""
    try:
        url = file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return False
    return _answers(url)


def _answers(url: str) -> bool:
    try:
        # urllib3 ignores proxies in the environment, and the services do without requests, which takes 7 MB of memory.
        response = urllib3.request("GET", url, timeout=TIMEOUT, retries=False, headers={"Connection": "close"})
        return response.status < 400
    except (urllib3.exceptions.HTTPError, ValueError):
        return False


def _bind_loopback() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.bind(("127.0.0.1", 0))
    except OSError as error:
        sock.close()
        raise SetupError("liveness check", f"no port on 127.0.0.1 is available: {error}") from error
    return sock


def _accept_head(_environ: dict[str, Any]) -> None:
    return None


def _application(path: str) -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    """Return a WSGI application that answers 204 for `path` and 404 for all others."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        matches = hmac.compare_digest(str(environ.get("PATH_INFO", "")).encode(), path.encode())
        start_response("204 No Content" if matches else "404 Not Found", [("Content-Length", "0")])
        return []

    return answer
