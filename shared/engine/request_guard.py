"""Authentication for the engine's port, as an aiohttp middleware. Runs inside ComfyUI's process.

Without it, ComfyUI answers anyone who can reach its port, under any host name. That includes other users of the
machine, and web pages whose name resolves to 127.0.0.1 (DNS rebinding), because their Host and Origin agree. So
`install` adds a check to every application that aiohttp serves in this process, ahead of all other middleware:

    request target   must be a path; an absolute address would name another host
    Host             must be present once: a loopback name with the port of this connection
    Origin           if present, must be the engine's own page
    token            must be sent as `Authorization: Bearer`, or in the cookie that `/?token=...` sets for a browser

The check covers websockets too, because their handshake is a GET. The launcher creates a new token at each start.

Imports only the standard library and aiohttp, which ComfyUI requires: the engine may have its own environment.
"""

import hmac
from collections.abc import Awaitable, Callable
from http.cookies import CookieError
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HOST_NAMES = ("127.0.0.1", "localhost", "[::1]")
# Allowed values of Sec-Fetch-Site, which browsers send even without an Origin.
OWN_SITES = ("same-origin", "none")
HOW_TO_OPEN = "type `python dream_layer.py open engine` to open the page"
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def install(token: str) -> None:
    """Add the check to every application that is served from now on. Raises ValueError for an empty token."""
    if not token:
        raise ValueError("the engine's token is empty")
    guard = make_guard(token)
    original = web.AppRunner.__init__

    def guarded(self: web.AppRunner, app: web.Application, *arguments: Any, **options: Any) -> None:
        if guard not in app.middlewares:
            # The first middleware is the outermost: no other one answers before it.
            app.middlewares.insert(0, guard)
        original(self, app, *arguments, **options)

    setattr(web.AppRunner, "__init__", guarded)  # noqa: B010 - mypy allows no assignment to a method


def make_guard(token: str) -> Any:
    """Return the middleware that refuses requests without `token`."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        port = _port(request)
        refusal = check_origin(request, port)
        if refusal is not None:
            return _refuse(request, 403, "origin_not_allowed", *refusal)
        cookie = f"dream_layer_engine_{port}"
        if _matches(token, _bearer(request)) or _matches(token, _cookie(request, cookie)):
            return await handler(request)
        if request.method == "GET" and request.path == "/" and _matches(token, request.query.get("token", "")):
            page = web.Response(status=303, headers={**HEADERS, "Location": "/", "Referrer-Policy": "no-referrer"})
            page.set_cookie(cookie, token, path="/", httponly=True, samesite="Strict")
            return page
        return _refuse(
            request,
            401,
            "unauthorized",
            "the engine's token is missing or wrong; it changes each time the engine starts",
            f"{HOW_TO_OPEN}; programs send jobs to the services, or send the token as Authorization: Bearer",
        )

    return guard


def check_origin(request: web.Request, port: int | None) -> tuple[str, str] | None:
    """Return message and hint if a request is meant for another server or comes from another page; else None."""
    if not request.raw_path.startswith("/"):
        return "the request target must be a path, not a full address", "call the engine without a proxy"
    hosts = request.headers.getall("Host", [])
    host = hosts[0].lower() if len(hosts) == 1 else ""
    names = [f"{name}:{port}" for name in HOST_NAMES] + (list(HOST_NAMES) if port == 80 else [])
    if port is None or host not in names:
        sent = ", ".join(hosts)[:100] or "none"
        return f"the engine does not answer requests for this Host: {sent}", f"use {' or '.join(names)}"
    origins = request.headers.getall("Origin", [])
    if any(origin.lower() != f"{request.scheme}://{host}" for origin in origins):
        sent = ", ".join(origins)[:100]
        return f"pages of {sent} may not call the engine", "call the services from the page: they check its requests"
    if request.headers.get("Sec-Fetch-Site", "none") not in OWN_SITES:
        return "pages of other sites may neither call the engine nor link to it", HOW_TO_OPEN
    return None


def _port(request: web.Request) -> int | None:
    """Return the local port of the connection; None if it is unknown."""
    address = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return int(address[1]) if isinstance(address, tuple) else None


def _bearer(request: web.Request) -> str:
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else ""


def _cookie(request: web.Request, name: str) -> str:
    try:
        return request.cookies.get(name, "")
    except CookieError:
        return ""


def _matches(token: str, sent: str) -> bool:
    # compare_digest takes no other characters than ASCII. The token has none, so "?" may replace them.
    return hmac.compare_digest(sent.encode("ascii", "replace"), token.encode("ascii"))


def _refuse(request: web.Request, status: int, code: str, message: str, hint: str) -> web.Response:
    """Return an error: as text for browsers, else in this project's JSON form."""
    headers = {**HEADERS, "WWW-Authenticate": "Bearer"} if status == 401 else HEADERS
    if "text/html" in request.headers.get("Accept", ""):
        return web.Response(status=status, headers=headers, text=f"{message}\n\n{hint}\n")
    body = {"status": "error", "message": message, "error": {"code": code, "hint": hint}}
    return web.json_response(body, status=status, headers=headers)
