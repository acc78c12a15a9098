"""Serves a Flask application with waitress until SIGTERM or Ctrl-C."""

from __future__ import annotations

import importlib.util
import logging
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from flask import Flask

from shared.settings import Settings
from shared.web.security import ACCESS_CONTROL, AccessControl
from shared.web.server.connections import ConnectionLimits, connection_capacity
from shared.web.server.liveness import listen_for_liveness_checks
from shared.web.server.ports import bind_sockets, url_host

if TYPE_CHECKING:
    from shared.web.server.loop import WebServer

log = logging.getLogger(__name__)

# Threads for short requests, in addition to those for all others.
SHORT_THREADS = 4
# Bytes of the largest head of a request: browsers send the cookies of every program on localhost.
MAX_HEAD = 64 * 1024
# Bytes of a request body, and of a response that waits for its client, that stay in memory; more goes to a file.
IN_MEMORY = 256 * 1024
# Characters of a waitress log message that are kept.
MAX_LOG_MESSAGE = 500

# As in `shared.web.server.request_parser`, which cannot be imported without waitress.
LargeBodyRule = Callable[[str, Mapping[str, str]], "tuple[int, Path] | None"]


def _no_large_bodies(_path: str, _headers: Mapping[str, str]) -> None:
    return None


def run_service(app: Flask, settings: Settings, port: int, probe_file: Path | None = None) -> None:
    """Serve `app` on `port` in this thread, until SIGTERM or Ctrl-C.

    `probe_file` receives the URL for a supervisor's liveness checks.
    """
    signal.signal(signal.SIGTERM, _stop)
    log.info("%s listens on http://%s:%d", app.name, url_host(settings.host), port)
    try:
        if importlib.util.find_spec("waitress") is None:
            _serve_with_flask(app, settings, port)
        else:
            server = make_server(app, settings, port)
            if probe_file is not None:
                listen_for_liveness_checks(server, probe_file)
            server.run()
    except KeyboardInterrupt:
        pass
    log.info("%s stopped", app.name)


def serve_waitress(app: Flask, settings: Settings, *ports: int, large: LargeBodyRule = _no_large_bodies) -> None:
    """Serve on all of `ports`, with the same threads, until SystemExit or KeyboardInterrupt is raised in this thread.

    `large` decides which requests may have larger bodies (see `shared.web.server.request_parser`). Raises SetupError if
    a port is not available.
    """
    make_server(app, settings, *ports, large=large).run()


def make_server(
    app: Flask,
    settings: Settings,
    *ports: int,
    large: LargeBodyRule = _no_large_bodies,
    limits: ConnectionLimits | None = None,
) -> WebServer:
    """Return a server that listens on all of `ports`; its `run` serves. The arguments are those of `serve_waitress`.

    A request that waits for pictures occupies a thread, however long it takes: none of the server's deadlines applies
    to a request that is being processed; `shared.web.waiting` limits the wait.
    """
    from shared.web.server.loop import WebServer
    from shared.web.server.request_parser import BodyLimits

    # It logs a line for each request that must wait for a thread.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    logging.getLogger("waitress").addFilter(_sanitise_log_record)
    sockets = [sock for port in dict.fromkeys(ports) for sock in bind_sockets(settings.host, port)]
    if limits is None:
        defaults = ConnectionLimits()
        wanted = defaults.connections + defaults.spare
        count = connection_capacity(wanted, settings.threads + SHORT_THREADS, len(sockets))
        limits = defaults.for_connections(count - defaults.spare)
    server = WebServer(limits, settings.threads, SHORT_THREADS, is_short)
    options = {
        # With this, waitress watches connections whose request is being processed, and notices a client that left.
        "channel_request_lookahead": 1,
        # Larger bodies are not read; the application refuses them. waitress counts the limit itself as too large.
        "max_request_body_size": settings.max_body_mb * 1024 * 1024 + 1,
        "max_request_header_size": MAX_HEAD,
        "inbuf_overflow": IN_MEMORY,
        "outbuf_overflow": IN_MEMORY,
        "ident": None,
        # `shared.web.proxies` reads these headers.
        "clear_untrusted_proxy_headers": False,
    }
    access: AccessControl = app.extensions[ACCESS_CONTROL]
    server.listen(app, sockets, options, BodyLimits(large, access.check_head, server.connections.has_room_for_body))
    return server


def is_short(method: str, path: str) -> bool:
    """Whether a request is answered at once, whatever else is running: health, the state of jobs, cancelling them."""
    if path in ("/health", "/ready"):
        return True
    if path == "/api/jobs" or path.startswith("/api/jobs/"):
        return not path.endswith("/events")
    return method == "POST" and path.endswith("/interrupt")


def _sanitise_log_record(record: logging.LogRecord) -> bool:
    """Make waitress's message one printable line: it quotes request paths, which can contain anything."""
    message = record.getMessage()[:MAX_LOG_MESSAGE]
    record.msg = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in message)
    record.args = ()
    return True


def _serve_with_flask(app: Flask, settings: Settings, port: int) -> None:
    warnings.warn(
        "waitress is not installed: this is Flask's development server, which is not meant for production. "
        "Run: pip install -r requirements.txt",
        stacklevel=2,
    )
    app.run(host=settings.host, port=port, threaded=True)


def _stop(_signum: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(0)
