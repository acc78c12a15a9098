"""Ports and host addresses: which are free, binding sockets to them, and the URL that reaches them."""

from __future__ import annotations

import errno
import http.client
import json
import logging
import socket
import sys
from collections.abc import Mapping
from typing import Any

from shared.errors import SetupError
from shared.settings import PREFIX

log = logging.getLogger(__name__)

# Bytes that are read of the response of whatever listens on a port that we want.
MAX_HEALTH_BYTES = 10_000


def bind_sockets(host: str, port: int) -> list[socket.socket]:
    """Bind sockets to `port` of `host`; for this machine's IPv4 loopback, also to the IPv6 one if there is one.

    Browsers try either address for `localhost`. Raises SetupError if the port is taken, or if `host` is not this
    machine.
    """
    bound: list[socket.socket] = []
    for name in listen_addresses(host):
        try:
            # Port 0 stands for any free port; all sockets use the same one.
            number = bound[0].getsockname()[1] if bound else port
            bound += [_bind(family, address) for family, address in _resolve(name, number)]
        except OSError as error:
            if not bound:
                taken = error.errno == errno.EADDRINUSE
                reason = "another program is using it" if taken else f"it is not available on {host}: {error}"
                hint = "stop that program, or choose another port" if taken else f"does {PREFIX}HOST name this machine?"
                raise SetupError(f"port {port}", reason, hint=hint) from error
            if error.errno == errno.EADDRINUSE:
                log.warning("another program listens on port %d of [::1]: use 127.0.0.1 for this service", port)
    return bound


def listen_addresses(host: str) -> list[str]:
    """Return the addresses that a server for `host` listens on."""
    return ["127.0.0.1", "::1"] if host in ("127.0.0.1", "localhost") else [host]


def url_host(host: str) -> str:
    """Return the host part of a URL by which this machine reaches a server that listens on `host`."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}  # noqa: S104 - names, not a bind
    address = everywhere.get(host, host)
    return f"[{address}]" if ":" in address else address


def find_free_ports(host: str, ports: Mapping[str, int]) -> tuple[list[int], list[SetupError]]:
    """Return which of `ports` (by the settings that name them) are free, and the errors of the others."""
    free, errors = [], []
    for setting, port in ports.items():
        try:
            check_port(host, port, setting)
            free.append(port)
        except SetupError as error:
            errors.append(error)
    return free, errors


def check_port(host: str, port: int, setting: str) -> None:
    """Raise SetupError if `host` is not this machine, or if something already listens on the port."""
    _check_host(host)
    address = url_host(host)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        taken = client.connect_ex((address.strip("[]"), port)) == 0
    if not taken:
        return
    service = _service_on(address, port)
    if service is not None:
        raise SetupError(
            f"port {port}",
            f"the {service} service of Dream Layer is already running on it",
            hint="`python dream_layer.py status` shows what is running, `python dream_layer.py stop` stops it; "
            f"or set {setting} to a free port",
        )
    raise SetupError(
        f"port {port}", "another program is using it", hint=f"stop that program, or set {setting} to a free port"
    )


def _check_host(host: str) -> None:
    try:
        for family, address in _resolve(host, 0):
            _bind(family, address).close()
    except OSError as error:
        raise SetupError(
            "host",
            f"{host} is not an address of this machine: {error.strerror}",
            hint=f"set {PREFIX}HOST to 127.0.0.1 for this machine only, or to 0.0.0.0 for all networks",
        ) from error


def _service_on(address: str, port: int) -> str | None:
    """Return the name of our service that answers on a port; None if it is another program."""
    connection = http.client.HTTPConnection(address.strip("[]"), port, timeout=1)
    try:
        connection.request("GET", "/health")
        health = json.loads(connection.getresponse().read(MAX_HEALTH_BYTES))
        return str(health["service"])[:30] if "version" in health else None
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return None
    finally:
        connection.close()


def _resolve(name: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
    infos = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE)
    # Without duplicates: some systems return an address again for each network.
    by_host = {address[0]: (family, address) for family, _, _, _, address in infos}
    return list(by_host.values())


def _bind(family: socket.AddressFamily, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":
            # On Windows, SO_REUSEADDR would let another program bind the same port.
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
