"""Everything up: the engine and, for `up`, both services as children; the control service in this process."""

import logging
import logging.handlers
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import requests

from launcher.environment import PROJECT_DIR, SETUP_LOG
from launcher.greeting import Addresses, greeting, running_text
from launcher.instance import Instance
from launcher.packages import PackagesError, install_packages
from launcher.serving import ServedHere
from launcher.terminal import (
    BOLD,
    activity,
    can_move,
    cause,
    erase_prefix,
    paint,
    print_error,
    print_status,
    stop_signals,
)
from shared import __version__
from shared.engine.install import comfyui_version, has_page
from shared.engine.manager import EngineManager
from shared.engine.process import engine_command, find_engine, make_supervisor, use_cpu
from shared.engine.smoke_test import draw_test_picture
from shared.errors import EngineError, SetupError, StorageFailed
from shared.files import restrict_permissions, restrict_umask, walk_files
from shared.images.decode import silence_decoders
from shared.jobs.store import Store
from shared.models.defaults import is_text_to_image
from shared.models.detect import classify
from shared.models.safetensors import read_header
from shared.process.supervisor import MAX_LOG_BYTES, Child, Supervisor
from shared.settings import PREFIX, Settings, load_settings
from shared.web.app import control_app
from shared.web.backend import Backend
from shared.web.routes.models import ModelUploads
from shared.web.server.connections import raise_descriptor_limit
from shared.web.server.liveness import check_liveness
from shared.web.server.ports import check_port, find_free_ports, url_host
from shared.web.server.run import make_server
from shared.web.service import return_freed_memory

log = logging.getLogger(__name__)

SERVICE_START_TIMEOUT = 60.0
DESCRIPTORS = 8192


def run_stack(*, services: bool, starter: bool) -> int:
    """Starts everything, waits for Ctrl-C, SIGTERM or `stop`, stops everything. Returns the exit code.

    Raises KeyboardInterrupt if it was ended so before everything ran.
    """
    _log_to(logging.StreamHandler(), f"{erase_prefix(sys.stderr)}  %(asctime)s     %(message)s")
    logging.getLogger("waitress").setLevel(logging.WARNING)
    return_freed_memory()
    restrict_umask()
    silence_decoders()
    # Children inherit it: the engine, too, is to bear a crowd before its port.
    raise_descriptor_limit(DESCRIPTORS)
    stack = Stack()
    instance: Instance | None = None
    begun = time.monotonic()
    try:
        sys.stdout.write(f"\n{paint(f'Dream Layer {__version__}', BOLD)}\n\n")
        settings = load_settings()
        addresses = addresses_of(settings)
        instance = Instance(settings.data_dir)
        if not instance.hold("up" if services else "run", asdict(addresses)):
            return already_running(instance, services=services)
        restrict_permissions(settings.data_dir, ours=settings.has_own_data_dir)
        _keep_log(settings)
        stack.start(settings, services=services, starter=starter)
        instance.ready()
        print_status("ready", f"after {time.monotonic() - begun:.1f} s")
        sys.stdout.write(greeting(addresses, services=services, windows=os.name == "nt", paint=paint))
        sys.stdout.flush()
        while not instance.asked_to_stop:
            # Short, for on Windows a wait without end cannot be interrupted.
            time.sleep(0.5)
        return 0
    except SetupError as error:
        print_error(error.step, error.message, error.hint)
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        print_error(
            "files", cause(error), f"is the disk full or a folder not writable? {PREFIX}DATA_DIR moves the data"
        )
        return 1
    except KeyboardInterrupt:
        if not stack.is_up:
            raise
        return 0
    finally:
        # A second Ctrl-C must not leave the work of the first half done.
        for number in stop_signals():
            signal.signal(number, signal.SIG_IGN)
        stack.stop()
        if instance is not None:
            instance.release()


def already_running(instance: Instance, *, services: bool) -> int:
    """Says what runs on the data folder already; returns 0 if that is all that was asked for, else 1."""
    record = instance.running()
    addresses = None if record is None else Addresses.read(record.addresses)
    if record is None or addresses is None:
        print_error("start", "another launcher was just starting or stopping", "type the same command again")
        return 1
    with_services = record.command == "up"
    if services and not with_services:
        print_error(
            "start",
            f"the engine runs already, without the services (process {record.pid})",
            "start those with python txt2img_server.py and python img2img_server.py, "
            "or end it first: python dream_layer.py stop",
        )
        return 1
    print_status("running", f"{'already' if record.ready else 'already, but still starting'} (process {record.pid})")
    sys.stdout.write(running_text(addresses, services=with_services, paint=paint))
    return 0


class Stack:
    """What was started, so that it can be stopped."""

    def __init__(self) -> None:
        self._keepers: list[Supervisor] = []
        self._manager: EngineManager | None = None
        self._backend: Backend | None = None
        self._control: ServedHere | None = None
        self.is_up = False
        """Whether everything was started."""

    def start(self, settings: Settings, *, services: bool, starter: bool) -> None:
        """Starts all there is to start, in an order that lets slow things overlap. Raises SetupError."""
        _check_ports(settings, services=services)
        self._backend = Backend(settings)
        _tell_left_over(self._backend.jobs.unfinished())
        engine = self._backend.engine
        supervisor: Supervisor | None = None
        command: Callable[[], Sequence[str]] = list
        if settings.engine_url is None:
            with activity("engine", "looking for ComfyUI, or fetching it (30 MB)"):
                comfyui_dir = find_engine(settings)
            print_status("engine", f"ComfyUI {comfyui_version(comfyui_dir)} in {comfyui_dir}")
            if settings.engine_page and settings.engine_python is None and not has_page():
                _install_page()
            if starter:
                with activity("starter", "assembling the starter model"):
                    _assemble_starter(settings, comfyui_dir)
            cpu = use_cpu(settings)
            supervisor = make_supervisor(settings, engine, comfyui_dir, cpu=cpu)
            command = partial(engine_command, settings, comfyui_dir, settings.data_dir.resolve(), cpu=cpu)
            self._start(supervisor)
            print_status("engine", f"starting on the {'CPU' if cpu else 'GPU'}; log: {supervisor.child.log_path}")
        store = self._backend.jobs.store
        self._manager = EngineManager(engine, supervisor, command, store.count_unfinished, partial(_note_stop, store))
        begun = time.monotonic()
        if services:
            self._start_services(settings)
        self._backend.start(self._manager.restart_now if self._manager.is_ours else None)
        self._start_control(self._backend, self._manager)
        if supervisor is not None:
            with activity("engine", "starting"):
                supervisor.wait_ready()
        try:
            with activity("engine", "drawing a first picture"):
                proven = draw_test_picture(engine)
        except EngineError as error:
            raise engine_failed(error, settings) from error
        self.is_up = True
        print_status("engine", engine_text(settings.engine_address, time.monotonic() - begun, proven=proven))

    def stop(self) -> None:
        """Stops every child, all at once."""
        begun = time.monotonic()
        if self._keepers or self._control is not None:
            # Below the ^C that a terminal shows.
            sys.stdout.write("\n" if can_move(sys.stdout) else "")
            print_status("stopping", "...")
        if self._manager is not None:
            self._manager.close()
        if self._backend is not None:
            self._backend.stop()
        stopping = [threading.Thread(target=each.stop) for each in (*self._keepers, self._control) if each is not None]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        if self._backend is not None and self._manager is not None and self._manager.is_ours:
            # Services that were started by hand go on, and would blame a job.
            _note_stop(self._backend.jobs.store)
            self._backend.jobs.store.close()
        if stopping:
            print_status("stopped", f"all of it, after {time.monotonic() - begun:.1f} s")

    def _start(self, supervisor: Supervisor) -> None:
        self._keepers.append(supervisor)
        supervisor.start()

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
            keepers.append(Supervisor(child, _service_lives(settings, port, probe_file), SERVICE_START_TIMEOUT))
            self._start(keepers[-1])
        for supervisor in keepers:
            supervisor.wait_ready()

    def _start_control(self, backend: Backend, manager: EngineManager) -> None:
        settings = backend.settings
        uploads = ModelUploads(settings, backend.catalog)
        uploads.sweep()
        app = control_app(backend, manager, uploads)
        ports = [settings.control_port, *_page_ports(settings)]
        self._control = ServedHere("control", lambda: make_server(app, settings, *ports, large=uploads.large_body))
        self._control.start()


def engine_text(address: str, seconds: float, *, proven: bool) -> str:
    """What is said of an engine that answers: it drew a picture as a proof, or has jobs to finish first."""
    if proven:
        return f"drew its first picture after {seconds:.1f} s: {address}"
    return f"answers after {seconds:.1f} s and is finishing earlier jobs: {address}"


def engine_failed(error: EngineError, settings: Settings) -> SetupError:
    """The engine did not prove that it works: why, and at which address, which is named once."""
    where = "" if settings.engine_address in error.message else f" ({settings.engine_address})"
    hint = error.hint or "is this a ComfyUI 0.30?"
    if settings.engine_url is not None:
        hint = f"is a ComfyUI 0.30 running there? {PREFIX}ENGINE_URL names it; without that, one is started here"
    return SetupError("engine", f"{error.message}{where}", hint=hint)


def _note_stop(store: Store) -> None:
    try:
        store.note_engine_stop()
    except StorageFailed as error:
        log.warning("it could not be written down that the engine was ended: %s", error)


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
    free, taken = find_free_ports(settings.host, settings.page_ports)
    for error in taken:
        print_status("web page", f"without {error.step}: {error.message} ({error.hint})")
    return free


def _install_page() -> None:
    """Installs ComfyUI's own web page into this environment. Raises SetupError."""
    try:
        install_packages(Path(sys.executable), [PROJECT_DIR / "requirements-page.txt"], SETUP_LOG, update_pip=False)
    except PackagesError as error:
        raise SetupError(
            "engine page",
            f"pip could not install it. The end of {SETUP_LOG}:\n{error}",
            hint=f"unset {PREFIX}ENGINE_PAGE to do without",
        ) from error


def _assemble_starter(settings: Settings, comfyui_dir: Path) -> None:
    # Imported here: `--no-starter` must not need it.
    from starter import CHECKPOINT_NAMES
    from starter.assemble import assemble

    own = own_checkpoint([settings.models_dir, comfyui_dir / "models"], CHECKPOINT_NAMES)
    if own is not None:
        print_status("starter", f"not needed, there is {own.name}")
        return
    begun = time.monotonic()
    try:
        written = assemble(settings.models_dir)
    except OSError as error:
        raise SetupError(
            "starter", f"the starter model could not be written: {cause(error)}", hint="is the disk full?"
        ) from error
    took = f", {len(written)} files assembled in {time.monotonic() - begun:.1f} s" if written else ""
    print_status("starter", f"a small model of coloured shapes, and its kit{took}")


def own_checkpoint(models_dirs: list[Path], ours: frozenset[str]) -> Path | None:
    """A checkpoint that is not of the starter, if there is one that draws from a prompt alone."""
    found = (
        path
        for folder in models_dirs
        for path in walk_files(folder / "checkpoints")
        if path.suffix.lower() in (".safetensors", ".ckpt") and path.name not in ours
    )
    return next((path for path in found if is_text_to_image(classify(path.name, read_header(path)))), None)


def _service_lives(settings: Settings, port: int, probe_file: Path) -> Callable[[], bool]:
    """Whether a service answers: where no stranger reaches it, for a crowd before its own port is no fault of it."""

    def lives() -> bool:
        told = check_liveness(probe_file)
        if told is not None:
            return told
        # Without waitress it has its own port alone.
        try:
            return requests.get(f"http://{url_host(settings.host)}:{port}/health", timeout=2, proxies={"http": ""}).ok
        except requests.RequestException:
            return False

    return lives


def addresses_of(settings: Settings) -> Addresses:
    """Where everything listens, as this machine reaches it."""
    ports = {"txt2img": settings.txt2img_port, "img2img": settings.img2img_port, "control": settings.control_port}
    return Addresses.of(
        settings.host,
        ports,
        settings.engine_address,
        keyed=settings.api_key is not None,
        engine_page=settings.engine_page and settings.engine_url is None,
    )


def _tell_left_over(unfinished: int) -> None:
    if unfinished:
        count = "1 job is" if unfinished == 1 else f"{unfinished} jobs are"
        print_status("jobs", f"{count} left over from before, and will be finished now")
        print_status("", "`python dream_layer.py jobs list` shows them, `jobs cancel all` drops them")


def _log_to(handler: logging.Handler, form: str) -> None:
    handler.setFormatter(logging.Formatter(form, datefmt="%H:%M:%S"))
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)


def _keep_log(settings: Settings) -> None:
    """What the launcher and the control service log stands in a file too, for `logs`."""
    settings.log_dir.mkdir(parents=True, exist_ok=True)
    path = settings.log_dir / "launcher.log"
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=MAX_LOG_BYTES, backupCount=1, encoding="utf-8")
    _log_to(handler, "%(asctime)s %(levelname)-7s %(message)s")
