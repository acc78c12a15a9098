"""Checks a graph against the engine's own node definitions before it is queued. Pure.

Some declarations stand for several inputs: a list that grows (`images.image0`, `images.image1`), or a choice with
inputs of its own (`resize_type`, `resize_type.width`). ComfyUI expands them when it sees the graph, and so do we.

ComfyUI silently drops literal inputs that a node does not declare, and hands undeclared links on to the node, which
then crashes ("KSampler.sample() got an unexpected keyword argument 'mask'"). A node without `inputs` ends the thread
that does its work. Here all of that is named beforehand, whoever made the graph.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.schema.units import MOST_STEPS, is_text

GROWING, CHOICE = "COMFY_AUTOGROW_V3", "COMFY_DYNAMICCOMBO_V3"
# Declarations in declarations are few; a definition that never ends is none of ComfyUI's.
MAX_DEPTH = 5
Declaration = list[Any]


def is_dynamic(kind: Any) -> bool:
    """Whether the engine makes up an input's type, or how many of it there are, when it sees the graph."""
    return isinstance(kind, str) and kind.startswith("COMFY_")


def declared_inputs(schema: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Declaration]:
    """Each input that a node may have, by its name in the graph, with the declaration of a plain one: type and extras.

    `schema` is the class's entry in /object_info, `inputs` what the node has: on it depends what a choice brings.
    """
    found: dict[str, Declaration] = {}
    _collect(schema["input"], inputs, "", found, MAX_DEPTH)
    return found


def _collect(
    groups: Mapping[str, Any], inputs: Mapping[str, Any], prefix: str, found: dict[str, Declaration], depth: int
) -> None:
    for group in ("required", "optional"):
        for name, declaration in (groups.get(group) or {}).items():
            full = prefix + name
            found[full] = declaration
            extra = declaration[1] if len(declaration) > 1 and isinstance(declaration[1], dict) else {}
            if depth and declaration[0] == GROWING:
                found.update(_growing(full, extra.get("template") or {}))
            elif depth and declaration[0] == CHOICE:
                chosen = [each for each in extra.get("options") or () if each.get("key") == inputs.get(full)]
                if chosen:
                    _collect(chosen[0].get("inputs") or {}, inputs, f"{full}.", found, depth - 1)


def _growing(name: str, template: Mapping[str, Any]) -> dict[str, Declaration]:
    """The inputs of a list that grows, by what each is called: `values.a`, or `images.image0`."""
    groups = template.get("input") or {}
    each = next((declaration for group in groups.values() for declaration in (group or {}).values()), None)
    if each is None:
        return {}
    names = template.get("names") or [f"{template.get('prefix', '')}{i}" for i in range(template.get("max", 0))]
    return {f"{name}.{one}": each for one in names}


# The type of an output that is of the type of some inputs of its node, and those that a value of its own can be.
MATCHED = "COMFY_MATCHTYPE_V3"
TYPES_OF_VALUES = {str: {"STRING"}, bool: {"BOOLEAN"}, int: {"INT", "FLOAT"}, float: {"FLOAT"}}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a graph: where, what, and what would be right."""

    node: str
    class_type: str
    input: str | None
    kind: str
    """bad_node, unknown_node, unknown_input, missing_input, wrong_type, not_in_list, out_of_range, bad_link, too_long,
    too_large, or bad_formula."""
    message: str
    value: Any = None
    options: tuple[Any, ...] = ()

    @property
    def nearest(self) -> list[str]:
        """Up to three options that resemble the wrong value."""
        names = [str(option) for option in self.options]
        return difflib.get_close_matches(str(self.value), names, n=3, cutoff=0.4)


def check_graph(graph: Mapping[str, Any], schemas: Mapping[str, Any]) -> list[Problem]:
    """All problems of `graph` (API format), given /object_info entries for its classes; empty when there are none."""
    problems = []
    handed_on = handed_on_types(graph, schemas)
    for node_id, node in graph.items():
        class_type = class_of(node)
        if class_type is None or not isinstance(node.get("inputs"), dict):
            problems.append(Problem(node_id, class_type or "", None, "bad_node", "it lacks class_type or inputs"))
            continue
        schema = schemas.get(class_type)
        if schema is None:
            problems.append(Problem(node_id, class_type, None, "unknown_node", f"the engine has no node {class_type}"))
            continue
        required, inputs = schema["input"].get("required", {}), node["inputs"]
        declared = declared_inputs(schema, inputs)
        for name in required.keys() - inputs.keys():
            if is_dynamic(required[name][0]) and required[name][0] != CHOICE:
                continue  # it may stand there as `name.0`, `name.1`, ...
            problems.append(Problem(node_id, class_type, name, "missing_input", f"{class_type} needs the input {name}"))
        for name, value in inputs.items():
            if isinstance(value, str) and not is_text(value):
                message = f"{name} holds half of a character (a lone surrogate), so it is no text"
                problems.append(Problem(node_id, class_type, name, "wrong_type", message))
                continue
            if name not in declared and _is_unknown(declared.get(name.partition(".")[0])):
                continue
            if name not in declared:
                problem: tuple[str, str] | None = ("unknown_input", f"{class_type} has no input {name}")
                options: tuple[Any, ...] = tuple(declared)
                value = name
            else:
                options = choices(declared[name])
                problem = _check_input(graph, schemas, handed_on, declared[name], options, name, value)
            if problem is not None:
                problems.append(Problem(node_id, class_type, name, *problem, value=value, options=options))
        steps, denoise = (_number(graph, inputs.get(name)) for name in ("steps", "denoise"))
        objection = too_little_denoise(steps, denoise)
        if objection is not None:
            problems.append(Problem(node_id, class_type, "denoise", "out_of_range", objection, value=denoise))
    return problems


def too_little_denoise(steps: float | None, denoise: float | None) -> str | None:
    """What is wrong with these two together; None if nothing is, or if one of them is not known."""
    if steps is None or denoise is None or not 0 < denoise < steps / MOST_STEPS:
        return None
    # A sampler is divided into steps / denoise. That holds the engine for so long, and nothing cancels it.
    return f"denoise {denoise:g} is too little for {steps:g} steps: send 0, or {steps / MOST_STEPS:g} or more"


def range_of(declaration: Declaration) -> tuple[float, float]:
    """The least and the largest number that an input declares."""
    extra = declaration[1] if len(declaration) > 1 else {}
    low, high = (extra.get(end) for end in ("min", "max"))
    return -math.inf if low is None else low, math.inf if high is None else high


def _number(graph: Mapping[str, Any], value: Any) -> float | None:
    """The number that an input has, itself or from a node with nothing but a value; None for anything else."""
    if isinstance(value, list) and value and isinstance(value[0], str):
        source = graph.get(value[0])
        inputs = source.get("inputs") if isinstance(source, dict) else None
        value = inputs.get("value") if isinstance(inputs, dict) else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < 1e300 else None


def class_of(node: Any) -> str | None:
    """The class of a node; None for what is no node."""
    name = node.get("class_type") if isinstance(node, dict) else None
    return name if isinstance(name, str) else None


def _is_unknown(declaration: Declaration | None) -> bool:
    """Whether a dynamic input is of a form that is not known here, so that whatever is below its name may be right."""
    if declaration is None or not is_dynamic(declaration[0]):
        return False
    extra = declaration[1] if len(declaration) > 1 else {}
    return not ({"template", "options"} & extra.keys())


def choices(declaration: list[Any]) -> tuple[Any, ...]:
    """The choices of a combo, in either of ComfyUI's two notations; empty for other types and for upload lists."""
    kind, extra = declaration[0], declaration[1] if len(declaration) > 1 else {}
    if extra.get("image_upload"):
        return ()  # it lists the input folder's top level only, while names below it are valid too
    if isinstance(kind, list):
        return tuple(kind)
    if kind == CHOICE:
        return tuple(each.get("key") for each in extra.get("options") or ())
    return tuple(extra.get("options") or ()) if kind == "COMBO" else ()


def _check_input(
    graph: Mapping[str, Any],
    schemas: Mapping[str, Any],
    handed_on: Mapping[str, set[str]],
    declaration: list[Any],
    options: tuple[Any, ...],
    name: str,
    value: Any,
) -> tuple[str, str] | None:
    kind, extra = declaration[0], declaration[1] if len(declaration) > 1 else {}
    if isinstance(value, list):
        return _check_link(graph, schemas, handed_on, kind, name, value)
    if isinstance(value, dict) or value is None:
        return "wrong_type", f"{name} must be a value or a link, not {value!r}"
    if isinstance(kind, list) or kind == "COMBO" or (kind == CHOICE and options):
        if extra.get("image_upload"):
            return None
        return None if value in options else ("not_in_list", f"{name} has no option {value!r}")
    if is_dynamic(kind):
        return None
    # An input may take values of several types: the first objection is told if none of them will do.
    objections = [_check_value(each, extra, name, value) for each in str(kind).split(",")]
    return None if None in objections else objections[0]


def _check_value(kind: str, extra: Mapping[str, Any], name: str, value: Any) -> tuple[str, str] | None:
    """What is wrong with a value for an input of one type."""
    if kind in ("INT", "FLOAT"):
        # A whole number may be too large for math.isfinite.
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        is_number = is_whole or (isinstance(value, float) and math.isfinite(value))
        if not is_number or (kind == "INT" and value != int(value)):
            return "wrong_type", f"{name} must be {'a whole' if kind == 'INT' else 'a'} number, not {value!r}"
        low, high = range_of([kind, extra])
        if not low <= value <= high:
            return "out_of_range", f"{name} must be from {low} to {high}, not {value}"
        return None
    if kind in ("STRING", "COLOR"):
        return None if isinstance(value, str) else ("wrong_type", f"{name} must be text, not {value!r}")
    if kind == "BOOLEAN":
        return None if isinstance(value, bool) else ("wrong_type", f"{name} must be true or false, not {value!r}")
    return "wrong_type", f"{name} must be connected to a {kind}, not set to {value!r}"


def _check_link(
    graph: Mapping[str, Any],
    schemas: Mapping[str, Any],
    handed_on: Mapping[str, set[str]],
    kind: Any,
    name: str,
    link: list[Any],
) -> tuple[str, str] | None:
    well_formed = len(link) == 2 and isinstance(link[0], str) and type(link[1]) is int
    source = graph.get(link[0]) if well_formed else None
    if source is None:
        return "bad_link", f"{name} is connected to {link!r}, which is no node of the graph"
    outputs = (schemas.get(class_of(source) or "") or {}).get("output")
    if outputs is None:
        return None  # the source's class is unknown, which is reported on the source itself
    if not 0 <= link[1] < len(outputs):
        return "bad_link", f"{name} is connected to output {link[1]} of {link[0]}, which has {len(outputs)}"
    given = outputs[link[1]]
    if (isinstance(kind, list) or kind in ("COMBO", CHOICE)) and not (isinstance(given, list) or given == "COMBO"):
        # The engine compares values with the choices, and links with nothing: a text that was put together in the
        # graph would name any file.
        return "bad_link", f"{name} takes one of its choices, and no link to a {given}"
    if isinstance(kind, str) and not _fits(given, kind):
        return "bad_link", f"{name} takes {kind}, but output {link[1]} of {link[0]} is {given}"
    if given == MATCHED and isinstance(kind, str):
        found = handed_on.get(link[0], set())
        if found and not any(_fits(each, kind) for each in found):
            return "bad_link", f"{name} takes {kind}, but {link[0]} hands on {', '.join(sorted(found))}"
    return None


def handed_on_types(graph: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, set[str]]:
    """For each node whose output is of the type of its inputs, the types of what it hands on, as far as known."""
    types: dict[str, set[str]] = {}
    takers: dict[str, list[str]] = {}
    for name, node in graph.items():
        schema = schemas.get(class_of(node) or "")
        inputs = node.get("inputs") if schema is not None else None
        if schema is None or MATCHED not in map(str, schema.get("output") or ()) or not isinstance(inputs, dict):
            continue
        types[name] = set()
        for key, declaration in declared_inputs(schema, inputs).items():
            value = inputs.get(key)
            if declaration[0] != MATCHED or value is None:
                continue
            given = _output(graph, schemas, value) if isinstance(value, list) else None
            if given == MATCHED:
                takers.setdefault(value[0], []).append(name)
            elif given is not None:
                types[name].add(given)
            else:
                types[name] |= TYPES_OF_VALUES.get(type(value), set())
    waiting = [name for name, found in types.items() if found]
    while waiting:
        name = waiting.pop()
        for taker in takers.get(name, ()):
            if not types[name] <= types[taker]:
                types[taker] |= types[name]
                waiting.append(taker)
    return types


def _output(graph: Mapping[str, Any], schemas: Mapping[str, Any], link: list[Any]) -> str | None:
    """The type of the output that a link names, if there is one."""
    if len(link) != 2 or not isinstance(link[0], str) or type(link[1]) is not int:
        return None
    outputs = (schemas.get(class_of(graph.get(link[0])) or "") or {}).get("output") or ()
    return str(outputs[link[1]]) if 0 <= link[1] < len(outputs) else None


def _fits(given: Any, wanted: str) -> bool:
    """Whether an output of one type may feed an input of the other. Lists of choices are left to the engine."""
    if not isinstance(given, str) or "*" in (given, wanted) or is_dynamic(given) or is_dynamic(wanted):
        return True
    return bool(set(given.split(",")) & set(wanted.split(",")))
