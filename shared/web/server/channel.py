"""One connection: waitress's channel with one request at a time, bounded buffers, and errors that reach the client."""

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
from shared.web.security import HEAD_ERROR, SECURITY_HEADERS
from shared.web.server.connections import ConnectionPhase, client_key
from shared.web.server.request_parser import PipelinedInput, RequestParser

if TYPE_CHECKING:
    from shared.web.server.loop import ListeningSocket

# Bytes that are passed to a socket at once; waitress would copy as many as the socket's whole buffer, every time.
MAX_SEND = 256 * 1024

HEADERS = {"Content-Type": "application/json", **SECURITY_HEADERS}


def raw_error_response(status: str, message: str, *, hint: str, code: str) -> bytes:
    """Return a whole HTTP response with an error as JSON, for when no thread and no application is involved."""
    body = json.dumps({"status": "error", "message": message, "error": {"code": code, "hint": hint}}).encode()
    headers = {**HEADERS, "Content-Length": len(body), "Retry-After": 5, "Connection": "close"}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


TIMEOUT_RESPONSE = raw_error_response(
    "408 Request Timeout",
    "the request did not arrive in time",
    hint="send it without pauses, or over a faster connection",
    code="request_timeout",
)


class RequestTask(WSGITask):  # type: ignore[misc]
    """A request for the application; the environment carries the error that its head has."""

    def get_environment(self) -> dict[str, Any]:
        """Return the WSGI environment."""
        environ: dict[str, Any] = super().get_environment()
        if self.request.head_error is not None:
            environ[HEAD_ERROR] = self.request.head_error
        return environ

    def build_response_header(self) -> bytes:
        """Return the response's head, and note whether its length is known."""
        header: bytes = super().build_response_header()
        self.channel.is_streaming = self.content_length is None
        return header


def translate_parse_error(error: Any) -> DreamLayerError:
    """Return our error for one of waitress's, which has `code`, `reason` and `body`."""
    if error.code == HeadersTooLarge.status:
        return HeadersTooLarge(
            f"the URL and the headers are too large: {error.body}",
            hint="delete this host's cookies, or send fields in the body",
        )
    if error.code == NotSupported.status:
        return NotSupported(error.body, hint="send Transfer-Encoding: chunked, or a Content-Length")
    if error.code < 500:
        return RequestError(f"this is not a valid HTTP request: {error.body}", hint="use a client for HTTP/1.1")
    return DreamLayerError("something went wrong in the server", hint="its log has the details")


class ParseErrorTask(ErrorTask):  # type: ignore[misc]
    """The response to bytes that are not a request, as a JSON error."""

    def execute(self) -> None:
        """Write the response."""
        error = self.request.error
        body = json.dumps(translate_parse_error(error).as_dict()).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers += HEADERS.items()
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection; `shared.web.server.connections` decides when it is closed."""

    task_class = RequestTask
    error_task_class = ParseErrorTask

    # As waitress declares them, without types.
    server: ListeningSocket
    adj: Adjustments
    request: RequestParser | None
    requests: list[RequestParser]
    socket: SocketType | None
    sendbuf_len: int
    outbufs: list[Any]
    total_outbufs_len: int
    will_close: bool
    close_when_flushed: bool

    closing = False
    """Whether to close it as soon as no event is being handled."""
    short_only = False
    """Whether it was accepted for short requests only."""
    request_count = 0
    is_streaming = False
    """Whether the response's length is unknown, so that its writer must wait for the client."""
    _body_discarded = False
    _is_lingering = False

    def __init__(self, server: ListeningSocket, sock: SocketType, addr: tuple[str, int], adj: Adjustments, **more: Any):
        super().__init__(server, sock, addr, adj, **more)
        self.sendbuf_len = min(self.sendbuf_len, MAX_SEND)
        self.address = client_key(addr[0])
        self.last_transfer = time.monotonic()
        self.bytes_in = self.bytes_out = 0
        server.connections.add(self)

    @property
    def phase(self) -> ConnectionPhase:
        """What it is doing."""
        if self._is_lingering:
            return ConnectionPhase.LINGERING
        if self.requests:
            return ConnectionPhase.PROCESSING
        if self.total_outbufs_len:
            return ConnectionPhase.SENDING
        request = self.request
        if request is None or not (request.header_plus or request.headers_finished):
            return ConnectionPhase.IDLE
        return ConnectionPhase.BODY if request.headers_finished else ConnectionPhase.HEAD

    @property
    def body_bytes(self) -> int:
        """Bytes of request bodies that it is sending or that are being processed."""
        requests = [request for request in (self.request, *self.requests) if request and request.counted]
        return sum(request.body_bytes_received for request in requests)

    @property
    def output_bytes(self) -> int:
        """Bytes of responses that wait for the client in memory or temporary files."""
        buffers = [buffer for buffer in list(self.outbufs) if not isinstance(buffer, ReadOnlyFileBasedBuffer)]
        return sum(buffer.__len__() for buffer in buffers)

    @property
    def backlog(self) -> int:
        """Bytes of responses that wait for the client, wherever they are stored."""
        return self.total_outbufs_len

    def end(self, *, timed_out: bool = False) -> None:
        """Close it at once; a client whose request was late receives a 408 first."""
        if timed_out and self.phase in (ConnectionPhase.HEAD, ConnectionPhase.BODY):
            with suppress(OSError):
                self.send(TIMEOUT_RESPONSE, do_close=False)
        self.handle_close()

    def parser_class(self, adj: Adjustments) -> RequestParser:
        """Return the parser for the next bytes; while a request is being processed, they are only kept."""
        parser = PipelinedInput if self.requests else RequestParser
        return parser(adj, self.server.body_limits, self.addr[0])

    def readable(self) -> bool:
        """Whether to read from the client."""
        if self._is_lingering:
            return True
        if isinstance(self.request, PipelinedInput):
            if not (self.requests or self.total_outbufs_len or self.will_close or self.close_when_flushed):
                pipelined, self.request = self.request.data, None
                self.received(pipelined)
            elif self.request.is_full:
                return False
        return bool(super().readable())

    def writable(self) -> bool:
        """Whether there is something to write, or the connection must be closed."""
        return not self._is_lingering and bool(super().writable())

    def handle_read(self) -> None:
        """Read what the client has sent."""
        if self.socket is None:
            return
        try:
            data = self.socket.recv(self.adj.recv_bytes)
        except BlockingIOError:
            return
        except OSError:
            # The client has disconnected.
            data = b""
        if not data:
            self.handle_close()
            return
        self.last_activity = time.time()
        self.last_transfer = time.monotonic()
        self.bytes_in += len(data)
        if not self._is_lingering:
            self.received(data)

    def handle_write(self) -> None:
        """Send what is buffered.

        After a request whose body is discarded, the connection lingers: what the client still sends is read and thrown
        away for a while. Closing at once would reset the connection, and the client would lose the response.
        """
        if self.socket is None:
            return
        if not (self._body_discarded and self.close_when_flushed) or self.will_close:
            super().handle_write()
            return
        _, failed = self._flush_exception(self._flush_some)
        if failed:
            self.handle_close()
        elif not self.total_outbufs_len:
            self._linger()

    def handle_expt(self) -> None:
        """Close the connection: urgent data is not HTTP, and poll would report it for ever."""
        self.handle_close()

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Send bytes; returns how many the socket accepted."""
        if self.socket is None:
            return 0
        sent: int = super().send(data, do_close=do_close) or 0
        if sent:
            self.last_transfer = time.monotonic()
            self.bytes_out += sent
        return sent

    def write_soon(self, data: Any) -> int:
        """Buffer a piece of a response: a picture's file as it is, all else in memory or, if large, in a file."""
        if isinstance(data, ReadOnlyFileBasedBuffer) and isinstance(data.file, io.BytesIO):
            # Kept as a file, it would stay in memory until the client has read all of it.
            content = data.get(data.remain)
            data.close()
            data = content
        count: int = super().write_soon(data)
        if self.total_outbufs_len > self.adj.outbuf_overflow and self.server.connections.balance_output():
            self.server.pull_trigger()
        return count

    def service(self) -> None:
        """Process the request, in one of the server's threads."""
        self._body_discarded = self.requests[0].body_discarded if self.requests else False
        super().service()

    def handle_close(self) -> None:
        """Close the connection, its buffers and its unfinished request."""
        super().handle_close()
        if self.request is not None:
            self.request.close()
        self.server.connections.discard(self)

    def _flush_outbufs_below_high_watermark(self) -> None:
        # Only a stream makes its thread wait for the client; other output is bounded (`ConnectionLimits.held_output`).
        if self.is_streaming:
            super()._flush_outbufs_below_high_watermark()

    def _linger(self) -> None:
        self.close_when_flushed = False
        self._is_lingering = True
        try:
            if self.socket is not None:
                self.socket.shutdown(SHUT_WR)
        except OSError:
            self.handle_close()
