"""What is in each file of the starter model and its kit, computed from the small trained weights. numpy only, no I/O
but reading those."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from starter.layout import AUTOENCODER, TEXT, UNET, Shapes, autoencoder, checkpoint, controlnet
from starter.quantise import Arrays, load_compact
from starter.text import BACK, LENGTH, OWN, USED, text_weights, token_vectors
from starter.wide import HEADS, HINT_WIDTHS, TIME_WIDTH, WIDTHS, widen, widen_factors
from starter.words import ROWS

Tensors = dict[str, npt.NDArray[np.float16]]

WEIGHTS = Path(__file__).parent / "weights"
MODEL_WEIGHTS = WEIGHTS / "model.safetensors"
AUTOENCODER_WEIGHTS = WEIGHTS / "autoencoder.safetensors"
LATENT_DEVIATION = 0.5
"""Latents are scaled to this: flat pictures are easy to see through noise, so they need a noisier schedule."""
SD_SCALE = 0.18215
"""The engine multiplies encoded latents by this for SD 1.x; ours shall come out with LATENT_DEVIATION."""
RUBY = "red heart"
"""What the embedding stands for: two vectors, those of these words."""
SEPIA = ((0.393, 0.769, 0.189), (0.349, 0.686, 0.168), (0.272, 0.534, 0.131))
"""The usual matrix that makes a picture brown: output channels from red, green and blue. White would be too bright."""


CONTRACT = "contract"
"""Key of the weights' metadata."""


def contract() -> str:
    """A hash of what weights and code must agree on: weights trained for other words, say, would load and draw
    nonsense. It is written into the weights when they are packed, and a test compares."""
    parts = [sorted(ROWS.items()), OWN, BACK, LENGTH, USED.tolist(), HEADS, WIDTHS, TIME_WIDTH, HINT_WIDTHS]
    return hashlib.sha256(repr([*parts, LATENT_DEVIATION]).encode()).hexdigest()


def base() -> Tensors:
    """The starter checkpoint."""
    return _checkpoint(load_compact(MODEL_WEIGHTS))


def pastel() -> Tensors:
    """The second checkpoint: the first with a change of low rank, the same shapes in another look."""
    return _checkpoint(_changed("pastel"))


def inpainting() -> Tensors:
    """The inpainting checkpoint: nine input channels, and a change of low rank."""
    return _checkpoint(_changed("inpainting"), inputs=9)


def outline() -> Tensors:
    """The LoRA: outlines instead of filled shapes."""
    shapes = {name: weight.shape for name, weight in load_compact(MODEL_WEIGHTS).items()}
    factors = load_compact(WEIGHTS / "outline.safetensors")
    tensors: Tensors = {}
    for name, up in factors.items():
        if not name.endswith(".up"):
            continue
        weight = name.removesuffix(".up")
        key = "lora_unet_" + weight.removesuffix(".weight").replace(".", "_")
        wide_up, wide_down = widen_factors(weight, shapes[weight], up, factors[f"{weight}.down"])
        tensors |= {f"{key}.lora_up.weight": wide_up, f"{key}.lora_down.weight": wide_down}
        # The engine scales a change by alpha / rank.
        tensors[f"{key}.alpha"] = np.array(up.shape[1], np.float16)
    return tensors


def canny() -> Tensors:
    """The ControlNet for edges."""
    tensors = {name: widen(name, weight) for name, weight in load_compact(WEIGHTS / "canny.safetensors").items()}
    _must_be(tensors, controlnet())
    return tensors


def upscaler() -> Tensors:
    """The 2x upscale model."""
    return load_file(WEIGHTS / "upscaler.safetensors")


def ruby() -> Tensors:
    """The embedding, by construction: a word of its own for RUBY."""
    table = load_compact(MODEL_WEIGHTS)["table"]
    return {"emb_params": token_vectors(table, RUBY)}


def sepia() -> Tensors:
    """The VAE file: the autoencoder whose last layer mixes its colours to brown, which a matrix does exactly."""
    tensors = _autoencoder()
    matrix = np.array(SEPIA, np.float32)
    matrix /= matrix.sum(1).max()
    for part in ("weight", "bias"):
        name = f"taesd_decoder.19.{part}"
        tensors[name] = np.tensordot(matrix, tensors[name].astype(np.float32), 1).astype(np.float16)
    return tensors


def _checkpoint(model: Arrays, inputs: int = 4) -> Tensors:
    """A whole checkpoint around a diffusion model with its table of words."""
    parts = {
        UNET: {name: widen(name, weight) for name, weight in model.items() if name != "table"},
        TEXT: text_weights(model["table"]),
        AUTOENCODER: _autoencoder(),
    }
    tensors = {prefix + name: weight for prefix, part in parts.items() for name, weight in part.items()}
    _must_be(tensors, checkpoint(inputs))
    return tensors


def _changed(part: str) -> Arrays:
    """The diffusion model with the change of low rank, and the replaced tensors, of a part."""
    model, change = load_compact(MODEL_WEIGHTS), load_compact(WEIGHTS / f"{part}.safetensors")
    for name in list(model):
        if f"{name}.whole" in change:
            model[name] = change[f"{name}.whole"]
        elif f"{name}.up" in change:
            model[name] = model[name] + (change[f"{name}.up"] @ change[f"{name}.down"]).reshape(model[name].shape)
    return model


def _autoencoder() -> Tensors:
    """The trained autoencoder in the width that the loader demands: what is not there is zero, and changes nothing."""
    wide = {name: np.zeros(shape, np.float16) for name, shape in autoencoder().items()}
    for name, weight in load_file(AUTOENCODER_WEIGHTS).items():
        wide[name][tuple(slice(size) for size in weight.shape)] = weight
    wide["vae_scale"] = np.array(SD_SCALE / LATENT_DEVIATION, np.float16)
    return wide


def _must_be(tensors: Tensors, shapes: Shapes) -> None:
    """Raises ValueError if weights and layout have come apart."""
    if {name: weight.shape for name, weight in tensors.items()} != shapes:
        raise ValueError(f"the weights in {WEIGHTS} do not fit the layout of the code")
