"""How much a graph has of what is no picture: encoded prompts, hooks, merged models, tracks, noise levels, lists. Pure.

A node that puts two of a kind together doubles it where both are the same: thirty in a row make a billion of one. All
others hand on what they get, and add at most one of their own.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from shared.engine.graph_numbers import Given, number
from shared.engine.graph_sizes import ANY
from shared.schema.units import MOST_STEPS

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
