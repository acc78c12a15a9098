"""The steps that recipes are made of. A step whose part of the request is absent adds no node."""

from dataclasses import dataclass

from shared.schema import GenerationRequest, Picture, align
from workflows import nodes
from workflows.graph import Clip, Conditioning, Graph, Image, Latent, Model, Vae

# Uploads live in a folder of their own: LoadImage lists the top-level input folder on each validation.
UPLOAD_FOLDER = "dream_layer"


@dataclass(frozen=True)
class Models:
    """What a checkpoint holds."""

    model: Model
    clip: Clip
    vae: Vae


@dataclass(frozen=True)
class Prompts:
    """Both prompts, encoded."""

    positive: Conditioning
    negative: Conditioning


def load_models(graph: Graph, request: GenerationRequest) -> Models:
    """The checkpoint that the request names."""
    return Models(*nodes.load_checkpoint(graph, request.model_name))


def encode_prompts(graph: Graph, clip: Clip, request: GenerationRequest) -> Prompts:
    """What the picture shall show, and what not."""
    return Prompts(
        positive=nodes.encode_text(graph, clip, request.prompt),
        negative=nodes.encode_text(graph, clip, request.negative_prompt),
    )


def input_name(picture: Picture) -> str:
    """The name by which LoadImage finds an uploaded picture."""
    return f"{UPLOAD_FOLDER}/{picture.name}"


def sample(
    graph: Graph, models: Models, prompts: Prompts, latent: Latent, request: GenerationRequest, denoise: float
) -> Latent:
    """Denoises `latent`, from all the way (1.0) to not at all (0.0)."""
    return nodes.sample(
        graph,
        model=models.model,
        positive=prompts.positive,
        negative=prompts.negative,
        latent_image=latent,
        seed=request.seed,
        steps=request.steps,
        cfg=request.cfg_scale,
        sampler_name=request.sampler_name,
        scheduler=request.scheduler,
        denoise=denoise,
    )


def crop_to_size(graph: Graph, image: Image, request: GenerationRequest) -> Image:
    """Cuts off what was added to reach multiples of 8, so that the picture has the size asked for."""
    if (align(request.width), align(request.height)) == (request.width, request.height):
        return image
    return nodes.crop(graph, image, request.width, request.height)
