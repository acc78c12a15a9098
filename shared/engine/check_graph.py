"""Checks a graph against the engine's own node definitions before it is queued. Pure.

Some declarations stand for several inputs: a growing list (`images.image0`, `images.image1`), or a choice with inputs
of its own (`resize_type`, `resize_type.width`). ComfyUI expands them for each graph, and so does this module.

ComfyUI silently drops values of inputs that a node does not declare, and passes undeclared links on to the node, which
then crashes ("KSampler.sample() got an unexpected keyword argument 'mask'"). A node without `inputs` ends ComfyUI's
worker thread. Here, all of these are problems that are found before the graph runs.
"""

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shared.graph_walk import class_of, inputs_of, is_link
from shared.schema.ranges import MOST_STEPS, is_text

GROWING, CHOICE = "COMFY_AUTOGROW_V3", "COMFY_DYNAMICCOMBO_V3"
# ComfyUI nests few declarations; the limit ends a definition that nests without end.
MAX_DEPTH = 5
Declaration = list[Any]


def is_dynamic(kind: Any) -> bool:
    """Whether the type or the number of an input depends on the graph."""
    return isinstance(kind, str) and kind.startswith("COMFY_")


def declared_inputs(schema: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Declaration]:
    """Each input that a node may have, by its name in the graph, with its declaration: type and options.

    `schema` is the class's entry in /object_info. `inputs` are those of the node: its choices decide which further
    inputs there are.
    """
    declared: dict[str, Declaration] = {}
    _collect(schema["input"], inputs, "", declared, MAX_DEPTH)
    return declared


def _collect(
    groups: Mapping[str, Any], inputs: Mapping[str, Any], prefix: str, declared: dict[str, Declaration], depth: int
) -> None:
    for group in ("required", "optional"):
        for name, declaration in (groups.get(group) or {}).items():
            full = prefix + name
            declared[full] = declaration
            extra = extra_of(declaration)
            if depth and declaration[0] == GROWING:
                declared.update(_growing(full, extra.get("template") or {}))
            elif depth and declaration[0] == CHOICE:
                chosen = [option for option in extra.get("options") or () if option.get("key") == inputs.get(full)]
                if chosen:
                    _collect(chosen[0].get("inputs") or {}, inputs, f"{full}.", declared, depth - 1)


def _growing(name: str, template: Mapping[str, Any]) -> dict[str, Declaration]:
    """The inputs of a growing list, by their names: `values.a`, or `images.image0`."""
    groups = template.get("input") or {}
    declaration = next((declaration for group in groups.values() for declaration in (group or {}).values()), None)
    if declaration is None:
        return {}
    names = template.get("names") or [f"{template.get('prefix', '')}{i}" for i in range(template.get("max", 0))]
    return {f"{name}.{item}": declaration for item in names}


# The type of an output that has the type of some of its node's inputs, and the types that a value can have.
MATCHED = "COMFY_MATCHTYPE_V3"
TYPES_OF_VALUES = {str: {"STRING"}, bool: {"BOOLEAN"}, int: {"INT", "FLOAT"}, float: {"FLOAT"}}


@dataclass(frozen=True)
class Problem:
    """One problem of a graph: its node and input, what is wrong, and the valid options."""

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
    """All problems of `graph`, given the /object_info entries of its classes; empty if there are none."""
    checker = _Checker(graph, schemas)
    return [problem for node_id, node in graph.items() for problem in checker.check_node(node_id, node)]


def too_little_denoise(steps: float | None, denoise: float | None) -> str | None:
    """What is wrong if `denoise` is too little for `steps`; None if it is not, or if one of them is not known."""
    if steps is None or denoise is None or not 0 < denoise < steps / MOST_STEPS:
        return None
    # A scheduler computes steps / denoise noise levels. That may take hours, and nothing cancels it.
    return f"denoise {denoise:g} is too little for {steps:g} steps: send 0, or {steps / MOST_STEPS:g} or more"


def range_of(declaration: Declaration) -> tuple[float, float]:
    """The smallest and the largest number that an input declares."""
    extra = extra_of(declaration)
    low, high = (extra.get(end) for end in ("min", "max"))
    return -math.inf if low is None else low, math.inf if high is None else high


def _number(graph: Mapping[str, Any], value: Any) -> float | None:
    """The number that an input has, itself or from the `value` of a linked node; None for anything else."""
    if is_link(value):
        value = inputs_of(graph.get(value[0])).get("value")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < 1e300 else None


def _is_unknown(declaration: Declaration | None) -> bool:
    """Whether a dynamic input has an unknown form, so that any input below its name may be right."""
    if declaration is None or not is_dynamic(declaration[0]):
        return False
    return not ({"template", "options"} & extra_of(declaration).keys())


def extra_of(declaration: Declaration) -> dict[str, Any]:
    """The options of a declaration, such as `min`, `max` and `image_upload`."""
    return declaration[1] if len(declaration) > 1 and isinstance(declaration[1], dict) else {}


def choices(declaration: Declaration) -> tuple[Any, ...]:
    """The choices of a combo, in either of ComfyUI's two notations; empty for other types and for upload lists."""
    kind, extra = declaration[0], extra_of(declaration)
    if extra.get("image_upload"):
        return ()  # it lists only the top level of the input folder, but names below it are valid too
    if isinstance(kind, list):
        return tuple(kind)
    if kind == CHOICE:
        return tuple(option.get("key") for option in extra.get("options") or ())
    return tuple(extra.get("options") or ()) if kind == "COMBO" else ()


def _check_value(kind: str, extra: Mapping[str, Any], name: str, value: Any) -> tuple[str, str] | None:
    """The problem of a value for an input of one type, as kind and message; None if there is none."""
    if kind in ("INT", "FLOAT"):
        # An integer may be too large for math.isfinite.
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


class _Checker:
    """Checks the nodes of one graph."""

    def __init__(self, graph: Mapping[str, Any], schemas: Mapping[str, Any]) -> None:
        self._graph = graph
        self._schemas = schemas
        self._matched = matched_types(graph, schemas)

    def check_node(self, node_id: str, node: Any) -> Iterator[Problem]:
        """The problems of one node."""
        class_type = class_of(node)
        if class_type is None or not isinstance(node.get("inputs"), dict):
            yield Problem(node_id, class_type or "", None, "bad_node", "it has no class_type or no inputs")
            return
        schema = self._schemas.get(class_type)
        if schema is None:
            yield Problem(node_id, class_type, None, "unknown_node", f"the engine has no node {class_type}")
            return
        required, inputs = schema["input"].get("required", {}), node["inputs"]
        declared = declared_inputs(schema, inputs)
        for name in required.keys() - inputs.keys():
            if is_dynamic(required[name][0]) and required[name][0] != CHOICE:
                continue  # its parts are called `name.0`, `name.1`, ...
            yield Problem(node_id, class_type, name, "missing_input", f"{class_type} needs the input {name}")
        for name, value in inputs.items():
            if isinstance(value, str) and not is_text(value):
                message = f"{name} has a lone surrogate, which is half a character, so it is not valid text"
                yield Problem(node_id, class_type, name, "wrong_type", message)
            elif name in declared:
                options = choices(declared[name])
                problem = self._check_input(declared[name], options, name, value)
                if problem is not None:
                    yield Problem(node_id, class_type, name, *problem, value=value, options=options)
            elif not _is_unknown(declared.get(name.partition(".")[0])):
                message = f"{class_type} has no input {name}"
                yield Problem(node_id, class_type, name, "unknown_input", message, value=name, options=tuple(declared))
        steps, denoise = (_number(self._graph, inputs.get(name)) for name in ("steps", "denoise"))
        message_of_denoise = too_little_denoise(steps, denoise)
        if message_of_denoise is not None:
            yield Problem(node_id, class_type, "denoise", "out_of_range", message_of_denoise, value=denoise)

    def _check_input(
        self, declaration: Declaration, options: tuple[Any, ...], name: str, value: Any
    ) -> tuple[str, str] | None:
        """The problem of a declared input, as kind and message; None if there is none."""
        kind, extra = declaration[0], extra_of(declaration)
        if isinstance(value, list):
            return self._check_link(kind, name, value)
        if isinstance(value, dict) or value is None:
            return "wrong_type", f"{name} must be a value or a link, not {value!r}"
        if isinstance(kind, list) or kind == "COMBO" or (kind == CHOICE and options):
            if extra.get("image_upload"):
                return None
            return None if value in options else ("not_in_list", f"{name} has no option {value!r}")
        if is_dynamic(kind):
            return None
        # An input may take values of several types: if none fits, the problem with the first is reported.
        problems = [_check_value(option, extra, name, value) for option in str(kind).split(",")]
        return None if None in problems else problems[0]

    def _check_link(self, kind: Any, name: str, link: list[Any]) -> tuple[str, str] | None:
        well_formed = len(link) == 2 and isinstance(link[0], str) and type(link[1]) is int
        source = self._graph.get(link[0]) if well_formed else None
        if source is None:
            return "bad_link", f"{name} is connected to {link!r}, which is not a node of the graph"
        outputs = (self._schemas.get(class_of(source) or "") or {}).get("output")
        if outputs is None:
            return None  # the class of the source is unknown, which is a problem of the source
        if not 0 <= link[1] < len(outputs):
            return "bad_link", f"{name} is connected to output {link[1]} of {link[0]}, which has {len(outputs)}"
        linked = outputs[link[1]]
        is_choice = isinstance(kind, list) or kind in ("COMBO", CHOICE)
        if is_choice and not (isinstance(linked, list) or linked == "COMBO"):
            # The engine compares values with the choices, but not links: a text that the graph computes could name any
            # file.
            return "bad_link", f"{name} takes one of its choices, not a link to a {linked}"
        if isinstance(kind, str) and not _fits(linked, kind):
            return "bad_link", f"{name} takes {kind}, but output {link[1]} of {link[0]} is {linked}"
        if linked == MATCHED and isinstance(kind, str):
            types = self._matched.get(link[0], set())
            if types and not any(_fits(option, kind) for option in types):
                return "bad_link", f"{name} takes {kind}, but {link[0]} returns {', '.join(sorted(types))}"
        return None


def matched_types(graph: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, set[str]]:
    """The types that each node returns whose output has the type of its inputs, as far as they are known."""
    types: dict[str, set[str]] = {}
    consumers: dict[str, list[str]] = {}
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
            linked = _output_type(graph, schemas, value) if is_link(value) else None
            if linked == MATCHED:
                consumers.setdefault(value[0], []).append(name)
            elif linked is not None:
                types[name].add(linked)
            else:
                types[name] |= TYPES_OF_VALUES.get(type(value), set())
    waiting = [name for name, known in types.items() if known]
    while waiting:
        name = waiting.pop()
        for consumer in consumers.get(name, ()):
            if not types[name] <= types[consumer]:
                types[consumer] |= types[name]
                waiting.append(consumer)
    return types


def _output_type(graph: Mapping[str, Any], schemas: Mapping[str, Any], link: list[Any]) -> str | None:
    """The type of the output that a link names; None if there is no such output."""
    if type(link[1]) is not int:
        return None
    outputs = (schemas.get(class_of(graph.get(link[0])) or "") or {}).get("output") or ()
    return str(outputs[link[1]]) if 0 <= link[1] < len(outputs) else None


def _fits(output: Any, wanted: str) -> bool:
    """Whether an output of one type may feed an input of the other. The engine checks lists of choices."""
    if not isinstance(output, str) or "*" in (output, wanted) or is_dynamic(output) or is_dynamic(wanted):
        return True
    return bool(set(output.split(",")) & set(wanted.split(",")))
