"""How often wrong API keys came from an address: a few at once are mistakes, many are guesses."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from shared.web.proxies import parse_address

# Wrong keys that a source may send at once, and the seconds after which it may send another one.
AT_ONCE = 10
EVERY = 10.0
# An unknown proxy may stand for many callers, so it may send more than each of those that it names.
AT_ONCE_BY_PROXY = 100
# Sources that are remembered; the one that was quiet for longest goes first.
MOST_SOURCES = 10_000

Sources = Mapping[str, int]


class KeyTries:
    """Counts wrong keys by source: a bucket of tries for each, refilled with time. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = MOST_SOURCES) -> None:
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        # When the bucket will be full again: all that there is to know of it.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wait(self, sources: Sources) -> float:
        """Seconds until the next try is allowed; 0.0 if it is now. `sources` are their tries at once, by name."""
        with self._lock:
            now = self._clock()
            return max(
                (self._full_at.get(name, now) - now - (at_once - 1) * EVERY for name, at_once in sources.items()),
                default=0.0,
            )

    def count(self, sources: Sources) -> None:
        """A wrong key came from there."""
        with self._lock:
            now = self._clock()
            for name in sources:
                self._full_at[name] = max(self._full_at.get(name, now), now) + EVERY
                self._full_at.move_to_end(name)
            while len(self._full_at) > self._most:
                self._full_at.popitem(last=False)

    def __len__(self) -> int:
        return len(self._full_at)


def sources_of(address: str, claims: list[str]) -> dict[str, int]:
    """Whom a wrong key is counted against: an address, or one that a proxy names and, more patiently, that proxy."""
    near = _network(address)
    if not claims:
        return {near: AT_ONCE}
    return {f"{near} for {_network(claims[0])[:64]}": AT_ONCE, near: AT_ONCE_BY_PROXY}


def _network(text: str) -> str:
    """The address; of IPv6, the network that one customer gets, for its addresses are without number."""
    address = parse_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return text if address is None else str(address)
