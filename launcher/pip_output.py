"""What pip writes while it works, read line by line: how much is fetched, and what is being done. Pure.

pip names each file with its rounded size, tells its progress in bytes with `--progress-bar raw` (from pip 24.1 on), and
then the names of all packages that it is about to install. How much all of them will be it never says; so what is not
named yet counts by `MEGABYTES`, which need not be exact.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

# The large ones of the lock, as pip names them on Linux; the others are below 5 MB each.
MEGABYTES: Mapping[str, float] = {
    "torch": 530.6, "comfy-kitchen": 45.5, "av": 35.8, "scipy": 35.3, "numpy": 16.9, "transformers": 13.3,
    "torchvision": 7.5, "pillow": 7.1, "sympy": 6.3, "kornia-rs": 5.3, "comfy-angle": 5.1,
}  # fmt: skip
# What torch brings along where it is built for CUDA.
CUDA_MEGABYTES: Mapping[str, float] = {
    "nvidia-cublas": 423.1, "nvidia-cudnn-cu13": 366.1, "nvidia-cufft": 214.1, "nvidia-cusolver": 200.9,
    "nvidia-nccl-cu13": 196.5, "triton": 188.2, "nvidia-cusparselt-cu13": 169.9, "nvidia-cusparse": 145.9,
    "nvidia-cuda-nvrtc": 90.2, "nvidia-nvshmem-cu13": 60.4, "nvidia-curand": 59.5, "nvidia-nvjitlink": 40.7,
    "nvidia-cuda-cupti": 10.7, "cuda-bindings": 8.4,
}  # fmt: skip
# torch without CUDA, as on Windows and macOS.
PLAIN_TORCH = 120.0
UNITS = {"bytes": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}

FETCHED = re.compile(r"\s*(Downloading|Using cached) (?:\S*/)?([^\s/]+)(?: \(([\d.]+) (bytes|kB|MB|GB)\))?$")
LOCAL = re.compile(r"\s*Processing (.+\.(?:whl|tar\.gz|zip))(?: \(from .*)?$")
PROGRESS = re.compile(r"Progress (\d+) of (\d+)$")
INSTALLING = re.compile(r"Installing collected packages: (.+)$")

Phase = Literal["fetching", "installing"]


def expected_sizes(wanted: Iterable[str], *, cuda: bool) -> dict[str, float]:
    """Bytes of the large files to come, by package, when the packages `wanted` are to be installed."""
    names = {normalised(name) for name in wanted}
    sizes = {name: size * 1e6 for name, size in MEGABYTES.items() if name in names}
    if "torch" in names:
        if cuda:
            sizes |= {name: size * 1e6 for name, size in CUDA_MEGABYTES.items()}
        else:
            sizes["torch"] = PLAIN_TORCH * 1e6
    return sizes


def normalised(name: str) -> str:
    """A package's name as all its spellings are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


class PipOutput:
    """Reads pip's lines; tells what they add up to. Sizes in bytes."""

    def __init__(self, expected: Mapping[str, float]) -> None:
        self.phase: Phase = "fetching"
        # The file that is being fetched, and the names of the packages that are being installed.
        self.current = ""
        self.packages: list[str] = []
        self.fetched_files = 0
        self._expected = dict(expected)
        self._done = 0.0
        self._size, self._part = 0.0, 0.0

    @property
    def fetched(self) -> float:
        """Bytes that have come, or were there already."""
        return self._done + min(self._part, self._size)

    @property
    def total(self) -> float:
        """Bytes that will have come in the end, as far as that is known."""
        return self._done + self._size + sum(self._expected.values())

    def read(self, line: str) -> bool:
        """Takes in one line, and tells whether it belongs in a log: progress does not."""
        progress = PROGRESS.match(line)
        if progress is not None:
            self._part = float(progress[1])
            self._size = max(float(progress[2]), self._part)
            return False
        fetched, local = FETCHED.match(line), LOCAL.match(line)
        if fetched is not None and not fetched[2].endswith(".metadata"):
            self._begin(fetched[2], float(fetched[3] or 0) * UNITS[fetched[4] or "bytes"])
            if fetched[1] == "Using cached":
                self._part = self._size
        elif local is not None:
            self._begin(re.split(r"[\\/]", local[1])[-1], 0.0)
        installing = INSTALLING.match(line)
        if installing is not None:
            self._end_file()
            self._expected.clear()
            self.phase, self.current = "installing", ""
            self.packages = [name.strip() for name in installing[1].split(",")]
        return True

    def _begin(self, file: str, size: float) -> None:
        self._end_file()
        self.current, self._size = file, size
        name = re.match(r"(.+?)-\d", file)
        self._expected.pop(normalised(name[1] if name else file), None)
        if file.startswith("torch-") and "+cpu" in file.replace("%2B", "+"):
            for each in CUDA_MEGABYTES:
                self._expected.pop(each, None)

    def _end_file(self) -> None:
        if self.current:
            self.fetched_files += 1
        self._done += self._size
        self._size = self._part = 0.0
