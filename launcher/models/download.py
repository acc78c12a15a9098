"""Downloads a file; an interrupted download resumes where it stopped.

A record next to the partial file keeps what the server reported of the whole. The download resumes only if the server's
file is still the same. The result's size is verified, and its hash if one is known.
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
# Seconds before each retry after an attempt without progress.
RETRY_DELAYS = (1.0, 2.0, 4.0, 8.0, 16.0)
MAX_DELAY = 60.0
RETRY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
HEXADECIMAL_256 = re.compile(r"[0-9a-f]{64}")
MAX_DIGITS = 18
RESUMABLE = "the download is kept: the same command continues it"


class InterruptedDownloadError(Exception):
    """The connection failed or ended early; a retry may help. `wait`: the seconds that the server asks for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class Downloader:
    """Downloads one file into `folder`, through a partial file and a record. `sleep` waits between attempts."""

    def __init__(self, download: Download, folder: Path, sleep: Callable[[float], None] = time.sleep) -> None:
        key = hashlib.sha256(download.url.encode()).hexdigest()[:16]
        self._download = download
        self._sleep = sleep
        self._record_path = folder / f"{key}.json"
        self._sha256 = download.sha256
        # The most bytes that any attempt has reached, including the partial file from before.
        self._most = 0
        self._restarted = False
        self.part = folder / f"{key}.part"
        self.name = download.name

    def run(self) -> Path:
        """Download the missing part; returns the verified file. Raises SetupError. Ctrl-C keeps the partial file."""
        self.part.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_path(self.part), timeout=0)
        try:
            with lock:
                self._download_with_retries()
                self._verify()
        except Timeout:
            raise SetupError(STEP, "another command is already downloading this file") from None
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise SetupError(STEP, "the disk is full", hint=f"free some space; {RESUMABLE}") from error
        return self.part

    def discard(self) -> None:
        """Remove the partial file and its record."""
        for path in (self.part, self._record_path, lock_path(self.part)):
            path.unlink(missing_ok=True)

    def _download_with_retries(self) -> None:
        failures = 0
        self._most = self._downloaded_bytes()
        while True:
            try:
                with requests.Session() as session:
                    self._attempt(session)
                return
            except (InterruptedDownloadError, requests.ConnectionError, requests.Timeout) as error:
                # A server that restarts the file every time never finishes: only new bytes count as progress.
                failures = 0 if self._downloaded_bytes() > self._most else failures + 1
                self._most = max(self._most, self._downloaded_bytes())
                interrupted = isinstance(error, InterruptedDownloadError)
                reason = f"{self._download.host}: {error if interrupted else 'the connection failed'}"
                if failures > len(RETRY_DELAYS):
                    raise SetupError(
                        STEP, f"{reason}, {failures} times in a row", hint=f"try again later; {RESUMABLE}"
                    ) from error
                asked = error.wait if isinstance(error, InterruptedDownloadError) else 0.0
                wait = min(MAX_DELAY, max(asked, RETRY_DELAYS[max(0, failures - 1)]))
                print_status("retry", f"in {wait:.0f} s; {reason}")
                self._sleep(wait)
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                # The error's text may contain the URL with a token.
                raise SetupError(STEP, f"the URL cannot be downloaded ({type(error).__name__})") from error

    def _attempt(self, session: requests.Session) -> None:
        record = self._read_record()
        downloaded = self._downloaded_bytes()
        if downloaded and record.get("size") == downloaded:
            self._apply(record)
            return
        headers = {**self._download.headers, "Accept-Encoding": "identity"}
        if downloaded and record.get("validator"):
            headers |= {"Range": f"bytes={downloaded}-", "If-Range": record["validator"]}
        with self._request(session, headers) as response:
            start = self._start_of(response, downloaded)
            # A partial file without a valid record is downloaded again.
            if start == 0:
                record = self._record_response(response)
                # The progress on an older version of the file does not count for the new one.
                self._most = self._most if self._restarted else 0
                self._restarted = True
            self._apply(record)
            size = record.get("size")
            self._check_free_space(size, start)
            with self.part.open("ab" if start else "wb") as file, _progress(self.name, size, start) as advance:
                _copy(_chunks(response), file, advance, self._check_first_bytes if start == 0 else None)
        if isinstance(size, int) and self._downloaded_bytes() < size:
            raise InterruptedDownloadError("the connection ended early")

    def _request(self, session: requests.Session, headers: Mapping[str, str]) -> requests.Response:
        """Return the response after all redirects. Raises SetupError if a redirect is invalid."""
        hint = "give the URL of the file itself"
        try:
            return session.get(self._download.url, headers=headers, stream=True, timeout=TIMEOUTS)
        except requests.TooManyRedirects as error:
            raise SetupError(STEP, f"{self._download.host} redirects endlessly", hint=hint) from error
        # URLs that requests, urllib3 or Python cannot parse; the error's text may contain a token.
        except ValueError as error:
            reason = "the URL, or one that it redirects to, is invalid"
            raise SetupError(STEP, reason, hint=hint) from error

    def _start_of(self, response: requests.Response, downloaded: int) -> int:
        """Return the position in the file where the response's body starts.

        Raises InterruptedDownloadError if a retry may help, SetupError otherwise.
        """
        code = response.status_code
        if code == 206:
            match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            if match is not None and _parse_number(match[1]) == downloaded:
                return downloaded
        if code == 200:
            return 0
        if code in (206, 416):
            self._record_path.unlink(missing_ok=True)
            raise InterruptedDownloadError("the file on the server has changed")
        if code in RETRY_STATUSES:
            wait = response.headers.get("Retry-After", "")
            raise InterruptedDownloadError(f"the server answered {code}", _parse_number(wait) or 0.0)
        raise SetupError(STEP, f"{self._download.host} answered {code}", hint=self._hint(code, response.headers))

    def _hint(self, code: int, headers: Mapping[str, str]) -> str | None:
        if self._download.hub and (code in (401, 403) or headers.get("X-Error-Code") == "GatedRepo"):
            return "accept the terms on the model's page, and set HF_TOKEN to a token with read access"
        if code in (401, 403):
            return "the server requires a login; look for a download URL on the model's page"
        return "check the URL" if code in (404, 410) else None

    def _record_response(self, response: requests.Response) -> dict[str, Any]:
        """Record what the server reports of the file, and return the record."""
        headers = response.headers
        etag = headers.get("ETag", "")
        length = headers.get("Content-Length", "")
        plain = headers.get("Content-Encoding", "identity") == "identity"
        record: dict[str, Any] = {
            "validator": headers.get("Last-Modified") if not etag or etag.startswith("W/") else etag,
            "size": _parse_number(length) if plain else None,
            "name": self._download.name or _filename_in(headers.get("Content-Disposition", "")),
            "sha256": _hub_sha256([*response.history, response]) if self._download.hub else None,
        }
        self._record_path.write_text(json.dumps(record), encoding="utf-8")
        return record

    def _read_record(self) -> dict[str, Any]:
        try:
            record = json.loads(self._record_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _apply(self, record: Mapping[str, Any]) -> None:
        """Take over the recorded name and hash. Raises SetupError if the hash is not the expected one."""
        self.name = self.name or record.get("name")
        reported, expected = record.get("sha256"), self._download.sha256
        if expected and reported and reported != expected:
            self.discard()
            raise SetupError(
                STEP,
                f"the file on {self._download.host} has changed: its hash is not the expected one",
                hint="give the file's URL to download it anyway",
            )
        self._sha256 = expected or reported

    def _check_free_space(self, size: object, downloaded: int) -> None:
        if isinstance(size, int):
            check_free_space(self.part.parent, size - downloaded)

    def _check_first_bytes(self, beginning: bytes) -> None:
        """Raise SetupError if the first bytes are not those of a model file."""
        is_html = beginning.lstrip()[:15].lower().startswith((b"<!doctype", b"<html"))
        if is_html or ((self.name or "").lower().endswith(".safetensors") and beginning[8:9] not in (b"{", b"")):
            self.discard()
            raise SetupError(
                STEP,
                f"{self._download.host} sent {'a web page' if is_html else 'another file'}, not a model file",
                hint="use the URL of the download itself; some sites require a login",
            )

    def _downloaded_bytes(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _verify(self) -> None:
        """Verify size and hash of the downloaded file. Raises SetupError."""
        size = self._read_record().get("size") or self._download.size
        if size is not None and self._downloaded_bytes() != size:
            reason = f"it has {self._downloaded_bytes()} bytes instead of {size}"
        elif self._sha256 is not None and hash_file(self.part, "checking") != self._sha256:
            reason = "its sha256 is not the expected one"
        else:
            return
        self.discard()
        raise SetupError(STEP, f"the downloaded file is wrong: {reason}", hint="it was removed; try again")


def lock_path(part: Path) -> Path:
    """Return the lock file of a partial file; its writer holds the lock."""
    return part.with_suffix(".lock")


def remove_unfinished(folder: Path) -> list[Path]:
    """Remove unfinished downloads from `folder`, except those in progress; returns the removed files."""
    removed = []
    for part in folder.glob("*.part"):
        try:
            with FileLock(lock_path(part), timeout=0):
                part.unlink(missing_ok=True)
                part.with_suffix(".json").unlink(missing_ok=True)
        except Timeout:
            continue
        lock_path(part).unlink(missing_ok=True)
        removed.append(part)
    return removed


def hash_file(path: Path, title: str) -> str:
    """Return the file's sha256 in hexadecimal, with a progress bar."""
    digest = hashlib.sha256()
    with path.open("rb") as file, _progress(title, path.stat().st_size, 0) as advance:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


def check_free_space(folder: Path, size: int) -> None:
    """Raise SetupError if `size` more bytes do not fit on the disk of `folder`, with a reserve."""
    free = max(0, shutil.disk_usage(folder).free - RESERVED_BYTES)
    if size > free:
        raise SetupError(
            STEP,
            f"not enough disk space: {size_text(size)} needed, {size_text(free)} available",
            hint=f"free some space in {folder}, or move the data with DREAM_LAYER_DATA_DIR",
        )


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's content, with a progress bar. Raises OSError."""
    size = source.stat().st_size
    with source.open("rb") as read, target.open("wb") as write, _progress(source.name, size, 0) as advance:
        while chunk := read.read(CHUNK):
            write.write(chunk)
            advance(len(chunk))


def _copy(
    chunks: Iterator[bytes], file: BinaryIO, advance: Callable[[int], object], check: Callable[[bytes], None] | None
) -> None:
    for chunk in chunks:
        if check is not None:
            check(chunk[:64])
            check = None
        file.write(chunk)
        advance(len(chunk))


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as it arrives: waiting for a full chunk would lose a part if the connection ends."""
    try:
        while chunk := response.raw.read1(CHUNK, decode_content=False):
            yield chunk
    except urllib3.exceptions.HTTPError as error:
        raise InterruptedDownloadError("the connection ended early") from error


@contextmanager
def _progress(name: str | None, size: object, start: int) -> Iterator[Callable[[int], object]]:
    """Show a progress bar with size, speed and remaining time, on a terminal only."""
    with tqdm(
        total=size if isinstance(size, int) else None,
        initial=start,
        desc=f"  {name or 'downloading'}",
        unit="B",
        unit_scale=True,
        leave=False,
        disable=None,
        dynamic_ncols=True,
    ) as bar:
        yield bar.update


def _parse_number(text: str) -> int | None:
    """Parse a whole number in a header; None if it is not ASCII digits, or has too many."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS else None


def _filename_in(disposition: str) -> str | None:
    """Return the file name in a Content-Disposition header, in either of its two forms."""
    message = email.message.Message()
    message["Content-Disposition"] = disposition or "attachment"
    return message.get_filename()


def _hub_sha256(responses: list[requests.Response]) -> str | None:
    """Return the sha256 in the hub's own response, before its redirect to the file's server."""
    for response in responses:
        etag = response.headers.get("X-Linked-ETag", "").strip('"')
        if HEXADECIMAL_256.fullmatch(etag):
            return etag
    return None
