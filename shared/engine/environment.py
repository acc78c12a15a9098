"""The environment variables that the engine is started with. Pure.

The engine runs nodes of others on the word of strangers, and what is in its environment can be read by some of them. So
it gets what Python, torch and the operating system need, and nothing that was meant for somebody else: no key of ours,
no token for a model site, no password of a proxy.
"""

from collections.abc import Collection, Mapping

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
