"""Serves an application with waitress until SIGTERM or Ctrl-C."""

import importlib.util
import logging
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import NoReturn

from flask import Flask

from shared.errors import SetupError
from shared.settings import Settings

log = logging.getLogger(__name__)

# See `shared.web.intake`, which cannot be imported without waitress.
Large = Callable[[str, Mapping[str, str]], "tuple[int, Path] | None"]


def _none_is_large(_path: str, _headers: Mapping[str, str]) -> None:
    return None


def run_service(app: Flask, settings: Settings, port: int) -> None:
    """Serves `app` on `port` in this thread, until SIGTERM or Ctrl-C."""
    signal.signal(signal.SIGTERM, _stop)
    log.info("%s listens on http://%s:%d", app.name, reachable(settings.host), port)
    try:
        if importlib.util.find_spec("waitress") is None:
            _serve_development(app, settings, port)
        else:
            serve_waitress(app, settings, port)
    except KeyboardInterrupt:
        pass
    log.info("%s stopped", app.name)


def serve_waitress(app: Flask, settings: Settings, *ports: int, large: Large = _none_is_large) -> None:
    """Serves on all of `ports`, with the same threads, until SystemExit or KeyboardInterrupt is raised in this thread.

    `large` tells which requests may be larger than others (see `shared.web.intake`).

    A request that waits for pictures holds a thread, however long it takes: waitress never cuts a request that runs,
    so `channel_timeout` (for idle connections) stays at its default, and the wait is bounded by `shared.web.waiting`.
    """
    from waitress.server import create_server

    from shared.web.intake import admit_large_bodies

    body_limit = settings.max_body_mb * 1024 * 1024
    server = create_server(
        app,
        listen=" ".join(_listen_addresses(settings.host, ports)),
        threads=settings.threads,
        # Idle keep-alive connections count too; the default of 100 would turn new clients away.
        connection_limit=1000,
        # With this, waitress looks at connections whose request is being answered, and sees when a client hangs up.
        channel_request_lookahead=1,
        # Flask answers bodies over its limit with our JSON error; absurd ones are not even taken in.
        max_request_body_size=4 * body_limit,
        ident=None,
        clear_untrusted_proxy_headers=True,
    )
    admit_large_bodies(server, large)
    server.run()


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
    """Raises SetupError if something listens on the port already."""
    address = reachable(host)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        taken = probe.connect_ex((address.strip("[]"), port)) == 0
    if taken:
        raise SetupError(
            f"port {port}", "another program listens there", hint=f"stop it, or set {setting} to a free port"
        )


def _listen_addresses(host: str, ports: Iterable[int]) -> list[str]:
    """What waitress listens on, each address once: two settings may name the same port."""
    name = f"[{host}]" if ":" in host else host
    return [f"{name}:{port}" for port in dict.fromkeys(ports)]


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
