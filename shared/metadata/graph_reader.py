"""What a picture was made with, as far as its ComfyUI graph tells: the usual graph, walked backwards. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from shared.metadata.infotext import Recipe

SAMPLERS = ("KSampler", "KSamplerAdvanced")
# The inputs on the way from a sampler to the words, to the model, and to where its latent picture began.
TO_WORDS = ("conditioning", "conditioning_1", "conditioning_to")
TO_MODEL = ("model",)
TO_LATENT = ("latent_image", "samples", "pixels", "image")
TEXTS = ("text", "text_g", "t5xxl", "clip_l", "prompt", "user_prompt")
# Where a value stands in the nodes that hold nothing else.
VALUES = ("value", "seed", "int", "float", "string", "text")

Node = Mapping[str, Any]


def read_graph(graph: Mapping[str, Any]) -> Recipe | None:
    """The recipe of a graph in ComfyUI's API format; None if there is no KSampler in it."""
    nodes = {
        str(name): node
        for name, node in graph.items()
        if isinstance(node, Mapping) and isinstance(node.get("inputs"), Mapping)
    }
    samplers = [node for node in nodes.values() if node.get("class_type") in SAMPLERS]
    if not samplers:
        return None
    # That of the first pass: no other stands between it and where its picture began.
    sampler = next((each for each in samplers if not _between(nodes, each)), samplers[0])
    found: dict[str, Any] = {
        "prompt": _words(nodes, sampler, "positive") or "",
        "negative_prompt": _words(nodes, sampler, "negative") or "",
        "seed": _number(nodes, sampler, "seed", "noise_seed"),
        "steps": _number(nodes, sampler, "steps"),
        "cfg_scale": _number(nodes, sampler, "cfg"),
        "guidance": _guidance(nodes, sampler),
        "sampler_name": _value(nodes, sampler, "sampler_name"),
        "scheduler": _value(nodes, sampler, "scheduler"),
        **_models(nodes, sampler),
    }
    latents = list(_walk(nodes, sampler, TO_LATENT))
    kind = "txt2img" if not latents or "width" in latents[-1]["inputs"] else "img2img"
    if kind == "txt2img":
        sides = [_number(nodes, latents[-1], side) if latents else None for side in ("width", "height")]
        found |= {"width": sides[0], "height": sides[1]}
    else:
        found["denoising_strength"] = _number(nodes, sampler, "denoise")
    warnings = ["these parameters were read off the graph, which may hold more"]
    if not found["prompt"]:
        warnings.append("the graph does not tell its prompt")
    doubt = _doubt_of_seed(nodes, samplers)
    if doubt is not None and found.pop("seed") is not None:
        warnings.append(f"seed is left out: {doubt}")
    if len(samplers) > 1:
        warnings.append(f"the graph has {len(samplers)} samplers; the parameters are those of the first")
    return Recipe(kind, {name: value for name, value in found.items() if value is not None}, warnings)


def _doubt_of_seed(nodes: Mapping[str, Node], samplers: list[Node]) -> str | None:
    """Why the first sampler's seed need not be that of this picture; None if it is."""
    if any(_makes_several(nodes, node) for node in nodes.values()):
        return "the graph draws a batch, and nothing tells which of its pictures this is"
    first = [sampler for sampler in samplers if not _between(nodes, sampler)]
    if len({_number(nodes, sampler, "seed", "noise_seed") for sampler in first}) > 1:
        return "the graph draws with several seeds, and nothing tells which of its pictures this is"
    return None


def _makes_several(nodes: Mapping[str, Node], node: Node) -> bool:
    """Whether it makes, joins or divides a batch, as far as the graph tells; a computed number may be any."""
    of_batches = "batch" in str(node.get("class_type")).casefold()
    counts = [name for name in ("batch_size", *(["amount"] if of_batches else [])) if name in node["inputs"]]
    if not counts:
        return of_batches
    return any(_number(nodes, node, name) not in (0, 1) for name in counts)


def _between(nodes: Mapping[str, Node], sampler: Node) -> bool:
    return any(node.get("class_type") in SAMPLERS for node in _walk(nodes, sampler, TO_LATENT))


def _words(nodes: Mapping[str, Node], sampler: Node, side: str) -> str | None:
    for node in _walk(nodes, sampler, (side, *TO_WORDS)):
        if node.get("class_type") == "ConditioningZeroOut":
            return None
        for name in TEXTS:
            text = _value(nodes, node, name)
            if isinstance(text, str):
                return text
    return None


def _guidance(nodes: Mapping[str, Node], sampler: Node) -> float | None:
    way = _walk(nodes, sampler, ("positive", *TO_WORDS))
    return next((_number(nodes, node, "guidance") for node in way if node.get("class_type") == "FluxGuidance"), None)


def _models(nodes: Mapping[str, Node], sampler: Node) -> dict[str, Any]:
    found: dict[str, Any] = {}
    loras = []
    for node in _walk(nodes, sampler, TO_MODEL):
        inputs = node["inputs"]
        name = inputs.get("ckpt_name") or inputs.get("unet_name")
        if isinstance(name, str):
            found["model_name"] = name
        if isinstance(inputs.get("lora_name"), str):
            strengths = {
                field: strength
                for field in ("strength_model", "strength_clip")
                if (strength := _number(nodes, node, field)) is not None
            }
            if node.get("class_type") == "LoraLoaderModelOnly":
                strengths["strength_clip"] = 0
            loras.append({"lora_name": inputs["lora_name"], **strengths})
    if loras:
        # The last to be applied was met first.
        found["loras"] = loras[::-1]
    return found


def _walk(nodes: Mapping[str, Node], node: Node, names: tuple[str, ...]) -> Iterator[Node]:
    """The nodes upstream, by the first of these inputs that is a link each time."""
    # A chain is no longer than there are nodes, unless it is a ring.
    for _ in range(len(nodes)):
        linked = (_linked(nodes, node["inputs"].get(name)) for name in names)
        following = next((each for each in linked if each is not None), None)
        if following is None:
            return
        node = following
        yield node


def _linked(nodes: Mapping[str, Node], value: Any) -> Node | None:
    return nodes.get(str(value[0])) if isinstance(value, list) and len(value) == 2 else None


def _value(nodes: Mapping[str, Node], node: Node, name: str) -> Any:
    """The value of an input, also if a node of its own holds it; None if it is neither."""
    value = node["inputs"].get(name)
    source = _linked(nodes, value)
    if source is not None:
        held = (source["inputs"].get(each) for each in VALUES)
        value = next((each for each in held if isinstance(each, str | int | float)), None)
    return value if isinstance(value, str | int | float) else None


def _number(nodes: Mapping[str, Node], node: Node, *names: str) -> int | float | None:
    values = (_value(nodes, node, name) for name in names)
    return next((value for value in values if isinstance(value, int | float) and not isinstance(value, bool)), None)
