"""Which nodes a graph of somebody else may use, and within which limits. Pure.

The classes that were looked through are in `reviewed.py`. `trust.py` keeps the refused ones out, and `limits.py` holds
graphs to the limits.

ComfyUI's own nodes are let in when somebody has looked through them (`reviewed.py`) and found no harm
(`node_policy.py`), custom nodes only by name. Of its own, those stay out that write anything but pictures, read what
other clients made, train, or let a client's text run as a program.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from shared.engine.reviewed_nodes import REVIEWED
from shared.engine.validate import Problem, declared_inputs

# Nodes that end a graph show or save something; these do no more than show, or save pictures.
HARMLESS_ENDS = {"SaveImage", "PreviewImage", "MaskPreview", "PreviewAny", "ImageCompare"}

_REFUSED_BY_REASON = {
    "reads pictures of others": ("LoadImageOutput",),
    # They take names of files as their editor's page gives them, in which `x.png [output]` is somebody's picture.
    "reads what only ComfyUI's own page records": ("RecordAudio", "WebcamCapture"),
    "reads whole folders": (
        "LoadImageDataSetFromFolder",
        "LoadImageTextDataSetFromFolder",
        "LoadVideoDataSetFromFolder",
        "LoadVideoTextDataSetFromFolder",
        "LoadTrainingDataset",
    ),
    "trains": ("MakeTrainingDataset", "TrainLoraNode"),
    "runs a compiler": ("TorchCompileModel",),
    "runs a program of the client's": ("GLSLShader",),
    # Python's str.format follows attributes of what it is given, to the memory of the whole process: `{a.__class__}`.
    # And `{a:>2000000000}` is two gigabytes of fifteen characters.
    "formats text by a program of the client's": ("StringFormat",),
    "runs a pattern that may never end": ("RegexMatch", "RegexExtract", "RegexReplace"),
    "works on 3D models, which are not kept, and whose size nothing bounds": (
        "DA3GeometryToMesh",
        "File3DToSplat",
        "Load3D",
        "Load3DAdvanced",
        "MergeSplat",
        "MoGePointMapToMesh",
        "SplatToFile3D",
        "SplatToMesh",
        "VAEDecodeHunyuan3D",
        "VoxelToMesh",
        "VoxelToMeshBasic",
    ),
}
REFUSED = {name: reason for reason, names in _REFUSED_BY_REASON.items() for name in names}
"""By class, why it stays out, as the end of a sentence that begins with its name. What ends a graph and is not in
HARMLESS_ENDS needs no mention."""


class Limit(NamedTuple):
    """The range of a number, where the engine's own is too wide, and why, as the end of "... for it"."""

    low: float
    high: float
    why: str


_PASSES = "goes over the whole picture that often, and cannot be cancelled meanwhile"
_KERNEL = "compares each pixel with so many around it, and cannot be cancelled meanwhile"
_TOKENS = "makes the text encoder read that many tokens at once"
LIMITS = {
    ("GrowMask", "expand"): Limit(-512, 512, _PASSES),
    ("Morphology", "kernel_size"): Limit(3, 63, _KERNEL),
    ("T5TokenizerOptions", "min_padding"): Limit(0, 1024, _TOKENS),
    ("T5TokenizerOptions", "min_length"): Limit(0, 1024, _TOKENS),
    ("PatchModelAddDownscale", "downscale_factor"): Limit(0.5, 9, "makes the model's layers larger below 1"),
    ("SamplerLCMUpscale", "scale_ratio"): Limit(0.1, 4, "enlarges what is being drawn, at each step"),
    ("SamplerLMS", "order"): Limit(1, 20, "solves as many integrals at each step"),
    ("EmptyAudio", "duration"): Limit(0, 3600, "makes that many seconds of sound"),
    ("ContextWindowsManual", "context_stride"): Limit(1, 64, "makes windows of each power of two up to it"),
    ("WanContextWindowsManual", "context_stride"): Limit(1, 64, "makes windows of each power of two up to it"),
    ("LTXVContextWindows", "context_stride"): Limit(1, 64, "makes windows of each power of two up to it"),
}
"""By class and input, the numbers that are let in."""

# Numbers that decide how long a node works: a link must say what they are.
COUNTS = {"steps", "denoise"}

TEXT_LIMITS = {
    # Found with a pattern, whose work grows with the square of the length.
    ("ManualSigmas", "sigmas"): 2_000,
    # Wrapped by measuring each beginning of each word, at each size of the font.
    ("TextOverlay", "text"): 2_000,
}
"""By class and input, the characters of a text that must be shorter than all texts of a graph."""

# Nodes that hand on their one value, so that what is linked to them is known.
LITERALS = {"PrimitiveInt", "PrimitiveFloat", "PrimitiveBoolean", "PrimitiveString", "PrimitiveStringMultiline"}

# A formula is a value of its node, for a text that is put together elsewhere cannot be looked at beforehand.
FORMULAS = {("ComfyMathExpression", "expression")}


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
