"""Builds the tensors of each file of the starter model and its kit from the small trained weights. numpy only.

The only I/O is reading the weights.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from starter.layout import AUTOENCODER, TEXT, UNET, Shapes, autoencoder_shapes, checkpoint_shapes, controlnet_shapes
from starter.quantisation import Arrays, load_quantised
from starter.text_encoder import (
    LOOKBACK,
    TOKEN_WIDTH,
    USED_CHANNELS,
    VECTOR_LENGTH,
    build_text_encoder,
    token_vectors,
)
from starter.vocabulary import ROWS
from starter.widening import HEADS, HINT_WIDTHS, TIME_WIDTH, WIDTHS, widen, widen_factors

Tensors = dict[str, npt.NDArray[np.float16]]

WEIGHTS = Path(__file__).parent / "weights"
MODEL_WEIGHTS = WEIGHTS / "model.safetensors"
AUTOENCODER_WEIGHTS = WEIGHTS / "autoencoder.safetensors"
LATENT_DEVIATION = 0.5
"""The standard deviation of our latents: flat pictures are easy to recognise in noise, so they need more of it."""
SD_LATENT_SCALE = 0.18215
"""The engine multiplies encoded latents by this for SD 1.x; the result must have LATENT_DEVIATION."""
RUBY = "red heart"
"""The words whose two vectors the embedding contains."""
SEPIA = ((0.393, 0.769, 0.189), (0.349, 0.686, 0.168), (0.272, 0.534, 0.131))
"""The usual sepia matrix: output channels from red, green and blue. Unscaled, white would be too bright."""


FINGERPRINT_KEY = "contract"
"""Metadata key of the weights' fingerprint."""


def weights_fingerprint() -> str:
    """Return a hash of what weights and code must agree on, such as the rows of words.

    Mismatched weights would load and generate nonsense. The packed weights contain the hash; a test compares it.
    """
    values = [
        sorted(ROWS.items()),
        TOKEN_WIDTH,
        LOOKBACK,
        VECTOR_LENGTH,
        USED_CHANNELS.tolist(),
        HEADS,
        WIDTHS,
        TIME_WIDTH,
        HINT_WIDTHS,
    ]
    return hashlib.sha256(repr([*values, LATENT_DEVIATION]).encode()).hexdigest()


def build_starter() -> Tensors:
    """The starter checkpoint."""
    return _build_checkpoint(load_quantised(MODEL_WEIGHTS))


def build_pastel() -> Tensors:
    """The pastel checkpoint: the starter with a low-rank change, the same shapes in another style."""
    return _build_checkpoint(_apply_change("pastel"))


def build_inpainting() -> Tensors:
    """The inpainting checkpoint: nine input channels and a low-rank change."""
    return _build_checkpoint(_apply_change("inpainting"), inputs=9)


def build_outline_lora() -> Tensors:
    """The LoRA: outlines instead of filled shapes."""
    shapes = {name: weight.shape for name, weight in load_quantised(MODEL_WEIGHTS).items()}
    factors = load_quantised(WEIGHTS / "outline.safetensors")
    tensors: Tensors = {}
    for name, up in factors.items():
        if not name.endswith(".up"):
            continue
        weight = name.removesuffix(".up")
        key = "lora_unet_" + weight.removesuffix(".weight").replace(".", "_")
        wide_up, wide_down = widen_factors(weight, shapes[weight], up, factors[f"{weight}.down"])
        tensors |= {f"{key}.lora_up.weight": wide_up, f"{key}.lora_down.weight": wide_down}
        # The engine multiplies the change by alpha / rank.
        tensors[f"{key}.alpha"] = np.array(up.shape[1], np.float16)
    return tensors


def build_canny_controlnet() -> Tensors:
    """The ControlNet for edges."""
    tensors = {name: widen(name, weight) for name, weight in load_quantised(WEIGHTS / "canny.safetensors").items()}
    _check_shapes(tensors, controlnet_shapes())
    return tensors


def build_upscaler() -> Tensors:
    """The 2x upscale model."""
    return load_file(WEIGHTS / "upscaler.safetensors")


def build_ruby_embedding() -> Tensors:
    """The embedding: the vectors of the words in RUBY."""
    table = load_quantised(MODEL_WEIGHTS)["table"]
    return {"emb_params": token_vectors(table, RUBY)}


def build_sepia_vae() -> Tensors:
    """The VAE: the autoencoder with the sepia matrix in its last layer."""
    tensors = _build_autoencoder()
    matrix = np.array(SEPIA, np.float32)
    matrix /= matrix.sum(1).max()
    for part in ("weight", "bias"):
        name = f"taesd_decoder.19.{part}"
        tensors[name] = np.tensordot(matrix, tensors[name].astype(np.float32), 1).astype(np.float16)
    return tensors


def _build_checkpoint(model: Arrays, inputs: int = 4) -> Tensors:
    """Build a checkpoint from a diffusion model with its table of word vectors."""
    parts = {
        UNET: {name: widen(name, weight) for name, weight in model.items() if name != "table"},
        TEXT: build_text_encoder(model["table"]),
        AUTOENCODER: _build_autoencoder(),
    }
    tensors = {prefix + name: weight for prefix, part in parts.items() for name, weight in part.items()}
    _check_shapes(tensors, checkpoint_shapes(inputs))
    return tensors


def _apply_change(part: str) -> Arrays:
    """Return the diffusion model with the low-rank change and the replaced tensors of a part of the kit."""
    model, change = load_quantised(MODEL_WEIGHTS), load_quantised(WEIGHTS / f"{part}.safetensors")
    for name in list(model):
        if f"{name}.whole" in change:
            model[name] = change[f"{name}.whole"]
        elif f"{name}.up" in change:
            model[name] = model[name] + (change[f"{name}.up"] @ change[f"{name}.down"]).reshape(model[name].shape)
    return model


def _build_autoencoder() -> Tensors:
    """Pad the trained autoencoder with zeros to the width that the loader requires; they have no effect."""
    wide = {name: np.zeros(shape, np.float16) for name, shape in autoencoder_shapes().items()}
    for name, weight in load_file(AUTOENCODER_WEIGHTS).items():
        wide[name][tuple(slice(size) for size in weight.shape)] = weight
    wide["vae_scale"] = np.array(SD_LATENT_SCALE / LATENT_DEVIATION, np.float16)
    return wide


def _check_shapes(tensors: Tensors, shapes: Shapes) -> None:
    """Raise ValueError if the weights do not match the layout."""
    if {name: weight.shape for name, weight in tensors.items()} != shapes:
        raise ValueError(f"the weights in {WEIGHTS} do not fit the layout of the code")
