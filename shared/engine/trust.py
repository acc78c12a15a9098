"""Which nodes a graph of somebody else may use. Pure.

ComfyUI's own nodes are let in by the module they come from, custom nodes only by name. Of its own, those stay out that
write anything but pictures, read what other clients made, train, or let a client's text run as a program: a regular
expression can be written so that it never ends, and holds the whole engine meanwhile.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from shared.engine.check import Problem

STOCK_MODULES = ("nodes", "comfy_extras")
ALL = "*"
# Nodes that end a graph show or save something; these do no more than show, or save pictures.
HARMLESS_ENDS = {"SaveImage", "PreviewImage", "MaskPreview", "PreviewAny", "ImageCompare"}
# By class, why it stays out. What ends a graph and is not above needs no mention.
HARMFUL = {
    "LoadImageOutput": "reads pictures of others",
    "LoadImageDataSetFromFolder": "reads whole folders",
    "LoadImageTextDataSetFromFolder": "reads whole folders",
    "LoadVideoDataSetFromFolder": "reads whole folders",
    "LoadVideoTextDataSetFromFolder": "reads whole folders",
    "LoadTrainingDataset": "reads whole folders",
    "MakeTrainingDataset": "trains",
    "TrainLoraNode": "trains",
    "TorchCompileModel": "runs a compiler",
    "GLSLShader": "runs a program of the client's",
    "RegexMatch": "runs a pattern that may never end",
    "RegexExtract": "runs a pattern that may never end",
    "RegexReplace": "runs a pattern that may never end",
}
# What the services upload themselves; other names below the top of the input folder are not to be guessed.
OWN_UPLOAD = re.compile(r"dream_layer/[0-9a-f]{64}\.png", re.ASCII)


def why_refused(class_type: str, definition: Mapping[str, Any], allowed: Collection[str]) -> str | None:
    """Why a node class stays out, as the end of a sentence that begins with its name; None if it is let in."""
    if ALL in allowed or class_type in allowed:
        return None
    module = str(definition.get("python_module", ""))
    if module.partition(".")[0] not in STOCK_MODULES:
        return "is a custom node"
    if class_type in HARMFUL:
        return HARMFUL[class_type]
    if definition.get("output_node") and class_type not in HARMLESS_ENDS:
        return "writes other files than pictures, or what it writes is not kept"
    return None


def check_files(graph: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Problem]:
    """Pictures that a graph loads by names that the engine does not list.

    `check_graph` leaves those to the engine, which also takes `x.png [output]` and names in folders.
    """
    problems = []
    for node_id, node in graph.items():
        inputs = definitions[node["class_type"]]["input"]
        for name, declaration in {**inputs.get("required", {}), **inputs.get("optional", {})}.items():
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
