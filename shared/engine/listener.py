"""A websocket to the engine that wakes those who wait for a job. A hint only: the engine's history is the truth."""

import contextlib
import logging
import threading
import uuid
from collections.abc import Iterator

import websocket

from shared.engine.events import parse_frame

log = logging.getLogger(__name__)

RECONNECT_DELAY = 1.0


class Listener:
    """Follows the jobs that were submitted with its `client_id`, in one daemon thread, started on first use."""

    def __init__(self, address: str) -> None:
        self._url = address.replace("http", "ws", 1) + "/ws"
        self._client_id = str(uuid.uuid4())
        self._connected = threading.Event()
        self._lock = threading.Lock()
        self._waiting: dict[str, threading.Event] = {}
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

    @contextlib.contextmanager
    def follow(self, job_id: str) -> Iterator[threading.Event]:
        """An event that is set when the job may have ended, or when the connection was lost or made anew.

        Enter before the job is submitted, or its end may be missed.
        """
        wake = threading.Event()
        with self._lock:
            self._waiting[job_id] = wake
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="engine-listener", daemon=True)
                self._thread.start()
        # A moment's wait for the first connection spares the first job a slow poll.
        self._connected.wait(timeout=0.5)
        try:
            yield wake
        finally:
            with self._lock:
                del self._waiting[job_id]

    def _listen(self) -> None:
        pause = threading.Event()
        while True:
            client_id = str(uuid.uuid4())
            try:
                socket = websocket.create_connection(
                    f"{self._url}?clientId={client_id}", timeout=5, http_no_proxy=["*"]
                )
            except (OSError, websocket.WebSocketException):
                pause.wait(RECONNECT_DELAY)
                continue
            self._client_id = client_id
            self._connected.set()
            try:
                # A websocket ping each 15 s finds a connection that died without a word.
                socket.settimeout(15)
                self._read(socket)
            except (OSError, websocket.WebSocketException) as error:
                log.info("connection to the engine lost (%s), reconnecting", error)
            finally:
                self._connected.clear()
                socket.close()
                self._wake_all()

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
            if opcode == websocket.ABNF.OPCODE_TEXT:
                event = parse_frame(data.decode("utf-8", "replace"))
                if event is not None:
                    self._wake(event.job_id)

    def _wake(self, job_id: str) -> None:
        with self._lock:
            wake = self._waiting.get(job_id)
        if wake is not None:
            wake.set()

    def _wake_all(self) -> None:
        with self._lock:
            waiting = list(self._waiting.values())
        for wake in waiting:
            wake.set()
