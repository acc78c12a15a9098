"""The ways in which clients write LoRAs, brought into one form: a list of objects with the fields of LoraBody. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from shared.errors import InvalidValue
from shared.schema.choices import fold
from shared.schema.synonyms import LORA_SPELLINGS
from shared.web.body import parse_json

NUMBER = re.compile(r"\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)\s*")
TAG = re.compile(r"<lora:(?P<inside>[^<>]+)>", re.IGNORECASE)
# Text that can only be JSON: names of files may begin with "[" as well.
JSON = re.compile(r"\s*(?:\{|\"|\[\s*[\"{\[\]])")
MANY = "loras"
# As the schema allows.
MOST = 16


def written_loras(field: str, value: Any) -> Any:
    """`lora` or `loras` (`field`) in the one form, from JSON or from a form's text; what has another shape as it is.

    A text is the name of a file, and its strength after a colon. Raises InvalidValue for JSON that is none.
    """
    if isinstance(value, str):
        value = _from_text(field, value)
    if field == MANY and isinstance(value, list):
        # A list that is too long is refused as a whole.
        return [_one(each) for each in value[: MOST + 1]]
    return _one(value)


def _from_text(field: str, text: str) -> Any:
    if JSON.match(text):
        try:
            return parse_json(text)
        except ValueError as error:
            raise InvalidValue(
                f"{field} is text that {error}", field=field, hint="send the name of a file, or JSON as text"
            ) from error
    return [part.strip() for part in text.split(",") if part.strip()] if field == MANY else text


def _one(value: Any) -> Any:
    """One LoRA as an object of our own field names."""
    if isinstance(value, str):
        return _named(value.strip())
    if not isinstance(value, Mapping):
        return value
    found = {name: each for name, each in value.items() if each is not None}
    names = {fold(name): name for name in reversed(found)}
    for field, others in LORA_SPELLINGS.items():
        first = next((names[fold(other)] for other in others.split() if fold(other) in names), None)
        # Where it was said in our own words, or twice, the rest is told as not known.
        if field not in found and first is not None:
            found[field] = found.pop(first)
    return found


def _named(text: str) -> dict[str, Any]:
    """`name`, `name:both` or `name:clip:model`, as in a tag of a prompt, or such a tag."""
    tag = TAG.fullmatch(text)
    name, strengths = text if tag is None else tag["inside"], list[float]()
    while len(strengths) < 2:
        before, colon, after = name.rpartition(":")
        if not colon or NUMBER.fullmatch(after) is None:
            break
        strengths.insert(0, float(after))
        name = before
    lora: dict[str, Any] = {"lora_name": name.strip()}
    if strengths:
        lora["strength_model"] = strengths[-1]
    if len(strengths) == 2:
        lora["strength_clip"] = strengths[0]
    return lora
