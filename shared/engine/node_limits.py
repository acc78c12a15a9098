"""Holds graphs of others to the limits of `node_policy.py`, and what comes over links to the engine's own. Pure."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from shared.engine.formula import LIST, why_no_formula
from shared.engine.graph_numbers import Given, known_numbers, number
from shared.engine.node_policy import COUNTS, FORMULAS, LIMITS, LITERALS, TEXT_LIMITS, Limit
from shared.engine.reviewed_nodes import REVIEWED
from shared.engine.validate import Problem, declared_inputs, range_of, too_little_denoise

NUMBERS = {"INT", "FLOAT", "BOOLEAN"}


def check_limits(graph: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Problem]:
    """Inputs beyond their limits, in a graph with which `check_graph` finds no problem.

    The engine checks the values in a graph, but not what links bring. So a limited input is linked to a node with
    nothing but a value, or to none; and a number that comes over a link, as far as it is known, keeps to the range that
    the engine declares.
    """
    known = known_numbers(graph)
    return [
        problem
        for name in graph
        for problem in (*_of_node(graph, definitions, name), *_linked(graph, definitions, name, known))
    ]


def _of_node(graph: Mapping[str, Any], definitions: Mapping[str, Any], name: str) -> Iterator[Problem]:
    class_type, inputs = graph[name]["class_type"], graph[name]["inputs"]
    for key, sent in inputs.items():
        where = (class_type, key)
        objection = None
        if where in LIMITS:
            objection = _number(key, literal(graph, sent), LIMITS[where])
        elif where in TEXT_LIMITS:
            objection = _text(key, literal(graph, sent), TEXT_LIMITS[where])
        elif where in FORMULAS:
            objection = _formula(key, sent)
        elif key.partition(".")[0] == LIST and (class_type, "expression") in FORMULAS:
            objection = _variable(graph, definitions, key, sent)
        if objection is not None:
            yield Problem(name, class_type, key, *objection, value=sent)


def _linked(
    graph: Mapping[str, Any], definitions: Mapping[str, Any], name: str, known: Mapping[str, Given]
) -> Iterator[Problem]:
    """Numbers that come over links and are beyond what the input declares."""
    class_type, inputs = graph[name]["class_type"], graph[name]["inputs"]
    for key, declaration in declared_inputs(definitions[class_type], inputs).items():
        sent = inputs.get(key)
        if not isinstance(sent, list) or (class_type, key) in LIMITS:
            continue
        value = number(sent, known)
        low, high = range_of(declaration)
        if value is not None and not (low <= value <= high or _is_end(value, low, high)):
            message = f"{key} must be from {low} to {high}, and {sent[0]} gives {value:g}"
            yield Problem(name, class_type, key, "out_of_range", message, value=sent)
        elif value is None and key in COUNTS and {class_type, graph[sent[0]]["class_type"]} <= REVIEWED:
            message = (
                f"{key} decides how long it works, so it is a number, or computed of numbers by ComfyMathExpression"
            )
            yield Problem(name, class_type, key, "bad_link", message, value=sent)
    objection = too_little_denoise(*(number(inputs.get(key), known) for key in ("steps", "denoise")))
    if objection is not None:
        yield Problem(name, class_type, "denoise", "out_of_range", objection, value=inputs["denoise"])


def _is_end(value: float, *ends: float) -> bool:
    """Whether a number is the end of a range, and only its computing was not exact."""
    return any(math.isclose(value, end, abs_tol=1e-9) for end in ends)


def literal(graph: Mapping[str, Any], sent: Any) -> Any:
    """The value of an input: itself, or that of the node with nothing but a value that it is linked to; None for a link
    to any other node."""
    for _ in graph:
        if not isinstance(sent, list):
            return sent
        source = graph[sent[0]]
        sent = source["inputs"].get("value") if source["class_type"] in LITERALS else None
    return None


def _number(key: str, value: Any, limit: Limit) -> tuple[str, str] | None:
    what = f"{key} must be from {limit.low:g} to {limit.high:g}, for it {limit.why}"
    if not isinstance(value, int | float):
        return "bad_link", f"{what}; so it is a number, or connected to a node PrimitiveInt or PrimitiveFloat"
    return None if limit.low <= value <= limit.high else ("out_of_range", f"{what}; not {value}")


def _text(key: str, value: Any, longest: int) -> tuple[str, str] | None:
    if not isinstance(value, str):
        return "bad_link", f"{key} may have {longest} characters; so it is a text, or connected to a PrimitiveString"
    return None if len(value) <= longest else ("too_long", f"{key} has {len(value)} characters; {longest} are allowed")


def _formula(key: str, sent: Any) -> tuple[str, str] | None:
    if not isinstance(sent, str):
        return "bad_link", f"{key} is a formula, which must be written there and not come from another node"
    reason = why_no_formula(sent)
    return None if reason is None else ("bad_formula", f"{key} is not allowed: it {reason}")


def _variable(graph: Mapping[str, Any], definitions: Mapping[str, Any], key: str, sent: Any) -> tuple[str, str] | None:
    """Operators mean something else for a text: `a * 1000000000` repeats it."""
    if not isinstance(sent, list):
        return None if isinstance(sent, int | float) else ("wrong_type", f"{key} must be a number, not {sent!r:.60}")
    given = definitions[graph[sent[0]]["class_type"]]["output"][sent[1]]
    if isinstance(given, str) and set(given.split(",")) <= NUMBERS:
        return None
    return "bad_link", f"{key} takes a number, but output {sent[1]} of {sent[0]} is {given!s:.60}"
