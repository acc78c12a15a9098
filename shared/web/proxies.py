"""Applies the X-Forwarded-* headers of trusted reverse proxies: the client's address, the scheme, the host, the prefix.

Anybody can send these headers, so they count only if `DREAM_LAYER_TRUSTED_PROXIES` names the sender. Then they replace
the connection's own values in the WSGI environment.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Any

from werkzeug.datastructures import EnvironHeaders, Headers

from shared.settings import Network, Settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# Keys of the connection's own address and Host in the environment of a request from a trusted proxy.
PEER_ADDRESS, RECEIVED_HOST = "dream_layer.peer", "dream_layer.host"
# Headers in which a proxy, trusted or not, names the client.
FORWARDING_HEADERS = ("X-Forwarded-For", "Forwarded", "X-Real-IP")
HOST = re.compile(r"[\w.-]+(:\d{1,5})?|\[[\da-fA-F:.]+\](:\d{1,5})?")
PREFIX = re.compile(r"(/[\w.~-]+)+")
DEFAULT_PORTS = {"http": "80", "https": "443"}


class ProxyMiddleware:
    """WSGI middleware: the application sees forwarded requests as the trusted proxy received them."""

    def __init__(self, app: Any, settings: Settings) -> None:
        self._app = app
        self._trusted = settings.trusted_proxies

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Handle a request, as WSGI defines it."""
        apply_forwarded_headers(environ, self._trusted)
        response: Iterable[bytes] = self._app(environ, start_response)
        return response


def apply_forwarded_headers(environ: dict[str, Any], trusted: Sequence[Network]) -> None:
    """Replace address, scheme, host and prefix in a WSGI environment if a trusted proxy forwarded the request."""
    peer = environ.get("REMOTE_ADDR", "")
    if not is_in_networks(peer, trusted):
        return
    environ[PEER_ADDRESS], environ[RECEIVED_HOST] = peer, environ.get("HTTP_HOST", "")
    headers = EnvironHeaders(environ)
    environ["REMOTE_ADDR"] = nearest_untrusted(environ["REMOTE_ADDR"], _values(headers, "X-Forwarded-For"), trusted)
    scheme = _last(headers, "X-Forwarded-Proto").lower()
    if scheme in DEFAULT_PORTS:
        environ["wsgi.url_scheme"] = scheme
    host, port = _last(headers, "X-Forwarded-Host"), _last(headers, "X-Forwarded-Port")
    if HOST.fullmatch(host):
        unusual = port.isdecimal() and port != DEFAULT_PORTS.get(environ["wsgi.url_scheme"])
        environ["HTTP_HOST"] = f"{host}:{port}" if unusual and not re.search(r":\d+$", host) else host
    prefix = _last(headers, "X-Forwarded-Prefix").rstrip("/")
    if PREFIX.fullmatch(prefix):
        environ["SCRIPT_NAME"] = prefix


def nearest_untrusted(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the nearest address on a request's path that is not a trusted proxy; else the farthest one. Pure.

    `forwarded` are the entries of X-Forwarded-For: each proxy appends the address of its own client. Entries before the
    first untrusted address are only claims of that client.
    """
    nearest = peer
    for entry in reversed(forwarded):
        address = parse_address(entry)
        if address is None or not is_in_networks(nearest, trusted):
            break
        nearest = str(address)
    return nearest


def parse_address(text: str) -> Address | None:
    """Parse an IP address, with or without a port; None if invalid. IPv4 addresses in IPv6 form become IPv4."""
    text = text.strip().strip('"')
    bracketed = re.fullmatch(r"\[(.+)\](:\d+)?", text)
    with_port = re.fullmatch(r"([\d.]+):\d+", text)
    try:
        address = ipaddress.ip_address(bracketed[1] if bracketed else with_port[1] if with_port else text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_in_networks(address: str, networks: Sequence[Network]) -> bool:
    """Whether an address is in one of the networks."""
    parsed = parse_address(address)
    return parsed is not None and any(parsed in network for network in networks)


def forwarded_addresses(headers: Headers) -> list[str]:
    """Return the client addresses in the forwarding headers, which any client can send."""
    return [value for name in FORWARDING_HEADERS for value in _values(headers, name)[-1:]]


def _values(headers: Headers, name: str) -> list[str]:
    return [value.strip() for value in headers.get(name, "").split(",") if value.strip()]


def _last(headers: Headers, name: str) -> str:
    """Return the nearest proxy's value."""
    return next(iter(_values(headers, name)[-1:]), "")
