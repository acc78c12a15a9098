"""Finds the inputs of an imported graph that the fields of a request set. Pure. The rules, as in docs/workflows.md:

A sampler is a node with `latent_image`, and `positive` or `guider`. The nodes that feed its `guider`, `noise`,
`sampler` and `sigmas` hold settings of it. The first sampler is one that no other sampler feeds.

- prompt, negative_prompt: the text inputs of the node that encodes each sampler's `positive` (`conditioning`) or
  `negative`.
- seed: `seed` or `noise_seed` of every sampler.
- steps, cfg_scale, sampler_name, scheduler, denoising_strength: the settings of the first sampler, and of each further
  sampler with the same value. A second pass with a value of its own keeps it.
- width, height, batch_size: the empty latent or picture that the first sampler starts from; the nodes that compute its
  sigmas or shift its model for a size. batch_size also sets a node that repeats its latent.
- model_name: the loader of the checkpoint or diffusion model that feeds the first sampler.
- input_image, mask: the LoadImage and the LoadImageMask that the first sampler starts from, or the only one in the
  graph. A LoadImageMask of the same file as that LoadImage gets input_image too, unless a mask is sent. Without a
  LoadImageMask, the mask becomes the transparency of the LoadImage whose MASK output is used.

An input that is linked to a node with a constant (PrimitiveInt and the like) is set there.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from shared.graph_walk import (
    ApiGraph,
    Target,
    is_link,
    linked_constant,
    links_of,
    run_order,
    source_of,
    used_outputs,
    walk,
)
from shared.schema.ranges import align

# The inputs of a sampler that lead to nodes with settings of it.
SETTING_INPUTS = ("guider", "noise", "sampler", "sigmas")
POSITIVE = ("positive", "conditioning", "cond")
NEGATIVE = ("negative",)
TEXTS = ("text", "text_g", "text_l", "clip_l", "clip_g", "t5xxl", "llama", "bert", "mt5xl", "prompt", "user_prompt")
MODELS = ("ckpt_name", "unet_name")
# Part of the class name of every node of ComfyUI that encodes a text.
ENCODERS = "TextEncode"
SEEDS = ("seed", "noise_seed")
OF_FIRST_SAMPLER: Mapping[str, tuple[str, ...]] = {
    "steps": ("steps",),
    "cfg_scale": ("cfg",),
    "sampler_name": ("sampler_name",),
    "scheduler": ("scheduler",),
    "denoising_strength": ("denoise",),
}
SIDES = ("width", "height")
BINDABLE = ("prompt", "negative_prompt", "seed", *OF_FIRST_SAMPLER, *SIDES, "batch_size", "model_name")
PICTURES = ("input_image", "mask")
PICTURE_LOADERS, MASK_LOADER = ("LoadImage", "LoadImageOutput"), "LoadImageMask"
COLOUR_CHANNELS = ("red", "green", "blue")
# A sampler has about five nodes with settings. The limit keeps the work linear if a thousand samplers share a thousand.
MAX_SETTING_NODES = 50
# KSamplerAdvanced's default for `end_at_step`: the last one.
LAST_STEP = 10000


@dataclass
class Bindings:
    """The inputs that each field sets; why a field sets none; and notes for the client about fields that are set."""

    targets: dict[str, list[Target]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def fields_of(self, names: Container[str]) -> dict[Target, str]:
        """Each input that a field in `names` sets, with that field."""
        return {target: name for name, targets in self.targets.items() if name in names for target in targets}


def find_bindings(graph: ApiGraph) -> Bindings:
    """The bindings of all fields in a graph that `workflows.imported_graph.read_graph` has accepted."""
    return _Finder(graph).find()


def bind(graph: ApiGraph, values: Mapping[str, Any], bindings: Bindings | None = None) -> tuple[ApiGraph, list[str]]:
    """A copy of `graph` with `values` set, and a warning for each value that was changed or not set.

    `values` are the fields that the client sent; pictures are names in the engine's input folder.
    """
    bindings = bindings or find_bindings(graph)
    settings: dict[Target, Any] = {}
    warnings = []
    for name, value in values.items():
        targets = bindings.targets.get(name, [])
        if not targets:
            if not (name in SIDES and "input_image" in values and "input_image" in bindings.targets):
                warnings.append(f"{name} was not set: {bindings.reasons.get(name, 'the graph has no input for it')}")
            continue
        if name in SIDES and align(value) != value:
            warnings.append(f"{name} {value} was raised to {align(value)}, a multiple of 8")
            value = align(value)
        warnings += bindings.notes.get(name, [])
        settings.update(dict.fromkeys(targets, value))
    return set_inputs(graph, settings), warnings


def set_inputs(graph: ApiGraph, settings: Mapping[Target, Any]) -> ApiGraph:
    """A copy of `graph` with these inputs set."""
    copy = {name: {**node, "inputs": dict(node["inputs"])} for name, node in graph.items()}
    for (name, key), value in settings.items():
        copy[name]["inputs"][key] = value
    return copy


def reads_alpha(graph: ApiGraph, target: Target, used: Container[tuple[str, int]] | None = None) -> bool:
    """Whether the graph uses the transparency of the picture that `target` loads.

    LoadImageMask reads the channel that the graph names; a linked channel may be alpha. Any other node that loads a
    picture has its transparency at its second output, as LoadImage has. `used` are the used outputs of the graph, for
    callers that ask about many nodes.
    """
    name, key = target
    if key != "image":
        return False
    if graph[name]["class_type"] == MASK_LOADER:
        return graph[name]["inputs"].get("channel") not in COLOUR_CHANNELS
    if graph[name]["class_type"] not in PICTURE_LOADERS and not isinstance(graph[name]["inputs"].get(key), str):
        return False
    return (name, 1) in (used_outputs(graph) if used is None else used)


def prompt_texts(graph: ApiGraph) -> Iterator[tuple[Target, str]]:
    """Each text that the graph encodes, with the input that holds it: the encoder's own, or that of a constant."""
    for name, node in graph.items():
        if ENCODERS not in node["class_type"]:
            continue
        for key in TEXTS:
            target = _held_by(graph, (name, key)) or (name, key)
            text = graph[target[0]]["inputs"].get(target[1])
            if isinstance(text, str) and text:
                yield target, text


def _held_by(graph: ApiGraph, target: Target) -> Target | None:
    """The input that holds the value of `target`: itself, or that of a linked constant; None if it is computed."""
    value = graph[target[0]]["inputs"].get(target[1])
    return linked_constant(graph, value) if is_link(value) else target


class _Finder:
    """Finds the bindings of one graph."""

    def __init__(self, graph: ApiGraph) -> None:
        self.graph = graph
        self.bindings = Bindings()
        self._used = used_outputs(graph)
        self._setting_nodes: dict[str, list[str]] = {}
        # The texts of each conditioning, so that conditionings that are combined again and again are walked once.
        self._texts: dict[tuple[str, int, Sequence[str]], list[Target]] = {}

    def find(self) -> Bindings:
        samplers = [name for name in run_order(self.graph) if self._is_sampler(name)]
        if not samplers:
            self.bindings.reasons = dict.fromkeys(BINDABLE, "the graph has no sampler (a node like KSampler)")
            self._bind_pictures(set())
            return self.bindings
        first = samplers[0]
        self._bind_prompts(samplers)
        self._bind("seed", [target for sampler in samplers for target in self._settings(sampler, SEEDS)])
        for name, keys in OF_FIRST_SAMPLER.items():
            self._bind(name, self._same_as_first(samplers, keys))
        start = source_of(self.graph, first, "latent_image")
        # Conditionings only pass through on this way.
        upstream = set(
            walk(self.graph, [start] if start else [], follows=lambda key: key not in (POSITIVE[0], *NEGATIVE))
        )
        self._note_partial_steps(samplers)
        self._bind_size(first, upstream)
        self._bind_model(first)
        self._bind_pictures(upstream)
        return self.bindings

    def _bind(self, name: str, inputs: Iterable[Target]) -> None:
        """Binds these inputs to a field, except those that are computed or that another field sets."""
        taken = self.bindings.fields_of(self.bindings.targets)
        targets = dict.fromkeys(self.bindings.targets.get(name, ()))
        for wanted in dict.fromkeys(inputs):
            target = _held_by(self.graph, wanted)
            where = ".".join(wanted)
            if target is None:
                self.bindings.reasons.setdefault(name, f"{where} is computed by {self._input(wanted)[0]}")
            elif target in taken and taken[target] != name:
                self.bindings.reasons.setdefault(name, f"{where} already takes {taken[target]}")
            else:
                targets[target] = None
        if targets:
            self.bindings.targets[name] = list(targets)

    def _is_sampler(self, name: str) -> bool:
        return "latent_image" in self.graph[name]["inputs"] and any(links_of(self.graph, name, ("positive", "guider")))

    def _input(self, target: Target) -> Any:
        return self.graph[target[0]]["inputs"].get(target[1])

    def _has(self, name: str, keys: Sequence[str]) -> bool:
        return all(key in self.graph[name]["inputs"] for key in keys)

    def _nodes_of(self, sampler: str) -> list[str]:
        """A sampler and the nodes that hold settings of it, at most `MAX_SETTING_NODES` in all."""
        if sampler not in self._setting_nodes:
            nodes = walk(self.graph, [sampler], SETTING_INPUTS)
            self._setting_nodes[sampler] = list(islice(nodes, MAX_SETTING_NODES))
        return self._setting_nodes[sampler]

    def _settings(self, sampler: str, keys: Sequence[str]) -> list[Target]:
        return [(name, key) for name in self._nodes_of(sampler) for key in keys if key in self.graph[name]["inputs"]]

    def _same_as_first(self, samplers: Sequence[str], keys: Sequence[str]) -> list[Target]:
        """The settings of the first sampler, and those of the others that have the same value."""
        first = self._settings(samplers[0], keys)
        values = [self._constant(target) for target in first]
        others = [target for sampler in samplers[1:] for target in self._settings(sampler, keys)]
        return first + [target for target in others if self._constant(target) in values]

    def _constant(self, target: Target) -> Any:
        """The value of an input; None if it is computed."""
        holder = _held_by(self.graph, target)
        return None if holder is None else self._input(holder)

    def _model_nodes(self, sampler: str) -> Iterator[str]:
        """The nodes that the models of a sampler pass through, nearest first."""
        nodes = self._nodes_of(sampler)
        return islice(walk(self.graph, nodes, follows=lambda key: key.startswith("model")), len(nodes), None)

    def _bind_prompts(self, samplers: Sequence[str]) -> None:
        for name, keys in (("prompt", POSITIVE), ("negative_prompt", NEGATIVE)):
            texts: list[Target] = []
            for node in dict.fromkeys(node for sampler in samplers for node in self._nodes_of(sampler)):
                # A dual guider's second conditioning lies between the first and the negative, and has the negative's
                # text.
                is_dual = "cond1" in self.graph[node]["inputs"]
                for key, link in links_of(self.graph, node):
                    if key.startswith(keys) and not (is_dual and key == "cond2"):
                        texts += self._texts_of_link(name, link, keys)
            if texts:
                self._bind(name, texts)
            else:
                self.bindings.reasons[name] = f"no text feeds the {keys[0]} input of {samplers[0]}"

    def _texts_of_link(self, name: str, link: Sequence[Any], keys: Sequence[str]) -> list[Target]:
        """The text inputs of the nearest node that encodes a text for the conditioning at `link`."""
        known = (link[0], link[1], keys)
        if known not in self._texts:
            self._texts[known] = self._find_texts(name, *known)
        return self._texts[known]

    def _find_texts(self, name: str, node: str, output: int, keys: Sequence[str]) -> list[Target]:
        inputs = self.graph[node]["inputs"]
        if self.graph[node]["class_type"] == "ConditioningZeroOut":
            return []
        own: Sequence[str] = ("negative_prompt",) if keys == NEGATIVE and "negative_prompt" in inputs else TEXTS
        texts = [(node, key) for key in own if key in inputs]
        if texts:
            return texts
        # A node with both conditionings returns the positive as output 0 and the negative as output 1.
        has_both = any(key.startswith("positive") for key in inputs) and any(
            key.startswith("negative") for key in inputs
        )
        following = (("positive", "negative")[min(output, 1)],) if has_both else ("cond", "positive", "negative")
        found = [
            texts
            for key, link in links_of(self.graph, node)
            if key.startswith(following) and (texts := self._texts_of_link(name, link, keys))
        ]
        others = dict.fromkeys(further[0][0] for further in found[1:] if further != found[0])
        if others:
            notes = self.bindings.notes.setdefault(name, [])
            notes += [f"{name}: {node} combines several texts; {other} keeps its own" for other in others]
        return found[0] if found else []

    def _note_partial_steps(self, samplers: Sequence[str]) -> None:
        """Notes which samplers run a part of the steps, because the graph's range of steps stays."""
        for sampler in samplers:
            inputs = self.graph[sampler]["inputs"]
            start, end = inputs.get("start_at_step", 0), inputs.get("end_at_step", LAST_STEP)
            # A linked number is unknown here, and a wrong type is reported by the check against the engine.
            if type(start) is int and type(end) is int and (start > 0 or end < LAST_STEP):
                self.bindings.notes.setdefault("steps", []).append(
                    f"steps: {sampler} still runs steps {start} to {end} only, as the graph says"
                )

    def _bind_size(self, first: str, upstream: set[str]) -> None:
        empty = [
            name
            for name in self.graph
            if name in upstream and "Empty" in self.graph[name]["class_type"] and self._has(name, SIDES)
        ]
        if not empty:
            self.bindings.reasons.update(dict.fromkeys(SIDES, f"{first} does not start from an empty latent"))
        else:
            self.bindings.targets.pop("denoising_strength", None)
            self.bindings.reasons["denoising_strength"] = f"{first} starts from an empty latent"
            also = [*self._nodes_of(first), *self._model_nodes(first)]
            sized = [*empty, *(name for name in also if self._has(name, SIDES))]
            for side in SIDES:
                self._bind(side, [(name, side) for name in sized])
        batches = [(name, "batch_size") for name in empty if self._has(name, ("batch_size",))]
        repeats = [(name, "amount") for name in self.graph if name in upstream and self._has(name, ("amount",))]
        self._bind("batch_size", batches or repeats)
        if "batch_size" not in self.bindings.targets:
            self.bindings.reasons.setdefault("batch_size", f"no node before {first} makes a batch")

    def _bind_model(self, first: str) -> None:
        loaders = [
            (name, key) for name in self._model_nodes(first) for key in MODELS if key in self.graph[name]["inputs"]
        ]
        self._bind("model_name", loaders[:1])
        if not loaders:
            self.bindings.reasons["model_name"] = f"no checkpoint loader feeds the model of {first}"

    def _bind_pictures(self, upstream: set[str]) -> None:
        for name, classes in (("input_image", PICTURE_LOADERS), ("mask", (MASK_LOADER,))):
            loaders = [
                node
                for node in self.graph
                if self.graph[node]["class_type"] in classes and ((node, 0) in self._used or classes == (MASK_LOADER,))
            ]
            near = [node for node in loaders if node in upstream]
            chosen = near if len(near) == 1 else loaders if not near and len(loaders) == 1 else []
            self._bind(name, [(node, "image") for node in chosen])
            if not loaders:
                self.bindings.reasons[name] = f"the graph has no {classes[0]} node"
            elif not chosen:
                self.bindings.reasons[name] = f"several {classes[0]} nodes of the graph could take it"
        self._bind_masks_of_same_file()
        if not any(node["class_type"] == MASK_LOADER for node in self.graph.values()):
            self._bind_mask_to_alpha(upstream)

    def _bind_masks_of_same_file(self) -> None:
        """Binds input_image to each LoadImageMask that loads the same file as its LoadImage."""
        for node, key in self.bindings.targets.get("input_image", [])[:1]:
            file = self.graph[node]["inputs"].get(key)
            self.bindings.targets["input_image"] += [
                (other, "image")
                for other, content in self.graph.items()
                if content["class_type"] == MASK_LOADER and content["inputs"].get("image") == file and not is_link(file)
            ]

    def _bind_mask_to_alpha(self, upstream: set[str]) -> None:
        """Binds the mask to the picture whose transparency the graph uses, which may be that of input_image too."""
        readers = [node for node in self.graph if reads_alpha(self.graph, (node, "image"), self._used)]
        near = [node for node in readers if node in upstream]
        target = (near[0], "image") if len(near) == 1 else (readers[0], "image") if len(readers) == 1 else None
        if target is not None and not is_link(self._input(target)):
            self.bindings.targets["mask"] = [target]
            self.bindings.reasons.pop("mask", None)
        elif readers:
            self.bindings.reasons["mask"] = "the transparency of several LoadImage nodes could take it"
