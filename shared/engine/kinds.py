"""Which of the engine's folders a model file belongs in, told from its header. Pure."""

from collections.abc import Mapping

from shared.engine.families import Part, classify, is_control, is_lora
from shared.engine.headers import Header, Tensor

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
# The first layers of the usual upscalers: ESRGAN in two spellings, its small kin, SwinIR and its kin.
UPSCALER_MARKS = ("model.1.sub.0.", "RRDB_trunk.0.", "body.0.rdb1.", "body.1.num_batches", "layers.0.residual_group.")


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
