"""What waitress takes in of a request, decided from its head: nothing of a body that the application will refuse.

Waitress writes a body to a temporary file before the application hears of the request. So who may not call, and what is
too large, has to be known before: without a key nothing is written. What is refused here is answered by the
application (`shared.web.app`), in its JSON and with the headers that let a page read it.
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

# The largest body of a request, in bytes, and the folder for its file: of a path and its headers (upper case, with
# underscores). None stands for what the server does with all others.
Large = Callable[[str, Mapping[str, str]], "tuple[int, Path] | None"]
# Raises the error with which the application would refuse a request, of its WSGI environment without the body.
Admit = Callable[[dict[str, Any]], None]

# Bytes of what frames a chunked body: of the line before a chunk, of what follows the last one, and of all of it
# beyond as many as the body itself has.
LONGEST_LINE = 4096
LONGEST_TRAILER = 16 * 1024
FRAMING = 64 * 1024

# A request's first line, and what no header may contain.
FIRST_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [^ ]+(?: HTTP/[0-9]\.[0-9])?")
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# How TLS begins: a handshake.
TLS = b"\x16\x03"


@dataclass(frozen=True)
class BodyLimits:
    """What a server asks before it takes in a body; `has_room` whether one of so many bytes fits beside all others."""

    large: Large
    admit: Admit
    has_room: Callable[[int], bool]


class Parser(HTTPRequestParser):  # type: ignore[misc]
    """A request on its way in."""

    # As waitress declares them, without types.
    body_rcv: Any
    body_bytes_received: int
    chunked: bool
    completed: bool
    content_length: int
    error: Any
    headers: dict[str, str]
    adj: Adjustments

    refusal: DreamLayerError | None = None
    """What the application is to answer."""
    refused_body = False
    """Whether a body is on its way that nobody will read."""
    counted = True
    """Whether its body counts among those that share a bound."""

    def __init__(self, adj: Adjustments, intake: BodyLimits, peer: str) -> None:
        super().__init__(adj)
        self.intake = intake
        self.peer = peer

    def parse_header(self, header_plus: bytes) -> None:
        """Waitress's own, and then whether to take in a body."""
        header_plus = plain_head(header_plus)
        try:
            super().parse_header(header_plus)
        except ValueError as error:
            # Such as a length of 5,000 digits, or the address "http://[".
            raise ParsingError("the first line or a header cannot be read") from error
        self._check_framing(header_plus)
        if self.body_rcv is None:
            # Told to go on, waitress would wait for a body that does not come.
            self.expect_continue = False
            return
        self.refusal = self._objection()
        large = self.intake.large(self.path, self.headers) if self.refusal is None else None
        if large is not None:
            self.adj = copy.copy(self.adj)
            self.adj.max_request_body_size = large[0]
        # What is larger than any body may be is told so by the application: waiting would not help.
        fits = self.content_length < self.adj.max_request_body_size
        if self.refusal is None and large is None and fits and not self.intake.has_room(self.content_length):
            self.refusal = Busy(
                "the server takes in as many bodies as it can hold already", hint="try again soon", retry_after=5
            )
        if self.refusal is not None:
            self._drop_body()
        elif self.content_length >= self.adj.max_request_body_size:
            # Waitress would answer in plain text, without the headers that let a page read it. The application sees
            # the same Content-Length, refuses it, and needs no body for that.
            self._drop_body()
        elif large is not None:
            self.counted = False
            self.body_rcv.buf = _Spool(large[1])

    def received(self, data: bytes) -> int:
        """Waitress's own, with bounds for what a chunked body may consist of."""
        if data.startswith(TLS) and not (self.header_plus or self.headers_finished):
            # Read as a head, it would have no end.
            self._fail("this is encrypted: call this port by http, not https")
            return len(data)
        consumed: int = super().received(data)
        if self.chunked and self.body_rcv is not None and self.error is None:
            receiver = self.body_rcv
            framing = self.body_bytes_received - len(receiver)
            if (
                len(receiver.control_line) > LONGEST_LINE
                or len(receiver.trailer) > LONGEST_TRAILER
                or framing > len(receiver) + FRAMING
            ):
                self.refusal = None
                self._fail("the chunks of the body are out of proportion")
        elif self.chunked and self.error is not None and self.body_bytes_received >= self.adj.max_request_body_size:
            self.error = None
            self.refusal = BodyTooLarge(
                "the body is too large", hint="scale the picture down, or raise DREAM_LAYER_MAX_BODY_MB"
            )
            self._drop_body()
        if self.error is not None:
            self.refused_body = True
        return consumed

    def _check_framing(self, header_plus: bytes) -> None:
        """Raises ParsingError for a request of which two servers could read two different ones (RFC 9112, 6.1)."""
        pairs = [line.partition(b":") for line in header_plus.lower().split(b"\r\n")[1:]]
        names = [name for name, _, _ in pairs]
        encodings = names.count(b"transfer-encoding")
        if encodings and b"content-length" in names:
            raise ParsingError("Content-Length and Transfer-Encoding exclude each other")
        if encodings and (self.version != "1.1" or encodings > 1):
            raise ParsingError("Transfer-Encoding must be there once, and in HTTP/1.1")
        if encodings and (b"transfer-encoding", b":", b"chunked") not in pairs:
            raise ParsingError("Transfer-Encoding must be chunked, said once")
        if self.version[:1] not in ("1", ""):
            raise ParsingError(f"HTTP/{self.version} is not spoken here")
        if self.version == "1.1" and b"host" not in names:
            raise ParsingError("Host is missing")
        if names.count(b"content-length") > 1 or names.count(b"host") > 1:
            raise ParsingError("Content-Length and Host must be there once")

    def _objection(self) -> DreamLayerError | None:
        """The error with which the application would refuse the request."""
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
            self.intake.admit(environ)
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
        self.refused_body = True
        # What follows is that body. Read on, it would be requests that a strange page wrote, headers and all.
        self.headers["CONNECTION"] = "close"

    def _fail(self, reason: str) -> None:
        self.error = BadRequest(reason)
        self.completed = True


def plain_head(head: bytes) -> bytes:
    """The same head without blanks around values. Raises ParsingError for what is none.

    Waitress's expressions take quadratic time for a long first line that they refuse, and for a value behind many
    blanks: minutes for 64 kB, in the thread that serves all connections. So they get only what they match at once.
    """
    first, *lines = head.split(b"\r\n")
    if FIRST_LINE.fullmatch(first.rstrip()) is None:
        raise ParsingError("Start line is invalid")
    plain = [first]
    for line in lines:
        name, colon, value = line.partition(b":")
        if line.startswith((b" ", b"\t")):
            raise ParsingError("a header goes on in a second line")
        if CONTROL.search(line):
            raise ParsingError("a header has a control character")
        plain.append(name + colon + value.strip(b" \t"))
    return b"\r\n".join(plain)


class Ahead(Parser):
    """What a client sent before it was answered: kept as it is, and read as a request when that has happened."""

    limit = 64 * 1024

    def __init__(self, adj: Adjustments, intake: BodyLimits, peer: str) -> None:
        super().__init__(adj, intake, peer)
        self.data = b""

    @property
    def full(self) -> bool:
        """Whether no more should be read."""
        return len(self.data) >= self.limit

    def received(self, data: bytes) -> int:
        """Keeps all of it."""
        self.data += data
        return len(data)


class _Spool(TempfileBasedBuffer):  # type: ignore[misc]
    """A body in a file without a name in `folder`: the usual place for such files is often in memory, or small."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        super().__init__()

    def newfile(self) -> IO[bytes]:
        self._folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile("w+b", dir=self._folder)
