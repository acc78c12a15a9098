"""ComfyUI's HTTP API, as far as we use it, and the token that it requires. Stateless and thread-safe.

The launcher creates a new token at each start of the engine (see `shared.engine.request_guard`) and stores it in a file
for the services. An engine that others run, or a proxy in front of it, may require a token of its own.
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

# Below the data folder. ComfyUI loads and serves files from other folders of it, never from this one.
TOKEN_FILE = Path("run") / "engine.token"
TOKEN_BYTES = 32
# Seconds. ComfyUI answers from its event loop in milliseconds, but encoding a huge picture can block it for seconds.
CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 60.0
# Shorter: the client already has its reply, and a cancellation that fails is repeated.
CANCEL_TIMEOUT = 5.0
LOG_HINT = "data/logs/engine.log has the details"
# Error numbers of a full disk, a file size limit, or a used-up quota.
FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


class EngineAccess:
    """The authorization header for an engine. Thread-safe.

    `token` is a fixed token; `file` holds one that changes with each start of the engine. Without both, none is sent.
    """

    def __init__(self, token: str | None = None, file: Path | None = None) -> None:
        self._token = token
        self._file = file

    @property
    def token(self) -> str | None:
        """The token that was read last; None if there is none yet."""
        if self._token is None:
            self._token = self._read()
        return self._token

    def headers(self) -> dict[str, str]:
        """Return the headers to send with a request."""
        token = self.token
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    def renew(self, refused: Mapping[str, str]) -> dict[str, str] | None:
        """Read the token again after the engine refused these headers; return new ones, or None if nothing changed."""
        self._token = self._read() or self._token
        headers = self.headers()
        return None if headers == refused else headers

    @property
    def refusal_hint(self) -> str:
        """What to do when the engine refuses the token."""
        if self._file is None:
            return (
                f"set {PREFIX}ENGINE_TOKEN, which is sent as Authorization: Bearer. If our launcher started this "
                f"engine, unset {PREFIX}ENGINE_URL and use the launcher's {PREFIX}DATA_DIR"
            )
        return (
            f"use the {PREFIX}DATA_DIR of the launcher that started the engine, and check that {self._file} is "
            f"readable; for an engine of your own, set {PREFIX}ENGINE_URL"
        )

    def page_url(self, address: str) -> str:
        """Return the address at which a browser opens the engine's own page.

        If we started the engine, that address sets a cookie, which is valid until the engine restarts.
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
        # A value that is not valid in a header was not written by us.
        return token if token and token.isprintable() else None


def engine_access(settings: Settings) -> EngineAccess:
    """Return the access to the engine of these settings."""
    if settings.engine_url is not None:
        return EngineAccess(token=settings.engine_token)
    return EngineAccess(file=settings.data_dir.resolve() / TOKEN_FILE)


def create_token(data_dir: Path) -> str:
    """Create a token for the engine that is about to start, and store it for the services. Raises SetupError."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    try:
        write_atomic(data_dir / TOKEN_FILE, f"{token}\n".encode(), "the engine's token")
    except StorageFailed as error:
        raise SetupError("engine", error.message, hint=error.hint) from error
    return token


@dataclass(frozen=True)
class SavedImage:
    """The location of a saved picture in the engine's folders."""

    filename: str
    subfolder: str
    type: str


@dataclass(frozen=True)
class Outcome:
    """The result of a job. `started` and `finished` are seconds since 1970 on the engine's clock."""

    images: tuple[SavedImage, ...]
    error: DreamLayerError | None
    started: float | None
    finished: float | None


class EngineClient:
    """A client of the engine at `address`.

    Every method raises EngineUnavailable if the engine does not answer, EngineDenied if it refuses our token, and
    EngineError if its answer has an unexpected form.
    """

    def __init__(self, address: str, access: EngineAccess | None = None) -> None:
        self.address = address
        self.access = access or EngineAccess()
        # urllib3 saves the millisecond that requests adds to each call: a job waits for several calls. And it ignores
        # proxy settings, which are meant for the internet.
        self._pool = urllib3.connection_from_url(address, maxsize=128)
        self._base = urlsplit(address).path.rstrip("/")

    def get_system_stats(self, timeout: float = READ_TIMEOUT) -> dict[str, Any]:
        """Return version, devices and memory. `timeout` is in seconds."""
        return self._get_object("/system_stats", timeout=timeout)

    def list_models(self, folder: str) -> list[str]:
        """Return the file names in a model folder such as `checkpoints`, new files included; empty if it is unknown."""
        response = self._request("GET", f"/models/{folder}")
        if response.status == 404:
            return []
        names = _parse_json(response, f"GET /models/{folder}")
        if not isinstance(names, list):
            raise EngineError(f"the engine answered GET /models/{folder} with something other than a list")
        return [str(name) for name in names]

    def list_model_folders(self) -> dict[str, list[str]]:
        """Return the paths that the engine searches for each kind of model, on the engine's machine."""
        entries = self._request_json("GET", "/experiment/models")
        try:
            return {str(entry["name"]): [str(path) for path in entry["folders"]] for entry in entries}
        except (TypeError, LookupError) as error:
            raise EngineError("the engine answered GET /experiment/models in an unexpected form") from error

    def get_node_schema(self, class_type: str) -> dict[str, Any] | None:
        """Return what /object_info says of a node class; None if the engine has no such class."""
        schema = self._get_object(f"/object_info/{quote(class_type, safe='')}").get(class_type)
        return schema if isinstance(schema, dict) else None

    def upload(self, name: str, png: bytes, folder: str) -> None:
        """Store a picture in the input folder under `name`, which must identify its content (a hash).

        The engine keeps an existing file with the same name and bytes. A file with that name and other bytes is a
        partial one from a full disk; the engine then chooses another name, and the second request overwrites the file.
        """
        for overwrite in ("false", "true"):
            reply = self._request_json(
                "POST",
                "/upload/image",
                fields={
                    "image": (name, png, "image/png"),
                    "type": "input",
                    "subfolder": folder,
                    "overwrite": overwrite,
                },
            )
            if isinstance(reply, dict) and reply.get("name") == name:
                return
        raise EngineError("the engine did not store an uploaded picture under its name")

    def submit(
        self,
        job_id: str,
        graph: dict[str, Any],
        client_id: str,
        number: float,
        extra_data: dict[str, Any] | None = None,
    ) -> None:
        """Queue `graph` under `job_id`, a canonical UUID. Raises EngineRejected if the engine refuses any part of it.

        Lower numbers run first. `extra_data`, such as the kind of previews, is passed to the engine unchanged.

        If some outputs of a graph are invalid, ComfyUI queues the rest and reports the problem only in `node_errors`.
        That counts as refused, too: the job is cancelled.
        """
        body = {"prompt": graph, "prompt_id": job_id, "client_id": client_id, "number": number}
        if extra_data:
            body["extra_data"] = extra_data
        response = self._request("POST", "/prompt", json=body)
        if response.status == 200:
            problems = _problems(_parse_object(response))
            if problems:
                self.cancel(job_id)
                raise EngineRejected("the engine refused a part of the graph", problems=problems)
            return
        if response.status == 400:
            raise EngineRejected("the engine refused the graph", problems=_problems(_parse_object(response)))
        raise EngineError(f"the engine answered POST /prompt with status {response.status}")

    def get_outcome(self, job_id: str) -> Outcome | None:
        """Return the job's result from the engine's history; None if the job is unfinished or unknown."""
        entry = self._get_object(f"/history/{job_id}").get(job_id)
        return _outcome(entry) if isinstance(entry, dict) else None

    def get_queue(self, timeout: float = READ_TIMEOUT) -> tuple[frozenset[str], frozenset[str]]:
        """Return the ids of running jobs, and of pending ones. `timeout` is in seconds."""
        queue = self._get_object("/queue", timeout=timeout)
        running, pending = (
            frozenset(str(entry[1]) for entry in queue.get(f"queue_{part}", [])) for part in ("running", "pending")
        )
        return running, pending

    def delete_history(self, job_ids: Sequence[str]) -> None:
        """Delete finished jobs from the engine's history, which takes memory."""
        self._request("POST", "/history", json={"delete": list(job_ids)})

    def cancel(self, job_id: str) -> None:
        """Cancel this job, pending or running, and no other."""
        self._request("POST", f"/api/jobs/{job_id}/cancel", timeout=CANCEL_TIMEOUT)

    def free_memory(self) -> None:
        """Let the engine drop models and cached results from memory, as soon as no job runs."""
        response = self._request("POST", "/free", json={"free_memory": True})
        if response.status != 200:
            raise EngineError(f"the engine answered POST /free with status {response.status}")

    def download_image(self, image: SavedImage) -> bytes | None:
        """Return the file of a saved picture; None if it does not exist."""
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
        if response.status == 401 and (renewed := self.access.renew(headers)) is not None:
            # The engine has restarted and has a new token.
            response = self._send(method, path, renewed, options)
        if response.status in (401, 403):
            raise EngineDenied(
                f"the engine at {self.address} refused our token or requires one (status {response.status})",
                hint=self.access.refusal_hint,
                retry_after=5,
            )
        if 300 <= response.status < 400:
            # Not followed: the token and the graph are meant for this engine only.
            raise EngineError(
                f"the engine at {self.address} answered {method} {path} with a redirection to "
                f"{_host_of(response.headers.get('Location', ''))}",
                hint=f"set DREAM_LAYER_ENGINE_URL to the final address. {self.access.refusal_hint}",
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
                hint="it may still be starting; python dream_layer.py starts it, and data/logs/engine.log has details",
                retry_after=5,
            )
            unavailable.reached = not isinstance(
                error, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
            )
            raise unavailable from error

    def _request_json(self, method: str, path: str, **options: Any) -> Any:
        return _parse_json(self._request(method, path, **options), f"{method} {path}")

    def _get_object(self, path: str, *, timeout: float = READ_TIMEOUT) -> dict[str, Any]:
        reply = self._request_json("GET", path, timeout=timeout)
        if not isinstance(reply, dict):
            raise EngineError(f"the engine answered GET {path} with something other than an object")
        return reply


def explain_node_failure(failure: Mapping[str, Any]) -> DreamLayerError:
    """Return the error for the data of an `execution_error` message.

    It names the node and the exception's class or the operating system's reason. The exception's text is left out,
    because it may contain paths.
    """
    failed, node = f"{failure.get('node_type')} failed", str(failure.get("node_id"))
    exception, text = str(failure.get("exception_type")), str(failure.get("exception_message"))
    if "OutOfMemory" in exception or "out of memory" in text.lower():
        hint = "use a smaller size or batch_size"
        return GenerationFailed(f"{failed}: the engine ran out of memory", hint=hint, node=node)
    number = re.search(r"\[Errno (\d+)\]", text)
    if number is not None:
        is_full = int(number[1]) in FULL
        hint = (
            "the engine's disk is full: free some space on it"
            if is_full
            else "check that the engine can read and write its folders"
        )
        return StorageFailed(f"{failed}: {os.strerror(int(number[1]))}", hint=hint, node=node)
    return GenerationFailed(f"{failed}: {exception}", hint=LOG_HINT, node=node)


def _host_of(location: str) -> str:
    """Return scheme and host of an address; the rest may be secret."""
    parts = urlsplit(location)
    return f"{parts.scheme}://{parts.hostname}" if parts.hostname else "another path"


def _parse_json(response: urllib3.BaseHTTPResponse, request: str) -> Any:
    """Parse the JSON of a response. Raises EngineError that names the request, such as `GET /queue`."""
    if response.status >= 400:
        raise EngineError(f"the engine answered {request} with status {response.status}")
    try:
        return response.json()
    except ValueError as error:
        raise EngineError(f"the engine answered {request} with something other than JSON") from error


def _parse_object(response: urllib3.BaseHTTPResponse) -> dict[str, Any]:
    """Parse the JSON object of a response; empty if it is something else."""
    try:
        reply = response.json()
    except ValueError:
        return {}
    return reply if isinstance(reply, dict) else {}


def _problems(reply: dict[str, Any]) -> list[dict[str, str]]:
    """List ComfyUI's reasons for refusing a graph, without tracebacks and paths of its machine."""
    problems = [
        {
            "node": str(node_id),
            "type": str(error.get("type", "")),
            "message": str(error.get("message", "")),
            "input": str((error.get("extra_info") or {}).get("input_name", "")),
        }
        for node_id, node in (reply.get("node_errors") or {}).items()
        for error in node.get("errors", [])
    ]
    error = reply.get("error")
    if not problems and isinstance(error, dict):
        problems = [{"type": str(error.get("type", "")), "message": str(error.get("message", ""))}]
    return problems


def _outcome(entry: dict[str, Any]) -> Outcome:
    """Read an entry of ComfyUI's history."""
    status = entry.get("status") or {}
    messages = dict(status.get("messages", []))
    images = [
        SavedImage(image["filename"], image.get("subfolder", ""), image.get("type", "output"))
        for output in (entry.get("outputs") or {}).values()
        for image in output.get("images") or []
    ]
    # The order in which save nodes run is undefined; our file names are ordered.
    images.sort(key=lambda image: image.filename)
    error: DreamLayerError | None = None
    if "execution_error" in messages:
        error = explain_node_failure(messages["execution_error"])
    elif "execution_interrupted" in messages:
        error = GenerationFailed("the job was interrupted in the engine", hint="send the request again")
    elif status.get("status_str") != "success":
        error = GenerationFailed("the job ended in the engine without success", hint=LOG_HINT)
    finished = [body["timestamp"] for body in messages.values() if isinstance(body, dict) and "timestamp" in body]
    started = (messages.get("execution_start") or {}).get("timestamp")
    return Outcome(
        images=tuple(images),
        error=error,
        started=started / 1000 if started else None,
        finished=max(finished) / 1000 if finished else None,
    )
