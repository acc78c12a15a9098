"""The recipe for pictures from a prompt and a picture, with or without a mask."""

from shared.schema.request import Img2ImgRequest, Inpainting
from workflows import nodes
from workflows.finishing import crop_to_size, finish, pictures, scale_to_size, vae_decode, vae_encode
from workflows.graph_builder import Graph, Image, Latent
from workflows.loading import Loaded, Prompts, encode_prompts, input_name, load_models, load_refiner
from workflows.sampling import sample, sample_hires


def img2img(request: Img2ImgRequest, filename_prefix: str) -> Graph:
    """The graph for `request`; its pictures are saved under `filename_prefix`, which belongs to one job.

    With a mask, sampling changes the masked part of the latent alone, and the result is composited over the source, so
    that every pixel outside the mask stays exactly as it was sent.
    """
    graph = Graph()
    loaded = load_models(graph, request)
    prompts = encode_prompts(graph, loaded, request)
    refiner = load_refiner(graph, request)
    source = nodes.load_image(graph, input_name(request.source))
    if request.inpainting is None:
        start = vae_encode(graph, source, loaded.vae, request, request.latent_size)
    else:
        prompts, start = inpaint_latent(graph, loaded, prompts, source, request, request.inpainting)
    for seed, prefix in pictures(request, filename_prefix):
        latent = sample(graph, loaded, prompts, refiner, start, request, seed)
        latent = sample_hires(graph, loaded, prompts, latent, request, seed)
        image = scale_to_size(graph, vae_decode(graph, latent, loaded.vae, request, request.latent_sizes[-1]), request)
        if request.inpainting is None:
            image = crop_to_size(graph, image, request)
        else:
            image = composite(graph, image, source, request, request.inpainting)
        nodes.save_image(graph, finish(graph, image, request), prefix)
    return graph


def inpaint_latent(
    graph: Graph, loaded: Loaded, prompts: Prompts, source: Image, request: Img2ImgRequest, inpainting: Inpainting
) -> tuple[Prompts, Latent]:
    """The latent to start from, which carries the mask, and the prompts, which the mode "model" changes."""
    mask = nodes.load_mask(graph, input_name(inpainting.mask))
    if inpainting.mode == "fill":
        return prompts, nodes.encode_for_inpaint(graph, source, loaded.vae, mask, inpainting.grow_mask_by)
    if inpainting.mode == "refine":
        latent = vae_encode(graph, source, loaded.vae, request, request.latent_size)
        return prompts, nodes.set_noise_mask(graph, latent, mask)
    positive, negative, latent = nodes.condition_inpaint_model(
        graph, prompts.positive, prompts.negative, loaded.vae, source, mask
    )
    return Prompts(positive, negative), latent


def composite(graph: Graph, image: Image, source: Image, request: Img2ImgRequest, inpainting: Inpainting) -> Image:
    """The result where the blend mask is white, and the client's own pixels elsewhere."""
    blend = nodes.load_mask(graph, input_name(inpainting.blend))
    paste = inpainting.paste
    if paste is not None:
        image = crop_to_size(graph, image, request)
        if request.drawn_size != paste.size:
            image = nodes.scale(graph, image, *paste.size, "lanczos")
        whole = nodes.load_image(graph, input_name(paste.picture))
        return nodes.composite_masked(graph, destination=whole, source=image, mask=blend, x=paste.x, y=paste.y)
    if request.hires is not None:
        # The hires pass has enlarged the picture, so the source and the mask are scaled too.
        size = request.padded_size
        source = nodes.scale(graph, source, *size, "lanczos")
        blend = nodes.image_to_mask(graph, nodes.scale(graph, nodes.mask_to_image(graph, blend), *size, "bilinear"))
    image = nodes.composite_masked(graph, destination=source, source=image, mask=blend)
    return crop_to_size(graph, image, request)
