"""Who may call the engine: programs that know its token, and its own page. Runs inside ComfyUI's process.

On its own, ComfyUI answers anyone who can reach its port, under any host name. That includes other users of the
machine, and web pages whose name resolves to 127.0.0.1 (DNS rebinding), because their Host and Origin agree. So
`install` adds a check to every application that aiohttp serves in this process, ahead of all other middleware:

    request target   must be a path; an absolute address would name another host
    Host             must be there once: a loopback name with the port that was connected to
    Origin           if there is one, must be the engine's own page
    token            must come as `Authorization: Bearer`, or in the cookie that `/?token=...` sets for a browser

The check covers websockets too, because their handshake is a GET. The launcher makes a new token at each start.

Needs aiohttp, which ComfyUI brings, and nothing of ours: the engine may have an environment of its own.
"""

import hmac
from collections.abc import Awaitable, Callable
from http.cookies import CookieError
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HOST_NAMES = ("127.0.0.1", "localhost", "[::1]")
# Requests of other pages and sites say so here, even those that bear no Origin.
OWN_SITES = ("same-origin", "none")
HOW_TO_OPEN = "type `python dream_layer.py open engine` to open the page"
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def install(token: str) -> None:
    """Puts the check before every application that is served from now on. Raises ValueError for an empty token."""
    if not token:
        raise ValueError("the engine's token is empty")
    guard = make_guard(token)
    usual = web.AppRunner.__init__

    def guarded(self: web.AppRunner, app: web.Application, *arguments: Any, **options: Any) -> None:
        if guard not in app.middlewares:
            # First in the list is the outermost, so that no other answers before it.
            app.middlewares.insert(0, guard)
        usual(self, app, *arguments, **options)

    setattr(web.AppRunner, "__init__", guarded)  # noqa: B010 - mypy allows no assignment to a method


def make_guard(token: str) -> Any:
    """The middleware that lets in who knows `token`."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        port = _port(request)
        stranger = foreign(request, port)
        if stranger is not None:
            return _refusal(request, 403, "origin_not_allowed", *stranger)
        cookie = f"dream_layer_engine_{port}"
        if _is(token, _bearer(request)) or _is(token, _cookie(request, cookie)):
            return await handler(request)
        if request.method == "GET" and request.path == "/" and _is(token, request.query.get("token", "")):
            page = web.Response(status=303, headers={**HEADERS, "Location": "/", "Referrer-Policy": "no-referrer"})
            page.set_cookie(cookie, token, path="/", httponly=True, samesite="Strict")
            return page
        return _refusal(
            request,
            401,
            "unauthorized",
            "the engine's token is missing or wrong; it changes each time the engine starts",
            f"{HOW_TO_OPEN}; programs send jobs to the services, or send the token as Authorization: Bearer",
        )

    return guard


def foreign(request: web.Request, port: int | None) -> tuple[str, str] | None:
    """What shows that a request was meant for another server or comes from another page, and what would be right."""
    if not request.raw_path.startswith("/"):
        return "the request target must be a path, not a whole address", "call the engine without a proxy"
    hosts = request.headers.getall("Host", [])
    host = hosts[0].lower() if len(hosts) == 1 else ""
    names = [f"{name}:{port}" for name in HOST_NAMES] + (list(HOST_NAMES) if port == 80 else [])
    if port is None or host not in names:
        said = ", ".join(hosts)[:100] or "none"
        return f"the engine does not answer to this Host: {said}", f"use {' or '.join(names)}"
    origins = request.headers.getall("Origin", [])
    if any(origin.lower() != f"{request.scheme}://{host}" for origin in origins):
        said = ", ".join(origins)[:100]
        return f"pages of {said} may not call the engine", "let the page call the services, which check what it sends"
    if request.headers.get("Sec-Fetch-Site", "none") not in OWN_SITES:
        return "pages of other sites may neither call the engine nor link to it", HOW_TO_OPEN
    return None


def _port(request: web.Request) -> int | None:
    """The port that the request came in by; None if that is not known."""
    address = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return int(address[1]) if isinstance(address, tuple) else None


def _bearer(request: web.Request) -> str:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _cookie(request: web.Request, name: str) -> str:
    try:
        return request.cookies.get(name, "")
    except CookieError:
        return ""


def _is(token: str, given: str) -> bool:
    # Bytes, for texts with other letters than ASCII cannot be compared; the token has none, so "?" may stand for them.
    return hmac.compare_digest(given.encode("ascii", "replace"), token.encode("ascii"))


def _refusal(request: web.Request, status: int, code: str, message: str, hint: str) -> web.Response:
    """As text for a person in a browser, else in the form of all errors of this project."""
    headers = {**HEADERS, "WWW-Authenticate": "Bearer"} if status == 401 else HEADERS
    if "text/html" in request.headers.get("Accept", ""):
        return web.Response(status=status, headers=headers, text=f"{message}\n\n{hint}\n")
    body = {"status": "error", "message": message, "error": {"code": code, "hint": hint}}
    return web.json_response(body, status=status, headers=headers)
