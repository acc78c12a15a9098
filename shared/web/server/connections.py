"""Limits on connections: how many may be open, deadlines for slow clients, and which to close when room is needed.

A connection whose request is being processed is never closed by any of this, however long its pictures take.
"""

from __future__ import annotations

import enum
import ipaddress
import select
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

MB = 1024 * 1024
LOOPBACK = "127.0.0.1"

# File descriptors that one connection may need: its socket, the file of a large request body, the file of a response.
DESCRIPTORS_PER_CONNECTION = 3
# Those that a service needs besides: logs, listening sockets, the engine, libraries.
RESERVED_DESCRIPTORS = 128
# Per thread: a database connection with its two companion files. Few threads use one at once.
DESCRIPTORS_PER_THREAD = 2
# The minimum number of connections, even where the system allows fewer descriptors.
MIN_CONNECTIONS = 32
# Python's `select` on Windows takes at most 512 sockets.
SELECT_LIMIT = 512


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits on the connections of one server. Times are seconds, sizes bytes.

    `connections` may be open at once, `per_address` of them from one address (an IPv6 network of 64 bits counts as
    one), `per_loopback` from this machine. When all are in use and none can be closed, `spare` more are accepted for
    short requests only (`shared.web.server.run.is_short`).

    A request's head must be complete within `head_s`. A body must bring `body_floor` bytes in each `window_s`. The
    client must read `reader_floor` bytes of a finished response in each `reader_window_s`, and one byte of a stream.
    A connection without a request is closed after `idle_s`, or after `idle_crowded_s` when more than the share
    `crowded` of the connections is in use. `held_bodies` and `held_output` bound the memory and temporary files of all
    bodies and of all responses together.
    """

    connections: int = 1000
    spare: int = 32
    per_address: int = 128
    per_loopback: int = 900
    head_s: float = 20
    idle_s: float = 120
    idle_crowded_s: float = 5
    crowded: float = 0.75
    window_s: float = 20
    body_floor: int = 64 * 1024
    reader_window_s: float = 60
    reader_floor: int = 64 * 1024
    linger_s: float = 5
    held_bodies: int = 1024 * MB
    held_output: int = 512 * MB

    def for_connections(self, count: int) -> ConnectionLimits:
        """Return the limits for `count` connections, with the limits per address in proportion."""
        share = count / self.connections
        return replace(
            self,
            connections=count,
            per_address=max(8, int(self.per_address * share)),
            per_loopback=max(8, int(self.per_loopback * share)),
        )


class ConnectionPhase(enum.IntEnum):
    """What a connection is doing. When room is needed, lower numbers are closed first."""

    LINGERING = 0
    """The response is sent; what the client still sends is discarded."""
    IDLE = 1
    HEAD = 2
    """Part of a request's head has arrived."""
    BODY = 3
    SENDING = 4
    """The response is finished, and the client is reading it."""
    PROCESSING = 5
    """A request is being processed, or waits for a thread."""


class Admission(enum.Enum):
    """Whether a new connection is accepted."""

    ACCEPTED = "accepted"
    SHORT_REQUESTS_ONLY = "short requests only"
    REFUSED = "refused"


class TrackedConnection(Protocol):
    """What the limits need to know of a connection.

    `address` is its `client_key`; `last_transfer` is the time when bytes last came or went; `closing` marks it to be
    closed as soon as no event is being handled.
    """

    address: str
    last_transfer: float
    bytes_in: int
    bytes_out: int
    closing: bool

    @property
    def phase(self) -> ConnectionPhase:
        """What it is doing."""

    @property
    def request_count(self) -> int:
        """How many complete requests it has brought."""

    @property
    def body_bytes(self) -> int:
        """Bytes of request bodies that it is sending or that are being processed."""

    @property
    def output_bytes(self) -> int:
        """Bytes of responses that wait for the client, without those in a picture's own file."""

    @property
    def backlog(self) -> int:
        """Bytes of responses that wait for the client, wherever they are stored."""

    def end(self, *, timed_out: bool = False) -> None:
        """Close it at once; `timed_out` if a deadline has passed."""


@dataclass
class _Progress:
    """The byte count of a connection at the start of the current time window."""

    since: float
    transferred: int


class Connections:
    """The open connections of a server: admits new ones, enforces deadlines, closes the least active for new ones.

    Only the thread of the server's loop may use it, except for `balance_output`, which request threads call too.
    """

    def __init__(self, limits: ConnectionLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._clock = clock
        self._open: set[TrackedConnection] = set()
        self._phases: dict[TrackedConnection, tuple[ConnectionPhase, int, float]] = {}
        self._progress: dict[TrackedConnection, _Progress] = {}

    def __len__(self) -> int:
        return sum(not connection.closing for connection in self._copy())

    def add(self, connection: TrackedConnection) -> None:
        """Track a connection that was opened."""
        self._open.add(connection)

    def discard(self, connection: TrackedConnection) -> None:
        """Forget a connection that was closed."""
        self._open.discard(connection)
        self._phases.pop(connection, None)
        self._progress.pop(connection, None)

    def admit(self, address: str) -> Admission:
        """Decide on a new connection of this client (see `client_key`); mark less active ones for closing if needed."""
        most = self.limits.per_loopback if address == LOOPBACK else self.limits.per_address
        if self._make_room(self._active(address), most) and self._make_room(self._active(), self.limits.connections):
            return Admission.ACCEPTED
        return self._admit_spare(self._active(), self._active(address))

    def make_room(self) -> bool:
        """Mark one connection for closing because descriptors are scarce; False if all are being processed."""
        return self._mark_one(self._active()) is not None

    def sweep(self) -> None:
        """Close connections past their deadline. Call it about once a second, while no event is being handled."""
        now = self._clock()
        crowded = len(self._open) > self.limits.crowded * self.limits.connections
        for connection in self._copy():
            if self._is_overdue(connection, now, crowded=crowded):
                connection.end(timed_out=True)
        self._balance_bodies()

    def close_marked(self) -> None:
        """Close the connections that are marked. Call it while no event is being handled."""
        for connection in self._copy():
            if connection.closing:
                connection.end()

    def has_room_for_body(self, size: int) -> bool:
        """Whether a body of `size` bytes fits next to all others."""
        return size + sum(connection.body_bytes for connection in self._copy()) <= self.limits.held_bodies

    def balance_output(self) -> bool:
        """Mark connections for closing while unread responses take too much, the longest inactive first.

        Returns whether any was marked.
        """
        waiting = {
            connection: connection.output_bytes
            for connection in self._copy()
            if not connection.closing and connection.backlog
        }
        excess = sum(waiting.values()) - self.limits.held_output
        return self._mark_for(excess, waiting)

    def _balance_bodies(self) -> None:
        bodies = {connection: connection.body_bytes for connection in self._copy() if not connection.closing}
        excess = sum(bodies.values()) - self.limits.held_bodies
        incomplete = {
            connection: size for connection, size in bodies.items() if connection.phase is ConnectionPhase.BODY
        }
        self._mark_for(excess, incomplete)

    def _mark_for(self, excess: int, sizes: dict[TrackedConnection, int]) -> bool:
        """Mark connections for closing until `excess` bytes are freed; returns whether any was marked."""
        marked = False
        for connection in sorted(sizes, key=lambda connection: connection.last_transfer):
            if excess <= 0:
                break
            if sizes[connection]:
                connection.closing = marked = True
                excess -= sizes[connection]
        return marked

    def _copy(self) -> list[TrackedConnection]:
        # Request threads iterate too, while the loop adds and removes: copying a set is one atomic step.
        return list(self._open.copy())

    def _admit_spare(self, active: list[TrackedConnection], own: list[TrackedConnection]) -> Admission:
        over = len(active) - self.limits.connections
        if over >= self.limits.spare or len(own) >= self._most_spare(own):
            return Admission.REFUSED
        return Admission.SHORT_REQUESTS_ONLY

    def _most_spare(self, own: list[TrackedConnection]) -> int:
        most = self.limits.per_loopback if own and own[0].address == LOOPBACK else self.limits.per_address
        return most + self.limits.spare // 2

    def _active(self, address: str | None = None) -> list[TrackedConnection]:
        """The connections that are not marked for closing: all, or those of one address."""
        return [
            connection
            for connection in self._copy()
            if not connection.closing and address in (None, connection.address)
        ]

    def _make_room(self, candidates: list[TrackedConnection], most: int) -> bool:
        """Mark connections for closing until fewer than `most` are left; returns whether that was possible."""
        while len(candidates) >= most:
            marked = self._mark_one(candidates)
            if marked is None:
                return False
            candidates.remove(marked)
        return True

    def _mark_one(self, candidates: list[TrackedConnection]) -> TrackedConnection | None:
        """Mark one for closing: of the address with most connections, the lowest phase, the longest inactive."""
        count = Counter(connection.address for connection in candidates)
        closable = [
            (connection, phase)
            for connection in candidates
            if (phase := connection.phase) is not ConnectionPhase.PROCESSING
        ]
        if not closable:
            return None
        marked, _ = min(closable, key=lambda pair: (-count[pair[0].address], pair[1], pair[0].last_transfer))
        marked.closing = True
        return marked

    def _is_overdue(self, connection: TrackedConnection, now: float, *, crowded: bool) -> bool:
        phase, count = connection.phase, connection.request_count
        known = self._phases.get(connection)
        if known is None or known[:2] != (phase, count):
            known = self._phases[connection] = (phase, count, now)
            self._progress.pop(connection, None)
        since = now - known[2]
        limits = self.limits
        if phase is ConnectionPhase.PROCESSING:
            if not connection.backlog:
                self._progress.pop(connection, None)
                return False
            return self._is_too_slow(connection, now, connection.bytes_out, limits.reader_window_s, 1)
        if phase is ConnectionPhase.SENDING:
            return self._is_too_slow(connection, now, connection.bytes_out, limits.reader_window_s, limits.reader_floor)
        if phase is ConnectionPhase.BODY:
            return self._is_too_slow(connection, now, connection.bytes_in, limits.window_s, limits.body_floor)
        if phase is ConnectionPhase.LINGERING:
            return since >= limits.linger_s
        if phase is ConnectionPhase.HEAD or count == 0:
            return since >= limits.head_s
        return since >= (limits.idle_crowded_s if crowded else limits.idle_s)

    def _is_too_slow(
        self, connection: TrackedConnection, now: float, transferred: int, window: float, floor: int
    ) -> bool:
        """Whether fewer than `floor` bytes were transferred in the time window that has just ended, if one has."""
        progress = self._progress.get(connection)
        if progress is None:
            self._progress[connection] = _Progress(now, transferred)
            return False
        if now - progress.since < window:
            return False
        slow = transferred - progress.transferred < floor
        self._progress[connection] = _Progress(now, transferred)
        return slow


def client_key(address: str) -> str:
    """Return what counts as one client: this machine under any of its names, an IPv4 address, or an IPv6 network."""
    try:
        parsed = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if parsed.is_loopback:
        return LOOPBACK
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
    return str(parsed)


def connection_capacity(wanted: int, threads: int, listeners: int) -> int:
    """Return how many connections, at most `wanted`, this process can hold; raises its descriptor limit as needed."""
    possible = wanted
    if not has_poll():
        # Each listening socket has a second one that wakes the loop.
        possible = min(possible, SELECT_LIMIT - 2 * listeners - RESERVED_DESCRIPTORS // 4)
    reserved = RESERVED_DESCRIPTORS + DESCRIPTORS_PER_THREAD * threads + 3 * listeners
    descriptors = raise_descriptor_limit(reserved + DESCRIPTORS_PER_CONNECTION * wanted)
    if descriptors is not None:
        possible = min(possible, (descriptors - reserved) // DESCRIPTORS_PER_CONNECTION)
    return max(MIN_CONNECTIONS, possible)


def has_poll() -> bool:
    """Whether this system has `poll`, which has no limit of its own; Windows has `select` only."""
    return hasattr(select, "poll")


def raise_descriptor_limit(wanted: int) -> int | None:
    """Raise the limit on open files to `wanted`, as far as allowed. Returns the new limit; None if there is none."""
    if not _is_posix(sys.platform):
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    if soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        except (OSError, ValueError):
            # macOS has a second limit, which it does not report.
            return soft
        soft = allowed
    return soft


def _is_posix(platform: str) -> bool:
    return platform != "win32"
