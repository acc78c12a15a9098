"""One function for each ComfyUI node that we use: its inputs typed, its outputs as sockets.

Those that sample are in `sampler_nodes`.
Names of inputs are ComfyUI's own. Ranges are checked by the request's schema, and once more against the engine's
node definitions before a graph is queued.
"""

from collections.abc import Mapping, Sequence

from workflows.graph import (
    Clip,
    Conditioning,
    ControlNet,
    FaceModel,
    Graph,
    Image,
    Latent,
    Mask,
    Model,
    Sampler,
    Sigmas,
    UpscaleModel,
    Vae,
)


def load_checkpoint(graph: Graph, ckpt_name: str) -> tuple[Model, Clip, Vae]:
    """An all-in-one checkpoint file."""
    node = graph.add("CheckpointLoaderSimple", ckpt_name=ckpt_name)
    return Model(node, 0), Clip(node, 1), Vae(node, 2)


def load_diffusion_model(graph: Graph, unet_name: str) -> Model:
    """A diffusion model in a file of its own."""
    return Model(graph.add("UNETLoader", unet_name=unet_name, weight_dtype="default"), 0)


def load_text_encoders(graph: Graph, names: Sequence[str], clip_type: str) -> Clip:
    """One, two or three text encoders in files of their own; `clip_type` says for which kind of model."""
    if len(names) == 1:
        return Clip(graph.add("CLIPLoader", clip_name=names[0], type=clip_type), 0)
    if len(names) == 2:
        return Clip(graph.add("DualCLIPLoader", clip_name1=names[0], clip_name2=names[1], type=clip_type), 0)
    one, two, three = names
    return Clip(graph.add("TripleCLIPLoader", clip_name1=one, clip_name2=two, clip_name3=three), 0)


def load_vae(graph: Graph, vae_name: str) -> Vae:
    """A VAE in a file of its own."""
    return Vae(graph.add("VAELoader", vae_name=vae_name), 0)


def apply_lora(
    graph: Graph, model: Model, clip: Clip, lora_name: str, strength_model: float, strength_clip: float
) -> tuple[Model, Clip]:
    """Model and text encoder changed by a LoRA."""
    node = graph.add(
        "LoraLoader",
        model=model,
        clip=clip,
        lora_name=lora_name,
        strength_model=strength_model,
        strength_clip=strength_clip,
    )
    return Model(node, 0), Clip(node, 1)


def end_text_encoder_early(graph: Graph, clip: Clip, layers: int) -> Clip:
    """The text encoder, read `layers` layers from its end (1 is the last)."""
    return Clip(graph.add("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-layers), 0)


def make_seamless(graph: Graph, model: Model) -> Model:
    """The model with edges that wrap around (a custom node)."""
    return Model(graph.add("SeamlessTile", model=model, tiling="enable", copy_model="Make a copy"), 0)


def encode_text(graph: Graph, clip: Clip, text: str) -> Conditioning:
    """A prompt or negative prompt."""
    return Conditioning(graph.add("CLIPTextEncode", text=text, clip=clip), 0)


def guide(graph: Graph, conditioning: Conditioning, guidance: float) -> Conditioning:
    """The guidance that Flux was distilled with, told to it as a number."""
    return Conditioning(graph.add("FluxGuidance", conditioning=conditioning, guidance=guidance), 0)


def load_image(graph: Graph, image: str) -> Image:
    """The colours of a file of the engine's input folder, those too that are transparent."""
    return Image(graph.add("LoadImage", image=image), 0)


def load_transparency(graph: Graph, image: str) -> Mask:
    """How transparent a file of the engine's input folder is: 1 where it is fully transparent, 0 where it is opaque."""
    return Mask(graph.add("LoadImage", image=image), 1)


def load_mask(graph: Graph, image: str) -> Mask:
    """A mask from the red channel of a file of the input folder: white = 1 = repaint (only alpha would be inverted)."""
    return Mask(graph.add("LoadImageMask", image=image, channel="red"), 0)


def empty_latent(graph: Graph, width: int, height: int, *, wide: bool) -> Latent:
    """Zeros for a picture of width x height pixels (multiples of 8), with 16 channels if `wide`, else 4."""
    kind = "EmptySD3LatentImage" if wide else "EmptyLatentImage"
    return Latent(graph.add(kind, width=width, height=height, batch_size=1), 0)


def encode_image(graph: Graph, pixels: Image, vae: Vae) -> Latent:
    """Pictures to latents."""
    return Latent(graph.add("VAEEncode", pixels=pixels, vae=vae), 0)


def encode_image_tiled(graph: Graph, pixels: Image, vae: Vae, tile_size: int, overlap: int) -> Latent:
    """Pictures to latents, tile by tile: for pictures that do not fit into memory at once."""
    node = graph.add(
        "VAEEncodeTiled",
        pixels=pixels,
        vae=vae,
        tile_size=tile_size,
        overlap=overlap,
        # For video alone, but required.
        temporal_size=64,
        temporal_overlap=8,
    )
    return Latent(node, 0)


def encode_for_inpaint(graph: Graph, pixels: Image, vae: Vae, mask: Mask, grow_mask_by: int) -> Latent:
    """Pictures to latents with the masked part greyed out, and the grown mask as noise mask on the latent."""
    return Latent(graph.add("VAEEncodeForInpaint", pixels=pixels, vae=vae, mask=mask, grow_mask_by=grow_mask_by), 0)


def set_noise_mask(graph: Graph, samples: Latent, mask: Mask) -> Latent:
    """The same latent, of which only what is white in the mask is sampled."""
    return Latent(graph.add("SetLatentNoiseMask", samples=samples, mask=mask), 0)


def condition_inpaint_model(
    graph: Graph, positive: Conditioning, negative: Conditioning, vae: Vae, pixels: Image, mask: Mask
) -> tuple[Conditioning, Conditioning, Latent]:
    """What an inpainting checkpoint wants to know: the picture without the inpaint_latent, and where the inpaint_latent
    is.
    """
    node = graph.add(
        "InpaintModelConditioning",
        positive=positive,
        negative=negative,
        vae=vae,
        pixels=pixels,
        mask=mask,
        noise_mask=True,
    )
    return Conditioning(node, 0), Conditioning(node, 1), Latent(node, 2)


def scale_latent(graph: Graph, samples: Latent, width: int, height: int, method: str) -> Latent:
    """Latents stretched to those of width x height pixels."""
    node = graph.add(
        "LatentUpscale", samples=samples, upscale_method=method, width=width, height=height, crop="disabled"
    )
    return Latent(node, 0)


def load_control_net(graph: Graph, control_net_name: str) -> ControlNet:
    """A ControlNet's file."""
    return ControlNet(graph.add("ControlNetLoader", control_net_name=control_net_name), 0)


def set_union_type(graph: Graph, control_net: ControlNet, kind: str) -> ControlNet:
    """Tells a ControlNet that was trained for several kinds of control maps which one it gets."""
    return ControlNet(graph.add("SetUnionControlNetType", control_net=control_net, type=kind), 0)


def apply_control_net(
    graph: Graph,
    *,
    positive: Conditioning,
    negative: Conditioning,
    control_net: ControlNet,
    image: Image,
    strength: float,
    start_percent: float,
    end_percent: float,
    vae: Vae,
) -> tuple[Conditioning, Conditioning]:
    """Both prompts guided by a control map, between two parts (0 to 1) of the sampling."""
    node = graph.add(
        "ControlNetApplyAdvanced",
        positive=positive,
        negative=negative,
        control_net=control_net,
        image=image,
        strength=strength,
        start_percent=start_percent,
        end_percent=end_percent,
        vae=vae,
    )
    return Conditioning(node, 0), Conditioning(node, 1)


def preprocess(graph: Graph, class_type: str, image: Image, inputs: Mapping[str, float]) -> Image:
    """A control map of a picture, by a node of that class."""
    return Image(graph.add(class_type, image=image, **inputs), 0)


def decode_latent(graph: Graph, samples: Latent, vae: Vae) -> Image:
    """Latents to pictures."""
    return Image(graph.add("VAEDecode", samples=samples, vae=vae), 0)


def decode_latent_tiled(graph: Graph, samples: Latent, vae: Vae, tile_size: int, overlap: int) -> Image:
    """Latents to pictures, tile by tile."""
    node = graph.add(
        "VAEDecodeTiled",
        samples=samples,
        vae=vae,
        tile_size=tile_size,
        overlap=overlap,
        # For video alone, but required.
        temporal_size=64,
        temporal_overlap=8,
    )
    return Image(node, 0)


def decode_latent_seamless(graph: Graph, samples: Latent, vae: Vae) -> Image:
    """Latents to pictures whose edges fit each other (a custom node)."""
    return Image(graph.add("CircularVAEDecode", samples=samples, vae=vae, tiling="enable"), 0)


def composite_masked(graph: Graph, *, destination: Image, source: Image, mask: Mask, x: int = 0, y: int = 0) -> Image:
    """`source` where the mask is white, `destination` elsewhere; `source` and `mask` begin at `x`, `y`."""
    node = graph.add(
        "ImageCompositeMasked",
        destination=destination,
        source=source,
        x=x,
        y=y,
        resize_source=False,
        mask=mask,
    )
    return Image(node, 0)


def blend(graph: Graph, below: Image, above: Image, factor: float) -> Image:
    """Two pictures of one size, mixed: 0 is `below` alone, 1 `above` alone."""
    return Image(
        graph.add("ImageBlend", image1=below, image2=above, blend_factor=factor, blend_mode="normal"),
        0,
    )


def mask_to_image(graph: Graph, mask: Mask) -> Image:
    """A mask as a grey picture."""
    return Image(graph.add("MaskToImage", mask=mask), 0)


def image_to_mask(graph: Graph, image: Image) -> Mask:
    """The red channel of a picture as a mask."""
    return Mask(graph.add("ImageToMask", image=image, channel="red"), 0)


def add_transparency(graph: Graph, image: Image, transparency: Mask) -> Image:
    """A picture with an alpha channel: transparent where the mask is 1 (the node inverts the input it calls alpha)."""
    return Image(graph.add("JoinImageWithAlpha", image=image, alpha=transparency), 0)


def scale(graph: Graph, image: Image, width: int, height: int, method: str) -> Image:
    """A picture stretched to width x height pixels."""
    node = graph.add("ImageScale", image=image, upscale_method=method, width=width, height=height, crop="disabled")
    return Image(node, 0)


def load_upscale_model(graph: Graph, model_name: str) -> UpscaleModel:
    """An upscale model's file."""
    return UpscaleModel(graph.add("UpscaleModelLoader", model_name=model_name), 0)


def upscale_with_model(graph: Graph, model: UpscaleModel, image: Image) -> Image:
    """A picture enlarged by the factor that the model was made for."""
    return Image(graph.add("ImageUpscaleWithModel", upscale_model=model, image=image), 0)


def load_face_model(graph: Graph, model_name: str) -> FaceModel:
    """A face restoration model's file (a custom node)."""
    return FaceModel(graph.add("FaceRestoreModelLoader", model_name=model_name), 0)


def restore_faces_with_model(graph: Graph, model: FaceModel, image: Image, fidelity: float) -> Image:
    """A picture with its faces drawn anew (a custom node)."""
    node = graph.add(
        "FaceRestoreCFWithModel",
        facerestore_model=model,
        image=image,
        facedetection="retinaface_resnet50",
        codeformer_fidelity=fidelity,
    )
    return Image(node, 0)


def crop(graph: Graph, image: Image, width: int, height: int) -> Image:
    """The top left width x height pixels."""
    return Image(graph.add("ImageCrop", image=image, width=width, height=height, x=0, y=0), 0)


def save_image(graph: Graph, images: Image, filename_prefix: str) -> None:
    """Saves PNGs into the engine's output folder as <prefix>_00001_.png, ..., the graph embedded."""
    graph.add("SaveImage", images=images, filename_prefix=filename_prefix)


def ksampler(
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
    """KSampler: all steps of one pass."""
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


def ksampler_advanced(
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
    start: int,
    end: int,
    first: bool,
    last: bool,
) -> Latent:
    """KSamplerAdvanced: the steps from `start` to `end` of `steps`. The first part adds the noise, the last takes all
    of it away."""
    node = graph.add(
        "KSamplerAdvanced",
        model=model,
        add_noise="enable" if first else "disable",
        noise_seed=seed,
        steps=steps,
        cfg=cfg,
        sampler_name=sampler_name,
        scheduler=scheduler,
        positive=positive,
        negative=negative,
        latent_image=latent_image,
        start_at_step=start,
        end_at_step=end,
        return_with_leftover_noise="disable" if last else "enable",
    )
    return Latent(node, 0)


def dpm_adaptive(graph: Graph, h_init: float) -> Sampler:
    """DPM adaptive in even steps of `h_init` (in log-noise): with its three coefficients 0 a step is never refused,
    nor is its length changed."""
    node = graph.add(
        "SamplerDPMAdaptative",
        order=3,
        rtol=0.05,
        atol=0.0078,
        h_init=h_init,
        pcoeff=0.0,
        icoeff=0.0,
        dcoeff=0.0,
        accept_safety=0.81,
        eta=0.0,
        s_noise=1.0,
    )
    return Sampler(node, 0)


def noise_levels(graph: Graph, model: Model, scheduler: str, steps: int, denoise: float) -> Sigmas:
    """The noise levels of `steps` steps."""
    return Sigmas(graph.add("BasicScheduler", model=model, scheduler=scheduler, steps=steps, denoise=denoise), 0)


def sampler_custom(
    graph: Graph,
    *,
    model: Model,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    seed: int,
    cfg: float,
    sampler: Sampler,
    sigmas: Sigmas,
) -> Latent:
    """SamplerCustom: a sampling method with parameters of its own."""
    node = graph.add(
        "SamplerCustom",
        model=model,
        add_noise=True,
        noise_seed=seed,
        cfg=cfg,
        positive=positive,
        negative=negative,
        sampler=sampler,
        sigmas=sigmas,
        latent_image=latent_image,
    )
    return Latent(node, 0)
