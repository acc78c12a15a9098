"""Which inputs a node has, as /object_info declares them. Pure.

Some declarations stand for several inputs: a list that grows (`images.image0`, `images.image1`), or a choice with
inputs of its own (`resize_type`, `resize_type.width`). ComfyUI expands them when it sees the graph, and so do we.
"""

from collections.abc import Mapping
from typing import Any

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
