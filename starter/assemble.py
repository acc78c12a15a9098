"""Writes the starter checkpoint: `python -m starter.assemble FOLDER`. Needs numpy and safetensors alone, some seconds.

The file is 360 MB because the loader demands whole CLIP-L and whole layers, most of which are zeros; so it is assembled
on the user's machine instead of being shipped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from starter import CHECKPOINT_NAME
from starter.layout import Shapes, autoencoder, checkpoint
from starter.quantise import load_compact
from starter.text import USED, text_weights
from starter.wide import widen

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
AUTOENCODER = HERE / "weights" / "autoencoder.safetensors"
MODEL = HERE / "weights" / "model.safetensors"
CODE = ("assemble", "layout", "quantise", "text", "wide", "words")
RECIPE = [*(HERE / f"{name}.py" for name in CODE), AUTOENCODER, MODEL]
"""All that decides what the file holds."""
FINGERPRINT = "dream_layer_recipe"

LATENT_DEVIATION = 0.5
"""Latents are scaled to this: flat pictures are easy to see through noise, so they need a noisier schedule."""
SD_SCALE = 0.18215
"""The engine multiplies encoded latents by this for SD 1.x; ours shall come out with LATENT_DEVIATION."""


def assemble_checkpoint(folder: Path) -> Path:
    """Writes the checkpoint into `folder`, unless this very file is there already; returns its path.

    It is written aside and renamed, so a file of that name is always whole. Raises OSError if it cannot be written.
    """
    path = folder / CHECKPOINT_NAME
    fingerprint = recipe_fingerprint()
    if is_complete(path, fingerprint):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    save_file(build(), aside, metadata={FINGERPRINT: fingerprint, "format": "pt"})
    # safetensors makes files that only their owner can read.
    aside.chmod(0o644)
    aside.replace(path)
    return path


def recipe_fingerprint() -> str:
    """A hash of everything that decides what the file holds."""
    digest = hashlib.sha256()
    for part in RECIPE:
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


def build() -> dict[str, npt.NDArray[np.float16]]:
    """Every tensor of the checkpoint, in half precision."""
    model = load_compact(MODEL)
    table = model.pop("table")
    parts = {
        "model.diffusion_model.": {name: widen(name, weight, USED) for name, weight in model.items()},
        "cond_stage_model.transformer.text_model.": text_weights(table),
        "first_stage_model.": widened(load_file(AUTOENCODER), autoencoder()),
    }
    tensors = {prefix + name: weight for prefix, part in parts.items() for name, weight in part.items()}
    assert {name: weight.shape for name, weight in tensors.items()} == checkpoint()  # noqa: S101 - holds by construction
    return tensors


def widened(narrow: dict[str, npt.NDArray[np.float16]], shapes: Shapes) -> dict[str, npt.NDArray[np.float16]]:
    """The trained autoencoder in the width that the loader demands: what is not there is zero, and changes nothing."""
    wide = {name: np.zeros(shape, np.float16) for name, shape in shapes.items()}
    for name, weight in narrow.items():
        wide[name][tuple(slice(size) for size in weight.shape)] = weight
    wide["vae_scale"] = np.array(SD_SCALE / LATENT_DEVIATION, np.float16)
    return wide


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    log.info("%s", assemble_checkpoint(parser.parse_args().folder))


if __name__ == "__main__":
    main()
