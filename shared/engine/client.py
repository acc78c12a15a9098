"""ComfyUI's HTTP API, as far as we use it, and the token that it asks for. Stateless and thread-safe.

The launcher makes one at each start of an engine (see `shared.engine.guard`), and leaves it where the services of the
same data folder find it; an engine of others, or a proxy before it, may ask for one of its own.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import urllib3

from shared.errors import (
    DreamLayerError,
    EngineDenied,
    EngineError,
    EngineRejected,
    EngineUnavailable,
    GenerationFailed,
    SetupError,
    StorageFailed,
)
from shared.files import write_atomic
from shared.settings import PREFIX, Settings

# Below the data folder. ComfyUI serves and loads files from other folders of it, never from there.
TOKEN_FILE = Path("run") / "engine.token"
TOKEN_BYTES = 32


class EngineAccess:
    """The header that an engine asks for. Safe to share between threads.

    `token` is one that stays, `file` holds one that changes with each start of the engine. Without both, none is sent.
    """

    def __init__(self, token: str | None = None, file: Path | None = None) -> None:
        self._token = token
        self._file = file

    @property
    def token(self) -> str | None:
        """The token, as it was read last; None while there is none."""
        if self._token is None:
            self._token = self._read()
        return self._token

    def headers(self) -> dict[str, str]:
        """What to send with a request."""
        token = self.token
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    def renew(self, refused: Mapping[str, str]) -> dict[str, str] | None:
        """What to send after the engine refused these headers; None if there is nothing else to try."""
        self._token = self._read() or self._token
        headers = self.headers()
        return None if headers == refused else headers

    @property
    def hint_when_refused(self) -> str:
        """What to do when the engine refuses the token."""
        if self._file is None:
            return (
                f"set {PREFIX}ENGINE_TOKEN, which is sent as Authorization: Bearer. If our launcher started this "
                f"engine, unset {PREFIX}ENGINE_URL and use the launcher's {PREFIX}DATA_DIR"
            )
        return (
            f"use the {PREFIX}DATA_DIR of the launcher that started it, and see that {self._file} can be read; "
            f"for an engine of your own, set {PREFIX}ENGINE_URL"
        )

    def page(self, address: str) -> str:
        """The address at which a browser opens the engine's own page.

        If we started the engine, that address sets a cookie, which holds until the engine is started again.
        """
        token = None if self._file is None else self._read()
        return f"{address}/" if token is None else f"{address}/?token={quote(token)}"

    def _read(self) -> str | None:
        if self._file is None:
            return self._token
        try:
            token = self._file.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
        # What could not stand in a header is not ours.
        return token if token and token.isprintable() else None


def engine_access(settings: Settings) -> EngineAccess:
    """The way into the engine of these settings."""
    if settings.engine_url is not None:
        return EngineAccess(token=settings.engine_token)
    return EngineAccess(file=settings.data_dir.resolve() / TOKEN_FILE)


def create_token(data_dir: Path) -> str:
    """A token for the engine that is about to be started, left for the services. Raises SetupError."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    try:
        write_atomic(data_dir / TOKEN_FILE, f"{token}\n".encode(), "the engine's token")
    except StorageFailed as error:
        raise SetupError("engine", error.message, hint=error.hint) from error
    return token


LOG_HINT = "data/logs/engine.log has the details"
FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def explain_node_failure(failure: Mapping[str, Any]) -> DreamLayerError:
    """The error for the data of an `execution_error` message.

    Names the node and, of the exception, its class or the operating system's reason: its text may hold paths.
    """
    failed, node = f"{failure.get('node_type')} failed", str(failure.get("node_id"))
    kind, text = str(failure.get("exception_type")), str(failure.get("exception_message"))
    if "OutOfMemory" in kind or "out of memory" in text.lower():
        hint = "a smaller size or batch_size needs less"
        return GenerationFailed(f"{failed}: the engine ran out of memory", hint=hint, node=node)
    number = re.search(r"\[Errno (\d+)\]", text)
    if number is not None:
        full = int(number[1]) in FULL
        hint = "the engine's disk is full" if full else "may the engine read and write there?"
        return StorageFailed(f"{failed}: {os.strerror(int(number[1]))}", hint=hint, node=node)
    return GenerationFailed(f"{failed}: {kind}", hint=LOG_HINT, node=node)


CONNECT_TIMEOUT = 5.0
# ComfyUI answers from its event loop in milliseconds, but encoding a huge picture can hold that loop for seconds.
READ_TIMEOUT = 60.0
# Who cancels a job has been told so already, and need not wait for a busy engine; it is asked again.
CANCEL_TIMEOUT = 5.0


@dataclass(frozen=True)
class SavedImage:
    """A picture that a job saved: its place in the engine's folders."""

    filename: str
    subfolder: str
    type: str


@dataclass(frozen=True)
class Outcome:
    """How a job ended. `started` and `finished` are the engine's clock, in seconds since 1970."""

    images: tuple[SavedImage, ...]
    error: DreamLayerError | None
    started: float | None
    finished: float | None


class EngineClient:
    """One engine at one address, which `access` opens.

    Every method raises EngineUnavailable if the engine does not answer, EngineDenied if it refuses our token, and
    EngineError if it answers nonsense.
    """

    def __init__(self, address: str, access: EngineAccess | None = None) -> None:
        self.address = address
        self.access = access or EngineAccess()
        # What requests is made of, without the millisecond that requests adds to each call: a job waits for several.
        # And it heeds no proxy settings, which are meant for the internet.
        self._pool = urllib3.connection_from_url(address, maxsize=128)
        self._base = urlsplit(address).path.rstrip("/")

    def system_stats(self, timeout: float = READ_TIMEOUT) -> dict[str, Any]:
        """Version, devices and memory. `timeout` is in seconds."""
        return self._get_object("/system_stats", timeout=timeout)

    def models(self, folder: str) -> list[str]:
        """File names in a model folder such as `checkpoints`; new files show at once. Empty for a folder that the
        engine does not know."""
        response = self._request("GET", f"/models/{folder}")
        if response.status == 404:
            return []
        names = _decoded(response, f"GET /models/{folder}")
        if not isinstance(names, list):
            raise EngineError(f"the engine answered GET /models/{folder} with something else than a list")
        return [str(name) for name in names]

    def model_folders(self) -> dict[str, list[str]]:
        """The paths on the engine's machine in which it looks for each kind of files, the user's own among them."""
        entries = self._json("GET", "/experiment/models")
        try:
            return {str(entry["name"]): [str(path) for path in entry["folders"]] for entry in entries}
        except (TypeError, LookupError) as error:
            raise EngineError("the engine answered GET /experiment/models with something of another form") from error

    def node_schema(self, class_type: str) -> dict[str, Any] | None:
        """What /object_info says of a node class, or None when the engine has no such class."""
        schema = self._get_object(f"/object_info/{quote(class_type, safe='')}").get(class_type)
        return schema if isinstance(schema, dict) else None

    def upload(self, name: str, png: bytes, folder: str) -> None:
        """Puts a picture into the input folder under `name`, which must stand for its content (a hash).

        The engine keeps a file that has the name and the bytes already. Other bytes under that name can only be what a
        full disk left behind; then the engine picks another name, and the file is written anew.
        """
        for overwrite in ("false", "true"):
            answer = self._json(
                "POST",
                "/upload/image",
                fields={
                    "image": (name, png, "image/png"),
                    "type": "input",
                    "subfolder": folder,
                    "overwrite": overwrite,
                },
            )
            if isinstance(answer, dict) and answer.get("name") == name:
                return
        raise EngineError("the engine did not keep an uploaded picture under its name")

    def submit(
        self,
        job_id: str,
        graph: dict[str, Any],
        client_id: str,
        number: float,
        extra_data: dict[str, Any] | None = None,
    ) -> None:
        """Queues `graph` under `job_id` (a canonical UUID). Raises EngineRejected if any part of it is refused.

        Lower numbers run first. `extra_data` goes to the engine as it is, such as the kind of previews.

        ComfyUI queues what is left of a graph when some of its outputs are bad, and says so only in `node_errors`:
        that counts as refused too, and is cancelled.
        """
        body = {"prompt": graph, "prompt_id": job_id, "client_id": client_id, "number": number}
        if extra_data:
            body["extra_data"] = extra_data
        response = self._request("POST", "/prompt", json=body)
        if response.status == 200:
            problems = _problems(_object(response))
            if problems:
                self.cancel(job_id)
                raise EngineRejected("the engine refused a part of the graph", problems=problems)
            return
        if response.status == 400:
            raise EngineRejected("the engine refused the graph", problems=_problems(_object(response)))
        raise EngineError(f"the engine answered POST /prompt with status {response.status}")

    def outcome(self, job_id: str) -> Outcome | None:
        """How the job ended, from the engine's history; None while it has not, or if the engine never knew it."""
        entry = self._get_object(f"/history/{job_id}").get(job_id)
        return _outcome(entry) if isinstance(entry, dict) else None

    def queue(self, timeout: float = READ_TIMEOUT) -> tuple[frozenset[str], frozenset[str]]:
        """Ids of the jobs that run, and of those that wait. `timeout` is in seconds."""
        queue = self._get_object("/queue", timeout=timeout)
        running, pending = (
            frozenset(str(entry[1]) for entry in queue.get(f"queue_{part}", [])) for part in ("running", "pending")
        )
        return running, pending

    def forget(self, job_ids: Sequence[str]) -> None:
        """Drops finished jobs from the engine's history, which is held in memory."""
        self._request("POST", "/history", json={"delete": list(job_ids)})

    def cancel(self, job_id: str) -> None:
        """Cancels this job, queued or running, and no other."""
        self._request("POST", f"/api/jobs/{job_id}/cancel", timeout=CANCEL_TIMEOUT)

    def free(self) -> None:
        """Has models and cached results dropped from memory, as soon as no job runs."""
        response = self._request("POST", "/free", json={"free_memory": True})
        if response.status != 200:
            raise EngineError(f"the engine answered POST /free with status {response.status}")

    def view(self, image: SavedImage) -> bytes | None:
        """The picture's file as the engine saved it, or None when there is no such file."""
        response = self._request(
            "GET",
            "/view",
            fields={"filename": image.filename, "subfolder": image.subfolder, "type": image.type},
        )
        return response.data if response.status == 200 else None

    def _request(
        self, method: str, path: str, *, timeout: float = READ_TIMEOUT, **options: Any
    ) -> urllib3.BaseHTTPResponse:
        options["timeout"] = urllib3.Timeout(connect=CONNECT_TIMEOUT, read=timeout)
        headers = self.access.headers()
        response = self._send(method, path, headers, options)
        if response.status == 401 and (renew := self.access.renew(headers)) is not None:
            # The engine was started again, and has another token now.
            response = self._send(method, path, renew, options)
        if response.status in (401, 403):
            raise EngineDenied(
                f"the engine at {self.address} refused our token, or needs one (status {response.status})",
                hint=self.access.hint_when_refused,
                retry_after=5,
            )
        if 300 <= response.status < 400:
            # Not followed: what we send is meant for this engine alone.
            raise EngineError(
                f"the engine at {self.address} answered {method} {path} with a redirection to "
                f"{_site(response.headers.get('Location', ''))}",
                hint=f"set DREAM_LAYER_ENGINE_URL to where it really is. {self.access.hint_when_refused}",
            )
        return response

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], options: Mapping[str, Any]
    ) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request(method, self._base + path, headers=headers, retries=False, **options)
        except urllib3.exceptions.HTTPError as error:
            unavailable = EngineUnavailable(
                f"the engine does not answer at {self.address}",
                hint="it may still be starting; python dream_layer.py starts it, data/logs/engine.log says more",
                retry_after=5,
            )
            unavailable.reached = not isinstance(
                error, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
            )
            raise unavailable from error

    def _json(self, method: str, path: str, **options: Any) -> Any:
        return _decoded(self._request(method, path, **options), f"{method} {path}")

    def _get_object(self, path: str, *, timeout: float = READ_TIMEOUT) -> dict[str, Any]:
        answer = self._json("GET", path, timeout=timeout)
        if not isinstance(answer, dict):
            raise EngineError(f"the engine answered GET {path} with something else than an object")
        return answer


def _site(location: str) -> str:
    """The server that an address names, without what may be secret in the rest."""
    parts = urlsplit(location)
    return f"{parts.scheme}://{parts.hostname}" if parts.hostname else "another path"


def _decoded(response: urllib3.BaseHTTPResponse, asked: str) -> Any:
    """The JSON of an answer. Raises EngineError that says what was asked."""
    if response.status >= 400:
        raise EngineError(f"the engine answered {asked} with status {response.status}")
    try:
        return response.json()
    except ValueError as error:
        raise EngineError(f"the engine answered {asked} with something else than JSON") from error


def _object(response: urllib3.BaseHTTPResponse) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _problems(answer: dict[str, Any]) -> list[dict[str, str]]:
    """What ComfyUI objects to, in short: tracebacks and paths of its own machine are left out."""
    problems = [
        {
            "node": str(node_id),
            "type": str(error.get("type", "")),
            "message": str(error.get("message", "")),
            "input": str((error.get("extra_info") or {}).get("input_name", "")),
        }
        for node_id, node in (answer.get("node_errors") or {}).items()
        for error in node.get("errors", [])
    ]
    error = answer.get("error")
    if not problems and isinstance(error, dict):
        problems = [{"type": str(error.get("type", "")), "message": str(error.get("message", ""))}]
    return problems


def _outcome(entry: dict[str, Any]) -> Outcome:
    status = entry.get("status") or {}
    messages = dict(status.get("messages", []))
    images = [
        SavedImage(image["filename"], image.get("subfolder", ""), image.get("type", "output"))
        for output in (entry.get("outputs") or {}).values()
        for image in output.get("images") or []
    ]
    # Nodes that save are run in any order; the names that we give them have one.
    images.sort(key=lambda image: image.filename)
    error: DreamLayerError | None = None
    if "execution_error" in messages:
        error = explain_node_failure(messages["execution_error"])
    elif "execution_interrupted" in messages:
        error = GenerationFailed("the job was interrupted in the engine", hint="send the request again")
    elif status.get("status_str") != "success":
        error = GenerationFailed("the engine ended the job without success", hint=LOG_HINT)
    finished = [body["timestamp"] for body in messages.values() if isinstance(body, dict) and "timestamp" in body]
    started = (messages.get("execution_start") or {}).get("timestamp")
    return Outcome(
        images=tuple(images),
        error=error,
        started=started / 1000 if started else None,
        finished=max(finished) / 1000 if finished else None,
    )
