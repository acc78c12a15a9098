"""ComfyUI as a child process: device, environment variables, command line, folders and readiness.

The engine runs nodes of others on the word of strangers, and what is in its environment can be read by some of them. So
it gets what Python, torch and the operating system need, and nothing that was meant for somebody else: no key of ours,
no token for a model site, no password of a proxy.
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


NAMES = {
    # The user, the shell, and where files of the moment lie.
    *("HOME", "USER", "LOGNAME", "SHELL", "PATH", "PWD", "TMPDIR", "TEMP", "TMP", "TZ", "LANG", "LANGUAGE", "TERM"),
    # Windows: without these, Python finds neither its libraries nor a random number.
    *("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "OS", "USERNAME", "USERPROFILE", "USERDOMAIN"),
    *("HOMEDRIVE", "HOMEPATH", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "PROGRAMFILES", "PROGRAMFILES(X86)"),
    *("PROGRAMW6432", "COMMONPROGRAMFILES", "ALLUSERSPROFILE", "PUBLIC", "COMPUTERNAME", "NUMBER_OF_PROCESSORS"),
    # Environments, certificates, and caches of models.
    *("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_CACHE", "TRANSFORMERS_OFFLINE", "NO_COLOR"),
    *("ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "GPU_MAX_HW_QUEUES", "TF32_OVERRIDE", "NO_PROXY"),
}
# Libraries read many variables, all with a prefix of their own.
PREFIXES = (
    *("LC_", "XDG_", "LD_", "DYLD_", "PYTHON", "PROCESSOR_"),
    *("TORCH_", "TORCHINDUCTOR_", "PYTORCH_", "TRITON_", "OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "NUMEXPR_"),
    *("CUDA_", "CUDNN_", "CUBLAS_", "NCCL_", "NVIDIA_", "HIP_", "HSA_", "ROCM_", "MIOPEN_", "AMD_", "COMFYUI_"),
    *("ONEAPI_", "SYCL_", "ZE_", "ZES_", "OCL_", "ASCEND_", "MIMALLOC_", "MALLOC_"),
)
# Whatever its prefix, a variable with such a word in its name holds a secret.
SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "API_KEY", "APIKEY", "ACCESS_KEY", "PRIVATE_KEY")


def engine_environ(environ: Mapping[str, str], further: Collection[str] = ()) -> dict[str, str]:
    """What the engine gets of `environ`: what is known to be needed, and the variables that are named in `further`.

    Names are compared without regard to case, as Windows does.
    """
    wanted = {name.upper() for name in further}
    return {name: value for name, value in environ.items() if name.upper() in wanted or _is_needed(name.upper())}


def _is_needed(name: str) -> bool:
    if any(word in name for word in SECRET_WORDS):
        return False
    return name in NAMES or name.startswith(PREFIXES)


# Importing torch from a cold disk can take minutes on small machines; a child that dies is noticed at once anyway.
START_TIMEOUT = 300.0
# The function of ComfyUI's thread that runs jobs.
WORKER = "prompt_worker"
GUARD = Path(__file__).with_name("guard.py")
# Seconds for an answer that proves life.
ANSWER_TIMEOUT = 10.0
FOLDERS = ("custom_nodes", "input", "models/checkpoints", "output", "temp", "user")


def find_engine(settings: Settings) -> Path:
    """The folder of the ComfyUI to run: the user's own, or the pinned one, which is fetched if need be."""
    if settings.comfyui_dir is None:
        return install_engine(settings.data_dir)
    folder = settings.comfyui_dir.resolve()
    if not (folder / "main.py").is_file() or comfyui_version(folder) is None:
        raise SetupError(
            "engine",
            f"{folder} is not a ComfyUI folder",
            hint="set DREAM_LAYER_COMFYUI_DIR to the one with main.py",
        )
    return folder


def make_supervisor(settings: Settings, engine: EngineClient, comfyui_dir: Path, *, cpu: bool) -> Supervisor:
    """The engine in `comfyui_dir`, ready to be started, with all that it writes below the data folder."""
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
    return Supervisor(child, lambda: _answers(engine), START_TIMEOUT)


def use_cpu(settings: Settings) -> bool:
    """Whether the engine is to be started in CPU mode."""
    return settings.device == "cpu" or (settings.device == "auto" and not has_usable_gpu())


def engine_command(settings: Settings, comfyui_dir: Path, data_dir: Path, *, cpu: bool) -> list[str]:
    """ComfyUI's main.py with its arguments. Writes the small files that they name."""
    command = [str(comfyui_dir / "main.py"), "--listen", "127.0.0.1", "--port", str(settings.engine_port)]
    command += ["--base-directory", str(data_dir), "--user-directory", str(data_dir / "user")]
    # Its own database, too, would otherwise be made inside the tree.
    command += ["--database-url", f"sqlite:///{(data_dir / 'user' / 'comfyui.db').as_posix()}"]
    # Nodes that call paid services on the internet have no business here.
    command += ["--disable-api-nodes", "--disable-auto-launch"]
    if not settings.engine_page:
        # With an empty page folder, ComfyUI does without its page's packages (0.5 GB).
        page = data_dir / "engine" / "no-page"
        page.mkdir(parents=True, exist_ok=True)
        command += ["--front-end-root", str(page)]
    if cpu:
        command.append("--cpu")
        if not any("attention" in argument for argument in settings.engine_args):
            # Measured: a tenth faster than what ComfyUI chooses for a CPU. It takes only one such argument.
            command.append("--use-pytorch-cross-attention")
    if settings.comfyui_dir is not None:
        config = data_dir / "engine" / "own-comfyui.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(json.dumps(_own_folders(comfyui_dir), indent=2), encoding="utf-8")
        command += ["--extra-model-paths-config", str(config)]
    return [*command, *_chosen(data_dir), *settings.engine_args]


def _chosen(data_dir: Path) -> list[str]:
    """The arguments for what a user chose on the web page; folders that are gone are left out."""
    paths = PathsFile(data_dir).read()
    command = [] if paths.save_metadata else ["--disable-metadata"]
    if paths.output is not None and is_folder(paths.output):
        command += ["--output-directory", str(paths.output)]
    folders = extra_model_folders(paths)
    if folders:
        config = data_dir / "engine" / "chosen-paths.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(json.dumps({"chosen": folders}, indent=2), encoding="utf-8")
        command += ["--extra-model-paths-config", str(config)]
    return command


def extra_model_folders(paths: ChosenPaths) -> dict[str, str]:
    """The chosen folders by the kind of models that they hold, each a line, as ComfyUI reads them.

    A models folder has a subfolder for each kind; one without any holds checkpoints. That for LoRAs and embeddings
    holds both, or has a subfolder for each.
    """
    found: list[tuple[str, Path]] = []
    if paths.models is not None and is_folder(paths.models):
        kinds = [(kind, paths.models / kind) for kind in MODEL_KINDS if is_folder(paths.models / kind)]
        found += kinds or [("checkpoints", paths.models)]
    for kind in ("controlnet", "upscale_models", "vae"):
        folder: Path | None = getattr(paths, kind)
        if folder is not None and is_folder(folder):
            found.append((kind, folder))
    if paths.loras is not None and is_folder(paths.loras):
        found += [
            (kind, paths.loras / kind if is_folder(paths.loras / kind) else paths.loras)
            for kind in ("loras", "embeddings")
        ]
    lines: dict[str, list[str]] = {}
    for kind, folder in found:
        lines.setdefault(kind, []).append(str(folder))
    return {kind: "\n".join(dict.fromkeys(folders)) for kind, folders in lines.items()}


def _own_folders(comfyui_dir: Path) -> dict[str, dict[str, str]]:
    """The models and custom nodes that lie in the user's ComfyUI folder, to be found beside those of the data folder.

    In the form of ComfyUI's extra_model_paths.yaml; JSON is YAML too.
    """
    folders = {path.name: f"models/{path.name}" for path in sorted((comfyui_dir / "models").glob("*")) if path.is_dir()}
    return {"own_comfyui": {"base_path": str(comfyui_dir), "custom_nodes": "custom_nodes", **folders}}


def _answers(engine: EngineClient) -> bool:
    try:
        return "system" in engine.system_stats(ANSWER_TIMEOUT)
    except EngineError:
        return False
