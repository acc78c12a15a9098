"""What a model file is and which folder it belongs in, told from its header and never from its name. Pure.

What is looked at (keys, shapes, and the values of one bias) is what the engine's own detection looks at, and a test
compares the two.
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
    """Kinds of diffusion models: what fits together, and what settings suit it."""

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
        """As people call it."""
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
    """What a picture takes; a checkpoint may hold all three."""

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
    """What a file is, as far as its header tells; all else is left at "unknown", None or False.

    `known` says whether there was a header to read. `inpainting`: the model takes the mask and the masked picture
    beside the noise. `from_words` is False of what does not draw a picture from words alone: models that edit or
    enlarge a picture, or make video, sound or shapes. `prediction` is "epsilon" or "v". `union`: a ControlNet for maps
    of several kinds. `latent_channels` are those of the VAE. `size` (width, height), `pixels` (the most that it should
    draw unasked), `steps` and `cfg_scale` are its maker's recommendations. `starter`: it belongs to the starter
    model's kit.
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
# Where the diffusion model is in a checkpoint; in a file of its own, nothing stands before its keys.
INSIDE = "model.diffusion_model."
CONTROL = "control_model."
TEXT_PREFIXES = ("cond_stage_model.", "conditioner.", "text_encoders.")
VAE_PREFIXES = ("first_stage_model.", "vae.")
# Of UNets: width of the prompt, width of the first layer, width of size and other conditions.
UNETS: Mapping[tuple[int, int], tuple[Family, frozenset[int | None]]] = {
    (768, 320): (Family.SD1, frozenset({None})),
    (1024, 320): (Family.SD2, frozenset({None, 1536, 2048})),
    (2048, 320): (Family.SDXL, frozenset({2816})),
    (1280, 384): (Family.SDXL_REFINER, frozenset({2560})),
}
# A UNet's layers in the original code and in diffusers: the first, the one for conditions, those with attention.
UNET_NAMES = (
    ("input_blocks.0.0.weight", "label_emb.0.0.weight", "input_blocks."),
    ("conv_in.weight", "add_embedding.linear_1.weight", "down_blocks."),
)
# Parts of the names that the factors of a low-rank change have, by whoever trained it.
LORA_MARKS = (".lora_up.", ".lora_down.", ".lora_A.", ".lora_B.", ".lora.up.", "_lora.up.", ".hada_w1_a", ".lokr_w1")
# The factor of such a change that reads the prompt.
LORA_OF_PROMPT = re.compile(
    r"attn2[._](?:processor[._])?to_[kv](?:[._]lora)?\.(?:lora_down|lora_A(?:\.\w+)?|lora\.down|down|hada_w1_b)(?:\.weight)?$"
)
FLUX_MARKS = ("double_blocks", "single_blocks", "single_transformer_blocks")
LATENT_UNET, INPAINTING_UNET = 4, 9
LATENT_FLUX, INPAINTING_FLUX = 64, 384
# What a diffusion model's keys may stand behind, and keys of those that do not draw a picture from words alone: by the
# engine's own detection Stable Audio, ACE-Step (two), Mochi, MiniMax, Cosmos, CogVideoX, Wan, SeedVR2 (three),
# Hunyuan 3D (two), TripoSplat, Stable Cascade's second stage.
MODEL_PREFIXES = ("", INSIDE, "model.model.", "net.")
OTHER_MODELS = (
    *("transformer.rotary_pos_emb.inv_freq", "genre_embedder.weight", "t5_yproj.weight", "video_patch_proj.weight"),
    "encoder.lyric_encoder.layers.0.input_layernorm.weight",
    *("blocks.block0.blocks.0.block.attn.to_q.0.weight", "blocks.0.norm1.linear.weight", "head.modulation"),
    *("blocks.35.mlp.vid.proj_out.weight", "blocks.35.mlp.all.proj_in_gate.weight"),
    *("blocks.31.mlp.all.proj_in_gate.weight", "latent_in.weight", "cam_out_layer.weight"),
    *("blocks.0.attn1.k_norm.weight", "clip_mapper.weight"),
)
# LTX Video has the first of these alone, PixArt both.
LTX, PIXART = "adaln_single.emb.timestep_embedder.linear_1.bias", "pos_embed.proj.bias"
# Layers that cut a picture, or a video, into patches; a convolution in three dimensions cuts a video.
PATCHING = ("patch_embedding.weight", "img_in.proj.weight", "x_embedder.proj.weight")
FLUX_TEXT_WIDTH = 4096
SD3_CHANNELS = 16
# Above it lies the deviation of one bias in those models of Stable Diffusion 2 that predict v: the engine's own rule.
V_DEVIATION = 0.09
SMALLEST_SIDE, LARGEST_SIDE = 16, 4096
# What `starter.assemble` writes into the header of each of its files.
STARTER_MARK = "dream_layer_recipe"


def classify(name: str, header: SafetensorsHeader | None) -> ModelFile:
    """What the file called `name` is. `header` is None if it could not be read."""
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
        text_to_image=not inpainting and _draws_from_words(tensors),
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
    """The family of a model, or that which it was made to change; and whether it was made for inpainting."""
    if is_lora(tensors):
        return _lora_family(tensors), False
    return _control_family(tensors) if is_control(tensors) else _diffusion_family(tensors)


def _diffusion_family(tensors: Tensors) -> tuple[Family, bool]:
    """The family of a diffusion model, and whether it was made for inpainting."""
    prefix = INSIDE if _any(tensors, INSIDE) else ""
    if f"{prefix}joint_blocks.0.context_block.attn.qkv.weight" in tensors:
        fits = _side(tensors, f"{prefix}x_embedder.proj.weight", 1) == SD3_CHANNELS
        return (Family.SD3 if fits else Family.UNKNOWN), False
    if _any(tensors, f"{prefix}double_blocks.0.img_attn.norm.key_norm."):
        return _flux(tensors, prefix)
    return _unet(tensors, prefix)


def _flux(tensors: Tensors, prefix: str) -> tuple[Family, bool]:
    """Several younger models are built like Flux; only Flux reads T5 and a vector of CLIP."""
    reads_clip = f"{prefix}vector_in.in_layer.weight" in tensors
    if not reads_clip or _side(tensors, f"{prefix}txt_in.weight", 1) != FLUX_TEXT_WIDTH:
        return Family.UNKNOWN, False
    guided = f"{prefix}guidance_in.in_layer.weight" in tensors
    inpainting = _side(tensors, f"{prefix}img_in.weight", 1) == INPAINTING_FLUX
    return (Family.FLUX_DEV if guided else Family.FLUX_SCHNELL), inpainting


def _unet(tensors: Tensors, prefix: str) -> tuple[Family, bool]:
    """Stable Diffusion 1, 2 and XL differ in the width of the prompts that their attention reads."""
    for first, conditions, blocks in UNET_NAMES:
        start = prefix + blocks
        # Models of moving pictures have the same layers, and further ones between frames.
        if prefix + first not in tensors or _has_time(tensors):
            continue
        attention = (name for name in tensors if name.startswith(start) and name.endswith(".attn2.to_k.weight"))
        width = _side(tensors, next(attention, ""), 1) or 0
        family, allowed = UNETS.get((width, _side(tensors, prefix + first, 0) or 0), (Family.UNKNOWN, frozenset()))
        if _side(tensors, prefix + conditions, 1) in allowed:
            return family, _side(tensors, prefix + first, 1) == INPAINTING_UNET
    return Family.UNKNOWN, False


def _draws_from_words(tensors: Tensors) -> bool:
    """Whether a model makes a picture of noise and words alone; True of what is not known."""
    if is_lora(tensors) or is_control(tensors):
        return True
    prefix = next((each for each in MODEL_PREFIXES[1:] if _any(tensors, each)), "")
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
    """What the model says of a noisy latent: the noise in it ("epsilon"), or how to turn it ("v")."""
    told = header.metadata.get("modelspec.prediction_type")
    if told or "v_pred" in header.tensors:
        return told or "v"
    if family is not Family.SD2:
        return None
    if inpainting:
        return "epsilon"
    if not header.values or not all(map(math.isfinite, header.values)):
        return None
    return "v" if statistics.pstdev(header.values) > V_DEVIATION else "epsilon"


def is_lora(tensors: Tensors) -> bool:
    """Whether it is a low-rank change of a model."""
    return any(mark in name for name in tensors for mark in LORA_MARKS)


def _lora_family(tensors: Tensors) -> Family:
    """The family that a LoRA changes: of UNets by the width of the prompts that the changed layers read."""
    for name, tensor in tensors.items():
        if LORA_OF_PROMPT.search(name) and len(tensor.shape) >= 2:
            return {width: family for (width, _), (family, _) in UNETS.items()}.get(tensor.shape[1], Family.UNKNOWN)
    if any(mark in name for name in tensors for mark in FLUX_MARKS):
        return Family.FLUX_DEV
    return Family.SD3 if any("joint_blocks" in name for name in tensors) else Family.UNKNOWN


def is_control(tensors: Tensors) -> bool:
    """Whether it is a ControlNet."""
    return any(_any(tensors, start) for start in (CONTROL, "zero_convs.", "controlnet_"))


def _control_family(tensors: Tensors) -> tuple[Family, bool]:
    """The family that a ControlNet was made for."""
    if _any(tensors, "controlnet_x_embedder.") or _any(tensors, "double_blocks.0.img_attn."):
        is_qwen = "transformer_blocks.0.img_mlp.net.0.proj.weight" in tensors
        return (Family.UNKNOWN if is_qwen else Family.FLUX_DEV), False
    if "pos_embed_input.proj.weight" in tensors:
        return Family.SD3, False
    return _unet(tensors, CONTROL if _any(tensors, CONTROL) else "")[0], False


def _text_encoder(tensors: Tensors) -> TextEncoder:
    """Which text encoder a file of its own is, by its depth."""
    for layer, kind in ((30, TextEncoder.CLIP_G), (22, TextEncoder.CLIP_H), (0, TextEncoder.CLIP_L)):
        clip = f"text_model.encoder.layers.{layer}.mlp.fc1.weight"
        if clip in tensors or f"transformer.resblocks.{layer}.ln_1.weight" in tensors:
            return kind
    is_xxl = _side(tensors, "encoder.block.23.layer.1.DenseReluDense.wi_1.weight", 0) == 10240
    # One for many languages has a longer list of words, and models of its own.
    if is_xxl and _side(tensors, "shared.weight", 0) in (None, T5_WORDS):
        return TextEncoder.T5XXL
    return TextEncoder.UNKNOWN


def _latent_channels(tensors: Tensors) -> int | None:
    """Channels of the latents that a VAE decodes, alone or in a checkpoint: 4, or 16 of newer families."""
    for prefix in ("", *VAE_PREFIXES):
        for first in ("decoder.conv_in.weight", "taesd_decoder.1.weight"):
            tensor = tensors.get(prefix + first)
            # Those of moving pictures have a dimension more.
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
    """Width and height that the model was made for."""
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
    """The number that `text` is; None if it is none, or out of range: anybody can write anything into a header."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and lowest <= number <= highest else None


# The engine's folders for models that a request can name, or that one of those needs.
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
# What else they are called: one model of a kind, the folders of other programs and of older engines, kinds of training.
_OTHERS = {
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
    **{name: kind for kind, names in _OTHERS.items() for name in names.split()},
}
# The first layers of the usual upscalers: ESRGAN in two spellings, its small kin, SwinIR and its kin.
UPSCALER_MARKS = ("model.1.sub.0.", "RRDB_trunk.0.", "body.0.rdb1.", "body.1.num_batches", "layers.0.residual_group.")


def find_kind(text: str) -> str | None:
    """The kind that `text` is, in any spelling or by another name; None if it is none."""
    return find_choice(text, MODEL_KINDS, KIND_SYNONYMS)


def suggest_kind(text: object) -> str:
    """The start of a hint, "did you mean loras? ", for what is almost the name of a kind; else empty."""
    names = {name.lower(): kind for name, kind in {**KIND_SYNONYMS, **{kind: kind for kind in MODEL_KINDS}}.items()}
    near = difflib.get_close_matches(str(text)[:100].lower(), names, n=1, cutoff=0.7)
    return f"did you mean {names[near[0]]}? " if near else ""


def detect_kind(header: SafetensorsHeader) -> str | None:
    """The folder for a file with this header; None if it cannot be told."""
    tensors = header.tensors
    # What changes a model has names like the model's own, so it is looked for first.
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
    """Vectors in place of words: for one text encoder, or one table for each of SDXL's two."""
    return "emb_params" in tensors or (bool(tensors) and tensors.keys() <= {"clip_l", "clip_g", "t5xxl"})


def _is_upscaler(tensors: Mapping[str, Tensor]) -> bool:
    if any(mark in name for name in tensors for mark in UPSCALER_MARKS):
        return True
    # A row of convolutions that begins with a picture: three channels in.
    first = tensors.get("body.0.weight") or tensors.get("conv_first.weight")
    return first is not None and len(first.shape) == 4 and first.shape[1] in (1, 3, 12, 48)
