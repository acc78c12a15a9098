"""Installs packages with pip: its output goes to a log, a terminal shows a progress bar. Standard library only.

pip names each file with its rounded size, reports progress in bytes with `--progress-bar raw` (from pip 24.1 on), and
finally lists the packages that it installs. It never reports the total; the sizes in `MEGABYTES` estimate what is still
to come, and need not be exact.
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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TextIO

from launcher.terminal import (
    UPDATE_INTERVAL,
    activity,
    can_overwrite,
    clear_progress_line,
    columns,
    print_status,
    progress_bar,
    show_progress_line,
    size_text,
    strip_controls,
    time_text,
)

STEP = "packages"
PROJECT_DIR = Path(__file__).resolve().parents[1]
PIP_LOCK = PROJECT_DIR / "requirements-pip.txt"
PARENT_WATCH = PROJECT_DIR / "shared" / "process" / "parent_watch.py"
# The first pip with `--progress-bar raw`.
RAW_PROGRESS_PIP = (24, 1)
# Seconds that pip has to end by itself, and over which the speed is averaged.
STOP_TIMEOUT, SPEED_WINDOW = 10.0, 15.0
# Lines of the log that an error shows.
ERROR_LINES = 8
# A condition of a pinned package, as `uv pip compile --universal` writes it, at the start or after "and".
MARKER = re.compile(r"(?:^|and )(python_full_version|sys_platform) (<|>=|==|!=) '(\d+\.\d+(?:\.\*)?|[a-z]\w*)'")
# The share of all bytes that must be downloaded before the remaining time is estimated.
ESTIMATE_FROM = 0.02
# Environment variables that change the output of pip, which is parsed here.
OUTPUT_VARIABLES = ("PIP_QUIET", "PIP_VERBOSE", "PIP_PROGRESS_BAR", "PIP_LOG", "PIP_NO_COLOR")


# The large packages of the lock, as on Linux; the others are below 5 MB each.
MEGABYTES: Mapping[str, float] = {
    "torch": 530.6, "comfy-kitchen": 45.5, "av": 35.8, "scipy": 35.3, "numpy": 16.9, "transformers": 13.3,
    "torchvision": 7.5, "pillow": 7.1, "sympy": 6.3, "kornia-rs": 5.3, "comfy-angle": 5.1,
}  # fmt: skip
# The packages that a CUDA build of torch depends on.
CUDA_MEGABYTES: Mapping[str, float] = {
    "nvidia-cublas": 423.1, "nvidia-cudnn-cu13": 366.1, "nvidia-cufft": 214.1, "nvidia-cusolver": 200.9,
    "nvidia-nccl-cu13": 196.5, "triton": 188.2, "nvidia-cusparselt-cu13": 169.9, "nvidia-cusparse": 145.9,
    "nvidia-cuda-nvrtc": 90.2, "nvidia-nvshmem-cu13": 60.4, "nvidia-curand": 59.5, "nvidia-nvjitlink": 40.7,
    "nvidia-cuda-cupti": 10.7, "cuda-bindings": 8.4,
}  # fmt: skip
# torch without CUDA, as on Windows and macOS.
CPU_TORCH_MEGABYTES = 120.0
UNITS = {"bytes": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}

DOWNLOADING = re.compile(r"\s*(Downloading|Using cached) (?:\S*/)?([^\s/]+)(?: \(([\d.]+) (bytes|kB|MB|GB)\))?$")
LOCAL = re.compile(r"\s*Processing (.+\.(?:whl|tar\.gz|zip))(?: \(from .*)?$")
PROGRESS = re.compile(r"Progress (\d+) of (\d+)$")
INSTALLING = re.compile(r"Installing collected packages: (.+)$")

PipPhase = Literal["downloading", "installing"]


def expected_sizes(wanted: Iterable[str], *, cuda: bool) -> dict[str, float]:
    """Return the sizes in bytes of the large files that installing `wanted` downloads, by package."""
    names = {normalise_name(name) for name in wanted}
    sizes = {name: size * 1e6 for name, size in MEGABYTES.items() if name in names}
    if "torch" in names:
        if cuda:
            sizes |= {name: size * 1e6 for name, size in CUDA_MEGABYTES.items()}
        else:
            sizes["torch"] = CPU_TORCH_MEGABYTES * 1e6
    return sizes


def normalise_name(name: str) -> str:
    """Normalise a package name for comparison (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


class PipOutput:
    """Parses pip's output line by line and sums up its progress. Sizes in bytes."""

    def __init__(self, expected: Mapping[str, float]) -> None:
        self.phase: PipPhase = "downloading"
        # The file that is being downloaded, and the packages that are being installed.
        self.current = ""
        self.packages: list[str] = []
        self.downloaded_files = 0
        self._expected = dict(expected)
        self._done = 0.0
        self._size, self._part = 0.0, 0.0

    @property
    def downloaded(self) -> float:
        """Bytes that were downloaded or found in the cache."""
        return self._done + min(self._part, self._size)

    @property
    def total(self) -> float:
        """The estimated total."""
        return self._done + self._size + sum(self._expected.values())

    def parse(self, line: str) -> bool:
        """Parse one line; returns whether it belongs in the log, which progress does not."""
        progress = PROGRESS.match(line)
        if progress is not None:
            self._part = float(progress[1])
            self._size = max(float(progress[2]), self._part)
            return False
        download, local = DOWNLOADING.match(line), LOCAL.match(line)
        if download is not None and not download[2].endswith(".metadata"):
            self._start_file(download[2], float(download[3] or 0) * UNITS[download[4] or "bytes"])
            if download[1] == "Using cached":
                self._part = self._size
        elif local is not None:
            self._start_file(re.split(r"[\\/]", local[1])[-1], 0.0)
        installing = INSTALLING.match(line)
        if installing is not None:
            self._end_file()
            self._expected.clear()
            self.phase, self.current = "installing", ""
            self.packages = [name.strip() for name in installing[1].split(",")]
        return True

    def _start_file(self, file: str, size: float) -> None:
        self._end_file()
        self.current, self._size = file, size
        name = re.match(r"(.+?)-\d", file)
        self._expected.pop(normalise_name(name[1] if name else file), None)
        if file.startswith("torch-") and "+cpu" in file.replace("%2B", "+"):
            for package in CUDA_MEGABYTES:
                self._expected.pop(package, None)

    def _end_file(self) -> None:
        if self.current:
            self.downloaded_files += 1
        self._done += self._size
        self._size = self._part = 0.0


class PackagesError(Exception):
    """pip failed; the message is the end of its output."""


def install_packages(python: Path, files: Sequence[Path], log_path: Path, *, update_pip: bool) -> None:
    """Install requirement files into the environment of `python`. Raises PackagesError and OSError.

    Files with hashes come first: for these, pip accepts only files with such a hash, and installs nothing else. With
    `update_pip`, a pip that is too old to report its progress is updated first. Ctrl-C ends pip too.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    installed = _installed(python)
    missing = _missing(files, installed)
    runs, remaining = [], set(missing)
    for arguments, paths in _plan_runs(files):
        # A package in several files is installed by the first run that has it.
        wanted = remaining.intersection(_missing(paths, installed))
        remaining -= wanted
        runs.append((arguments, PipOutput(expected_sizes(sorted(wanted), cuda=_has_cuda_wheels()))))
    started = time.monotonic()
    with log_path.open("a", encoding="utf-8") as log:
        log.write(f"\n{time.strftime('%Y-%m-%d %H:%M:%S')} installing {', '.join(path.name for path in files)}\n")
        log.flush()
        version = _pip_version(python)
        if update_pip and version < RAW_PROGRESS_PIP:
            _update_pip(python, log_path)
            version = _pip_version(python)
        if not can_overwrite(sys.stdout):
            total = sum(output.total for _, output in runs)
            about = f", about {size_text(total)}" if total else ""
            print_status(STEP, f"{_count(len(missing))} to install{about}; log: {log_path}")
        progress = ["--progress-bar", "raw" if version >= RAW_PROGRESS_PIP else "off"]
        for arguments, output in runs:
            if _run_pip(python, ["install", *progress, *arguments], output, log) != 0:
                raise PackagesError("\n".join(f"    {line}" for line in error_lines(log_path)))
    count = sum(len(output.packages) for _, output in runs)
    print_status(
        STEP, f"{_count(count) if count else 'no packages'} installed after {time_text(time.monotonic() - started)}"
    )


def _plan_runs(files: Sequence[Path]) -> list[tuple[list[str], list[Path]]]:
    """Return pip's arguments and the files for each run: first those with hashes, then the others."""
    hashed = [path for path in files if "--hash=" in path.read_text(encoding="utf-8")]
    others = [path for path in files if path not in hashed]
    # A lock with hashes names every package but torch, which has none and is in the file without hashes.
    runs = [(["--require-hashes", "--no-deps"], hashed), ([], others)]
    return [
        ([*options, *(argument for path in paths for argument in ("-r", str(path)))], paths)
        for options, paths in runs
        if paths
    ]


def _run_pip(python: Path, arguments: Sequence[str], output: PipOutput, log: TextIO) -> int:
    """Run pip, show its progress, write its output to the log; returns its exit code."""
    display = _ProgressDisplay(output, python)
    with contextlib.closing(_PipProcess(python, arguments)) as pip:
        while True:
            for line in pip.new_lines(UPDATE_INTERVAL):
                if output.parse(line):
                    log.write(f"{line}\n")
            log.flush()
            display.update()
            if pip.ended:
                break
    clear_progress_line()
    return pip.code


class _ProgressDisplay:
    """Shows the progress of one run of pip: a bar, and a line when the download is complete."""

    def __init__(self, output: PipOutput, python: Path) -> None:
        self._output = output
        self._python = python
        self._before = set(_installed(python))
        self._has_bar = can_overwrite(sys.stdout)
        self._started = time.monotonic()
        self._download_reported = False
        self._samples: list[tuple[float, float]] = []

    def update(self) -> None:
        """Update the bar; report once that everything is downloaded."""
        output = self._output
        if output.phase == "installing" and not self._download_reported:
            self._download_reported = True
            if output.downloaded:
                print_status(
                    STEP, f"downloaded {size_text(output.downloaded)} in {time_text(time.monotonic() - self._started)}"
                )
        if self._has_bar:
            show_progress_line(
                f"  {STEP:<12} {self._download_text() if output.phase == 'downloading' else self._install_text()}"
            )

    def _download_text(self) -> str:
        output, now = self._output, time.monotonic()
        self._samples = [sample for sample in self._samples if now - sample[0] < SPEED_WINDOW] + [
            (now, output.downloaded)
        ]
        since, bytes_then = self._samples[0]
        speed = (output.downloaded - bytes_then) / (now - since) if now > since else 0.0
        if not output.total:
            return f"resolving packages ({now - self._started:.0f} s)"
        words = [f"{size_text(output.downloaded)} of {size_text(output.total)}"]
        if speed > 0:
            words.append(f"{size_text(speed)}/s")
        # The small packages at the start, with pauses between them, say nothing about the speed of the large ones.
        if speed > 0 and output.downloaded >= ESTIMATE_FROM * output.total:
            words.append(f"{time_text((output.total - output.downloaded) / speed)} left")
        words.append(strip_controls(re.split(r"-\d", output.current)[0]) or "resolving packages")
        return f"{progress_bar(output.downloaded / output.total, columns())}  {', '.join(words)}"

    def _install_text(self) -> str:
        # pip prints nothing while it installs, so the new packages in the environment are counted.
        done, count = len(set(_installed(self._python)) - self._before), len(self._output.packages)
        return f"{progress_bar(done / max(1, count), columns())}  installing {min(done, count)} of {_count(count)}"


class _PipProcess:
    """pip as a child process, whose output can be read line by line."""

    def __init__(self, python: Path, arguments: Sequence[str]) -> None:
        environ = {name: value for name, value in os.environ.items() if name.upper() not in OUTPUT_VARIABLES}
        options = ["--disable-pip-version-check", "--no-input", "--no-color"]
        self._process = subprocess.Popen(
            # pip ends when this process ends, however that happens: two pips would corrupt the environment.
            [str(python), str(PARENT_WATCH), "-m", "pip", *options, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
            encoding="utf-8",
            errors="replace",
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.ended = False
        threading.Thread(target=self._read, name="pip", daemon=True).start()

    @property
    def code(self) -> int:
        """Its exit code, once it has ended."""
        return self._process.wait()

    def new_lines(self, timeout: float) -> list[str]:
        """Return the new lines; waits up to `timeout` seconds for one. Sets `ended` after the last line."""
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
        """End the process, if it is running."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT)
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


def error_lines(path: Path) -> list[str]:
    """Return the errors at the end of pip's log; its last lines if there are none."""
    lines = [
        strip_controls(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
    ]
    tail = lines[-200:]
    errors = [line for line in tail if line.lstrip().startswith("ERROR:")]
    return (errors or tail)[-ERROR_LINES:]


def _update_pip(python: Path, log_path: Path) -> None:
    """Update pip if the index has the pinned version; otherwise the old one is used."""
    options = ["--no-input", "--disable-pip-version-check", "--require-hashes", "-r", str(PIP_LOCK)]
    command = [str(python), "-m", "pip", "install", *options]
    with activity(STEP, "updating pip"), log_path.open("ab") as log:
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False)


def _pip_version(python: Path) -> tuple[int, ...]:
    version = next((name for name in _installed(python) if re.match(r"pip-\d", name)), None)
    if version is None:
        # The environment has a different layout.
        version = subprocess.run(
            [str(python), "-m", "pip", "--version"], capture_output=True, text=True, check=False
        ).stdout
    match = re.match(r"pip[ -](\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match is not None else (0, 0)


def _installed(python: Path) -> list[str]:
    """Return the packages in the environment of `python`, as `name-version`."""
    root = python.parent.parent
    folders = [root / "Lib" / "site-packages"] if os.name == "nt" else root.glob("lib/python*/site-packages")
    return [entry.name.removesuffix(".dist-info") for folder in folders for entry in folder.glob("*.dist-info")]


def _missing(files: Iterable[Path], installed: Iterable[str]) -> list[str]:
    """Return the packages that the files pin and that are not installed in that version.

    They may include packages for other systems.
    """
    present = {(normalise_name(name), version) for name, _, version in (entry.partition("-") for entry in installed)}
    pinned = []
    for path in files:
        for line in path.read_text(encoding="utf-8").splitlines():
            match = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)(?:\s*;\s*([^\\]+))?", line)
            if (
                match is not None
                and (normalise_name(match[1]), match[2]) not in present
                and _applies_here(match[3] or "")
            ):
                pinned.append(normalise_name(match[1]))
    return sorted(set(pinned))


def _applies_here(marker: str) -> bool:
    """Whether a package is for this Python and system.

    Only conditions joined by "and" are evaluated; others count as true.
    """
    for name, sign, value in re.findall(MARKER, marker):
        if name == "sys_platform":
            holds = (sys.platform == value) == (sign == "==")
        else:
            ours, bound = sys.version_info[:2], tuple(int(part) for part in value.split(".")[:2])
            holds = {"<": ours < bound, ">=": ours >= bound, "==": ours == bound, "!=": ours != bound}[sign]
        if not holds:
            return False
    return True


def _has_cuda_wheels() -> bool:
    """Whether the default torch for this system depends on the CUDA packages."""
    return sys.platform == "linux" and platform.machine().lower() in ("x86_64", "amd64", "aarch64", "arm64")


def _count(number: int) -> str:
    return f"{number} package" + "s" * (number != 1)
