"""The web server's event loop: waitress's parts on any number of sockets, with poll, and recovery from errors."""

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
from shared.web.server.channel import Channel, raw_error_response
from shared.web.server.connections import LOOPBACK, Admission, ConnectionLimits, Connections, client_key
from shared.web.server.request_parser import BodyLimits

log = logging.getLogger(__name__)

# The addresses from which `localhost` connects; the last is for IPv4 addresses on an IPv6 socket.
LOCALHOST = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
# Connections that are accepted in one iteration, before the open ones get their turn.
MAX_ACCEPTS = 16
# Seconds without new connections after the descriptors ran out, and between two log lines of the same text.
ACCEPT_PAUSE, LOG_INTERVAL = 0.2, 60.0
# Seconds between two checks of the deadlines.
SWEEP_INTERVAL = 1.0
# Failures of the loop in a row after which the server gives up.
MAX_FAILURES = 10
SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

BUSY_RESPONSE = raw_error_response(
    "503 Service Unavailable",
    "too many connections are open",
    hint="close some of them, or try again in a few seconds",
    code="busy",
)


class ListeningSocket(TcpWSGIServer):  # type: ignore[misc]
    """A socket that clients connect to. Requests for which `is_short` is true are processed by `short_threads`."""

    channel_class = Channel

    def __init__(  # noqa: PLR0913 - four of them are waitress's own
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
        body_limits: BodyLimits,
    ) -> None:
        self.connections = connections
        self.body_limits = body_limits
        self._short_threads = short_threads
        self._is_short = is_short
        self._paused_until = 0.0
        self._last_logged: dict[str, float] = {}
        sockinfo = (sock.family, sock.type, sock.proto, sock.getsockname())
        super().__init__(
            application, sockets, True, sock, dispatcher=threads, adj=adj, sockinfo=sockinfo, bind_socket=False
        )

    @property
    def is_listening(self) -> bool:
        """Whether clients can still connect."""
        return bool(
            self.accepting and self.socket is not None and self.socket.fileno() >= 0 and not self.trigger._closed
        )

    def readable(self) -> bool:
        """Whether to accept connections; `connections` limits their number."""
        return bool(self.accepting) and time.monotonic() >= self._paused_until

    def handle_accept(self) -> None:
        """Accept the waiting connections, up to a maximum."""
        for _ in range(MAX_ACCEPTS):
            try:
                pair = self.accept()
            except OSError as error:
                if error.errno in SCARCE:
                    self.connections.make_room()
                    self._paused_until = time.monotonic() + ACCEPT_PAUSE
                    self._log_rarely("no file descriptors are left for new connections: %s", error)
                return
            if pair is None:
                return
            self._add(*pair)

    def fix_addr(self, addr: tuple[Any, ...]) -> tuple[str, int]:
        """Return the client's address and port; `localhost` has the same address over IPv4 and IPv6."""
        host, port = str(addr[0]), int(addr[1])
        # Other loopback addresses stay as they are: a client that connects from 127.0.0.2 chose to be told apart.
        return (LOOPBACK if host in LOCALHOST else host), port

    def add_task(self, task: Channel) -> None:
        """Pass a request to a thread."""
        task.request_count += 1
        request = task.requests[0]
        short = request.error is not None or request.head_error is not None
        short = short or self._is_short(request.command, request.path)
        if task.short_only and not short:
            request.head_error = Busy("too many connections are open", hint="try again in a few seconds", retry_after=5)
            request.headers["CONNECTION"] = "close"
            short = True
        (self._short_threads if short else self.task_dispatcher).add_task(task)

    def handle_error(self) -> None:
        """Log the error. waitress would close the listening socket, and nobody could connect any more."""
        log.exception("a connection could not be accepted")

    def handle_close(self) -> None:
        """Do nothing, for the same reason; `is_listening` is false if the socket is broken."""

    def set_reuse_addr(self) -> None:
        """Do nothing: the socket is already bound."""

    def _log_rarely(self, text: str, *values: object) -> None:
        now = time.monotonic()
        if now - self._last_logged.get(text, -LOG_INTERVAL) >= LOG_INTERVAL:
            self._last_logged[text] = now
            log.warning(text, *values)

    def _add(self, sock: socket.socket, addr: tuple[Any, ...]) -> None:
        admission = self.connections.admit(client_key(str(addr[0])))
        try:
            if admission is Admission.REFUSED:
                self._log_rarely("all %d connections are in use; new ones are refused", len(self.connections))
                sock.setblocking(False)
                sock.send(BUSY_RESPONSE)
                sock.close()
                return
            self.set_socket_options(sock)
            channel = self.channel_class(self, sock, self.fix_addr(addr), self.adj, map=self._map)
            channel.short_only = admission is Admission.SHORT_REQUESTS_ONLY
        except OSError:
            # The client has already disconnected.
            sock.close()


class WebServer:
    """Listening sockets that share connection limits and threads, and the loop that serves them."""

    def __init__(
        self, limits: ConnectionLimits, threads: int, short_threads: int, is_short: Callable[[str, str], bool]
    ) -> None:
        self.connections = Connections(limits)
        self._is_short = is_short
        self._sockets: dict[int, Any] = {}
        self._connection_sets: list[Connections] = [self.connections]
        self._listeners: list[ListeningSocket] = []
        self._threads = _threads(threads)
        self._short_threads = _threads(short_threads)
        self._swept = 0.0
        self.iterations = 0
        """How often the loop has run: at least about once a second, unless it hangs."""
        self._stopping = False

    def listen(
        self,
        application: Any,
        sockets: Sequence[socket.socket],
        options: Mapping[str, Any],
        body_limits: BodyLimits,
        connections: Connections | None = None,
        is_short: Callable[[str, str], bool] | None = None,
    ) -> None:
        """Serve `application` on bound sockets, with waitress's options.

        `connections` and `is_short` replace the server's own for these sockets.
        """
        if connections is not None:
            self._connection_sets.append(connections)
        adj = Adjustments(sockets=list(sockets), **options)
        adj.socket_options = [*adj.socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
        self._listeners += [
            ListeningSocket(
                application,
                sock,
                self._sockets,
                adj,
                threads=self._threads,
                short_threads=self._short_threads,
                is_short=is_short or self._is_short,
                connections=self.connections if connections is None else connections,
                body_limits=body_limits,
            )
            for sock in sockets
        ]

    @property
    def ports(self) -> list[int]:
        """The ports that it listens on, without duplicates."""
        return list(dict.fromkeys(int(listener.effective_port) for listener in self._listeners))

    def run(self) -> None:
        """Serve until `stop`, or until SystemExit or KeyboardInterrupt is raised in this thread.

        Raises the error if the loop fails repeatedly, and RuntimeError if a listening socket is broken.
        """
        failures = 0
        try:
            while not self._stopping:
                try:
                    self._step()
                    failures = 0
                except Exception:
                    # Whatever the error, the other connections continue.
                    failures += 1
                    if failures >= MAX_FAILURES:
                        raise
                    log.exception("the server's loop failed and continues")
                    self._drop_broken()
                if not self._stopping and not all(listener.is_listening for listener in self._listeners):
                    raise RuntimeError("a listening socket is broken")
        except (SystemExit, KeyboardInterrupt):
            pass
        finally:
            self.close()

    def release_ports(self) -> None:
        """Close the listening sockets of a server whose loop hangs, so that a new one can bind; from any thread."""
        self._stopping = True
        for listener in self._listeners:
            if listener.socket is not None:
                listener.socket.close()

    def stop(self) -> None:
        """Make `run` return; from any thread."""
        self._stopping = True
        for listener in self._listeners[:1]:
            # The loop may have ended and closed the trigger.
            with suppress(OSError):
                listener.pull_trigger()

    def close(self) -> None:
        """Close all connections and end the threads."""
        self._threads.shutdown()
        self._short_threads.shutdown(timeout=1)
        for channel in list(self._sockets.values()):
            if isinstance(channel, Channel):
                channel.handle_close()
        wasyncore.close_all(self._sockets, ignore_all=True)

    def _step(self) -> None:
        """Handle the pending events, or wait up to a second for one."""
        wasyncore.loop(timeout=1, use_poll=True, map=self._sockets, count=1)
        for connections in self._connection_sets:
            connections.close_marked()
        self.iterations += 1
        now = time.monotonic()
        if now - self._swept >= SWEEP_INTERVAL:
            self._swept = now
            for connections in self._connection_sets:
                connections.sweep()

    def _drop_broken(self) -> None:
        """Close the connections that raise when asked whether they can be read or written."""
        for channel in list(self._sockets.values()):
            if isinstance(channel, Channel):
                try:
                    channel.readable()
                    channel.writable()
                except Exception:  # noqa: BLE001 - as in `run`
                    channel.handle_close()


def _threads(count: int) -> ThreadedTaskDispatcher:
    threads = ThreadedTaskDispatcher()
    threads.set_thread_count(count)
    return threads
