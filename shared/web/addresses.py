"""The absolute addresses in a reply. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from shared.web.signing import Signer

REPORT = "/api/report-bundle/download"


@dataclass(frozen=True)
class Addresses:
    """The addresses in the reply to one request. `base` is what they begin with, without a slash at its end.

    With a `signer`, those that a browser fetches by itself, and so without an API key, are signed.
    """

    base: str
    signer: Signer | None = None

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

    def unsigned(self) -> Addresses:
        """The same without signatures, for what is kept or handed on."""
        return Addresses(self.base)

    def _fetched(self, path: str, **arguments: str) -> str:
        query = [f"{name}={quote(value)}" for name, value in arguments.items()]
        if self.signer is not None:
            query += [f"{name}={value}" for name, value in self.signer.sign(path, arguments).items()]
        return f"{self.base}{path}{'?' if query else ''}{'&'.join(query)}"
