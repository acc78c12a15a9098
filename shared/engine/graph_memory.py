"""Estimates the memory that a graph's pictures and texts will take, before it runs. Pure.

A chain of nodes that join texts makes gigabytes of a few characters. So each text is followed through the graph: as
itself where that is simple, and else by the most characters that it can have.

The engine keeps what each node returns until the graph is done. So the nodes are walked in order, once, and the bytes
of their pictures, masks, latents and sounds are added up (`sizes.py`), and what is no picture is counted (`counts.py`).
It is an estimate: it stops graphs that ask for far too much, by mistake or not.
"""

import graphlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from shared.engine.graph_sizes import ANY, LITERALS, Given, Known, Node, Size, in_order, known_numbers, number
from shared.engine.validate import Problem, declared_inputs, range_of
from shared.schema.units import LONGEST_TEXT, MOST_STEPS

# Of a text that a model writes, or that is made of something else.
UNKNOWN = 2_000
REPLACING = {"StringReplace": "string", "ReplaceText": "texts"}
# These hand on one of what they are given, or each by itself.
PASSING = {"ComfySwitchNode", "CreateList"}
TEXT_TYPES = {"STRING", "COMFY_MATCHTYPE_V3"}


class _Text(NamedTuple):
    longest: int
    exact: str | None = None


def check_texts(graph: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Problem]:
    """The first node that makes a text of more than LONGEST_TEXT characters."""
    feeds = {
        name: [value[0] for value in node["inputs"].values() if isinstance(value, list)] for name, node in graph.items()
    }
    texts: dict[str, _Text] = {}
    for name in graphlib.TopologicalSorter(feeds).static_order():
        class_type, inputs = graph[name]["class_type"], graph[name]["inputs"]
        if not any(output in TEXT_TYPES for output in definitions[class_type]["output"] if isinstance(output, str)):
            continue
        given = {key: text for key, value in inputs.items() if (text := _given(texts, value)) is not None}
        if class_type in PASSING and not given:
            continue  # What it hands on is no text.
        text = texts[name] = _made(class_type, given)
        if text.longest > LONGEST_TEXT:
            message = f"this makes a text of up to {text.longest} characters; {LONGEST_TEXT} are allowed"
            return [Problem(name, class_type, None, "too_long", message)]
    return []


def _given(texts: Mapping[str, _Text], value: Any) -> _Text | None:
    if isinstance(value, list):
        return texts.get(value[0])
    return _Text(len(value), value) if isinstance(value, str) else None


def _made(class_type: str, given: Mapping[str, _Text]) -> _Text:
    if class_type in LITERALS:
        return given.get("value", _Text(0))
    if class_type in PASSING:
        return _Text(max(text.longest for text in given.values()))
    if class_type == "StringConcatenate":
        return _joined(*(given.get(key, _Text(UNKNOWN)) for key in ("string_a", "delimiter", "string_b")))
    if class_type in REPLACING:
        return _replaced(*(given.get(key, _Text(UNKNOWN)) for key in (REPLACING[class_type], "find", "replace")))
    return _Text(sum(text.longest for text in given.values()) or UNKNOWN)


def _joined(first: _Text, between: _Text, second: _Text) -> _Text:
    longest = first.longest + between.longest + second.longest
    if first.exact is None or between.exact is None or second.exact is None or longest > LONGEST_TEXT:
        return _Text(longest)
    return _Text(longest, first.exact + between.exact + second.exact)


def _replaced(text: _Text, find: _Text, new: _Text) -> _Text:
    if text.exact is None or find.exact is None:
        # An empty text is found between all characters.
        times = text.longest // len(find.exact) if find.exact else text.longest + 1
        return _Text(text.longest + times * new.longest)
    times = text.exact.count(find.exact)
    longest = text.longest + times * (new.longest - len(find.exact))
    if new.exact is None or longest > LONGEST_TEXT:
        return _Text(max(longest, 0))
    return _Text(longest, text.exact.replace(find.exact, new.exact))


MOST_BYTES = 4 * 2**30
# Bytes of a pixel: three or one 32-bit floats, a latent of 16 channels for 8 x 8 pixels, coordinates, points and
# normals. A video is decoded later.
BYTES = {
    **{"IMAGE": 12.0, "MASK": 4.0, "LATENT": 1.0, "VIDEO": 0.0, ANY: 12.0},
    **{"WAN_CAMERA_EMBEDDING": 24.0, "MOGE_GEOMETRY": 32.0, "DA3_GEOMETRY": 32.0},
}
# Of a sample of a sound, on two channels.
BYTES_OF_SAMPLE = 8.0
# While a node works, it holds what it returns about twice.
AT_WORK = 2


def check_memory(
    graph: Mapping[str, Any],
    definitions: Mapping[str, Any],
    loaded: Mapping[str, tuple[int, int, int]] | None = None,
    most_bytes: float = MOST_BYTES,
) -> list[Problem]:
    """The first node with which a graph would need more than `most_bytes`, or hold too much of something else, in a
    graph with which `check_graph` and `check_limits` find no problem; or a size that is computed in a way which is not
    known here.

    `loaded` has how many pictures a file holds, their width and height, by the name that a graph loads it by. A file
    that is not there is taken for as large as a picture can be.
    """
    known, counter = Known(graph, definitions, loaded or {}), Counter(graph, definitions)
    exact = known_numbers(graph)
    held = 0.0
    for name in in_order(graph):
        node = Node(known, name)
        known.numbers[name] = node.numbers()
        size = node.size() if node.returns_pictures else None
        known.items[name], size = node.items(size)
        if size is not None:
            known.sizes[name] = size
        if node.returns_sound:
            known.sounds[name] = node.sound()
        objection = (
            _unknown(node)
            or _beyond(known, exact, node)
            or _too_large(known, name, node, held, most_bytes)
            or counter.count(name, known.items[name], known.numbers)
        )
        if objection is not None:
            return [Problem(name, node.kind, *objection)]
        held += _own_bytes(known, name, node)
    return []


def _unknown(node: Node) -> tuple[str, str, str] | None:
    if node.unknown is None:
        return None
    message = (
        f"{node.unknown} is a size, which must be a number, or computed by PrimitiveInt, GetImageSize, "
        "ResolutionSelector or ComfyMathExpression"
    )
    return node.unknown, "bad_link", message


def _beyond(known: Known, exact: Mapping[str, Any], node: Node) -> tuple[str, str, str] | None:
    """A number that follows from a size, and may be larger than the input that it is linked to declares."""
    for key, declaration in declared_inputs(known.definitions[node.kind], node.inputs).items():
        sent = node.inputs.get(key)
        if not isinstance(sent, list) or number(sent, exact) is not None:
            continue
        most, high = number(sent, known.numbers), range_of(declaration)[1]
        if most is not None and most > high:
            return key, "out_of_range", f"{key} must be at most {high}, and {sent[0]} may give {most:g}"
    return None


def _own_bytes(known: Known, name: str, node: Node) -> float:
    """What it returns takes."""
    own = 0.0
    if (size := known.sizes.get(name)) is not None:
        per_pixel = (BYTES.get(each, 0.0) * (size.density if each == "LATENT" else 1.0) for each in node.outputs)
        own += sum(per_pixel) * size.pixels
    if (sound := known.sounds.get(name)) is not None:
        own += BYTES_OF_SAMPLE * sound.samples
    return own * known.items[name]


def _too_large(known: Known, name: str, node: Node, held: float, most_bytes: float) -> tuple[None, str, str] | None:
    size = known.sizes.get(name)
    inside = BYTES["IMAGE"] * size.pixels if size is not None and node.draws_inside else 0.0
    needed = held + AT_WORK * max(_own_bytes(known, name, node), inside)
    if needed <= most_bytes:
        return None
    message = (
        f"pictures and sounds need about {needed / 2**30:.1f} GiB up to here{_told(size, known.items[name])}; "
        f"{most_bytes / 2**30:.1f} GiB are allowed"
    )
    return None, "too_large", message


def _told(size: Size | None, items: float) -> str:
    if size is None:
        return ""
    return f", where there are {size.batch * items:.0f} of {size.width:.0f} x {size.height:.0f}"


# What is counted besides the types of outputs: how many texts are in a row in each encoded prompt, and elements of
# lists, for each of which all that follows is run.
IN_A_ROW, ITEMS = "encoded texts in a row", "elements of a list"
PROMPTS = "CONDITIONING"


class Join(NamedTuple):
    """Inputs that are put together. Where there are several groups, each makes an output of its own."""

    type: str
    groups: tuple[tuple[str, ...], ...]


JOINS = {
    "ConditioningCombine": Join(PROMPTS, (("conditioning_1", "conditioning_2"),)),
    "ConditioningSetDefaultCombine": Join(PROMPTS, (("cond", "cond_DEFAULT"),)),
    "ConditioningSetPropertiesAndCombine": Join(PROMPTS, (("cond", "cond_NEW"),)),
    "PairConditioningCombine": Join(PROMPTS, (("positive_A", "positive_B"), ("negative_A", "negative_B"))),
    "PairConditioningSetDefaultCombine": Join(
        PROMPTS, (("positive", "positive_DEFAULT"), ("negative", "negative_DEFAULT"))
    ),
    "PairConditioningSetPropertiesAndCombine": Join(
        PROMPTS, (("positive", "positive_NEW"), ("negative", "negative_NEW"))
    ),
    "ConditioningConcat": Join(IN_A_ROW, (("conditioning_to", "conditioning_from"),)),
    "CombineHooks2": Join("HOOKS", (("hooks_A", "hooks_B"),)),
    "CombineHooks4": Join("HOOKS", (tuple(f"hooks_{letter}" for letter in "ABCD"),)),
    "CombineHooks8": Join("HOOKS", (tuple(f"hooks_{letter}" for letter in "ABCDEFGH"),)),
    "WanMoveConcatTrack": Join("TRACKS", (("tracks_1", "tracks_2"),)),
}
# Each merge keeps the weights of both until they are needed, with all that they were merged of.
MERGES = {"MODEL": ("model1", "model2"), "CLIP": ("clip1", "clip2")}
MOST = {
    PROMPTS: (1024, "encoded prompts"),
    IN_A_ROW: (64, IN_A_ROW),
    "HOOKS": (256, "hooks"),
    "TRACKS": (64, "sets of tracks"),
    "SIGMAS": (MOST_STEPS + 1, "noise levels"),
    "MODEL": (64, "models in one"),
    "CLIP": (64, "text encoders in one"),
    ITEMS: (4096, ITEMS),
}
"""By what is counted, how many there may be, and what they are called."""


class Counter:
    """Counts through a graph, node by node, each after all that it is fed by."""

    def __init__(self, graph: Mapping[str, Any], definitions: Mapping[str, Any]) -> None:
        self._graph = graph
        self._definitions = definitions
        self._counts: dict[str, dict[str, float]] = {}

    def count(self, name: str, items: float, numbers: Mapping[str, Given]) -> tuple[None, str, str] | None:
        """What is wrong with the next node, with so many `items` in its lists; None if nothing is."""
        kind, inputs = self._graph[name]["class_type"], self._graph[name]["inputs"]
        outputs = set(map(str, self._definitions[kind]["output"]))
        known = {
            what: self._of(kind, inputs, what, numbers)
            for what in MOST
            if what in outputs
            or (what == IN_A_ROW and PROMPTS in outputs)
            or (ANY in outputs and any(self._knows(value, what) for value in inputs.values()))
        }
        known[ITEMS] = items
        self._counts[name] = known
        # Each prompt has all that is in a row, for each element of a list.
        texts = {PROMPTS: known[PROMPTS] * known[IN_A_ROW] * items} if PROMPTS in known and IN_A_ROW in known else {}
        for what, found in {**known, **texts}.items():
            most, called = MOST[what]
            if found > most:
                return None, "too_large", f"there are up to {found:.0f} {called} here; {most} are allowed"
        return None

    def _of(self, kind: str, inputs: Mapping[str, Any], what: str, numbers: Mapping[str, Given]) -> float:
        if what == "SIGMAS":
            return self._noise_levels(kind, inputs, numbers)
        join = JOINS.get(kind)
        groups: tuple[tuple[str, ...], ...] = join.groups if join is not None and join.type == what else ()
        if what in MERGES and all(key in inputs for key in MERGES[what]):
            groups = (MERGES[what],)
        if groups:
            return max(sum(self._at(inputs.get(key), what) for key in group) for group in groups)
        return max((self._at(value, what) for value in inputs.values()), default=1.0)

    def _noise_levels(self, kind: str, inputs: Mapping[str, Any], numbers: Mapping[str, Given]) -> float:
        given = max((self._at(value, "SIGMAS") for value in inputs.values()), default=1.0)
        steps = number(inputs.get("steps"), numbers)
        if kind == "ExtendIntermediateSigmas":
            return given * (steps or 1.0)
        return max(given, (steps or 0.0) + 1)

    def _at(self, value: Any, what: str) -> float:
        """How many there are at the other end of a link; 1 where nothing is known of it."""
        return self._counts[value[0]].get(what, 1.0) if isinstance(value, list) else 1.0

    def _knows(self, value: Any, what: str) -> bool:
        return isinstance(value, list) and what in self._counts[value[0]]
