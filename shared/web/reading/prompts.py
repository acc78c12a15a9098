"""What a prompt says besides words: `<lora:name:0.8>`, and embeddings by name. Pure."""

import re
from collections.abc import Sequence

from shared.errors import InvalidValue
from shared.model_names import nearest
from shared.schema.body import LoraBody
from shared.web.reading.inventory import match_file

LORA = re.compile(r"<lora:([^:<>]+)((?::[^:<>]*)*)>", re.IGNORECASE)
# A space in front, for ComfyUI does not see it without.
EMBEDDING = re.compile(r"(?P<before>^|.)embedding:(?P<name>[^\s,()\[\]:<>]+)", re.IGNORECASE | re.DOTALL)
STRONGEST = 10.0
# Other networks, chunks, several prompts in one, and words that change while it is drawn (`[from:to:when]`), as
# AUTOMATIC1111 writes them.
FOREIGN = (
    re.compile(r"<(?:lyco|hypernet):[^<>]*>", re.IGNORECASE),
    re.compile(r"\b(?:BREAK|AND)\b"),
    re.compile(r"\[[^\[\]:]*:(?:[^\[\]:]*:)?\s*(?:\d+(?:\.\d+)?|\.\d+)\s*\]"),
)


def take_loras(prompt: str) -> tuple[str, list[LoraBody]]:
    """The prompt without its LoRA tags, and the LoRAs: `<lora:name>`, `<lora:name:both>` or `<lora:name:clip:model>`.

    The order of two strengths is that of the web UI from which the notation comes. Raises InvalidValue for a strength
    that is no number from -10 to 10.
    """
    loras = []
    for match in LORA.finditer(prompt):
        strengths = [_strength(text, match[0]) for text in match[2].split(":")[1:3]]
        loras.append(
            LoraBody(
                lora_name=match[1].strip(),
                strength_model=strengths[-1] if strengths else 1.0,
                strength_clip=strengths[0] if strengths else None,
            )
        )
    if not loras:
        return prompt, []
    without = LORA.sub("", prompt)
    return re.sub(r"[ \t]{2,}", " ", re.sub(r"(?<!\s)\s*,(\s*,)+", ",", without)).strip(" ,"), loras


def read_embeddings(text: str, field: str, available: Sequence[str]) -> tuple[str, list[str]]:
    """The text with its embeddings named as the engine finds them, and a warning for each that it does not have."""
    warnings = []

    def as_the_engine_finds_it(match: re.Match[str]) -> str:
        wanted, before = match["name"], match["before"]
        name = match_file(wanted, available)
        if name is None:
            near = nearest(wanted, available)
            hint = f"there is {', '.join(near)}" if near else "there is none"
            warnings.append(f"{field} names the embedding {wanted!r}, which does not exist, so it does nothing; {hint}")
        gap = "" if not before or before.isspace() else " "
        return f"{before}{gap}embedding:{name or wanted}"

    found = EMBEDDING.sub(as_the_engine_finds_it, text)
    return found, list(dict.fromkeys(warnings))


def misplaced_loras(negative_prompt: str) -> list[str]:
    """A warning for each LoRA tag that stands where none counts."""
    found = dict.fromkeys(match[0] for match in LORA.finditer(negative_prompt))
    return [f"negative_prompt has {tag}, which has no effect there: a LoRA belongs into prompt" for tag in found]


def misread(text: str, field: str) -> list[str]:
    """A warning for each notation of other programs that ComfyUI takes for words."""
    found = dict.fromkeys(match[0] for pattern in FOREIGN for match in pattern.finditer(text))
    return [f"{field} has {each}, which is read as words" for each in found]


def _strength(text: str, tag: str) -> float:
    try:
        strength = float(text)
    except ValueError:
        strength = float("nan")
    if not -STRONGEST <= strength <= STRONGEST:
        raise InvalidValue(
            f"the strength in {tag} must be a number from -10 to 10, not {text!r}",
            field="prompt",
            hint="write <lora:name:0.8>",
        )
    return strength
