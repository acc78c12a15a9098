"""Packages by pip: what it writes goes to a log, a terminal gets one bar, anything else a few lines.

Standard library only.
"""

import contextlib
import os
import platform
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from launcher.pip_output import PipOutput, expected_sizes, normalised
from launcher.terminal import (
    TICK,
    activity,
    bar,
    can_move,
    columns,
    draw,
    erase,
    plain,
    print_status,
    size_text,
    time_text,
)

STEP = "packages"
PROJECT_DIR = Path(__file__).resolve().parents[1]
PIP_LOCK = PROJECT_DIR / "requirements-pip.txt"
PARENT_WATCH = PROJECT_DIR / "shared" / "process" / "parent_watch.py"
# The first pip that tells its progress in a form for programs.
MODERN_PIP = (24, 1)
# Seconds that pip is given to end by itself, and of which the speed is told.
GRACE, SPEED_OF = 10.0, 15.0
LAST_LINES = 8
# A condition of a pinned package, as `uv pip compile --universal` writes it, at the beginning or after "and".
MARKER = re.compile(r"(?:^|and )(python_full_version|sys_platform) (<|>=|==|!=) '(\d+\.\d+(?:\.\*)?|[a-z]\w*)'")
# The part of all that must be fetched before the time that is left can be told.
TELLING = 0.02
# pip heeds these too; with them it would print_status less than is read here.
SILENCING = ("PIP_QUIET", "PIP_VERBOSE", "PIP_PROGRESS_BAR", "PIP_LOG", "PIP_NO_COLOR")


class PackagesError(Exception):
    """pip failed; the text is the last that it said."""


def install_packages(python: Path, files: Sequence[Path], log_path: Path, *, update_pip: bool) -> None:
    """Installs what the requirement files name into the environment of `python`. Raises PackagesError and OSError.

    Files with hashes come first: pip takes only files that have one of them, and nothing that they do not name. With
    `update_pip` a pip that is too old to tell its progress is updated before. Ctrl-C ends pip too.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    installed = _installed(python)
    missing = _missing(files, installed)
    runs, left = [], set(missing)
    for arguments, paths in _runs(files):
        # A package that stands in several files is installed by the first run that has it.
        wanted = left.intersection(_missing(paths, installed))
        left -= wanted
        runs.append((arguments, PipOutput(expected_sizes(sorted(wanted), cuda=_has_cuda_wheels()))))
    begun = time.monotonic()
    with log_path.open("a", encoding="utf-8") as log:
        log.write(f"\n{time.strftime('%Y-%m-%d %H:%M:%S')} installing {', '.join(path.name for path in files)}\n")
        log.flush()
        version = _pip_version(python)
        if update_pip and version < MODERN_PIP:
            _update_pip(python, log_path)
            version = _pip_version(python)
        if not can_move(sys.stdout):
            total = sum(output.total for _, output in runs)
            about = f", about {size_text(total)}" if total else ""
            print_status(STEP, f"{_count(len(missing))} to install{about}; log: {log_path}")
        progress = ["--progress-bar", "raw" if version >= MODERN_PIP else "off"]
        for arguments, output in runs:
            if _follow(python, ["install", *progress, *arguments], output, log) != 0:
                raise PackagesError("\n".join(f"    {line}" for line in last_lines(log_path)))
    count = sum(len(output.packages) for _, output in runs)
    print_status(
        STEP, f"{_count(count) if count else 'nothing new'} installed after {time_text(time.monotonic() - begun)}"
    )


def _runs(files: Sequence[Path]) -> list[tuple[list[str], list[Path]]]:
    """The runs of pip that install the files, by its arguments: those with hashes, then the others."""
    hashed = [path for path in files if "--hash=" in path.read_text(encoding="utf-8")]
    others = [path for path in files if path not in hashed]
    # A lock with hashes names all that is needed but torch, which has none, and is in the file without.
    runs = [(["--require-hashes", "--no-deps"], hashed), ([], others)]
    return [
        ([*options, *(argument for path in paths for argument in ("-r", str(path)))], paths)
        for options, paths in runs
        if paths
    ]


def _follow(python: Path, arguments: Sequence[str], output: PipOutput, log: TextIO) -> int:
    """Runs pip, shows how far it is, and writes what it says into the log; its exit code."""
    run = _Run(output, python)
    with contextlib.closing(_Pip(python, arguments)) as pip:
        while True:
            for line in pip.new_lines(TICK):
                if output.read(line):
                    log.write(f"{line}\n")
            log.flush()
            run.show()
            if pip.ended:
                break
    erase()
    return pip.code


class _Run:
    """What a person sees of one run of pip: the bar, and a line for what is done."""

    def __init__(self, output: PipOutput, python: Path) -> None:
        self._output = output
        self._python = python
        self._before = set(_installed(python))
        self._moving = can_move(sys.stdout)
        self._begun = time.monotonic()
        self._fetched_told = False
        self._marks: list[tuple[float, float]] = []

    def show(self) -> None:
        """Draws the bar; says once, when it is so, that all is fetched."""
        output = self._output
        if output.phase == "installing" and not self._fetched_told:
            self._fetched_told = True
            if output.fetched:
                print_status(
                    STEP, f"fetched {size_text(output.fetched)} in {time_text(time.monotonic() - self._begun)}"
                )
        if self._moving:
            draw(f"  {STEP:<12} {self._fetching() if output.phase == 'fetching' else self._installing()}")

    def _fetching(self) -> str:
        output, now = self._output, time.monotonic()
        self._marks = [mark for mark in self._marks if now - mark[0] < SPEED_OF] + [(now, output.fetched)]
        since, then = self._marks[0]
        speed = (output.fetched - then) / (now - since) if now > since else 0.0
        if not output.total:
            return f"looking up what is needed ({now - self._begun:.0f} s)"
        words = [f"{size_text(output.fetched)} of {size_text(output.total)}"]
        if speed > 0:
            words.append(f"{size_text(speed)}/s")
        # Small packages come first, with their pauses: they tell nothing of the speed of large ones.
        if speed > 0 and output.fetched >= TELLING * output.total:
            words.append(f"{time_text((output.total - output.fetched) / speed)} left")
        words.append(plain(re.split(r"-\d", output.current)[0]) or "looking up what is needed")
        return f"{bar(output.fetched / output.total, columns())}  {', '.join(words)}"

    def _installing(self) -> str:
        # pip is silent while it unpacks; what is there tells how far it is.
        done, count = len(set(_installed(self._python)) - self._before), len(self._output.packages)
        return f"{bar(done / max(1, count), columns())}  installing {min(done, count)} of {_count(count)}"


class _Pip:
    """pip as a child, whose lines are there as they come."""

    def __init__(self, python: Path, arguments: Sequence[str]) -> None:
        kept = {name: value for name, value in os.environ.items() if name.upper() not in SILENCING}
        options = ["--disable-pip-version-check", "--no-input", "--no-color"]
        self._process = subprocess.Popen(
            # However we end, pip ends with us: two of them in one environment would spoil it.
            [str(python), str(PARENT_WATCH), "-m", "pip", *options, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**kept, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
            encoding="utf-8",
            errors="replace",
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.ended = False
        threading.Thread(target=self._read, name="pip", daemon=True).start()

    @property
    def code(self) -> int:
        """Its exit code; waits for its end."""
        return self._process.wait()

    def new_lines(self, timeout: float) -> list[str]:
        """The lines that came; waits that many seconds if there are none. Sets `ended` after the last one."""
        lines = []
        try:
            line = self._lines.get(timeout=timeout)
            while line is not None:
                lines.append(line)
                line = self._lines.get_nowait()
            self.ended = True
        except queue.Empty:
            pass
        return lines

    def close(self) -> None:
        """Ends it, if it has not ended."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(GRACE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _read(self) -> None:
        stream = self._process.stdout
        if stream is not None:
            with stream:
                for line in stream:
                    self._lines.put(line.rstrip("\r\n"))
        self._lines.put(None)


def last_lines(path: Path) -> list[str]:
    """The end of a log, as far as it helps who reads an error: pip's own errors if there are any."""
    lines = [plain(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    tail = lines[-200:]
    errors = [line for line in tail if line.lstrip().startswith("ERROR:")]
    return (errors or tail)[-LAST_LINES:]


def _update_pip(python: Path, log_path: Path) -> None:
    """Brings pip up to date, if the index has that version; else the old one will do."""
    options = ["--no-input", "--disable-pip-version-check", "--require-hashes", "-r", str(PIP_LOCK)]
    command = [str(python), "-m", "pip", "install", *options]
    with activity(STEP, "updating pip"), log_path.open("ab") as log:
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False)


def _pip_version(python: Path) -> tuple[int, ...]:
    said = next((name for name in _installed(python) if re.match(r"pip-\d", name)), None)
    if said is None:
        # An environment of another layout.
        said = subprocess.run(
            [str(python), "-m", "pip", "--version"], capture_output=True, text=True, check=False
        ).stdout
    match = re.match(r"pip[ -](\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match is not None else (0, 0)


def _installed(python: Path) -> list[str]:
    """What is installed in the environment of `python`, as `name-version`."""
    root = python.parent.parent
    folders = [root / "Lib" / "site-packages"] if os.name == "nt" else root.glob("lib/python*/site-packages")
    return [entry.name.removesuffix(".dist-info") for folder in folders for entry in folder.glob("*.dist-info")]


def _missing(files: Iterable[Path], installed: Iterable[str]) -> list[str]:
    """The names of the packages that the files pin and that are not installed in that version.

    Those that are for other machines alone may be among them.
    """
    there = {(normalised(name), version) for name, _, version in (each.partition("-") for each in installed)}
    pinned = []
    for path in files:
        for line in path.read_text(encoding="utf-8").splitlines():
            match = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)(?:\s*;\s*([^\\]+))?", line)
            if match is not None and (normalised(match[1]), match[2]) not in there and _is_for_us(match[3] or ""):
                pinned.append(normalised(match[1]))
    return sorted(set(pinned))


def _is_for_us(marker: str) -> bool:
    """Whether a package is for this Python and system, by the conditions that all must hold; of other conditions
    nothing is known before there are packages."""
    for name, sign, value in re.findall(MARKER, marker):
        if name == "sys_platform":
            holds = (sys.platform == value) == (sign == "==")
        else:
            ours, theirs = sys.version_info[:2], tuple(int(part) for part in value.split(".")[:2])
            holds = {"<": ours < theirs, ">=": ours >= theirs, "==": ours == theirs, "!=": ours != theirs}[sign]
        if not holds:
            return False
    return True


def _has_cuda_wheels() -> bool:
    """Whether torch's packages for this system bring CUDA along."""
    return sys.platform == "linux" and platform.machine().lower() in ("x86_64", "amd64", "aarch64", "arm64")


def _count(number: int) -> str:
    return f"{number} package" + "s" * (number != 1)
