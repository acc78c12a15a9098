"""Measures a server under a flood of connections: `python -m bench.connection_flood [ROUNDS]`. It needs no engine.

A server in its own process receives GET /health over new connections: alone, next to 1,050 idle sockets, and next to
560 incomplete bodies as well, each large enough to be in a file (170 MB together, in TMPDIR). All connections come from
this machine, so the server closes the least active ones to make room. Every request must be answered, and the server
must survive; the times depend on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import socket
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection

import requests

from shared.settings import Settings
from shared.web.app import create_app
from shared.web.server.connections import raise_descriptor_limit
from shared.web.server.run import make_server

IDLE, BODIES = 1050, 560
# Bytes that a body announces, and that are sent of it.
BODY, SENT = 2_000_000, 300_000
# Seconds: for the server's start, for a connection to be accepted, and for a response.
START, PATIENCE, ANSWER = 60, 10, 10


def serve(sender: Connection) -> None:
    """Run a server on a free port, and send the port."""
    server = make_server(create_app("crowd", Settings(), []), Settings(), 0)
    sender.send(server.ports[0])
    server.run()


def connected(stack: ExitStack, port: int, sent: bytes) -> socket.socket | None:
    """Connect a client and send these bytes, or as many as the server reads; None if it was not accepted."""
    client = stack.enter_context(socket.socket())
    client.settimeout(PATIENCE)
    try:
        client.connect(("127.0.0.1", port))
    except OSError:
        return None
    with contextlib.suppress(OSError):
        client.sendall(sent)
    client.setblocking(False)
    return client


def is_connected(client: socket.socket | None) -> bool:
    """Whether the server has neither closed the connection nor responded."""
    if client is None:
        return False
    try:
        client.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def measure_health(port: int, rounds: int) -> list[float | None]:
    """Return the seconds until /health responds over a new connection; None if it does not."""
    taken: list[float | None] = []
    with requests.Session() as session:
        session.trust_env = False
        for _ in range(rounds):
            begun = time.perf_counter()
            try:
                answer = session.get(f"http://127.0.0.1:{port}/health", timeout=ANSWER, headers={"Connection": "close"})
                taken.append(time.perf_counter() - begun if answer.ok else None)
            except requests.RequestException:
                taken.append(None)
    return taken


def row(name: str, taken: Sequence[float | None], crowd: Sequence[socket.socket | None]) -> str:
    """Format a line of the table."""
    times = [1000 * seconds for seconds in taken if seconds is not None] or [float("nan")]
    connected_count = sum(map(is_connected, crowd))
    columns = f"{statistics.median(times):10.1f}{max(times):10.1f}{taken.count(None):12}{connected_count:8}"
    return f"{name:24}{columns} of {len(crowd):,}\n"


def main() -> int:
    """Command line. The exit code is 1 if a request was not answered, or the server ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=50)
    rounds = parser.parse_args().rounds
    raise_descriptor_limit(IDLE + BODIES + 128)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    server = context.Process(target=serve, args=(sender,), name="server", daemon=True)
    server.start()
    if not receiver.poll(START):
        raise TimeoutError(f"the server did not start in {START} s")
    port = receiver.recv()
    measure_health(port, 5)
    crowd: list[socket.socket | None] = []
    everything: list[float | None] = []
    sys.stdout.write(f"{'':24}{'median ms':>10}{'max':>10}{'unanswered':>12}{'kept':>8}\n")
    head = f"POST /api/txt2img HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n"
    half = f"{head}Content-Length: {BODY}\r\n\r\n".encode() + b"x" * SENT
    with ExitStack() as stack:
        for name, count, sent in (
            ("alone", 0, b""),
            (f"{IDLE:,} idle", IDLE, b""),
            (f"and {BODIES} half-sent bodies", BODIES, half),
        ):
            crowd += [connected(stack, port, sent) for _ in range(count)]
            taken = measure_health(port, rounds)
            everything += taken
            sys.stdout.write(row(name, taken, crowd))
            sys.stdout.flush()
        survived = server.is_alive()
    sys.stdout.write(f"the server survived: {'yes' if survived else f'no, exit code {server.exitcode}'}\n")
    server.terminate()
    server.join(START)
    return 0 if survived and None not in everything else 1


if __name__ == "__main__":
    sys.exit(main())
