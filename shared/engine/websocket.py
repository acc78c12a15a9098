"""The engine's websocket: its frames as typed events. Events are hints only; the engine's history is authoritative."""

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

log = logging.getLogger(__name__)

# The type of a binary frame that holds a preview together with its job id.
PREVIEW_WITH_METADATA = 4
# Seconds. A job that is submitted without a connection runs without progress events.
RECONNECT_DELAY = 0.2
# The first message on a connection. It makes ComfyUI add the job id to previews.
FEATURES = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})


@dataclass(frozen=True)
class ConnectionChanged:
    """The websocket was connected or lost. Jobs may have ended in between, without an event."""

    connected: bool


@dataclass(frozen=True)
class JobStarted:
    """The engine started a job."""

    job_id: str


@dataclass(frozen=True)
class JobCached:
    """The engine has cached results of these nodes of a job and skips them."""

    job_id: str
    nodes: frozenset[str]


@dataclass(frozen=True)
class JobProgress:
    """A job runs `node` (its name in the graph), at `step` of `steps`; both are 0 for a node without steps."""

    job_id: str
    node: str
    step: int = 0
    steps: int = 0


@dataclass(frozen=True)
class Preview:
    """A preview of an unfinished picture, as an encoded file."""

    job_id: str
    picture: bytes


@dataclass(frozen=True)
class ImagesSaved:
    """A node of a job saved pictures."""

    job_id: str
    images: tuple[SavedImage, ...]


@dataclass(frozen=True)
class JobEnded:
    """The engine finished a job, with or without success. Its history entry exists."""

    job_id: str


JobEvent = JobStarted | JobCached | JobProgress | Preview | ImagesSaved | JobEnded
EngineEvent = ConnectionChanged | JobEvent


def parse_frame(frame: str | bytes) -> JobEvent | None:
    """Return the event in `frame`, or None for frames that we do not use.

    The history entry of a job is complete only after the message `executing` with node null. That message also follows
    errors and interruptions.
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


class EventListener:
    """Passes the events of jobs that were submitted with its `client_id` to `sink`, from its own daemon thread."""

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
        """The id to submit jobs with. It changes with each connection.

        A dead socket may still hold the old id. When ComfyUI closes that socket, a newer one with the same id receives
        nothing more.
        """
        return self._client_id

    @property
    def connected(self) -> bool:
        """Whether events arrive. If not, progress is found only by polling the engine."""
        return self._connected.is_set()

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._listen, name="engine-listener", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and close the connection."""
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
                # After 15 s without a frame, `_read` sends a ping: that detects a broken connection.
                socket.settimeout(15)
                self._read(socket)
            except (OSError, websocket.WebSocketException) as error:
                if not self._stopping.is_set():
                    log.info("lost the connection to the engine (%s), reconnecting", error)
            finally:
                self._connected.clear()
                socket.close()
                self._sink(ConnectionChanged(connected=False))

    def _connect(self, client_id: str, headers: Mapping[str, str]) -> websocket.WebSocket:
        socket = websocket.create_connection(
            f"{self._url}?clientId={client_id}",
            timeout=5,
            header=dict(headers),
            # The token is meant for this address only.
            redirect_limit=0,
            http_no_proxy=["*"],
            # The library checks each byte in Python, which took most of this process's time with short jobs.
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
