"""Free ports for the servers that tests start."""

import contextlib
import os
import random
import re
import socket

# Below the ephemeral ports of common systems, so that no outgoing connection takes a port before its server does.
FIRST, LAST = 15_000, 32_000
# Each worker of pytest-xdist uses its own ports.
MAX_WORKERS = 16


def _candidates() -> list[int]:
    ports = list(range(FIRST, LAST))
    if worker := re.fullmatch(r"gw(\d+)", os.environ.get("PYTEST_XDIST_WORKER", "")):
        ports = ports[int(worker[1]) % MAX_WORKERS :: MAX_WORKERS]
    # Seeded by the operating system, so that tests which seed `random` get different ports too.
    random.SystemRandom().shuffle(ports)
    return ports


def free_ports(count: int) -> list[int]:
    """Return `count` different ports that nothing listens on."""
    free: list[int] = []
    for port in _candidates():
        if len(free) == count:
            break
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(port)
    assert len(free) == count
    return free
