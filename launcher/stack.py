"""Starts and stops everything: the engine and, for `up`, both services as child processes; the control service here.

`Stack.start` goes through it in order: ports, engine, services, control service, and the wait for the engine.
"""

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
from launcher.instance_lock import InstanceLock
from launcher.packages import PackagesError, install_packages
from launcher.status import StackUrls, ready_text, running_text
from launcher.supervised_server import SupervisedServer
from launcher.terminal import (
    BOLD,
    activity,
    can_overwrite,
    erase_prefix,
    os_error_text,
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
from shared.web.run_service import return_freed_memory
from shared.web.server.connections import raise_descriptor_limit
from shared.web.server.liveness import check_liveness
from shared.web.server.ports import check_port, find_free_ports, url_host
from shared.web.server.run import make_server

log = logging.getLogger(__name__)

# Seconds within which a service must answer after its start.
SERVICE_START_TIMEOUT = 60.0
# The limit on open files of this process and its children.
DESCRIPTORS = 8192


def run_stack(*, services: bool, starter: bool) -> int:
    """Start everything, wait for Ctrl-C, SIGTERM or `stop`, then stop everything. Returns the exit code.

    Raises KeyboardInterrupt if it was interrupted before everything had started.
    """
    _add_log_handler(logging.StreamHandler(), f"{erase_prefix(sys.stderr)}  %(asctime)s     %(message)s")
    logging.getLogger("waitress").setLevel(logging.WARNING)
    return_freed_memory()
    restrict_umask()
    silence_decoders()
    # Inherited by the child processes: the engine's port may receive many connections too.
    raise_descriptor_limit(DESCRIPTORS)
    stack = Stack()
    lock: InstanceLock | None = None
    started = time.monotonic()
    try:
        sys.stdout.write(f"\n{paint(f'Dream Layer {__version__}', BOLD)}\n\n")
        settings = load_settings()
        urls = StackUrls.from_settings(settings)
        lock = InstanceLock(settings.data_dir)
        if not lock.acquire("up" if services else "run", asdict(urls)):
            return report_running(lock, services=services)
        restrict_permissions(settings.data_dir, ours=settings.has_own_data_dir)
        _add_log_file(settings)
        stack.start(settings, services=services, starter=starter)
        lock.mark_ready()
        print_status("ready", f"after {time.monotonic() - started:.1f} s")
        sys.stdout.write(ready_text(urls, services=services, windows=os.name == "nt", paint=paint))
        sys.stdout.flush()
        while not lock.stop_requested:
            # In short steps: on Windows, a wait without a timeout cannot be interrupted.
            time.sleep(0.5)
        return 0
    except SetupError as error:
        print_error(error.step, error.message, error.hint)
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        print_error(
            "files",
            os_error_text(error),
            f"is the disk full or a folder not writable? {PREFIX}DATA_DIR sets another data folder",
        )
        return 1
    except KeyboardInterrupt:
        if not stack.is_up:
            raise
        return 0
    finally:
        # A second Ctrl-C must not interrupt the shutdown.
        for number in stop_signals():
            signal.signal(number, signal.SIG_IGN)
        stack.stop()
        if lock is not None:
            lock.release()


def report_running(lock: InstanceLock, *, services: bool) -> int:
    """Report what is already running on the data folder; returns 0 if that is everything asked for, else 1."""
    record = lock.holder()
    urls = None if record is None else StackUrls.from_record(record.addresses)
    if record is None or urls is None:
        print_error("start", "another launcher is just starting or stopping", "run the same command again")
        return 1
    has_services = record.command == "up"
    if services and not has_services:
        print_error(
            "start",
            f"the engine is already running, without the services (process {record.pid})",
            "start the services with `python txt2img_server.py` and `python img2img_server.py`, "
            "or stop the engine first: `python dream_layer.py stop`",
        )
        return 1
    print_status("running", f"{'already' if record.ready else 'already, but still starting'} (process {record.pid})")
    sys.stdout.write(running_text(urls, services=has_services, paint=paint))
    return 0


class Stack:
    """The engine, the services and the control service: starts them, and stops what was started."""

    def __init__(self) -> None:
        self._supervisors: list[Supervisor] = []
        self._manager: EngineManager | None = None
        self._backend: Backend | None = None
        self._control: SupervisedServer | None = None
        self.is_up = False
        """Whether everything has started."""

    def start(self, settings: Settings, *, services: bool, starter: bool) -> None:
        """Start everything; slow steps overlap. Raises SetupError."""
        _check_ports(settings, services=services)
        self._backend = backend = Backend(settings)
        _report_unfinished_jobs(backend.jobs.count_unfinished())
        supervisor: Supervisor | None = None
        command: Callable[[], Sequence[str]] = list
        if settings.engine_url is None:
            supervisor, command = self._start_engine(settings, backend, starter=starter)
        store = backend.jobs.store
        self._manager = manager = EngineManager(
            backend.engine, supervisor, command, store.count_unfinished, partial(_record_engine_stop, store)
        )
        started = time.monotonic()
        if services:
            self._start_services(settings)
        backend.start(manager.restart_now if manager.is_ours else None)
        self._start_control(settings, backend, manager)
        self._wait_for_engine(settings, backend, supervisor, started)
        self.is_up = True

    def stop(self) -> None:
        """Stop everything that was started, all at the same time."""
        started = time.monotonic()
        if self._supervisors or self._control is not None:
            # On the line below the ^C that a terminal shows.
            sys.stdout.write("\n" if can_overwrite(sys.stdout) else "")
            print_status("stopping", "...")
        if self._manager is not None:
            self._manager.close()
        if self._backend is not None:
            self._backend.stop()
        stops = [supervisor.stop for supervisor in self._supervisors]
        if self._control is not None:
            stops.append(self._control.stop)
        threads = [threading.Thread(target=stop) for stop in stops]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._backend is not None and self._manager is not None and self._manager.is_ours:
            # Services that were started by hand continue; they must not count this stop as a crash of a job.
            _record_engine_stop(self._backend.jobs.store)
            self._backend.jobs.store.close()
        if threads:
            print_status("stopped", f"everything, after {time.monotonic() - started:.1f} s")

    def _start_engine(
        self, settings: Settings, backend: Backend, *, starter: bool
    ) -> tuple[Supervisor, Callable[[], Sequence[str]]]:
        """Install what is missing and start the engine; returns its supervisor and its command, without waiting."""
        with activity("engine", "looking for ComfyUI, or downloading it (30 MB)"):
            comfyui_dir = find_engine(settings)
        print_status("engine", f"ComfyUI {comfyui_version(comfyui_dir)} in {comfyui_dir}")
        if settings.engine_page and settings.engine_python is None and not has_page():
            _install_page()
        if starter:
            with activity("starter", "creating the starter model"):
                _assemble_starter(settings, comfyui_dir)
        cpu = use_cpu(settings)
        supervisor = make_supervisor(settings, backend.engine, comfyui_dir, cpu=cpu)
        self._start_child(supervisor)
        print_status("engine", f"starting on the {'CPU' if cpu else 'GPU'}; log: {supervisor.child.log_path}")
        return supervisor, partial(engine_command, settings, comfyui_dir, settings.data_dir.resolve(), cpu=cpu)

    def _start_services(self, settings: Settings) -> None:
        """Start both services, and wait until they answer."""
        supervisors = []
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
            is_alive = partial(is_service_alive, settings, port, probe_file)
            supervisors.append(Supervisor(child, is_alive, SERVICE_START_TIMEOUT))
            self._start_child(supervisors[-1])
        for supervisor in supervisors:
            supervisor.wait_ready()

    def _start_control(self, settings: Settings, backend: Backend, manager: EngineManager) -> None:
        """Start the control service in a thread of this process."""
        uploads = ModelUploads(settings, backend.catalog)
        uploads.sweep()
        app = control_app(backend, manager, uploads)
        ports = [settings.control_port, *_free_page_ports(settings)]
        self._control = SupervisedServer(
            "control", lambda: make_server(app, settings, *ports, large=uploads.large_body)
        )
        self._control.start()

    def _wait_for_engine(
        self, settings: Settings, backend: Backend, supervisor: Supervisor | None, started: float
    ) -> None:
        """Wait until the engine answers and has generated a test picture. Raises SetupError."""
        if supervisor is not None:
            with activity("engine", "starting"):
                supervisor.wait_ready()
        try:
            with activity("engine", "generating a test picture"):
                proven = draw_test_picture(backend.engine)
        except EngineError as error:
            raise engine_setup_error(error, settings) from error
        print_status("engine", engine_text(settings.engine_address, time.monotonic() - started, proven=proven))

    def _start_child(self, supervisor: Supervisor) -> None:
        self._supervisors.append(supervisor)
        supervisor.start()


# -- ports


def _check_ports(settings: Settings, *, services: bool) -> None:
    """Raise SetupError if something already listens on one of our ports."""
    check_port(settings.host, settings.control_port, f"{PREFIX}CONTROL_PORT")
    if services:
        check_port(settings.host, settings.txt2img_port, f"{PREFIX}TXT2IMG_PORT")
        check_port(settings.host, settings.img2img_port, f"{PREFIX}IMG2IMG_PORT")
    if settings.engine_url is None:
        check_port("127.0.0.1", settings.engine_port, f"{PREFIX}ENGINE_PORT")


def _free_page_ports(settings: Settings) -> list[int]:
    """Return the web page's ports that are free, and report the others.

    A taken port is no reason to stop: the control service's own port has all routes, and only the web page needs these.
    """
    ports, errors = find_free_ports(settings.host, settings.page_ports)
    for error in errors:
        print_status("web page", f"without {error.step}: {error.message} ({error.hint})")
    return ports


# -- engine


def _install_page() -> None:
    """Install ComfyUI's own web page into this environment. Raises SetupError."""
    try:
        install_packages(Path(sys.executable), [PROJECT_DIR / "requirements-page.txt"], SETUP_LOG, update_pip=False)
    except PackagesError as error:
        raise SetupError(
            "engine page",
            f"pip could not install it. The end of {SETUP_LOG}:\n{error}",
            hint=f"unset {PREFIX}ENGINE_PAGE to start without it",
        ) from error


def _assemble_starter(settings: Settings, comfyui_dir: Path) -> None:
    """Create the starter model, unless the user has a checkpoint. Raises SetupError."""
    # Imported here: `--no-starter` works without it.
    from starter import CHECKPOINT_NAMES
    from starter.assemble import assemble

    own = own_checkpoint([settings.models_dir, comfyui_dir / "models"], CHECKPOINT_NAMES)
    if own is not None:
        print_status("starter", f"not needed, using {own.name}")
        return
    started = time.monotonic()
    try:
        written = assemble(settings.models_dir)
    except OSError as error:
        raise SetupError(
            "starter", f"the starter model could not be written: {os_error_text(error)}", hint="is the disk full?"
        ) from error
    note = f", {len(written)} files created in {time.monotonic() - started:.1f} s" if written else ""
    print_status("starter", f"a small model of coloured shapes, with LoRA, ControlNet and others{note}")


def own_checkpoint(models_dirs: list[Path], starter_names: frozenset[str]) -> Path | None:
    """Return a checkpoint of the user's own that generates pictures from a prompt alone, if there is one."""
    candidates = (
        path
        for folder in models_dirs
        for path in walk_files(folder / "checkpoints")
        if path.suffix.lower() in (".safetensors", ".ckpt") and path.name not in starter_names
    )
    return next((path for path in candidates if is_text_to_image(classify(path.name, read_header(path)))), None)


def engine_text(address: str, seconds: float, *, proven: bool) -> str:
    """Describe an engine that answers: it has generated a test picture, or has jobs to finish first."""
    if proven:
        return f"generated its first picture after {seconds:.1f} s: {address}"
    return f"answers after {seconds:.1f} s and is finishing earlier jobs: {address}"


def engine_setup_error(error: EngineError, settings: Settings) -> SetupError:
    """Return the error for an engine that failed to generate a test picture; it names the engine's address once."""
    address = "" if settings.engine_address in error.message else f" ({settings.engine_address})"
    hint = error.hint or "is this a ComfyUI 0.30?"
    if settings.engine_url is not None:
        hint = f"is a ComfyUI 0.30 running there? Without {PREFIX}ENGINE_URL, the launcher starts one here"
    return SetupError("engine", f"{error.message}{address}", hint=hint)


def _record_engine_stop(store: Store) -> None:
    try:
        store.record_engine_stop()
    except StorageFailed as error:
        log.warning("the engine's stop could not be recorded: %s", error)


# -- services


def is_service_alive(settings: Settings, port: int, probe_file: Path) -> bool:
    """Whether a service answers its liveness check, which works even if clients fill its own port."""
    alive = check_liveness(probe_file)
    if alive is not None:
        return alive
    # Without waitress there is only the service's own port.
    try:
        return requests.get(f"http://{url_host(settings.host)}:{port}/health", timeout=2, proxies={"http": ""}).ok
    except requests.RequestException:
        return False


# -- output


def _report_unfinished_jobs(count: int) -> None:
    if count:
        jobs = "1 unfinished job" if count == 1 else f"{count} unfinished jobs"
        print_status("jobs", f"{jobs} from before will be finished now")
        print_status("", "`python dream_layer.py jobs list` shows them, `jobs cancel all` cancels them")


def _add_log_handler(handler: logging.Handler, template: str) -> None:
    handler.setFormatter(logging.Formatter(template, datefmt="%H:%M:%S"))
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)


def _add_log_file(settings: Settings) -> None:
    """Write the log of the launcher and the control service to a file too, for `logs`."""
    settings.log_dir.mkdir(parents=True, exist_ok=True)
    path = settings.log_dir / "launcher.log"
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=MAX_LOG_BYTES, backupCount=1, encoding="utf-8")
    _add_log_handler(handler, "%(asctime)s %(levelname)-7s %(message)s")
