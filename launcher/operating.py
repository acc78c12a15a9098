"""The commands for what runs, or does not: `status`, `stop`, `open`, `logs`, `jobs`."""

import argparse
import os
import sys
import webbrowser
from collections.abc import Mapping

import psutil

from launcher.instance import Instance, Record, terminate
from launcher.jobs import run_jobs
from launcher.logs import show_logs
from launcher.stack import addresses_of
from launcher.status import NOTHING_RUNS, TIMEOUT, Status, probe, status_text
from launcher.terminal import BOLD, CYAN, activity, cause, paint, plain, print_error, print_status
from shared.engine.client import EngineClient, engine_access
from shared.errors import DreamLayerError, EngineDenied, EngineError, SetupError
from shared.files import restrict_umask
from shared.settings import PREFIX, Settings, load_settings

# Seconds in which a launcher that was asked to end does: it gives its children 8 of them.
END_TIMEOUT = 30.0


def run_operation(options: argparse.Namespace) -> int:
    """Does what was typed, and returns the exit code."""
    restrict_umask()
    try:
        settings = load_settings()
        instance = Instance(settings.data_dir)
        if options.command == "status":
            return _status(settings, instance)
        if options.command == "stop":
            return _stop(settings, instance)
        if options.command == "open":
            return _open_engine(settings) if options.page == "engine" else _open(settings, instance)
        if options.command == "logs":
            return show_logs(settings, options.name, lines=options.lines, follow=options.follow)
        return run_jobs(settings, options, running=instance.running() is not None)
    except DreamLayerError as error:
        print_error(error.step if isinstance(error, SetupError) else options.command, plain(error.message), error.hint)
    except BrokenPipeError:
        raise
    except OSError as error:
        print_error(options.command, cause(error), "may this user read and write the data folder?")
    return 1


def _status(settings: Settings, instance: Instance) -> int:
    status = probe(settings, instance.running())
    sys.stdout.write(status_text(status, settings.log_dir, paint))
    return status.exit_code


def _stop(settings: Settings, instance: Instance) -> int:
    record = instance.running()
    if record is None:
        return _nothing_to_stop(probe(settings, None))
    if not is_launcher(record):
        raise SetupError("stop", f"process {record.pid} is no launcher", hint="type the same command again")
    instance.ask_to_stop(record, None if sys.platform == "win32" else terminate)
    with activity("stopping", f"process {record.pid}"):
        ended = instance.wait_for_end(END_TIMEOUT)
    if not ended:
        # Its children hold a pipe from it, and end with it.
        psutil.Process(record.pid).kill()
        if not instance.wait_for_end(END_TIMEOUT):
            raise SetupError("stop", f"process {record.pid} does not end", hint="end it with the system's own means")
        print_status("stopped", f"process {record.pid} did not end within {END_TIMEOUT:.0f} s and was killed")
        return 0
    print_status("stopped", f"everything that process {record.pid} had started")
    return 0


def _nothing_to_stop(status: Status) -> int:
    if not status.services:
        print_status("stopped", "nothing was running")
        return 0
    print_error(
        "stop",
        f"no launcher runs on this data folder, but {' and '.join(status.services)} answered",
        "end what was started by hand in its own terminal, with Ctrl-C",
    )
    return 1


def is_launcher(record: Record) -> bool:
    """Whether the process of that id is the one that wrote the record, and not a later one of the same id."""
    try:
        process = psutil.Process(record.pid)
        # The record was written after the process began; a second more for clocks that count roughly.
        return bool(process.create_time() <= record.started + 1) and any(
            argument.endswith("dream_layer.py") for argument in process.cmdline()
        )
    except psutil.NoSuchProcess:
        return False


def _open(settings: Settings, instance: Instance) -> int:
    page = addresses_of(settings).page
    if not any(part.answers for part in probe(settings, instance.running()).parts if part.name == "txt2img"):
        print_error("open", f"nothing answers at {page}", "python dream_layer.py up starts it")
        return NOTHING_RUNS
    opened = _in_browser(page)
    print_status("page" if not opened else "opened", paint(page, BOLD, CYAN))
    return 0


def _open_engine(settings: Settings) -> int:
    if settings.engine_url is None and not settings.engine_page:
        raise SetupError(
            "open", "ComfyUI's own page is not installed", hint=f"{PREFIX}ENGINE_PAGE=true and a new start bring it"
        )
    access = engine_access(settings)
    try:
        EngineClient(settings.engine_address, access).get_system_stats(TIMEOUT)
    except EngineDenied:
        raise
    except EngineError as error:
        print_error("open", error.message, error.hint)
        return NOTHING_RUNS
    page = access.page_url(settings.engine_address)
    if _in_browser(page):
        # Without the token, which the browser has now.
        print_status("opened", paint(f"{settings.engine_address}/", BOLD, CYAN))
    else:
        print_status("page", paint(page, BOLD, CYAN))
        print_status("", "good until the engine is started again")
    return 0


def _in_browser(page: str) -> bool:
    return has_desktop(sys.platform, os.environ) and webbrowser.open(page)


def has_desktop(platform: str, environ: Mapping[str, str]) -> bool:
    """Whether a browser's window can open here. Without one, Python would start a browser in the terminal."""
    return platform in ("darwin", "win32") or bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))
