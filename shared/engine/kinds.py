"""Which of the engine's folders a model file belongs in, told from its header. Pure."""

import difflib
from collections.abc import Mapping

from shared.engine.families import Part, classify, is_control, is_lora
from shared.engine.headers import Header, Tensor
from shared.schema.words import find_word

# The engine's folders for models that a request can name, or that one of those needs.
KINDS = (
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
OTHER_KINDS = {
    **{kind.removesuffix("s"): kind for kind in KINDS if kind.endswith("s")},
    **{name: kind for kind, names in _OTHERS.items() for name in names.split()},
}
# The first layers of the usual upscalers: ESRGAN in two spellings, its small kin, SwinIR and its kin.
UPSCALER_MARKS = ("model.1.sub.0.", "RRDB_trunk.0.", "body.0.rdb1.", "body.1.num_batches", "layers.0.residual_group.")


def find_kind(text: str) -> str | None:
    """The kind that `text` is, in any spelling or by another name; None if it is none."""
    return find_word(text, KINDS, OTHER_KINDS)


def kinds_near(text: object) -> str:
    """The start of a hint, "did you mean loras? ", for what is almost the name of a kind; else empty."""
    names = {name.lower(): kind for name, kind in {**OTHER_KINDS, **{kind: kind for kind in KINDS}}.items()}
    near = difflib.get_close_matches(str(text)[:100].lower(), names, n=1, cutoff=0.7)
    return f"did you mean {names[near[0]]}? " if near else ""


def kind_of(header: Header) -> str | None:
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
    if Part.DIFFUSION_MODEL in parts:
        return "diffusion_models" if parts == {Part.DIFFUSION_MODEL} else "checkpoints"
    if any(name.startswith(("vision_model.encoder.", "visual.transformer.")) for name in tensors):
        return "clip_vision"
    if Part.TEXT_ENCODERS in parts:
        return "text_encoders"
    if Part.VAE in parts:
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
