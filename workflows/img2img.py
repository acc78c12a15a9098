"""The recipe for a picture from words and a picture, with or without a mask."""

from shared.schema import Img2ImgRequest
from workflows import nodes, stages
from workflows.graph import Graph


def img2img(request: Img2ImgRequest, filename_prefix: str) -> Graph:
    """The graph for `request`; its pictures are saved under `filename_prefix` (a job's own, see `shared.jobs`).

    With a mask, VAEEncodeForInpaint makes the latent that KSampler starts from, the mask travelling on the latent, and
    the result is laid over the source, so that every pixel outside the mask is the client's own.
    """
    graph = Graph()
    models = stages.load_models(graph, request)
    prompts = stages.encode_prompts(graph, models.clip, request)
    source = nodes.load_image(graph, stages.input_name(request.input_image))
    if request.mask is None:
        mask = None
        latent = nodes.encode_image(graph, source, models.vae)
    else:
        mask = nodes.load_mask(graph, stages.input_name(request.mask))
        latent = nodes.encode_for_inpaint(graph, source, models.vae, mask, request.grow_mask_by)
    if request.batch_size > 1:
        latent = nodes.repeat_latent(graph, latent, request.batch_size)
    latent = stages.sample(graph, models, prompts, latent, request, denoise=request.denoising_strength)
    image = nodes.decode(graph, latent, models.vae)
    if mask is not None:
        if request.batch_size > 1:
            # The composite keeps as many pictures as its destination has.
            source = nodes.repeat_image(graph, source, request.batch_size)
        image = nodes.composite(graph, destination=source, source=image, mask=mask)
    image = stages.crop_to_size(graph, image, request)
    nodes.save_image(graph, image, filename_prefix)
    return graph
