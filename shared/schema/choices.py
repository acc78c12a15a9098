"""Matches choices in any spelling, and recognises texts that mean "none", "default" or a placeholder. Pure."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

# Folded entries of menus for "none", and texts that JavaScript and Python make of a missing value.
NONE_WORDS = frozenset(
    ("none", "null", "undefined", "nil", "nothing", "off", "disabled", "unset", "notset", "notselected", "noneselected")
)
DEFAULT_WORDS = frozenset(("automatic", "auto", "default", "defaults", "usedefault", "modeldefault"))
MENU_NOUNS = (
    r"(?:\w+ ){0,2}(?:models?|checkpoints?|files?|loras?|vaes?|samplers?|schedulers?|upscalers?|refiners?|encoders?|"
    r"preprocessors?|controlnets?|control nets?|modules?|embeddings?|options?|types?)"
)
# Matches texts of a menu without a choice: "Select a model...", "-- choose --", "No models found".
MENU_PROMPT = re.compile(
    rf"(?:please )?(?:select|choose|pick)(?: (?:an?|the|your|some|one))?(?: {MENU_NOUNS})?"
    rf"|no {MENU_NOUNS}(?: (?:available|found|selected|installed|loaded))?"
)
# Matches AUTOMATIC1111's entry for the value of the first pass, such as "Use same sampler".
SAME_AS_FIRST = re.compile(r"use (?:the )?same(?: \w+)?")
# Match placeholders of text fields: an example path, an instruction, a description in brackets.
EXAMPLE_PATH = re.compile(r"(?:[a-z]:)?[\\/]*(?:path[\\/]to|your[\\/]path|path[\\/]of)(?:[\\/].*)?", re.I | re.S)
INSTRUCTION = re.compile(r"(?:please )?(?:paste|enter|type|insert|specify|provide|fill)(?: in)? \w+ \w+.*", re.I | re.S)
BRACKETED = re.compile(r"<[^<>]*>|\(optional\)|optional", re.I)
TOKEN = re.compile(r"[\[{%]\w+[\]}%]")


def fold(text: str) -> str:
    """Return the letters and digits in one case, so that case, blanks, `-` and `_` do not matter."""
    return re.sub(r"[\W_]+", "", text.casefold())


def _fold_path(text: str) -> str:
    """Like `fold`, but keeps the characters of paths: "../loras" is not "loras"."""
    return re.sub(r"[^\w/\\.]|_", "", text.casefold())


def find_choice(text: str, choices: Iterable[str], also: Mapping[str, str] | None = None) -> str | None:
    """Return the choice that `text` means in any spelling; None if it means none or several.

    `also` maps other words to choices.
    """
    choices, wanted = list(choices), _fold_path(text)
    if text in choices:
        return text
    found = {choice for choice in choices if wanted and _fold_path(choice) == wanted}
    if not found:
        found = {choice for name, choice in (also or {}).items() if wanted and _fold_path(name) == wanted}
    return found.pop() if len(found) == 1 else None


def is_no_choice(text: str) -> bool:
    """Whether the text says that nothing was chosen: "None", "undefined", "Select a model..."."""
    return fold(text) in NONE_WORDS or MENU_PROMPT.fullmatch(_spaced(text)) is not None


def is_default_choice(text: str) -> bool:
    """Whether the text asks for the default ("Automatic", "Use same sampler"), or says that nothing was chosen."""
    return is_no_choice(text) or fold(text) in DEFAULT_WORDS or SAME_AS_FIRST.fullmatch(_spaced(text)) is not None


def is_placeholder(text: str) -> bool:
    """Whether the text is the placeholder of an empty text field, such as "/path/to/outputs"."""
    text = text.strip()
    if is_no_choice(text) or EXAMPLE_PATH.fullmatch(text) or BRACKETED.fullmatch(text):
        return True
    return INSTRUCTION.fullmatch(text) is not None and TOKEN.search(text) is None


@dataclass(frozen=True, eq=False)
class AnySpelling:
    """Annotates a Literal of texts, whose choices are then accepted in any spelling (see `find_choice`).

    `also` maps the words of other programs to choices; numbers are keys as text.
    """

    also: Mapping[str, str] = field(default_factory=dict)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._reader(get_args(source)), handler(source))

    def _reader(self, choices: tuple[str, ...]) -> Callable[[Any], Any]:
        def read(value: Any) -> Any:
            if isinstance(value, bool) or not isinstance(value, str | int):
                return value
            # Pydantic refuses an unknown value, and lists the choices.
            return find_choice(str(value), choices, self.also) or value

        return read


def _spaced(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()
