"""Decides which requests are allowed: by host, origin, API key and signed URL."""

from __future__ import annotations

import hmac
import math
from typing import Any
from urllib.parse import SplitResult, urlsplit

from flask import Request
from werkzeug.datastructures import Headers

from shared.errors import OriginNotAllowed, RequestError, TooManyTries, Unauthorized, UnsupportedBody
from shared.settings import Settings, is_loopback
from shared.web.api_key_throttle import KeyThrottle, throttle_sources
from shared.web.proxies import PEER_ADDRESS, RECEIVED_HOST, apply_forwarded_headers, forwarded_addresses
from shared.web.urls import SIGNATURE, url_signer

# Headers of every response: restrict what pages of other sites do with it. Signed URLs are secrets, so no referrer.
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Paths that need no key: the health check, and the page that asks for the key.
KEYLESS_PATHS = ("/", "/health", "/docs")
PAGE_FILES = "/docs/"
# Methods that change nothing (RFC 9110, 9.2.1).
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# Key in the WSGI environment of the error that the server found in a request's head.
HEAD_ERROR = "dream_layer.head_error"
# Key of an application's `AccessControl` in its extensions.
ACCESS_CONTROL = "dream_layer.access_control"


class AccessControl:
    """Checks the requests of one application, and counts the wrong keys that they bring."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._throttle = KeyThrottle()
        self._signer = url_signer(settings)

    def check(self, request: Request, *, with_body: bool = False) -> None:
        """Raise an error if the request is not allowed.

        OriginNotAllowed, Unauthorized, TooManyTries, UnsupportedBody, or RequestError if its Host is not a host name.

        Paths that need no key have no use for a body: `with_body`, they need the key too.
        """
        try:
            # The start of all URLs in the response.
            _ = request.root_url
        except UnicodeError as error:
            raise RequestError("the Host header is not a valid host name", field="Host") from error
        signature_error = self._signature_error(request)
        sources = throttle_sources(
            request.remote_addr or "", [] if PEER_ADDRESS in request.environ else forwarded_addresses(request.headers)
        )
        keyless = (
            self._settings.api_key is None or signature_error == "" or (is_keyless(request.path) and not with_body)
        )
        has_key = not keyless and api_key_in(request.headers) != ""
        if has_key and (wait := self._throttle.seconds_to_wait(sources)) > 0:
            raise TooManyTries(
                "your address has sent too many wrong API keys",
                hint="wait, then send the key that the service was started with",
                retry_after=math.ceil(wait),
            )
        try:
            check_request(
                self._settings,
                request.method,
                request.environ.get(RECEIVED_HOST, request.host),
                request.headers,
                keyless=keyless,
                public_host=request.host,
            )
        except Unauthorized as error:
            if has_key:
                self._throttle.count_failure(sources)
            if signature_error:
                raise Unauthorized(
                    signature_error, hint="use the URL from a newer response, or from GET /api/jobs/<id>"
                ) from error
            raise
        check_encoding(request.headers)

    def check_head(self, environ: dict[str, Any]) -> None:
        """Check a request by the WSGI environment of its head, before the server reads its body. Raises as `check`.

        A throttled client must not learn from the handling of a body whether its key is right.
        """
        apply_forwarded_headers(environ, self._settings.trusted_proxies)
        self.check(Request(environ), with_body=True)

    def _signature_error(self, request: Request) -> str | None:
        """Return the error of the URL's signature: "" if it is valid, None if the request has none that applies."""
        if self._signer is None or request.method not in ("GET", "HEAD") or SIGNATURE not in request.args:
            return None
        return self._signer.signature_error(request.path, request.args) or ""


def check_request(
    settings: Settings, method: str, host: str, headers: Headers, *, keyless: bool, public_host: str | None = None
) -> None:
    """Raise OriginNotAllowed or Unauthorized if the request is not allowed. Pure.

    `keyless`: the request needs no key. `host` is the Host that this service received; `public_host` the one that a
    trusted proxy received, if they differ.

    A browser sends forms and pictures to any address without asking, so CORS alone does not stop another site's page
    from using the GPU; its Origin header identifies it. With DNS rebinding, a name that resolves to 127.0.0.1 makes
    such a page look like our own, so a service that listens on loopback accepts loopback names only.
    """
    hostname = _split(f"//{host}").hostname or ""
    public = _split(settings.public_url or "").hostname
    if is_loopback(settings.host) and not is_loopback(hostname) and hostname != public:
        raise OriginNotAllowed(
            f"the host name {hostname!r} is not allowed",
            hint="use localhost, or set DREAM_LAYER_PUBLIC_URL to the service's address",
        )
    origin = headers.get("Origin")
    if origin is not None and not _allowed(settings, origin, public_host or host):
        raise OriginNotAllowed(
            f"pages of {origin} are not allowed to call this service",
            hint="add it to DREAM_LAYER_ALLOWED_ORIGINS",
        )
    # Browsers that send no Origin send this header (https://www.w3.org/TR/fetch-metadata/).
    if origin is None and method not in SAFE_METHODS and headers.get("Sec-Fetch-Site", "").lower() == "cross-site":
        raise OriginNotAllowed(
            f"pages of other sites are not allowed to send {method} without an Origin header",
            hint="add the page's origin to DREAM_LAYER_ALLOWED_ORIGINS, and have the page send it",
        )
    if keyless:
        return
    if not hmac.compare_digest(api_key_in(headers).encode(), (settings.api_key or "").encode()):
        raise Unauthorized("an API key is required", hint="send it as X-API-Key, or as Authorization: Bearer")


def is_keyless(path: str) -> bool:
    """Whether a path needs no key, as the page that asks for it and the page's files."""
    return path in KEYLESS_PATHS or path.startswith(PAGE_FILES)


def api_key_in(headers: Headers) -> str:
    """Return the API key in a request's headers; "" if there is none."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return headers.get("X-API-Key") or (token.strip() if scheme.lower() == "bearer" else "")


def check_encoding(headers: Headers) -> None:
    """Raise UnsupportedBody for a compressed body: its unpacked size would be known too late."""
    encodings = [encoding.strip().lower() for encoding in headers.get("Content-Encoding", "").split(",")]
    unsupported = [encoding for encoding in encodings if encoding not in ("", "identity")]
    if unsupported:
        raise UnsupportedBody(
            f"the body's encoding {', '.join(unsupported)[:100]} is not supported",
            hint="send the body uncompressed, without Content-Encoding",
            field="Content-Encoding",
        )


def _allowed(settings: Settings, origin: str, host: str) -> bool:
    if "*" in settings.allowed_origins or origin in settings.allowed_origins:
        return True
    # A page of the service itself, under the host that the request names or that a proxy has.
    page = _split(origin).netloc
    return page != "" and page in (host, _split(settings.public_url or "").netloc)


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:
        # Such as "http://[".
        return SplitResult("", "", "", "", "")
