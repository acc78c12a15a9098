"""Everything up: the engine and, for `up`, both services as children; the control service in this process."""

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import requests
from flask import Flask

from launcher.environment import PROJECT_DIR
from launcher.serving import ServedHere
from launcher.terminal import complain, say, stop_signals
from shared import __version__
from shared.child import Child, Keeper
from shared.engine.install import comfyui_version, install_page
from shared.engine.manager import EngineManager
from shared.engine.process import engine_command, find_engine, make_keeper, use_cpu
from shared.engine.proof import prove
from shared.errors import EngineError, SetupError
from shared.files import files_below
from shared.keys import KeyRing
from shared.settings import PREFIX, Settings, load_settings
from shared.web.app import create_app
from shared.web.backend import Backend
from shared.web.capacity import raise_descriptors
from shared.web.control.engine import engine_routes
from shared.web.control.extras import extras_routes
from shared.web.control.fetch_prompt import suggestion_routes
from shared.web.control.img2txt import img2txt_routes
from shared.web.control.keys import key_routes
from shared.web.control.model_upload import ModelUploads, model_upload_routes
from shared.web.control.models import controlnet_routes, model_routes
from shared.web.control.paths import path_routes
from shared.web.control.pictures import sending_routes
from shared.web.control.report import report_routes
from shared.web.control.runs import run_routes
from shared.web.jobs import job_routes
from shared.web.memory import return_freed_memory
from shared.web.native import image_routes
from shared.web.options import option_routes
from shared.web.pnginfo import pnginfo_routes
from shared.web.probe import probe
from shared.web.ready import ready_routes
from shared.web.serve import check_port, make_server, open_ports, reachable
from shared.web.uploading import upload_routes

SERVICE_START_TIMEOUT = 60.0
DESCRIPTORS = 8192


def run_house(*, services: bool, starter: bool) -> int:
    """Starts everything, waits for Ctrl-C or SIGTERM, stops everything. Returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="  %(asctime)s     %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("waitress").setLevel(logging.WARNING)
    return_freed_memory()
    # Children inherit it: the engine, too, is to bear a crowd before its port.
    raise_descriptors(DESCRIPTORS)
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
        self._manager: EngineManager | None = None
        self._backend: Backend | None = None
        self._control: ServedHere | None = None

    def start(self, settings: Settings, *, services: bool, starter: bool) -> None:
        """Starts all there is to start, in an order that lets slow things overlap. Raises SetupError."""
        _check_ports(settings, services=services)
        self._backend = Backend(settings)
        engine = self._backend.engine
        keeper: Keeper | None = None
        command: Callable[[], Sequence[str]] = list
        if settings.engine_url is None:
            comfyui_dir = find_engine(settings)
            say("engine", f"ComfyUI {comfyui_version(comfyui_dir)} in {comfyui_dir}")
            if settings.engine_page and settings.engine_python is None:
                install_page()
            if starter:
                _assemble_starter(settings, comfyui_dir)
            cpu = use_cpu(settings)
            keeper = make_keeper(settings, engine, comfyui_dir, cpu=cpu)
            command = partial(engine_command, settings, comfyui_dir, settings.data_dir.resolve(), cpu=cpu)
            self._start(keeper)
            say("engine", f"starting on the {'CPU' if cpu else 'GPU'}; log: {keeper.child.log_path}")
        self._manager = EngineManager(engine, keeper, command, self._backend.store.count_unfinished)
        begun = time.monotonic()
        if services:
            self._start_services(settings)
        self._backend.start()
        self._start_control(self._backend, self._manager)
        if keeper is not None:
            keeper.wait_ready()
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
        if self._manager is not None:
            self._manager.close()
        if self._backend is not None:
            self._backend.stop()
        stopping = [threading.Thread(target=each.stop) for each in (*self._keepers, self._control) if each is not None]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        if stopping:
            say("stopped", "all of it")

    def _start(self, keeper: Keeper) -> None:
        self._keepers.append(keeper)
        keeper.start()

    def _start_services(self, settings: Settings) -> None:
        keepers = []
        for name, port in (("txt2img", settings.txt2img_port), ("img2img", settings.img2img_port)):
            probe_file = settings.data_dir.resolve() / "run" / f"{name}.probe"
            probe_file.unlink(missing_ok=True)
            child = Child(
                name,
                [PROJECT_DIR / f"{name}_server.py", "--probe-file", probe_file],
                python=sys.executable,
                folder=PROJECT_DIR,
                log_path=settings.log_dir.resolve() / f"{name}.log",
            )
            keepers.append(Keeper(child, _service_lives(settings, port, probe_file), SERVICE_START_TIMEOUT))
            self._start(keepers[-1])
        for keeper in keepers:
            keeper.wait_ready()

    def _start_control(self, backend: Backend, manager: EngineManager) -> None:
        settings = backend.settings
        uploads = ModelUploads(settings, backend.catalog)
        uploads.sweep()
        app = build_control(backend, manager, uploads)
        ports = [settings.control_port, *_page_ports(settings)]
        self._control = ServedHere("control", lambda: make_server(app, settings, *ports, large=uploads.large_body))
        self._control.start()


def build_control(backend: Backend, manager: EngineManager, uploads: ModelUploads) -> Flask:
    """The control service's application."""
    routes = [
        engine_routes(manager),
        model_routes(backend.catalog, backend.settings.checkpoint),
        controlnet_routes(backend.catalog),
        suggestion_routes(),
        model_upload_routes(uploads),
        upload_routes(backend),
        sending_routes(backend),
        path_routes(backend.paths, manager),
        key_routes(KeyRing(backend.settings.data_dir)),
        image_routes(backend),
        job_routes(backend),
        ready_routes(backend),
        option_routes(backend),
        pnginfo_routes(backend),
        extras_routes(backend),
        run_routes(backend),
        report_routes(backend),
        img2txt_routes(),
    ]
    return create_app("control", backend.settings, routes)


def _check_ports(settings: Settings, *, services: bool) -> None:
    check_port(settings.host, settings.control_port, f"{PREFIX}CONTROL_PORT")
    if services:
        check_port(settings.host, settings.txt2img_port, f"{PREFIX}TXT2IMG_PORT")
        check_port(settings.host, settings.img2img_port, f"{PREFIX}IMG2IMG_PORT")
    if settings.engine_url is None:
        check_port("127.0.0.1", settings.engine_port, f"{PREFIX}ENGINE_PORT")


def _page_ports(settings: Settings) -> list[int]:
    """The ports of the web page that are free; a word about each that is not.

    That is no reason to stop: every route is on the control service's own port too, and who has no web page never
    asks here.
    """
    free, taken = open_ports(settings.host, settings.page_ports)
    for error in taken:
        say("web page", f"without {error.step}: {error.message} ({error.hint})")
    return free


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
        for path in files_below(folder / "checkpoints")
        if path.suffix in (".safetensors", ".ckpt") and path.name not in ours
    )
    return next(found, None)


def _service_lives(settings: Settings, port: int, probe_file: Path) -> Callable[[], bool]:
    """Whether a service answers: where no stranger reaches it, for a crowd before its own port is no fault of it."""

    def lives() -> bool:
        told = probe(probe_file)
        if told is not None:
            return told
        # Without waitress it has its own port alone.
        try:
            return requests.get(f"http://{reachable(settings.host)}:{port}/health", timeout=2, proxies={"http": ""}).ok
        except requests.RequestException:
            return False

    return lives


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
