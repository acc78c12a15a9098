"""Where in a graph of somebody else the fields of a request belong. Pure. The rule, as docs/workflows.md tells it:

A sampler is a node with `latent_image`, and `positive` or `guider`; to it belong the nodes that feed its `guider`,
`noise`, `sampler` and `sigmas`. The first sampler is the one that needs no other.

- prompt, negative_prompt: the text of the node from which each sampler's `positive` (`conditioning`), or `negative`
  comes.
- seed: `seed` or `noise_seed` of each sampler.
- steps, cfg_scale, sampler_name, scheduler, denoising_strength: the first sampler's, and that of each further sampler
  which had the same value: a second pass with a number of its own keeps it.
- width, height, batch_size: the empty latent or picture from which the first sampler starts; what makes its sigmas, or
  shifts its model, for a size; batch_size also the node that repeats its latent.
- model_name: the checkpoint or diffusion model from which the first sampler's model comes.
- input_image, mask: the LoadImage, and the LoadImageMask, from which the first sampler starts; else the only one there
  is. A LoadImageMask of the same file as that LoadImage gets input_image too, where no mask is sent. Without a
  LoadImageMask, the mask is the transparency of the LoadImage whose MASK output is used.

An input that is connected to a node with nothing but a value (PrimitiveInt and the like) is set there.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.schema.units import align
from workflows.graph import ApiGraph
from workflows.imported import is_link, order

Target = tuple[str, str]
"""A node and one of its inputs."""

PARTS = ("guider", "noise", "sampler", "sigmas")
POSITIVE = ("positive", "conditioning", "cond")
NEGATIVE = ("negative",)
ASIDE = ("positive", "negative")
TEXTS = ("text", "text_g", "text_l", "clip_l", "clip_g", "t5xxl", "llama", "bert", "mt5xl", "prompt", "user_prompt")
MODELS = ("ckpt_name", "unet_name")
# What a node that only holds a value calls it.
VALUES = ("value", "text", "string", "int", "float", "number", "seed")
EACH_SAMPLER: Mapping[str, tuple[str, ...]] = {"seed": ("seed", "noise_seed")}
FIRST_SAMPLER: Mapping[str, tuple[str, ...]] = {
    "steps": ("steps",),
    "cfg_scale": ("cfg",),
    "sampler_name": ("sampler_name",),
    "scheduler": ("scheduler",),
    "denoising_strength": ("denoise",),
}
SIDES = ("width", "height")
PLACEABLE = ("prompt", "negative_prompt", *EACH_SAMPLER, *FIRST_SAMPLER, *SIDES, "batch_size", "model_name")
PICTURES = ("input_image", "mask")
PICTURE_LOADERS, MASK_LOADER = ("LoadImage", "LoadImageOutput"), "LoadImageMask"
COLOUR_CHANNELS = ("red", "green", "blue")
# A sampler has five parts or so. Without a limit, a thousand that share a thousand would take a minute to read.
MOST_PARTS = 50
# One that ends its part of the way knows no better end.
NO_END = 10000


@dataclass
class Places:
    """Where each field goes, and why some go nowhere, or need a word."""

    targets: dict[str, list[Target]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def fields_of(self, names: Container[str]) -> dict[Target, str]:
        """The field, of those in `names`, that each target belongs to."""
        return {target: name for name, targets in self.targets.items() if name in names for target in targets}


def find_places(graph: ApiGraph) -> Places:
    """The place of every field that the rule finds one for. `graph` is one that `read_graph` made."""
    return _Finder(graph).find()


def place(graph: ApiGraph, values: Mapping[str, Any], places: Places | None = None) -> tuple[ApiGraph, list[str]]:
    """A copy of `graph` with `values` set on it, and a warning for each that could not be, or not quite.

    `values` are what the client sent, by the names of a request's fields; pictures are names in the input folder.
    """
    places = places or find_places(graph)
    settings: dict[Target, Any] = {}
    warnings = []
    for name, value in values.items():
        targets = places.targets.get(name, [])
        if not targets:
            if not (name in SIDES and "input_image" in values and "input_image" in places.targets):
                warnings.append(f"{name} was not placed: {places.reasons.get(name, 'the graph has no place for it')}")
            continue
        if name in SIDES and align(value) != value:
            warnings.append(f"{name} {value} was raised to {align(value)}, a multiple of 8")
            value = align(value)
        warnings += places.notes.get(name, [])
        settings.update(dict.fromkeys(targets, value))
    return fill(graph, settings), warnings


def fill(graph: ApiGraph, settings: Mapping[Target, Any]) -> ApiGraph:
    """A copy of `graph` with these inputs set."""
    filled = {name: {**node, "inputs": dict(node["inputs"])} for name, node in graph.items()}
    for (name, key), value in settings.items():
        filled[name]["inputs"][key] = value
    return filled


def reads_alpha(graph: ApiGraph, target: Target) -> bool:
    """Whether the graph uses the transparency of the picture that is placed there.

    A node for masks reads the channel that its graph says; one that is connected may be any. All others that load a
    picture have its transparency at their second output, as LoadImage has.
    """
    name, key = target
    if key != "image":
        return False
    if graph[name]["class_type"] == MASK_LOADER:
        return graph[name]["inputs"].get("channel") not in COLOUR_CHANNELS
    loads = graph[name]["class_type"] in PICTURE_LOADERS or isinstance(graph[name]["inputs"].get(key), str)
    return loads and (name, 1) in _used(graph)


def _used(graph: ApiGraph) -> set[tuple[Any, ...]]:
    """The outputs, as node and number, that feed some other node."""
    return {tuple(value) for node in graph.values() for value in node["inputs"].values() if is_link(value)}


class _Finder:
    """One look at one graph."""

    def __init__(self, graph: ApiGraph) -> None:
        self.graph = graph
        self.places = Places()
        # What was found behind a conditioning before: texts that are combined again and again are walked once.
        self.texts: dict[tuple[str, int, Sequence[str]], list[Target]] = {}

    def find(self) -> Places:
        samplers = [name for name in order(self.graph) if self._is_sampler(name)]
        if not samplers:
            self.places.reasons = dict.fromkeys(PLACEABLE, "the graph has no sampler (a node like KSampler)")
            self._pictures(set())
            return self.places
        first = samplers[0]
        self._prompts(samplers)
        for name, keys in EACH_SAMPLER.items():
            self._claim(name, [target for sampler in samplers for target in self._knobs(sampler, keys)])
        for name, keys in FIRST_SAMPLER.items():
            self._claim(name, self._like_the_first(samplers, keys))
        upstream = self._upstream(first, "latent_image")
        self._note_cut_steps(samplers)
        self._size(first, upstream)
        self._model(first)
        self._pictures(upstream)
        return self.places

    def _claim(self, name: str, inputs: Iterable[Target]) -> None:
        """Gives the field these inputs, except for those that another has, or that are computed."""
        taken = self.places.fields_of(self.places.targets)
        claimed = dict.fromkeys(self.places.targets.get(name, ()))
        for given in dict.fromkeys(inputs):
            target = self._settable(given)
            where = ".".join(given)
            if target is None:
                self.places.reasons.setdefault(name, f"{where} is computed by {self._input(given)[0]}")
            elif target in taken and taken[target] != name:
                self.places.reasons.setdefault(name, f"{where} is also where {taken[target]} comes from")
            else:
                claimed[target] = None
        if claimed:
            self.places.targets[name] = list(claimed)

    def _settable(self, target: Target) -> Target | None:
        """The target itself, or, if it is connected, the one value of the node that feeds it."""
        value = self._input(target)
        if not is_link(value):
            return target
        inputs = self.graph[value[0]]["inputs"]
        if len(inputs) > 2:
            return None
        # Beside anything else, it is not the value itself that comes out.
        only = [key for key in inputs if key != "control_after_generate"]
        return (value[0], only[0]) if len(only) == 1 and only[0] in VALUES and not is_link(inputs[only[0]]) else None

    def _is_sampler(self, name: str) -> bool:
        inputs = self.graph[name]["inputs"]
        return "latent_image" in inputs and any(is_link(inputs.get(key)) for key in ("positive", "guider"))

    def _input(self, target: Target) -> Any:
        return self.graph[target[0]]["inputs"].get(target[1])

    def _parts(self, sampler: str) -> list[str]:
        """A sampler, and the nodes that hold settings of it, `MOST_PARTS` at most."""
        parts = [sampler]
        for part in parts:
            inputs = self.graph[part]["inputs"]
            more = [inputs[key][0] for key in PARTS if is_link(inputs.get(key)) and inputs[key][0] not in parts]
            parts += more[: MOST_PARTS - len(parts)]
        return parts

    def _knobs(self, sampler: str, keys: Sequence[str]) -> list[Target]:
        return [(part, key) for part in self._parts(sampler) for key in keys if key in self.graph[part]["inputs"]]

    def _like_the_first(self, samplers: Sequence[str], keys: Sequence[str]) -> list[Target]:
        """The first sampler's inputs, and those of others that hold the same."""
        first = self._knobs(samplers[0], keys)
        held = [self._held(target) for target in first]
        others = [target for sampler in samplers[1:] for target in self._knobs(sampler, keys)]
        return first + [target for target in others if self._held(target) in held]

    def _held(self, target: Target) -> Any:
        settable = self._settable(target)
        return settable if settable is None else self._input(settable)

    def _upstream(self, name: str, key: str) -> set[str]:
        """All nodes from which an input comes, but for those of conditionings that are only handed on beside it."""
        value = self._input((name, key))
        ahead = [value[0]] if is_link(value) else []
        found = set(ahead)
        while ahead:
            inputs = self.graph[ahead.pop()]["inputs"]
            behind = {each[0] for key, each in inputs.items() if key not in ASIDE and is_link(each)} - found
            found |= behind
            ahead += behind
        return found

    def _prompts(self, samplers: Sequence[str]) -> None:
        for name, keys in (("prompt", POSITIVE), ("negative_prompt", NEGATIVE)):
            texts: list[Target] = []
            for part in dict.fromkeys(part for sampler in samplers for part in self._parts(sampler)):
                inputs = self.graph[part]["inputs"]
                # Of a guider with two, the second is between the first and the negative, and has that one's text.
                several = "cond1" in inputs
                for key, value in inputs.items():
                    if is_link(value) and key.startswith(keys) and not (several and key == "cond2"):
                        texts += self._texts(name, value, keys)
            self.places.reasons[name] = f"no text leads to the {keys[0]} input of {samplers[0]}"
            if texts:
                del self.places.reasons[name]
                self._claim(name, texts)

    def _texts(self, name: str, link: Sequence[Any], keys: Sequence[str]) -> list[Target]:
        """The text inputs of the first node that makes the conditioning at `link` from text."""
        known = (link[0], link[1], keys)
        if known not in self.texts:
            self.texts[known] = self._look_for_texts(name, *known)
        return self.texts[known]

    def _look_for_texts(self, name: str, node: str, output: int, keys: Sequence[str]) -> list[Target]:
        inputs = self.graph[node]["inputs"]
        if self.graph[node]["class_type"] == "ConditioningZeroOut":
            return []
        own: Sequence[str] = ("negative_prompt",) if keys == NEGATIVE and "negative_prompt" in inputs else TEXTS
        texts = [(node, key) for key in own if key in inputs]
        if texts:
            return texts
        # Such nodes hand the positive on at output 0, the negative at output 1.
        paired = any(key.startswith("positive") for key in inputs) and any(key.startswith("negative") for key in inputs)
        handed_on = ("positive", "negative")[min(output, 1)]
        wanted: tuple[str, ...] = (handed_on,) if paired else ("cond", "positive", "negative")
        found = [
            texts
            for key, value in inputs.items()
            if key.startswith(wanted) and is_link(value) and (texts := self._texts(name, value, keys))
        ]
        others = dict.fromkeys(further[0][0] for further in found[1:] if further != found[0])
        if others:
            notes = self.places.notes.setdefault(name, [])
            notes += [f"{name}: {node} combines several texts; {other} keeps its own" for other in others]
        return found[0] if found else []

    def _note_cut_steps(self, samplers: Sequence[str]) -> None:
        """Says which samplers do a part of the steps, for these parts stay as they are."""
        for sampler in samplers:
            inputs = self.graph[sampler]["inputs"]
            start, end = inputs.get("start_at_step", 0), inputs.get("end_at_step", NO_END)
            # What is connected cannot be told, and what is no number is for the engine's definitions to refuse.
            if type(start) is int and type(end) is int and (start > 0 or end < NO_END):
                self.places.notes.setdefault("steps", []).append(
                    f"steps: {sampler} still does those from {start} to {end} only, as its graph says"
                )

    def _size(self, first: str, upstream: set[str]) -> None:
        empty = [
            name
            for name in self.graph
            if name in upstream and "Empty" in self.graph[name]["class_type"] and self._has(name, SIDES)
        ]
        if not empty:
            self.places.reasons.update(dict.fromkeys(SIDES, f"{first} does not start from an empty latent"))
        else:
            self.places.targets.pop("denoising_strength", None)
            self.places.reasons["denoising_strength"] = f"{first} starts from an empty latent"
            also = [*self._parts(first), *self._way(first, lambda key: key.startswith("model"))]
            sized = [*empty, *(name for name in also if self._has(name, SIDES))]
            for side in SIDES:
                self._claim(side, [(name, side) for name in sized])
        batches = [(name, "batch_size") for name in empty if self._has(name, ("batch_size",))]
        repeats = [(name, "amount") for name in self.graph if name in upstream and self._has(name, ("amount",))]
        self._claim("batch_size", batches or repeats)
        if "batch_size" not in self.places.targets:
            self.places.reasons.setdefault("batch_size", f"nothing before {first} makes several of a latent")

    def _has(self, name: str, keys: Sequence[str]) -> bool:
        return all(key in self.graph[name]["inputs"] for key in keys)

    def _way(self, start: str, follows: Callable[[str], bool]) -> Iterator[str]:
        """The nodes behind the inputs that `follows` chooses, of a sampler's parts and onwards."""
        ahead = self._parts(start)
        seen = set(ahead)
        for name in ahead:
            for key, value in self.graph[name]["inputs"].items():
                if is_link(value) and follows(key) and value[0] not in seen:
                    seen.add(value[0])
                    ahead.append(value[0])
                    yield value[0]

    def _model(self, first: str) -> None:
        loaders = [
            (name, key)
            for name in self._way(first, lambda key: key.startswith("model"))
            for key in MODELS
            if key in self.graph[name]["inputs"]
        ]
        self._claim("model_name", loaders[:1])
        if not loaders:
            self.places.reasons["model_name"] = f"the model of {first} comes from no loader of checkpoints"

    def _pictures(self, upstream: set[str]) -> None:
        used = _used(self.graph)
        for name, kind, loaders in (("input_image", "picture", PICTURE_LOADERS), ("mask", "mask", (MASK_LOADER,))):
            loader = loaders[0]
            all_of_them = [
                node
                for node in self.graph
                if self.graph[node]["class_type"] in loaders and ((node, 0) in used or loader == MASK_LOADER)
            ]
            near = [node for node in all_of_them if node in upstream]
            chosen = near if len(near) == 1 else all_of_them if not near and len(all_of_them) == 1 else []
            self._claim(name, [(node, "image") for node in chosen])
            if not all_of_them:
                self.places.reasons[name] = f"the graph has no {loader} node"
            elif not chosen:
                self.places.reasons[name] = f"several {loader} nodes could be meant, and one {kind} was sent"
        self._share_file()
        if not any(node["class_type"] == MASK_LOADER for node in self.graph.values()):
            self._mask_in_alpha(upstream)

    def _share_file(self) -> None:
        """The nodes for masks that load the same file as the place of input_image are places of it too."""
        for node, key in self.places.targets.get("input_image", [])[:1]:
            file = self.graph[node]["inputs"].get(key)
            self.places.targets["input_image"] += [
                (other, "image")
                for other, content in self.graph.items()
                if content["class_type"] == MASK_LOADER and content["inputs"].get("image") == file and not is_link(file)
            ]

    def _mask_in_alpha(self, upstream: set[str]) -> None:
        """The mask has its place in the transparency of a picture; it may be that of input_image, so that both share
        one place."""
        readers = [node for node in self.graph if reads_alpha(self.graph, (node, "image"))]
        near = [node for node in readers if node in upstream]
        target = (near[0], "image") if len(near) == 1 else (readers[0], "image") if len(readers) == 1 else None
        if target is not None and not is_link(self._input(target)):
            self.places.targets["mask"] = [target]
            self.places.reasons.pop("mask", None)
        elif readers:
            self.places.reasons["mask"] = "the transparency of several LoadImage nodes could be meant"


# A part of the class of every node of ComfyUI's that makes a conditioning of a text.
ENCODERS = "TextEncode"


def prompt_texts(graph: ApiGraph) -> Iterator[tuple[Target, str]]:
    """Each text that is encoded, with the node and the input that hold it: those of the encoder itself, or of the node
    that feeds it with nothing but a value."""
    for name, node in graph.items():
        if ENCODERS not in node["class_type"]:
            continue
        for key in TEXTS:
            target, value = (name, key), node["inputs"].get(key)
            if is_link(value):
                held = graph[value[0]]["inputs"]
                only = next((each for each in VALUES if isinstance(held.get(each), str)), None)
                if len(held) != 1 or only is None:
                    continue
                target, value = (value[0], only), held[only]
            if isinstance(value, str) and value:
                yield target, value
