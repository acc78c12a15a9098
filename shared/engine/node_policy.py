"""Which nodes a graph of somebody else may use, and within which limits. Pure.

The classes that were looked through are in `reviewed.py`. `trust.py` keeps the refused ones out, and `limits.py` holds
graphs to the limits.

ComfyUI's own nodes are let in when somebody has looked through them (`reviewed.py`) and found no harm
(`node_policy.py`), custom nodes only by name. Of its own, those stay out that write anything but pictures, read what
other clients made, train, or let a client's text run as a program.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from shared.engine.formula import LIST, why_no_formula
from shared.engine.graph_sizes import LITERALS, Given, known_numbers, number
from shared.engine.reviewed_nodes import REVIEWED
from shared.engine.validate import Problem, declared_inputs, range_of, too_little_denoise

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


NUMBERS = {"INT", "FLOAT", "BOOLEAN"}


def check_limits(graph: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Problem]:
    """Inputs beyond their limits, in a graph with which `check_graph` finds no problem.

    The engine checks the values in a graph, but not what links bring. So a limited input is linked to a node with
    nothing but a value, or to none; and a number that comes over a link, as far as it is known, keeps to the range that
    the engine declares.
    """
    known = known_numbers(graph)
    return [
        problem
        for name in graph
        for problem in (*_of_node(graph, definitions, name), *_linked(graph, definitions, name, known))
    ]


def _of_node(graph: Mapping[str, Any], definitions: Mapping[str, Any], name: str) -> Iterator[Problem]:
    class_type, inputs = graph[name]["class_type"], graph[name]["inputs"]
    for key, sent in inputs.items():
        where = (class_type, key)
        objection = None
        if where in LIMITS:
            objection = _number(key, literal(graph, sent), LIMITS[where])
        elif where in TEXT_LIMITS:
            objection = _text(key, literal(graph, sent), TEXT_LIMITS[where])
        elif where in FORMULAS:
            objection = _formula(key, sent)
        elif key.partition(".")[0] == LIST and (class_type, "expression") in FORMULAS:
            objection = _variable(graph, definitions, key, sent)
        if objection is not None:
            yield Problem(name, class_type, key, *objection, value=sent)


def _linked(
    graph: Mapping[str, Any], definitions: Mapping[str, Any], name: str, known: Mapping[str, Given]
) -> Iterator[Problem]:
    """Numbers that come over links and are beyond what the input declares."""
    class_type, inputs = graph[name]["class_type"], graph[name]["inputs"]
    for key, declaration in declared_inputs(definitions[class_type], inputs).items():
        sent = inputs.get(key)
        if not isinstance(sent, list) or (class_type, key) in LIMITS:
            continue
        value = number(sent, known)
        low, high = range_of(declaration)
        if value is not None and not (low <= value <= high or _is_end(value, low, high)):
            message = f"{key} must be from {low} to {high}, and {sent[0]} gives {value:g}"
            yield Problem(name, class_type, key, "out_of_range", message, value=sent)
        elif value is None and key in COUNTS and {class_type, graph[sent[0]]["class_type"]} <= REVIEWED:
            message = (
                f"{key} decides how long it works, so it is a number, or computed of numbers by ComfyMathExpression"
            )
            yield Problem(name, class_type, key, "bad_link", message, value=sent)
    objection = too_little_denoise(*(number(inputs.get(key), known) for key in ("steps", "denoise")))
    if objection is not None:
        yield Problem(name, class_type, "denoise", "out_of_range", objection, value=inputs["denoise"])


def _is_end(value: float, *ends: float) -> bool:
    """Whether a number is the end of a range, and only its computing was not exact."""
    return any(math.isclose(value, end, abs_tol=1e-9) for end in ends)


def literal(graph: Mapping[str, Any], sent: Any) -> Any:
    """The value of an input: itself, or that of the node with nothing but a value that it is linked to; None for a link
    to any other node."""
    for _ in graph:
        if not isinstance(sent, list):
            return sent
        source = graph[sent[0]]
        sent = source["inputs"].get("value") if source["class_type"] in LITERALS else None
    return None


def _number(key: str, value: Any, limit: Limit) -> tuple[str, str] | None:
    what = f"{key} must be from {limit.low:g} to {limit.high:g}, for it {limit.why}"
    if not isinstance(value, int | float):
        return "bad_link", f"{what}; so it is a number, or connected to a node PrimitiveInt or PrimitiveFloat"
    return None if limit.low <= value <= limit.high else ("out_of_range", f"{what}; not {value}")


def _text(key: str, value: Any, longest: int) -> tuple[str, str] | None:
    if not isinstance(value, str):
        return "bad_link", f"{key} may have {longest} characters; so it is a text, or connected to a PrimitiveString"
    return None if len(value) <= longest else ("too_long", f"{key} has {len(value)} characters; {longest} are allowed")


def _formula(key: str, sent: Any) -> tuple[str, str] | None:
    if not isinstance(sent, str):
        return "bad_link", f"{key} is a formula, which must be written there and not come from another node"
    reason = why_no_formula(sent)
    return None if reason is None else ("bad_formula", f"{key} is not allowed: it {reason}")


def _variable(graph: Mapping[str, Any], definitions: Mapping[str, Any], key: str, sent: Any) -> tuple[str, str] | None:
    """Operators mean something else for a text: `a * 1000000000` repeats it."""
    if not isinstance(sent, list):
        return None if isinstance(sent, int | float) else ("wrong_type", f"{key} must be a number, not {sent!r:.60}")
    given = definitions[graph[sent[0]]["class_type"]]["output"][sent[1]]
    if isinstance(given, str) and set(given.split(",")) <= NUMBERS:
        return None
    return "bad_link", f"{key} takes a number, but output {sent[1]} of {sent[0]} is {given!s:.60}"
