"""Serves an application with waitress until SIGTERM or Ctrl-C."""

from __future__ import annotations

import errno
import http.client
import importlib.util
import json
import logging
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from flask import Flask

from shared.errors import SetupError
from shared.settings import PREFIX, Settings
from shared.web.security import GUARD, Guard
from shared.web.server.capacity import connections_for
from shared.web.server.connections import Limits
from shared.web.server.probe import listen_for_probes

if TYPE_CHECKING:
    from shared.web.server.loop import WebServer

log = logging.getLogger(__name__)

# Threads for requests that are answered at once, beside the others.
SHORT_THREADS = 4
# Bytes of the largest head of a request: browsers send the cookies of all programs on localhost along.
LARGEST_HEAD = 64 * 1024
# Bytes that are read of what answers on a port that is to be ours.
LARGEST_HEALTH = 10_000
# Bytes of a body, and of an answer that waits for its client, that are kept in memory; more goes to a file.
IN_MEMORY = 256 * 1024

# Characters of a message of waitress's that the log keeps.
LONGEST_MESSAGE = 500

# See `shared.web.server.body_limits`, which cannot be imported without waitress.
Large = Callable[[str, Mapping[str, str]], "tuple[int, Path] | None"]


def _none_is_large(_path: str, _headers: Mapping[str, str]) -> None:
    return None


def run_service(app: Flask, settings: Settings, port: int, probe_file: Path | None = None) -> None:
    """Serves `app` on `port` in this thread, until SIGTERM or Ctrl-C; `probe_file` is for a supervisor (`probe`)."""
    signal.signal(signal.SIGTERM, _stop)
    log.info("%s listens on http://%s:%d", app.name, reachable(settings.host), port)
    try:
        if importlib.util.find_spec("waitress") is None:
            _serve_development(app, settings, port)
        else:
            server = make_server(app, settings, port)
            if probe_file is not None:
                listen_for_probes(server, probe_file)
            server.run()
    except KeyboardInterrupt:
        pass
    log.info("%s stopped", app.name)


def serve_waitress(app: Flask, settings: Settings, *ports: int, large: Large = _none_is_large) -> None:
    """Serves on all of `ports`, with the same threads, until SystemExit or KeyboardInterrupt is raised in this thread.

    `large` tells which requests may be larger than others (see `shared.web.server.body_limits`). Raises SetupError for
    a port that cannot be had.
    """
    make_server(app, settings, *ports, large=large).run()


def make_server(
    app: Flask, settings: Settings, *ports: int, large: Large = _none_is_large, limits: Limits | None = None
) -> WebServer:
    """A server that listens on all of `ports`, and serves when it is run. As `serve_waitress`.

    A request that waits for pictures holds a thread, however long it takes: none of the server's deadlines is for a
    request that runs, and the wait is bounded by `shared.web.waiting`.
    """
    from shared.web.server.body_limits import BodyLimits
    from shared.web.server.loop import WebServer

    # It has a line for each request that must wait for a thread.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    logging.getLogger("waitress").addFilter(_on_one_line)
    sockets = [each for port in dict.fromkeys(ports) for each in bind(settings.host, port)]
    if limits is None:
        most = Limits()
        count = connections_for(most.connections + most.spare, settings.threads + SHORT_THREADS, len(sockets))
        limits = most.for_connections(count - most.spare)
    server = WebServer(limits, settings.threads, SHORT_THREADS, is_short)
    options = {
        # With this, waitress looks at connections whose request is being answered, and sees when a client hangs up.
        "channel_request_lookahead": 1,
        # What is larger is not even taken in; the application says so. Waitress counts the limit itself as too large.
        "max_request_body_size": settings.max_body_mb * 1024 * 1024 + 1,
        "max_request_header_size": LARGEST_HEAD,
        "inbuf_overflow": IN_MEMORY,
        "outbuf_overflow": IN_MEMORY,
        "ident": None,
        # They are read in `shared.web.proxies`.
        "clear_untrusted_proxy_headers": False,
    }

    guard: Guard = app.extensions[GUARD]
    server.listen(app, sockets, options, BodyLimits(large, guard.check_head, server.connections.has_room_for_body))
    return server


def _on_one_line(record: logging.LogRecord) -> bool:
    """Makes a message of waitress's one line that steers no terminal: it has paths in it, and anybody may send any."""
    shown = record.getMessage()[:LONGEST_MESSAGE]
    record.msg = "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in shown)
    record.args = ()
    return True


def is_short(method: str, path: str) -> bool:
    """Whether a request is answered at once, whatever else goes on: health, the state of jobs, and cancelling them."""
    if path in ("/health", "/ready"):
        return True
    if path == "/api/jobs" or path.startswith("/api/jobs/"):
        return not path.endswith("/events")
    return method == "POST" and path.endswith("/interrupt")


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets that are bound to `port` of `host`: for this machine's IPv4 name to its IPv6 name, too, if it has one.

    Browsers try the one or the other for `localhost`. Raises SetupError if the port is taken, or there is no such host.
    """
    bound: list[socket.socket] = []
    for name in addresses(host):
        try:
            # Port 0 stands for a free one, which is the same on all.
            number = bound[0].getsockname()[1] if bound else port
            bound += [_bound(*found) for found in _resolved(name, number)]
        except OSError as error:
            if not bound:
                taken = error.errno == errno.EADDRINUSE
                reason = "another program listens there" if taken else f"it cannot be had on {host}: {error}"
                hint = "stop it, or choose another port" if taken else f"does {PREFIX}HOST name this machine?"
                raise SetupError(f"port {port}", reason, hint=hint) from error
            if error.errno == errno.EADDRINUSE:
                log.warning("another program listens on port %d of [::1]: call this one as 127.0.0.1", port)
    return bound


def addresses(host: str) -> list[str]:
    """The names of this machine that a server for `host` listens on."""
    return ["127.0.0.1", "::1"] if host in ("127.0.0.1", "localhost") else [host]


def _resolved(name: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE)
    # Each once: some systems tell an address again for each network.
    return [(family, address) for family, address in {each[4][0]: (each[0], each[4]) for each in found}.values()]


def _bound(family: socket.AddressFamily, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":
            # There, the option of other systems would let another program take the port as well.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def open_ports(host: str, ports: Mapping[str, int]) -> tuple[list[int], list[SetupError]]:
    """Which of `ports` (by the settings that name them) are free, and what keeps us from the others."""
    free, taken = [], []
    for setting, port in ports.items():
        try:
            check_port(host, port, setting)
            free.append(port)
        except SetupError as error:
            taken.append(error)
    return free, taken


def check_port(host: str, port: int, setting: str) -> None:
    """Raises SetupError if `host` is not this machine, or if something listens on the port already."""
    _check_host(host)
    address = reachable(host)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        taken = probe.connect_ex((address.strip("[]"), port)) == 0
    if taken:
        name = _service_at(address, port)
        if name is not None:
            raise SetupError(
                f"port {port}",
                f"the service {name} of Dream Layer listens there already",
                hint=f"python dream_layer.py status shows what runs, stop ends it; or set {setting} to a free port",
            )
        raise SetupError(
            f"port {port}", "another program listens there", hint=f"stop it, or set {setting} to a free port"
        )


def _check_host(host: str) -> None:
    try:
        for found in _resolved(host, 0):
            _bound(*found).close()
    except OSError as error:
        raise SetupError(
            "host",
            f"{host} is no address of this machine: {error.strerror}",
            hint=f"{PREFIX}HOST is 127.0.0.1 for this machine alone, or 0.0.0.0 for all networks",
        ) from error


def _service_at(address: str, port: int) -> str | None:
    """The name of the service of ours that answers there; None if it is another program."""
    connection = http.client.HTTPConnection(address.strip("[]"), port, timeout=1)
    try:
        connection.request("GET", "/health")
        told = json.loads(connection.getresponse().read(LARGEST_HEALTH))
        return str(told["service"])[:30] if "version" in told else None
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return None
    finally:
        connection.close()


def _serve_development(app: Flask, settings: Settings, port: int) -> None:
    warnings.warn(
        "waitress is not installed: this is Flask's development server, which is not made for real use. "
        "Run: pip install -r requirements.txt",
        stacklevel=2,
    )
    app.run(host=settings.host, port=port, threaded=True)


def reachable(host: str) -> str:
    """The host part of a URL by which this machine reaches a server that listens on `host`."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}  # noqa: S104 - names, not a bind
    address = everywhere.get(host, host)
    return f"[{address}]" if ":" in address else address


def _stop(_signum: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(0)
