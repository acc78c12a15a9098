"""The recipe for pictures from words and a picture, with or without a mask."""

from shared.schema.request import Img2ImgRequest
from workflows import nodes
from workflows.finishing import crop_to_size, decode, encode, finish, pictures, to_scale
from workflows.graph import Graph
from workflows.inpainting import composite, inpaint_latent
from workflows.loading import encode_prompts, input_name, load_models, load_refiner
from workflows.sampling import sample, sample_hires


def img2img(request: Img2ImgRequest, filename_prefix: str) -> Graph:
    """The graph for `request`; its pictures are saved under `filename_prefix` (a job's own, see `shared.jobs`).

    With a mask, VAEEncodeForInpaint makes the latent that KSampler starts from, the mask travelling on the latent, and
    the result is laid over the source, so that every pixel outside the mask is the client's own.
    """
    graph = Graph()
    loaded = load_models(graph, request)
    prompts = encode_prompts(graph, loaded, request)
    refiner = load_refiner(graph, request)
    source = nodes.load_image(graph, input_name(request.source))
    if request.inpainting is None:
        start = encode(graph, source, loaded.vae, request, request.latent_size)
    else:
        prompts, start = inpaint_latent(graph, loaded, prompts, source, request, request.inpainting)
    for seed, prefix in pictures(request, filename_prefix):
        latent = sample(graph, loaded, prompts, refiner, start, request, seed)
        latent = sample_hires(graph, loaded, prompts, latent, request, seed)
        image = to_scale(graph, decode(graph, latent, loaded.vae, request, request.latent_sizes[-1]), request)
        if request.inpainting is None:
            image = crop_to_size(graph, image, request)
        else:
            image = composite(graph, image, source, request, request.inpainting)
        nodes.save_image(graph, finish(graph, image, request), prefix)
    return graph
