"""A snapshot of ComfyUI's own node classes, taken when they were reviewed."""

import json
from pathlib import Path
from typing import Any

from shared.engine.node_policy import STOCK_MODULES

SNAPSHOT = Path(__file__).parent / "data" / "engine_nodes.json"


def without_files(definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs and outputs of each class in /object_info, without lists of files."""
    stock = {
        name: node for name, node in definitions.items() if node["python_module"].partition(".")[0] in STOCK_MODULES
    }
    return {
        name: {
            "python_module": node["python_module"],
            "output_node": bool(node.get("output_node")),
            "input": {
                group: {key: _without_files(declaration) for key, declaration in node["input"][group].items()}
                for group in ("required", "optional")
                if group in node["input"]
            },
            "output": node["output"],
            **({"is_input_list": True} if node.get("is_input_list") else {}),
            **({"output_is_list": node["output_is_list"]} if any(node.get("output_is_list") or ()) else {}),
        }
        for name, node in sorted(stock.items())
    }


def _without_files(declaration: list[Any]) -> list[Any]:
    kind, extra = declaration[0], declaration[1] if len(declaration) > 1 else {}
    if isinstance(kind, list) or kind == "COMBO":
        uploads = {key: True for key in extra if key.endswith("_upload")}
        return ["COMBO", uploads] if uploads else ["COMBO"]
    details: dict[str, Any] = {key: extra[key] for key in ("min", "max", "image_upload") if key in extra}
    if kind == "COMFY_DYNAMICCOMBO_V3":
        details["options"] = [
            {
                "key": option["key"],
                "inputs": {
                    group: {key: _without_files(declaration) for key, declaration in inputs.items()}
                    for group, inputs in option["inputs"].items()
                },
            }
            for option in extra["options"]
        ]
    elif kind == "COMFY_AUTOGROW_V3":
        template = {key: value for key, value in extra["template"].items() if key != "input"}
        groups = extra["template"]["input"]
        template["input"] = {
            group: {key: _without_files(declaration) for key, declaration in inputs.items()}
            for group, inputs in groups.items()
        }
        details["template"] = template
    return [kind, details] if details else [kind]


def reviewed() -> dict[str, Any]:
    """Return the definitions in the snapshot."""
    nodes: dict[str, Any] = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    return nodes
