"""The absolute URLs in replies. Those that <img> and EventSource fetch are signed, since these cannot send an API key.

A signed URL is valid for GET only, until the time in `expires` (Unix seconds). `signature` is an HMAC-SHA256 of path
and expiry. Its key is derived from the API key, so that every process with the same API key accepts it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

from itsdangerous import Signer as Hmac

from shared.settings import Settings

EXPIRES, SIGNATURE = "expires", "signature"
# Query arguments that choose the content, and are signed too. Others, such as `download`, may be added to a signed URL.
SIGNED_ARGUMENTS = ("bundle",)
# Expiry times are rounded down to a tenth of the lifetime, so that URLs repeat, and browsers find them in their cache.
STEPS = 10


class UrlSigner:
    """Signs paths for `lifetime` seconds, and checks signatures. `clock` returns Unix seconds."""

    def __init__(self, api_key: str, lifetime: int, clock: Callable[[], float] = time.time) -> None:
        self._hmac = Hmac(_derived_key(api_key), key_derivation="none", digest_method=hashlib.sha256)
        self._lifetime = lifetime
        self._clock = clock

    def sign(self, path: str, arguments: Mapping[str, str]) -> dict[str, str]:
        """The query arguments to add to a URL with this path and these arguments."""
        step = max(1, self._lifetime // STEPS)
        expires = str(int(self._clock() + self._lifetime) // step * step)
        return {
            EXPIRES: expires,
            SIGNATURE: self._hmac.get_signature(_signed_text(path, arguments, expires)).decode(),
        }

    def signature_error(self, path: str, arguments: Mapping[str, str]) -> str | None:
        """Why a URL's signature is invalid; None if it is valid."""
        expires, signature = arguments.get(EXPIRES, ""), arguments.get(SIGNATURE, "")
        if not self._hmac.verify_signature(_signed_text(path, arguments, expires), signature.encode()):
            return "the signature does not match this URL"
        return "this signed URL has expired" if int(expires) < self._clock() else None


def url_signer(settings: Settings) -> UrlSigner | None:
    """The signer for these settings; None without an API key, since no URL then needs a signature."""
    return None if settings.api_key is None else UrlSigner(settings.api_key, settings.signature_lifetime)


def _signed_text(path: str, arguments: Mapping[str, str], expires: str) -> bytes:
    signed = [f"{name}={arguments[name]}" for name in SIGNED_ARGUMENTS if name in arguments]
    return "\n".join(["GET", path, *signed, expires]).encode()


@lru_cache(maxsize=4)
def _derived_key(api_key: str) -> bytes:
    """The key for signatures. Deriving it is slow, against guessing the API key from a signed URL."""
    return hashlib.scrypt(api_key.encode(), salt=b"dream-layer signed addresses", n=2**14, r=8, p=1, dklen=32)


REPORT_PATH = "/api/report-bundle/download"


@dataclass(frozen=True)
class ReplyUrls:
    """The URLs in the reply to one request. `base` is their start, without a slash at its end.

    With a `signer`, the URLs that a browser fetches without an API key are signed.
    """

    base: str
    signer: UrlSigner | None = None

    def image(self, filename: str) -> str:
        """The URL of a picture."""
        return self._signed(f"/api/images/{filename}")

    def job(self, job_id: str) -> str:
        """The URL of a job."""
        return f"{self.base}/api/jobs/{job_id}"

    def events(self, job_id: str) -> str:
        """The URL of a job's event stream."""
        return self._signed(f"/api/jobs/{job_id}/events")

    def report(self, name: str) -> str:
        """The URL of a report, by its file name."""
        return self._signed(REPORT_PATH, bundle=name)

    def unsigned(self) -> ReplyUrls:
        """The same URLs without signatures, for files that are kept or shared."""
        return ReplyUrls(self.base)

    def _signed(self, path: str, **arguments: str) -> str:
        query = [f"{name}={quote(value)}" for name, value in arguments.items()]
        if self.signer is not None:
            query += [f"{name}={value}" for name, value in self.signer.sign(path, arguments).items()]
        return f"{self.base}{path}{'?' if query else ''}{'&'.join(query)}"
