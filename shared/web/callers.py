"""Who sent a request: enough to tell whose jobs are whose, and never kept in the clear."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flask import Request

from shared.errors import CallerUnclear
from shared.settings import is_loopback
from shared.web.proxies import PEER_ADDRESS, forwarded_addresses
from shared.web.security import api_key_in

# How many ids an error names.
MOST_NAMED = 20


@dataclass(frozen=True)
class Caller:
    """`identity` is what is known of a caller: its address, the web page that it calls from, and its key.

    `claim` is what cannot be relied on, yet tells two callers apart: the program that it says it is, and the address
    that an unknown proxy names. Both are hashes.
    """

    identity: str
    claim: str

    @property
    def mark(self) -> str:
        """What a job's row keeps of its caller, at most 64 characters."""
        return f"{self.identity}:{self.claim}"


def caller_of(request: Request) -> Caller:
    """The caller of a request."""
    # What a trusted proxy said is the address by now, and needs no second look.
    claims = [] if PEER_ADDRESS in request.environ else forwarded_addresses(request.headers)
    known = (request.remote_addr or "", request.headers.get("Origin", ""), api_key_in(request.headers))
    return Caller(_hash(known)[:32], _hash([request.headers.get("User-Agent", ""), *claims])[:16])


def is_local(request: Request) -> bool:
    """Whether the caller is surely on this machine: a proxy on it calls for others."""
    through_a_proxy = PEER_ADDRESS not in request.environ and bool(forwarded_addresses(request.headers))
    return is_loopback(request.remote_addr or "") and not through_a_proxy


def newest_job_of(caller: Caller, marks: Sequence[tuple[str, str]]) -> str | None:
    """The id of the caller's newest job; None if it has none. Pure.

    `marks` are the ids of jobs, the newest first, each with the mark of its caller. Raises CallerUnclear where only a
    guess could tell whether a job is this caller's: it may be that of another behind the same proxy.
    """
    alike = [(job_id, mark) for job_id, mark in marks if mark.startswith(f"{caller.identity}:")]
    certain = [job_id for job_id, mark in alike if mark == caller.mark]
    if alike and not certain:
        raise CallerUnclear(
            "unfinished jobs from your address may be those of another caller",
            field="job_id",
            hint="name the job to cancel in job_id; behind a proxy, DREAM_LAYER_TRUSTED_PROXIES tells callers apart",
            job_ids=[job_id for job_id, _ in alike[:MOST_NAMED]],
        )
    return certain[0] if certain else None


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()
