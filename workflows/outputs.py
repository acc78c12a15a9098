"""The pictures that a graph of somebody else saves: by which nodes, and with which seed. Pure.

The rules, as docs/workflows.md tells them: the last stage is the `SaveImage` that depends on the most nodes, of several
the one that comes later in the graph. A seed is known where all that makes noise for a picture holds the same number.
"""

from collections.abc import Collection, Mapping
from typing import Any

from shared.errors import InvalidValue
from workflows.bindings import EACH_SAMPLER, VALUES
from workflows.imported import SAVING_CLASS, is_link, sources

FIELD = "output_node"
# They repeat what they get: the first picture stays the first. Others with "batch" in their names join batches, or
# choose from them, and the first picture behind those may be any picture of a batch.
REPEATING = ("RepeatLatentBatch", "RepeatImageBatch")


def title(graph: Mapping[str, Any], node: str) -> str | None:
    """The title that the node has in ComfyUI's editor, if the graph tells it."""
    found = graph[node].get("_meta", {}).get("title")
    return found if isinstance(found, str) and found else None


def last_output(graph: Mapping[str, Any], among: Collection[str]) -> str | None:
    """Of these nodes, the one that depends on the most others; of several, the later in the graph. None of none."""
    # `max` keeps the first of equals.
    names = [name for name in reversed(list(graph)) if name in among]
    return max(names, key=lambda name: len(_behind(graph, name)), default=None)


def find_output(graph: Mapping[str, Any], asked: Any) -> str:
    """The SaveImage of that id, else of that title. Raises InvalidValue with the candidates."""
    saving: list[str] = [name for name, node in graph.items() if node["class_type"] == SAVING_CLASS]
    if not isinstance(asked, str | int) or isinstance(asked, bool):
        raise InvalidValue(f"{FIELD} must be the id or the title of a node, not {str(asked)[:60]!r}", field=FIELD)
    name = str(asked)
    if name in saving:
        return name
    titled = [node for node in saving if title(graph, node) == name]
    if len(titled) == 1:
        return titled[0]
    problem = "is the title of several nodes" if titled else f"is no {SAVING_CLASS} node of the graph"
    candidates = [_described(graph, node) for node in titled or saving][:10]
    raise InvalidValue(
        f"{FIELD} {name[:60]!r} {problem}",
        field=FIELD,
        hint=f"send the id{'' if titled else ' or the title'} of one: {', '.join(candidates)}",
        candidates=(titled or saving)[:50],
    )


def seed_of(graph: Mapping[str, Any], node: str) -> int | None:
    """The seed of the first picture that the node saves; None if there is none, or several, or a computed one."""
    seeds: set[int | None] = set()
    for name in _behind(graph, node):
        class_type, inputs = graph[name]["class_type"], graph[name]["inputs"]
        if "batch" in class_type.casefold() and class_type not in REPEATING:
            return None
        # Such a sampler goes on from another's work, and its seed makes nothing.
        if inputs.get("add_noise") in ("disable", False):
            continue
        seeds |= {_literal(graph, inputs[key]) for key in EACH_SAMPLER["seed"] if key in inputs}
    return seeds.pop() if len(seeds) == 1 else None


def seeds_in(graph: Mapping[str, Any]) -> set[int]:
    """All seeds that stand in the graph as numbers."""
    inputs = (node["inputs"] for node in graph.values())
    found = (_literal(graph, each[key]) for each in inputs for key in EACH_SAMPLER["seed"] if key in each)
    return {seed for seed in found if seed is not None}


def seed_of_all(graph: Mapping[str, Any], nodes: Collection[str]) -> int | None:
    """The seed that these nodes' pictures share; None if there is no such seed."""
    seeds = {seed_of(graph, node) for node in nodes}
    return seeds.pop() if len(seeds) == 1 else None


def _behind(graph: Mapping[str, Any], node: str) -> set[str]:
    """All nodes that it depends on."""
    seen: set[str] = set()
    ahead = sources(graph, node)
    while ahead:
        name = ahead.pop()
        if name not in seen:
            seen.add(name)
            ahead += sources(graph, name)
    return seen


def _literal(graph: Mapping[str, Any], value: Any) -> int | None:
    """The number, also if a node that holds nothing else hands it on."""
    if is_link(value):
        held = graph[value[0]]["inputs"]
        value = next((held[key] for key in VALUES if key in held), None) if len(held) == 1 else None
    return value if type(value) is int else None


def _described(graph: Mapping[str, Any], name: str) -> str:
    named = title(graph, name)
    return name if named is None else f"{name} ({named[:60]})"
