"""Whether the engine can use a GPU here, found out without importing torch (which takes seconds)."""

import ctypes
import importlib.util
import platform
import re
import sys
from pathlib import Path


def has_usable_gpu() -> bool:
    """Whether the installed torch has a backend for a GPU that this machine has, with a driver new enough."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"  # torch for Apple silicon always has Metal
    backends = torch_backends()
    if "cuda" in backends:
        return cuda_driver_version() >= _major(backends["cuda"]) * 1000
    if "hip" in backends:
        return Path("/dev/kfd").exists()
    return "xpu" in backends


def torch_backends() -> dict[str, str]:
    """The GPU backends of the installed torch with their versions, such as {"cuda": "13.0"}; empty if there is none.

    Read from the text of torch/version.py: importing torch would take longer than all other checks together.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return {}
    text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    found = re.findall(r"^(cuda|hip|xpu)\b[^=]*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return dict(found)


def cuda_driver_version() -> int:
    """The CUDA version of the NVIDIA driver, as 1000 x major + 10 x minor; 0 without a driver or a device."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return 0
    count, version = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return 0
    return version.value if driver.cuDriverGetVersion(ctypes.byref(version)) == 0 else 0


def _major(version: str) -> int:
    return int(version.split(".")[0])
