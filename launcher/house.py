"""Everything up: the engine and, for `up`, both services as children; the control service in this process."""

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from flask import Flask

from launcher.environment import PROJECT_DIR
from launcher.terminal import complain, say, stop_signals
from shared import __version__
from shared.child import Child, Keeper
from shared.engine.install import comfyui_version, install_page
from shared.engine.process import find_engine, make_keeper, use_cpu
from shared.engine.proof import prove
from shared.errors import EngineError, SetupError
from shared.settings import PREFIX, Settings, load_settings
from shared.web.app import create_app
from shared.web.backend import Backend
from shared.web.control import control_routes
from shared.web.jobs import job_routes
from shared.web.memory import return_freed_memory
from shared.web.native import image_routes
from shared.web.options import option_routes
from shared.web.pnginfo import pnginfo_routes
from shared.web.ready import ready_routes
from shared.web.serve import check_port, reachable, serve_waitress

SERVICE_START_TIMEOUT = 60.0


def run_house(*, services: bool, starter: bool) -> int:
    """Starts everything, waits for Ctrl-C or SIGTERM, stops everything. Returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="  %(asctime)s     %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("waitress").setLevel(logging.WARNING)
    return_freed_memory()
    house = House()
    try:
        sys.stdout.write(f"\nDream Layer {__version__}\n\n")
        house.start(load_settings(), services=services, starter=starter)
        while True:
            # Short, for on Windows a wait without end cannot be interrupted.
            time.sleep(0.5)
    except SetupError as error:
        complain(error.step, error.message, error.hint)
        return 1
    except OSError as error:
        complain("files", str(error), f"is the disk full or a folder not writable? {PREFIX}DATA_DIR moves the data")
        return 1
    except KeyboardInterrupt:
        sys.stdout.write("\n")
        return 0
    finally:
        # A second Ctrl-C must not leave the work of the first half done.
        for number in stop_signals():
            signal.signal(number, signal.SIG_IGN)
        house.stop()


class House:
    """What was started, so that it can be stopped."""

    def __init__(self) -> None:
        self._keepers: list[Keeper] = []
        self._engine_keeper: Keeper | None = None
        self._backend: Backend | None = None

    def start(self, settings: Settings, *, services: bool, starter: bool) -> None:
        """Starts all there is to start, in an order that lets slow things overlap. Raises SetupError."""
        _check_ports(settings, services=services)
        self._backend = Backend(settings)
        engine = self._backend.engine
        if settings.engine_url is None:
            comfyui_dir = find_engine(settings)
            say("engine", f"ComfyUI {comfyui_version(comfyui_dir)} in {comfyui_dir}")
            if settings.engine_page and settings.engine_python is None:
                install_page()
            if starter:
                _assemble_starter(settings, comfyui_dir)
            cpu = use_cpu(settings)
            self._engine_keeper = make_keeper(settings, engine, comfyui_dir, cpu=cpu)
            self._start(self._engine_keeper)
            say(
                "engine",
                f"starting on the {'CPU' if cpu else 'GPU'}; log: {self._engine_keeper.child.log_path}",
            )
        begun = time.monotonic()
        if services:
            self._start_services(settings)
        self._backend.start()
        self._start_control(self._backend)
        if self._engine_keeper is not None:
            self._engine_keeper.wait_ready()
        try:
            proven = prove(engine)
        except EngineError as error:
            raise SetupError(
                "engine",
                f"{error.message} ({settings.engine_address})",
                hint=error.hint or "is this a ComfyUI 0.30?",
            ) from error
        did = "drew its first picture" if proven else "is busy with unfinished jobs"
        say("engine", f"{did} after {time.monotonic() - begun:.1f} s: {settings.engine_address}")
        _greet(settings, services=services)

    def stop(self) -> None:
        """Stops every child, all at once."""
        if self._backend is not None:
            self._backend.stop()
        stopping = [threading.Thread(target=keeper.stop) for keeper in self._keepers]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        if stopping:
            say("stopped", "all of it")

    def engine_state(self) -> dict[str, Any]:
        """What GET /api/engine tells."""
        keeper = self._engine_keeper
        if keeper is None:
            return {"state": "external"}
        return {"state": keeper.state, "pid": keeper.child.pid, "restarts": keeper.restarts}

    def _start(self, keeper: Keeper) -> None:
        self._keepers.append(keeper)
        keeper.start()

    def _start_services(self, settings: Settings) -> None:
        keepers = []
        for name, port in (("txt2img", settings.txt2img_port), ("img2img", settings.img2img_port)):
            child = Child(
                name,
                [PROJECT_DIR / f"{name}_server.py"],
                python=sys.executable,
                folder=PROJECT_DIR,
                log_path=settings.log_dir.resolve() / f"{name}.log",
            )
            keepers.append(Keeper(child, _health_check(settings, port), SERVICE_START_TIMEOUT))
            self._start(keepers[-1])
        for keeper in keepers:
            keeper.wait_ready()

    def _start_control(self, backend: Backend) -> None:
        settings = backend.settings
        app = build_control(backend, self.engine_state)
        server = threading.Thread(
            target=serve_waitress, args=(app, settings, settings.control_port), name="control", daemon=True
        )
        server.start()
        healthy = _health_check(settings, settings.control_port)
        while not healthy():
            if not server.is_alive():
                raise SetupError("control", f"it could not listen on port {settings.control_port}")
            time.sleep(0.02)


def build_control(backend: Backend, engine_state: Callable[[], dict[str, Any]]) -> Flask:
    """The control service's application."""
    routes = [
        control_routes(engine_state, backend.catalog),
        image_routes(backend),
        job_routes(backend),
        ready_routes(backend),
        option_routes(backend),
        pnginfo_routes(backend),
    ]
    return create_app("control", backend.settings, routes)


def _check_ports(settings: Settings, *, services: bool) -> None:
    check_port(settings.host, settings.control_port, f"{PREFIX}CONTROL_PORT")
    if services:
        check_port(settings.host, settings.txt2img_port, f"{PREFIX}TXT2IMG_PORT")
        check_port(settings.host, settings.img2img_port, f"{PREFIX}IMG2IMG_PORT")
    if settings.engine_url is None:
        check_port("127.0.0.1", settings.engine_port, f"{PREFIX}ENGINE_PORT")


def _assemble_starter(settings: Settings, comfyui_dir: Path) -> None:
    # Imported here: `--no-starter` must not need it.
    from starter import CHECKPOINT_NAMES
    from starter.assemble import assemble

    own = _own_checkpoint([settings.models_dir, comfyui_dir / "models"], CHECKPOINT_NAMES)
    if own is not None:
        say("starter", f"not needed, there is {own.name}")
        return
    begun = time.monotonic()
    try:
        written = assemble(settings.models_dir)
    except OSError as error:
        raise SetupError(
            "starter", f"the starter model could not be written: {error}", hint="is the disk full?"
        ) from error
    took = f", {len(written)} files assembled in {time.monotonic() - begun:.1f} s" if written else ""
    say("starter", f"a small model of coloured shapes, and its kit{took}")


def _own_checkpoint(models_dirs: list[Path], ours: frozenset[str]) -> Path | None:
    """A checkpoint that is not of the starter, if there is one."""
    found = (
        path
        for folder in models_dirs
        for path in sorted((folder / "checkpoints").rglob("*"))
        if path.suffix in (".safetensors", ".ckpt") and path.name not in ours
    )
    return next(found, None)


def _health_check(settings: Settings, port: int) -> Callable[[], bool]:
    def healthy() -> bool:
        try:
            return requests.get(f"http://{reachable(settings.host)}:{port}/health", timeout=2, proxies={"http": ""}).ok
        except requests.RequestException:
            return False

    return healthy


def _greet(settings: Settings, *, services: bool) -> None:
    control = f"http://localhost:{settings.control_port}/api/models"
    if not services:
        say("control", control)
        say("next", "python txt2img_server.py and python img2img_server.py, each in a terminal of its own")
        return
    txt2img = f"localhost:{settings.txt2img_port}/api/txt2img"
    say("txt2img", f"http://{txt2img}")
    say("img2img", f"http://localhost:{settings.img2img_port}/api/img2img")
    say("control", control)
    # As a form, for quotes inside quotes are different in every shell.
    sys.stdout.write(
        "\n  Try, in another terminal:\n\n"
        f'    curl -sf {txt2img} -H "accept: image/png" -F "prompt=a red circle on a blue background" -o red.png\n\n'
        "  Ctrl-C stops everything.\n\n"
    )
    sys.stdout.flush()
