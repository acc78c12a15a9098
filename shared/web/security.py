"""Who may call: hosts, origins, keys and signed addresses."""

from __future__ import annotations

import hmac
import math
from typing import Any
from urllib.parse import SplitResult, urlsplit

from flask import Request
from werkzeug.datastructures import Headers

from shared.errors import OriginNotAllowed, RequestError, TooManyTries, Unauthorized, UnsupportedBody
from shared.settings import Settings, is_loopback
from shared.web.key_tries import KeyTries, sources_of
from shared.web.proxies import OWN_HOST, PEER, claims_of, see_through
from shared.web.urls import SIGNATURE, url_signer

# What pages of others must not do with a reply, whoever writes it. Signed addresses are secrets: no referrer.
RESTRICTIONS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# What needs no key: whether the service lives, and the page that asks for one.
OPEN = ("/", "/health", "/docs")
PAGE_FILES = "/docs/"
# Methods that change nothing.
SAFE = ("GET", "HEAD", "OPTIONS")
# Where the server leaves an error that it found in a request's head, in the WSGI environment.
REFUSAL = "dream_layer.refusal"
# Where an application keeps its guard, among its extensions.
GUARD = "dream_layer.guard"


class Guard:
    """Decides on the requests of one application, and counts the wrong keys that come with them."""

    def __init__(self, settings: Settings, tries: KeyTries | None = None) -> None:
        self._settings = settings
        self._tries = tries or KeyTries()
        self._signer = url_signer(settings)

    def check(self, request: Request, *, with_body: bool = False) -> None:
        """Raises an error for a request that must not go on: OriginNotAllowed, Unauthorized, TooManyTries, or
        UnsupportedBody; RequestError for a Host that is none.

        What is open to all has no use for a body: `with_body`, a request for it needs the key as well.
        """
        try:
            # What all addresses in the reply begin with.
            _ = request.root_url
        except UnicodeError as error:
            raise RequestError("Host is no name of a machine", field="Host") from error
        signature_error = self._objection(request)
        sources = sources_of(request.remote_addr or "", [] if PEER in request.environ else claims_of(request.headers))
        keyless = self._settings.api_key is None or signature_error == "" or (is_open(request.path) and not with_body)
        tried = not keyless and given_key(request.headers) != ""
        if tried and (wait := self._tries.wait(sources)) > 0:
            raise TooManyTries(
                "too many wrong API keys came from your address",
                hint="wait, then send the key that the service was started with",
                retry_after=math.ceil(wait),
            )
        try:
            check_request(
                self._settings,
                request.method,
                request.environ.get(OWN_HOST, request.host),
                request.headers,
                keyless=keyless,
                called=request.host,
            )
        except Unauthorized as error:
            if tried:
                self._tries.count(sources)
            if signature_error:
                raise Unauthorized(signature_error, hint="replies and GET /api/jobs/<id> have fresh ones") from error
            raise
        check_encoding(request.headers)

    def check_head(self, environ: dict[str, Any]) -> None:
        """As `check`, for the server, before it takes in a body: of the WSGI environment that the head makes.

        Whoever may not try keys any more must not learn from what becomes of a body whether a guess was right.
        """
        see_through(environ, self._settings.trusted_proxies)
        self.check(Request(environ), with_body=True)

    def _objection(self, request: Request) -> str | None:
        """What is wrong with the request's signature: "" if it is good, None if there is none that could count."""
        if self._signer is None or request.method not in ("GET", "HEAD") or SIGNATURE not in request.args:
            return None
        return self._signer.signature_error(request.path, request.args) or ""


def check_request(
    settings: Settings, method: str, host: str, headers: Headers, *, keyless: bool, called: str | None = None
) -> None:
    """Raises OriginNotAllowed or Unauthorized for a request that must not go on. Pure.

    `keyless` says that it needs no key. `called` is the host that a trusted proxy was called by, if that is another
    than `host`, which this service was.

    A browser sends forms and pictures to any address without asking, so CORS alone does not keep a strange page from
    using the GPU; its Origin header does tell on it. And a strange name that resolves to 127.0.0.1 would make such a
    page look like our own, so a service that listens on loopback answers to loopback names alone.
    """
    hostname = _split(f"//{host}").hostname or ""
    public = _split(settings.public_url or "").hostname
    if is_loopback(settings.host) and not is_loopback(hostname) and hostname != public:
        raise OriginNotAllowed(
            f"this service does not answer to the name {hostname!r}",
            hint="call it as localhost, or name its address in DREAM_LAYER_PUBLIC_URL",
        )
    origin = headers.get("Origin")
    if origin is not None and not _allowed(settings, origin, called or host):
        raise OriginNotAllowed(
            f"pages of {origin} may not call this service",
            hint="add it to DREAM_LAYER_ALLOWED_ORIGINS",
        )
    # Where a browser tells no origin, it tells this (https://www.w3.org/TR/fetch-metadata/).
    if origin is None and method not in SAFE and headers.get("Sec-Fetch-Site", "").lower() == "cross-site":
        raise OriginNotAllowed(
            f"pages of other sites may not send {method} without their origin",
            hint="add the page's origin to DREAM_LAYER_ALLOWED_ORIGINS, and have the page send it",
        )
    if keyless:
        return
    if not hmac.compare_digest(given_key(headers).encode(), (settings.api_key or "").encode()):
        raise Unauthorized("an API key is needed", hint="send it as X-API-Key, or as Authorization: Bearer")


def is_open(path: str) -> bool:
    """Whether a path needs no key: the page's own files are part of the page."""
    return path in OPEN or path.startswith(PAGE_FILES)


def given_key(headers: Headers) -> str:
    """The API key that a request brings; "" if it brings none."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return headers.get("X-API-Key") or (token.strip() if scheme.lower() == "bearer" else "")


def check_encoding(headers: Headers) -> None:
    """Raises UnsupportedBody for a compressed body: its size, once unpacked, would be known too late."""
    encodings = [each.strip().lower() for each in headers.get("Content-Encoding", "").split(",")]
    strange = [each for each in encodings if each not in ("", "identity")]
    if strange:
        raise UnsupportedBody(
            f"a body in the encoding {', '.join(strange)[:100]} is not understood",
            hint="send it as it is, without Content-Encoding",
            field="Content-Encoding",
        )


def _allowed(settings: Settings, origin: str, host: str) -> bool:
    if "*" in settings.allowed_origins or origin in settings.allowed_origins:
        return True
    # A page of the service itself, at the name that it was called by or that a proxy gives it.
    page = _split(origin).netloc
    return page != "" and page in (host, _split(settings.public_url or "").netloc)


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:
        # Such as "http://[": an address of nobody.
        return SplitResult("", "", "", "", "")
