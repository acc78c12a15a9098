"""The commands for a running or stopped stack: `status`, `stop`, `open`, `logs`, `jobs`."""

import argparse
import os
import sys
import webbrowser
from collections.abc import Mapping

import psutil

from launcher.instance_lock import InstanceLock, InstanceRecord, terminate
from launcher.jobs_command import run_jobs
from launcher.logs import show_logs
from launcher.status import NOT_RUNNING, TIMEOUT, StackStatus, StackUrls, query_status, status_text
from launcher.terminal import (
    BOLD,
    CYAN,
    activity,
    os_error_text,
    paint,
    print_error,
    print_status,
    strip_controls,
)
from shared.engine.client import EngineClient, engine_access
from shared.errors import DreamLayerError, EngineDenied, EngineError, SetupError
from shared.files import restrict_umask
from shared.settings import PREFIX, Settings, load_settings

# Seconds within which a launcher must end; it gives its child processes 8 of them.
STOP_TIMEOUT = 30.0


def run_command(options: argparse.Namespace) -> int:
    """Run one of these commands; returns its exit code."""
    restrict_umask()
    try:
        settings = load_settings()
        lock = InstanceLock(settings.data_dir)
        if options.command == "status":
            return _status(settings, lock)
        if options.command == "stop":
            return _stop(settings, lock)
        if options.command == "open":
            return _open_engine(settings) if options.page == "engine" else _open(settings, lock)
        if options.command == "logs":
            return show_logs(settings, options.name, lines=options.lines, follow=options.follow)
        return run_jobs(settings, options, running=lock.holder() is not None)
    except DreamLayerError as error:
        step = error.step if isinstance(error, SetupError) else options.command
        print_error(step, strip_controls(error.message), error.hint)
    except BrokenPipeError:
        raise
    except OSError as error:
        print_error(options.command, os_error_text(error), "can this user read and write the data folder?")
    return 1


def _status(settings: Settings, lock: InstanceLock) -> int:
    status = query_status(settings, lock.holder())
    sys.stdout.write(status_text(status, settings.log_dir, paint))
    return status.exit_code


def _stop(settings: Settings, lock: InstanceLock) -> int:
    record = lock.holder()
    if record is None:
        return _report_no_launcher(query_status(settings, None))
    if not is_launcher(record):
        raise SetupError("stop", f"process {record.pid} is not a launcher", hint="run the same command again")
    lock.request_stop(record, None if sys.platform == "win32" else terminate)
    with activity("stopping", f"process {record.pid}"):
        ended = lock.wait_for_end(STOP_TIMEOUT)
    if not ended:
        # Its child processes hold a pipe to it, and end with it.
        psutil.Process(record.pid).kill()
        if not lock.wait_for_end(STOP_TIMEOUT):
            raise SetupError("stop", f"process {record.pid} does not end", hint="end it with the system's task manager")
        print_status("stopped", f"process {record.pid} did not end within {STOP_TIMEOUT:.0f} s and was killed")
        return 0
    print_status("stopped", f"everything that process {record.pid} had started")
    return 0


def _report_no_launcher(status: StackStatus) -> int:
    if not status.services:
        print_status("stopped", "nothing was running")
        return 0
    print_error(
        "stop",
        f"no launcher is running on this data folder, but {' and '.join(status.services)} answered",
        "stop what was started by hand in its own terminal, with Ctrl-C",
    )
    return 1


def is_launcher(record: InstanceRecord) -> bool:
    """Whether the process with that id is the launcher that wrote the record, and not a later process."""
    try:
        process = psutil.Process(record.pid)
        # The record is newer than the process; one second more for coarse clocks.
        return bool(process.create_time() <= record.started + 1) and any(
            argument.endswith("dream_layer.py") for argument in process.cmdline()
        )
    except psutil.NoSuchProcess:
        return False


def _open(settings: Settings, lock: InstanceLock) -> int:
    page = StackUrls.from_settings(settings).page
    if "txt2img" not in query_status(settings, lock.holder()).services:
        print_error("open", f"nothing answers at {page}", "`python dream_layer.py up` starts it")
        return NOT_RUNNING
    opened = _open_in_browser(page)
    print_status("opened" if opened else "page", paint(page, BOLD, CYAN))
    return 0


def _open_engine(settings: Settings) -> int:
    if settings.engine_url is None and not settings.engine_page:
        raise SetupError(
            "open",
            "ComfyUI's own page is not installed",
            hint=f"set {PREFIX}ENGINE_PAGE=true and start again to install it",
        )
    access = engine_access(settings)
    try:
        EngineClient(settings.engine_address, access).get_system_stats(TIMEOUT)
    except EngineDenied:
        raise
    except EngineError as error:
        print_error("open", error.message, error.hint)
        return NOT_RUNNING
    page = access.page_url(settings.engine_address)
    if _open_in_browser(page):
        # Without the token: the browser has it now, and the output may be logged.
        print_status("opened", paint(f"{settings.engine_address}/", BOLD, CYAN))
    else:
        print_status("page", paint(page, BOLD, CYAN))
        print_status("", "valid until the engine restarts")
    return 0


def _open_in_browser(page: str) -> bool:
    return has_desktop(sys.platform, os.environ) and webbrowser.open(page)


def has_desktop(platform: str, environ: Mapping[str, str]) -> bool:
    """Whether a browser window can open here. Without a desktop, Python would start a browser in the terminal."""
    return platform in ("darwin", "win32") or bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))
