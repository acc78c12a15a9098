"""The labels of infotexts, each with its field in the API and how its value is written and read. Pure.

Other words of the web UI are added to the tables here; samplers and schedulers to `sampler_labels.py`.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shared.metadata.sampler_labels import (
    SAMPLER_LABELS,
    SCHEDULER_LABELS,
    read_scheduler_label,
    simplify_name,
)
from shared.models.lookup import without_extension

RESIZE = {"just_resize": "Just resize", "crop_and_resize": "Crop and resize", "fill": "Resize and fill"}
CONTROL_MODES = {
    "balanced": "Balanced",
    "prompt": "My prompt is more important",
    "control": "ControlNet is more important",
}
MASKED = {"fill": "fill", "refine": "original", "model": "inpainting model"}
FACE_MODELS = {"codeformer": "CodeFormer", "gfpgan": "GFPGAN"}
# Upscalers of other programs, and the closest ones here.
NEAREST = {
    "latent (antialiased)": "Latent",
    "latent (bicubic antialiased)": "Latent (bicubic)",
    "latent (nearest-exact)": "Latent (nearest)",
}
# Labels without meaning when the picture is made again: hashes, and the position in a batch, where each has its seed.
IGNORED = frozenset(
    (
        *("model hash", "vae hash", "version", "lora hashes", "ti hashes", "hashes", "batch size", "batch pos"),
        *(
            "size-1",
            "size-2",
            "refiner hash",
            "operations",
            "app",
            "backend",
            "pipeline",
            "parser",
            "time",
            "vae encoder",
        ),
        *("vae decoder", "user", "date", "created date"),
    )
)
HASH = re.compile(r"\[[0-9a-f]{6,64}\]$", re.IGNORECASE)


def write_number(value: Any) -> str:
    """A number without a trailing ".0"."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def read_float(text: str) -> float:
    """A finite number. Raises ValueError for any other text."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def write_file(name: str) -> str:
    """The name of a model file without folder and extension."""
    return without_extension(name.replace("\\", "/").rpartition("/")[2])


def read_file(text: str) -> str:
    """The name of a model without the hash that follows it."""
    return HASH.sub("", text).rstrip()


def _read_other_sampler(text: str) -> str | None:
    return None if simplify_name(text).startswith("usesame") else text


def _read_upscaler(text: str) -> str:
    return NEAREST.get(text.casefold(), text)


def _read_vae(text: str) -> str | None:
    return None if text.casefold() in ("none", "automatic", "default") else read_file(text)


def _read_masked(text: str) -> str:
    # Like fill, "latent noise" and "latent nothing" ignore what is under the mask.
    return {"original": "refine", "inpainting model": "model"}.get(text.casefold(), "fill")


def _equals(wanted: str) -> Callable[[str], bool]:
    return lambda text: text.casefold() == wanted.casefold()


def _one_of(words: Mapping[str, str]) -> Callable[[str], str | None]:
    """A reader of words in any spelling as their keys; None for any other word."""
    known = {simplify_name(word): key for key, word in words.items()} | {simplify_name(key): key for key in words}
    return lambda text: known.get(simplify_name(text))


def _word(words: Mapping[str, str]) -> Callable[[Any], str]:
    return lambda value: words.get(str(value), str(value))


def _flag(word: str) -> Callable[[Any], str | None]:
    """A writer of a word for true, and of nothing for false."""
    return lambda value: word if value else None


@dataclass(frozen=True)
class Label:
    """A label and its field, with functions that write a value (None: leave it out) and read one (None: ignore it)."""

    text: str
    field: str
    write_value: Callable[[Any], str | None] = write_number
    read: Callable[[str], Any] = str

    def write(self, values: Mapping[str, Any]) -> tuple[str, str] | None:
        """The label and the text of its value; None if it is left out."""
        value = values.get(self.field)
        text = None if value is None else self.write_value(value)
        return None if text is None else (self.text, text)

    def take(self, remaining: dict[str, str]) -> dict[str, Any]:
        """Removes the label from `remaining` and returns its field; empty if it is missing or cannot be read.

        The names in `remaining` are in lower case, because programs differ in that.
        """
        name = self.text.casefold()
        if name not in remaining:
            return {}
        try:
            value = self.read(remaining[name])
        except ValueError:
            return {}
        del remaining[name]
        return {} if value is None else {self.field: value}


PLAIN = (
    Label("Steps", "steps", read=int),
    Label("Sampler", "sampler_name", _word(SAMPLER_LABELS)),
    Label("Schedule type", "scheduler", _word(SCHEDULER_LABELS), read_scheduler_label),
    Label("CFG scale", "cfg_scale", read=read_float),
    Label("Distilled CFG Scale", "guidance", read=read_float),
    Label("Seed", "seed", read=int),
    Label("Model", "model_name", write_file, read_file),
    Label("VAE", "vae_name", str, _read_vae),
    Label("Clip skip", "clip_skip", read=int),
    Label("Tiling", "tiling", _flag("True"), _equals("True")),
)
IMG2IMG = (
    Label("Denoising strength", "denoising_strength", read=read_float),
    Label("Resize mode", "resize_mode", _word(RESIZE), _one_of(RESIZE)),
    Label("Masked content", "inpaint_mode", _word(MASKED), _read_masked),
    Label("Mask blur", "mask_blur", read=int),
    Label("Mask mode", "invert_mask", _flag("Inpaint not masked"), _equals("Inpaint not masked")),
    Label("Mask grow", "grow_mask_by", read=int),
    Label("Inpaint area", "only_masked", _flag("Only masked"), _equals("Only masked")),
    Label("Masked area padding", "only_masked_padding", read=int),
    Label("Outpaint left", "outpaint_left", read=int),
    Label("Outpaint top", "outpaint_top", read=int),
    Label("Outpaint right", "outpaint_right", read=int),
    Label("Outpaint bottom", "outpaint_bottom", read=int),
    Label("Outpaint feathering", "outpaint_feathering", read=int),
)
HIRES = (
    Label("Hires upscaler", "hires_fix_upscaler", str, _read_upscaler),
    Label("Hires steps", "hires_fix_hires_steps", lambda steps: str(steps) if steps else None, int),
    Label("Hires sampler", "hires_fix_sampler_name", _word(SAMPLER_LABELS), _read_other_sampler),
    Label("Hires schedule type", "hires_fix_scheduler", _word(SCHEDULER_LABELS), read_scheduler_label),
    Label("Hires CFG Scale", "hires_fix_cfg_scale", read=read_float),
)
REFINER = (
    Label("Refiner", "refiner_model", write_file, read_file),
    Label("Refiner switch at", "refiner_switch_at", read=read_float),
)
POSTPROCESS = (
    Label("Postprocess upscaler", "upscaler", str),
    Label("Postprocess upscale by", "upscale_factor", read=read_float),
)
FACES = (
    Label(
        "Face restoration",
        "face_restoration_model",
        _word(FACE_MODELS),
        lambda text: _one_of(FACE_MODELS)(text) or text,
    ),
    Label("CodeFormer weight", "codeformer_weight", read=read_float),
)
CONTROL = (
    Label("Module", "preprocessor", str, str.lower),
    Label("Model", "model", write_file, read_file),
    Label("Weight", "weight", read=read_float),
    Label("Resize Mode", "resize_mode", _word(RESIZE), _one_of(RESIZE)),
    Label("Processor Res", "resolution", read=lambda text: int(text) if int(text) > 0 else None),
    Label("Threshold A", "threshold_a", read=read_float),
    Label("Threshold B", "threshold_b", read=read_float),
    Label("Guidance Start", "guidance_start", read=read_float),
    Label("Guidance End", "guidance_end", read=read_float),
    Label("Pixel Perfect", "pixel_perfect", _flag("True"), _equals("True")),
    Label("Control Mode", "control_mode", _word(CONTROL_MODES), _one_of(CONTROL_MODES)),
    Label("Control Type", "control_type", str),
)
