"""Who may call: hosts, origins and keys. Pure."""

import hmac
from urllib.parse import SplitResult, urlsplit

from werkzeug.datastructures import Headers

from shared.errors import OriginNotAllowed, Unauthorized, UnsupportedBody
from shared.settings import Settings, is_loopback

# What needs no key: whether the service lives, and the page that asks for one.
OPEN = ("/health", "/docs")
# Where the server leaves an error that it found in a request's head, in the WSGI environment.
REFUSAL = "dream_layer.refusal"


def admit(settings: Settings, path: str, host: str, headers: Headers) -> None:
    """Raises OriginNotAllowed or Unauthorized for a request that must not go on.

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
    if origin is not None and not _allowed(settings, origin, host):
        raise OriginNotAllowed(
            f"pages of {origin} may not call this service",
            hint="add it to DREAM_LAYER_ALLOWED_ORIGINS",
        )
    if settings.api_key is not None and path not in OPEN:
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        given = headers.get("X-API-Key") or (token.strip() if scheme.lower() == "bearer" else "")
        if not hmac.compare_digest(given.encode(), settings.api_key.encode()):
            raise Unauthorized("an API key is needed", hint="send it as X-API-Key, or as Authorization: Bearer")


def admit_body(settings: Settings, path: str, headers: Headers) -> None:
    """As `admit`, for the server, before it takes in a body; raises UnsupportedBody too."""
    admit(settings, path, headers.get("Host", ""), headers)
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
