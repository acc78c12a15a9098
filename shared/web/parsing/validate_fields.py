"""Validates plain values with the models of `shared.schema.body`; errors name the field, the value and the range."""

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
    Txt2ImgBody,
    UpscaleBody,
)
from shared.schema.choices import is_default_choice
from shared.schema.field_names import (
    CONTROL_UNIT_SYNONYMS,
    CONTROLNET_SYNONYMS,
    GENERATION_SYNONYMS,
    LORA_SYNONYMS,
    TXT2IMG_SYNONYMS,
    UPSCALE_SYNONYMS,
    Synonyms,
    hint_unknown_names,
)
from shared.web.json_mistakes import SHELL_HINT
from shared.web.parsing.loras import normalise_loras
from shared.web.request_body import parse_json

B = TypeVar("B", bound=BaseModel)

# Fields whose empty text is a value.
TEXT_FIELDS = ("prompt", "negative_prompt")
# Fields that a form sends as JSON text.
JSON_FIELDS = ("controlnet", "custom_workflow", "text_encoders")
# Fields whose value may be a menu's word for "default", which is the same as no value.
DEFAULTED_FIELDS = (
    *("model_name", "text_encoders", "sampler_name", "scheduler"),
    *("hires_fix_sampler_name", "hires_fix_scheduler"),
)
# The most errors of one body that are listed.
MAX_PROBLEMS = 20
# The names that other programs have for the fields of each model.
SYNONYMS: Mapping[type[BaseModel], Synonyms] = {
    Txt2ImgBody: TXT2IMG_SYNONYMS,
    Img2ImgBody: GENERATION_SYNONYMS,
    UpscaleBody: UPSCALE_SYNONYMS,
    ExtrasBody: UPSCALE_SYNONYMS,
    LoraBody: LORA_SYNONYMS,
    ControlNetBody: CONTROLNET_SYNONYMS,
    ControlUnitBody: CONTROL_UNIT_SYNONYMS,
}
# The models of nested objects, by the field that holds them or a list of them.
NESTED: Mapping[str, type[BaseModel]] = {
    "lora": LoraBody,
    "loras": LoraBody,
    "controlnet": ControlNetBody,
    "units": ControlUnitBody,
}
LORA_EXAMPLE = '{"lora_name": "ink", "strength_model": 0.8}'
UNIT_EXAMPLE = '{"model": "...", "input_image": "..."}'
GRAPH_HINT = "send a graph as custom_workflow"
EXPORT_HINT = f"{GRAPH_HINT}, in the API format: in ComfyUI, Workflow > Export (API)"
# Hints by the field and the type of its value.
TYPE_HINTS: Mapping[tuple[str, type], str] = {
    ("prompt", list): "send one text; batch_size draws several pictures of it",
    ("prompt", dict): "send the text itself",
    ("controlnet", list): f'send {{"units": [{UNIT_EXAMPLE}]}}',
    ("controlnet", str): f'send {{"units": [{UNIT_EXAMPLE}]}}; in a form, as JSON text',
    ("loras", dict): f"send a list, such as [{LORA_EXAMPLE}]",
    ("loras", list): f"send {LORA_EXAMPLE}, or the name with its strength as text: ink:0.8",
    ("lora", list): f"send {LORA_EXAMPLE}; send several as loras",
}


def validate(model: type[B], values: Mapping[str, Any], documented: type[BaseModel] | None = None) -> B:
    """Return the values as a model. Raises InvalidValue for the first wrong field, with more of them in `problems`.

    `documented` is the model whose names hints suggest, if `model` lacks fields that are read apart.
    """
    try:
        return model(**values)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        problems = [_describe_error(model, item) for item in errors[:MAX_PROBLEMS]]
        field = problems[0]["field"]
        raise InvalidValue(
            problems[0]["message"],
            field=field,
            hint=_hint(documented or model, errors[0], field),
            problems=problems if len(problems) > 1 else None,
        ) from error


def missing_picture(field: str, sent: Collection[str], model: type[BaseModel], hint: str) -> InvalidPicture:
    """The error for a missing picture; `sent` are the names of the request, and `hint` says how to send it."""
    unknown = hint_unknown_names(field, sent, {*known_names(model), "image"}, SYNONYMS[model])
    return InvalidPicture(f"{field} is missing", field=field, hint=hint if unknown is None else f"{unknown}; {hint}")


def clean_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Remove values that stand for no value, and parse those that a form sends as JSON text.

    Removed are null at any depth, empty text except in prompts, and menus' words for "default". Raises InvalidValue
    for invalid JSON.
    """
    return {
        name: _without_nulls(_parse_structure(name, value))
        for name, value in values.items()
        if value is not None and (value != "" or name in TEXT_FIELDS) and not _is_default(name, value)
    }


def known_names(model: type[BaseModel]) -> set[str]:
    """Return all names of the model's fields, with their aliases."""
    names = set(model.model_fields)
    for field in model.model_fields.values():
        if isinstance(field.validation_alias, AliasChoices):
            names |= {str(choice) for choice in field.validation_alias.choices}
    return names


def synonyms_of(model: type[BaseModel]) -> Synonyms:
    """Return the names that other programs have for the model's fields."""
    return SYNONYMS.get(model, {})


def _is_default(name: str, value: Any) -> bool:
    return name in DEFAULTED_FIELDS and isinstance(value, str) and is_default_choice(value)


def _parse_structure(name: str, value: Any) -> Any:
    if name in ("lora", "loras"):
        return normalise_loras(name, value)
    if name not in JSON_FIELDS or not isinstance(value, str):
        return value
    if name == "text_encoders" and not value.lstrip().startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    try:
        return parse_json(value)
    except ValueError as error:
        raise InvalidValue(f"{name} is text that {error}", field=name, hint=_json_hint(name, value, error)) from error


def _without_nulls(value: Any) -> Any:
    # In a graph's node, null is a value.
    if isinstance(value, Mapping) and "class_type" not in value:
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _hint(model: type[BaseModel], error: Any, field: str) -> str | None:
    if error["type"] == "missing":
        return _missing_hint(model, error)
    hint = _type_hint(field, error["input"])
    if hint is not None:
        return hint
    declared = model.model_fields.get(field)
    is_required = declared is not None and declared.is_required()
    return None if is_required else "leave it out, or send null, for the default"


def _missing_hint(model: type[BaseModel], error: Any) -> str | None:
    *parents, wanted = error["loc"]
    holder = next((NESTED[name] for name in reversed(parents) if name in NESTED), model)
    sent = error["input"] if isinstance(error["input"], Mapping) else {}
    if wanted == "prompt":
        if not sent:
            return 'send {"prompt": "a lighthouse"}, or a form with prompt=...'
        if isinstance(sent.get("nodes"), list) and "links" in sent:
            return EXPORT_HINT
        if _is_graph(sent) or any(_is_graph(value) for value in sent.values()):
            return GRAPH_HINT
    return hint_unknown_names(str(wanted), sent, known_names(holder), synonyms_of(holder))


def _type_hint(field: str, value: Any) -> str | None:
    """Return a hint for a field (or a list's item) whose value has an unexpected type; None if there is none."""
    name = field.partition("[")[0]
    if name == "prompt" and _is_graph(value):
        return GRAPH_HINT
    if name == "prompt" and isinstance(value, str):
        return f"shorten it: it has {len(value):,} characters"
    return TYPE_HINTS.get((name, type(value)))


def _json_hint(field: str, value: str, error: ValueError) -> str:
    """Return a hint for the text of a JSON field that is not valid JSON."""
    hint: str | None = getattr(error, "hint", None)
    # Text that was never meant as JSON has lost no quotes in a shell.
    if hint is None or (SHELL_HINT in hint and not value.lstrip().startswith(("{", "[", "'"))):
        return TYPE_HINTS.get((field, str)) or "in a form, send this field as JSON text"
    return hint


def _is_graph(value: Any) -> bool:
    """Whether a value is a ComfyUI graph, in the API format or in that of saved workflows."""
    if not isinstance(value, Mapping):
        return False
    if isinstance(value.get("nodes"), list) and "links" in value:
        return True
    return any(isinstance(node, Mapping) and "class_type" in node for node in value.values())


def _describe_error(model: type[BaseModel], error: Any) -> dict[str, str]:
    """Convert a pydantic error to the field, and a sentence with the range and the value."""
    location = list(error["loc"])
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    if error["type"] == "missing":
        return {"field": field, "message": f"{field} is missing"}
    value = repr(error["input"])
    value = value if len(value) <= 60 else f"{value[:57]}..."
    return {"field": field, "message": f"{field} must be {_describe_expected(model, location)}, not {value}"}


def _describe_expected(model: type[BaseModel], location: Sequence[str | int]) -> str:
    """Return the schema of a field in words: "a whole number from 16 to 4096"."""
    if location == ["seed"]:
        return "a whole number from 0 to 2^64-1, or -1 for a random one"
    whole = _json_schema(model)
    schema = _resolve(whole, whole)
    for part in location:
        inner = schema.get("items") if isinstance(part, int) else schema.get("properties", {}).get(part)
        if inner is None:
            return "something else"
        schema = _resolve(inner, whole)
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    match schema.get("type"):
        case "boolean":
            return "true or false"
        case "string":
            return f"text of at most {schema['maxLength']} characters" if "maxLength" in schema else "text"
        case "array":
            return f"a list of at most {schema['maxItems']}" if "maxItems" in schema else "a list"
        case "object":
            fields = ", ".join(schema.get("properties", ()))
            text = "the name of a file, or " if "lora_name" in fields else ""
            return f"{text}an object with {fields}" if fields else "an object"
    number = "a whole number" if schema["type"] == "integer" else "a number"
    return f"{number} from {schema['minimum']:g} to {schema['maximum']:g}"


@cache
def _json_schema(model: type[BaseModel]) -> Mapping[str, Any]:
    """Return the JSON schema of a model; cached, because it takes 10 ms and each wrong field needs it."""
    return model.model_json_schema(by_alias=False)


def _resolve(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> Mapping[str, Any]:
    """Resolve references in a part of a JSON schema, and ignores null as an alternative."""
    if "anyOf" in schema:
        schema = next(option for option in schema["anyOf"] if option.get("type") != "null")
    if "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    return schema
