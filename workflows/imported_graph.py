"""Reads imported graphs: checks that they are well formed and within the sizes that an engine can run. Pure.

The check against the engine's node definitions comes later (`shared.engine.check_graph`).
"""

import math
from typing import Any, TypeGuard

from shared.errors import InvalidValue
from shared.graph_walk import ApiGraph, Cycle, run_order
from shared.schema.ranges import LONGEST_TEXT, is_text

MAX_NODES = 1000
LONGEST_NAME = 200
# Characters of all names, titles and texts of a graph together.
MOST_TEXT = 1_000_000
# ComfyUI follows links by recursion, whose depth Python limits.
MAX_DEPTH = 200
SAVING_CLASS = "SaveImage"
HOW_TO_EXPORT = "in ComfyUI, choose Workflow > Export (API) and send the content of that file"


def read_graph(value: Any, field: str = "custom_workflow") -> ApiGraph:
    """A checked copy of the graph in `value`, which is in ComfyUI's API format, or an object whose `prompt` is.

    Raises InvalidValue for `field` if it is not such a graph, or one that no engine can run.
    """
    graph = {name: _read_node(name, node, field) for name, node in _read_nodes(value, field).items()}
    _check_text(graph, field)
    for name, node in graph.items():
        for key, linked in node["inputs"].items():
            if isinstance(linked, list):
                _check_link(graph, f"{name}.{key}", linked, field)
    _check_depth(graph, field)
    saving = [node for node in graph.values() if node["class_type"] == SAVING_CLASS]
    if not saving:
        raise InvalidValue(
            f"{field} saves no picture",
            field=field,
            hint=f"end it in a {SAVING_CLASS} node; what PreviewImage shows is not kept",
        )
    for node in saving:
        node["inputs"].setdefault("filename_prefix", "")
    return graph


def _read_nodes(value: Any, field: str) -> dict[str, Any]:
    if isinstance(value, dict) and isinstance(value.get("prompt"), dict) and "class_type" not in value["prompt"]:
        value = value["prompt"]
    if not isinstance(value, dict):
        raise InvalidValue(
            f"{field} must be a graph in ComfyUI's API format, not {type(value).__name__}",
            field=field,
            hint=HOW_TO_EXPORT,
        )
    if isinstance(value.get("nodes"), list):
        raise InvalidValue(
            f"{field} is in the format of ComfyUI's editor, which only the editor can run",
            field=field,
            hint=HOW_TO_EXPORT,
        )
    if not 1 <= len(value) <= MAX_NODES:
        raise InvalidValue(f"{field} must have 1 to {MAX_NODES} nodes, not {len(value)}", field=field)
    return value


def _read_node(name: str, node: Any, field: str) -> dict[str, Any]:
    """A copy of the node's class, inputs and title; the engine keeps data of its own in other keys."""
    if not is_text(name):
        raise InvalidValue(f"a node of {field} has the id {name!a}, which is not valid text", field=field)
    class_type = node.get("class_type") if isinstance(node, dict) else None
    if not _is_class(class_type):
        raise InvalidValue(f"node {name} of {field} has no class_type", field=field, hint=HOW_TO_EXPORT)
    inputs = node.get("inputs")
    if not isinstance(inputs, dict):
        raise InvalidValue(
            f"node {name} ({node['class_type']}) of {field} has no inputs",
            field=field,
            hint='a node without inputs still needs "inputs": {}',
        )
    for key, value in inputs.items():
        if not is_text(key):
            raise InvalidValue(f"node {name} of {field} has an input {key!a}, which is not valid text", field=field)
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidValue(f"{name}.{key} of {field} is not a finite number", field=field)
        if isinstance(value, dict):
            raise InvalidValue(f"{name}.{key} of {field} must be a value or a link, not an object", field=field)
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    return {
        "class_type": class_type,
        "inputs": {key: list(value) if isinstance(value, list) else value for key, value in inputs.items()},
        **({"_meta": {"title": title}} if isinstance(title, str) and is_text(title) else {}),
    }


def _check_text(graph: ApiGraph, field: str) -> None:
    """Limits texts, because graphs are stored with their jobs, and nodes that work on texts cannot be cancelled."""
    total = 0
    for name, node in graph.items():
        title = node.get("_meta", {}).get("title", "")
        total += len(name) + len(node["class_type"]) + len(title)
        for key, value in {"title": title, **node["inputs"]}.items():
            length = len(value) if isinstance(value, str) else 0
            if length > LONGEST_TEXT:
                message = f"{key} of node {name:.100} ({node['class_type']}) of {field} has {length} characters"
                raise InvalidValue(f"{message}; {LONGEST_TEXT} are allowed", field=field, node=name[:LONGEST_NAME])
            total += len(key) + length
    if total > MOST_TEXT:
        raise InvalidValue(f"the texts of {field} have {total} characters; {MOST_TEXT} are allowed", field=field)


def _is_class(name: Any) -> TypeGuard[str]:
    """Whether this can be the name of a class. It becomes part of a URL path, so it must not be made of dots."""
    if not isinstance(name, str) or len(name) > LONGEST_NAME:
        return False
    return name.isprintable() and name.strip(".") != ""


def _check_link(graph: ApiGraph, where: str, link: list[Any], field: str) -> None:
    if len(link) != 2 or not isinstance(link[0], str) or type(link[1]) is not int or link[1] < 0:
        raise InvalidValue(
            f"{where} of {field} is a list, but not a link: {str(link)[:60]}",
            field=field,
            hint='a link is ["<node id>", <number of its output>]',
        )
    if link[0] not in graph:
        raise InvalidValue(f"{where} of {field} is connected to node {link[0]!r}, which does not exist", field=field)


def _check_depth(graph: ApiGraph, field: str) -> None:
    try:
        depth = max(run_order(graph).values())
    except Cycle as cycle:
        raise InvalidValue(f"{field} has a cycle: {' <- '.join(cycle.nodes[:6])}", field=field) from None
    if depth > MAX_DEPTH:
        raise InvalidValue(f"{field} has a chain of more than {MAX_DEPTH} nodes", field=field)
