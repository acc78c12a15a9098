"""Chains of nodes that double pictures, sounds, prompts, hooks, models or lists are refused."""

from collections.abc import Iterator
from typing import Any

import pytest

from shared.engine.check_graph import Problem, declared_inputs
from shared.engine.graph_memory import check_memory, check_texts
from shared.engine.graph_sizes import MeasuredNode
from shared.engine.node_policy import check_limits, why_refused
from tests.engine_nodes import reviewed
from tests.imported_graphs import ShortGraph, to_api

NODES = reviewed()
ALLOWED = {name: node for name, node in NODES.items() if why_refused(name, node, ()) is None}
NUMBERS = {"INT", "FLOAT", "BOOLEAN"}
TYPES = sorted({str(output) for node in ALLOWED.values() for output in node["output"]} - NUMBERS)
# For each type, a node without inputs that returns it. These nodes exist only in this test.
SOURCES = {f"Give{kind}": {"input": {}, "output": [kind]} for kind in TYPES}
WITH_SOURCES = {**NODES, **SOURCES}
ANY_TYPE = "COMFY_MATCHTYPE_V3"
LENGTH = 40


def find_problems(nodes: ShortGraph) -> list[Problem]:
    graph = to_api(nodes)
    for check in (check_limits, check_texts, check_memory):
        if problems := check(graph, WITH_SOURCES):
            return problems
    return []


def inputs_of(name: str) -> dict[str, list[Any]]:
    """Return all inputs of a class: two of each growing list, and those of the first option of each choice."""
    declared = declared_inputs(NODES[name], {})
    options = {
        key: declaration[1]["options"][0]["key"]
        for key, declaration in declared.items()
        if declaration[0] == "COMFY_DYNAMICCOMBO_V3"
    }
    counts: dict[str, int] = {}
    inputs = {}
    for key, declaration in declared_inputs(NODES[name], options).items():
        group = key.partition(".")[0]
        counts[group] = counts.get(group, 0) + 1
        if declaration[0] != "COMFY_AUTOGROW_V3" and ("." not in key or counts[group] <= 3):
            inputs[key] = [declaration[0], declaration[1] if len(declaration) > 1 else {}]
    return inputs


def accepts(declaration: list[Any], kind: str) -> bool:
    return declaration[0] in (kind, ANY_TYPE) or kind in str(declaration[0]).split(",")


def literal(declaration: list[Any]) -> Any:
    kind, extra = declaration
    first = str(kind).partition(",")[0]
    if first in ("INT", "FLOAT"):
        return extra.get("min") or 1
    if first == "COMFY_DYNAMICCOMBO_V3":
        return extra["options"][0]["key"]
    return {"BOOLEAN": True, "STRING": "a", "COLOR": "#ffffff"}.get(first, "a")


def doubling(name: str, kind: str, start: str) -> ShortGraph:
    """Return a chain of nodes of one class. Every input of a type is linked to the previous node."""
    output = [str(kind_of_output) for kind_of_output in NODES[name]["output"]].index(kind)
    declared = inputs_of(name)
    nodes: ShortGraph = {"n0": (start, {})}
    for i in range(1, LENGTH + 1):
        last = [f"n{i - 1}", 0 if i == 1 else output]
        inputs: dict[str, Any] = {}
        for key, declaration in declared.items():
            types = str(declaration[0]).split(",")
            if accepts(declaration, kind):
                inputs[key] = last
            elif types[0] in TYPES and types[0] not in ("STRING", "COLOR"):
                inputs[key] = [f"give{types[0]}", 0]
                nodes[f"give{types[0]}"] = (f"Give{types[0]}", {})
            else:
                inputs[key] = literal(declaration)
        nodes[f"n{i}"] = (name, inputs)
    return nodes


def nodes_with_two_inputs_of_a_type() -> Iterator[tuple[str, str]]:
    for name, node in ALLOWED.items():
        for kind in sorted({str(output) for output in node["output"]} & set(TYPES)):
            if sum(accepts(declaration, kind) for declaration in inputs_of(name).values()) > 1:
                yield name, kind


# The output of these nodes is as large as one of their inputs: they mix, choose, composite or correct.
MIXING = {
    *("ColorTransfer", "ConditioningAverage", "ImageBlend", "ImageCompositeMasked", "ImageYUVToRGB", "LatentAdd"),
    *("LatentBlend", "LatentComposite", "LatentCompositeMasked", "LatentInterpolate", "LatentSubtract"),
    *("MaskComposite", "PorterDuffImageComposite", "ReplaceVideoLatentFrames", "SeedVR2PostProcessing"),
    "ComfySwitchNode",
}
# These choices make the node join its two inputs.
CHOICES = {"ImageStitch": {"direction": "right"}, "LatentConcat": {"dim": "-t"}}
PROMPTS = {"positive", "negative", "positive_NEW", "negative_NEW"}


def passes_prompts_through(name: str, kind: str) -> bool:
    """Whether the node has one output for each of its prompts."""
    prompts = {key for key, declaration in inputs_of(name).items() if declaration[0] == "CONDITIONING"}
    return kind == "CONDITIONING" and prompts <= PROMPTS and len(prompts) == 2


@pytest.mark.parametrize(("name", "kind"), list(nodes_with_two_inputs_of_a_type()))
def test_a_chain_that_joins_two_inputs_of_a_type_is_refused(name: str, kind: str) -> None:
    nodes = doubling(name, kind, f"Give{kind}")
    for _, inputs in nodes.values():
        inputs.update({key: value for key, value in CHOICES.get(name, {}).items() if key in inputs})
    problems = find_problems(nodes)
    if name in MIXING or passes_prompts_through(name, kind):
        assert problems == []
    else:
        assert [problem.kind for problem in problems] in (["too_large"], ["too_long"])


def chain(start: tuple[str, dict[str, Any]], link: Any, count: int = LENGTH) -> ShortGraph:
    nodes: ShortGraph = {"n0": start}
    for i in range(1, count + 1):
        nodes[f"n{i}"] = link(f"n{i - 1}")
    return nodes


LATENT = ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1})
IMAGE = ("EmptyImage", {"width": 64, "height": 64, "batch_size": 1, "color": 0})
AUDIO = ("EmptyAudio", {"duration": 1.0, "sample_rate": 44100, "channels": 2})


@pytest.mark.parametrize(
    ("start", "link"),
    [
        (LATENT, lambda last: ("RepeatLatentBatch", {"samples": [last, 0], "amount": 2})),
        (LATENT, lambda last: ("LatentUpscaleBy", {"samples": [last, 0], "upscale_method": "area", "scale_by": 1.5})),
        (IMAGE, lambda last: ("RepeatImageBatch", {"image": [last, 0], "amount": 2})),
        (IMAGE, lambda last: ("ImageScaleBy", {"image": [last, 0], "upscale_method": "area", "scale_by": 1.5})),
        (IMAGE, lambda last: ("ImagePadForOutpaint", {"image": [last, 0], "left": 300, "top": 300, "right": 300,
          "bottom": 300, "feathering": 0})),
        (AUDIO, lambda last: ("AudioConcat", {"audio1": [last, 0], "audio2": [last, 0], "direction": "after"})),
        (("GiveSIGMAS", {}), lambda last: ("ExtendIntermediateSigmas", {"sigmas": [last, 0], "steps": 2,
          "start_at_sigma": -1.0, "end_at_sigma": 0.0, "spacing": "linear"})),
        (("PrimitiveInt", {"value": 1}), lambda last: ("CreateList", {"inputs.input0": [last, 0],
          "inputs.input1": [last, 0]})),
        (("GiveCONDITIONING", {}), lambda last: ("CreateList", {"inputs.input0": [last, 0],
          "inputs.input1": [last, 0]})),
    ],
)  # fmt: skip
def test_long_chains_that_multiply_are_refused_and_short_ones_are_not(start: Any, link: Any) -> None:
    assert find_problems(chain(start, link, 2)) == []
    assert [problem.kind for problem in find_problems(chain(start, link))] == ["too_large"]


VAE = {"vae": ("GiveVAE", {}), "cond": ("GiveCONDITIONING", {})}
WAN = {"positive": ["cond", 0], "negative": ["cond", 0], "vae": ["vae", 0], "batch_size": 1}


@pytest.mark.parametrize(
    "nodes",
    [
        # A single value makes each of these take gigabytes.
        {"n": ("EmptyAudio", {"duration": 3600.0, "sample_rate": 192_000, "channels": 2})},
        {"n": ("EmptyQwenImageLayeredLatentImage", {"width": 1024, "height": 1024, "layers": 16384, "batch_size": 1})},
        {"n": ("EmptyChromaRadianceLatentImage", {"width": 16384, "height": 16384, "batch_size": 1})},
        {"n": ("WanCameraEmbedding", {"camera_pose": "Static", "width": 4096, "height": 4096, "length": 161})},
        {**VAE, "n": ("WanImageToVideo", {**WAN, "width": 2048, "height": 2048, "length": 161})},
        # Sounds are resampled to the highest rate.
        {"a": ("EmptyAudio", {"duration": 3600.0, "sample_rate": 1, "channels": 1}),
         "b": ("EmptyAudio", {"duration": 1.0, "sample_rate": 192_000, "channels": 1}),
         "n": ("AudioConcat", {"audio1": ["a", 0], "audio2": ["b", 0], "direction": "after"})},
        {"l": ("EmptyLatentAudio", {"seconds": 1000.0, "batch_size": 16}), **VAE,
         "n": ("VAEDecodeAudio", {"samples": ["l", 0], "vae": ["vae", 0]})},
        {"i": IMAGE, "a": AUDIO, "n": ("WanDancerPadKeyframesList", {"images": ["i", 0], "segment_length": 4000,
         "num_segments": 100, "audio": ["a", 0]})},
        # A long list together with a large batch.
        {"a": ("EmptyImage", {"width": 8, "height": 8, "batch_size": 4096, "color": 0}),
         "l": ("RebatchImages", {"images": ["a", 0], "batch_size": 1}),
         "n": ("ImageBatch", {"image1": ["l", 0], "image2": ["a", 0]})},
        # One picture for each element of a list of anything.
        {"s": ("PrimitiveString", {"value": "a"}), "x": ("CreateList", {f"inputs.input{i}": ["s", 0]
         for i in range(30)}), "y": ("CreateList", {f"inputs.input{i}": ["x", 0] for i in range(30)}),
         "clip": ("GiveCLIP", {}), "model": ("GiveMODEL", {}), "c": ("CLIPTextEncode", {"text": ["y", 0],
         "clip": ["clip", 0]}), "latent": ("EmptyLatentImage", {"width": 2048, "height": 2048, "batch_size": 1}),
         "n": ("KSampler", {"model": ["model", 0], "positive": ["c", 0], "negative": ["c", 0], "seed": 1, "steps": 1,
         "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, "latent_image": ["latent", 0]})},
    ],
)  # fmt: skip
def test_a_node_with_too_large_an_output_is_refused(nodes: ShortGraph) -> None:
    [problem] = find_problems(nodes)
    assert (problem.kind, problem.node) == ("too_large", "n")


@pytest.mark.parametrize(
    "nodes",
    [
        {"n": ("EmptyAudio", {"duration": 60.0, "sample_rate": 44_100, "channels": 2})},
        {"n": ("EmptyQwenImageLayeredLatentImage", {"width": 1024, "height": 1024, "layers": 4, "batch_size": 1})},
        {**VAE, "n": ("WanImageToVideo", {**WAN, "width": 832, "height": 480, "length": 81})},
        {"l": ("EmptyLatentAudio", {"seconds": 47.6, "batch_size": 1}), **VAE,
         "n": ("VAEDecodeAudio", {"samples": ["l", 0], "vae": ["vae", 0]})},
        {**chain(("GiveCONDITIONING", {}), lambda last: ("ControlNetApplyAdvanced", {"positive": [last, 0],
         "negative": [last, 0], "control_net": ["net", 0], "image": ["i", 0], "strength": 1.0, "start_percent": 0.0,
         "end_percent": 1.0}), 8), "net": ("GiveCONTROL_NET", {}), "i": IMAGE},
        # Ten prompts, each drawn once.
        {"x": ("CreateList", {f"inputs.input{i}": f"a prompt of some words {i}" for i in range(10)}),
         "clip": ("GiveCLIP", {}), "c": ("CLIPTextEncode", {"text": ["x", 0], "clip": ["clip", 0]})},
        # Three prompts in a row, and four combined.
        chain(("GiveCONDITIONING", {}), lambda last: ("ConditioningConcat", {"conditioning_to": [last, 0],
         "conditioning_from": ["n0", 0]}), 3),
        chain(("GiveCONDITIONING", {}), lambda last: ("ConditioningCombine", {"conditioning_1": [last, 0],
         "conditioning_2": ["n0", 0]}), 4),
    ],
)  # fmt: skip
def test_usual_graphs_are_allowed(nodes: ShortGraph) -> None:
    assert find_problems(nodes) == []


def test_each_node_of_a_chain_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = 0
    original_size = MeasuredNode.size

    def size(self: MeasuredNode) -> Any:
        nonlocal counted
        counted += 1
        return original_size(self)

    monkeypatch.setattr(MeasuredNode, "size", size)
    mixed = chain(IMAGE, lambda last: ("ImageBlend", {"image1": [last, 0], "image2": [last, 0], "blend_factor": 0.5,
                                                     "blend_mode": "normal"}), 300)  # fmt: skip
    assert find_problems(mixed) == []
    assert counted == 301
