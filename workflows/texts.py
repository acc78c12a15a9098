"""The prompts that a graph of somebody else holds. Pure."""

from collections.abc import Iterator

from workflows.bindings import TEXTS, VALUES, Target
from workflows.graph import ApiGraph
from workflows.imported import is_link

# A part of the class of every node of ComfyUI's that makes a conditioning of a text.
ENCODERS = "TextEncode"


def prompt_texts(graph: ApiGraph) -> Iterator[tuple[Target, str]]:
    """Each text that is encoded, with the node and the input that hold it: those of the encoder itself, or of the node
    that feeds it with nothing but a value."""
    for name, node in graph.items():
        if ENCODERS not in node["class_type"]:
            continue
        for key in TEXTS:
            target, value = (name, key), node["inputs"].get(key)
            if is_link(value):
                held = graph[value[0]]["inputs"]
                only = next((each for each in VALUES if isinstance(held.get(each), str)), None)
                if len(held) != 1 or only is None:
                    continue
                target, value = (value[0], only), held[only]
            if isinstance(value, str) and value:
                yield target, value
