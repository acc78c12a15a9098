"""A small file server with the faults of real downloads: broken connections, changed files, wrong ranges."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class File:
    """The content of a path.

    `breaks` are the numbers of bytes after which the connections of the next replies end. `stalls` are those after
    which the next replies pause until the server ends. `answers` are the status codes of the next replies.
    """

    content: bytes
    etag: str = '"one"'
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    breaks: list[int] = field(default_factory=list)
    stalls: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    redirect: str | None = None


class FileServer:
    """A running server: its `files` by path, and the requests that it has `seen`: path, Range, Authorization."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.files: dict[str, File] = {}
        self.seen: list[tuple[str, str | None, str | None]] = []

    @property
    def ranges(self) -> list[str | None]:
        return [requested for _, requested, _ in self.seen]


@contextmanager
def file_server() -> Iterator[FileServer]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            requested = self.headers.get("Range")
            server.seen.append((path, requested, self.headers.get("Authorization")))
            file = server.files.get(path)
            if file is None:
                self.answer(404)
            elif file.answers:
                self.answer(file.answers.pop(0), **file.headers)
            elif file.redirect is not None:
                self.answer(302, Location=file.redirect, **file.headers)
            else:
                self.send(file, requested)

        def answer(self, code: int, **headers: str) -> None:
            self.send_response(code)
            for name, value in {**headers, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        def send(self, file: File, requested: str | None) -> None:
            start = 0
            if requested and file.ranges and self.headers.get("If-Range", file.etag) == file.etag:
                match = re.fullmatch(r"bytes=(\d+)-", requested)
                assert match is not None
                start = int(match[1])
            body = file.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", file.etag)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(file.content) - 1}/{len(file.content)}")
            for name, value in file.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if file.stalls:
                self.wfile.write(body[: file.stalls.pop(0)])
                ended.wait(60)
            else:
                self.wfile.write(body[: file.breaks.pop(0)] if file.breaks else body)

    ended = threading.Event()
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = FileServer(http.server_port)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        ended.set()
        http.shutdown()
        thread.join()
        http.server_close()
