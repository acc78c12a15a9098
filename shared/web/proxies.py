"""What a reverse proxy says of the request that it hands on: who called, and at which address.

Anybody can write these headers, so they count only where `DREAM_LAYER_TRUSTED_PROXIES` names the sender. There they
take the place of what the connection tells, before the application looks.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Any

from werkzeug.datastructures import EnvironHeaders, Headers

from shared.settings import Network, Settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# Where the connection's own address and host stand, if a trusted proxy may have told others.
PEER, OWN_HOST = "dream_layer.peer", "dream_layer.host"
# The headers that tell of a proxy, trusted or not.
CLAIMS = ("X-Forwarded-For", "Forwarded", "X-Real-IP")
HOST = re.compile(r"[\w.-]+(:\d{1,5})?|\[[\da-fA-F:.]+\](:\d{1,5})?")
PREFIX = re.compile(r"(/[\w.~-]+)+")
DEFAULT_PORTS = {"http": "80", "https": "443"}


class ForwardedRequests:
    """A WSGI application that sees forwarded requests as the proxy received them."""

    def __init__(self, app: Any, settings: Settings) -> None:
        self._app = app
        self._trusted = settings.trusted_proxies

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answers a request, as WSGI has it."""
        see_through(environ, self._trusted)
        response: Iterable[bytes] = self._app(environ, start_response)
        return response


def see_through(environ: dict[str, Any], trusted: Sequence[Network]) -> None:
    """Writes into a WSGI environment what a proxy told of its request, if that was handed on by a trusted one."""
    peer = environ.get("REMOTE_ADDR", "")
    if not is_in(peer, trusted):
        return
    environ[PEER], environ[OWN_HOST] = peer, environ.get("HTTP_HOST", "")
    headers = EnvironHeaders(environ)
    environ["REMOTE_ADDR"] = client_address(environ["REMOTE_ADDR"], _values(headers, "X-Forwarded-For"), trusted)
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


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The nearest address on a request's way that is no trusted proxy; else the farthest one. Pure.

    `forwarded` are the entries of X-Forwarded-For: each proxy adds at the end whom it was called by, and what stands
    in front of the first stranger is only that stranger's word.
    """
    nearest = peer
    for entry in reversed(forwarded):
        address = parse_address(entry)
        if address is None or not is_in(nearest, trusted):
            break
        nearest = str(address)
    return nearest


def parse_address(text: str) -> Address | None:
    """An IP address, with or without a port; None if it is none. IPv4 addresses in IPv6 form count as IPv4."""
    text = text.strip().strip('"')
    bracketed = re.fullmatch(r"\[(.+)\](:\d+)?", text)
    with_port = re.fullmatch(r"([\d.]+):\d+", text)
    try:
        address = ipaddress.ip_address(bracketed[1] if bracketed else with_port[1] if with_port else text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_in(address: str, networks: Sequence[Network]) -> bool:
    """Whether an address is in one of the networks."""
    parsed = parse_address(address)
    return parsed is not None and any(parsed in network for network in networks)


def claims_of(headers: Headers) -> list[str]:
    """What proxies say of where a request came from; by whoever sent it."""
    return [value for name in CLAIMS for value in _values(headers, name)[-1:]]


def _values(headers: Headers, name: str) -> list[str]:
    return [value.strip() for value in headers.get(name, "").split(",") if value.strip()]


def _last(headers: Headers, name: str) -> str:
    """The nearest proxy's value."""
    return next(iter(_values(headers, name)[-1:]), "")
