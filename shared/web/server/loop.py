"""A web server on any number of sockets: waitress's parts, watched with poll, and a loop that outlives its faults."""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from shared.errors import Busy
from shared.web.server.body_limits import BodyLimits
from shared.web.server.channel import Channel, plain_answer
from shared.web.server.connections import LOOPBACK, Connections, Limits, client_address

log = logging.getLogger(__name__)

# The names by which `localhost` calls; with IPv4 addresses on an IPv6 socket, the last.
LOCALHOST = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
# Connections that are accepted before those that are open are looked at again.
AT_ONCE = 16
# Seconds for which a listener rests when there is no descriptor left, and between two lines of the log about the same.
REST, QUIET = 0.2, 60.0
# Seconds between two looks at the deadlines.
SWEEP = 1.0
# Faults of the loop in a row after which it is given up.
MOST_FAULTS = 10
SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

NO_ROOM = plain_answer(
    "503 Service Unavailable", "too many connections are open", hint="close some, or try again soon", code="busy"
)


class Listener(TcpWSGIServer):  # type: ignore[misc]
    """A socket that clients connect to. `is_short` tells requests that are answered at once, by `short_threads`."""

    channel_class = Channel

    def __init__(
        self,
        application: Any,
        sock: socket.socket,
        sockets: dict[int, Any],
        adj: Adjustments,
        *,
        threads: ThreadedTaskDispatcher,
        short_threads: ThreadedTaskDispatcher,
        is_short: Callable[[str, str], bool],
        connections: Connections,
        intake: BodyLimits,
    ) -> None:
        self.connections = connections
        self.intake = intake
        self._short_threads = short_threads
        self._is_short = is_short
        self._resting_until = 0.0
        self._said: dict[str, float] = {}
        sockinfo = (sock.family, sock.type, sock.proto, sock.getsockname())
        super().__init__(
            application, sockets, True, sock, dispatcher=threads, adj=adj, sockinfo=sockinfo, bind_socket=False
        )

    @property
    def works(self) -> bool:
        """Whether clients can still connect."""
        return bool(
            self.accepting and self.socket is not None and self.socket.fileno() >= 0 and not self.trigger._closed
        )

    def readable(self) -> bool:
        """Whether to accept connections; their number is bounded by `connections`."""
        return bool(self.accepting) and time.monotonic() >= self._resting_until

    def handle_accept(self) -> None:
        """Accepts who is there, up to a number."""
        for _ in range(AT_ONCE):
            try:
                pair = self.accept()
            except OSError as error:
                if error.errno in SCARCE:
                    self.connections.make_room()
                    self._resting_until = time.monotonic() + REST
                    self._say_seldom("no descriptors are left for new connections: %s", error)
                return
            if pair is None:
                return
            self._take(*pair)

    def fix_addr(self, addr: tuple[Any, ...]) -> tuple[str, int]:
        """The client's address and port. `localhost` is one caller, by whichever of its two names it comes."""
        name, port = str(addr[0]), int(addr[1])
        # Other loopback addresses stay: who calls from 127.0.0.2 chose to be told apart.
        return (LOOPBACK if name in LOCALHOST else name), port

    def add_task(self, task: Channel) -> None:
        """Hands a request to a thread."""
        task.turn += 1
        request = task.requests[0]
        short = request.error is not None or request.refusal is not None
        short = short or self._is_short(request.command, request.path)
        if task.short_only and not short:
            request.refusal = Busy("too many connections are open", hint="try again soon", retry_after=5)
            request.headers["CONNECTION"] = "close"
            short = True
        (self._short_threads if short else self.task_dispatcher).add_task(task)

    def handle_error(self) -> None:
        """Says what went wrong. Waitress would close the socket, and nobody could connect any more."""
        log.exception("a connection could not be accepted")

    def handle_close(self) -> None:
        """Does nothing, for the same reason; `works` tells if the socket is of no use."""

    def set_reuse_addr(self) -> None:
        """Does nothing: the socket is bound already."""

    def _say_seldom(self, text: str, *values: object) -> None:
        now = time.monotonic()
        if now - self._said.get(text, -QUIET) >= QUIET:
            self._said[text] = now
            log.warning(text, *values)

    def _take(self, sock: socket.socket, addr: tuple[Any, ...]) -> None:
        admitted = self.connections.admit(client_address(str(addr[0])))
        try:
            if admitted is None:
                self._say_seldom("all %d connections are at work; more are turned away", len(self.connections))
                sock.setblocking(False)
                sock.send(NO_ROOM)
                sock.close()
                return
            self.set_socket_options(sock)
            channel = self.channel_class(self, sock, self.fix_addr(addr), self.adj, map=self._map)
            channel.short_only = not admitted
        except OSError:
            # It has gone already.
            sock.close()


class WebServer:
    """Listeners that share connections' limits and threads, and the loop that serves them."""

    def __init__(self, limits: Limits, threads: int, short_threads: int, is_short: Callable[[str, str], bool]) -> None:
        self.connections = Connections(limits)
        self._is_short = is_short
        self._sockets: dict[int, Any] = {}
        self._pools: list[Connections] = [self.connections]
        self._listeners: list[Listener] = []
        self._threads = _threads(threads)
        self._short_threads = _threads(short_threads)
        self._swept = 0.0
        self.turns = 0
        """How often the loop has looked at its connections: about once a second at the least, unless it hangs."""
        self._stopping = False

    def listen(
        self,
        application: Any,
        sockets: Sequence[socket.socket],
        options: Mapping[str, Any],
        intake: BodyLimits,
        connections: Connections | None = None,
        is_short: Callable[[str, str], bool] | None = None,
    ) -> None:
        """Serves `application` on bound sockets, with waitress's options; what is given is in place of the server's."""
        if connections is not None:
            self._pools.append(connections)
        adj = Adjustments(sockets=list(sockets), **options)
        adj.socket_options = [*adj.socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
        self._listeners += [
            Listener(
                application,
                each,
                self._sockets,
                adj,
                threads=self._threads,
                short_threads=self._short_threads,
                is_short=is_short or self._is_short,
                connections=self.connections if connections is None else connections,
                intake=intake,
            )
            for each in sockets
        ]

    @property
    def ports(self) -> list[int]:
        """The ports that it listens on, each once."""
        return list(dict.fromkeys(int(each.effective_port) for each in self._listeners))

    def run(self) -> None:
        """Serves until `stop`, or until SystemExit or KeyboardInterrupt is raised in this thread.

        Raises what it cannot recover from.
        """
        faults = 0
        try:
            while not self._stopping:
                try:
                    self._step()
                    faults = 0
                except Exception:
                    # Whatever it is, the other connections are to go on.
                    faults += 1
                    if faults >= MOST_FAULTS:
                        raise
                    log.exception("the server's loop failed and goes on")
                    self._drop_broken()
                if not self._stopping and not all(each.works for each in self._listeners):
                    raise RuntimeError("a listening socket is broken")
        except (SystemExit, KeyboardInterrupt):
            pass
        finally:
            self.close()

    def abandon(self) -> None:
        """Frees the ports of a server whose loop hangs, so that another can listen there; from any thread."""
        self._stopping = True
        for each in self._listeners:
            if each.socket is not None:
                each.socket.close()

    def stop(self) -> None:
        """Makes `run` return; from any thread."""
        self._stopping = True
        for each in self._listeners[:1]:
            # The loop may have seen it already, and closed everything.
            with suppress(OSError):
                each.pull_trigger()

    def close(self) -> None:
        """Ends all connections and threads."""
        self._threads.shutdown()
        self._short_threads.shutdown(timeout=1)
        for each in list(self._sockets.values()):
            if isinstance(each, Channel):
                each.handle_close()
        wasyncore.close_all(self._sockets, ignore_all=True)

    def _step(self) -> None:
        """Handles the events of now, or waits a second for one."""
        wasyncore.loop(timeout=1, use_poll=True, map=self._sockets, count=1)
        for pool in self._pools:
            pool.end_doomed()
        self.turns += 1
        now = time.monotonic()
        if now - self._swept >= SWEEP:
            self._swept = now
            for pool in self._pools:
                pool.sweep()

    def _drop_broken(self) -> None:
        """Closes the connections that raise when they are only asked."""
        for each in list(self._sockets.values()):
            if isinstance(each, Channel):
                try:
                    each.readable()
                    each.writable()
                except Exception:  # noqa: BLE001 - as in `run`
                    each.handle_close()


def _threads(count: int) -> ThreadedTaskDispatcher:
    threads = ThreadedTaskDispatcher()
    threads.set_thread_count(count)
    return threads
