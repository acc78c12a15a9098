"""Parses a request as it arrives, and decides from its head whether to read its body.

waitress writes a body to a temporary file before the application sees the request. So the head is checked first: the
body of a request without a valid key, or one that is too large, is not read. The application (`shared.web.app`) answers
such a request, as JSON and with the headers that let a web page read it.
"""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from waitress.adjustments import Adjustments
from waitress.buffers import TempfileBasedBuffer
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.utilities import BadRequest

from shared.errors import BodyTooLarge, Busy, DreamLayerError

# From a request's path and headers (upper case, with underscores): its own limit on the body in bytes, and the folder
# of the body's temporary file. None means the server's defaults.
LargeBodyRule = Callable[[str, Mapping[str, str]], "tuple[int, Path] | None"]
# Takes a WSGI environment without a body; raises the error with which the application would refuse the request.
HeadCheck = Callable[[dict[str, Any]], None]

# Bytes of chunked framing: of one chunk's size line, of the trailer, and of all framing beyond the body's own size.
MAX_CHUNK_LINE = 4096
MAX_TRAILER = 16 * 1024
MAX_FRAMING = 64 * 1024

# The request line, and the characters that no header may contain.
REQUEST_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [^ ]+(?: HTTP/[0-9]\.[0-9])?")
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# The first bytes of a TLS handshake.
TLS = b"\x16\x03"


@dataclass(frozen=True)
class BodyLimits:
    """What decides whether a body is read. `has_room` tells whether a body of that size fits next to all others."""

    large: LargeBodyRule
    check_head: HeadCheck
    has_room: Callable[[int], bool]


class RequestParser(HTTPRequestParser):  # type: ignore[misc]
    """A request that is arriving."""

    # As waitress declares them, without types.
    body_rcv: Any
    body_bytes_received: int
    chunked: bool
    completed: bool
    content_length: int
    error: Any
    headers: dict[str, str]
    adj: Adjustments

    head_error: DreamLayerError | None = None
    """The error that the application is to answer with."""
    body_discarded = False
    """Whether the client is sending a body that nobody will read."""
    counted = True
    """Whether its body counts towards the limit on all bodies together."""

    def __init__(self, adj: Adjustments, body_limits: BodyLimits, peer: str) -> None:
        super().__init__(adj)
        self.body_limits = body_limits
        self.peer = peer

    def parse_header(self, header_plus: bytes) -> None:
        """Parse the head, then decide whether to read the body."""
        header_plus = normalise_head(header_plus)
        try:
            super().parse_header(header_plus)
        except ValueError as error:
            # Such as a length of 5,000 digits, or the address "http://[".
            raise ParsingError("the first line or a header cannot be read") from error
        self._check_framing(header_plus)
        if self.body_rcv is None:
            # After "100 Continue" waitress would wait for a body that does not come.
            self.expect_continue = False
            return
        self.head_error = self._find_head_error()
        large = self.body_limits.large(self.path, self.headers) if self.head_error is None else None
        if large is not None:
            self.adj = copy.copy(self.adj)
            self.adj.max_request_body_size = large[0]
        # A body above the maximum is never "busy": the application answers that it is too large.
        fits = self.content_length < self.adj.max_request_body_size
        if self.head_error is None and large is None and fits and not self.body_limits.has_room(self.content_length):
            self.head_error = Busy(
                "the server is already receiving as many request bodies as it can hold",
                hint="try again in a few seconds",
                retry_after=5,
            )
        if self.head_error is not None:
            self._drop_body()
        elif self.content_length >= self.adj.max_request_body_size:
            # waitress would answer in plain text, without the headers that let a web page read it. The application
            # sees the same Content-Length and refuses it without the body.
            self._drop_body()
        elif large is not None:
            self.counted = False
            self.body_rcv.buf = _FolderBuffer(large[1])

    def received(self, data: bytes) -> int:
        """Parse the next bytes, with limits on the framing of a chunked body."""
        if data.startswith(TLS) and not (self.header_plus or self.headers_finished):
            # Parsed as a head, it would never end.
            self._fail("the request is encrypted: use http:// for this port, not https://")
            return len(data)
        consumed: int = super().received(data)
        if self.chunked and self.body_rcv is not None and self.error is None:
            receiver = self.body_rcv
            framing = self.body_bytes_received - len(receiver)
            if (
                len(receiver.control_line) > MAX_CHUNK_LINE
                or len(receiver.trailer) > MAX_TRAILER
                or framing > len(receiver) + MAX_FRAMING
            ):
                self.head_error = None
                self._fail("the body's chunks have too much framing")
        elif self.chunked and self.error is not None and self.body_bytes_received >= self.adj.max_request_body_size:
            self.error = None
            self.head_error = BodyTooLarge(
                "the body is too large", hint="scale the picture down, or raise DREAM_LAYER_MAX_BODY_MB"
            )
            self._drop_body()
        if self.error is not None:
            self.body_discarded = True
        return consumed

    def _check_framing(self, header_plus: bytes) -> None:
        """Raise ParsingError for a request that two servers could read as two different ones (RFC 9112, 6.1)."""
        pairs = [line.partition(b":") for line in header_plus.lower().split(b"\r\n")[1:]]
        names = [name for name, _, _ in pairs]
        encodings = names.count(b"transfer-encoding")
        if encodings and b"content-length" in names:
            raise ParsingError("Content-Length and Transfer-Encoding exclude each other")
        if encodings and (self.version != "1.1" or encodings > 1):
            raise ParsingError("Transfer-Encoding is allowed once, and only in HTTP/1.1")
        if encodings and (b"transfer-encoding", b":", b"chunked") not in pairs:
            raise ParsingError("Transfer-Encoding must be chunked, and nothing else")
        if self.version[:1] not in ("1", ""):
            raise ParsingError(f"HTTP/{self.version} is not supported")
        if self.version == "1.1" and b"host" not in names:
            raise ParsingError("the Host header is missing")
        if names.count(b"content-length") > 1 or names.count(b"host") > 1:
            raise ParsingError("Content-Length and Host are allowed once")

    def _find_head_error(self) -> DreamLayerError | None:
        """Return the error with which the application would refuse the request."""
        environ = {
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": "",
            "PATH_INFO": self.path,
            "QUERY_STRING": self.query,
            "REMOTE_ADDR": self.peer,
            "SERVER_NAME": "",
            "SERVER_PORT": "0",
            "wsgi.url_scheme": "http",
            **{f"HTTP_{name}": value for name, value in self.headers.items()},
        }
        try:
            self.body_limits.check_head(environ)
        except DreamLayerError as error:
            return error
        return None

    def _drop_body(self) -> None:
        if self.body_rcv is not None:
            self.body_rcv.getbuf().close()
        self.content_length = 0
        self.body_rcv = None
        self.expect_continue = False
        self.completed = True
        self.body_discarded = True
        # What follows is the body. Parsed as requests, it would let another site's page write whole requests.
        self.headers["CONNECTION"] = "close"

    def _fail(self, reason: str) -> None:
        self.error = BadRequest(reason)
        self.completed = True


def normalise_head(head: bytes) -> bytes:
    """Return the head without blanks around header values. Raises ParsingError if it is not a request's head.

    waitress's regular expressions take quadratic time for a long invalid request line, and for a value after many
    blanks: minutes for 64 kB, in the thread that serves all connections. This head matches them at once.
    """
    first, *lines = head.split(b"\r\n")
    if REQUEST_LINE.fullmatch(first.rstrip()) is None:
        raise ParsingError("the request line is invalid")
    normalised = [first]
    for line in lines:
        name, colon, value = line.partition(b":")
        if line.startswith((b" ", b"\t")):
            raise ParsingError("a header continues on a second line")
        if CONTROL.search(line):
            raise ParsingError("a header contains a control character")
        normalised.append(name + colon + value.strip(b" \t"))
    return b"\r\n".join(normalised)


class PipelinedInput(RequestParser):
    """Bytes that a client sent before its previous request was answered; they are parsed once it is."""

    limit = 64 * 1024

    def __init__(self, adj: Adjustments, body_limits: BodyLimits, peer: str) -> None:
        super().__init__(adj, body_limits, peer)
        self.data = b""

    @property
    def is_full(self) -> bool:
        """Whether to stop reading from the client."""
        return len(self.data) >= self.limit

    def received(self, data: bytes) -> int:
        """Keep the bytes."""
        self.data += data
        return len(data)


class _FolderBuffer(TempfileBasedBuffer):  # type: ignore[misc]
    """A body in an unnamed file in `folder`: the system's temporary folder is often in memory, or small."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        super().__init__()

    def newfile(self) -> IO[bytes]:
        self._folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile("w+b", dir=self._folder)
