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
import json
import os
import re
import subprocess
import sys
import time
import venv
from pathlib import Path

from launcher.terminal import say

PROJECT_DIR = Path(__file__).resolve().parents[1]
VENV = PROJECT_DIR / ".venv"
STAMP = VENV / "dream-layer-complete"
MARK = VENV / "dream-layer-installing"
STEP = "environment"


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
    python = _python_of(VENV)
    if not inside and STAMP.is_file() and not MARK.exists() and python.is_file():
        return python
    raise SetupIncompleteError(
        f"these packages are missing: {', '.join(missing)}",
        "run: pip install -r requirements.txt (in an environment of your own), "
        "or let python dream_layer.py up make one",
    )


def missing_packages(requirements: list[str]) -> list[str]:
    """Names in `<requirements>.in` that this interpreter has no package of."""
    missing = []
    for name in requirements:
        for line in (PROJECT_DIR / f"{name}.in").read_text(encoding="utf-8").splitlines():
            match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
            if match is None:
                continue
            try:
                importlib.metadata.version(match[0])
            except importlib.metadata.PackageNotFoundError:
                missing.append(match[0])
    return missing


def _make(requirements: list[str]) -> Path:
    """Makes `.venv`, or completes it, and returns its Python."""
    python = _python_of(VENV)
    wanted = {name: _fingerprint(name) for name in requirements}
    installed: dict[str, str] = json.loads(STAMP.read_text(encoding="utf-8")) if STAMP.is_file() else {}
    if wanted.items() <= installed.items() and not MARK.exists() and python.is_file():
        return python
    begun = time.monotonic()
    if MARK.exists() or not _runs(python):
        say(STEP, "making .venv")
        try:
            venv.EnvBuilder(with_pip=True, clear=True, symlinks=os.name != "nt").create(VENV)
            installed = {}
        # EnvBuilder runs ensurepip as a child; where the system splits it off, that child fails.
        except (subprocess.CalledProcessError, OSError) as error:
            raise SetupIncompleteError(
                f"a virtual environment could not be made in {VENV}: {error}",
                "on Debian and Ubuntu: apt install python3-venv; then run the same command again",
            ) from error
    say(STEP, "installing packages" + ("" if installed else " (the first time: about 3 GB, some minutes)"))
    MARK.touch()
    files = [argument for name in requirements for argument in ("-r", str(PROJECT_DIR / f"{name}.txt"))]
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", *files]
    if subprocess.run(command, check=False).returncode != 0:
        raise SetupIncompleteError(
            "pip could not install the packages; its messages stand above",
            "check the network, the disk (10 GB must be free), and pip's index; then run the same command again",
        )
    STAMP.write_text(json.dumps({**installed, **wanted}), encoding="utf-8")
    MARK.unlink()
    say(STEP, f"ready in .venv after {time.monotonic() - begun:.0f} s")
    return python


def _fingerprint(name: str) -> str:
    return hashlib.sha256((PROJECT_DIR / f"{name}.txt").read_bytes()).hexdigest()


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
