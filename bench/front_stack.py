"""What `bench.front` measures: the engine as the launcher starts it, and the service of the bench."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests

from bench.processes import own_place
from shared.engine.client import EngineAccess, EngineClient, engine_access
from shared.engine.process import make_supervisor, use_cpu
from shared.process.supervisor import Child, Supervisor
from shared.settings import PREFIX, PROJECT_DIR, Settings, load_settings
from starter import CHECKPOINT_NAME
from starter.assemble import STARTER, assemble, current_fingerprint, is_up_to_date


class Stack:
    """Both processes. They hold a lifeline: however the bench ends, they end too."""

    def __init__(self, settings: Settings, comfyui_dir: Path) -> None:
        self.engine_url = settings.engine_address
        self.service_url = f"http://127.0.0.1:{settings.txt2img_port}"
        self.on_cpu = use_cpu(settings)
        self._log_dir = settings.log_dir
        self._client = EngineClient(self.engine_url, engine_access(settings))
        self._engine = make_supervisor(settings, self._client, comfyui_dir, cpu=self.on_cpu)
        self._service = self._new_service()

    def start(self) -> None:
        """Starts both, and returns when both answer."""
        self._engine.start()
        self._service.start()
        self._service.wait_ready()
        self._engine.wait_ready()

    def stop(self) -> None:
        """Stops both."""
        self._service.stop()
        self._engine.stop()

    def renew_service(self) -> None:
        """A fresh service in place of the old one."""
        self._service.stop()
        self._service = self._new_service()
        self._service.start()
        self._service.wait_ready()

    @property
    def access(self) -> EngineAccess:
        """What the engine asks for."""
        return self._client.access

    def wait_idle(self) -> None:
        """Waits until the engine has no job."""
        while any(self._client.get_queue()):
            time.sleep(0.05)

    def check(self) -> None:
        """Raises RuntimeError if a process died meanwhile and was started again: that spoils what was measured."""
        for supervisor in (self._service, self._engine):
            if supervisor.restarts:
                told = supervisor.child.log_path.read_text(encoding="utf-8", errors="replace")
                died = told[max(0, told.rfind("Traceback")) :][:3000]
                raise RuntimeError(
                    f"{supervisor.child.name} died while it was measured, and was started again:\n{died}"
                )

    def memory(self) -> float:
        """Resident memory of the service, in MB."""
        return float(self._process().memory_info().rss / 1e6)

    def processor(self) -> float:
        """Seconds of processor time that the service has used."""
        times = self._process().cpu_times()
        return float(times.user + times.system)

    def engine_processor(self) -> float:
        """Seconds of processor time that the engine has used, which a busy machine hardly changes."""
        times = psutil.Process(self._engine.child.pid).cpu_times()
        return float(times.user + times.system)

    def _process(self) -> psutil.Process:
        return psutil.Process(self._service.child.pid)

    def _new_service(self) -> Supervisor:
        child = Child(
            "service",
            [PROJECT_DIR / "bench" / "front_service.py"],
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
def running_stack() -> Iterator[Stack]:
    """A stack in a place of its own, with the starter model that is there, or a new one."""
    models_dir = load_settings().models_dir.resolve()
    with own_place() as (settings, comfyui_dir):
        if is_up_to_date(models_dir / STARTER.folder / STARTER.name, current_fingerprint()):
            settings.models_dir.symlink_to(models_dir, target_is_directory=True)
        else:
            assemble(settings.models_dir, (STARTER,))
        # Other checkpoints are none of ours.
        os.environ[f"{PREFIX}CHECKPOINT"] = CHECKPOINT_NAME
        stack = Stack(load_settings(), comfyui_dir)
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()
