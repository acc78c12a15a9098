"""One connection: waitress's channel, with one request at a time, bounded buffers, and an end that clients hear of."""

from __future__ import annotations

import io
import json
import time
from contextlib import suppress
from socket import SHUT_WR, SocketType
from typing import TYPE_CHECKING, Any

from waitress.adjustments import Adjustments
from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import HTTPChannel
from waitress.task import ErrorTask, WSGITask

from shared.errors import DreamLayerError, HeadersTooLarge, NotSupported, RequestError
from shared.web.security import REFUSAL, RESTRICTIONS
from shared.web.server.body_limits import Ahead, Parser
from shared.web.server.connections import Phase, client_address

if TYPE_CHECKING:
    from shared.web.server.loop import Listener

# Bytes that are handed to a socket at once; waitress would read as many as the socket's whole buffer, each time anew.
PIECE = 256 * 1024


HEADERS = {"Content-Type": "application/json", **RESTRICTIONS}


def plain_answer(status: str, message: str, *, hint: str, code: str) -> bytes:
    """An answer in our error shape that needs neither a thread nor the application."""
    body = json.dumps({"status": "error", "message": message, "error": {"code": code, "hint": hint}}).encode()
    headers = {**HEADERS, "Content-Length": len(body), "Retry-After": 5, "Connection": "close"}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


TOO_LATE = plain_answer(
    "408 Request Timeout",
    "the request did not arrive in time",
    hint="send it without pauses, or on a faster connection",
    code="request_timeout",
)


class Task(WSGITask):  # type: ignore[misc]
    """A request for the application, which hears what the server refuses."""

    def get_environment(self) -> dict[str, Any]:
        """The WSGI environment."""
        environ: dict[str, Any] = super().get_environment()
        if self.request.refusal is not None:
            environ[REFUSAL] = self.request.refusal
        return environ

    def build_response_header(self) -> bytes:
        """Its bytes."""
        header: bytes = super().build_response_header()
        self.channel.endless = self.content_length is None
        return header


def refusal_of(wrong: Any) -> DreamLayerError:
    """The error in our shape for one of waitress's, which has `code`, `reason` and `body`."""
    if wrong.code == HeadersTooLarge.status:
        return HeadersTooLarge(
            f"the address and the headers are too large: {wrong.body}",
            hint="delete the cookies of this host, or send fields in the body",
        )
    if wrong.code == NotSupported.status:
        return NotSupported(wrong.body, hint="send Transfer-Encoding: chunked, or a Content-Length")
    if wrong.code < 500:
        return RequestError(f"this is no HTTP request: {wrong.body}", hint="send it with a client for HTTP/1.1")
    return DreamLayerError("something went wrong in the server", hint="its log has the details")


class RefusalTask(ErrorTask):  # type: ignore[misc]
    """The answer to what is no request, in our error shape."""

    def execute(self) -> None:
        """Writes it."""
        wrong = self.request.error
        body = json.dumps(refusal_of(wrong).as_dict()).encode()
        self.status = f"{wrong.code} {wrong.reason}"
        self.response_headers += HEADERS.items()
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection. See `shared.web.server.connections` for what may become of it."""

    task_class = Task
    error_task_class = RefusalTask

    # As waitress declares them, without types.
    server: Listener
    adj: Adjustments
    request: Parser | None
    requests: list[Parser]
    socket: SocketType | None
    sendbuf_len: int
    outbufs: list[Any]
    total_outbufs_len: int
    will_close: bool
    close_when_flushed: bool

    doomed = False
    """Whether it is to be closed as soon as no event is being handled."""
    short_only = False
    """Whether it was let in for short requests alone."""
    turn = 0
    endless = False
    """Whether the answer has no length that is known, so that whoever writes it must wait for the client."""
    _refused = False
    _lingers = False

    def __init__(self, server: Listener, sock: SocketType, addr: tuple[str, int], adj: Adjustments, **more: Any):
        super().__init__(server, sock, addr, adj, **more)
        self.sendbuf_len = min(self.sendbuf_len, PIECE)
        self.address = client_address(addr[0])
        self.moved_at = time.monotonic()
        self.moved_in = self.moved_out = 0
        server.connections.add(self)

    @property
    def phase(self) -> Phase:
        """What it is about."""
        if self._lingers:
            return Phase.ENDING
        if self.requests:
            return Phase.RUNNING
        if self.total_outbufs_len:
            return Phase.SENDING
        request = self.request
        if request is None or not (request.header_plus or request.headers_finished):
            return Phase.IDLE
        return Phase.BODY if request.headers_finished else Phase.HEAD

    @property
    def body_bytes(self) -> int:
        """Bytes of the body that it brings or that is being worked on."""
        return sum(each.body_bytes_received for each in (self.request, *self.requests) if each and each.counted)

    @property
    def output_bytes(self) -> int:
        """Bytes of answers that wait for the client in memory or temporary files."""
        return sum(each.__len__() for each in list(self.outbufs) if not isinstance(each, ReadOnlyFileBasedBuffer))

    @property
    def backlog(self) -> int:
        """Bytes of answers that wait for the client, wherever they lie."""
        return self.total_outbufs_len

    def end(self, *, late: bool = False) -> None:
        """Closes it at once."""
        if late and self.phase in (Phase.HEAD, Phase.BODY):
            # Why, if there is room for it.
            with suppress(OSError):
                self.send(TOO_LATE, do_close=False)
        self.handle_close()

    def parser_class(self, adj: Adjustments) -> Parser:
        """Takes in what comes next: while a request is being answered it only is kept."""
        kind = Ahead if self.requests else Parser
        return kind(adj, self.server.intake, self.addr[0])

    def readable(self) -> bool:
        """Whether to read from the client."""
        if self._lingers:
            return True
        if isinstance(self.request, Ahead):
            if not (self.requests or self.total_outbufs_len or self.will_close or self.close_when_flushed):
                ahead, self.request = self.request.data, None
                self.received(ahead)
            elif self.request.full:
                return False
        return bool(super().readable())

    def writable(self) -> bool:
        """Whether there is something to write, or to end."""
        return not self._lingers and bool(super().writable())

    def handle_read(self) -> None:
        """Takes in what has come."""
        if self.socket is None:
            return
        try:
            data = self.socket.recv(self.adj.recv_bytes)
        except BlockingIOError:
            return
        except OSError:
            # It is gone; that is nothing to write a traceback about.
            data = b""
        if not data:
            self.handle_close()
            return
        self.last_activity = time.time()
        self.moved_at = time.monotonic()
        self.moved_in += len(data)
        if not self._lingers:
            self.received(data)

    def handle_write(self) -> None:
        """Sends what waits. After a refusal, what the client still sends is read for a while and thrown away: a
        connection that is closed before is reset, and takes the answer with it."""
        if self.socket is None:
            return
        if not (self._refused and self.close_when_flushed) or self.will_close:
            super().handle_write()
            return
        _, failed = self._flush_exception(self._flush_some)
        if failed:
            self.handle_close()
        elif not self.total_outbufs_len:
            self._linger()

    def handle_expt(self) -> None:
        """Urgent data is not HTTP, and would be announced for ever."""
        self.handle_close()

    def send(self, data: bytes, do_close: bool = True) -> int:
        """The number of bytes that went out."""
        if self.socket is None:
            return 0
        sent: int = super().send(data, do_close=do_close) or 0
        if sent:
            self.moved_at = time.monotonic()
            self.moved_out += sent
        return sent

    def write_soon(self, data: Any) -> int:
        """Buffers a piece of an answer: a picture's own file as that, all else in memory or, if large, in a file."""
        if isinstance(data, ReadOnlyFileBasedBuffer) and isinstance(data.file, io.BytesIO):
            # It stays in memory otherwise until the client has taken all of it.
            whole = data.get(data.remain)
            data.close()
            data = whole
        count: int = super().write_soon(data)
        if self.total_outbufs_len > self.adj.outbuf_overflow and self.server.connections.balance_output():
            self.server.pull_trigger()
        return count

    def service(self) -> None:
        """Answers the request, in a thread of the server."""
        self._refused = self.requests[0].refused_body if self.requests else False
        super().service()

    def handle_close(self) -> None:
        """Closes it, and what it held."""
        super().handle_close()
        if self.request is not None:
            self.request.close()
        self.server.connections.discard(self)

    def _flush_outbufs_below_high_watermark(self) -> None:
        # A thread waits for a client only with what has no end; all else is bounded (`Limits.held_output`).
        if self.endless:
            super()._flush_outbufs_below_high_watermark()

    def _linger(self) -> None:
        self.close_when_flushed = False
        self._lingers = True
        try:
            if self.socket is not None:
                self.socket.shutdown(SHUT_WR)
        except OSError:
            self.handle_close()
