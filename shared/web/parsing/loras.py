"""Reads LoRAs in every form that clients use: `lora`, `loras`, and tags such as `<lora:name:0.8>` in the prompt."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from shared.errors import InvalidValue
from shared.models.detect import ModelFile
from shared.schema.body import GenerationBody, LoraBody
from shared.schema.choices import fold, is_no_choice
from shared.schema.field_names import LORA_SPELLINGS
from shared.schema.request import Lora
from shared.web.parsing.model_catalog import LORA, ModelCatalog, find_fitting_file
from shared.web.request_body import parse_json

TAG = re.compile(r"<lora:([^:<>]+)((?::[^:<>]*)*)>", re.IGNORECASE)
WHOLE_TAG = re.compile(r"<lora:(?P<inside>[^<>]+)>", re.IGNORECASE)
NUMBER = re.compile(r"\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)\s*")
# Matches text that can only be JSON: file names may begin with "[" too.
JSON = re.compile(r"\s*(?:\{|\"|\[\s*[\"{\[\]])")
# Matches the rest of a weight whose parentheses held nothing but a tag.
EMPTY_WEIGHT = re.compile(r"[ \t]*(?::[ \t]*-?[\d.]+[ \t]*)?\)")
LIST_FIELD = "loras"
# The limits of the schema.
MAX_LORAS = 16
MAX_STRENGTH = 10.0


def normalise_loras(field: str, value: Any) -> Any:
    """Convert the value of `lora` or `loras` (`field`) to objects with the fields of LoraBody.

    Text is a file name with an optional strength (`ink:0.8`), or JSON. Other shapes are returned unchanged, so that
    validation refuses them. Raises InvalidValue for invalid JSON.
    """
    if isinstance(value, str):
        value = _split_text(field, value)
    if field == LIST_FIELD and isinstance(value, list):
        # One more than the limit is enough for validation to refuse the list.
        return [_normalise(item) for item in value[: MAX_LORAS + 1]]
    return _normalise(value)


def take_lora_tags(prompt: str) -> tuple[str, list[LoraBody]]:
    """Return the prompt without its LoRA tags, and their LoRAs.

    The forms are `<lora:name>`, `<lora:name:strength>` and `<lora:name:clip:model>`; the order of two strengths is
    AUTOMATIC1111's. Raises InvalidValue for a strength that is not a number from -10 to 10.
    """
    loras = []
    for tag in TAG.finditer(prompt):
        strengths = [_read_strength(text, tag[0]) for text in tag[2].split(":")[1:]]
        if len(strengths) > 2:
            raise InvalidValue(
                f"{tag[0]} has more than two strengths",
                field="prompt",
                hint="write <lora:name:0.8>, or <lora:name:clip:model>",
            )
        loras.append(
            LoraBody(
                lora_name=tag[1].strip(),
                strength_model=strengths[-1] if strengths else 1.0,
                strength_clip=strengths[0] if strengths else None,
            )
        )
    return (_remove_tags(prompt), loras) if loras else (prompt, [])


def warn_of_negative_loras(negative_prompt: str) -> list[str]:
    """Return a warning for each LoRA tag in a negative prompt, where it has no effect."""
    tags = dict.fromkeys(match[0] for match in TAG.finditer(negative_prompt))
    return [f"negative_prompt has {tag}, which has no effect there; LoRAs belong in prompt" for tag in tags]


def choose_loras(
    catalog: ModelCatalog, body: GenerationBody, tagged: Sequence[LoraBody], model: ModelFile
) -> tuple[Lora, ...]:
    """Return the LoRAs of `lora`, of `loras` and of the prompt's tags, in this order. Raises InvalidValue."""
    by_field = [("lora.lora_name", body.lora)] if body.lora is not None else []
    by_field += [(f"loras[{index}].lora_name", lora) for index, lora in enumerate(body.loras)]
    by_field += [("prompt", lora) for lora in tagged]
    chosen = []
    for field, lora in by_field:
        if lora.enabled and lora.lora_name and not is_no_choice(lora.lora_name):
            name = find_fitting_file(catalog, LORA, lora.lora_name, field, model)
            clip = lora.strength_model if lora.strength_clip is None else lora.strength_clip
            chosen.append(Lora(name, lora.strength_model, clip))
    return tuple(chosen)


def _split_text(field: str, text: str) -> Any:
    if JSON.match(text):
        try:
            return parse_json(text)
        except ValueError as error:
            raise InvalidValue(
                f"{field} is text that {error}", field=field, hint="send the name of a file, or JSON as text"
            ) from error
    return [part.strip() for part in text.split(",") if part.strip()] if field == LIST_FIELD else text


def _normalise(value: Any) -> Any:
    """Convert one LoRA to an object with the field names of LoraBody."""
    if isinstance(value, str):
        return _read_text(value.strip())
    if not isinstance(value, Mapping):
        return value
    lora = {name: item for name, item in value.items() if item is not None}
    names = {fold(name): name for name in reversed(lora)}
    for field, synonyms in LORA_SPELLINGS.items():
        first = next((names[fold(name)] for name in synonyms.split() if fold(name) in names), None)
        # If the field itself was sent, or several synonyms, the rest is reported as unknown.
        if field not in lora and first is not None:
            lora[field] = lora.pop(first)
    return lora


def _read_text(text: str) -> dict[str, Any]:
    """Read `name`, `name:strength`, `name:clip:model`, or one of these as a tag."""
    tag = WHOLE_TAG.fullmatch(text)
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


def _remove_tags(prompt: str) -> str:
    """Remove the tags, the weights that enclosed nothing but a tag, and the commas that become superfluous."""
    pieces = TAG.split(prompt)
    # Splitting leaves the two groups of each tag between the pieces.
    text = pieces[0]
    for piece in pieces[3::3]:
        left, right = text.rstrip(" \t"), piece.lstrip(" \t")
        while left.endswith("(") and not left.endswith("\\(") and (weight := EMPTY_WEIGHT.match(right)):
            left, right = left[:-1].rstrip(" \t"), right[weight.end() :].lstrip(" \t")
        if right.startswith(",") and (not left or left[-1] in ",("):
            right = right[1:].lstrip(" \t")
        had_space = len(left) < len(text) or len(right) < len(piece)
        needs_space = had_space and left and right and left[-1] not in "\n(" and right[0] not in ",:)\n"
        text = left + (" " if needs_space else "") + right
    return text.strip(" ,")


def _read_strength(text: str, tag: str) -> float:
    try:
        strength = float(text)
    except ValueError:
        strength = float("nan")
    if not -MAX_STRENGTH <= strength <= MAX_STRENGTH:
        raise InvalidValue(
            f"the strength in {tag} must be a number from -10 to 10, not {text!r}",
            field="prompt",
            hint="write <lora:name:0.8>",
        )
    return strength
