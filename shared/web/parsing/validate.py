"""Plain values against the models of `shared.schema.body`; objections in words, with field, value and range."""

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from pydantic import AliasChoices, BaseModel, ValidationError

from shared.errors import InvalidPicture, InvalidValue
from shared.schema.body import (
    ControlNetBody,
    ControlUnitBody,
    ExtrasBody,
    Img2ImgBody,
    LoraBody,
    RequestBody,
    Txt2ImgBody,
    UpscaleBody,
)
from shared.schema.choices import is_default_choice
from shared.schema.synonyms import (
    CONTROL_UNIT_SYNONYMS,
    CONTROLNET_SYNONYMS,
    GENERATION_SYNONYMS,
    LORA_SYNONYMS,
    MAX_NAMES,
    TXT2IMG_SYNONYMS,
    UPSCALE_SYNONYMS,
    Synonyms,
    describe_unknown,
    hint_unknown_names,
    join_names,
)
from shared.web.body import parse_json
from shared.web.parsing.hints import graph_hint, shape_hint, text_hint
from shared.web.parsing.loras import written_loras

B = TypeVar("B", bound=BaseModel)

TEXTS = ("prompt", "negative_prompt")
# How many wrong fields of one body are told.
MOST_PROBLEMS = 20
# What a form can only hold as text.
STRUCTURED = ("controlnet", "custom_workflow", "text_encoders")
# Names that may be left to us: a menu's own words for that are as if nothing was sent.
LEFT_TO_US = (
    *("model_name", "text_encoders", "sampler_name", "scheduler"),
    *("hires_fix_sampler_name", "hires_fix_scheduler"),
)
# What asks for nothing, in JSON or in a form.
NOTHING = (False, "false", "none", "automatic")
# Sent by the web page, and of no meaning for the result: the order of units is theirs, a unit has one picture, and the
# engine looks after its memory itself.
OF_NO_MEANING = {"unit_index", "input_mode", "low_vram"}
# What other programs call the fields of each.
OTHER_NAMES: Mapping[type[BaseModel], Synonyms] = {
    Txt2ImgBody: TXT2IMG_SYNONYMS,
    Img2ImgBody: GENERATION_SYNONYMS,
    UpscaleBody: UPSCALE_SYNONYMS,
    ExtrasBody: UPSCALE_SYNONYMS,
    LoraBody: LORA_SYNONYMS,
    ControlNetBody: CONTROLNET_SYNONYMS,
    ControlUnitBody: CONTROL_UNIT_SYNONYMS,
}
# Objects inside a body, by the field that holds them, or a list of them.
NESTED: Mapping[str, type[BaseModel]] = {
    "lora": LoraBody,
    "loras": LoraBody,
    "controlnet": ControlNetBody,
    "units": ControlUnitBody,
}
# Where other programs keep settings that are fields here.
SETTINGS = "override_settings"


def validate(model: type[B], values: Mapping[str, Any]) -> B:
    """The body in `values`. Raises InvalidValue that names the first wrong field, and lists the first in `problems`."""
    try:
        return model(**values)
    except ValidationError as error:
        found = error.errors(include_url=False)
        problems = [_problem(model, item) for item in found[:MOST_PROBLEMS]]
        field = problems[0]["field"]
        raise InvalidValue(
            problems[0]["message"],
            field=field,
            hint=_hint(model, found[0], field),
            problems=problems if len(problems) > 1 else None,
        ) from error


def _hint(model: type[BaseModel], item: Any, field: str) -> str | None:
    if item["type"] == "missing":
        *place, wanted = item["loc"]
        holder = next((NESTED[each] for each in reversed(place) if each in NESTED), model)
        sent = item["input"] if isinstance(item["input"], Mapping) else {}
        if wanted == "prompt" and (graph := graph_hint(sent)) is not None:
            return graph
        if not sent and wanted == "prompt":
            return 'send {"prompt": "a lighthouse"}, or a form with prompt=...'
        return hint_unknown_names(str(wanted), sent, known_names(holder), OTHER_NAMES.get(holder, {}))
    if (shaped := shape_hint(field, item["input"])) is not None:
        return shaped
    return None if _is_required(model, field) else "leave it out, or send null, for the default"


def missing_picture(field: str, sent: Collection[str], model: type[BaseModel], hint: str) -> InvalidPicture:
    """The error for a picture that is not among the names that were `sent`; `hint` says how to send it."""
    instead = hint_unknown_names(field, sent, {*known_names(model), "image"}, OTHER_NAMES[model])
    return InvalidPicture(f"{field} is missing", field=field, hint=hint if instead is None else f"{instead}; {hint}")


def _is_required(model: type[BaseModel], field: str) -> bool:
    declared = model.model_fields.get(field)
    return declared is not None and declared.is_required()


def tidy(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as they are meant: null and an empty text where no text belongs are left out, at any depth, and so is
    a name that leaves the choice to us; what a form holds as JSON is read.

    Raises InvalidValue for JSON that is none.
    """
    return {
        name: _tidy(_structured(name, value))
        for name, value in values.items()
        if value is not None and (value != "" or name in TEXTS) and not _is_left_to_us(name, value)
    }


def _is_left_to_us(name: str, value: Any) -> bool:
    return name in LEFT_TO_US and isinstance(value, str) and is_default_choice(value)


def known_names(model: type[BaseModel]) -> set[str]:
    """The names that a field may be sent under."""
    names = set(model.model_fields)
    for field in model.model_fields.values():
        if isinstance(field.validation_alias, AliasChoices):
            names |= {str(choice) for choice in field.validation_alias.choices}
    return names


def ignored(values: Mapping[str, Any], model: type[RequestBody], elsewhere: Collection[str] = ()) -> list[str]:
    """One warning that names every field that was not used, at any depth, and what may have been meant."""
    img2img = known_names(Img2ImgBody) if model is Txt2ImgBody else ()
    said = _unknown(values, model, "", elsewhere, img2img)
    said += _unknown(values.get(SETTINGS), model, f"{SETTINGS}.", all_unknown=True)
    said += _unknown(values.get("controlnet"), ControlNetBody, "controlnet.")
    units = (values.get("controlnet") or {}).get("units") if isinstance(values.get("controlnet"), Mapping) else None
    for index, unit in enumerate(units if isinstance(units, list) else []):
        said += _unknown(unit, ControlUnitBody, f"controlnet.units[{index}].", OF_NO_MEANING)
    said += _unknown(values.get("lora"), LoraBody, "lora.")
    for index, lora in enumerate(values["loras"] if isinstance(values.get("loras"), list) else []):
        said += _unknown(lora, LoraBody, f"loras[{index}].")
    unknown = [f"ignored, because not known here: {join_names(said)}"] if said else []
    return unknown + _said_twice(values, model)


def _said_twice(values: Mapping[str, Any], model: type[RequestBody]) -> list[str]:
    """A warning for each further name of a field that asks for something, and for something else than the first."""
    warnings = []
    for field in model.model_fields.values():
        # A switch is on if either says so.
        alias = None if field.annotation is bool else field.validation_alias
        names = alias.choices if isinstance(alias, AliasChoices) else ()
        first, *others = [str(name) for name in names if name in values] or [""]
        warnings += [
            f"{other} has no effect: {first} says {values[first]!r}"
            for other in others
            if values[other] not in NOTHING and values[other] != values[first]
        ]
    return warnings


def _unknown(
    values: Any,
    model: type[BaseModel],
    prefix: str,
    elsewhere: Collection[str] = (),
    img2img: Collection[str] = (),
    *,
    all_unknown: bool = False,
) -> list[str]:
    """What is told of each name that `model` does not know; of `all_unknown` ones even of those that it does."""
    if not isinstance(values, Mapping):
        return []
    known, others = known_names(model), OTHER_NAMES.get(model, {})
    names = [name for name in values if all_unknown or (name not in known and name not in elsewhere)]
    # Of many only the first are shown, and looked up.
    shown = [describe_unknown(name, known, others, prefix, img2img) for name in names[:MAX_NAMES]]
    return shown + names[MAX_NAMES:]


def _structured(name: str, value: Any) -> Any:
    if name in ("lora", "loras"):
        return written_loras(name, value)
    if name not in STRUCTURED or not isinstance(value, str):
        return value
    if name == "text_encoders" and not value.lstrip().startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    try:
        return parse_json(value)
    except ValueError as error:
        raise InvalidValue(
            f"{name} is text that {error}",
            field=name,
            hint=text_hint(name, value, error),
        ) from error


def _tidy(value: Any) -> Any:
    if isinstance(value, Mapping) and "class_type" not in value:
        return {name: _tidy(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_tidy(each) for each in value]
    return value


def _problem(model: type[BaseModel], item: Any) -> dict[str, str]:
    """A pydantic error as the field and a sentence with the range and the value."""
    place = list(item["loc"])
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    if item["type"] == "missing":
        return {"field": field, "message": f"{field} is missing"}
    shown = repr(item["input"])
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return {"field": field, "message": f"{field} must be {_right_value(model, place)}, not {shown}"}


def _right_value(model: type[BaseModel], place: Sequence[str | int]) -> str:
    """What the schema asks of a field, in words: "a whole number from 16 to 4096"."""
    if place == ["seed"]:
        return "a whole number from 0 to 2^64-1, or -1 for a random one"
    schema = _schema(model)
    declared = _declared(schema, schema)
    for part in place:
        inner = declared.get("items") if isinstance(part, int) else declared.get("properties", {}).get(part)
        if inner is None:
            return "something else"
        declared = _declared(inner, schema)
    if "enum" in declared:
        return f"one of {', '.join(declared['enum'])}"
    match declared.get("type"):
        case "boolean":
            return "true or false"
        case "string":
            return f"text of at most {declared['maxLength']} characters" if "maxLength" in declared else "text"
        case "array":
            return f"a list of at most {declared['maxItems']}" if "maxItems" in declared else "a list"
        case "object":
            fields = ", ".join(declared.get("properties", ()))
            text = "the name of a file, or " if "lora_name" in fields else ""
            return f"{text}an object with {fields}" if fields else "an object"
    kind = "a whole number" if declared["type"] == "integer" else "a number"
    return f"{kind} from {declared['minimum']:g} to {declared['maximum']:g}"


@cache
def _schema(model: type[BaseModel]) -> Mapping[str, Any]:
    """The JSON schema of a body. Making it takes 10 ms, for each wrong field of a request."""
    return model.model_json_schema(by_alias=False)


def _declared(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> Mapping[str, Any]:
    """A part of a JSON schema without references, and without null as an alternative."""
    if "anyOf" in schema:
        schema = next(each for each in schema["anyOf"] if each.get("type") != "null")
    if "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    return schema
