"""How many connections this process can bear: its file descriptors, and what the system's `poll` or `select` takes."""

from __future__ import annotations

import select
import sys

# Descriptors that one connection may need: its socket, the file of a large body, the file of what it is sent.
EACH = 3
# Those that a service needs besides: logs, listeners, the engine, libraries.
BESIDES = 128
# And each of its threads: a connection to the database with its two companion files. Few threads use one at once.
THREAD = 2
# Where a process may have fewer, this many connections are kept all the same.
FEWEST = 32
# Python's `select` on Windows takes at most 512 sockets.
SELECT_LIMIT = 512


def connections_for(wanted: int, threads: int, listeners: int) -> int:
    """So many connections, of at most `wanted`, can this process hold; its limit on descriptors is raised as needed."""
    possible = wanted
    if not has_poll():
        # Each listener has a socket and the one that wakes it.
        possible = min(possible, SELECT_LIMIT - 2 * listeners - BESIDES // 4)
    besides = BESIDES + THREAD * threads + 3 * listeners
    descriptors = raise_descriptors(besides + EACH * wanted)
    if descriptors is not None:
        possible = min(possible, (descriptors - besides) // EACH)
    return max(FEWEST, possible)


def has_poll() -> bool:
    """Whether sockets are watched with `poll`, which has no limit of its own; Windows has `select` alone."""
    return hasattr(select, "poll")


def raise_descriptors(wanted: int) -> int | None:
    """Raises the limit on open files to `wanted`, as far as the system allows; the limit now, None if there is none."""
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
            # macOS has a second limit, which is not told.
            return soft
        soft = allowed
    return soft


def _is_posix(platform: str) -> bool:
    return platform != "win32"
