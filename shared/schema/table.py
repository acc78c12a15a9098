"""The fields of the API as the Markdown tables of docs/api.md, made from the models that validate requests."""

from collections.abc import Mapping
from typing import Any

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

from shared.schema.body import (
    ControlNetBody,
    ControlUnitBody,
    ExtrasBody,
    GenerationBody,
    Img2ImgBody,
    LoraBody,
    UpscaleBody,
)
from shared.schema.units import MAX_SEED

HEAD = ("| field | type and range | default | what it does |", "| --- | --- | --- | --- |")
NAMES = {"boolean": "true or false", "integer": "whole number", "number": "number", "object": "object"}


def markdown_tables() -> str:
    """All tables with the sentences between them, ending in a newline."""
    own = {name: field for name, field in Img2ImgBody.model_fields.items() if name not in GenerationBody.model_fields}
    parts = [
        _table(GenerationBody, GenerationBody.model_fields),
        "`/api/img2img` takes these too:",
        _table(Img2ImgBody, own),
        "`lora`, and each of `loras`:",
        _table(LoraBody, LoraBody.model_fields),
        "`controlnet`, and each of its `units`:",
        _table(ControlNetBody, ControlNetBody.model_fields),
        _table(ControlUnitBody, ControlUnitBody.model_fields),
        "`/api/upscale` takes a picture alone:",
        _table(UpscaleBody, UpscaleBody.model_fields),
        "`params` of `/api/extras/upscale`:",
        _table(ExtrasBody, ExtrasBody.model_fields),
    ]
    return "\n\n".join(parts) + "\n"


def _table(model: type[BaseModel], fields: Mapping[str, FieldInfo]) -> str:
    properties = model.model_json_schema(by_alias=False)["properties"]
    return "\n".join([*HEAD, *(_row(name, field, properties[name]) for name, field in fields.items())])


def _row(name: str, field: FieldInfo, schema: Mapping[str, Any]) -> str:
    names = [name]
    if isinstance(field.validation_alias, AliasChoices):
        names += [str(choice) for choice in field.validation_alias.choices if choice != name]
    cells = (" or ".join(f"`{each}`" for each in names), _type(schema), _default(field), field.description or "")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _type(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in schema:
        schema = next(each for each in schema["anyOf"] if each.get("type") != "null")
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return f"list of at most {schema['maxItems']}"
    if kind == "string":
        # A name's length is no choice that anybody makes.
        return "text"
    words = NAMES.get(str(kind), "object")
    if "minimum" not in schema:
        return words
    highest = "2^64-1" if schema["maximum"] == MAX_SEED else f"{schema['maximum']:g}"
    return f"{words}, {schema['minimum']:g} to {highest}"


def _default(field: FieldInfo) -> str:
    default = field.default
    if field.is_required():
        return "required"
    if default is None or default in ("", ()):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
