"""Who may call: hosts, origins, keys and signed addresses."""

from __future__ import annotations

import hmac
import math
from urllib.parse import SplitResult, urlsplit

from flask import Request
from werkzeug.datastructures import Headers

from shared.errors import OriginNotAllowed, TooManyTries, Unauthorized, UnsupportedBody
from shared.settings import Settings, is_loopback
from shared.web.key_tries import KeyTries, sources_of
from shared.web.proxies import OWN_HOST, PEER, claims_of
from shared.web.signing import SIGNATURE, signer_of

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
# Where the server leaves an error that it found in a request's head, in the WSGI environment.
REFUSAL = "dream_layer.refusal"


class Guard:
    """Decides on the requests of one application, and counts the wrong keys that come with them."""

    def __init__(self, settings: Settings, tries: KeyTries | None = None) -> None:
        self._settings = settings
        self._tries = tries or KeyTries()
        self._signer = signer_of(settings)

    def check(self, request: Request) -> None:
        """Raises OriginNotAllowed, Unauthorized or TooManyTries for a request that must not go on."""
        objection = self._objection(request)
        sources = sources_of(request.remote_addr or "", [] if PEER in request.environ else claims_of(request.headers))
        needed = self._settings.api_key is not None and request.path not in OPEN and objection != ""
        tried = needed and given_key(request.headers) != ""
        if tried and (wait := self._tries.wait(sources)) > 0:
            raise TooManyTries(
                "too many wrong API keys came from your address",
                hint="wait, then send the key that the service was started with",
                retry_after=math.ceil(wait),
            )
        try:
            admit(
                self._settings,
                request.path,
                request.environ.get(OWN_HOST, request.host),
                request.headers,
                signed=objection == "",
                called=request.host,
            )
        except Unauthorized as error:
            if tried:
                self._tries.count(sources)
            if objection:
                raise Unauthorized(objection, hint="replies and GET /api/jobs/<id> have fresh ones") from error
            raise

    def _objection(self, request: Request) -> str | None:
        """What is wrong with the request's signature: "" if it is good, None if there is none that could count."""
        if self._signer is None or request.method not in ("GET", "HEAD") or SIGNATURE not in request.args:
            return None
        return self._signer.objection(request.path, request.args) or ""


def admit(
    settings: Settings, path: str, host: str, headers: Headers, *, signed: bool = False, called: str | None = None
) -> None:
    """Raises OriginNotAllowed or Unauthorized for a request that must not go on. Pure.

    `signed` says that the address bears a good signature, which stands in for the key. `called` is the host that a
    trusted proxy was called by, if that is another than `host`, which this service was.

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
    if settings.api_key is None or signed or path in OPEN:
        return
    if not hmac.compare_digest(given_key(headers).encode(), settings.api_key.encode()):
        raise Unauthorized("an API key is needed", hint="send it as X-API-Key, or as Authorization: Bearer")


def given_key(headers: Headers) -> str:
    """The API key that a request brings; "" if it brings none."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return headers.get("X-API-Key") or (token.strip() if scheme.lower() == "bearer" else "")


def admit_body(settings: Settings, path: str, headers: Headers) -> None:
    """As `admit`, for the server, before it takes in a body; raises UnsupportedBody too."""
    # Whether the sender is a trusted proxy, only the application knows, and it looks again.
    called = headers.get("X-Forwarded-Host") if settings.trusted_proxies else None
    admit(settings, path, headers.get("Host", ""), headers, called=called)
    check_encoding(headers)


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
    return _split(origin).netloc in (host, _split(settings.public_url or "").netloc or host)


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:
        # Such as "http://[": an address of nobody.
        return SplitResult("", "", "", "", "")
