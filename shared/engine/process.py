"""ComfyUI as a child process: location, device, environment variables, command line, folders and readiness.

Graphs of clients and custom nodes can read the environment of the engine. So the engine gets only the variables that
Python, torch and the operating system need: none of our keys, no token of a model site, and no password of a proxy.
"""

import ctypes
import importlib.util
import json
import os
import platform
import re
import sys
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from shared.engine.client import EngineClient, create_token
from shared.engine.install import comfyui_version, install_engine
from shared.errors import EngineError, SetupError
from shared.files import is_folder
from shared.models.detect import MODEL_KINDS
from shared.paths import ChosenPaths, PathsFile
from shared.process.supervisor import Child, ChildGuard, Supervisor
from shared.settings import Settings

# Seconds. Importing torch from a cold disk can take minutes; a child that dies is noticed at once anyway.
START_TIMEOUT = 300.0
# Seconds that the engine may take to answer a readiness check.
ANSWER_TIMEOUT = 10.0
# The function of ComfyUI's thread that runs jobs.
WORKER = "prompt_worker"
GUARD = Path(__file__).with_name("request_guard.py")
# Folders below the data folder that ComfyUI expects.
FOLDERS = ("custom_nodes", "input", "models/checkpoints", "output", "temp", "user")
# Environment variables that are passed to the engine.
NAMES = {
    # User, shell and temporary files.
    *("HOME", "USER", "LOGNAME", "SHELL", "PATH", "PWD", "TMPDIR", "TEMP", "TMP", "TZ", "LANG", "LANGUAGE", "TERM"),
    # Windows: without these, Python finds neither its libraries nor a source of random numbers.
    *("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "OS", "USERNAME", "USERPROFILE", "USERDOMAIN"),
    *("HOMEDRIVE", "HOMEPATH", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "PROGRAMFILES", "PROGRAMFILES(X86)"),
    *("PROGRAMW6432", "COMMONPROGRAMFILES", "ALLUSERSPROFILE", "PUBLIC", "COMPUTERNAME", "NUMBER_OF_PROCESSORS"),
    # Virtual environments, certificates and model caches.
    *("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_CACHE", "TRANSFORMERS_OFFLINE", "NO_COLOR"),
    *("ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "GPU_MAX_HW_QUEUES", "TF32_OVERRIDE", "NO_PROXY"),
}
# Prefixes of variables that libraries read.
PREFIXES = (
    *("LC_", "XDG_", "LD_", "DYLD_", "PYTHON", "PROCESSOR_"),
    *("TORCH_", "TORCHINDUCTOR_", "PYTORCH_", "TRITON_", "OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "NUMEXPR_"),
    *("CUDA_", "CUDNN_", "CUBLAS_", "NCCL_", "NVIDIA_", "HIP_", "HSA_", "ROCM_", "MIOPEN_", "AMD_", "COMFYUI_"),
    *("ONEAPI_", "SYCL_", "ZE_", "ZES_", "OCL_", "ASCEND_", "MIMALLOC_", "MALLOC_"),
)
# A variable with such a word in its name is a secret, whatever its prefix.
SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "API_KEY", "APIKEY", "ACCESS_KEY", "PRIVATE_KEY")


def find_engine(settings: Settings) -> Path:
    """Return the folder of the ComfyUI to run: the user's own, or the pinned one, which is downloaded if missing."""
    if settings.comfyui_dir is None:
        return install_engine(settings.data_dir)
    folder = settings.comfyui_dir.resolve()
    if not (folder / "main.py").is_file() or comfyui_version(folder) is None:
        raise SetupError(
            "engine",
            f"{folder} is not a ComfyUI folder",
            hint="set DREAM_LAYER_COMFYUI_DIR to the folder with main.py",
        )
    return folder


def make_supervisor(settings: Settings, engine: EngineClient, comfyui_dir: Path, *, cpu: bool) -> Supervisor:
    """Prepare the engine in `comfyui_dir` to be started. It writes below the data folder only."""
    data_dir = settings.data_dir.resolve()
    for name in FOLDERS:
        (data_dir / name).mkdir(parents=True, exist_ok=True)
    child = Child(
        "engine",
        engine_command(settings, comfyui_dir, data_dir, cpu=cpu),
        python=settings.engine_python or sys.executable,
        folder=data_dir,
        log_path=data_dir / "logs" / "engine.log",
        exit_with_thread=WORKER,
        guard=ChildGuard(GUARD, partial(create_token, data_dir)),
        environ=engine_environ(os.environ, settings.engine_env),
    )
    return Supervisor(child, lambda: _is_ready(engine), START_TIMEOUT)


def _is_ready(engine: EngineClient) -> bool:
    try:
        return "system" in engine.get_system_stats(ANSWER_TIMEOUT)
    except EngineError:
        return False


def engine_environ(environ: Mapping[str, str], additional: Collection[str] = ()) -> dict[str, str]:
    """Select the variables of `environ` that the engine gets: those that it needs, and the `additional` names.

    Names are compared without regard to case, as on Windows.
    """
    wanted = {name.upper() for name in additional}
    return {name: value for name, value in environ.items() if name.upper() in wanted or _is_needed(name.upper())}


def _is_needed(name: str) -> bool:
    if any(word in name for word in SECRET_WORDS):
        return False
    return name in NAMES or name.startswith(PREFIXES)


def engine_command(settings: Settings, comfyui_dir: Path, data_dir: Path, *, cpu: bool) -> list[str]:
    """Return the command that runs ComfyUI's main.py. Writes the small configuration files that it names."""
    command = [str(comfyui_dir / "main.py"), "--listen", "127.0.0.1", "--port", str(settings.engine_port)]
    command += ["--base-directory", str(data_dir), "--user-directory", str(data_dir / "user")]
    # By default, ComfyUI creates its database inside its own tree.
    command += ["--database-url", f"sqlite:///{(data_dir / 'user' / 'comfyui.db').as_posix()}"]
    # API nodes call paid services on the internet.
    command += ["--disable-api-nodes", "--disable-auto-launch"]
    if not settings.engine_page:
        # With an empty page folder, ComfyUI does not need the packages of its page (0.5 GB).
        page = data_dir / "engine" / "no-page"
        page.mkdir(parents=True, exist_ok=True)
        command += ["--front-end-root", str(page)]
    if cpu:
        command.append("--cpu")
        if not any("attention" in argument for argument in settings.engine_args):
            # Measured: a tenth faster than ComfyUI's default for CPUs. It accepts only one such argument.
            command.append("--use-pytorch-cross-attention")
    if settings.comfyui_dir is not None:
        command += _paths_config(data_dir / "engine" / "own-comfyui.yaml", _own_comfyui_folders(comfyui_dir))
    return [*command, *_chosen_path_arguments(data_dir), *settings.engine_args]


def _paths_config(path: Path, folders: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Write a file in the form of ComfyUI's extra_model_paths.yaml (JSON is YAML, too); return its argument."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(folders, indent=2), encoding="utf-8")
    return ["--extra-model-paths-config", str(path)]


def _own_comfyui_folders(comfyui_dir: Path) -> dict[str, dict[str, str]]:
    """Add the models and custom nodes in the user's ComfyUI folder to those in the data folder."""
    folders = {path.name: f"models/{path.name}" for path in sorted((comfyui_dir / "models").glob("*")) if path.is_dir()}
    return {"own_comfyui": {"base_path": str(comfyui_dir), "custom_nodes": "custom_nodes", **folders}}


def _chosen_path_arguments(data_dir: Path) -> list[str]:
    """Return the arguments for the paths that the user chose on the web page, without folders that no longer exist."""
    paths = PathsFile(data_dir).read()
    arguments = [] if paths.save_metadata else ["--disable-metadata"]
    if paths.output is not None and is_folder(paths.output):
        arguments += ["--output-directory", str(paths.output)]
    folders = extra_model_folders(paths)
    if folders:
        arguments += _paths_config(data_dir / "engine" / "chosen-paths.yaml", {"chosen": folders})
    return arguments


def extra_model_folders(paths: ChosenPaths) -> dict[str, str]:
    """Map each kind of model to the chosen folders that contain it, one folder a line, as ComfyUI expects.

    A models folder has a subfolder for each kind; one without any contains checkpoints. The folder for LoRAs and
    embeddings contains both, or has a subfolder for each.
    """
    folders: list[tuple[str, Path]] = []
    if paths.models is not None and is_folder(paths.models):
        kinds = [(kind, paths.models / kind) for kind in MODEL_KINDS if is_folder(paths.models / kind)]
        folders += kinds or [("checkpoints", paths.models)]
    for kind in ("controlnet", "upscale_models", "vae"):
        folder: Path | None = getattr(paths, kind)
        if folder is not None and is_folder(folder):
            folders.append((kind, folder))
    if paths.loras is not None and is_folder(paths.loras):
        folders += [
            (kind, paths.loras / kind if is_folder(paths.loras / kind) else paths.loras)
            for kind in ("loras", "embeddings")
        ]
    lines: dict[str, list[str]] = {}
    for kind, path in folders:
        lines.setdefault(kind, []).append(str(path))
    return {kind: "\n".join(dict.fromkeys(paths_of_kind)) for kind, paths_of_kind in lines.items()}


def use_cpu(settings: Settings) -> bool:
    """Whether the engine is to be started in CPU mode."""
    return settings.device == "cpu" or (settings.device == "auto" and not has_usable_gpu())


def has_usable_gpu() -> bool:
    """Whether the installed torch has a backend for a GPU of this machine, with a recent enough driver."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"  # torch for Apple silicon always has Metal
    backends = torch_backends()
    if "cuda" in backends:
        return cuda_driver_version() >= int(backends["cuda"].split(".")[0]) * 1000
    if "hip" in backends:
        return Path("/dev/kfd").exists()
    return "xpu" in backends


def torch_backends() -> dict[str, str]:
    """Return the GPU backends of the installed torch with their versions, such as {"cuda": "13.0"}; empty without any.

    Reads the text of torch/version.py, because importing torch takes seconds.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return {}
    text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    backends = re.findall(r"^(cuda|hip|xpu)\b[^=]*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return dict(backends)


def cuda_driver_version() -> int:
    """Return the CUDA version of the NVIDIA driver as 1000 x major + 10 x minor; 0 without a driver or a device."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return 0
    count, version = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return 0
    return version.value if driver.cuDriverGetVersion(ctypes.byref(version)) == 0 else 0
