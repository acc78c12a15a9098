"""The engine's websocket: its frames as typed events. They are a hint only; the engine's history is the truth."""

from __future__ import annotations

import json
import logging
import struct
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import websocket

from shared.engine.client import EngineAccess, SavedImage

# The kind of a binary frame that holds a preview, and says of which job.
PREVIEW_WITH_METADATA = 4


@dataclass(frozen=True)
class ConnectionChanged:
    """The websocket was connected or lost: jobs may have ended unheard."""

    connected: bool


@dataclass(frozen=True)
class JobStarted:
    """The engine began with a job."""

    job_id: str


@dataclass(frozen=True)
class JobCached:
    """The engine has what these nodes of a job return from an earlier one, and runs them not."""

    job_id: str
    nodes: frozenset[str]


@dataclass(frozen=True)
class JobProgress:
    """A job is in `node` (its name in the graph), at `step` of `steps`; both are 0 for a node without steps."""

    job_id: str
    node: str
    step: int = 0
    steps: int = 0


@dataclass(frozen=True)
class Preview:
    """A picture of how far a job has come, as an encoded file."""

    job_id: str
    picture: bytes


@dataclass(frozen=True)
class ImagesSaved:
    """A node of a job saved pictures."""

    job_id: str
    images: tuple[SavedImage, ...]


@dataclass(frozen=True)
class JobEnded:
    """The engine is done with a job, well or badly. Its history entry is written by now."""

    job_id: str


JobEvent = JobStarted | JobCached | JobProgress | Preview | ImagesSaved | JobEnded
EngineEvent = ConnectionChanged | JobEvent


def parse_frame(frame: str | bytes) -> JobEvent | None:
    """The event in `frame`, or None for anything that we do not follow.

    The one message after which the history is sure to be written is `executing` with node null; it comes after errors
    and interruptions too.
    """
    try:
        return _parse_binary(frame) if isinstance(frame, bytes) else _parse_text(json.loads(frame))
    except (ValueError, KeyError, TypeError, struct.error, AttributeError):
        return None


def _parse_text(message: dict[str, Any]) -> JobEvent | None:
    data, kind = message["data"], message["type"]
    if kind not in ("execution_start", "execution_cached", "progress", "executing", "executed"):
        return None
    job_id = str(data["prompt_id"])
    if kind == "execution_start":
        return JobStarted(job_id)
    if kind == "execution_cached":
        return JobCached(job_id, frozenset(map(str, data["nodes"])))
    if kind == "progress":
        return JobProgress(job_id, str(data["node"]), int(data["value"]), int(data["max"]))
    if kind == "executing":
        return JobEnded(job_id) if data["node"] is None else JobProgress(job_id, str(data["node"]))
    images = tuple(
        SavedImage(str(image["filename"]), str(image.get("subfolder", "")), str(image["type"]))
        for image in (data["output"] or {}).get("images") or ()
        if image.get("type") == "output"
    )
    return ImagesSaved(job_id, images) if images else None


def _parse_binary(frame: bytes) -> JobEvent | None:
    kind, length = struct.unpack_from(">II", frame)
    if kind != PREVIEW_WITH_METADATA:
        return None
    about = json.loads(frame[8 : 8 + length])
    return Preview(str(about["prompt_id"]), frame[8 + length :])


log = logging.getLogger(__name__)

# Seconds. A job that is sent while the engine is not heard yet is drawn without a word about its progress.
RECONNECT_DELAY = 0.2
# The first message on a connection: previews then name their job.
FEATURES = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})


class EventListener:
    """Hands the events of jobs that were submitted with its `client_id` to `sink`, from a daemon thread of its own."""

    def __init__(self, address: str, sink: Callable[[EngineEvent], None], access: EngineAccess | None = None) -> None:
        self._url = address.replace("http", "ws", 1) + "/ws"
        self._sink = sink
        self._access = access or EngineAccess()
        self._client_id = str(uuid.uuid4())
        self._connected = threading.Event()
        self._stopping = threading.Event()
        self._socket: websocket.WebSocket | None = None
        self._thread: threading.Thread | None = None

    @property
    def client_id(self) -> str:
        """The id to submit jobs with. It changes with each connection: an old one may still be held by a dead socket,
        and when ComfyUI closes that, a newer socket of the same id goes deaf."""
        return self._client_id

    @property
    def connected(self) -> bool:
        """Whether events arrive at the moment; if not, waiting means asking often."""
        return self._connected.is_set()

    def start(self) -> None:
        """Starts listening."""
        self._thread = threading.Thread(target=self._listen, name="engine-listener", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stops listening."""
        self._stopping.set()
        if self._socket is not None:
            self._socket.close()

    def _listen(self) -> None:
        while not self._stopping.is_set():
            client_id, headers = str(uuid.uuid4()), self._access.headers()
            try:
                socket = self._connect(client_id, headers)
            except (OSError, websocket.WebSocketException) as error:
                if isinstance(error, websocket.WebSocketBadStatusException) and error.status_code == 401:
                    self._access.renew(headers)
                self._stopping.wait(RECONNECT_DELAY)
                continue
            self._client_id, self._socket = client_id, socket
            if self._stopping.is_set():
                socket.close()
                return
            self._connected.set()
            self._sink(ConnectionChanged(connected=True))
            try:
                # A websocket ping each 15 s finds a connection that died without a word.
                socket.settimeout(15)
                self._read(socket)
            except (OSError, websocket.WebSocketException) as error:
                if not self._stopping.is_set():
                    log.info("connection to the engine lost (%s), reconnecting", error)
            finally:
                self._connected.clear()
                socket.close()
                self._sink(ConnectionChanged(connected=False))

    def _connect(self, client_id: str, headers: Mapping[str, str]) -> websocket.WebSocket:
        socket = websocket.create_connection(
            f"{self._url}?clientId={client_id}",
            timeout=5,
            header=dict(headers),
            # The token is meant for this address alone.
            redirect_limit=0,
            http_no_proxy=["*"],
            # It checks each byte in Python, which took most of this process's time with short jobs.
            skip_utf8_validation=True,
        )
        socket.send(FEATURES)
        return socket

    def _read(self, socket: websocket.WebSocket) -> None:
        silent = 0
        while silent < 2:
            try:
                opcode, data = socket.recv_data(control_frame=True)
            except websocket.WebSocketTimeoutException:
                silent += 1
                socket.ping()
                continue
            silent = 0
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return
            event = None
            if opcode == websocket.ABNF.OPCODE_TEXT:
                event = parse_frame(data.decode("utf-8", "replace"))
            elif opcode == websocket.ABNF.OPCODE_BINARY:
                event = parse_frame(data)
            if event is not None:
                self._sink(event)
