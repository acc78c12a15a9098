"""Writes the starter model and its kit: `python -m starter.assemble MODELS_FOLDER`. Needs numpy and safetensors alone.

A checkpoint is 350 MB because the loader demands whole CLIP-L and whole layers, most of which are zeros; so the files
are assembled on the user's machine, in seconds, instead of being shipped.
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

from starter import CHECKPOINT_NAME, INPAINTING_NAME, PASTEL_NAME, VAE_NAME, recipes

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
CODE = ("assemble", "layout", "quantise", "recipes", "text", "wide", "words")
FINGERPRINT = "dream_layer_recipe"


@dataclass(frozen=True)
class File:
    """One file: its folder below the models folder, its name, what is in it, and what its header says of it."""

    folder: str
    name: str
    build: Callable[[], recipes.Tensors]
    metadata: Mapping[str, str] = field(default_factory=dict)


def describe(title: str, architecture: str = "", **further: str) -> dict[str, str]:
    """The metadata of a file, as the ModelSpec standard names them; `architecture` follows Stable Diffusion 1's."""
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": f"Dream Layer {title}",
        "modelspec.architecture": f"stable-diffusion-v1{architecture}",
        **{f"modelspec.{name}": value for name, value in further.items()},
    }


def describe_checkpoint(title: str) -> dict[str, str]:
    """These are small models: made for small pictures, which they draw in seconds on a CPU. Up to a double side they
    still draw what they are told."""
    return {
        **describe(title, implementation="sgm", resolution="128x128", prediction_type="epsilon"),
        "dream_layer.steps": "10",
        "dream_layer.cfg_scale": "3.0",
        "dream_layer.pixels": str(256 * 256),
    }


STARTER = File("checkpoints", CHECKPOINT_NAME, recipes.base, describe_checkpoint("Starter"))
KIT = (
    File("checkpoints", PASTEL_NAME, recipes.pastel, describe_checkpoint("Pastel")),
    File("checkpoints", INPAINTING_NAME, recipes.inpainting, describe_checkpoint("Inpainting")),
    File("loras", "dream-layer-outline.safetensors", recipes.outline, describe("Outline", "/lora")),
    File("controlnet", "dream-layer-canny.safetensors", recipes.canny, describe("Canny", "/controlnet")),
    File("upscale_models", "dream-layer-2x.safetensors", recipes.upscaler),
    File("embeddings", "dream-layer-ruby.safetensors", recipes.ruby, describe("Ruby", "/textual-inversion")),
    File("vae", VAE_NAME, recipes.sepia, describe("Sepia", "/vae")),
)


def assemble(models: Path, files: tuple[File, ...] = (STARTER, *KIT)) -> list[Path]:
    """Writes those of the files that are not there already, below `models`; returns the paths that were written.

    Each is written aside and renamed, so a file of its name is always whole. Raises OSError if one cannot be written.
    """
    fingerprint = recipe_fingerprint()
    written = []
    for file in files:
        path = models / file.folder / file.name
        if is_complete(path, fingerprint):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".part")
        save_file(file.build(), aside, metadata={**file.metadata, FINGERPRINT: fingerprint, "format": "pt"})
        # safetensors makes files that only their owner can read.
        aside.chmod(0o644)
        aside.replace(path)
        written.append(path)
    return written


def recipe_fingerprint() -> str:
    """A hash of everything that decides what the files hold."""
    digest = hashlib.sha256()
    parts = [*(HERE / f"{name}.py" for name in CODE), *sorted(recipes.WEIGHTS.glob("*.safetensors"))]
    for part in parts:
        digest.update(part.read_bytes().replace(b"\r\n", b"\n") if part.suffix == ".py" else part.read_bytes())
    return digest.hexdigest()


def is_complete(path: Path, fingerprint: str) -> bool:
    """Whether `path` is a file of this recipe with all its bytes."""
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
