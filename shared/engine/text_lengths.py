"""How long the texts become that a graph puts together. Pure.

A chain of nodes that join texts makes gigabytes of a few characters. So each text is followed through the graph: as
itself where that is simple, and else by the most characters that it can have.
"""

import graphlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from shared.engine.check import Problem
from shared.engine.node_policy import LITERALS
from shared.schema.units import LONGEST_TEXT

# Of a text that a model writes, or that is made of something else.
UNKNOWN = 2_000
REPLACING = {"StringReplace": "string", "ReplaceText": "texts"}
# These hand on one of what they are given, or each by itself.
PASSING = {"ComfySwitchNode", "CreateList"}
TEXT_TYPES = {"STRING", "COMFY_MATCHTYPE_V3"}


class _Text(NamedTuple):
    longest: int
    exact: str | None = None


def check_texts(graph: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Problem]:
    """The first node that makes a text of more than LONGEST_TEXT characters."""
    feeds = {
        name: [value[0] for value in node["inputs"].values() if isinstance(value, list)] for name, node in graph.items()
    }
    texts: dict[str, _Text] = {}
    for name in graphlib.TopologicalSorter(feeds).static_order():
        class_type, inputs = graph[name]["class_type"], graph[name]["inputs"]
        if not any(output in TEXT_TYPES for output in definitions[class_type]["output"] if isinstance(output, str)):
            continue
        given = {key: text for key, value in inputs.items() if (text := _given(texts, value)) is not None}
        if class_type in PASSING and not given:
            continue  # What it hands on is no text.
        text = texts[name] = _made(class_type, given)
        if text.longest > LONGEST_TEXT:
            message = f"this makes a text of up to {text.longest} characters; {LONGEST_TEXT} are allowed"
            return [Problem(name, class_type, None, "too_long", message)]
    return []


def _given(texts: Mapping[str, _Text], value: Any) -> _Text | None:
    if isinstance(value, list):
        return texts.get(value[0])
    return _Text(len(value), value) if isinstance(value, str) else None


def _made(class_type: str, given: Mapping[str, _Text]) -> _Text:
    if class_type in LITERALS:
        return given.get("value", _Text(0))
    if class_type in PASSING:
        return _Text(max(text.longest for text in given.values()))
    if class_type == "StringConcatenate":
        return _joined(*(given.get(key, _Text(UNKNOWN)) for key in ("string_a", "delimiter", "string_b")))
    if class_type in REPLACING:
        return _replaced(*(given.get(key, _Text(UNKNOWN)) for key in (REPLACING[class_type], "find", "replace")))
    return _Text(sum(text.longest for text in given.values()) or UNKNOWN)


def _joined(first: _Text, between: _Text, second: _Text) -> _Text:
    longest = first.longest + between.longest + second.longest
    if first.exact is None or between.exact is None or second.exact is None or longest > LONGEST_TEXT:
        return _Text(longest)
    return _Text(longest, first.exact + between.exact + second.exact)


def _replaced(text: _Text, find: _Text, new: _Text) -> _Text:
    if text.exact is None or find.exact is None:
        # An empty text is found between all characters.
        times = text.longest // len(find.exact) if find.exact else text.longest + 1
        return _Text(text.longest + times * new.longest)
    times = text.exact.count(find.exact)
    longest = text.longest + times * (new.longest - len(find.exact))
    if new.exact is None or longest > LONGEST_TEXT:
        return _Text(max(longest, 0))
    return _Text(longest, text.exact.replace(find.exact, new.exact))
