"""Files with the headers of real models and no weights: enough keys for the engine's own detection."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
INSIDE = "model.diffusion_model."
BYTES = {"F16": 2, "BF16": 2, "F32": 4, "F8_E4M3": 1}


def write_safetensors(
    path: Path,
    tensors: Mapping[str, tuple[str, Shape]],
    metadata: Mapping[str, str] | None = None,
    content: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a sparse file: its weights are zero and take no space on the disk, except those in `content`."""
    content = content or {}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, size = end, BYTES[dtype]
        for side in shape:
            size *= side
        end = start + size
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
        for name, data in content.items():
            file.seek(8 + len(text) + header[name]["data_offsets"][0])
            file.write(data)
    return path


def write(path: Path, shapes: Shapes, metadata: Mapping[str, str] | None = None) -> Path:
    """Write a file with all tensors in F16, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_safetensors(path, {name: ("F16", shape) for name, shape in shapes.items()}, metadata)


def under(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


def unet(
    *, channels: int, context: int, depths: Sequence[int], inputs: int = 4, conditions: int | None = None
) -> Shapes:
    """A UNet of Stable Diffusion; `depths` are the numbers of transformer blocks of its levels."""
    shapes: Shapes = {"input_blocks.0.0.weight": (channels, inputs, 3, 3), "out.2.weight": (4, channels, 3, 3)}
    if conditions is not None:
        shapes["label_emb.0.0.weight"] = (4 * channels, conditions)
    # The first version projects by convolution, the later ones by a matrix.
    tail: Shape = (1, 1) if context == 768 else ()
    block = 0
    for level, depth in enumerate(depths):
        if level:
            block += 1
            shapes[f"input_blocks.{block}.0.op.weight"] = (channels, channels, 3, 3)
        # Each level has two residual blocks.
        for _ in range(2):
            block += 1
            start = f"input_blocks.{block}."
            shapes[f"{start}0.in_layers.0.weight"] = (channels,)
            shapes[f"{start}0.out_layers.3.weight"] = (channels, channels, 3, 3)
            if depth:
                shapes[f"{start}1.proj_in.weight"] = (channels, channels, *tail)
            for index in range(depth):
                shapes[f"{start}1.transformer_blocks.{index}.attn2.to_k.weight"] = (channels, context)
    return shapes


def sd1_unet(inputs: int = 4) -> Shapes:
    return unet(channels=320, context=768, depths=(1, 1, 1, 0), inputs=inputs)


def sd2_unet(inputs: int = 4) -> Shapes:
    return unet(channels=320, context=1024, depths=(1, 1, 1, 0), inputs=inputs)


def sdxl_unet(inputs: int = 4) -> Shapes:
    return unet(channels=320, context=2048, depths=(0, 2, 10), inputs=inputs, conditions=2816)


def refiner_unet() -> Shapes:
    return unet(channels=384, context=1280, depths=(0, 4, 4, 0), conditions=2560)


def sd3_transformer() -> Shapes:
    return {
        "x_embedder.proj.weight": (1536, 16, 2, 2),
        "joint_blocks.0.context_block.attn.qkv.weight": (4608, 1536),
        "final_layer.linear.weight": (64, 1536),
        "y_embedder.mlp.0.weight": (1536, 2048),
        "context_embedder.weight": (1536, 4096),
        "pos_embed": (1, 36864, 1536),
    }


def flux_transformer(*, guided: bool, inputs: int = 64) -> Shapes:
    shapes: Shapes = {
        "img_in.weight": (3072, inputs),
        "txt_in.weight": (3072, 4096),
        "vector_in.in_layer.weight": (3072, 768),
        "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
        "double_blocks.0.img_attn.qkv.weight": (9216, 3072),
        "single_blocks.0.linear1.weight": (21504, 3072),
    }
    return {**shapes, "guidance_in.in_layer.weight": (3072, 256)} if guided else shapes


def checkpoint(
    diffusion: Shapes, text: str = "cond_stage_model.transformer.", vae: str = "first_stage_model."
) -> Shapes:
    """A checkpoint: diffusion model, text encoder and VAE in one file."""
    channels = 16 if vae == "vae." else 4
    return {**under(INSIDE, diffusion), **under(text, clip(0, 768)), **under(vae, autoencoder(channels))}


def sdxl_checkpoint() -> Shapes:
    return checkpoint(sdxl_unet(), "conditioner.embedders.0.transformer.")


def clip(last_layer: int, width: int) -> Shapes:
    shapes: Shapes = {"text_model.embeddings.token_embedding.weight": (49408, width)}
    for layer in range(last_layer + 1):
        shapes[f"text_model.encoder.layers.{layer}.mlp.fc1.weight"] = (4 * width, width)
    return shapes


def clip_l() -> Shapes:
    return clip(11, 768)


def clip_h() -> Shapes:
    return clip(22, 1024)


def clip_g() -> Shapes:
    return clip(31, 1280)


def t5xxl() -> Shapes:
    return {
        "shared.weight": (32128, 4096),
        "encoder.block.0.layer.0.SelfAttention.k.weight": (4096, 4096),
        "encoder.block.23.layer.1.DenseReluDense.wi_1.weight": (10240, 4096),
    }


def autoencoder(channels: int) -> Shapes:
    return {"decoder.conv_in.weight": (512, channels, 3, 3), "encoder.conv_in.weight": (128, 3, 3, 3)}


def controlnet(diffusion: Shapes) -> Shapes:
    return {**under("control_model.", diffusion), "control_model.zero_convs.0.0.weight": (320, 320, 1, 1)}


def union_controlnet() -> Shapes:
    """A ControlNet for SDXL, with the key names of diffusers."""
    return {
        "conv_in.weight": (320, 4, 3, 3),
        "add_embedding.linear_1.weight": (1280, 2816),
        "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
        "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
        "control_add_embedding.linear_1.bias": (1280,),
        "task_embedding": (8, 320),
    }
