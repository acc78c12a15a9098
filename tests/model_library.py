"""A model catalog without an engine, for tests that parse requests."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.models.detect import Family, ModelFile, ModelPart, TextEncoder
from starter import VAE_NAME

OWN, REFINER, PAINTER = "dreamshaper.safetensors", "sdxl/refiner.safetensors", "painter.safetensors"
FLUX, SCHNELL = "flux-all.safetensors", "schnell.safetensors"
# A checkpoint with a diffusion model only.
PLAIN = "plain.safetensors"
FILES: Mapping[str, Sequence[str]] = {
    "checkpoints": (OWN, FLUX, PAINTER, SCHNELL, REFINER, PLAIN),
    "diffusion_models": ("flux-alone.safetensors", "sd1-alone.safetensors"),
    "loras": ("style/Ink.safetensors", "glow.safetensors"),
    "vae": ("ae.safetensors", "sd.safetensors"),
    "text_encoders": ("t5.safetensors", "l.safetensors"),
    "embeddings": ("EasyNegative.pt", "ruby.safetensors"),
    "upscale_models": ("4x-UltraSharp.pth",),
    "controlnet": ("canny.safetensors", "union.safetensors"),
}
KNOWN: Mapping[str, Mapping[str, Any]] = {
    OWN: {"family": Family.SD1, "parts": frozenset(ModelPart)},
    PAINTER: {"family": Family.SD1, "inpainting": True, "parts": frozenset(ModelPart)},
    FLUX: {"family": Family.FLUX_DEV, "parts": frozenset(ModelPart)},
    SCHNELL: {"family": Family.FLUX_SCHNELL, "parts": frozenset(ModelPart)},
    PLAIN: {"family": Family.SD1, "parts": frozenset({ModelPart.DIFFUSION_MODEL})},
    "for-sd1.safetensors": {"family": Family.SD1},
    "for-xl.safetensors": {"family": Family.SDXL},
    "for-flux.safetensors": {"family": Family.FLUX_DEV},
    "flux-alone.safetensors": {"family": Family.FLUX_DEV},
    "sd1-alone.safetensors": {"family": Family.SD1},
    "t5.safetensors": {"text_encoder": TextEncoder.T5XXL},
    "l.safetensors": {"text_encoder": TextEncoder.CLIP_L},
    "l-other.safetensors": {"text_encoder": TextEncoder.CLIP_L},
    "ae.safetensors": {"latent_channels": 16},
    "sd.safetensors": {"latent_channels": 4},
    "sd-finer.safetensors": {"latent_channels": 4},
    VAE_NAME: {"latent_channels": 4},
    "union.safetensors": {"union": True},
}
NODES = json.loads((Path(__file__).parent / "data" / "object_info.json").read_text(encoding="utf-8"))


class ModelLibrary:
    """A catalog of the files above; `files` replace those of a folder, and `nodes` are installed custom nodes."""

    nodes: Sequence[str] = ()

    def __init__(self, **files: Sequence[str]) -> None:
        self._files = {**FILES, **files}

    def names(self, folder: str, max_age: float = 1.0) -> list[str]:
        return list(self._files[folder])

    def model_file(self, _folder: str, name: str) -> ModelFile:
        return ModelFile(name, known=True, **KNOWN.get(name, {}))

    def has_node(self, class_type: str) -> bool:
        return class_type in self.nodes

    def choices(self, class_type: str, name: str) -> list[str]:
        return list(NODES[class_type]["input"]["required"][name][0])
