"""Writes the starter model and its kit: `python -m starter.assemble MODELS_FOLDER`. Needs only numpy and safetensors.

A checkpoint has 350 MB because the loader requires all of CLIP-L and full-width layers, most of which are zeros. So the
files are assembled on the user's machine, in seconds, and not shipped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.numpy import save_file

from starter import CHECKPOINT_NAME, INPAINTING_NAME, PASTEL_NAME, VAE_NAME
from starter.builders import (
    WEIGHTS,
    Tensors,
    build_canny_controlnet,
    build_inpainting,
    build_outline_lora,
    build_pastel,
    build_ruby_embedding,
    build_sepia_vae,
    build_starter,
    build_upscaler,
)

log = logging.getLogger(__name__)

STARTER_DIR = Path(__file__).parent
CODE = ("assemble", "builders", "layout", "quantisation", "text_encoder", "vocabulary", "widening")
FINGERPRINT = "dream_layer_recipe"


@dataclass(frozen=True)
class StarterFile:
    """A model file: its folder, its name, the function that builds its tensors, and its metadata."""

    folder: str
    name: str
    build: Callable[[], Tensors]
    metadata: Mapping[str, str] = field(default_factory=dict)


def model_metadata(title: str, architecture: str = "", **further: str) -> dict[str, str]:
    """Return metadata by the ModelSpec standard; `architecture` is the suffix after `stable-diffusion-v1`."""
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": f"Dream Layer {title}",
        "modelspec.architecture": f"stable-diffusion-v1{architecture}",
        **{f"modelspec.{name}": value for name, value in further.items()},
    }


def checkpoint_metadata(title: str) -> dict[str, str]:
    """Return the metadata of a checkpoint, with the defaults of these small models.

    They are trained on 128 pixels, and still follow prompts at twice the side.
    """
    return {
        **model_metadata(title, implementation="sgm", resolution="128x128", prediction_type="epsilon"),
        "dream_layer.steps": "10",
        "dream_layer.cfg_scale": "3.0",
        "dream_layer.pixels": str(256 * 256),
    }


STARTER = StarterFile("checkpoints", CHECKPOINT_NAME, build_starter, checkpoint_metadata("Starter"))
KIT = (
    StarterFile("checkpoints", PASTEL_NAME, build_pastel, checkpoint_metadata("Pastel")),
    StarterFile("checkpoints", INPAINTING_NAME, build_inpainting, checkpoint_metadata("Inpainting")),
    StarterFile("loras", "dream-layer-outline.safetensors", build_outline_lora, model_metadata("Outline", "/lora")),
    StarterFile(
        "controlnet",
        "dream-layer-canny.safetensors",
        build_canny_controlnet,
        model_metadata("Canny", "/controlnet"),
    ),
    StarterFile("upscale_models", "dream-layer-2x.safetensors", build_upscaler),
    StarterFile(
        "embeddings",
        "dream-layer-ruby.safetensors",
        build_ruby_embedding,
        model_metadata("Ruby", "/textual-inversion"),
    ),
    StarterFile("vae", VAE_NAME, build_sepia_vae, model_metadata("Sepia", "/vae")),
)


def assemble(models: Path, files: tuple[StarterFile, ...] = (STARTER, *KIT)) -> list[Path]:
    """Write the files that are missing or outdated below `models`; returns the written paths. Raises OSError.

    Each is written to a temporary file and renamed, so a file with its name is always complete.
    """
    fingerprint = current_fingerprint()
    written = []
    for file in files:
        path = models / file.folder / file.name
        if is_up_to_date(path, fingerprint):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        save_file(file.build(), temporary, metadata={**file.metadata, FINGERPRINT: fingerprint, "format": "pt"})
        # safetensors creates files that only their owner can read.
        temporary.chmod(0o644)
        temporary.replace(path)
        written.append(path)
    return written


def current_fingerprint() -> str:
    """Return a hash of the code and weights that determine the files' content."""
    digest = hashlib.sha256()
    sources = [*(STARTER_DIR / f"{name}.py" for name in CODE), *sorted(WEIGHTS.glob("*.safetensors"))]
    for source in sources:
        content = source.read_bytes()
        digest.update(content.replace(b"\r\n", b"\n") if source.suffix == ".py" else content)
    return digest.hexdigest()


def is_up_to_date(path: Path, fingerprint: str) -> bool:
    """Whether `path` is a complete file with this fingerprint."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
            size = file.seek(0, 2)
    except (OSError, struct.error, ValueError, OverflowError, MemoryError):
        return False
    end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    return bool(header.get("__metadata__", {}).get(FINGERPRINT) == fingerprint and size == 8 + length + end)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for path in assemble(parser.parse_args().folder):
        log.info("%s", path)


if __name__ == "__main__":
    main()
