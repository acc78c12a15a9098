"""Tensor names and shapes of the smallest Stable Diffusion 1.5 checkpoint that the engine's loader accepts.

The loader detects the family by 320 model channels, a context width of 768 and convolutional projections. It infers the
rest from the tensor names: here, three resolutions with one residual block each. The text encoder must be a complete
CLIP-L. The autoencoder is a TAESD (`taesd_*`), which the loader accepts instead of the full one.
"""

from __future__ import annotations

import itertools

Shapes = dict[str, tuple[int, ...]]

CHANNELS = 320
CONTEXT = 768
TIME_CHANNELS = 4 * CHANNELS
TEXT_LAYERS = 12
VOCABULARY_SIZE = 49408
HINT_WIDTHS = (16, 16, 32, 32, 96, 96, 256)
"""Channels of the layers with which a ControlNet encodes its hint picture."""
WIDTH = 64
"""Channels of the tiny autoencoder."""

UNET = "model.diffusion_model."
TEXT = "cond_stage_model.transformer.text_model."
AUTOENCODER = "first_stage_model."


def checkpoint_shapes(inputs: int = 4) -> Shapes:
    """Shapes of all tensors in a checkpoint file."""
    return {
        **_prefixed(UNET, unet_shapes(inputs)),
        **_prefixed(TEXT, text_encoder_shapes()),
        **_prefixed(AUTOENCODER, autoencoder_shapes()),
    }


def unet_shapes(inputs: int = 4) -> Shapes:
    """Shapes of the diffusion model with `inputs` channels: 4 for latents, 9 for inpainting.

    Three resolutions with one block each on the way down, a middle block, and two blocks per resolution on the way up.
    Only the second resolution and the middle have transformers: at the first one they would cost as much as everything
    else, at the third one they add little.
    """
    shapes = {
        **_encoder_half(inputs),
        **_conv("output_blocks.1.1.conv", CHANNELS, CHANNELS),
        **_transformer("output_blocks.2.1"),
        **_transformer("output_blocks.3.1"),
        **_conv("output_blocks.3.2.conv", CHANNELS, CHANNELS),
        **_norm("out.0", CHANNELS),
        **_conv("out.2", 4, CHANNELS),
    }
    for block in range(6):
        shapes |= _residual(f"output_blocks.{block}.0", 2 * CHANNELS)
    return shapes


def controlnet_shapes() -> Shapes:
    """Shapes of a ControlNet: a copy of the diffusion model's encoder, and the encoder of the hint picture."""
    shapes = {**_encoder_half(4), **_conv("middle_block_out.0", CHANNELS, CHANNELS, 1)}
    for index in range(6):
        shapes |= _conv(f"zero_convs.{index}.0", CHANNELS, CHANNELS, 1)
    widths = (3, *HINT_WIDTHS, CHANNELS)
    for index, (before, width) in enumerate(itertools.pairwise(widths)):
        shapes |= _conv(f"input_hint_block.{2 * index}", width, before)
    return shapes


def _encoder_half(inputs: int) -> Shapes:
    return {
        **_linear("time_embed.0", TIME_CHANNELS, CHANNELS),
        **_linear("time_embed.2", TIME_CHANNELS, TIME_CHANNELS),
        **_conv("input_blocks.0.0", CHANNELS, inputs),
        **_residual("input_blocks.1.0", CHANNELS),
        **_conv("input_blocks.2.0.op", CHANNELS, CHANNELS),
        **_residual("input_blocks.3.0", CHANNELS),
        **_transformer("input_blocks.3.1"),
        **_conv("input_blocks.4.0.op", CHANNELS, CHANNELS),
        **_residual("input_blocks.5.0", CHANNELS),
        **_residual("middle_block.0", CHANNELS),
        **_transformer("middle_block.1"),
        **_residual("middle_block.2", CHANNELS),
    }


def text_encoder_shapes() -> Shapes:
    """Shapes of CLIP-L."""
    shapes: Shapes = {
        "embeddings.token_embedding.weight": (VOCABULARY_SIZE, CONTEXT),
        "embeddings.position_embedding.weight": (77, CONTEXT),
        **_norm("final_layer_norm", CONTEXT),
    }
    for index in range(TEXT_LAYERS):
        layer = f"encoder.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _linear(f"{layer}.self_attn.{name}", CONTEXT, CONTEXT)
        shapes |= {
            **_norm(f"{layer}.layer_norm1", CONTEXT),
            **_norm(f"{layer}.layer_norm2", CONTEXT),
            **_linear(f"{layer}.mlp.fc1", 4 * CONTEXT, CONTEXT),
            **_linear(f"{layer}.mlp.fc2", CONTEXT, 4 * CONTEXT),
        }
    return shapes


def autoencoder_shapes() -> Shapes:
    """Shapes of the TAESD autoencoder: pictures to latents of an eighth of the width and height, and back."""
    encoder, decoder = "taesd_encoder", "taesd_decoder"
    shapes: Shapes = {
        "vae_scale": (),
        "vae_shift": (),
        **_conv(f"{encoder}.0", WIDTH, 3),
        **_conv(f"{encoder}.14", 4, WIDTH),
        **_conv(f"{decoder}.1", WIDTH, 4),
        **_conv(f"{decoder}.19", 3, WIDTH),
    }
    blocks = [f"{encoder}.{i}" for i in (1, 3, 4, 5, 7, 8, 9, 11, 12, 13)]
    blocks += [f"{decoder}.{i}" for i in (3, 4, 5, 8, 9, 10, 13, 14, 15, 18)]
    for block in blocks:
        for index in (0, 2, 4):
            shapes |= _conv(f"{block}.conv.{index}", WIDTH, WIDTH)
    # The convolutions that change the resolution have no bias.
    for name in (f"{encoder}.2", f"{encoder}.6", f"{encoder}.10", f"{decoder}.7", f"{decoder}.12", f"{decoder}.17"):
        shapes[f"{name}.weight"] = (WIDTH, WIDTH, 3, 3)
    return shapes


def _linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _conv(name: str, outputs: int, inputs: int, size: int = 3) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, size, size), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _residual(name: str, inputs: int) -> Shapes:
    shapes = {
        **_norm(f"{name}.in_layers.0", inputs),
        **_conv(f"{name}.in_layers.2", CHANNELS, inputs),
        **_linear(f"{name}.emb_layers.1", CHANNELS, TIME_CHANNELS),
        **_norm(f"{name}.out_layers.0", CHANNELS),
        **_conv(f"{name}.out_layers.3", CHANNELS, CHANNELS),
    }
    return shapes if inputs == CHANNELS else {**shapes, **_conv(f"{name}.skip_connection", CHANNELS, inputs, 1)}


def _transformer(name: str) -> Shapes:
    block = f"{name}.transformer_blocks.0"
    shapes = {
        **_norm(f"{name}.norm", CHANNELS),
        **_conv(f"{name}.proj_in", CHANNELS, CHANNELS, 1),
        **_conv(f"{name}.proj_out", CHANNELS, CHANNELS, 1),
        **_linear(f"{block}.ff.net.0.proj", 8 * CHANNELS, CHANNELS),
        **_linear(f"{block}.ff.net.2", CHANNELS, 4 * CHANNELS),
    }
    for attention, context in (("attn1", CHANNELS), ("attn2", CONTEXT)):
        shapes |= {
            f"{block}.{attention}.to_q.weight": (CHANNELS, CHANNELS),
            f"{block}.{attention}.to_k.weight": (CHANNELS, context),
            f"{block}.{attention}.to_v.weight": (CHANNELS, context),
            **_linear(f"{block}.{attention}.to_out.0", CHANNELS, CHANNELS),
        }
    for index in (1, 2, 3):
        shapes |= _norm(f"{block}.norm{index}", CHANNELS)
    return shapes


def _prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}
