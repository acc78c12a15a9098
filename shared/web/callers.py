"""Identifies callers, so that each can find its own jobs. Only hashes of their data are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flask import Request

from shared.errors import CallerUnclear
from shared.settings import is_loopback
from shared.web.proxies import PEER_ADDRESS, forwarded_addresses
from shared.web.security import api_key_in

# The number of ids in an error.
MOST_IDS = 20


@dataclass(frozen=True)
class Caller:
    """`identity` is a hash of reliable data: the caller's address, the origin of its web page, and its API key.

    `claim` is a hash of data that a caller can choose: its User-Agent, and the addresses that an unknown proxy reports.
    """

    identity: str
    claim: str

    @property
    def mark(self) -> str:
        """The text for a job's row, at most 64 characters."""
        return f"{self.identity}:{self.claim}"


def caller_of(request: Request) -> Caller:
    """The caller of a request."""
    # The address that a trusted proxy reported has already become the remote address.
    claims = [] if PEER_ADDRESS in request.environ else forwarded_addresses(request.headers)
    known = (request.remote_addr or "", request.headers.get("Origin", ""), api_key_in(request.headers))
    return Caller(_hash(known)[:32], _hash([request.headers.get("User-Agent", ""), *claims])[:16])


def is_local(request: Request) -> bool:
    """Whether the caller is certainly on this machine. A local proxy may forward requests from elsewhere."""
    through_a_proxy = PEER_ADDRESS not in request.environ and bool(forwarded_addresses(request.headers))
    return is_loopback(request.remote_addr or "") and not through_a_proxy


def newest_job_of(caller: Caller, marks: Sequence[tuple[str, str]]) -> str | None:
    """The id of the caller's newest job; None if it has none. Pure.

    `marks` has the id and the caller mark of each job, newest first. Raises CallerUnclear if the only candidates may
    belong to another caller behind the same proxy.
    """
    alike = [(job_id, mark) for job_id, mark in marks if mark.startswith(f"{caller.identity}:")]
    certain = [job_id for job_id, mark in alike if mark == caller.mark]
    if alike and not certain:
        raise CallerUnclear(
            "the unfinished jobs from your address may belong to another caller",
            field="job_id",
            hint="send the job's id in job_id; behind a proxy, set DREAM_LAYER_TRUSTED_PROXIES to distinguish callers",
            job_ids=[job_id for job_id, _ in alike[:MOST_IDS]],
        )
    return certain[0] if certain else None


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()
