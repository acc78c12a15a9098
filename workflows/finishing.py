"""The steps between latents and pictures, and from a decoded picture to the saved one."""

from collections.abc import Iterator

from shared.schema.ranges import MAX_UNTILED_PIXELS
from shared.schema.request import FaceRestoration, GenerationRequest, Size, Upscale
from workflows import nodes
from workflows.graph_builder import Graph, Image, Latent, Vae


def vae_encode(graph: Graph, image: Image, vae: Vae, request: GenerationRequest, size: Size) -> Latent:
    """The latent of a picture of this size in pixels; large ones are encoded in tiles."""
    if size[0] * size[1] > MAX_UNTILED_PIXELS:
        return nodes.encode_image_tiled(graph, image, vae, request.tiles.size, request.tiles.overlap)
    return nodes.encode_image(graph, image, vae)


def vae_decode(graph: Graph, latent: Latent, vae: Vae, request: GenerationRequest, size: Size) -> Image:
    """The picture of a latent of this size in pixels; large ones are decoded in tiles."""
    if request.seamless:
        return nodes.decode_latent_seamless(graph, latent, vae)
    if size[0] * size[1] > MAX_UNTILED_PIXELS:
        return nodes.decode_latent_tiled(graph, latent, vae, request.tiles.size, request.tiles.overlap)
    return nodes.decode_latent(graph, latent, vae)


def enlarge(graph: Graph, image: Image, upscale: Upscale) -> Image:
    """A picture at exactly another size, through the upscale model if there is one, whatever its own factor."""
    if upscale.model is not None:
        image = nodes.upscale_with_model(graph, nodes.load_upscale_model(graph, upscale.model), image)
    return nodes.scale(graph, image, *upscale.size, upscale.method)


def keep_transparency(graph: Graph, image: Image, source: str, before: Size, after: Upscale) -> Image:
    """A finished picture with the transparency of the file `source`, which has the size `before`.

    Transparency bypasses the models, which know colours alone.
    """
    transparency = nodes.load_transparency(graph, source)
    if after.size != before:
        scaled = nodes.scale(graph, nodes.mask_to_image(graph, transparency), *after.size, after.method)
        transparency = nodes.image_to_mask(graph, scaled)
    return nodes.add_transparency(graph, image, transparency)


def restore_faces(graph: Graph, image: Image, faces: FaceRestoration | None) -> Image:
    """A picture with restored faces; the same picture if the request does not want them."""
    if faces is None:
        return image
    return nodes.restore_faces_with_model(graph, nodes.load_face_model(graph, faces.model), image, faces.fidelity)


def scale_to_size(graph: Graph, image: Image, request: GenerationRequest) -> Image:
    """Scales a picture from the size of its latent, in multiples of 8 pixels, to the exact size of the hires pass."""
    size = request.padded_size
    return image if request.latent_sizes[-1] == size else nodes.scale(graph, image, *size, "lanczos")


def crop_to_size(graph: Graph, image: Image, request: GenerationRequest) -> Image:
    """Cuts off the pixels that fill the last cells of the latent, so that the picture has the requested size."""
    size = request.drawn_size
    return image if request.padded_size == size else nodes.crop(graph, image, *size)


def finish(graph: Graph, image: Image, request: GenerationRequest) -> Image:
    """Restores the faces of a picture and then enlarges it, if the request wants that."""
    image = restore_faces(graph, image, request.faces)
    return image if request.upscale is None else enlarge(graph, image, request.upscale)


def pictures(request: GenerationRequest, filename_prefix: str) -> Iterator[tuple[int, str]]:
    """The seed of each picture, and the prefix of its file.

    Each picture is sampled alone, so that its seed alone makes it again. In a batch, ComfyUI's noise for the third
    picture depends on the two before it.
    """
    for index, seed in enumerate(request.seeds, start=1):
        yield seed, filename_prefix if len(request.seeds) == 1 else f"{filename_prefix}-{index:03d}"
