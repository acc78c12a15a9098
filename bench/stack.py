"""The processes that the benchmarks measure: the engine as the launcher starts it, and the benchmark's service.

They use free ports and a temporary data folder (`temporary_settings`).
"""

import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests

from shared.engine.client import EngineAccess, EngineClient, engine_access
from shared.engine.process import find_engine, make_supervisor, use_cpu
from shared.process.supervisor import Child, Supervisor
from shared.settings import PREFIX, PROJECT_DIR, Settings, load_settings
from starter import CHECKPOINT_NAME
from starter.assemble import STARTER, assemble, current_fingerprint, is_up_to_date

PORTS = (
    *("TXT2IMG_PORT", "IMG2IMG_PORT", "CONTROL_PORT", "ENGINE_PORT"),
    *("EXTRAS_PORT", "RUNS_PORT", "REPORT_PORT", "IMG2TXT_PORT"),
)


class BenchStack:
    """The engine and the service as child processes, which end with this one, however that happens."""

    def __init__(self, settings: Settings, comfyui_dir: Path) -> None:
        self.engine_url = settings.engine_address
        self.service_url = f"http://127.0.0.1:{settings.txt2img_port}"
        self.on_cpu = use_cpu(settings)
        self._log_dir = settings.log_dir
        self._client = EngineClient(self.engine_url, engine_access(settings))
        self._engine = make_supervisor(settings, self._client, comfyui_dir, cpu=self.on_cpu)
        self._service = self._new_service()

    def start(self) -> None:
        """Start both, and wait until both answer."""
        self._engine.start()
        self._service.start()
        self._service.wait_ready()
        self._engine.wait_ready()

    def stop(self) -> None:
        """Stop both."""
        self._service.stop()
        self._engine.stop()

    def restart_service(self) -> None:
        """Replace the service by a new process."""
        self._service.stop()
        self._service = self._new_service()
        self._service.start()
        self._service.wait_ready()

    @property
    def access(self) -> EngineAccess:
        """The access headers and token of the engine."""
        return self._client.access

    def wait_idle(self) -> None:
        """Wait until the engine has no jobs."""
        while any(self._client.get_queue()):
            time.sleep(0.05)

    def check(self) -> None:
        """Raise RuntimeError if a process crashed and was restarted, which invalidates the measurement."""
        for supervisor in (self._service, self._engine):
            if supervisor.restarts:
                log = supervisor.child.log_path.read_text(encoding="utf-8", errors="replace")
                traceback = log[max(0, log.rfind("Traceback")) :][:3000]
                raise RuntimeError(f"{supervisor.child.name} crashed during the measurement:\n{traceback}")

    def memory(self) -> float:
        """Resident memory of the service, in MB."""
        return float(self._process().memory_info().rss / 1e6)

    def processor_seconds(self) -> float:
        """Processor time of the service, in seconds."""
        times = self._process().cpu_times()
        return float(times.user + times.system)

    def engine_processor_seconds(self) -> float:
        """Processor time of the engine, in seconds; other programs hardly affect it."""
        times = psutil.Process(self._engine.child.pid).cpu_times()
        return float(times.user + times.system)

    def _process(self) -> psutil.Process:
        return psutil.Process(self._service.child.pid)

    def _new_service(self) -> Supervisor:
        child = Child(
            "service",
            [PROJECT_DIR / "bench" / "overhead_service.py"],
            python=sys.executable,
            folder=PROJECT_DIR,
            log_path=self._log_dir / "service.log",
            environ={**os.environ, "PYTHONPATH": str(PROJECT_DIR)},
        )
        return Supervisor(child, self._service_answers, 60)

    def _service_answers(self) -> bool:
        try:
            return requests.get(f"{self.service_url}/health", timeout=2, proxies={"http": ""}).ok
        except requests.RequestException:
            return False


@contextmanager
def running_stack() -> Iterator[BenchStack]:
    """Start a stack in a temporary data folder, with the existing starter model or a new one."""
    models_dir = load_settings().models_dir.resolve()
    with temporary_settings() as (settings, comfyui_dir):
        if is_up_to_date(models_dir / STARTER.folder / STARTER.name, current_fingerprint()):
            settings.models_dir.symlink_to(models_dir, target_is_directory=True)
        else:
            assemble(settings.models_dir, (STARTER,))
        # The data folder may have other checkpoints.
        os.environ[f"{PREFIX}CHECKPOINT"] = CHECKPOINT_NAME
        stack = BenchStack(load_settings(), comfyui_dir)
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()


@contextmanager
def temporary_settings() -> Iterator[tuple[Settings, Path]]:
    """Yield settings with free ports and a new data folder, also set in the environment, and the ComfyUI folder.

    The data folder is created in TMPDIR, whose disk determines the speed of disk writes.
    """
    comfyui_dir = find_engine(load_settings())
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="dream-layer-bench-") as folder:
        os.environ.update({f"{PREFIX}{name}": str(port) for name, port in zip(PORTS, _free_ports(), strict=True)})
        os.environ[f"{PREFIX}DATA_DIR"] = folder
        os.environ[f"{PREFIX}COMFYUI_DIR"] = str(comfyui_dir)
        try:
            yield load_settings(), comfyui_dir
        finally:
            os.environ.clear()
            os.environ.update(before)


def _free_ports() -> list[int]:
    """Return a free port for each name in PORTS."""
    sockets = [socket.socket() for _ in PORTS]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    ports = [int(sock.getsockname()[1]) for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports
