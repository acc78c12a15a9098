"""Slows down guessing of API keys: a few wrong keys from an address are mistakes, many are an attack."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from shared.web.proxies import parse_address

# Wrong keys that a source may send at once, and the seconds after which it may send one more.
BURST = 10
REFILL_SECONDS = 10.0
# An unknown proxy may stand for many clients, so it may send more than each client that it names.
PROXY_BURST = 100
# Sources that are remembered; the one that was quiet for longest is forgotten first.
MAX_SOURCES = 10_000

Bursts = Mapping[str, int]
"""Sources by name, each with the wrong keys that it may send at once."""


class KeyThrottle:
    """Counts wrong keys by source: a token bucket for each, refilled over time. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, max_sources: int = MAX_SOURCES) -> None:
        self._clock = clock
        self._max_sources = max_sources
        self._lock = threading.Lock()
        # The time when each bucket is full again, which is its whole state.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def seconds_to_wait(self, sources: Bursts) -> float:
        """Return the seconds until the next key is allowed; 0.0 if one is allowed now."""
        with self._lock:
            now = self._clock()
            waits = (
                self._full_at.get(name, now) - now - (burst - 1) * REFILL_SECONDS for name, burst in sources.items()
            )
            return max([0.0, *waits])

    def count_failure(self, sources: Bursts) -> None:
        """Record a wrong key from these sources."""
        with self._lock:
            now = self._clock()
            for name in sources:
                self._full_at[name] = max(self._full_at.get(name, now), now) + REFILL_SECONDS
                self._full_at.move_to_end(name)
            while len(self._full_at) > self._max_sources:
                self._full_at.popitem(last=False)

    def __len__(self) -> int:
        return len(self._full_at)


def throttle_sources(address: str, forwarded: list[str]) -> dict[str, int]:
    """Return the sources that a wrong key counts against: an address, or the client that a proxy names and that proxy.

    The proxy's own burst is larger.
    """
    peer = _network(address)
    if not forwarded:
        return {peer: BURST}
    return {f"{peer} for {_network(forwarded[0])[:64]}": BURST, peer: PROXY_BURST}


def _network(text: str) -> str:
    """Return the address, or for IPv6 the network of one customer, who can use any address in it."""
    address = parse_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return text if address is None else str(address)
