"""A download that can be broken off at any time, and goes on where it was.

Beside the part lies a record of what the server said the whole is. A part is only gone on with if the server says that
its file is still the same; what comes out is checked for its size and, where one is known, its hash.
"""

import email.message
import errno
import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import requests
import urllib3
from filelock import FileLock, Timeout
from tqdm import tqdm

from launcher.models.sources import STEP, Download
from launcher.terminal import print_status, size_text
from shared.errors import SetupError
from shared.models.storage import RESERVED_BYTES

CHUNK = 1024 * 1024
TIMEOUTS = (15, 60)
# Tries in a row that brought nothing, and the seconds before each.
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
LONGEST_WAIT = 60.0
TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
HEXADECIMAL_256 = re.compile(r"[0-9a-f]{64}")
LONGEST_NUMBER = 18
KEPT = "what was fetched is kept: the same command goes on from there"


class BrokenOffError(Exception):
    """The connection ended early, or was not made; it may go better the next time. `wait`: as the server asks."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class Fetch:
    """One download into `folder`: its part, its record, and the way to the whole file.

    `sleep` waits between tries.
    """

    def __init__(self, download: Download, folder: Path, sleep: Callable[[float], None] = time.sleep) -> None:
        key = hashlib.sha256(download.url.encode()).hexdigest()[:16]
        self._download = download
        self._sleep = sleep
        self._record_path = folder / f"{key}.json"
        self._sha256 = download.sha256
        # The most that was here of any beginning; what lay here before the first one counts until then.
        self._most = 0
        self._begun = False
        self.part = folder / f"{key}.part"
        self.name = download.name

    def run(self) -> Path:
        """Fetches what is missing, and returns the checked file. Raises SetupError; a Ctrl-C leaves the part."""
        self.part.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_of(self.part), timeout=0)
        try:
            with lock:
                self._fetch_with_patience()
                self._check()
        except Timeout:
            raise SetupError(STEP, "another command is fetching this file right now") from None
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise SetupError(STEP, "the disk is full", hint=f"make room; {KEPT}") from error
        return self.part

    def discard(self) -> None:
        """Removes all that is left of it."""
        for path in (self.part, self._record_path, lock_of(self.part)):
            path.unlink(missing_ok=True)

    def _fetch_with_patience(self) -> None:
        failures = 0
        self._most = self._have()
        while True:
            try:
                with requests.Session() as session:
                    self._fetch(session)
                return
            except (BrokenOffError, requests.ConnectionError, requests.Timeout) as error:
                # A server that begins anew each time brings something, and yet never the end.
                failures = 0 if self._have() > self._most else failures + 1
                self._most = max(self._most, self._have())
                known = isinstance(error, BrokenOffError)
                reason = f"{self._download.host}: {error if known else 'no connection, or a broken one'}"
                if failures > len(WAITS):
                    raise SetupError(STEP, f"{reason}, {failures} times in a row", hint=f"later: {KEPT}") from error
                asked = error.wait if isinstance(error, BrokenOffError) else 0.0
                wait = min(LONGEST_WAIT, max(asked, WAITS[max(0, failures - 1)]))
                print_status("again", f"in {wait:.0f} s; {reason}")
                self._sleep(wait)
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                # Its text may hold the address, and that a token.
                raise SetupError(STEP, f"that address cannot be fetched ({type(error).__name__})") from error

    def _fetch(self, session: requests.Session) -> None:
        record = self._record()
        have = self._have()
        if have and record.get("size") == have:
            self._take_over(record)
            return
        headers = {**self._download.headers, "Accept-Encoding": "identity"}
        if have and record.get("validator"):
            headers |= {"Range": f"bytes={have}-", "If-Range": record["validator"]}
        with self._ask(session, headers) as response:
            start = self._judge(response, have)
            # A part that no record vouches for is begun anew.
            if start == 0:
                record = self._note(response)
                # A part of an older file is no measure for the new one.
                self._most = self._most if self._begun else 0
                self._begun = True
            self._take_over(record)
            size = record.get("size")
            self._check_room(size, start)
            with self.part.open("ab" if start else "wb") as file, _progress(self.name, size, start) as advance:
                _copy(_chunks(response), file, advance, self._peek if start == 0 else None)
        if isinstance(size, int) and self._have() < size:
            raise BrokenOffError("the connection ended early")

    def _ask(self, session: requests.Session, headers: Mapping[str, str]) -> requests.Response:
        """The reply, after all redirects. Raises what is wrong with the way there."""
        hint = "give the address of the file itself"
        try:
            return session.get(self._download.url, headers=headers, stream=True, timeout=TIMEOUTS)
        except requests.TooManyRedirects as error:
            raise SetupError(STEP, f"{self._download.host} redirects without end", hint=hint) from error
        # Addresses that requests, urllib3 or Python itself cannot read; their texts may hold a token.
        except ValueError as error:
            reason = "that address, or one that it redirects to, is none that can be fetched"
            raise SetupError(STEP, reason, hint=hint) from error

    def _judge(self, response: requests.Response, have: int) -> int:
        """Where in the file the reply's body begins. Raises what is wrong with the reply."""
        code = response.status_code
        if code == 206:
            match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            if match is not None and _number(match[1]) == have:
                return have
        if code == 200:
            return 0
        if code in (206, 416):
            self._record_path.unlink(missing_ok=True)
            raise BrokenOffError("the server's file is another one than before")
        if code in TRY_AGAIN:
            asked = response.headers.get("Retry-After", "")
            raise BrokenOffError(f"the server answered {code}", _number(asked) or 0.0)
        raise SetupError(STEP, f"{self._download.host} answered {code}", hint=self._advice(code, response.headers))

    def _advice(self, code: int, headers: Mapping[str, str]) -> str | None:
        if self._download.hub and (code in (401, 403) or headers.get("X-Error-Code") == "GatedRepo"):
            return "accept the model's terms on its page, and set HF_TOKEN to a token of yours that may read it"
        if code in (401, 403):
            return "the server wants to know who asks; see the model's page for an address that you may use"
        return "is the address right?" if code in (404, 410) else None

    def _note(self, response: requests.Response) -> dict[str, Any]:
        """Writes down, and returns, what the server says of the file."""
        headers = response.headers
        etag = headers.get("ETag", "")
        length = headers.get("Content-Length", "")
        plain = headers.get("Content-Encoding", "identity") == "identity"
        record: dict[str, Any] = {
            "validator": headers.get("Last-Modified") if not etag or etag.startswith("W/") else etag,
            "size": _number(length) if plain else None,
            "name": self._download.name or _name_of(headers.get("Content-Disposition", "")),
            "sha256": _hash_of([*response.history, response]) if self._download.hub else None,
        }
        self._record_path.write_text(json.dumps(record), encoding="utf-8")
        return record

    def _record(self) -> dict[str, Any]:
        try:
            record = json.loads(self._record_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _take_over(self, record: Mapping[str, Any]) -> None:
        """The record's name and hash become ours; a hash that was known beforehand must be the same."""
        self.name = self.name or record.get("name")
        told, known = record.get("sha256"), self._download.sha256
        if known and told and told != known:
            self.discard()
            raise SetupError(
                STEP,
                f"{self._download.host} has another file under that name now: its hash is not the expected one",
                hint="give the file's address to fetch it all the same",
            )
        self._sha256 = known or told

    def _check_room(self, size: object, have: int) -> None:
        if isinstance(size, int):
            check_room(self.part.parent, size - have)

    def _peek(self, beginning: bytes) -> None:
        """Gives up at the first bytes on what is no model file, and not after the last."""
        page = beginning.lstrip()[:15].lower().startswith((b"<!doctype", b"<html"))
        if page or ((self.name or "").lower().endswith(".safetensors") and beginning[8:9] not in (b"{", b"")):
            self.discard()
            raise SetupError(
                STEP,
                f"{self._download.host} sent {'a web page' if page else 'something else'}, not a model file",
                hint="take the address of the download itself; some sites want you to log in first",
            )

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _check(self) -> None:
        """Size and hash of the whole."""
        size = self._record().get("size") or self._download.size
        if size is not None and self._have() != size:
            wrong = f"{self._have()} bytes came, {size} were announced"
        elif self._sha256 is not None and hash_file(self.part, "checking") != self._sha256:
            wrong = "its sha256 is not the expected one"
        else:
            return
        self.discard()
        raise SetupError(STEP, f"the file is not what it should be: {wrong}", hint="it was removed; try again")


def lock_of(part: Path) -> Path:
    """The file whose lock is held by who writes `part`."""
    return part.with_suffix(".lock")


def remove_unfinished(folder: Path) -> list[Path]:
    """Removes what broken-off downloads left in `folder`, without those that go on right now; returns what went."""
    removed = []
    for part in folder.glob("*.part"):
        try:
            with FileLock(lock_of(part), timeout=0):
                part.unlink(missing_ok=True)
                part.with_suffix(".json").unlink(missing_ok=True)
        except Timeout:
            continue
        lock_of(part).unlink(missing_ok=True)
        removed.append(part)
    return removed


def hash_file(path: Path, title: str) -> str:
    """The file's sha256, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file, _progress(title, path.stat().st_size, 0) as advance:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


def check_room(folder: Path, size: int) -> None:
    """Raises SetupError if `size` more bytes do not fit on the disk of `folder`, beside what stays free."""
    free = max(0, shutil.disk_usage(folder).free - RESERVED_BYTES)
    if size > free:
        raise SetupError(
            STEP,
            f"{size_text(size)} are needed, and {size_text(free)} can be taken",
            hint=f"make room in {folder}, or move the data with DREAM_LAYER_DATA_DIR",
        )


def copy_file(source: Path, target: Path) -> None:
    """Copies the content, with progress. Raises OSError."""
    size = source.stat().st_size
    with source.open("rb") as read, target.open("wb") as write, _progress(source.name, size, 0) as advance:
        while chunk := read.read(CHUNK):
            write.write(chunk)
            advance(len(chunk))


def _copy(
    chunks: Iterator[bytes], file: BinaryIO, advance: Callable[[int], object], peek: Callable[[bytes], None] | None
) -> None:
    for chunk in chunks:
        if peek is not None:
            peek(chunk[:64])
            peek = None
        file.write(chunk)
        advance(len(chunk))


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """The body as it comes in: what waits for a whole chunk would lose it when the connection ends."""
    try:
        while chunk := response.raw.read1(CHUNK, decode_content=False):
            yield chunk
    except urllib3.exceptions.HTTPError as error:
        raise BrokenOffError("the connection ended early") from error


@contextmanager
def _progress(name: str | None, size: object, start: int) -> Iterator[Callable[[int], object]]:
    """A bar with size, speed and time left; none where nobody watches."""
    with tqdm(
        total=size if isinstance(size, int) else None,
        initial=start,
        desc=f"  {name or 'fetching'}",
        unit="B",
        unit_scale=True,
        leave=False,
        disable=None,
        dynamic_ncols=True,
    ) as bar:
        yield bar.update


def _number(text: str) -> int | None:
    """The whole number in a header; None for anything else, such as other digits or more of them than a size has."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= LONGEST_NUMBER else None


def _name_of(disposition: str) -> str | None:
    """The file name in a Content-Disposition header, in whichever of its two spellings."""
    message = email.message.Message()
    message["Content-Disposition"] = disposition or "attachment"
    return message.get_filename()


def _hash_of(responses: list[requests.Response]) -> str | None:
    """The sha256 that the hub gives in its own reply, before it sends one on to where the file lies."""
    for response in responses:
        etag = response.headers.get("X-Linked-ETag", "").strip('"')
        if HEXADECIMAL_256.fullmatch(etag):
            return etag
    return None
