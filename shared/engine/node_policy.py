"""Decides which nodes a custom graph may use, and within which limits. Pure.

ComfyUI's own nodes are allowed once a person has reviewed them (`reviewed_nodes.py`) and found no harm; custom nodes
only if a setting names them. Refused are nodes that write anything but pictures, read what other clients made, train,
or run a client's text as a program. Some numbers and texts have limits that are tighter than the engine's own.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from shared.engine.check_graph import Problem, declared_inputs, extra_of, range_of, too_little_denoise
from shared.engine.graph_formulas import VARIABLES, why_refused_formula
from shared.engine.graph_sizes import CONSTANT_NODES, Numbers, known_numbers, number
from shared.engine.reviewed_nodes import REVIEWED
from shared.graph_walk import is_link

# The nodes that may end a graph: they only show something, or save pictures.
HARMLESS_ENDS = {"SaveImage", "PreviewImage", "MaskPreview", "PreviewAny", "ImageCompare"}

_REFUSED_BY_REASON = {
    "reads pictures of other clients": ("LoadImageOutput",),
    # Their file names may come from ComfyUI's own page, where `x.png [output]` is another client's picture.
    "reads what only ComfyUI's own page records": ("RecordAudio", "WebcamCapture"),
    "reads whole folders": (
        "LoadImageDataSetFromFolder",
        "LoadImageTextDataSetFromFolder",
        "LoadVideoDataSetFromFolder",
        "LoadVideoTextDataSetFromFolder",
        "LoadTrainingDataset",
    ),
    "trains models": ("MakeTrainingDataset", "TrainLoraNode"),
    "runs a compiler": ("TorchCompileModel",),
    "runs a program from the graph": ("GLSLShader",),
    # Python's str.format follows the attributes of its arguments to all memory of the process: `{a.__class__}`. And
    # `{a:>2000000000}` makes two gigabytes from fifteen characters.
    "formats text by a program from the graph": ("StringFormat",),
    "runs a regular expression that may never end": ("RegexMatch", "RegexExtract", "RegexReplace"),
    "works on 3D models, which are not kept and whose size has no limit": (
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
"""By class, why it is refused, as the end of a sentence that begins with its name. Nodes that end a graph and are not
in HARMLESS_ENDS are refused without an entry here."""


class NumberLimit(NamedTuple):
    """The range of a number, where the engine's own is too wide, and the reason, as the end of "... because it"."""

    low: float
    high: float
    reason: str


_PASSES = "goes over the whole picture that often, and cannot be cancelled meanwhile"
_KERNEL = "compares each pixel with that many around it, and cannot be cancelled meanwhile"
_TOKENS = "makes the text encoder read that many tokens at once"
_WINDOWS = "makes windows of each power of two up to it"
LIMITS = {
    ("GrowMask", "expand"): NumberLimit(-512, 512, _PASSES),
    ("Morphology", "kernel_size"): NumberLimit(3, 63, _KERNEL),
    ("T5TokenizerOptions", "min_padding"): NumberLimit(0, 1024, _TOKENS),
    ("T5TokenizerOptions", "min_length"): NumberLimit(0, 1024, _TOKENS),
    ("PatchModelAddDownscale", "downscale_factor"): NumberLimit(0.5, 9, "makes the model's layers larger below 1"),
    ("SamplerLCMUpscale", "scale_ratio"): NumberLimit(0.1, 4, "enlarges the latent at each step"),
    ("SamplerLMS", "order"): NumberLimit(1, 20, "solves that many integrals at each step"),
    ("EmptyAudio", "duration"): NumberLimit(0, 3600, "makes that many seconds of sound"),
    ("ContextWindowsManual", "context_stride"): NumberLimit(1, 64, _WINDOWS),
    ("WanContextWindowsManual", "context_stride"): NumberLimit(1, 64, _WINDOWS),
    ("LTXVContextWindows", "context_stride"): NumberLimit(1, 64, _WINDOWS),
}
"""By class and input, the numbers that are allowed."""

# Numbers that decide how long a node works. If they are linked, their values must be known.
DURATIONS = {"steps", "denoise"}

TEXT_LIMITS = {
    # A regular expression whose work grows with the square of the length reads it.
    ("ManualSigmas", "sigmas"): 2_000,
    # It is wrapped by measuring each prefix of each word, at each font size.
    ("TextOverlay", "text"): 2_000,
}
"""By class and input, the most characters of a text that must be shorter than other texts of a graph."""

# A formula must be a value of its node, because a text that the graph computes cannot be checked.
FORMULAS = {("ComfyMathExpression", "expression")}

STOCK_MODULES = ("nodes", "comfy_extras")
ALL = "*"
# The names of uploads that the services made. Other names in that folder are not for clients to guess.
OWN_UPLOAD = re.compile(r"dream_layer/[0-9a-f]{64}\.png", re.ASCII)

NUMERIC_TYPES = {"INT", "FLOAT", "BOOLEAN"}


def why_refused(class_type: str, definition: Mapping[str, Any], allowed: Collection[str]) -> str | None:
    """Why a node class is refused, as the end of a sentence that begins with its name; None if it is allowed.

    `allowed` are the classes that a setting allows.
    """
    if ALL in allowed or class_type in allowed:
        return None
    module = str(definition.get("python_module", ""))
    if module.partition(".")[0] not in STOCK_MODULES:
        return "is a custom node"
    if class_type in REFUSED:
        return REFUSED[class_type]
    if definition.get("output_node") and class_type not in HARMLESS_ENDS:
        return "writes files that are not pictures, or that are not kept"
    if class_type not in REVIEWED:
        return "is newer than this version, and has not been reviewed yet"
    return None


def check_files(graph: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Problem]:
    """Pictures that a graph loads by names that the engine does not list.

    `check_graph` does not check these names, and the engine also accepts `x.png [output]` and names in folders.
    """
    problems = []
    for node_id, node in graph.items():
        for name, declaration in declared_inputs(definitions[node["class_type"]], node["inputs"]).items():
            extra = extra_of(declaration)
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


def check_limits(graph: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Problem]:
    """Inputs beyond their limits, in a graph that has passed `check_graph`.

    The engine checks the values in a graph, but not those that links bring. So an input with a limit may only be linked
    to a node with a constant, and a linked number must be in the range that the input declares, if it is known.
    """
    known = known_numbers(graph)
    return [
        problem
        for name in graph
        for problem in (*_check_values(graph, definitions, name), *_check_linked(graph, definitions, name, known))
    ]


def _check_values(graph: Mapping[str, Any], definitions: Mapping[str, Any], name: str) -> Iterator[Problem]:
    class_type, inputs = graph[name]["class_type"], graph[name]["inputs"]
    for key, value in inputs.items():
        where = (class_type, key)
        problem = None
        if where in LIMITS:
            problem = _check_number(key, _constant(graph, value), LIMITS[where])
        elif where in TEXT_LIMITS:
            problem = _check_text(key, _constant(graph, value), TEXT_LIMITS[where])
        elif where in FORMULAS:
            problem = _check_formula(key, value)
        elif key.partition(".")[0] == VARIABLES and (class_type, "expression") in FORMULAS:
            problem = _check_variable(graph, definitions, key, value)
        if problem is not None:
            yield Problem(name, class_type, key, *problem, value=value)


def _check_linked(
    graph: Mapping[str, Any], definitions: Mapping[str, Any], name: str, known: Mapping[str, Numbers]
) -> Iterator[Problem]:
    """Linked numbers that are not in the range that the input declares, or that must be known and are not."""
    class_type, inputs = graph[name]["class_type"], graph[name]["inputs"]
    for key, declaration in declared_inputs(definitions[class_type], inputs).items():
        link = inputs.get(key)
        if not is_link(link) or (class_type, key) in LIMITS:
            continue
        value = number(link, known)
        low, high = range_of(declaration)
        if value is not None and not (low <= value <= high or _is_close(value, low, high)):
            message = f"{key} must be from {low} to {high}, but {link[0]} returns {value:g}"
            yield Problem(name, class_type, key, "out_of_range", message, value=link)
        elif value is None and key in DURATIONS and {class_type, graph[link[0]]["class_type"]} <= REVIEWED:
            message = (
                f"{key} decides how long the node works: it must be a number, or computed from numbers by "
                "ComfyMathExpression"
            )
            yield Problem(name, class_type, key, "bad_link", message, value=link)
    message_of_denoise = too_little_denoise(*(number(inputs.get(key), known) for key in ("steps", "denoise")))
    if message_of_denoise is not None:
        yield Problem(name, class_type, "denoise", "out_of_range", message_of_denoise, value=inputs["denoise"])


def _is_close(value: float, *ends: float) -> bool:
    """Whether a number is an end of a range but for a rounding error."""
    return any(math.isclose(value, end, abs_tol=1e-9) for end in ends)


def _constant(graph: Mapping[str, Any], value: Any) -> Any:
    """The value of an input, itself or from the constant that it is linked to; None if it is computed."""
    for _ in graph:
        if not is_link(value):
            return value
        source = graph[value[0]]
        value = source["inputs"].get("value") if source["class_type"] in CONSTANT_NODES else None
    return None


def _check_number(key: str, value: Any, limit: NumberLimit) -> tuple[str, str] | None:
    rule = f"{key} must be from {limit.low:g} to {limit.high:g}, because it {limit.reason}"
    if not isinstance(value, int | float):
        return "bad_link", f"{rule}; send a number, or connect it to a PrimitiveInt or PrimitiveFloat"
    return None if limit.low <= value <= limit.high else ("out_of_range", f"{rule}; not {value}")


def _check_text(key: str, value: Any, longest: int) -> tuple[str, str] | None:
    if not isinstance(value, str):
        return "bad_link", f"{key} may have {longest} characters; send a text, or connect it to a PrimitiveString"
    return None if len(value) <= longest else ("too_long", f"{key} has {len(value)} characters; {longest} are allowed")


def _check_formula(key: str, value: Any) -> tuple[str, str] | None:
    if not isinstance(value, str):
        return "bad_link", f"{key} is a formula, which must be a text of this node and not come from another"
    reason = why_refused_formula(value)
    return None if reason is None else ("bad_formula", f"{key} is not allowed: it {reason}")


def _check_variable(
    graph: Mapping[str, Any], definitions: Mapping[str, Any], key: str, value: Any
) -> tuple[str, str] | None:
    """Variables must be numbers, because operators do other things to texts: `a * 1000000000` repeats one."""
    if not is_link(value):
        return None if isinstance(value, int | float) else ("wrong_type", f"{key} must be a number, not {value!r:.60}")
    output = definitions[graph[value[0]]["class_type"]]["output"][value[1]]
    if isinstance(output, str) and set(output.split(",")) <= NUMERIC_TYPES:
        return None
    return "bad_link", f"{key} takes a number, but output {value[1]} of {value[0]} is {output!s:.60}"
