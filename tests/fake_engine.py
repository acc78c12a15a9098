"""A small fake of ComfyUI for faults that the real one does not show on demand: lost events, replies and jobs.

It serves real HTTP and websockets in the form of ComfyUI 0.30.0. A job runs no nodes: it waits, then saves a picture.
"""

import asyncio
import io
import json
import struct
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from aiohttp import web
from PIL import Image

from shared.engine.request_guard import make_guard

DEFINITIONS = Path(__file__).parent / "data" / "object_info.json"
CHECKPOINTS = ["model.safetensors"]
PREVIEW_WITH_METADATA = 4
# Seconds. A job with this duration does not finish before the test shortens it, however slow the machine is.
BLOCKED = 300.0


def tiny_png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "orange").save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Job:
    """A job as it was posted to /prompt."""

    number: float
    id: str
    graph: dict[str, Any]
    extra: dict[str, Any]
    interrupted: asyncio.Event = field(default_factory=asyncio.Event)

    def entry(self) -> list[Any]:
        return [self.number, self.id, self.graph, self.extra, list(self.graph)]


class FakeEngine:
    """An engine on a free port, from `start` to `stop`. After a restart it has the same port and no jobs.

    The attributes can be set at any time and take effect at once. `seconds` is the duration of a node with `steps`;
    with `BLOCKED`, it runs until the test sets a lower value. `preview` is sent after each step of a job with previews.
    """

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self.seconds = 0.05
        self.preview = tiny_png()
        # The token that requests must have, as for the engine that we start; empty: requests need none.
        self.token = ""
        # Faults.
        self.sends_no_events = False
        self.ignores_cancel = False  # The running job goes on after it was cancelled.
        self.omits_end_events = False
        # POST /prompt: errors in a part of the graph, or a fault of the request.
        self.node_errors: dict[str, Any] = {}
        self.prompt_fault: Literal["500", "500 but taken", "taken but no answer"] | None = None
        self.delay = 0.0  # Seconds before every reply.
        # Ids of jobs, in the order of the events.
        self.submitted: list[str] = []
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.uploaded: dict[str, bytes] = {}
        self.max_jobs = 0  # Largest number of jobs at a time.
        self.history: dict[str, dict[str, Any]] = {}
        self.running: Job | None = None
        self._pending: list[Job] = []
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._transports: dict[str, asyncio.Transport] = {}
        self._metadata_clients: set[str] = set()
        self._port = 0
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """The address on which it listens, or listened last."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), name="fake-engine")
        self._thread.start()
        ready.result(timeout=10)

    def stop(self) -> None:
        """End at once, as by SIGKILL; without effect if it does not run."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(timeout=10)
            self._thread = None

    def saved(self) -> list[str]:
        """The file names of all saved pictures."""
        return sorted(path.name for path in self.output_dir.rglob("*.png"))

    def lose_jobs(self) -> None:
        """Lose queue, running job and history, as after a restart that is too quick to be noticed."""

        async def lose() -> None:
            self._worker.cancel()
            self._begin()

        asyncio.run_coroutine_threadsafe(lose(), self._loop).result(timeout=10)

    def drop_sockets(self) -> None:
        """Break all websocket connections."""
        for transport in list(self._transports.values()):
            self._loop.call_soon_threadsafe(transport.abort)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if not self.token:
            return cast(web.StreamResponse, await handler(request))
        return cast(web.StreamResponse, await make_guard(self.token)(request, handler))

    def _begin(self) -> None:
        self.running, self._pending, self.history = None, [], {}
        self._arrived = asyncio.Event()
        self._worker = asyncio.create_task(self._work())

    async def _serve(self, ready: "Future[None]") -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(middlewares=[self._guard])
        app.on_response_prepare.append(self._delay_reply)
        for method, path, handler in (
            ("POST", "/prompt", self._post_prompt),
            ("GET", "/queue", self._get_queue),
            ("GET", "/history/{id}", self._get_history),
            ("POST", "/history", self._post_history),
            ("POST", "/api/jobs/{id}/cancel", self._cancel),
            ("GET", "/object_info/{name}", self._object_info),
            ("GET", "/models/{folder}", self._models),
            ("GET", "/system_stats", self._system_stats),
            ("POST", "/upload/image", self._upload),
            ("GET", "/view", self._view),
            ("GET", "/ws", self._socket),
        ):
            app.router.add_route(method, path, handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self._port).start()
            self._port = runner.addresses[0][1]
        except OSError as error:
            ready.set_exception(error)
            return
        self._begin()
        ready.set_result(None)
        await self._stopping.wait()
        self._worker.cancel()
        for connection in runner.server.connections if runner.server else ():
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()

    async def _delay_reply(self, _request: web.Request, _response: web.StreamResponse) -> None:
        await asyncio.sleep(self.delay)

    async def _post_prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        number, job_id = float(body["number"]), str(body["prompt_id"])
        self.submitted.append(job_id)
        if self.prompt_fault != "500":
            extra = {**body.get("extra_data", {}), "client_id": body["client_id"]}
            self._pending.append(Job(number, job_id, body["prompt"], extra))
            self.max_jobs = max(self.max_jobs, len(self._pending) + (self.running is not None))
            self._arrived.set()
        if self.prompt_fault == "taken but no answer" and request.transport is not None:
            request.transport.abort()
        if self.prompt_fault is not None:
            return web.Response(status=500, text="500 Internal Server Error")
        return web.json_response({"prompt_id": job_id, "number": number, "node_errors": self.node_errors})

    async def _get_queue(self, _request: web.Request) -> web.Response:
        running = [] if self.running is None else [self.running.entry()]
        return web.json_response({"queue_running": running, "queue_pending": [job.entry() for job in self._pending]})

    async def _get_history(self, request: web.Request) -> web.Response:
        job_id = request.match_info["id"]
        return web.json_response({job_id: self.history[job_id]} if job_id in self.history else {})

    async def _post_history(self, request: web.Request) -> web.Response:
        for job_id in (await request.json())["delete"]:
            self.history.pop(job_id, None)
        return web.Response()

    async def _cancel(self, request: web.Request) -> web.Response:
        job_id = request.match_info["id"]
        self.cancelled.append(job_id)
        others = [job for job in self._pending if job.id != job_id]
        cancelled = len(others) < len(self._pending)
        self._pending = others
        if self.running is not None and self.running.id == job_id:
            self.running.interrupted.set()
            cancelled = True
        return web.json_response({"cancelled": cancelled})

    async def _object_info(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        known = json.loads(DEFINITIONS.read_text("utf-8"))
        known["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0] = CHECKPOINTS
        return web.json_response({name: known[name]} if name in known else {})

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response(CHECKPOINTS if request.match_info["folder"] == "checkpoints" else [])

    async def _system_stats(self, _request: web.Request) -> web.Response:
        return web.json_response({"system": {"comfyui_version": "0.30.0"}, "devices": []})

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        image = form["image"]
        assert isinstance(image, web.FileField)
        folder = str(form["subfolder"])
        self.uploaded[f"{folder}/{image.filename}"] = image.file.read()
        return web.json_response({"name": image.filename, "subfolder": folder, "type": "input"})

    async def _view(self, _request: web.Request) -> web.Response:
        return web.Response(body=tiny_png(), content_type="image/png")

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client = request.query["clientId"]
        assert request.transport is not None
        self._sockets[client], self._transports[client] = socket, request.transport
        await self._send_event(client, "status", {"status": {"exec_info": {"queue_remaining": 0}}, "sid": client})
        try:
            async for message in socket:
                flags = json.loads(message.data)
                if flags["type"] == "feature_flags" and flags["data"].get("supports_preview_metadata"):
                    self._metadata_clients.add(client)
        finally:
            del self._sockets[client], self._transports[client]
        return socket

    async def _send_event(self, client: str, kind: str, data: dict[str, Any]) -> None:
        is_end = kind == "execution_success" or (kind == "executing" and data["node"] is None)
        if not (is_end and self.omits_end_events):
            await self._send(client, json.dumps({"type": kind, "data": data}))

    async def _send(self, client: str, frame: str | bytes) -> None:
        if client in self._sockets and not self.sends_no_events:
            with suppress(ConnectionError):
                socket = self._sockets[client]
                await (socket.send_str(frame) if isinstance(frame, str) else socket.send_bytes(frame))

    async def _work(self) -> None:
        while True:
            while not self._pending:
                self._arrived.clear()
                await self._arrived.wait()
            job = min(self._pending, key=lambda queued: (queued.number, queued.id))
            self._pending.remove(job)
            self.running = job
            self.started.append(job.id)
            await self._run(job)

    async def _run(self, job: Job) -> None:
        messages: list[tuple[str, dict[str, Any]]] = []

        async def emit(kind: str, **data: Any) -> None:
            message = {**data, "prompt_id": job.id, "timestamp": int(time.time() * 1000)}
            messages.append((kind, message))
            await self._send_event(job.extra["client_id"], kind, message)

        await emit("execution_start")
        await emit("execution_cached", nodes=[])
        outputs: dict[str, Any] = {}
        completed = True
        for node, definition in job.graph.items():
            completed = completed and await self._run_node(job, node, definition["inputs"], outputs)
        await emit("execution_success" if completed else "execution_interrupted")
        status = {"status_str": "success" if completed else "error", "completed": completed, "messages": messages}
        self.history[job.id] = {"prompt": job.entry(), "outputs": outputs, "status": status, "meta": {}}
        self.running = None
        await self._send_event(job.extra["client_id"], "executing", {"node": None, "prompt_id": job.id})

    async def _run_node(self, job: Job, node: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> bool:
        """Run a node; return False if the job was interrupted, which takes effect between two steps."""
        client, place = job.extra["client_id"], {"node": node, "prompt_id": job.id}
        await self._send_event(client, "executing", place)
        for step in range(1, inputs.get("steps", 0) + 1):
            started = time.monotonic()
            while (left := started + self.seconds / inputs["steps"] - time.monotonic()) > 0:
                await asyncio.sleep(min(left, 0.01))
            if job.interrupted.is_set() and not self.ignores_cancel:
                return False
            await self._send_event(client, "progress", {**place, "value": step, "max": inputs["steps"]})
            if client in self._metadata_clients and job.extra.get("preview_method", "none") != "none":
                metadata = json.dumps({**place, "image_type": "image/png"}).encode()
                header = struct.pack(">II", PREVIEW_WITH_METADATA, len(metadata))
                await self._send(client, header + metadata + self.preview)
        if "filename_prefix" in inputs:
            outputs[node] = {"images": [self._save(inputs["filename_prefix"])]}
            await self._send_event(client, "executed", {**place, "output": outputs[node]})
        return True

    def _save(self, prefix: str) -> dict[str, str]:
        """Save a picture under the next free number of the prefix, as ComfyUI does."""
        subfolder, _, start = prefix.rpartition("/")
        folder = self.output_dir / subfolder
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{start}_{len(list(folder.glob(f'{start}_*.png'))) + 1:05}_.png"
        (folder / name).write_bytes(tiny_png())
        return {"filename": name, "subfolder": subfolder, "type": "output"}
