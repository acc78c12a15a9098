"""Which nodes a graph of somebody else may use. Pure.

ComfyUI's own nodes are let in when somebody has looked through them (`reviewed.py`) and found no harm
(`node_policy.py`), custom nodes only by name. Of its own, those stay out that write anything but pictures, read what
other clients made, train, or let a client's text run as a program.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from shared.engine.check import Problem
from shared.engine.declared import declared_inputs
from shared.engine.node_policy import HARMLESS_ENDS, REFUSED
from shared.engine.reviewed import REVIEWED

STOCK_MODULES = ("nodes", "comfy_extras")
ALL = "*"
# What the services upload themselves; other names below the top of the input folder are not to be guessed.
OWN_UPLOAD = re.compile(r"dream_layer/[0-9a-f]{64}\.png", re.ASCII)


def why_refused(class_type: str, definition: Mapping[str, Any], allowed: Collection[str]) -> str | None:
    """Why a node class stays out, as the end of a sentence that begins with its name; None if it is let in."""
    if ALL in allowed or class_type in allowed:
        return None
    module = str(definition.get("python_module", ""))
    if module.partition(".")[0] not in STOCK_MODULES:
        return "is a custom node"
    if class_type in REFUSED:
        return REFUSED[class_type]
    if definition.get("output_node") and class_type not in HARMLESS_ENDS:
        return "writes other files than pictures, or what it writes is not kept"
    if class_type not in REVIEWED:
        return "is newer than this program, and nobody has looked yet at what it may do"
    return None


def check_files(graph: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Problem]:
    """Pictures that a graph loads by names that the engine does not list.

    `check_graph` leaves those to the engine, which also takes `x.png [output]` and names in folders.
    """
    problems = []
    for node_id, node in graph.items():
        for name, declaration in declared_inputs(definitions[node["class_type"]], node["inputs"]).items():
            extra = declaration[1] if len(declaration) > 1 else {}
            value = node["inputs"].get(name)
            if not extra.get("image_upload") or not value:
                continue
            listed = declaration[0] if isinstance(declaration[0], list) else extra.get("options") or []
            if isinstance(value, str) and (value in listed or OWN_UPLOAD.fullmatch(value)):
                continue
            message = f"{name} names a picture that is not in the engine's input folder: {str(value)[:60]!r}"
            problems.append(
                Problem(node_id, node["class_type"], name, "not_in_list", message, value=value, options=tuple(listed))
            )
    return problems
