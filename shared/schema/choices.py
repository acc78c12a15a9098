"""Words that clients write in many ways: fixed choices in any spelling, and what stands for no choice at all. Pure."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

# Where menus have an entry for "nothing", and what JavaScript and Python make of a missing value.
NONE_WORDS = frozenset(
    ("none", "null", "undefined", "nil", "nothing", "off", "disabled", "unset", "notset", "notselected", "noneselected")
)
DEFAULT = frozenset(("automatic", "auto", "default", "defaults", "usedefault", "modeldefault"))
KIND = (
    r"(?:\w+ ){0,2}(?:models?|checkpoints?|files?|loras?|vaes?|samplers?|schedulers?|upscalers?|refiners?|encoders?|"
    r"preprocessors?|controlnets?|control nets?|modules?|embeddings?|options?|types?)"
)
# The texts of a menu before anybody chose: "Select a model...", "-- choose --", "No models found".
MENU = re.compile(
    rf"(?:please )?(?:select|choose|pick)(?: (?:an?|the|your|some|one))?(?: {KIND})?"
    rf"|no {KIND}(?: (?:available|found|selected|installed|loaded))?"
)
# As AUTOMATIC1111 says that a second pass goes on with what the first had.
SAME = re.compile(r"use (?:the )?same(?: \w+)?")
# Texts that a form shows until somebody types: a path of nobody's, an instruction, a description in brackets.
PATH_OF_NOBODY = re.compile(r"(?:[a-z]:)?[\\/]*(?:path[\\/]to|your[\\/]path|path[\\/]of)(?:[\\/].*)?", re.I | re.S)
INSTRUCTION = re.compile(r"(?:please )?(?:paste|enter|type|insert|specify|provide|fill)(?: in)? \w+ \w+.*", re.I | re.S)
BRACKETED = re.compile(r"<[^<>]*>|\(optional\)|optional", re.I)
TOKEN = re.compile(r"[\[{%]\w+[\]}%]")


def fold(text: str) -> str:
    """Its letters and digits in one case: what is left when case, blanks, `-` and `_` do not matter."""
    return re.sub(r"[\W_]+", "", text.casefold())


def _joined(text: str) -> str:
    """Like `fold`, with the signs of paths kept: "../loras" is not "loras"."""
    return re.sub(r"[^\w/\\.]|_", "", text.casefold())


def find_choice(text: str, choices: Iterable[str], also: Mapping[str, str] | None = None) -> str | None:
    """The one of `choices` that `text` is in some spelling; `also` are other words for them.

    None if it is none of them, or may be several.
    """
    choices, wanted = list(choices), _joined(text)
    if text in choices:
        return text
    found = {choice for choice in choices if wanted and _joined(choice) == wanted}
    if not found:
        found = {choice for name, choice in (also or {}).items() if wanted and _joined(name) == wanted}
    return found.pop() if len(found) == 1 else None


def is_no_choice(text: str) -> bool:
    """Whether it is no name, but says that none was chosen: "None", "undefined", "Select a model..."."""
    return fold(text) in NONE_WORDS or MENU.fullmatch(_spaced(text)) is not None


def is_default_choice(text: str) -> bool:
    """Whether it leaves the choice to us: by saying so ("Automatic", "Use same sampler"), or by naming nothing."""
    return is_no_choice(text) or fold(text) in DEFAULT or SAME.fullmatch(_spaced(text)) is not None


def is_placeholder(text: str) -> bool:
    """Whether it is what a form shows in a text field that nobody touched, such as "/path/to/outputs"."""
    text = text.strip()
    if is_no_choice(text) or PATH_OF_NOBODY.fullmatch(text) or BRACKETED.fullmatch(text):
        return True
    return INSTRUCTION.fullmatch(text) is not None and TOKEN.search(text) is None


@dataclass(frozen=True, eq=False)
class AnySpelling:
    """Annotates a Literal of texts: its words are taken in any case, with blanks, `-` and `_` alike.

    `also` are other words for them, as other programs write them; numbers stand there as text.
    """

    also: Mapping[str, str] = field(default_factory=dict)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._reader(get_args(source)), handler(source))

    def _reader(self, choices: tuple[str, ...]) -> Callable[[Any], Any]:
        def read(value: Any) -> Any:
            if isinstance(value, bool) or not isinstance(value, str | int):
                return value
            # What is not understood is refused with what would be right.
            return find_choice(str(value), choices, self.also) or value

        return read


def _spaced(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()
