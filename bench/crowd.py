"""What a crowd of strangers costs those who call: `python -m bench.crowd [ROUNDS]`.

A server of its own, in a process of its own, is asked for GET /health over new connections: alone, beside 1,050 sockets
that bring nothing, and beside 560 half-sent bodies as well, each large enough to lie in a file (170 MB together, below
TMPDIR). All of them come from this machine, so the server closes those that do least to make room. It needs no engine.
What counts is that every question is answered, and that the server lives; times are the machine's.
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
# Bytes that a body announces, and those of it that come.
BODY, SENT = 2_000_000, 300_000
# Seconds: for the server to start, for a client of the crowd to be let in, and for an answer.
START, PATIENCE, ANSWER = 60, 10, 10


def serve(tell: Connection) -> None:
    """Runs a server on a free port, and tells which."""
    server = make_server(create_app("crowd", Settings(), []), Settings(), 0)
    tell.send(server.ports[0])
    server.run()


def connected(stack: ExitStack, port: int, sent: bytes) -> socket.socket | None:
    """A client that has sent these bytes, or as many as were taken; None if it was not let in."""
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


def is_open(client: socket.socket | None) -> bool:
    """Whether the server has neither closed the connection nor answered."""
    if client is None:
        return False
    try:
        client.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def ask(port: int, rounds: int) -> list[float | None]:
    """Seconds until /health answers, over a new connection each time; None where it does not."""
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
    """A line of the table."""
    times = [1000 * each for each in taken if each is not None] or [float("nan")]
    held = sum(map(is_open, crowd))
    return (
        f"{name:24}{statistics.median(times):10.1f}{max(times):10.1f}{taken.count(None):12}{held:8} of {len(crowd):,}\n"
    )


def main() -> int:
    """Command line. The exit code is 1 if a question was not answered, or the server ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=50)
    rounds = parser.parse_args().rounds
    raise_descriptor_limit(IDLE + BODIES + 128)
    context = multiprocessing.get_context("spawn")
    told, tell = context.Pipe(duplex=False)
    server = context.Process(target=serve, args=(tell,), name="server", daemon=True)
    server.start()
    if not told.poll(START):
        raise TimeoutError(f"the server did not start in {START} s")
    port = told.recv()
    ask(port, 5)
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
            taken = ask(port, rounds)
            everything += taken
            sys.stdout.write(row(name, taken, crowd))
            sys.stdout.flush()
        lived = server.is_alive()
    sys.stdout.write(f"the server lived: {'yes' if lived else f'no, exit code {server.exitcode}'}\n")
    server.terminate()
    server.join(START)
    return 0 if lived and None not in everything else 1


if __name__ == "__main__":
    sys.exit(main())
