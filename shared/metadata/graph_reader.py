"""Reads the generation parameters of a picture from the ComfyUI graph in its file. Pure.

Such a graph may be anything, so this looks for the usual shape: from the sampler of the first pass upstream.
"""

from collections.abc import Mapping
from typing import Any

from shared.graph_walk import chain, class_of, inputs_of, source_of
from shared.metadata.infotext import GenerationParameters

SAMPLERS = ("KSampler", "KSamplerAdvanced")
# The inputs that lead from a sampler to the texts, to the model, and to the start of its latent.
TO_TEXT = ("conditioning", "conditioning_1", "conditioning_to")
TO_MODEL = ("model",)
TO_LATENT = ("latent_image", "samples", "pixels", "image")
TEXTS = ("text", "text_g", "t5xxl", "clip_l", "prompt", "user_prompt")
# Inputs that hold the constant of a node such as PrimitiveInt. Here, a node may have others besides: a guess is better
# than no value.
CONSTANTS = ("value", "seed", "int", "float", "string", "text")


def read_parameters(graph: Mapping[str, Any]) -> GenerationParameters | None:
    """The parameters of a graph in ComfyUI's API format; None if it has no KSampler."""
    samplers = [name for name, node in graph.items() if class_of(node) in SAMPLERS and "inputs" in node]
    return _Reader(graph, samplers).read() if samplers else None


class _Reader:
    """Reads one graph with at least one sampler."""

    def __init__(self, graph: Mapping[str, Any], samplers: list[str]) -> None:
        self._graph = graph
        self._samplers = samplers
        # Those of a first pass have no other sampler before them.
        self._first = [name for name in samplers if not self._follows_another(name)]
        self._sampler = (self._first or samplers)[0]

    def read(self) -> GenerationParameters:
        sampler = self._sampler
        found: dict[str, Any] = {
            "prompt": self._text("positive") or "",
            "negative_prompt": self._text("negative") or "",
            "seed": self._number(sampler, "seed", "noise_seed"),
            "steps": self._number(sampler, "steps"),
            "cfg_scale": self._number(sampler, "cfg"),
            "guidance": self._guidance(),
            "sampler_name": self._value(sampler, "sampler_name"),
            "scheduler": self._value(sampler, "scheduler"),
            **self._models(),
        }
        start = list(chain(self._graph, sampler, TO_LATENT))[-1:]
        kind = "img2img" if start and "width" not in inputs_of(self._graph[start[0]]) else "txt2img"
        if kind == "txt2img":
            found |= {side: self._number(start[0], side) for side in ("width", "height") if start}
        else:
            found["denoising_strength"] = self._number(sampler, "denoise")
        warnings = ["these parameters were read from the graph, which may have more"]
        if not found["prompt"]:
            warnings.append("the prompt could not be read from the graph")
        doubt = self._doubt_about_seed()
        if doubt is not None and found.pop("seed") is not None:
            warnings.append(f"seed is left out: {doubt}")
        if len(self._samplers) > 1:
            warnings.append(f"the graph has {len(self._samplers)} samplers; the parameters are those of the first")
        return GenerationParameters(kind, {name: value for name, value in found.items() if value is not None}, warnings)

    def _follows_another(self, sampler: str) -> bool:
        return any(class_of(self._graph[name]) in SAMPLERS for name in chain(self._graph, sampler, TO_LATENT))

    def _doubt_about_seed(self) -> str | None:
        """Why the first sampler's seed may not be that of this picture; None if it is."""
        if any(self._makes_batch(name) for name in self._graph):
            return "the graph makes a batch, and the file does not say which of its pictures this is"
        if len({self._number(sampler, "seed", "noise_seed") for sampler in self._first}) > 1:
            return "the graph uses several seeds, and the file does not say which of its pictures this is"
        return None

    def _makes_batch(self, name: str) -> bool:
        """Whether a node may make, join or divide a batch. A computed number may be any."""
        names_batch = "batch" in str(class_of(self._graph[name])).casefold()
        counts = ("batch_size", "amount") if names_batch else ("batch_size",)
        present = [key for key in counts if key in inputs_of(self._graph[name])]
        return any(self._number(name, key) not in (0, 1) for key in present) if present else names_batch

    def _text(self, side: str) -> str | None:
        for name in chain(self._graph, self._sampler, (side, *TO_TEXT)):
            if class_of(self._graph[name]) == "ConditioningZeroOut":
                return None
            texts = (self._value(name, key) for key in TEXTS)
            text = next((text for text in texts if isinstance(text, str)), None)
            if text is not None:
                return text
        return None

    def _guidance(self) -> float | None:
        nodes = chain(self._graph, self._sampler, ("positive", *TO_TEXT))
        flux = (name for name in nodes if class_of(self._graph[name]) == "FluxGuidance")
        return next((self._number(name, "guidance") for name in flux), None)

    def _models(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        loras = []
        for name in chain(self._graph, self._sampler, TO_MODEL):
            inputs = inputs_of(self._graph[name])
            model = inputs.get("ckpt_name") or inputs.get("unet_name")
            if isinstance(model, str):
                found["model_name"] = model
            if isinstance(inputs.get("lora_name"), str):
                strengths = {key: self._number(name, key) for key in ("strength_model", "strength_clip")}
                if class_of(self._graph[name]) == "LoraLoaderModelOnly":
                    strengths["strength_clip"] = 0
                known = {key: strength for key, strength in strengths.items() if strength is not None}
                loras.append({"lora_name": inputs["lora_name"], **known})
        if loras:
            # Upstream, the LoRA that is applied last comes first.
            found["loras"] = loras[::-1]
        return found

    def _value(self, name: str, key: str) -> Any:
        """The value of an input, itself or from a linked constant; None for any other."""
        value = inputs_of(self._graph[name]).get(key)
        source = source_of(self._graph, name, key)
        if source is not None:
            constants = (inputs_of(self._graph[source]).get(constant) for constant in CONSTANTS)
            value = next((constant for constant in constants if isinstance(constant, str | int | float)), None)
        return value if isinstance(value, str | int | float) else None

    def _number(self, name: str, *keys: str) -> int | float | None:
        values = (self._value(name, key) for key in keys)
        return next((value for value in values if isinstance(value, int | float) and not isinstance(value, bool)), None)
