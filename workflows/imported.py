"""Graphs that others made: is this one, and is it of a shape that an engine survives? Pure.

Nodes, inputs and values are checked against the engine's own definitions later; here only what needs none of them.
"""

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from shared.errors import InvalidValue
from shared.schema.units import LONGEST_TEXT, is_text
from workflows.graph import ApiGraph

MAX_NODES = 1000
LONGEST_NAME = 200
# Characters of all names, titles and texts of a graph together.
MOST_TEXT = 1_000_000
# ComfyUI follows links by recursion, which has an end.
MAX_DEPTH = 200
SAVING_CLASS = "SaveImage"
HOW_TO_EXPORT = "in ComfyUI, choose Workflow > Export (API) and send that file's content"


def is_link(value: Any) -> TypeGuard[list[Any]]:
    """Whether an input's value is the output of another node, as [node id, number of the output]."""
    return isinstance(value, list)


def read_graph(value: Any, field: str = "custom_workflow") -> ApiGraph:
    """A copy of the graph in `value`, which is in ComfyUI's API format, or an object whose `prompt` is.

    Raises InvalidValue, naming `field`, for what is no such graph, or is one that cannot be run.
    """
    graph = _nodes(value, field)
    copy = {name: _read_node(name, node, field) for name, node in graph.items()}
    _check_text(copy, field)
    for name, node in copy.items():
        for key, value in node["inputs"].items():
            if is_link(value):
                _check_link(copy, f"{name}.{key}", value, field)
    order(copy, field)
    saving = [node for node in copy.values() if node["class_type"] == SAVING_CLASS]
    if not saving:
        raise InvalidValue(
            f"{field} saves no picture",
            field=field,
            hint=f"end it in a {SAVING_CLASS} node; what PreviewImage shows is not kept",
        )
    for node in saving:
        node["inputs"].setdefault("filename_prefix", "")
    return copy


def order(graph: Mapping[str, Any], field: str = "custom_workflow") -> list[str]:
    """The nodes, each after all that it is fed by. Raises InvalidValue for a circle, and for an endless chain."""
    depth: dict[str, int] = {}
    for start in graph:
        # By hand, not by recursion: a long chain must not be the end of us either.
        path, way = [start], {start}
        while path:
            name = path[-1]
            fed_by = sources(graph, name)
            ahead = next((source for source in fed_by if source not in depth), None) if name not in depth else None
            if ahead is None:
                depth.setdefault(name, 1 + max((depth[source] for source in fed_by), default=0))
                way.discard(path.pop())
            elif ahead in way:
                circle = [*path[path.index(ahead) :], ahead]
                raise InvalidValue(f"{field} runs in a circle: {' <- '.join(circle[:6])}", field=field)
            else:
                path.append(ahead)
                way.add(ahead)
            if depth.get(name, 0) > MAX_DEPTH:
                raise InvalidValue(f"{field} has a chain of more than {MAX_DEPTH} nodes", field=field)
    return list(depth)


def sources(graph: Mapping[str, Any], name: str) -> list[str]:
    """The nodes that feed a node, in the order of its inputs."""
    return [value[0] for value in graph[name]["inputs"].values() if is_link(value)]


def _nodes(value: Any, field: str) -> dict[str, Any]:
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
    """A copy of the node with what a graph needs of it, and no more: the engine keeps notes of its own in nodes."""
    if not is_text(name):
        raise InvalidValue(f"a node of {field} has the id {name!a}, which is no text", field=field)
    class_type = node.get("class_type") if isinstance(node, dict) else None
    if not _is_class(class_type):
        raise InvalidValue(f"node {name} of {field} has no class_type", field=field, hint=HOW_TO_EXPORT)
    inputs = node.get("inputs")
    if not isinstance(inputs, dict):
        raise InvalidValue(
            f"node {name} ({node['class_type']}) of {field} has no inputs",
            field=field,
            hint='a node without any still needs "inputs": {}',
        )
    for key, value in inputs.items():
        if not is_text(key):
            raise InvalidValue(f"node {name} of {field} has an input {key!a}, which is no text", field=field)
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidValue(f"{name}.{key} of {field} is no finite number", field=field)
        if isinstance(value, dict):
            raise InvalidValue(f"{name}.{key} of {field} must be a value or a link, not an object", field=field)
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    return {
        "class_type": class_type,
        "inputs": {key: list(value) if is_link(value) else value for key, value in inputs.items()},
        **({"_meta": {"title": title}} if isinstance(title, str) and is_text(title) else {}),
    }


def _check_text(graph: ApiGraph, field: str) -> None:
    """Graphs are kept with their jobs, and texts are worked on by nodes that cannot be cancelled."""
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
    """Whether this can be the name of a class. It becomes a part of an address, in which dots would lead elsewhere."""
    if not isinstance(name, str) or len(name) > LONGEST_NAME:
        return False
    return name.isprintable() and name.strip(".") != ""


def _check_link(graph: ApiGraph, where: str, link: list[Any], field: str) -> None:
    if len(link) != 2 or not isinstance(link[0], str) or type(link[1]) is not int or link[1] < 0:
        raise InvalidValue(
            f"{where} of {field} is a list, but no link: {str(link)[:60]}",
            field=field,
            hint='a link is ["<node id>", <number of its output>]',
        )
    if link[0] not in graph:
        raise InvalidValue(f"{where} of {field} is connected to node {link[0]!r}, which is not there", field=field)
