"""Finds fields that were sent and have no effect: unknown names, parts that are off, values without influence. Pure."""

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from pydantic import AliasChoices, BaseModel

from shared.schema.body import (
    ControlNetBody,
    ControlUnitBody,
    GenerationBody,
    Img2ImgBody,
    LoraBody,
    RequestBody,
    Txt2ImgBody,
)
from shared.schema.choices import is_no_choice
from shared.schema.field_names import MAX_NAMES, describe_unknown, join_names
from shared.schema.ranges import MAX_UNTILED_PIXELS
from shared.schema.request import GenerationRequest, Img2ImgRequest
from shared.web.parsing.validate_fields import known_names, synonyms_of

B = TypeVar("B", bound=BaseModel)

# Switches, and the fields that have an effect only if they are on.
PARTS: Mapping[str, tuple[str, ...]] = {
    "hires_fix": tuple(name for name in GenerationBody.model_fields if name.startswith("hires_fix_")),
    "refiner_enabled": ("refiner_model", "refiner_switch_at"),
    "restore_faces": ("face_restoration_model", "codeformer_weight", "gfpgan_weight"),
    "upscaler": ("upscale_factor",),
}
# Switches of parts that need a model, and the fields that name it.
MODEL_FIELDS: Mapping[str, str] = {"refiner_enabled": "refiner_model", "restore_faces": "face_restoration_model"}
HIRES_SIZE = {"hires_fix_resize_width", "hires_fix_resize_height"}
# Fields that do not apply to the steps of the refiner.
BASE_MODEL_FIELDS = ("clip_skip", "lora", "loras", "controlnet")
OFF = (None, False)
# Values of a duplicate field that ask for nothing, in JSON or in a form.
NO_REQUEST = (False, "false", "none", "automatic")
# Fields of a unit that the web page sends and that mean nothing here: the order of the units is that of the list, a
# unit has one picture, and the engine manages its memory itself.
PAGE_UNIT_FIELDS = {"unit_index", "input_mode", "low_vram"}
# The object in which other programs send settings that are fields here.
SETTINGS = "override_settings"


def disable_parts_without_model(body: B) -> tuple[B, list[str]]:
    """Switches off the parts whose model is "none" or the like, as the web page sends it.

    Returns the body, and a warning for each part.
    """
    disabled = [
        (switch, name, str(model))
        for switch, name in MODEL_FIELDS.items()
        if getattr(body, switch, False) and (model := getattr(body, name)) is not None and is_no_choice(model)
    ]
    warnings = [f"{switch} has no effect: {name} is {model!r}, so it is off" for switch, name, model in disabled]
    return body.model_copy(update={switch: False for switch, _, _ in disabled}), warnings


def inactive_fields(body: RequestBody) -> set[str]:
    """Return the fields of all parts that are off, and those of the size method that `hires_fix` does not use."""
    names = {name for switch in _switched_off(body) for name in PARTS[switch]}
    if isinstance(body, GenerationBody):
        by_factor = body.hires_fix_upscale_method == "upscale-by"
        names |= HIRES_SIZE if by_factor else {"hires_fix_upscale_factor"}
    return names


def unswitched_fields(body: RequestBody) -> list[str]:
    """Return a warning for each field that was sent for a part whose switch was not sent.

    If the switch was sent as off, there is no warning: the web page always sends the fields of all parts.
    """
    sent = body.model_fields_set
    unsent = [switch for switch in _switched_off(body) if switch not in sent]
    return [f"{name} has no effect without {switch}" for switch in unsent for name in PARTS[switch] if name in sent]


def ineffective_fields(body: GenerationBody, request: GenerationRequest) -> list[str]:
    """Return a warning for each field that was sent and has no effect on the parsed `request`."""
    sent = body.model_dump(exclude_unset=True, exclude_defaults=True)
    return [f"{name} has no effect: {reason}" for name, reason in _reasons(body, request).items() if name in sent]


def unknown_fields(values: Mapping[str, Any], model: type[RequestBody], known: Collection[str] = ()) -> list[str]:
    """Return a warning that lists all unknown names, at any depth, with suggestions; and warnings of duplicates.

    `known` are further names that are read elsewhere.
    """
    img2img = known_names(Img2ImgBody) if model is Txt2ImgBody else ()
    unknown = _describe_names(values, model, "", known, img2img)
    settings = values.get(SETTINGS)
    if isinstance(settings, Mapping):
        unknown += _describe(list(settings), model, f"{SETTINGS}.")
    controlnet = values.get("controlnet")
    unknown += _describe_names(controlnet, ControlNetBody, "controlnet.")
    units = controlnet.get("units") if isinstance(controlnet, Mapping) else None
    for index, unit in enumerate(units if isinstance(units, list) else []):
        unknown += _describe_names(unit, ControlUnitBody, f"controlnet.units[{index}].", PAGE_UNIT_FIELDS)
    unknown += _describe_names(values.get("lora"), LoraBody, "lora.")
    for index, lora in enumerate(values["loras"] if isinstance(values.get("loras"), list) else []):
        unknown += _describe_names(lora, LoraBody, f"loras[{index}].")
    warnings = [f"ignored unknown fields: {join_names(unknown)}"] if unknown else []
    return warnings + _duplicate_fields(values, model)


def _duplicate_fields(values: Mapping[str, Any], model: type[RequestBody]) -> list[str]:
    """Return a warning for each further name of a field, if its value asks for something else than the first."""
    warnings = []
    for field in model.model_fields.values():
        # A switch is on if either of its names says so.
        alias = None if field.annotation is bool else field.validation_alias
        names = alias.choices if isinstance(alias, AliasChoices) else ()
        first, *others = [str(name) for name in names if name in values] or [""]
        warnings += [
            f"{other} has no effect: {first} is {values[first]!r}"
            for other in others
            if values[other] not in NO_REQUEST and values[other] != values[first]
        ]
    return warnings


def _describe_names(
    values: Any,
    model: type[BaseModel],
    prefix: str,
    known: Collection[str] = (),
    img2img: Collection[str] = (),
) -> list[str]:
    """Return the names in an object that `model` does not know, with suggestions."""
    if not isinstance(values, Mapping):
        return []
    fields = known_names(model)
    return _describe([name for name in values if name not in fields and name not in known], model, prefix, img2img)


def _describe(names: list[str], model: type[BaseModel], prefix: str, img2img: Collection[str] = ()) -> list[str]:
    # Only the first names are described: each costs a comparison with all fields.
    fields, synonyms = known_names(model), synonyms_of(model)
    described = [describe_unknown(name, fields, synonyms, prefix, img2img) for name in names[:MAX_NAMES]]
    return described + names[MAX_NAMES:]


def _reasons(body: GenerationBody, request: GenerationRequest) -> dict[str, str]:
    """Return why fields have no effect, by field."""
    reasons: dict[str, str] = {}
    if max(width * height for width, height in request.latent_sizes) <= MAX_UNTILED_PIXELS:
        small = "only pictures over 4 megapixels are decoded in tiles"
        reasons |= {"tile_size": small, "tile_overlap": small}
    if all(sampling.cfg == 1 for sampling in request.passes) and body.negative_prompt.strip():
        reasons["negative_prompt"] = "with cfg_scale 1 only the prompt counts"
    reasons["output_node"] = "it is for custom_workflow"
    if isinstance(request, Img2ImgRequest) and (request.inpainting is not None or request.sampling.denoise < 1):
        reasons["large_sizes"] = "the source guides the picture, so it is drawn in one pass"
    steps = request.sampling.steps
    if request.refiner is not None:
        begins_at, switch = request.refiner.begins_at(steps), f"refiner_switch_at {request.refiner.switch_at:g}"
        if begins_at >= steps:
            reasons["refiner_model"] = f"{switch} leaves it none of {steps} steps"
        elif begins_at == 0 and request.hires is None:
            reasons |= dict.fromkeys(
                BASE_MODEL_FIELDS, f"{switch} leaves all {steps} steps to the refiner, which does not use it"
            )
    if body.hires_fix and "hires_fix_upscale_method" not in body.model_fields_set:
        by_factor = "hires_fix_upscale_method is upscale-by; use resize-to for this"
        reasons |= dict.fromkeys(HIRES_SIZE, by_factor)
    return reasons


def _switched_off(body: BaseModel) -> list[str]:
    values: dict[str, Any] = {switch: getattr(body, switch, True) for switch in PARTS}
    return [
        switch for switch, value in values.items() if value in OFF or (isinstance(value, str) and is_no_choice(value))
    ]
