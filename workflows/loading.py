"""Loads what all pictures of a request share: models, LoRAs, encoded prompts, ControlNets."""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.schema.ranges import Picture
from shared.schema.request import ControlUnit, GenerationRequest, Models
from workflows import nodes
from workflows.graph_builder import Clip, Conditioning, Graph, Image, Model, Vae

# Uploads have their own folder, because LoadImage lists the top level of the input folder at each validation.
UPLOAD_FOLDER = "dream_layer"
# In other programs, "My prompt is more important" weakens the 13 outputs of a ControlNet by 0.825 for each step away
# from the middle of the network. A stock engine has one strength for all outputs: this is the mean.
PROMPT_FIRST = 0.4


@dataclass(frozen=True)
class Loaded:
    """The parts of a checkpoint, or the same parts from separate files."""

    model: Model
    clip: Clip
    vae: Vae


@dataclass(frozen=True)
class Prompts:
    """Both prompts, encoded."""

    positive: Conditioning
    negative: Conditioning


def load_models(graph: Graph, request: GenerationRequest) -> Loaded:
    """The models of `request` with its LoRAs."""
    loaded = _load_files(graph, request.models)
    model, clip = loaded.model, loaded.clip
    for lora in request.loras:
        model, clip = nodes.apply_lora(graph, model, clip, lora.name, lora.strength_model, lora.strength_clip)
    if request.clip_skip > 1:
        clip = nodes.set_last_layer(graph, clip, request.clip_skip)
    if request.seamless:
        model = nodes.make_seamless(graph, model)
    return Loaded(model, clip, loaded.vae)


def load_refiner(graph: Graph, request: GenerationRequest) -> tuple[Model, Prompts] | None:
    """The refiner, if there is one, with the prompts from its own text encoder."""
    if request.refiner is None:
        return None
    model, clip, _ = nodes.load_checkpoint(graph, request.refiner.checkpoint)
    return model, _encode(graph, clip, request)


def encode_prompts(graph: Graph, loaded: Loaded, request: GenerationRequest) -> Prompts:
    """The encoded prompts, with guidance and ControlNets."""
    prompts = _encode(graph, loaded.clip, request)
    if request.guidance is not None:
        prompts = Prompts(nodes.guide(graph, prompts.positive, request.guidance), prompts.negative)
    for unit in request.controls:
        prompts = _apply_control(graph, loaded.vae, prompts, unit)
    return prompts


def input_name(picture: Picture) -> str:
    """The name of an uploaded picture in LoadImage."""
    return f"{UPLOAD_FOLDER}/{picture.name}"


def _load_files(graph: Graph, models: Models) -> Loaded:
    """A checkpoint, in which named text encoders and VAEs replace its own; or all parts from separate files."""
    if models.checkpoint is not None:
        model, clip, vae = nodes.load_checkpoint(graph, models.checkpoint)
        if models.text_encoders:
            clip = nodes.load_text_encoders(graph, models.text_encoders, models.clip_type)
        if models.vae is not None:
            vae = nodes.load_vae(graph, models.vae)
        return Loaded(model, clip, vae)
    return Loaded(
        nodes.load_diffusion_model(graph, str(models.diffusion_model)),
        nodes.load_text_encoders(graph, models.text_encoders, models.clip_type),
        nodes.load_vae(graph, str(models.vae)),
    )


def _encode(graph: Graph, clip: Clip, request: GenerationRequest) -> Prompts:
    return Prompts(
        positive=nodes.encode_text(graph, clip, request.prompt),
        negative=nodes.encode_text(graph, clip, request.negative_prompt),
    )


def _apply_control(graph: Graph, vae: Vae, prompts: Prompts, unit: ControlUnit) -> Prompts:
    network = nodes.load_control_net(graph, unit.model)
    if unit.union_type is not None:
        network = nodes.set_union_type(graph, network, unit.union_type)
    positive, negative = nodes.apply_control_net(
        graph,
        positive=prompts.positive,
        negative=prompts.negative,
        control_net=network,
        image=_control_map(graph, unit),
        strength=round(unit.weight * PROMPT_FIRST, 4) if unit.mode == "prompt" else unit.weight,
        start_percent=unit.start,
        end_percent=unit.end,
        vae=vae,
    )
    return Prompts(positive, prompts.negative if unit.mode == "control" else negative)


def _control_map(graph: Graph, unit: ControlUnit) -> Image:
    image = nodes.load_image(graph, input_name(unit.picture))
    preprocessing = unit.preprocessing
    if preprocessing is None:
        return image
    inputs: Mapping[str, float] = dict(preprocessing.inputs)
    if preprocessing.resolution is not None and "resolution" not in inputs:
        # The picture is scaled first; the engine stretches the map to the size of the latent.
        factor = preprocessing.resolution / min(unit.picture.size)
        width, height = (max(1, round(side * factor)) for side in unit.picture.size)
        image = nodes.scale(graph, image, width, height, "lanczos")
    return nodes.preprocess(graph, preprocessing.node, image, inputs)
