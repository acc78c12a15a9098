"""The recipe for a picture from words."""

from shared.schema import Txt2ImgRequest, align
from workflows import nodes, stages
from workflows.graph import Graph


def txt2img(request: Txt2ImgRequest, filename_prefix: str) -> Graph:
    """The graph for `request`; its pictures are saved under `filename_prefix` (a job's own, see `shared.jobs`)."""
    graph = Graph()
    models = stages.load_models(graph, request)
    prompts = stages.encode_prompts(graph, models.clip, request)
    latent = nodes.empty_latent(graph, align(request.width), align(request.height), request.batch_size)
    latent = stages.sample(graph, models, prompts, latent, request, denoise=1.0)
    image = nodes.decode(graph, latent, models.vae)
    image = stages.crop_to_size(graph, image, request)
    nodes.save_image(graph, image, filename_prefix)
    return graph
