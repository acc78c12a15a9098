"""The absolute addresses in a reply, signed where <img> and EventSource, which cannot send a key, fetch them.

An address is good for GET alone, until the time (Unix seconds) in `expires`. `signature` is an HMAC-SHA256 over path
and expiry, with a key derived from the API key; so every process that has the API key accepts it.
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
# Arguments that say what is sent, and so are signed too. Others, such as `download`, may be added to a signed address.
COVERED = ("bundle",)
# Expiry times are rounded down to a tenth of the lifetime: an address that stays the same stays in a browser's cache.
STEPS = 10


class UrlSigner:
    """Signs paths for `lifetime` seconds, and checks signatures. `clock` gives Unix seconds."""

    def __init__(self, api_key: str, lifetime: int, clock: Callable[[], float] = time.time) -> None:
        self._hmac = Hmac(_derived(api_key), key_derivation="none", digest_method=hashlib.sha256)
        self._lifetime = lifetime
        self._clock = clock

    def sign(self, path: str, arguments: Mapping[str, str]) -> dict[str, str]:
        """The arguments that make an address of this path, with these arguments, a signed one."""
        step = max(1, self._lifetime // STEPS)
        expires = str(int(self._clock() + self._lifetime) // step * step)
        return {EXPIRES: expires, SIGNATURE: self._hmac.get_signature(_signed(path, arguments, expires)).decode()}

    def signature_error(self, path: str, arguments: Mapping[str, str]) -> str | None:
        """What is wrong with the signature among an address's arguments; None if it is good."""
        expires, signature = arguments.get(EXPIRES, ""), arguments.get(SIGNATURE, "")
        if not self._hmac.verify_signature(_signed(path, arguments, expires), signature.encode()):
            return "the signature does not belong to this address"
        return "this signed address has expired" if int(expires) < self._clock() else None


def url_signer(settings: Settings) -> UrlSigner | None:
    """The signer of these settings; None without an API key, for nothing needs a signature then."""
    return None if settings.api_key is None else UrlSigner(settings.api_key, settings.signature_lifetime)


def _signed(path: str, arguments: Mapping[str, str], expires: str) -> bytes:
    covered = [f"{name}={arguments[name]}" for name in COVERED if name in arguments]
    return "\n".join(["GET", path, *covered, expires]).encode()


@lru_cache(maxsize=4)
def _derived(api_key: str) -> bytes:
    """The key for signatures. It is slow to derive: who has a signed address could try API keys on it at home."""
    return hashlib.scrypt(api_key.encode(), salt=b"dream-layer signed addresses", n=2**14, r=8, p=1, dklen=32)


REPORT = "/api/report-bundle/download"


@dataclass(frozen=True)
class ReplyUrls:
    """The addresses in the reply to one request. `base` is what they begin with, without a slash at its end.

    With a `signer`, those that a browser fetches by itself, and so without an API key, are signed.
    """

    base: str
    signer: UrlSigner | None = None

    def image(self, filename: str) -> str:
        """The address of a picture."""
        return self._fetched(f"/api/images/{filename}")

    def job(self, job_id: str) -> str:
        """The address of a job."""
        return f"{self.base}/api/jobs/{job_id}"

    def events(self, job_id: str) -> str:
        """The address of a job's event stream."""
        return self._fetched(f"/api/jobs/{job_id}/events")

    def report(self, name: str) -> str:
        """The address of a report, by the name of its file."""
        return self._fetched(REPORT, bundle=name)

    def unsigned(self) -> ReplyUrls:
        """The same without signatures, for what is kept or handed on."""
        return ReplyUrls(self.base)

    def _fetched(self, path: str, **arguments: str) -> str:
        query = [f"{name}={quote(value)}" for name, value in arguments.items()]
        if self.signer is not None:
            query += [f"{name}={value}" for name, value in self.signer.sign(path, arguments).items()]
        return f"{self.base}{path}{'?' if query else ''}{'&'.join(query)}"
