"""A websocket to the engine that says what happens to jobs. A hint only: the engine's history is the truth."""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable, Mapping

import websocket

from shared.engine.access import EngineAccess
from shared.engine.events import Connection, EngineEvent, parse_frame

log = logging.getLogger(__name__)

# Seconds. A job that is sent while the engine is not heard yet is drawn without a word about its progress.
RECONNECT_DELAY = 0.2
# The first message on a connection: previews then name their job.
FEATURES = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})


class Listener:
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
                    self._access.renewed(headers)
                self._stopping.wait(RECONNECT_DELAY)
                continue
            self._client_id, self._socket = client_id, socket
            if self._stopping.is_set():
                socket.close()
                return
            self._connected.set()
            self._sink(Connection(connected=True))
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
                self._sink(Connection(connected=False))

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
