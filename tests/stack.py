"""A real stack of launcher, engine and services, and helpers that use it as a client."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests
from PIL import Image

from shared.engine.client import TOKEN_FILE, EngineAccess, EngineClient
from shared.engine.install import engine_dir
from shared.settings import PREFIX, PROJECT_DIR
from tests.ports import free_ports

# Seconds; generous, because the machine may be busy.
TIMEOUT = 300
START_TIMEOUT = 240
# Secrets in the user's shell; the engine must not see them.
PLANTED = {"EXAMPLE_TOKEN": "planted-example-token", "HTTPS_PROXY_PASSWORD": "planted-password"}
# Read at import: while a test runs, it does not see the settings of the shell. The fixture `engine_source` checks it.
COMFYUI_DIR = Path(
    os.environ.get(f"{PREFIX}COMFYUI_DIR")
    or engine_dir(Path(os.environ.get(f"{PREFIX}DATA_DIR") or PROJECT_DIR / "data"))
)
PNG = {"Accept": "image/png"}
Nodes = dict[str, tuple[str, dict[str, Any]]]
"""A ComfyUI graph in short form: the class and the inputs of each node."""


@dataclass(frozen=True)
class TestStack:
    """A running launcher: the addresses of its services, and shortcuts for requests."""

    __test__ = False

    process: "subprocess.Popen[bytes]"
    environ: dict[str, str]
    data_dir: Path
    log: Path

    def output(self) -> str:
        """Return the launcher's output so far."""
        return self.log.read_text(encoding="utf-8")

    def _url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.environ[f'{PREFIX}{name}_PORT']}"

    @property
    def txt2img(self) -> str:
        return self._url("TXT2IMG")

    @property
    def img2img(self) -> str:
        return self._url("IMG2IMG")

    @property
    def control(self) -> str:
        return self._url("CONTROL")

    @property
    def extras(self) -> str:
        return self._url("EXTRAS")

    @property
    def runs(self) -> str:
        return self._url("RUNS")

    @property
    def report(self) -> str:
        return self._url("REPORT")

    @property
    def img2txt(self) -> str:
        return self._url("IMG2TXT")

    @property
    def engine(self) -> str:
        return self._url("ENGINE")

    @property
    def engine_access(self) -> EngineAccess:
        """The token for requests to the engine itself."""
        return EngineAccess(file=self.data_dir / TOKEN_FILE)

    def engine_client(self) -> EngineClient:
        """Return a client of the engine, like that of the services."""
        return EngineClient(self.engine, self.engine_access)

    def ask_engine(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request to the engine itself."""
        headers = self.engine_access.headers()
        return requests.request(method, self.engine + path, headers=headers, timeout=TIMEOUT, **options)

    def settings_to_share_the_engine(self) -> dict[str, str]:
        """Return settings with which another launcher or service uses this engine."""
        return {f"{PREFIX}ENGINE_URL": self.engine, f"{PREFIX}ENGINE_TOKEN": self.engine_access.token or ""}

    def engine_state(self) -> dict[str, Any]:
        """Return the state of the engine, as the control service reports it."""
        state: dict[str, Any] = requests.get(f"{self.control}/api/engine", timeout=TIMEOUT).json()["engine"]
        return state

    def wait_for_engine(self, ready: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until the engine answers and `ready` is true for its state, and return the state."""
        deadline = time.monotonic() + TIMEOUT
        while not (state := self.engine_state())["answers"] or not ready(state):
            assert time.monotonic() < deadline, state
            time.sleep(0.05)
        return state

    def draw(self, **fields: Any) -> dict[str, Any]:
        """Return the reply to a txt2img request, which must succeed."""
        return self._post(f"{self.txt2img}/api/txt2img", fields)

    def redraw(self, **fields: Any) -> dict[str, Any]:
        """Return the reply to an img2img request, which must succeed; PIL images become data URLs."""
        ready = {k: data_url(v) if isinstance(v, Image.Image) else v for k, v in fields.items()}
        return self._post(f"{self.img2img}/api/img2img", ready)

    def submit(self, url: str | None = None, **fields: Any) -> str:
        """Submit a txt2img job without waiting for it, and return its id."""
        response = requests.post(
            f"{url or self.txt2img}/api/txt2img", json=fields, headers={"Prefer": "respond-async"}, timeout=TIMEOUT
        )
        assert response.status_code == 202, response.text
        return str(response.json()["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job as the API reports it now."""
        job: dict[str, Any] = requests.get(f"{self.txt2img}/api/jobs/{job_id}", timeout=TIMEOUT).json()
        return job

    def wait_for_job(self, job_id: str, *states: str) -> dict[str, Any]:
        """Wait until a job is in one of `states`, or has ended if there are none, and return it."""
        deadline = time.monotonic() + TIMEOUT
        while (job := self.job(job_id))["state"] not in (states or ("completed", "failed", "cancelled")):
            assert time.monotonic() < deadline, job
            time.sleep(0.05)
        return job

    def pictures(self, reply: dict[str, Any]) -> list[Image.Image]:
        """Download the pictures of a reply."""
        images = []
        for entry in reply["comfy_response"]["generated_images"]:
            response = requests.get(entry["url"], timeout=TIMEOUT)
            assert response.status_code == 200, response.text
            images.append(open_rgb(response.content))
        return images

    def picture(self, reply: dict[str, Any]) -> Image.Image:
        """Download the only picture of a reply."""
        (image,) = self.pictures(reply)
        return image

    def run(self, nodes: Nodes) -> Image.Image:
        """Run a graph on the engine itself, and return the picture of its `save` node."""
        graph = {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}
        queued = self.ask_engine("POST", "/prompt", json={"prompt": graph})
        assert queued.status_code == 200, queued.text
        job = queued.json()["prompt_id"]
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            entry = self.ask_engine("GET", f"/history/{job}").json().get(job)
            if entry:
                assert entry["status"]["status_str"] == "success", entry["status"]["messages"]
                image = entry["outputs"]["save"]["images"][0]
                return open_rgb(self.ask_engine("GET", "/view", params=image).content)
            time.sleep(0.05)
        raise TimeoutError(job)

    def upload(self, image: Image.Image, name: str) -> str:
        """Upload a picture into the engine's input folder, and return its name there."""
        files = {"image": (name, encoded(image))}
        reply = self.ask_engine("POST", "/upload/image", files=files)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["name"])

    @staticmethod
    def _post(url: str, fields: dict[str, Any]) -> dict[str, Any]:
        response = requests.post(url, json=fields, timeout=TIMEOUT)
        assert response.status_code == 200, response.text
        reply: dict[str, Any] = response.json()
        return reply


def launcher_environment(data_dir: Path) -> dict[str, str]:
    """Return the environment of a launcher with free ports, this data folder and the installed engine."""
    environ = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
    # No window may open on the user's desktop.
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        environ.pop(name, None)
    # Engines of parallel workers share the cores; more threads than cores would only wait for each other.
    if "PYTEST_XDIST_WORKER" in os.environ:
        environ.setdefault("OMP_NUM_THREADS", "1")
    txt2img, img2img, control, engine_port, extras, runs, report, img2txt = free_ports(8)
    return {
        **environ,
        **PLANTED,
        f"{PREFIX}DATA_DIR": str(data_dir),
        f"{PREFIX}COMFYUI_DIR": str(COMFYUI_DIR),
        f"{PREFIX}DEVICE": "cpu",
        f"{PREFIX}TXT2IMG_PORT": str(txt2img),
        f"{PREFIX}IMG2IMG_PORT": str(img2img),
        f"{PREFIX}CONTROL_PORT": str(control),
        f"{PREFIX}EXTRAS_PORT": str(extras),
        f"{PREFIX}RUNS_PORT": str(runs),
        f"{PREFIX}REPORT_PORT": str(report),
        f"{PREFIX}IMG2TXT_PORT": str(img2txt),
        f"{PREFIX}ENGINE_PORT": str(engine_port),
    }


@contextmanager
def launched(folder: Path, environ: dict[str, str]) -> Iterator[TestStack]:
    """Start a stack as a user does; at the end, stop it by SIGTERM and check that all its processes are gone."""
    output = folder / "launcher.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "dream_layer.py", "up", "--no-install"],
            cwd=PROJECT_DIR,
            env=environ,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    running = TestStack(process, environ, Path(environ[f"{PREFIX}DATA_DIR"]), output)
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while "Ctrl-C stops everything" not in running.output():
            assert process.poll() is None, f"the launcher ended:\n{running.output()}"
            assert time.monotonic() < deadline, f"the launcher did not get ready:\n{running.output()}"
            time.sleep(0.05)
        yield running
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
    wait_until_gone(children)


@dataclass(frozen=True)
class StreamEvent:
    """An event of a stream; `number` is None for one that is not replayed."""

    number: int | None
    name: str
    data: dict[str, Any]


def read_stream(response: requests.Response) -> Iterator[StreamEvent]:
    """Yield the events of a text/event-stream as they arrive."""
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"].startswith("text/event-stream")
    fields: dict[str, str] = {}
    for line in response.iter_lines(chunk_size=1, decode_unicode=True):
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "event" in fields:
            number = int(fields["id"]) if "id" in fields else None
            yield StreamEvent(number, fields["event"], json.loads(fields["data"]))
            fields = {}


def wait_until_gone(processes: Sequence[psutil.Process]) -> None:
    """Wait until all processes have ended; fail after 30 s.

    Zombies have ended too: without an init process, as in containers, nothing collects orphans.
    """

    def is_running(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    deadline = time.monotonic() + 30
    while remaining := [process for process in processes if is_running(process)]:
        assert time.monotonic() < deadline, remaining
        time.sleep(0.05)


def open_rgb(data: bytes) -> Image.Image:
    """Decode a picture, as RGB."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def encoded(image: Image.Image, output: str = "PNG", **options: Any) -> bytes:
    """Encode a picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, output, **options)
    return buffer.getvalue()


def data_url(image: Image.Image, claimed_type: str = "image/png") -> str:
    """Encode a picture as a data URL, as a browser's FileReader does."""
    return f"data:{claimed_type};base64,{base64.b64encode(encoded(image)).decode()}"


def wait_for_health(url: str) -> None:
    """Wait until a service answers."""
    deadline = time.monotonic() + 60
    while True:
        try:
            if requests.get(f"{url}/health", timeout=2).ok:
                return
        except requests.RequestException:
            assert time.monotonic() < deadline
            time.sleep(0.05)
