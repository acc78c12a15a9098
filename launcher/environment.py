"""Finds or creates the Python environment that everything runs in. Standard library only.

The rules, in this order:
1. An interpreter with all packages of requirements.in (an environment of the user's own) is used as it is.
2. Else `.venv` in the project folder is used; it is created, completed or updated as needed.
3. With `--no-install`, nothing is created or changed: missing packages are an error.

A marker file is in `.venv` while pip works; a `.venv` with that file is incomplete and is created again. A complete
`.venv` contains a stamp with the hash of each requirements file that was installed.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import venv
from pathlib import Path

from launcher.instance_lock import InstanceLock, InstanceRecord, terminate
from launcher.packages import PackagesError, install_packages
from launcher.terminal import activity, os_error_text, print_status, time_text

PROJECT_DIR = Path(__file__).resolve().parents[1]
VENV = PROJECT_DIR / ".venv"
STAMP = VENV / "dream-layer-complete"
INSTALLING_MARKER = VENV / "dream-layer-installing"
# In the default data folder: it is written before any setting can be read.
SETUP_LOG = PROJECT_DIR / "data" / "logs" / "setup.log"
STEP = "environment"

# The packages that the services import; waitress is optional.
SERVICE_MODULES = (
    *("flask", "flask_cors", "pydantic", "pydantic_settings", "requests"),
    *("sqlalchemy", "urllib3", "websocket", "PIL"),
)
# Names of missing packages that an error shows.
MAX_NAMES = 4
# Seconds within which an installation must end when asked to.
STOP_TIMEOUT = 30.0

HOW_TO_INSTALL = "pip install -r requirements.txt"
RUNTIME = ["requirements"]
DEVELOPMENT = ["requirements", "requirements-dev"]
# The lock contains every package but torch.
DEVELOPMENT_WITHOUT_TORCH = ["requirements.lock", "requirements-dev"]


class SetupIncompleteError(Exception):
    """The environment cannot be used or created."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def find_environment(requirements: list[str], *, install: bool) -> Path:
    """Return the Python to run with: sys.executable if this one has all packages.

    `requirements` are the names of files such as requirements.in, without their suffix. Raises SetupIncompleteError.
    """
    inside = Path(sys.prefix).resolve() == VENV.resolve()
    missing = missing_packages(requirements)
    if not missing and not (inside and install):
        return Path(sys.executable)
    if install:
        return _create(requirements)
    if not inside and is_venv_complete():
        return _python_of(VENV)
    record = setup_lock().holder()
    if record is not None:
        raise _installing_error(record)
    raise SetupIncompleteError(
        f"these packages are missing: {_list_names(missing)}",
        f"`python dream_layer.py up` installs them into .venv; in an environment of your own, run `{HOW_TO_INSTALL}`",
    )


def _list_names(names: list[str]) -> str:
    """Return the first names, and the number of the others."""
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def missing_packages(requirements: list[str]) -> list[str]:
    """Return the packages named in `<requirements>.in` that are not installed; of a lock, only those that it pins."""
    missing = []
    for name in requirements:
        source = name.removesuffix(".lock")
        wanted = _package_names(PROJECT_DIR / f"{source}.in")
        if name != source:
            pinned = set(_package_names(PROJECT_DIR / f"{name}.txt"))
            wanted = [package for package in wanted if package in pinned]
        for package in wanted:
            try:
                importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                missing.append(package)
    return missing


def _package_names(path: Path) -> list[str]:
    matches = (re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line) for line in path.read_text(encoding="utf-8").splitlines())
    return [match[0] for match in matches if match is not None]


def _create(requirements: list[str]) -> Path:
    """Create or complete `.venv`; returns its Python."""
    python = _python_of(VENV)
    wanted = {name: _fingerprint(name) for name in requirements}
    installed: dict[str, str] = json.loads(STAMP.read_text(encoding="utf-8")) if STAMP.is_file() else {}
    if wanted.items() <= installed.items() and not INSTALLING_MARKER.exists() and python.is_file():
        return python
    lock = setup_lock()
    # Two pips would corrupt the environment.
    if not lock.acquire("set-up"):
        raise _installing_error(lock.holder())
    try:
        _complete(python, installed, wanted)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SetupIncompleteError(
            f"{VENV} could not be created: {os_error_text(error)}",
            "is the disk full, or the project folder not writable?",
        ) from error
    finally:
        lock.release()
    return python


def _complete(python: Path, installed: dict[str, str], wanted: dict[str, str]) -> None:
    """Create `.venv` again if it is incomplete, and install the wanted requirements."""
    started = time.monotonic()
    if INSTALLING_MARKER.exists() or not _works(python):
        try:
            with activity(STEP, "creating .venv"):
                venv.EnvBuilder(with_pip=True, clear=True, symlinks=os.name != "nt").create(VENV)
            installed = {}
        # EnvBuilder runs ensurepip in a child process, which fails on systems that package it separately.
        except (subprocess.CalledProcessError, OSError) as error:
            raise SetupIncompleteError(
                f"a virtual environment could not be created in {VENV}: {error}",
                "on Debian and Ubuntu, run `apt install python3-venv`, then the same command again",
            ) from error
        print_status(STEP, f"created .venv in {time_text(time.monotonic() - started)}")
    print_status(STEP, "installing packages" + ("" if installed else " (the first time, this can take some minutes)"))
    INSTALLING_MARKER.touch()
    try:
        files = [path for name in wanted for path in _locks(name)]
        install_packages(python, files, SETUP_LOG, update_pip=True)
    except PackagesError as error:
        raise SetupIncompleteError(
            f"pip could not install the packages. The end of {SETUP_LOG}:\n{error}",
            "check the network, the disk (10 GB must be free) and pip's index; then run the same command again",
        ) from error
    STAMP.write_text(json.dumps({**installed, **wanted}), encoding="utf-8")
    INSTALLING_MARKER.unlink()
    print_status(STEP, f"ready in .venv after {time_text(time.monotonic() - started)}")


def is_venv_complete() -> bool:
    """Whether `.venv` has all packages that the commands need; `test --fast` creates one without torch."""
    if not STAMP.is_file() or INSTALLING_MARKER.exists() or not _python_of(VENV).is_file():
        return False
    return RUNTIME[0] in json.loads(STAMP.read_text(encoding="utf-8"))


def setup_lock() -> InstanceLock:
    """Return the lock that a process holds while it creates or completes `.venv`."""
    return InstanceLock(PROJECT_DIR / "data", "setup")


def _installing_error(record: InstanceRecord | None) -> SetupIncompleteError:
    by = "another process" if record is None else f"process {record.pid}"
    return SetupIncompleteError(
        f"{by} is installing the packages",
        f"wait until it has finished, or press Ctrl-C in its terminal; its log is {SETUP_LOG}",
    )


def stop_setup() -> int | None:
    """End an installation that runs in another terminal; returns its process id, or None. Raises OSError."""
    lock = setup_lock()
    record = lock.holder()
    # Windows has no signal for this; the error tells the user to press Ctrl-C in that terminal.
    if record is None or sys.platform == "win32":
        return None
    terminate(record.pid)
    return record.pid if lock.wait_for_end(STOP_TIMEOUT) else None


def enter_environment(script: str) -> None:
    """Run a service script in `.venv` if this Python lacks packages; returns if it has all of them.

    Raises SystemExit with the service's exit code, or with an error message.
    """
    missing = [name for name in SERVICE_MODULES if importlib.util.find_spec(name) is None]
    if not missing:
        return
    if is_venv_complete() and Path(sys.prefix).resolve() != VENV.resolve():
        sys.exit(continue_in(_python_of(VENV), [script, *sys.argv[1:]]))
    record = setup_lock().holder()
    if record is not None:
        sys.exit(f"process {record.pid} is installing the packages: try again when it has finished")
    sys.exit(
        f"these packages are missing: {_list_names(missing)}. `python dream_layer.py up` installs them into .venv; "
        f"in an environment of your own, run `{HOW_TO_INSTALL}`"
    )


def continue_in(python: Path, command: list[str]) -> int:
    """Run a script with its arguments in another interpreter, in place of this process where possible.

    Returns the exit code on Windows; does not return elsewhere.
    """
    arguments = [str(python), *command]
    sys.stdout.flush()
    if os.name != "nt":
        os.execv(arguments[0], arguments)  # noqa: S606 - our own interpreter, no shell
    # On Windows, exec would return to the terminal at once.
    child = subprocess.Popen(arguments)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # the child process received the Ctrl-C too, and is stopping


def _locks(name: str) -> list[Path]:
    """Return the files that pin `<name>.in`: a lock with hashes if there is one, then the packages that it lacks."""
    return [path for path in (PROJECT_DIR / f"{name}.lock.txt", PROJECT_DIR / f"{name}.txt") if path.is_file()]


def _fingerprint(name: str) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in _locks(name))).hexdigest()


def _python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _works(python: Path) -> bool:
    """Whether an environment's Python and pip work; the Python that a `.venv` was created with may be removed."""
    if not python.is_file():
        return False
    try:
        return subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False
