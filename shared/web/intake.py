"""How waitress takes in bodies: one route's may be as large as a model, and everything refused is refused by the app.

Waitress writes a body to a temporary file before the application hears of the request. So a limit has to hold there
already, or any request could fill the disk; and what is known of the request by then, its path and headers, decides.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from waitress.adjustments import Adjustments
from waitress.buffers import TempfileBasedBuffer
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import BaseWSGIServer

# The largest body of a request, in bytes, and the folder for its file: of a path and its headers (upper case, with
# underscores). None stands for what the server does with all others.
Large = Callable[[str, Mapping[str, str]], "tuple[int, Path] | None"]


def admit_large_bodies(server: Any, large: Large) -> None:
    """Makes a waitress server ask `large` of each request; to be called before it runs."""

    class Parser(_Parser):
        limits = staticmethod(large)

    class Channel(HTTPChannel):  # type: ignore[misc]
        parser_class = Parser

    sockets = getattr(server, "map", None) or server._map
    for each in sockets.values():
        if isinstance(each, BaseWSGIServer):
            each.channel_class = Channel


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    limits: Large
    # As waitress declares them, without types.
    body_rcv: Any
    content_length: int
    headers: dict[str, str]
    adj: Adjustments

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        large = self.limits(self.path, self.headers)
        if large is not None:
            self.adj = copy.copy(self.adj)
            self.adj.max_request_body_size = large[0]
        if self.content_length >= self.adj.max_request_body_size:
            # Waitress would answer in plain text, without the headers that let a page read it. The application sees
            # the same Content-Length, refuses it, and needs no body for that.
            self.content_length = 0
            self.body_rcv = None
            self.expect_continue = False
            # What follows is that body. Read on, it would be requests that a strange page wrote, headers and all.
            self.headers["CONNECTION"] = "close"
        elif large is not None and self.body_rcv is not None:
            self.body_rcv.buf = _Spool(large[1])


class _Spool(TempfileBasedBuffer):  # type: ignore[misc]
    """A body in a file without a name in `folder`: the usual place for such files is often in memory, or small."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        super().__init__()

    def newfile(self) -> IO[bytes]:
        self._folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile("w+b", dir=self._folder)
