"""Which connections are kept: deadlines for clients that bring or take nothing, and room for those who come.

A request that is being answered is never cut by any of this, however long its pictures take.
"""

from __future__ import annotations

import enum
import ipaddress
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

MB = 1024 * 1024
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Limits:
    """Limits on the connections of one server. Times are seconds, sizes bytes.

    `connections` may be open at once, `per_address` of them from one address (an IPv6 network of 64 bits counts as
    one), `per_loopback` from this machine. When they are all in use, and none can be closed, `spare` more are taken for
    the few requests that are answered at once (`shared.web.server.run.is_short`).

    A head must be whole `head_s` after its beginning. A body must bring `body_floor` bytes in each `window_s`. A client
    must take `reader_floor` bytes of a finished answer in each `reader_window_s`, and one byte of a stream.
    A connection without a request is closed after `idle_s`; after `idle_crowded_s` when a share of `crowded` is in use.
    `held_bodies` and `held_output` bound what all bodies and all answers together take in memory and temporary files.
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

    def for_connections(self, count: int) -> Limits:
        """The same for `count` connections: what is a share of them shrinks with them."""
        share = count / self.connections
        return replace(
            self,
            connections=count,
            per_address=max(8, int(self.per_address * share)),
            per_loopback=max(8, int(self.per_loopback * share)),
        )


class Phase(enum.IntEnum):
    """What a connection is about. When room is needed, those of lower numbers are closed first."""

    ENDING = 0
    """All was said; what the client still sends is thrown away."""
    IDLE = 1
    HEAD = 2
    BODY = 3
    SENDING = 4
    """The answer is finished, and the client takes it."""
    RUNNING = 5
    """A request is being answered, or waits for a thread."""


class Connection(Protocol):
    """What is asked of a connection. `address` counts as one client; `moved_at` is when bytes last came or went."""

    address: str
    moved_at: float
    moved_in: int
    moved_out: int
    doomed: bool

    @property
    def phase(self) -> Phase:
        """What it is about."""

    @property
    def turn(self) -> int:
        """How many requests it has brought."""

    @property
    def body_bytes(self) -> int:
        """Bytes of the body that it brings or that is being worked on."""

    @property
    def output_bytes(self) -> int:
        """Bytes of answers that wait for it, those in a picture's own file left out."""

    @property
    def backlog(self) -> int:
        """Bytes that wait for it, wherever they lie."""

    def end(self, *, late: bool = False) -> None:
        """Closes it at once; `late` if it took too long."""


@dataclass
class _Pace:
    """What has moved since `since`."""

    since: float
    moved: int


class Connections:
    """The connections of a server: who may come, who must go.

    For the server's loop alone, except `balance_output`, which its threads call too.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._clock = clock
        self._open: set[Connection] = set()
        self._phases: dict[Connection, tuple[Phase, int, float]] = {}
        self._paces: dict[Connection, _Pace] = {}

    def __len__(self) -> int:
        return sum(not each.doomed for each in self._copy())

    def add(self, connection: Connection) -> None:
        """It is open."""
        self._open.add(connection)

    def discard(self, connection: Connection) -> None:
        """It is closed."""
        self._open.discard(connection)
        self._phases.pop(connection, None)
        self._paces.pop(connection, None)

    def admit(self, address: str) -> bool | None:
        """Whether a client of this address may connect; if need be, the oldest idle connection is closed for it.

        True: as all others; False: for short requests alone; None: not at all. The address is one of `client_address`.
        """
        most = self.limits.per_loopback if address == LOOPBACK else self.limits.per_address
        if self._make_room(self._alive(address), most) and self._make_room(self._alive(), self.limits.connections):
            return True
        return self._spare(self._alive(), self._alive(address))

    def make_room(self) -> bool:
        """Closes one connection, for descriptors are scarce; False if all are at work."""
        return self._close_one(self._alive()) is not None

    def sweep(self) -> None:
        """Closes what is overdue. To be called every second or so, when no event is being handled."""
        now = self._clock()
        crowded = len(self._open) > self.limits.crowded * self.limits.connections
        for each in self._copy():
            if self._overdue(each, now, crowded=crowded):
                each.end(late=True)
        self._balance_bodies()

    def end_doomed(self) -> None:
        """Closes what was chosen to make room. To be called when no event is being handled."""
        for each in self._copy():
            if each.doomed:
                each.end()

    def has_room_for_body(self, size: int) -> bool:
        """Whether a body of `size` bytes may be taken in beside all others."""
        return size + sum(each.body_bytes for each in self._copy()) <= self.limits.held_bodies

    def balance_output(self) -> bool:
        """Chooses connections to close while answers that wait for clients take too much: who took nothing for longest.

        Whether any was chosen.
        """
        waiting = {each: each.output_bytes for each in self._copy() if not each.doomed and each.backlog}
        excess = sum(waiting.values()) - self.limits.held_output
        return self._close_for(excess, waiting)

    def _balance_bodies(self) -> None:
        bodies = {each: each.body_bytes for each in self._copy() if not each.doomed}
        excess = sum(bodies.values()) - self.limits.held_bodies
        self._close_for(excess, {each: size for each, size in bodies.items() if each.phase is Phase.BODY})

    def _close_for(self, excess: int, sizes: dict[Connection, int]) -> bool:
        chosen = False
        for each in sorted(sizes, key=lambda each: each.moved_at):
            if excess <= 0:
                break
            if sizes[each]:
                each.doomed = chosen = True
                excess -= sizes[each]
        return chosen

    def _copy(self) -> list[Connection]:
        # Threads look too, while the loop adds and removes: a set's copy is made in one step.
        return list(self._open.copy())

    def _spare(self, alive: list[Connection], own: list[Connection]) -> bool | None:
        over = len(alive) - self.limits.connections
        return None if over >= self.limits.spare or len(own) >= self._most_spare(own) else False

    def _most_spare(self, own: list[Connection]) -> int:
        most = self.limits.per_loopback if own and own[0].address == LOOPBACK else self.limits.per_address
        return most + self.limits.spare // 2

    def _alive(self, address: str | None = None) -> list[Connection]:
        """Those that are not about to be closed: all, or of one address."""
        return [each for each in self._copy() if not each.doomed and address in (None, each.address)]

    def _make_room(self, candidates: list[Connection], most: int) -> bool:
        """Chooses connections to close until fewer than `most` are left; whether they are."""
        while len(candidates) >= most:
            chosen = self._close_one(candidates)
            if chosen is None:
                return False
            candidates.remove(chosen)
        return True

    def _close_one(self, candidates: list[Connection]) -> Connection | None:
        """Chooses one to close: of the address that has most, what does least, and that for longest."""
        count = Counter(each.address for each in candidates)
        idle = [(each, phase) for each in candidates if (phase := each.phase) is not Phase.RUNNING]
        if not idle:
            return None
        chosen, _ = min(idle, key=lambda each: (-count[each[0].address], each[1], each[0].moved_at))
        chosen.doomed = True
        return chosen

    def _overdue(self, each: Connection, now: float, *, crowded: bool) -> bool:
        phase, turn = each.phase, each.turn
        known = self._phases.get(each)
        if known is None or known[:2] != (phase, turn):
            known = self._phases[each] = (phase, turn, now)
            self._paces.pop(each, None)
        since = now - known[2]
        limits = self.limits
        if phase is Phase.RUNNING:
            if not each.backlog:
                self._paces.pop(each, None)
                return False
            return self._too_slow(each, now, each.moved_out, limits.reader_window_s, 1)
        if phase is Phase.SENDING:
            return self._too_slow(each, now, each.moved_out, limits.reader_window_s, limits.reader_floor)
        if phase is Phase.BODY:
            return self._too_slow(each, now, each.moved_in, limits.window_s, limits.body_floor)
        if phase is Phase.ENDING:
            return since >= limits.linger_s
        if phase is Phase.HEAD or turn == 0:
            return since >= limits.head_s
        return since >= (limits.idle_crowded_s if crowded else limits.idle_s)

    def _too_slow(self, each: Connection, now: float, moved: int, window: float, floor: int) -> bool:
        pace = self._paces.get(each)
        if pace is None:
            self._paces[each] = _Pace(now, moved)
            return False
        if now - pace.since < window:
            return False
        slow = moved - pace.moved < floor
        self._paces[each] = _Pace(now, moved)
        return slow


def client_address(address: str) -> str:
    """What counts as one client: this machine, by any of its names for itself; an IPv4 address; an IPv6 network."""
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
