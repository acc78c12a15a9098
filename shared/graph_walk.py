"""Walks ComfyUI graphs: links, what feeds a node, and the order in which nodes run. Pure.

A graph in ComfyUI's API format is {node id: {"class_type": ..., "inputs": {name: value or link}}}, and a link is
[node id, number of the output]. Graphs come from clients, so each function here visits a node at most once, treats a
malformed node as one without inputs, ignores links to nodes that do not exist, and does not recurse.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

ApiGraph = dict[str, dict[str, Any]]
"""A graph whose nodes are known to be well formed (see `workflows.imported_graph`)."""

Target = tuple[str, str]
"""A node id and the name of one of its inputs."""

# The input of a node that holds a constant, such as PrimitiveInt.
CONSTANTS = ("value", "text", "string", "int", "float", "number", "seed")
# The editor's setting for what happens to a seed after each run; the engine ignores it.
EDITOR_ONLY = "control_after_generate"


class Cycle(ValueError):
    """A graph in which a node depends on itself. `nodes` leads from a node back to the same node."""

    def __init__(self, nodes: list[str]) -> None:
        super().__init__(" <- ".join(nodes))
        self.nodes = nodes


def class_of(node: Any) -> str | None:
    """The class of a node; None if it is malformed."""
    name = node.get("class_type") if isinstance(node, Mapping) else None
    return name if isinstance(name, str) else None


def inputs_of(node: Any) -> Mapping[str, Any]:
    """The inputs of a node; empty if it is malformed."""
    inputs = node.get("inputs") if isinstance(node, Mapping) else None
    return inputs if isinstance(inputs, Mapping) else {}


def is_link(value: Any) -> TypeGuard[list[Any]]:
    """Whether the value of an input is a link, by ComfyUI's own test."""
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
    )


def source_of(graph: Mapping[str, Any], name: str, key: str) -> str | None:
    """The node that is linked to an input; None for a value, and for a link to nothing."""
    value = inputs_of(graph.get(name)).get(key)
    return value[0] if is_link(value) and value[0] in graph else None


def links_of(graph: Mapping[str, Any], name: str, keys: Sequence[str] | None = None) -> Iterator[tuple[str, list[Any]]]:
    """The linked inputs of a node, each with its link: all in their order, or those of `keys` in that order."""
    inputs = inputs_of(graph.get(name))
    for key in inputs if keys is None else keys:
        value = inputs.get(key)
        if is_link(value) and value[0] in graph:
            yield key, value


def sources(graph: Mapping[str, Any], name: str) -> list[str]:
    """The nodes that feed a node, in the order of its inputs."""
    return [link[0] for _, link in links_of(graph, name)]


def used_outputs(graph: Mapping[str, Any]) -> set[tuple[str, int]]:
    """The outputs, as node id and number, that are linked to an input."""
    return {(link[0], link[1]) for name in graph for _, link in links_of(graph, name)}


def end_nodes(graph: Mapping[str, Any]) -> list[str]:
    """The nodes that feed no other node."""
    feeding = {source for name in graph for source in sources(graph, name) if source != name}
    return [name for name in graph if name not in feeding]


def walk(
    graph: Mapping[str, Any],
    starts: Iterable[str],
    keys: Sequence[str] | None = None,
    follows: Callable[[str], bool] | None = None,
) -> Iterator[str]:
    """The nodes `starts` and then all that feed them, nearest first, each once.

    Follows all inputs, or those named in `keys`, as far as `follows` accepts their names. Takes time in proportion to
    the links that it follows.
    """
    waiting = deque(dict.fromkeys(name for name in starts if name in graph))
    seen = set(waiting)
    while waiting:
        name = waiting.popleft()
        yield name
        for key, (source, _) in links_of(graph, name, keys):
            if source not in seen and (follows is None or follows(key)):
                seen.add(source)
                waiting.append(source)


def ancestors(graph: Mapping[str, Any], name: str) -> set[str]:
    """All nodes that a node depends on. A node that depends on itself is not among them."""
    return set(walk(graph, [name])) - {name}


def count_ancestors(graph: Mapping[str, Any]) -> dict[str, int]:
    """How many nodes each node depends on. Raises Cycle."""
    # One bit for each node: the ancestors of a node are those of its sources and the sources themselves.
    masks: dict[str, int] = {}
    for index, name in enumerate(run_order(graph)):
        masks[name] = 1 << index
        for source in sources(graph, name):
            masks[name] |= masks[source]
    return {name: mask.bit_count() - 1 for name, mask in masks.items()}


def chain(graph: Mapping[str, Any], name: str, keys: Sequence[str]) -> Iterator[str]:
    """The nodes upstream of a node, one after another, each through the first of the inputs `keys` that is linked."""
    seen = {name}
    while True:
        following = next((source for key in keys if (source := source_of(graph, name, key)) is not None), None)
        if following is None or following in seen:
            return
        seen.add(following)
        yield following
        name = following


def linked_constant(graph: Mapping[str, Any], value: Any) -> Target | None:
    """The input that holds the constant at the other end of a link; None if that node computes its output.

    A node holds a constant if that is its only input, like PrimitiveInt.
    """
    if not is_link(value):
        return None
    inputs = inputs_of(graph.get(value[0]))
    if len(inputs) > 2:
        return None
    names = [key for key in inputs if key != EDITOR_ONLY]
    is_constant = len(names) == 1 and names[0] in CONSTANTS and not is_link(inputs[names[0]])
    return (value[0], names[0]) if is_constant else None


def run_order(graph: Mapping[str, Any]) -> dict[str, int]:
    """The nodes in an order in which each comes after all that feed it, with the length of the longest chain to it.

    A node without links has the length 1. Raises Cycle. Takes time in proportion to the graph's links.
    """
    depths: dict[str, int] = {}
    for start in graph:
        # A stack instead of recursion, because a chain may be as long as the graph.
        path = {start: iter(sources(graph, start))} if start not in depths else {}
        while path:
            name, unvisited = next(reversed(path.items()))
            source = next((source for source in unvisited if source not in depths), None)
            if source is None:
                del path[name]
                depths[name] = 1 + max((depths[source] for source in sources(graph, name)), default=0)
            elif source in path:
                nodes = list(path)
                raise Cycle([*nodes[nodes.index(source) :], source])
            else:
                path[source] = iter(sources(graph, source))
    return depths
