"""The recipe for pictures from a prompt."""

from shared.schema.request import Txt2ImgRequest
from workflows import nodes
from workflows.finishing import crop_to_size, finish, pictures, scale_to_size, vae_decode
from workflows.graph_builder import Graph
from workflows.loading import encode_prompts, load_models, load_refiner
from workflows.sampling import sample, sample_hires


def txt2img(request: Txt2ImgRequest, filename_prefix: str) -> Graph:
    """The graph for `request`; its pictures are saved under `filename_prefix`, which belongs to one job."""
    graph = Graph()
    loaded = load_models(graph, request)
    prompts = encode_prompts(graph, loaded, request)
    refiner = load_refiner(graph, request)
    empty = nodes.empty_latent(graph, *request.latent_size, channels=request.models.latent_channels)
    for seed, prefix in pictures(request, filename_prefix):
        latent = sample(graph, loaded, prompts, refiner, empty, request, seed)
        latent = sample_hires(graph, loaded, prompts, latent, request, seed)
        image = vae_decode(graph, latent, loaded.vae, request, request.latent_sizes[-1])
        image = crop_to_size(graph, scale_to_size(graph, image, request), request)
        nodes.save_image(graph, finish(graph, image, request), prefix)
    return graph
