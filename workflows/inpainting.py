"""A inpaint_latent in a picture: the latent that it is filled from, and the result laid over the source."""

from shared.schema.request import Img2ImgRequest, Inpainting
from workflows import nodes
from workflows.finishing import crop_to_size, encode
from workflows.graph import Graph, Image, Latent
from workflows.loading import Loaded, Prompts, input_name


def inpaint_latent(
    graph: Graph, loaded: Loaded, prompts: Prompts, source: Image, request: Img2ImgRequest, inpainting: Inpainting
) -> tuple[Prompts, Latent]:
    """The latent to start from, with the mask on it; and the prompts, to which the mode may add."""
    mask = nodes.load_mask(graph, input_name(inpainting.mask))
    if inpainting.mode == "fill":
        return prompts, nodes.encode_for_inpaint(graph, source, loaded.vae, mask, inpainting.grow_mask_by)
    if inpainting.mode == "refine":
        latent = encode(graph, source, loaded.vae, request, request.latent_size)
        return prompts, nodes.set_noise_mask(graph, latent, mask)
    positive, negative, latent = nodes.condition_inpaint_model(
        graph, prompts.positive, prompts.negative, loaded.vae, source, mask
    )
    return Prompts(positive, negative), latent


def composite(graph: Graph, image: Image, source: Image, request: Img2ImgRequest, inpainting: Inpainting) -> Image:
    """What was drawn, where the blending mask is white; elsewhere the client's own pixels."""
    blend = nodes.load_mask(graph, input_name(inpainting.blend))
    paste = inpainting.paste
    if paste is not None:
        image = crop_to_size(graph, image, request)
        if request.drawn_size != paste.size:
            image = nodes.scale(graph, image, *paste.size, "lanczos")
        whole = nodes.load_image(graph, input_name(paste.picture))
        return nodes.composite(graph, destination=whole, source=image, mask=blend, x=paste.x, y=paste.y)
    if request.hires is not None:
        # The picture has grown, so the source and the mask do too.
        size = request.padded_size
        source = nodes.scale(graph, source, *size, "lanczos")
        blend = nodes.image_to_mask(graph, nodes.scale(graph, nodes.mask_to_image(graph, blend), *size, "bilinear"))
    image = nodes.composite(graph, destination=source, source=image, mask=blend)
    return crop_to_size(graph, image, request)
