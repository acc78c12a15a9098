"""One function for each ComfyUI node that we use: its inputs typed, its outputs as sockets.

Names of inputs are ComfyUI's own. Ranges are checked by the request's schema, and once more against the engine's
node definitions before a graph is queued.
"""

from workflows.graph import Clip, Conditioning, Graph, Image, Latent, Mask, Model, Vae


def load_checkpoint(graph: Graph, ckpt_name: str) -> tuple[Model, Clip, Vae]:
    """An all-in-one checkpoint file."""
    node = graph.add("CheckpointLoaderSimple", ckpt_name=ckpt_name)
    return Model(node, 0), Clip(node, 1), Vae(node, 2)


def encode_text(graph: Graph, clip: Clip, text: str) -> Conditioning:
    """A prompt or negative prompt."""
    return Conditioning(graph.add("CLIPTextEncode", text=text, clip=clip), 0)


def load_image(graph: Graph, image: str) -> Image:
    """A file of the engine's input folder. Its second output, the mask from alpha, is not used: we send RGB."""
    return Image(graph.add("LoadImage", image=image), 0)


def load_mask(graph: Graph, image: str) -> Mask:
    """A mask from the red channel of a file of the input folder: white = 1 = repaint (only alpha would be inverted)."""
    return Mask(graph.add("LoadImageMask", image=image, channel="red"), 0)


def empty_latent(graph: Graph, width: int, height: int, batch_size: int) -> Latent:
    """Zeros for `batch_size` pictures of width x height pixels (multiples of 8)."""
    return Latent(graph.add("EmptyLatentImage", width=width, height=height, batch_size=batch_size), 0)


def encode_image(graph: Graph, pixels: Image, vae: Vae) -> Latent:
    """Pictures to latents."""
    return Latent(graph.add("VAEEncode", pixels=pixels, vae=vae), 0)


def encode_for_inpaint(graph: Graph, pixels: Image, vae: Vae, mask: Mask, grow_mask_by: int) -> Latent:
    """Pictures to latents with the masked part greyed out, and the grown mask as noise mask on the latent."""
    return Latent(graph.add("VAEEncodeForInpaint", pixels=pixels, vae=vae, mask=mask, grow_mask_by=grow_mask_by), 0)


def repeat_latent(graph: Graph, samples: Latent, amount: int) -> Latent:
    """The same latent `amount` times, noise mask included."""
    return Latent(graph.add("RepeatLatentBatch", samples=samples, amount=amount), 0)


def repeat_image(graph: Graph, image: Image, amount: int) -> Image:
    """The same picture `amount` times."""
    return Image(graph.add("RepeatImageBatch", image=image, amount=amount), 0)


def sample(
    graph: Graph,
    *,
    model: Model,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    denoise: float,
) -> Latent:
    """KSampler. It takes no mask: that travels on the latent."""
    node = graph.add(
        "KSampler",
        model=model,
        positive=positive,
        negative=negative,
        latent_image=latent_image,
        seed=seed,
        steps=steps,
        cfg=cfg,
        sampler_name=sampler_name,
        scheduler=scheduler,
        denoise=denoise,
    )
    return Latent(node, 0)


def decode(graph: Graph, samples: Latent, vae: Vae) -> Image:
    """Latents to pictures."""
    return Image(graph.add("VAEDecode", samples=samples, vae=vae), 0)


def composite(graph: Graph, *, destination: Image, source: Image, mask: Mask) -> Image:
    """`source` where the mask is white, `destination` elsewhere. Both batches must be of the same length."""
    node = graph.add(
        "ImageCompositeMasked",
        destination=destination,
        source=source,
        x=0,
        y=0,
        resize_source=False,
        mask=mask,
    )
    return Image(node, 0)


def crop(graph: Graph, image: Image, width: int, height: int) -> Image:
    """The top left width x height pixels."""
    return Image(graph.add("ImageCrop", image=image, width=width, height=height, x=0, y=0), 0)


def save_image(graph: Graph, images: Image, filename_prefix: str) -> None:
    """Saves PNGs into the engine's output folder as <prefix>_00001_.png, ..., the graph embedded."""
    graph.add("SaveImage", images=images, filename_prefix=filename_prefix)
