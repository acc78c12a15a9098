"""Detects what a model file is, and which folder it belongs in, from its header and never from its name. Pure.

The rules look at keys, shapes and the values of one bias, like the engine's own detection. A test compares the two.
"""

import difflib
import math
import re
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from shared.models.safetensors import SafetensorsHeader, Tensor
from shared.schema.choices import find_choice

Tensors = Mapping[str, Tensor]


class Family(str, Enum):
    """Families of diffusion models. Models of one family fit together and share default settings."""

    SD1 = "sd1"
    SD2 = "sd2"
    SDXL = "sdxl"
    SDXL_REFINER = "sdxl_refiner"
    SD3 = "sd3"
    FLUX_DEV = "flux_dev"
    FLUX_SCHNELL = "flux_schnell"
    UNKNOWN = "unknown"

    @property
    def label(self) -> str:
        """The family's name for people."""
        return LABELS.get(self, "an unknown family")


LABELS: Mapping[Family, str] = {
    Family.SD1: "SD 1",
    Family.SD2: "SD 2",
    Family.SDXL: "SDXL",
    Family.SDXL_REFINER: "SDXL refiner",
    Family.SD3: "SD 3",
    Family.FLUX_DEV: "Flux dev",
    Family.FLUX_SCHNELL: "Flux schnell",
}


class ModelPart(str, Enum):
    """The models that are needed for a picture; a checkpoint may contain all three."""

    DIFFUSION_MODEL = "diffusion_model"
    TEXT_ENCODERS = "text_encoders"
    VAE = "vae"


class TextEncoder(str, Enum):
    """Kinds of text encoders."""

    CLIP_L = "clip_l"
    CLIP_G = "clip_g"
    CLIP_H = "clip_h"
    T5XXL = "t5xxl"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class ModelFile:
    """What a file is, as far as its header says. Other facts are unknown, None or False.

    `known`: the header was readable. `inpainting`: the model reads the mask and the masked picture besides the noise.
    `text_to_image` is False for models that edit or upscale pictures, or make video, sound or shapes. `prediction` is
    "epsilon" or "v". `union`: a ControlNet for several kinds of control maps. `latent_channels` are those of the VAE.
    `size` (width, height), `pixels` (the most for a request without a size), `steps` and `cfg_scale` are the maker's
    recommendations. `starter`: the file belongs to the starter's kit.
    """

    name: str
    family: Family = Family.UNKNOWN
    parts: frozenset[ModelPart] = frozenset()
    inpainting: bool = False
    text_to_image: bool = True
    prediction: str | None = None
    text_encoder: TextEncoder = TextEncoder.UNKNOWN
    latent_channels: int | None = None
    union: bool = False
    size: tuple[int, int] | None = None
    pixels: int | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    known: bool = False
    starter: bool = False


T5_WORDS = 32128
# Prefix of the diffusion model's keys in a checkpoint. In a file of its own, the keys have no prefix.
INSIDE = "model.diffusion_model."
CONTROL = "control_model."
TEXT_PREFIXES = ("cond_stage_model.", "conditioner.", "text_encoders.")
VAE_PREFIXES = ("first_stage_model.", "vae.")
# UNets by width of the prompt and of the first layer; each with the allowed widths of further conditions such as size.
UNETS: Mapping[tuple[int, int], tuple[Family, frozenset[int | None]]] = {
    (768, 320): (Family.SD1, frozenset({None})),
    (1024, 320): (Family.SD2, frozenset({None, 1536, 2048})),
    (2048, 320): (Family.SDXL, frozenset({2816})),
    (1280, 384): (Family.SDXL_REFINER, frozenset({2560})),
}
# Names of a UNet's layers in the original code and in diffusers: the first, the one for conditions, the attention.
UNET_NAMES = (
    ("input_blocks.0.0.weight", "label_emb.0.0.weight", "input_blocks."),
    ("conv_in.weight", "add_embedding.linear_1.weight", "down_blocks."),
)
# Parts of tensor names in LoRAs of different trainers.
LORA_MARKS = (".lora_up.", ".lora_down.", ".lora_A.", ".lora_B.", ".lora.up.", "_lora.up.", ".hada_w1_a", ".lokr_w1")
# The factor of a LoRA that reads the prompt.
LORA_OF_PROMPT = re.compile(
    r"attn2[._](?:processor[._])?to_[kv](?:[._]lora)?\.(?:lora_down|lora_A(?:\.\w+)?|lora\.down|down|hada_w1_b)(?:\.weight)?$"
)
FLUX_MARKS = ("double_blocks", "single_blocks", "single_transformer_blocks")
LATENT_UNET, INPAINTING_UNET = 4, 9
LATENT_FLUX, INPAINTING_FLUX = 64, 384
# Prefixes of a diffusion model's keys, and keys of models that are not for text-to-image. The engine's own detection
# names them: Stable Audio, ACE-Step (two), Mochi, MiniMax, Cosmos, CogVideoX, Wan, SeedVR2 (three), Hunyuan 3D (two),
# TripoSplat, Stable Cascade's second stage.
MODEL_PREFIXES = ("", INSIDE, "model.model.", "net.")
OTHER_MODELS = (
    *("transformer.rotary_pos_emb.inv_freq", "genre_embedder.weight", "t5_yproj.weight", "video_patch_proj.weight"),
    "encoder.lyric_encoder.layers.0.input_layernorm.weight",
    *("blocks.block0.blocks.0.block.attn.to_q.0.weight", "blocks.0.norm1.linear.weight", "head.modulation"),
    *("blocks.35.mlp.vid.proj_out.weight", "blocks.35.mlp.all.proj_in_gate.weight"),
    *("blocks.31.mlp.all.proj_in_gate.weight", "latent_in.weight", "cam_out_layer.weight"),
    *("blocks.0.attn1.k_norm.weight", "clip_mapper.weight"),
)
# LTX Video has only the first of these keys, PixArt both.
LTX, PIXART = "adaln_single.emb.timestep_embedder.linear_1.bias", "pos_embed.proj.bias"
# Layers that cut a picture or a video into patches. Those for videos are convolutions in three dimensions.
PATCHING = ("patch_embedding.weight", "img_in.proj.weight", "x_embedder.proj.weight")
FLUX_TEXT_WIDTH = 4096
SD3_CHANNELS = 16
# Stable Diffusion 2 models whose probed bias deviates by more than this predict v: the engine's own rule.
V_DEVIATION = 0.09
SMALLEST_SIDE, LARGEST_SIDE = 16, 4096
# Metadata key that `starter.assemble` writes into each of its files.
STARTER_MARK = "dream_layer_recipe"


def classify(name: str, header: SafetensorsHeader | None) -> ModelFile:
    """Detect what the file `name` is. `header` is None if it could not be read."""
    if header is None:
        return ModelFile(name)
    tensors, metadata = header.tensors, header.metadata
    family, inpainting = _family(tensors)
    encoder = _text_encoder(tensors)
    channels = _latent_channels(tensors)
    return ModelFile(
        name,
        family=family,
        parts=_parts(tensors, encoder, channels),
        inpainting=inpainting,
        text_to_image=not inpainting and _is_text_to_image(tensors),
        prediction=_prediction(header, family, inpainting),
        text_encoder=encoder,
        latent_channels=channels,
        union="control_add_embedding.linear_1.bias" in tensors or "controlnet_mode_embedder.weight" in tensors,
        size=_size(metadata),
        pixels=_whole(metadata.get("dream_layer.pixels"), SMALLEST_SIDE**2, LARGEST_SIDE**2),
        steps=_whole(metadata.get("dream_layer.steps"), 1, 1000),
        cfg_scale=_number(metadata.get("dream_layer.cfg_scale"), 0, 100),
        known=True,
        starter=STARTER_MARK in metadata,
    )


def _family(tensors: Tensors) -> tuple[Family, bool]:
    """Return the family of a model, or the one that a LoRA or ControlNet is for, and whether it is for inpainting."""
    if is_lora(tensors):
        return _lora_family(tensors), False
    return _control_family(tensors) if is_control(tensors) else _diffusion_family(tensors)


def _diffusion_family(tensors: Tensors) -> tuple[Family, bool]:
    """Return the family of a diffusion model, and whether it is for inpainting."""
    prefix = INSIDE if _any(tensors, INSIDE) else ""
    if f"{prefix}joint_blocks.0.context_block.attn.qkv.weight" in tensors:
        fits = _side(tensors, f"{prefix}x_embedder.proj.weight", 1) == SD3_CHANNELS
        return (Family.SD3 if fits else Family.UNKNOWN), False
    if _any(tensors, f"{prefix}double_blocks.0.img_attn.norm.key_norm."):
        return _flux(tensors, prefix)
    return _unet(tensors, prefix)


def _flux(tensors: Tensors, prefix: str) -> tuple[Family, bool]:
    """Detect Flux. Several newer models have the same blocks, but only Flux reads T5 and a CLIP vector."""
    reads_clip = f"{prefix}vector_in.in_layer.weight" in tensors
    if not reads_clip or _side(tensors, f"{prefix}txt_in.weight", 1) != FLUX_TEXT_WIDTH:
        return Family.UNKNOWN, False
    guided = f"{prefix}guidance_in.in_layer.weight" in tensors
    inpainting = _side(tensors, f"{prefix}img_in.weight", 1) == INPAINTING_FLUX
    return (Family.FLUX_DEV if guided else Family.FLUX_SCHNELL), inpainting


def _unet(tensors: Tensors, prefix: str) -> tuple[Family, bool]:
    """Detect Stable Diffusion 1, 2 and XL by the width of the prompts that their attention reads."""
    for first, conditions, blocks in UNET_NAMES:
        start = prefix + blocks
        # Video models have the same layers, and further ones between frames.
        if prefix + first not in tensors or _has_time(tensors):
            continue
        attention = (name for name in tensors if name.startswith(start) and name.endswith(".attn2.to_k.weight"))
        width = _side(tensors, next(attention, ""), 1) or 0
        family, allowed = UNETS.get((width, _side(tensors, prefix + first, 0) or 0), (Family.UNKNOWN, frozenset()))
        if _side(tensors, prefix + conditions, 1) in allowed:
            return family, _side(tensors, prefix + first, 1) == INPAINTING_UNET
    return Family.UNKNOWN, False


def _is_text_to_image(tensors: Tensors) -> bool:
    """Whether a model makes a picture from noise and a prompt only; True for unknown models."""
    if is_lora(tensors) or is_control(tensors):
        return True
    prefix = next((start for start in MODEL_PREFIXES[1:] if _any(tensors, start)), "")
    for first, _, _ in UNET_NAMES:
        inputs = _side(tensors, prefix + first, 1)
        if inputs is not None:
            return inputs == LATENT_UNET and not _has_time(tensors)
    if _diffusion_family(tensors)[0] in (Family.FLUX_DEV, Family.FLUX_SCHNELL):
        return _side(tensors, f"{prefix}img_in.weight", 1) == LATENT_FLUX
    if any(len(tensors[prefix + name].shape) == 5 for name in PATCHING if prefix + name in tensors):
        return False
    if prefix + LTX in tensors and prefix + PIXART not in tensors:
        return False
    return not any(prefix + name in tensors for name in OTHER_MODELS)


def _has_time(tensors: Tensors) -> bool:
    """Whether a UNet has layers between the frames of a video."""
    return any(".time_stack." in name or ".time_mix" in name for name in tensors)


def _prediction(header: SafetensorsHeader, family: Family, inpainting: bool) -> str | None:
    """Return what the model predicts from a noisy latent: its noise ("epsilon") or its velocity ("v")."""
    declared = header.metadata.get("modelspec.prediction_type")
    if declared or "v_pred" in header.tensors:
        return declared or "v"
    if family is not Family.SD2:
        return None
    if inpainting:
        return "epsilon"
    if not header.values or not all(map(math.isfinite, header.values)):
        return None
    return "v" if statistics.pstdev(header.values) > V_DEVIATION else "epsilon"


def is_lora(tensors: Tensors) -> bool:
    """Whether these are the tensors of a LoRA or a similar low-rank change."""
    return any(mark in name for name in tensors for mark in LORA_MARKS)


def _lora_family(tensors: Tensors) -> Family:
    """Return the family that a LoRA is for: of UNets by the width of the prompts that the changed layers read."""
    for name, tensor in tensors.items():
        if LORA_OF_PROMPT.search(name) and len(tensor.shape) >= 2:
            return {width: family for (width, _), (family, _) in UNETS.items()}.get(tensor.shape[1], Family.UNKNOWN)
    if any(mark in name for name in tensors for mark in FLUX_MARKS):
        return Family.FLUX_DEV
    return Family.SD3 if any("joint_blocks" in name for name in tensors) else Family.UNKNOWN


def is_control(tensors: Tensors) -> bool:
    """Whether these are the tensors of a ControlNet."""
    return any(_any(tensors, start) for start in (CONTROL, "zero_convs.", "controlnet_"))


def _control_family(tensors: Tensors) -> tuple[Family, bool]:
    """Return the family that a ControlNet is for, and False: none is for inpainting."""
    if _any(tensors, "controlnet_x_embedder.") or _any(tensors, "double_blocks.0.img_attn."):
        is_qwen = "transformer_blocks.0.img_mlp.net.0.proj.weight" in tensors
        return (Family.UNKNOWN if is_qwen else Family.FLUX_DEV), False
    if "pos_embed_input.proj.weight" in tensors:
        return Family.SD3, False
    return _unet(tensors, CONTROL if _any(tensors, CONTROL) else "")[0], False


def _text_encoder(tensors: Tensors) -> TextEncoder:
    """Detect a text encoder in a file of its own, by its depth."""
    for layer, kind in ((30, TextEncoder.CLIP_G), (22, TextEncoder.CLIP_H), (0, TextEncoder.CLIP_L)):
        clip = f"text_model.encoder.layers.{layer}.mlp.fc1.weight"
        if clip in tensors or f"transformer.resblocks.{layer}.ln_1.weight" in tensors:
            return kind
    is_xxl = _side(tensors, "encoder.block.23.layer.1.DenseReluDense.wi_1.weight", 0) == 10240
    # The multilingual T5 has a larger vocabulary, and other models use it.
    if is_xxl and _side(tensors, "shared.weight", 0) in (None, T5_WORDS):
        return TextEncoder.T5XXL
    return TextEncoder.UNKNOWN


def _latent_channels(tensors: Tensors) -> int | None:
    """Return the latent channels of a VAE, alone or in a checkpoint: 4, or 16 of newer families; None without one."""
    for prefix in ("", *VAE_PREFIXES):
        for first in ("decoder.conv_in.weight", "taesd_decoder.1.weight"):
            tensor = tensors.get(prefix + first)
            # VAEs for videos have one dimension more.
            if tensor is not None and len(tensor.shape) == 4:
                return tensor.shape[1]
    return None


def _parts(tensors: Tensors, encoder: TextEncoder, latent_channels: int | None) -> frozenset[ModelPart]:
    def found() -> Iterator[ModelPart]:
        bare = ("input_blocks.0.0.weight", "conv_in.weight", "img_in.weight", "x_embedder.proj.weight")
        if _any(tensors, INSIDE) or (any(name in tensors for name in bare) and not is_control(tensors)):
            yield ModelPart.DIFFUSION_MODEL
        if encoder is not TextEncoder.UNKNOWN or any(_any(tensors, prefix) for prefix in TEXT_PREFIXES):
            yield ModelPart.TEXT_ENCODERS
        if latent_channels is not None or any(_any(tensors, prefix) for prefix in VAE_PREFIXES):
            yield ModelPart.VAE

    return frozenset(found())


def _any(tensors: Tensors, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in tensors)


def _side(tensors: Tensors, name: str, dimension: int) -> int | None:
    tensor = tensors.get(name)
    return tensor.shape[dimension] if tensor is not None and len(tensor.shape) > dimension else None


def _size(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """Read the width and height that the model was made for."""
    match = re.fullmatch(r"\s*(\d{1,5})\s*[xX]\s*(\d{1,5})\s*", metadata.get("modelspec.resolution", ""))
    if match is None:
        return None
    width, height = int(match[1]), int(match[2])
    fits = all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in (width, height))
    return (width, height) if fits else None


def _whole(text: str | None, lowest: int, highest: int) -> int | None:
    number = _number(text, lowest, highest)
    return int(number) if number is not None and number.is_integer() else None


def _number(text: str | None, lowest: float, highest: float) -> float | None:
    """Parse a number of the metadata; None if it is invalid or out of range."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and lowest <= number <= highest else None


# Kinds of models, by the names of the engine's folders for them.
MODEL_KINDS = (
    "checkpoints",
    "diffusion_models",
    "text_encoders",
    "vae",
    "loras",
    "controlnet",
    "upscale_models",
    "embeddings",
    "hypernetworks",
    "clip_vision",
    "vae_approx",
)
# Synonyms: folders of other programs and of older engines, and training methods.
_SYNONYMS = {
    "checkpoints": "ckpt ckpts Stable-diffusion full_model",
    "diffusion_models": "unet unets transformer transformers dit",
    "text_encoders": "clip clips t5 t5xxl encoder encoders",
    "vae": "vaes autoencoder autoencoders",
    "loras": "lycoris locon loha lokr dora",
    "controlnet": "controlnets control_nets control_lora t2i_adapter t2i_adapters",
    "upscale_models": "upscaler upscalers upscale ESRGAN RealESRGAN SwinIR",
    "embeddings": "textual_inversion textual_inversions ti",
    "clip_vision": "clip_visions vision image_encoder",
    "vae_approx": "taesd vae_approximation",
}
KIND_SYNONYMS = {
    **{kind.removesuffix("s"): kind for kind in MODEL_KINDS if kind.endswith("s")},
    **{name: kind for kind, names in _SYNONYMS.items() for name in names.split()},
}
# First layers of common upscalers: ESRGAN in two naming schemes, its compact variants, SwinIR and its variants.
UPSCALER_MARKS = ("model.1.sub.0.", "RRDB_trunk.0.", "body.0.rdb1.", "body.1.num_batches", "layers.0.residual_group.")


def find_kind(text: str) -> str | None:
    """Return the kind of models that `text` names, in any spelling or by a synonym; None if it names none."""
    return find_choice(text, MODEL_KINDS, KIND_SYNONYMS)


def suggest_kind(text: object) -> str:
    """Return the start of a hint, such as "did you mean loras? "; empty if no kind has a similar name."""
    names = {name.lower(): kind for name, kind in {**KIND_SYNONYMS, **{kind: kind for kind in MODEL_KINDS}}.items()}
    near = difflib.get_close_matches(str(text)[:100].lower(), names, n=1, cutoff=0.7)
    return f"did you mean {names[near[0]]}? " if near else ""


def detect_kind(header: SafetensorsHeader) -> str | None:
    """Return the kind of a file with this header, which is also the name of its folder; None if it is unknown."""
    tensors = header.tensors
    # LoRAs and ControlNets come first, because their tensor names resemble those of the model that they change.
    if is_lora(tensors):
        return "loras"
    if is_control(tensors):
        return "controlnet"
    if _is_embedding(tensors):
        return "embeddings"
    parts = classify("", header).parts
    if ModelPart.DIFFUSION_MODEL in parts:
        return "diffusion_models" if parts == {ModelPart.DIFFUSION_MODEL} else "checkpoints"
    if any(name.startswith(("vision_model.encoder.", "visual.transformer.")) for name in tensors):
        return "clip_vision"
    if ModelPart.TEXT_ENCODERS in parts:
        return "text_encoders"
    if ModelPart.VAE in parts:
        return "vae"
    return "upscale_models" if _is_upscaler(tensors) else None


def _is_embedding(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are vectors that replace words: for one text encoder, or one tensor for each of SDXL's two."""
    return "emb_params" in tensors or (bool(tensors) and tensors.keys() <= {"clip_l", "clip_g", "t5xxl"})


def _is_upscaler(tensors: Mapping[str, Tensor]) -> bool:
    if any(mark in name for name in tensors for mark in UPSCALER_MARKS):
        return True
    # A sequence of convolutions whose input is a picture: mostly three channels.
    first = tensors.get("body.0.weight") or tensors.get("conv_first.weight")
    return first is not None and len(first.shape) == 4 and first.shape[1] in (1, 3, 12, 48)
