"""A small ComfyUI, for what the real one cannot be made to show: lost events, lost answers, a memory that is gone.

HTTP and websocket are real, and their forms are those of ComfyUI 0.30.0. Nothing is drawn: a job takes its time, and
saves a tiny picture.
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

from shared.engine.guard import make_guard

DEFINITIONS = Path(__file__).parent / "data" / "object_info.json"
CHECKPOINTS = ["model.safetensors"]
PREVIEW_WITH_METADATA = 4
# Seconds. A job that works for so long is still at it when the test has done what must be done meanwhile, however slow
# the machine is.
HELD = 300.0


def tiny_png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "orange").save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Job:
    """A prompt as it was posted."""

    number: float
    id: str
    graph: dict[str, Any]
    extra: dict[str, Any]
    interrupted: asyncio.Event = field(default_factory=asyncio.Event)

    def entry(self) -> list[Any]:
        return [self.number, self.id, self.graph, self.extra, list(self.graph)]


class FakeEngine:
    """An engine on a free port, from `start` to `stop`; started again, it is on the same port and knows nothing.

    Everything below may be set at any time, and counts at once. `seconds` is how long a node with `steps` works: with
    `HELD`, until the test sets less. `preview` is sent after each step of a job that wants previews.
    """

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self.seconds = 0.05
        self.preview = tiny_png()
        # The token that it asks for, as the engine that we start does; without one it answers everybody.
        self.token = ""
        # Faults.
        self.silent = False  # The socket says nothing at all.
        self.deaf = False  # It does not observe that a job was cancelled which it works on.
        self.loses_end = False  # It leaves out how a job ended.
        # POST /prompt: objections to a part of the graph; or what becomes of the request.
        self.node_errors: dict[str, Any] = {}
        self.prompt_fault: Literal["500", "500 but taken", "taken but no answer"] | None = None
        self.delay = 0.0  # Every answer comes so many seconds late.
        # What happened, in order, to ids of jobs: posted, begun, cancelled by somebody.
        self.submitted: list[str] = []
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.uploaded: dict[str, bytes] = {}
        self.most = 0  # The most jobs that it ever had at once.
        self.history: dict[str, dict[str, Any]] = {}
        self.running: Job | None = None
        self._pending: list[Job] = []
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._lines: dict[str, asyncio.Transport] = {}
        self._named: set[str] = set()
        self._port = 0
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Where it listens, or listened last."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), name="fake-engine")
        self._thread.start()
        ready.result(timeout=10)

    def stop(self) -> None:
        """Dies at once, as by SIGKILL; nothing happens if it is dead already."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(timeout=10)
            self._thread = None

    def saved(self) -> list[str]:
        """The names of all pictures that it saved."""
        return sorted(path.name for path in self.output_dir.rglob("*.png"))

    def forget_everything(self) -> None:
        """Queue, running job and history are gone, as after a restart too quick to be seen."""

        async def forget() -> None:
            self._worker.cancel()
            self._begin()

        asyncio.run_coroutine_threadsafe(forget(), self._loop).result(timeout=10)

    def drop_sockets(self) -> None:
        """All websockets break off."""
        for line in list(self._lines.values()):
            self._loop.call_soon_threadsafe(line.abort)

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
        app.on_response_prepare.append(self._late)
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

    async def _late(self, _request: web.Request, _response: web.StreamResponse) -> None:
        await asyncio.sleep(self.delay)

    async def _post_prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        number, job_id = float(body["number"]), str(body["prompt_id"])
        self.submitted.append(job_id)
        if self.prompt_fault != "500":
            extra = {**body.get("extra_data", {}), "client_id": body["client_id"]}
            self._pending.append(Job(number, job_id, body["prompt"], extra))
            self.most = max(self.most, len(self._pending) + (self.running is not None))
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
        kept = [job for job in self._pending if job.id != job_id]
        cancelled = len(kept) < len(self._pending)
        self._pending = kept
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
        self._sockets[client], self._lines[client] = socket, request.transport
        await self._tell(client, "status", {"status": {"exec_info": {"queue_remaining": 0}}, "sid": client})
        try:
            async for message in socket:
                flags = json.loads(message.data)
                if flags["type"] == "feature_flags" and flags["data"].get("supports_preview_metadata"):
                    self._named.add(client)
        finally:
            del self._sockets[client], self._lines[client]
        return socket

    async def _tell(self, client: str, kind: str, data: dict[str, Any]) -> None:
        ends = kind == "execution_success" or (kind == "executing" and data["node"] is None)
        if not (ends and self.loses_end):
            await self._send(client, json.dumps({"type": kind, "data": data}))

    async def _send(self, client: str, frame: str | bytes) -> None:
        if client in self._sockets and not self.silent:
            with suppress(ConnectionError):
                socket = self._sockets[client]
                await (socket.send_str(frame) if isinstance(frame, str) else socket.send_bytes(frame))

    async def _work(self) -> None:
        while True:
            while not self._pending:
                self._arrived.clear()
                await self._arrived.wait()
            job = min(self._pending, key=lambda each: (each.number, each.id))
            self._pending.remove(job)
            self.running = job
            self.begun.append(job.id)
            await self._run(job)

    async def _run(self, job: Job) -> None:
        messages: list[tuple[str, dict[str, Any]]] = []

        async def print_status(kind: str, **data: Any) -> None:
            about = {**data, "prompt_id": job.id, "timestamp": int(time.time() * 1000)}
            messages.append((kind, about))
            await self._tell(job.extra["client_id"], kind, about)

        await print_status("execution_start")
        await print_status("execution_cached", nodes=[])
        outputs: dict[str, Any] = {}
        done = True
        for node, about in job.graph.items():
            done = done and await self._run_node(job, node, about["inputs"], outputs)
        await print_status("execution_success" if done else "execution_interrupted")
        status = {"status_str": "success" if done else "error", "completed": done, "messages": messages}
        self.history[job.id] = {"prompt": job.entry(), "outputs": outputs, "status": status, "meta": {}}
        self.running = None
        await self._tell(job.extra["client_id"], "executing", {"node": None, "prompt_id": job.id})

    async def _run_node(self, job: Job, node: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> bool:
        """Whether it came to its end; an interruption is heeded between two steps."""
        client, place = job.extra["client_id"], {"node": node, "prompt_id": job.id}
        await self._tell(client, "executing", place)
        for step in range(1, inputs.get("steps", 0) + 1):
            begun = time.monotonic()
            while (left := begun + self.seconds / inputs["steps"] - time.monotonic()) > 0:
                await asyncio.sleep(min(left, 0.01))
            if job.interrupted.is_set() and not self.deaf:
                return False
            await self._tell(client, "progress", {**place, "value": step, "max": inputs["steps"]})
            if client in self._named and job.extra.get("preview_method", "none") != "none":
                about = json.dumps({**place, "image_type": "image/png"}).encode()
                await self._send(client, struct.pack(">II", PREVIEW_WITH_METADATA, len(about)) + about + self.preview)
        if "filename_prefix" in inputs:
            outputs[node] = {"images": [self._save(inputs["filename_prefix"])]}
            await self._tell(client, "executed", {**place, "output": outputs[node]})
        return True

    def _save(self, prefix: str) -> dict[str, str]:
        """Beside what lies there under that prefix already, as ComfyUI does."""
        subfolder, _, start = prefix.rpartition("/")
        folder = self.output_dir / subfolder
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{start}_{len(list(folder.glob(f'{start}_*.png'))) + 1:05}_.png"
        (folder / name).write_bytes(tiny_png())
        return {"filename": name, "subfolder": subfolder, "type": "output"}
