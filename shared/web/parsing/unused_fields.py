"""What was sent and changes nothing: found out, and said. Pure."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from shared.schema.body import GenerationBody, UpscaleBody
from shared.schema.choices import is_no_choice
from shared.schema.request import GenerationRequest, Img2ImgRequest
from shared.schema.units import MAX_UNTILED_PIXELS

B = TypeVar("B", bound=BaseModel)

# Switches, and the fields that mean something only where they are on.
PARTS: Mapping[str, tuple[str, ...]] = {
    "hires_fix": tuple(name for name in GenerationBody.model_fields if name.startswith("hires_fix_")),
    "refiner_enabled": ("refiner_model", "refiner_switch_at"),
    "restore_faces": ("face_restoration_model", "codeformer_weight", "gfpgan_weight"),
    "upscaler": ("upscale_factor",),
}
# Switches of parts that need a model, and the field that names it.
CHOICES: Mapping[str, str] = {"refiner_enabled": "refiner_model", "restore_faces": "face_restoration_model"}
HIRES_SIZE = {"hires_fix_resize_width", "hires_fix_resize_height"}
# What the refiner's own part of the steps is drawn without.
OF_BASE = ("clip_skip", "lora", "loras", "controlnet")
OFF = (None, False)


def unchosen_parts_off(body: B) -> tuple[B, list[str]]:
    """The body without the parts that were switched on, but whose model says that none was chosen ("none", as the web
    page sends it); and a warning for each. Pure."""
    off = [
        (switch, name, str(model))
        for switch, name in CHOICES.items()
        if getattr(body, switch, False) and (model := getattr(body, name)) is not None and is_no_choice(model)
    ]
    warnings = [f"{switch} has no effect: {name} is {model!r}, so it is off" for switch, name, model in off]
    return body.model_copy(update={switch: False for switch, _, _ in off}), warnings


def idle(body: GenerationBody | UpscaleBody) -> set[str]:
    """The fields of all parts that are switched off, and of the way in which `hires_fix` does not choose its size."""
    names = {name for switch in _off(body) for name in PARTS[switch]}
    if isinstance(body, GenerationBody):
        by_factor = body.hires_fix_upscale_method == "upscale-by"
        names |= HIRES_SIZE if by_factor else {"hires_fix_upscale_factor"}
    return names


def unswitched(body: GenerationBody | UpscaleBody) -> list[str]:
    """A warning for each field that was sent for a part that nobody switched on.

    Where the part was switched off it is no news: the web page sends the fields of all parts with each request.
    """
    sent = body.model_fields_set
    forgotten = [switch for switch in _off(body) if switch not in sent]
    return [f"{name} has no effect without {switch}" for switch in forgotten for name in PARTS[switch] if name in sent]


def without_effect(body: GenerationBody, request: GenerationRequest) -> list[str]:
    """A warning for each field that was sent and changes nothing in `request`, which was read from `body`."""
    sent = body.model_dump(exclude_unset=True, exclude_defaults=True)
    return [f"{name} has no effect: {reason}" for name, reason in _reasons(body, request).items() if name in sent]


def _reasons(body: GenerationBody, request: GenerationRequest) -> dict[str, str]:
    reasons: dict[str, str] = {}
    if max(width * height for width, height in request.latent_sizes) <= MAX_UNTILED_PIXELS:
        small = "only pictures over 4 megapixels are decoded in tiles"
        reasons |= {"tile_size": small, "tile_overlap": small}
    if all(sampling.cfg == 1 for sampling in request.passes) and body.negative_prompt.strip():
        reasons["negative_prompt"] = "with cfg_scale 1 the prompt alone counts"
    reasons["output_node"] = "it is for custom_workflow"
    if isinstance(request, Img2ImgRequest) and (request.inpainting is not None or request.sampling.denoise < 1):
        reasons["large_sizes"] = "what is there already guides the picture, so it is drawn in one pass"
    steps = request.sampling.steps
    if request.refiner is not None:
        begins, at = request.refiner.begins_at(steps), f"refiner_switch_at {request.refiner.switch_at:g}"
        if begins >= steps:
            reasons["refiner_model"] = f"{at} leaves it none of {steps} steps"
        elif begins == 0 and request.hires is None:
            reasons |= dict.fromkeys(
                OF_BASE, f"{at} leaves all of {steps} steps to the refiner, which is drawn without"
            )
    if body.hires_fix and "hires_fix_upscale_method" not in body.model_fields_set:
        by = "hires_fix_upscale_method is upscale-by; resize-to is for this"
        reasons |= dict.fromkeys(HIRES_SIZE, by)
    return reasons


def _off(body: GenerationBody | UpscaleBody) -> list[str]:
    values: dict[str, Any] = {switch: getattr(body, switch, True) for switch in PARTS}
    return [
        switch for switch, value in values.items() if value in OFF or (isinstance(value, str) and is_no_choice(value))
    ]
