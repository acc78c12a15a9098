"""Estimates the memory that a graph needs before it runs: texts, pictures, sounds, and counts of other data. Pure.

The engine keeps what each node returns until the graph is done. So the nodes are visited once, in the order in which
they run, and the bytes of their pictures, masks, latents and sounds are added up (`graph_sizes.py`). What is not a
picture is counted: encoded prompts, hooks, merged models, tracks, noise levels, and elements of lists.

A node that joins two of a kind doubles their number if both are the same: thirty in a row turn one into a billion. A
chain of nodes that join texts makes gigabytes from a few characters, so the length of each text is followed too, by
its exact content where that is simple.

All of this is an estimate: it stops graphs that need far too much, by mistake or not.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from shared.engine.check_graph import Problem, declared_inputs, range_of
from shared.engine.graph_sizes import (
    ANY,
    CONSTANT_NODES,
    MeasuredNode,
    Measurements,
    Numbers,
    Size,
    known_numbers,
    number,
)
from shared.graph_walk import is_link, run_order
from shared.schema.ranges import LONGEST_TEXT, MOST_STEPS

# Characters of a text of unknown length: one that a model writes, or that is made from something else.
UNKNOWN_LENGTH = 2_000
REPLACING = {"StringReplace": "string", "ReplaceText": "texts"}
# These return one of their inputs, or all of them one by one.
PASSING = {"ComfySwitchNode", "CreateList"}
TEXT_TYPES = {"STRING", "COMFY_MATCHTYPE_V3"}


class _Text(NamedTuple):
    longest: int
    exact: str | None = None


def check_texts(graph: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Problem]:
    """The first node that makes a text of more than LONGEST_TEXT characters; empty if there is none."""
    texts: dict[str, _Text] = {}
    for name in run_order(graph):
        class_type, inputs = graph[name]["class_type"], graph[name]["inputs"]
        if not any(output in TEXT_TYPES for output in definitions[class_type]["output"] if isinstance(output, str)):
            continue
        parts = {key: text for key, value in inputs.items() if (text := _text_of(texts, value)) is not None}
        if class_type in PASSING and not parts:
            continue  # It returns something other than a text.
        text = texts[name] = _returned_text(class_type, parts)
        if text.longest > LONGEST_TEXT:
            message = f"this makes a text of up to {text.longest} characters; {LONGEST_TEXT} are allowed"
            return [Problem(name, class_type, None, "too_long", message)]
    return []


def _text_of(texts: Mapping[str, _Text], value: Any) -> _Text | None:
    if is_link(value):
        return texts.get(value[0])
    return _Text(len(value), value) if isinstance(value, str) else None


def _returned_text(class_type: str, parts: Mapping[str, _Text]) -> _Text:
    unknown = _Text(UNKNOWN_LENGTH)
    if class_type in CONSTANT_NODES:
        return parts.get("value", _Text(0))
    if class_type in PASSING:
        return _Text(max(text.longest for text in parts.values()))
    if class_type == "StringConcatenate":
        return _concatenate(*(parts.get(key, unknown) for key in ("string_a", "delimiter", "string_b")))
    if class_type in REPLACING:
        return _replace(*(parts.get(key, unknown) for key in (REPLACING[class_type], "find", "replace")))
    return _Text(sum(text.longest for text in parts.values()) or UNKNOWN_LENGTH)


def _concatenate(first: _Text, delimiter: _Text, second: _Text) -> _Text:
    longest = first.longest + delimiter.longest + second.longest
    if first.exact is None or delimiter.exact is None or second.exact is None or longest > LONGEST_TEXT:
        return _Text(longest)
    return _Text(longest, first.exact + delimiter.exact + second.exact)


def _replace(text: _Text, find: _Text, new: _Text) -> _Text:
    if text.exact is None or find.exact is None:
        # An empty text is found before each character and at the end.
        times = text.longest // len(find.exact) if find.exact else text.longest + 1
        return _Text(text.longest + times * new.longest)
    times = text.exact.count(find.exact)
    longest = text.longest + times * (new.longest - len(find.exact))
    if new.exact is None or longest > LONGEST_TEXT:
        return _Text(max(longest, 0))
    return _Text(longest, text.exact.replace(find.exact, new.exact))


MOST_BYTES = 4 * 2**30
# Bytes per pixel: three 32-bit floats or one, a latent of 16 channels for 8 x 8 pixels, coordinates, points and
# normals. A video is decoded later.
BYTES = {
    **{"IMAGE": 12.0, "MASK": 4.0, "LATENT": 1.0, "VIDEO": 0.0, ANY: 12.0},
    **{"WAN_CAMERA_EMBEDDING": 24.0, "MOGE_GEOMETRY": 32.0, "DA3_GEOMETRY": 32.0},
}
# Bytes per sample of a sound with two channels.
BYTES_PER_SAMPLE = 8.0
# A node needs about twice the memory of its outputs while it works.
WORK_FACTOR = 2


def check_memory(
    graph: Mapping[str, Any],
    definitions: Mapping[str, Any],
    loaded: Mapping[str, tuple[int, int, int]] | None = None,
    most_bytes: float = MOST_BYTES,
) -> list[Problem]:
    """The first node that needs more than `most_bytes` with all before it, or has too many of something else.

    Also reports a size that is computed in an unknown way. The graph must have passed `check_graph` and `check_limits`.
    `loaded` has the number of pictures, width and height of each file that the graph loads, by its name; a file that is
    missing there counts as large as a picture can be.
    """
    known, counter = Measurements(graph, definitions, loaded or {}), _Counter(graph, definitions)
    constants = known_numbers(graph)
    total = 0.0
    for name in run_order(graph):
        node = MeasuredNode(known, name)
        known.numbers[name] = node.numbers()
        size = node.size() if node.returns_pictures else None
        known.items[name], size = node.items(size)
        if size is not None:
            known.sizes[name] = size
        if node.returns_sound:
            known.sounds[name] = node.sound()
        problem = (
            _check_unknown(node)
            or _check_ranges(known, constants, node)
            or _check_bytes(known, name, node, total, most_bytes)
            or counter.count(name, known.items[name], known.numbers)
        )
        if problem is not None:
            return [Problem(name, node.class_type, *problem)]
        total += _returned_bytes(known, name, node)
    return []


def _check_unknown(node: MeasuredNode) -> tuple[str, str, str] | None:
    if node.unknown is None:
        return None
    message = (
        f"{node.unknown} is a size: it must be a number, or computed by PrimitiveInt, GetImageSize, "
        "ResolutionSelector or ComfyMathExpression"
    )
    return node.unknown, "bad_link", message


def _check_ranges(
    known: Measurements, constants: Mapping[str, Numbers], node: MeasuredNode
) -> tuple[str, str, str] | None:
    """Checks linked numbers that follow from sizes against the range that the input declares."""
    for key, declaration in declared_inputs(known.definitions[node.class_type], node.inputs).items():
        value = node.inputs.get(key)
        if not is_link(value) or number(value, constants) is not None:
            continue
        largest, high = number(value, known.numbers), range_of(declaration)[1]
        if largest is not None and largest > high:
            return key, "out_of_range", f"{key} must be at most {high}, but {value[0]} may return {largest:g}"
    return None


def _returned_bytes(known: Measurements, name: str, node: MeasuredNode) -> float:
    """The memory that the outputs of a node take."""
    total = 0.0
    if (size := known.sizes.get(name)) is not None:
        per_pixel = (BYTES.get(kind, 0.0) * (size.density if kind == "LATENT" else 1.0) for kind in node.outputs)
        total += sum(per_pixel) * size.pixels
    if (sound := known.sounds.get(name)) is not None:
        total += BYTES_PER_SAMPLE * sound.samples
    return total * known.items[name]


def _check_bytes(
    known: Measurements, name: str, node: MeasuredNode, before: float, most_bytes: float
) -> tuple[None, str, str] | None:
    size = known.sizes.get(name)
    inside = BYTES["IMAGE"] * size.pixels if size is not None and node.draws_inside else 0.0
    needed = before + WORK_FACTOR * max(_returned_bytes(known, name, node), inside)
    if needed <= most_bytes:
        return None
    message = (
        f"pictures and sounds need about {needed / 2**30:.1f} GiB up to here{_describe(size, known.items[name])}; "
        f"{most_bytes / 2**30:.1f} GiB are allowed"
    )
    return None, "too_large", message


def _describe(size: Size | None, items: float) -> str:
    if size is None:
        return ""
    return f", where there are {size.batch * items:.0f} of {size.width:.0f} x {size.height:.0f}"


# What is counted besides the types of outputs: how many texts follow each other in an encoded prompt, and the elements
# of a list, for each of which all nodes after it run once.
TEXTS_IN_ROW, ITEMS = "encoded texts in a row", "elements of a list"
PROMPTS = "CONDITIONING"


class _Join(NamedTuple):
    """The inputs that a node joins. Each group of them makes an output of its own."""

    type: str
    groups: tuple[tuple[str, ...], ...]


JOINS = {
    "ConditioningCombine": _Join(PROMPTS, (("conditioning_1", "conditioning_2"),)),
    "ConditioningSetDefaultCombine": _Join(PROMPTS, (("cond", "cond_DEFAULT"),)),
    "ConditioningSetPropertiesAndCombine": _Join(PROMPTS, (("cond", "cond_NEW"),)),
    "PairConditioningCombine": _Join(PROMPTS, (("positive_A", "positive_B"), ("negative_A", "negative_B"))),
    "PairConditioningSetDefaultCombine": _Join(
        PROMPTS, (("positive", "positive_DEFAULT"), ("negative", "negative_DEFAULT"))
    ),
    "PairConditioningSetPropertiesAndCombine": _Join(
        PROMPTS, (("positive", "positive_NEW"), ("negative", "negative_NEW"))
    ),
    "ConditioningConcat": _Join(TEXTS_IN_ROW, (("conditioning_to", "conditioning_from"),)),
    "CombineHooks2": _Join("HOOKS", (("hooks_A", "hooks_B"),)),
    "CombineHooks4": _Join("HOOKS", (tuple(f"hooks_{letter}" for letter in "ABCD"),)),
    "CombineHooks8": _Join("HOOKS", (tuple(f"hooks_{letter}" for letter in "ABCDEFGH"),)),
    "WanMoveConcatTrack": _Join("TRACKS", (("tracks_1", "tracks_2"),)),
}
# A merged model keeps the weights of both models, and of all that they were merged from, until it is used.
MERGES = {"MODEL": ("model1", "model2"), "CLIP": ("clip1", "clip2")}
MOST = {
    PROMPTS: (1024, "encoded prompts"),
    TEXTS_IN_ROW: (64, TEXTS_IN_ROW),
    "HOOKS": (256, "hooks"),
    "TRACKS": (64, "sets of tracks"),
    "SIGMAS": (MOST_STEPS + 1, "noise levels"),
    "MODEL": (64, "models in one"),
    "CLIP": (64, "text encoders in one"),
    ITEMS: (4096, ITEMS),
}
"""By what is counted: how many are allowed, and their name in messages."""


class _Counter:
    """Counts what is not a picture, node by node, each after those that feed it.

    A node that joins nothing returns what it gets, and adds at most one of its own.
    """

    def __init__(self, graph: Mapping[str, Any], definitions: Mapping[str, Any]) -> None:
        self._graph = graph
        self._definitions = definitions
        self._counts: dict[str, dict[str, float]] = {}

    def count(self, name: str, items: float, numbers: Mapping[str, Numbers]) -> tuple[None, str, str] | None:
        """Counts the next node, whose lists have `items` elements. Returns the problem if there are too many."""
        class_type, inputs = self._graph[name]["class_type"], self._graph[name]["inputs"]
        outputs = set(map(str, self._definitions[class_type]["output"]))
        counts = {
            kind: self._count(class_type, inputs, kind, numbers)
            for kind in MOST
            if kind in outputs
            or (kind == TEXTS_IN_ROW and PROMPTS in outputs)
            or (ANY in outputs and any(self._is_counted(value, kind) for value in inputs.values()))
        }
        counts[ITEMS] = items
        self._counts[name] = counts
        # Every prompt has all texts of its row, for each element of a list.
        totals = dict(counts)
        if PROMPTS in counts and TEXTS_IN_ROW in counts:
            totals[PROMPTS] = counts[PROMPTS] * counts[TEXTS_IN_ROW] * items
        for kind, total in totals.items():
            most, noun = MOST[kind]
            if total > most:
                return None, "too_large", f"there are up to {total:.0f} {noun} here; {most} are allowed"
        return None

    def _count(self, class_type: str, inputs: Mapping[str, Any], kind: str, numbers: Mapping[str, Numbers]) -> float:
        if kind == "SIGMAS":
            return self._noise_levels(class_type, inputs, numbers)
        join = JOINS.get(class_type)
        groups: tuple[tuple[str, ...], ...] = join.groups if join is not None and join.type == kind else ()
        if kind in MERGES and all(key in inputs for key in MERGES[kind]):
            groups = (MERGES[kind],)
        if groups:
            return max(sum(self._linked_count(inputs.get(key), kind) for key in group) for group in groups)
        return max((self._linked_count(value, kind) for value in inputs.values()), default=1.0)

    def _noise_levels(self, class_type: str, inputs: Mapping[str, Any], numbers: Mapping[str, Numbers]) -> float:
        linked = max((self._linked_count(value, "SIGMAS") for value in inputs.values()), default=1.0)
        steps = number(inputs.get("steps"), numbers)
        if class_type == "ExtendIntermediateSigmas":
            return linked * (steps or 1.0)
        return max(linked, (steps or 0.0) + 1)

    def _linked_count(self, value: Any, kind: str) -> float:
        """The count at the other end of a link; 1 if it is not known, and for a value."""
        return self._counts[value[0]].get(kind, 1.0) if is_link(value) else 1.0

    def _is_counted(self, value: Any, kind: str) -> bool:
        return is_link(value) and kind in self._counts[value[0]]
