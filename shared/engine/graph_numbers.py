"""The numbers that the nodes of a graph give, as far as they are known before it is run. Pure.

The engine checks the numbers in a graph, but none that comes over a link. So they are computed here, as it does it.
"""

import graphlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from shared.engine.formula import evaluate, why_no_formula
from shared.engine.node_policy import LITERALS

Given = tuple[float | None, ...]
"""What the outputs of a node are, as far as they are numbers that are known; the last one stands for all further."""

UNKNOWN: Given = (None,)
# The longest text that is read as a number.
LONGEST_NUMBER = 100


def in_order(graph: Mapping[str, Any]) -> list[str]:
    """The nodes of a graph that has no circle, each after all that it is fed by."""
    feeds = {
        name: [value[0] for value in node["inputs"].values() if isinstance(value, list)] for name, node in graph.items()
    }
    return list(graphlib.TopologicalSorter(feeds).static_order())


def known_numbers(graph: Mapping[str, Any]) -> dict[str, Given]:
    """What each node gives, where that follows from numbers in the graph alone."""
    known: dict[str, Given] = {}
    for name in in_order(graph):
        known[name] = given_by(graph[name]["class_type"], graph[name]["inputs"], known)
    return known


def number(value: Any, known: Mapping[str, Given]) -> float | None:
    """The number that an input has, itself or from another node; None for anything else, and where it is not known."""
    if isinstance(value, list):
        outputs = known[value[0]]
        found: float | None = outputs[min(value[1], len(outputs) - 1)]
        return found
    if isinstance(value, str):
        return _read(value)
    return value if isinstance(value, int | float) and _is_finite(value) else None


def given_by(
    kind: str, inputs: Mapping[str, Any], known: Mapping[str, Given], size: Sequence[float] | None = None
) -> Given:
    """What a node of this class gives, after the numbers of those that feed it.

    `size` is that of the pictures which it is given: how many, their width and height.
    """

    def of(key: str) -> float | None:
        return number(inputs.get(key), known)

    match kind:
        case _ if kind in LITERALS:
            return (of("value"),)
        case "SeedNode":
            return (of("seed"),)
        case "ColorToRGBInt":
            return _color(inputs.get("color"))
        case "GetImageSize" if size is not None:
            batch, width, height = size
            return width, height, batch
        case "ComfySwitchNode":
            return (_switched(of("switch"), [of(key) for key in ("on_false", "on_true") if key in inputs]),)
        case "ComfyNumberConvert":
            value = of("value")
            return value, None if value is None else int(value)
        case "ComfyMathExpression":
            return _computed(inputs, known)
    return UNKNOWN


def _switched(on: float | None, both: Sequence[float | None]) -> float | None:
    """What a switch hands on; the larger one, where it is not known which."""
    if len(both) < 2 or on is not None:
        return both[int(bool(on)) if len(both) > 1 else 0] if both else None
    return None if None in both else max(each for each in both if each is not None)


def _computed(inputs: Mapping[str, Any], known: Mapping[str, Given]) -> Given:
    text = inputs.get("expression")
    given = {key.partition(".")[2]: number(each, known) for key, each in inputs.items() if key.startswith("values.")}
    names = {key: each for key, each in given.items() if each is not None}
    # One that is not let in may never end.
    if len(names) < len(given) or not isinstance(text, str) or why_no_formula(text) is not None:
        return UNKNOWN
    value = evaluate(text, names)
    return UNKNOWN if value is None else (value, int(value), bool(value))


def _color(text: Any) -> Given:
    try:
        digits = str(text).removeprefix("#")
        return int(digits[:6], 16), None, int(digits[6:8] or "ff", 16) / 255
    except ValueError:
        return UNKNOWN


def _read(text: str) -> float | None:
    if len(text) > LONGEST_NUMBER:
        return None
    for kind in (int, float):
        try:
            value = kind(text.strip())
        except ValueError:
            continue
        return value if _is_finite(value) else None
    return None


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
