"""Finds or makes the Python environment that everything runs in. Standard library only.

The rules, in this order:
1. An interpreter that has all packages of requirements.in (an environment that the user made) is used as it is.
2. Else `.venv` in the project folder is used, made, completed or updated.
3. With `--no-install`, nothing is made or changed: what is missing is an error.

A half-done `.venv` is never trusted: a mark stands in it while pip works, and one that is found with the mark is made
anew. A `.venv` that is complete holds a stamp with the hash of each requirements file that it was made from.
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

from launcher.instance import Instance, Record, terminate
from launcher.packages import PackagesError, install_packages
from launcher.terminal import activity, cause, print_status, time_text

PROJECT_DIR = Path(__file__).resolve().parents[1]
VENV = PROJECT_DIR / ".venv"
STAMP = VENV / "dream-layer-complete"
MARK = VENV / "dream-layer-installing"
# Written before any setting can be read, so it is where the data folder is by default.
SETUP_LOG = PROJECT_DIR / "data" / "logs" / "setup.log"
STEP = "environment"

# What the services import beyond the standard library; waitress they can do without.
SERVICE_MODULES = (
    *("flask", "flask_cors", "pydantic", "pydantic_settings", "requests"),
    *("sqlalchemy", "urllib3", "websocket", "PIL"),
)
# Names of missing packages that are shown.
MOST_NAMES = 4
# Seconds in which a set-up that was asked to end does.
STOP_TIMEOUT = 30.0

HOW_TO_INSTALL = "pip install -r requirements.txt"
RUNTIME = ["requirements"]
DEVELOPMENT = ["requirements", "requirements-dev"]
# The lock has everything but torch.
DEVELOPMENT_WITHOUT_TORCH = ["requirements.lock", "requirements-dev"]


class SetupIncompleteError(Exception):
    """The environment cannot be used or made: why, and what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def find_environment(requirements: list[str], *, install: bool) -> Path:
    """The Python to run with, for the given requirement files (`requirements.in` and the like, without ending).

    Raises SetupIncompleteError. Equals sys.executable when this interpreter will do.
    """
    inside = Path(sys.prefix).resolve() == VENV.resolve()
    missing = missing_packages(requirements)
    if not missing and not (inside and install):
        return Path(sys.executable)
    if install:
        return _make(requirements)
    if not inside and is_complete():
        return _python_of(VENV)
    record = setup_lock().running()
    if record is not None:
        raise _setting_up(record)
    raise SetupIncompleteError(
        f"these packages are missing: {_first(missing)}",
        f"python dream_layer.py up installs them into .venv; or, in an environment of your own: {HOW_TO_INSTALL}",
    )


def _first(names: list[str]) -> str:
    """The first of many names: all of them would hide what to do."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def missing_packages(requirements: list[str]) -> list[str]:
    """Names in `<requirements>.in` that this interpreter has no package of; of a lock, only names that it pins."""
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


def _make(requirements: list[str]) -> Path:
    """Makes `.venv`, or completes it, and returns its Python."""
    python = _python_of(VENV)
    wanted = {name: _fingerprint(name) for name in requirements}
    installed: dict[str, str] = json.loads(STAMP.read_text(encoding="utf-8")) if STAMP.is_file() else {}
    if wanted.items() <= installed.items() and not MARK.exists() and python.is_file():
        return python
    lock = setup_lock()
    # Two pips in one environment would spoil it.
    if not lock.hold("set-up"):
        raise _setting_up(lock.running())
    try:
        _complete(python, installed, wanted)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SetupIncompleteError(
            f"{VENV} could not be made: {cause(error)}", "is the disk full, or the project folder not writable?"
        ) from error
    finally:
        lock.release()
    return python


def _complete(python: Path, installed: dict[str, str], wanted: dict[str, str]) -> None:
    """Makes `.venv` anew if it is half-done, and installs what is wanted."""
    begun = time.monotonic()
    if MARK.exists() or not _runs(python):
        try:
            with activity(STEP, "making .venv"):
                venv.EnvBuilder(with_pip=True, clear=True, symlinks=os.name != "nt").create(VENV)
            installed = {}
        # EnvBuilder runs ensurepip as a child; where the system splits it off, that child fails.
        except (subprocess.CalledProcessError, OSError) as error:
            raise SetupIncompleteError(
                f"a virtual environment could not be made in {VENV}: {error}",
                "on Debian and Ubuntu: apt install python3-venv; then run the same command again",
            ) from error
        print_status(STEP, f"made .venv in {time_text(time.monotonic() - begun)}")
    print_status(STEP, "installing packages" + ("" if installed else " (the first time; this can take some minutes)"))
    MARK.touch()
    try:
        files = [path for name in wanted for path in _locks(name)]
        install_packages(python, files, SETUP_LOG, update_pip=True)
    except PackagesError as error:
        raise SetupIncompleteError(
            f"pip could not install the packages. The end of {SETUP_LOG}:\n{error}",
            "check the network, the disk (10 GB must be free), and pip's index; then run the same command again",
        ) from error
    STAMP.write_text(json.dumps({**installed, **wanted}), encoding="utf-8")
    MARK.unlink()
    print_status(STEP, f"ready in .venv after {time_text(time.monotonic() - begun)}")


def is_complete() -> bool:
    """Whether `.venv` has all packages that the commands need; `test --fast` makes one without torch."""
    if not STAMP.is_file() or MARK.exists() or not _python_of(VENV).is_file():
        return False
    return RUNTIME[0] in json.loads(STAMP.read_text(encoding="utf-8"))


def setup_lock() -> Instance:
    """Held by the process that makes or completes `.venv`."""
    return Instance(PROJECT_DIR / "data", "setup")


def _setting_up(record: Record | None) -> SetupIncompleteError:
    by = "another process" if record is None else f"process {record.pid}"
    return SetupIncompleteError(
        f"the packages are being installed by {by}",
        f"wait for its end, or press Ctrl-C in its terminal; its log: {SETUP_LOG}",
    )


def stop_setup() -> int | None:
    """Ends a set-up that runs in another terminal; its process id, or None if there is none. Raises OSError."""
    lock = setup_lock()
    record = lock.running()
    # Windows has no signal for it; who tries is told to press Ctrl-C there.
    if record is None or sys.platform == "win32":
        return None
    terminate(record.pid)
    return record.pid if lock.wait_for_end(STOP_TIMEOUT) else None


def enter_environment(script: str) -> None:
    """Goes on in `.venv`, if this Python has not all that a service imports; returns if it has.

    Raises SystemExit: with the code that the service ends with, or with what to do.
    """
    missing = [name for name in SERVICE_MODULES if importlib.util.find_spec(name) is None]
    if not missing:
        return
    if is_complete() and Path(sys.prefix).resolve() != VENV.resolve():
        sys.exit(go_on_in(_python_of(VENV), [script, *sys.argv[1:]]))
    record = setup_lock().running()
    if record is not None:
        sys.exit(f"the packages are being installed by process {record.pid}: try again when it is done")
    sys.exit(
        f"this Python has no {_first(missing)}: run `python dream_layer.py up`, which makes a .venv that has, "
        f"or `{HOW_TO_INSTALL}` in one of your own"
    )


def go_on_in(python: Path, command: list[str]) -> int:
    """Goes on in another interpreter, with a script and its arguments; returns the exit code, if it returns."""
    whole = [str(python), *command]
    sys.stdout.flush()
    if os.name != "nt":
        os.execv(whole[0], whole)  # noqa: S606 - our own interpreter, no shell
    # Windows has no exec that keeps the terminal waiting.
    child = subprocess.Popen(whole)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # the child got the Ctrl-C too, and is stopping everything


def _locks(name: str) -> list[Path]:
    """What is installed for the needs in `<name>.in`: a lock with hashes, if there is one, and then what that lacks."""
    return [path for path in (PROJECT_DIR / f"{name}.lock.txt", PROJECT_DIR / f"{name}.txt") if path.is_file()]


def _fingerprint(name: str) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in _locks(name))).hexdigest()


def _python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _runs(python: Path) -> bool:
    """Whether an environment's Python and pip work; a `.venv` can be left over from a Python that is gone."""
    if not python.is_file():
        return False
    try:
        return subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False
