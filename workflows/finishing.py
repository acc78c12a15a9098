"""Between latents and pictures, and from a picture to the one that is saved."""

from collections.abc import Iterator

from shared.schema.request import Common, FaceRestoration, Size, Upscale
from shared.schema.units import LARGE
from workflows import nodes
from workflows.graph import Graph, Image, Latent, Vae


def vae_encode(graph: Graph, image: Image, vae: Vae, request: Common, size: Size) -> Latent:
    """The latent of a picture of that size in pixels."""
    if size[0] * size[1] > LARGE:
        return nodes.encode_image_tiled(graph, image, vae, request.tiles.size, request.tiles.overlap)
    return nodes.encode_image(graph, image, vae)


def vae_decode(graph: Graph, latent: Latent, vae: Vae, request: Common, size: Size) -> Image:
    """The picture of a latent that is of that size in pixels."""
    if request.seamless:
        return nodes.decode_latent_seamless(graph, latent, vae)
    if size[0] * size[1] > LARGE:
        return nodes.decode_latent_tiled(graph, latent, vae, request.tiles.size, request.tiles.overlap)
    return nodes.decode_latent(graph, latent, vae)


def enlarge(graph: Graph, image: Image, upscale: Upscale) -> Image:
    """A picture at exactly another size: through the upscale model, if there is one, whatever its own factor."""
    if upscale.model is not None:
        image = nodes.upscale_with_model(graph, nodes.load_upscale_model(graph, upscale.model), image)
    return nodes.scale(graph, image, *upscale.size, upscale.method)


def keep_transparency(graph: Graph, image: Image, source: str, before: Size, after: Upscale) -> Image:
    """A finished picture, as transparent as the file `source` of the size `before` is.

    Transparency goes through no model: the engine's models know colours alone.
    """
    transparency = nodes.load_transparency(graph, source)
    if after.size != before:
        scaled = nodes.scale(graph, nodes.mask_to_image(graph, transparency), *after.size, after.method)
        transparency = nodes.image_to_mask(graph, scaled)
    return nodes.add_transparency(graph, image, transparency)


def restore_faces(graph: Graph, image: Image, faces: FaceRestoration | None) -> Image:
    """A picture with its faces drawn anew, if that was asked for."""
    if faces is None:
        return image
    return nodes.restore_faces_with_model(graph, nodes.load_face_model(graph, faces.model), image, faces.fidelity)


def to_scale(graph: Graph, image: Image, request: Common) -> Image:
    """What the last pass drew, enlarged by exactly what was asked for: the sides of a latent are multiples of 8."""
    size = request.padded_size
    return image if request.latent_sizes[-1] == size else nodes.scale(graph, image, *size, "lanczos")


def crop_to_size(graph: Graph, image: Image, request: Common) -> Image:
    """Cuts off what was added to fill the latent's cells, so that the picture has the size asked for."""
    size = request.drawn_size
    return image if request.padded_size == size else nodes.crop(graph, image, *size)


def finish(graph: Graph, image: Image, request: Common) -> Image:
    """What is done to a picture at last: its faces restored, and it enlarged."""
    image = restore_faces(graph, image, request.faces)
    return image if request.upscale is None else enlarge(graph, image, request.upscale)


def pictures(request: Common, filename_prefix: str) -> Iterator[tuple[int, str]]:
    """The seed of each picture, and the prefix of its file.

    Each is sampled on its own, so that its seed alone makes it again: in a batch of ComfyUI's, the noise of the third
    picture depends on there being two before it.
    """
    for index, seed in enumerate(request.seeds, start=1):
        yield seed, filename_prefix if len(request.seeds) == 1 else f"{filename_prefix}-{index:03d}"
