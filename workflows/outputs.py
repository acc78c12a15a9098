"""The pictures that an imported graph saves: which nodes save them, and from which seed. Pure.

The rules, as in docs/workflows.md: the last stage is the `SaveImage` that depends on the most nodes; of several, the
later one in the graph. A seed is known if all nodes that make noise for a picture have the same one.
"""

from collections.abc import Collection, Mapping
from typing import Any

from shared.errors import InvalidValue
from shared.graph_walk import ancestors, count_ancestors, is_link, linked_constant
from workflows.bindings import SEEDS
from workflows.imported_graph import SAVING_CLASS

OUTPUT_FIELD = "output_node"
# These repeat a batch, so that its first picture stays the first. Other nodes with "batch" in their names join batches
# or choose from them: the first picture behind those may be any picture of a batch.
REPEATING = ("RepeatLatentBatch", "RepeatImageBatch")


def node_title(graph: Mapping[str, Any], node: str) -> str | None:
    """The title of the node in ComfyUI's editor, if the graph has it."""
    title = graph[node].get("_meta", {}).get("title")
    return title if isinstance(title, str) and title else None


def last_output(graph: Mapping[str, Any], among: Collection[str]) -> str | None:
    """The node among these that depends on the most others; of several, the later in the graph. None if among none."""
    names = [name for name in reversed(list(graph)) if name in among]
    if len(names) < 2:
        return names[0] if names else None
    # `max` returns the first of equals.
    return max(names, key=count_ancestors(graph).__getitem__)


def find_output(graph: Mapping[str, Any], wanted: Any) -> str:
    """The SaveImage node with this id or, failing that, this title. Raises InvalidValue with the candidates."""
    saving: list[str] = [name for name, node in graph.items() if node["class_type"] == SAVING_CLASS]
    if not isinstance(wanted, str | int) or isinstance(wanted, bool):
        raise InvalidValue(
            f"{OUTPUT_FIELD} must be the id or the title of a node, not {str(wanted)[:60]!r}", field=OUTPUT_FIELD
        )
    name = str(wanted)
    if name in saving:
        return name
    titled = [node for node in saving if node_title(graph, node) == name]
    if len(titled) == 1:
        return titled[0]
    problem = "is the title of several nodes" if titled else f"is not a {SAVING_CLASS} node of the graph"
    candidates = [_with_title(graph, node) for node in titled or saving][:10]
    raise InvalidValue(
        f"{OUTPUT_FIELD} {name[:60]!r} {problem}",
        field=OUTPUT_FIELD,
        hint=f"send the id{'' if titled else ' or the title'} of one: {', '.join(candidates)}",
        candidates=(titled or saving)[:50],
    )


def seed_of(graph: Mapping[str, Any], node: str) -> int | None:
    """The seed of the first picture that the node saves; None if there is none, or several, or a computed one."""
    seeds: set[int | None] = set()
    for name in ancestors(graph, node):
        class_type, inputs = graph[name]["class_type"], graph[name]["inputs"]
        if "batch" in class_type.casefold() and class_type not in REPEATING:
            return None
        # A sampler that adds no noise continues another's work, and does not use its seed.
        if inputs.get("add_noise") in ("disable", False):
            continue
        seeds |= {_seed(graph, inputs[key]) for key in SEEDS if key in inputs}
    return seeds.pop() if len(seeds) == 1 else None


def seeds_in(graph: Mapping[str, Any]) -> set[int]:
    """All seeds in the graph that are not computed."""
    inputs = (node["inputs"] for node in graph.values())
    seeds = (_seed(graph, values[key]) for values in inputs for key in SEEDS if key in values)
    return {seed for seed in seeds if seed is not None}


def shared_seed(graph: Mapping[str, Any], nodes: Collection[str]) -> int | None:
    """The seed of the pictures that these nodes save, if it is the same for all."""
    seeds = {seed_of(graph, node) for node in nodes}
    return seeds.pop() if len(seeds) == 1 else None


def _seed(graph: Mapping[str, Any], value: Any) -> int | None:
    """The seed that an input has, itself or from a linked constant."""
    if is_link(value):
        holder = linked_constant(graph, value)
        value = None if holder is None else graph[holder[0]]["inputs"][holder[1]]
    return value if type(value) is int else None


def _with_title(graph: Mapping[str, Any], name: str) -> str:
    title = node_title(graph, name)
    return name if title is None else f"{name} ({title[:60]})"
