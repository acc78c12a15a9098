"""Well-known open models that `python dream_layer.py models add NAME` downloads.

To add a model, add an entry to DOWNLOADABLE_MODELS. Sizes and hashes are those on their publishers' pages; None if we
are not sure. The hash that the hub reports for its file is checked in every case.
"""

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass

from shared.models.detect import MODEL_KINDS
from shared.models.lookup import without_extension

# The address of a model file, without characters that have a meaning in a shell.
FILE_ADDRESS = re.compile(r"https?://[\w.:/~%+-]{1,300}\.safetensors(?:\?[\w.=&%+-]{0,100})?", re.ASCII)


@dataclass(frozen=True)
class DownloadableModel:
    """A file on the hub. `size` is in bytes; `title` and `licence` are for people."""

    title: str
    kind: str
    repository: str
    file: str
    licence: str
    size: int | None = None
    sha256: str | None = None


DOWNLOADABLE_MODELS: Mapping[str, DownloadableModel] = {
    "sd15": DownloadableModel(
        "Stable Diffusion 1.5",
        "checkpoints",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "v1-5-pruned-emaonly.safetensors",
        "CreativeML OpenRAIL-M",
        4_265_146_304,
        "6ce0161689b3853acaa03779ec93eafe75a02f4ced659bee03f50797806fa2fa",
    ),
    "sdxl": DownloadableModel(
        "Stable Diffusion XL 1.0",
        "checkpoints",
        "stabilityai/stable-diffusion-xl-base-1.0",
        "sd_xl_base_1.0.safetensors",
        "OpenRAIL++-M",
        6_938_078_334,
        "31e35c80fc4829d14f90153f4c74cd59c90b779f6afe05a74cd6120b893f7e5b",
    ),
    "sdxl-refiner": DownloadableModel(
        "Stable Diffusion XL 1.0 refiner",
        "checkpoints",
        "stabilityai/stable-diffusion-xl-refiner-1.0",
        "sd_xl_refiner_1.0.safetensors",
        "OpenRAIL++-M",
        6_075_981_930,
        "7440042bbdc8a24813002c09b6b69b64dc90fded4472613437b7f55f9b7d9c5f",
    ),
    "sdxl-turbo": DownloadableModel(
        "SDXL Turbo (1 to 4 steps, cfg 1)",
        "checkpoints",
        "stabilityai/sdxl-turbo",
        "sd_xl_turbo_1.0_fp16.safetensors",
        "Stability AI Community",
        6_938_081_905,
        "e869ac7d6942cb327d68d5ed83a40447aadf20e0c3358d98b2cc9e270db0da26",
    ),
    "flux-schnell": DownloadableModel(
        "Flux.1 schnell in 8 bits (4 steps)",
        "checkpoints",
        "Comfy-Org/flux1-schnell",
        "flux1-schnell-fp8.safetensors",
        "Apache 2.0",
        17_236_328_572,
        "ead426278b49030e9da5df862994f25ce94ab2ee4df38b556ddddb3db093bf72",
    ),
    "sd15-vae": DownloadableModel(
        "finer VAE for SD 1.5",
        "vae",
        "stabilityai/sd-vae-ft-mse-original",
        "vae-ft-mse-840000-ema-pruned.safetensors",
        "MIT",
        334_641_190,
        "735e4c3a447a3255760d7f86845f09f937809baa529c17370d83e4c3758f3c75",
    ),
    "sd15-canny": DownloadableModel(
        "ControlNet for SD 1.5: edges",
        "controlnet",
        "comfyanonymous/ControlNet-v1-1_fp16_safetensors",
        "control_v11p_sd15_canny_fp16.safetensors",
        "OpenRAIL",
    ),
}


def find_downloadable(
    text: str, known: Mapping[str, DownloadableModel] = DOWNLOADABLE_MODELS
) -> DownloadableModel | None:
    """Return the model with this name, where "SD 1.5", "sd-1.5" and "sd15" are the same; None without one."""
    return next((model for name, model in known.items() if _plain(name) == _plain(text)), None)


def download_command(text: str, kinds: Container[str] = MODEL_KINDS) -> str | None:
    """Return the command that adds the model that `text` names, if it is one of these `kinds`; else None.

    `text` may be its short name, its title, its file with or without extension, its repository on the hub, or the
    address of any model file.
    """
    if FILE_ADDRESS.fullmatch(text):
        return f'python dream_layer.py models add "{text}"'
    wanted = {_plain(without_extension(name)) for name in (text, text.rstrip("/").rpartition("/")[2])} - {""}
    for name, model in DOWNLOADABLE_MODELS.items():
        repository = model.repository.rpartition("/")[2]
        names = (name, model.title, without_extension(model.file), model.repository, repository)
        if model.kind in kinds and wanted & set(map(_plain, names)):
            return f"python dream_layer.py models add {name}"
    return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower()).removesuffix("base")
