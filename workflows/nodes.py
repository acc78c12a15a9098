"""One function for each ComfyUI node in use, with typed inputs, that returns the node's outputs as sockets.

The names of inputs are ComfyUI's own. Ranges are checked by the request's schema, and again against the engine's node
definitions before a graph is queued. No sampler takes a mask: the latent carries it.
"""

from collections.abc import Mapping, Sequence

from workflows.graph_builder import (
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
    """The model, text encoder and VAE of a checkpoint file."""
    node = graph.add("CheckpointLoaderSimple", ckpt_name=ckpt_name)
    return Model(node, 0), Clip(node, 1), Vae(node, 2)


def load_diffusion_model(graph: Graph, unet_name: str) -> Model:
    """A diffusion model from a file without text encoders and VAE."""
    return Model(graph.add("UNETLoader", unet_name=unet_name, weight_dtype="default"), 0)


def load_text_encoders(graph: Graph, names: Sequence[str], clip_type: str) -> Clip:
    """One, two or three text encoders from separate files, for models of the type `clip_type`."""
    if len(names) == 1:
        return Clip(graph.add("CLIPLoader", clip_name=names[0], type=clip_type), 0)
    if len(names) == 2:
        return Clip(graph.add("DualCLIPLoader", clip_name1=names[0], clip_name2=names[1], type=clip_type), 0)
    one, two, three = names
    return Clip(graph.add("TripleCLIPLoader", clip_name1=one, clip_name2=two, clip_name3=three), 0)


def load_vae(graph: Graph, vae_name: str) -> Vae:
    """A VAE from a separate file."""
    return Vae(graph.add("VAELoader", vae_name=vae_name), 0)


def apply_lora(
    graph: Graph, model: Model, clip: Clip, lora_name: str, strength_model: float, strength_clip: float
) -> tuple[Model, Clip]:
    """A model and text encoder with a LoRA applied."""
    node = graph.add(
        "LoraLoader",
        model=model,
        clip=clip,
        lora_name=lora_name,
        strength_model=strength_model,
        strength_clip=strength_clip,
    )
    return Model(node, 0), Clip(node, 1)


def set_last_layer(graph: Graph, clip: Clip, layers: int) -> Clip:
    """The text encoder with its output taken `layers` from the end (1 is the last layer)."""
    return Clip(graph.add("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-layers), 0)


def make_seamless(graph: Graph, model: Model) -> Model:
    """The model with convolutions that wrap around at the edges (a custom node)."""
    return Model(graph.add("SeamlessTile", model=model, tiling="enable", copy_model="Make a copy"), 0)


def encode_text(graph: Graph, clip: Clip, text: str) -> Conditioning:
    """A text, encoded."""
    return Conditioning(graph.add("CLIPTextEncode", text=text, clip=clip), 0)


def guide(graph: Graph, conditioning: Conditioning, guidance: float) -> Conditioning:
    """The conditioning with the guidance that distilled Flux models take as an input."""
    return Conditioning(graph.add("FluxGuidance", conditioning=conditioning, guidance=guidance), 0)


def load_image(graph: Graph, image: str) -> Image:
    """The colours of a file in the engine's input folder, also where it is transparent."""
    return Image(graph.add("LoadImage", image=image), 0)


def load_transparency(graph: Graph, image: str) -> Mask:
    """The transparency of a file in the engine's input folder: 1 where it is transparent, 0 where it is opaque."""
    return Mask(graph.add("LoadImage", image=image), 1)


def load_mask(graph: Graph, image: str) -> Mask:
    """The red channel of a file in the input folder as a mask: white is 1, repaint. (The node inverts alpha alone.)"""
    return Mask(graph.add("LoadImageMask", image=image, channel="red"), 0)


def empty_latent(graph: Graph, width: int, height: int, *, channels: int) -> Latent:
    """Zeros with 4 or 16 channels for a picture of width x height pixels, which are multiples of 8."""
    class_type = "EmptySD3LatentImage" if channels == 16 else "EmptyLatentImage"
    return Latent(graph.add(class_type, width=width, height=height, batch_size=1), 0)


def encode_image(graph: Graph, pixels: Image, vae: Vae) -> Latent:
    """Encodes pictures to latents."""
    return Latent(graph.add("VAEEncode", pixels=pixels, vae=vae), 0)


def encode_image_tiled(graph: Graph, pixels: Image, vae: Vae, tile_size: int, overlap: int) -> Latent:
    """Encodes pictures to latents in tiles, for pictures that do not fit into memory at once."""
    node = graph.add(
        "VAEEncodeTiled",
        pixels=pixels,
        vae=vae,
        tile_size=tile_size,
        overlap=overlap,
        # Used for video alone, but required.
        temporal_size=64,
        temporal_overlap=8,
    )
    return Latent(node, 0)


def encode_for_inpaint(graph: Graph, pixels: Image, vae: Vae, mask: Mask, grow_mask_by: int) -> Latent:
    """Encodes pictures with the masked part in grey, and puts the grown mask on the latent as its noise mask."""
    return Latent(graph.add("VAEEncodeForInpaint", pixels=pixels, vae=vae, mask=mask, grow_mask_by=grow_mask_by), 0)


def set_noise_mask(graph: Graph, samples: Latent, mask: Mask) -> Latent:
    """The latent with a noise mask: only where the mask is white is it sampled."""
    return Latent(graph.add("SetLatentNoiseMask", samples=samples, mask=mask), 0)


def condition_inpaint_model(
    graph: Graph, positive: Conditioning, negative: Conditioning, vae: Vae, pixels: Image, mask: Mask
) -> tuple[Conditioning, Conditioning, Latent]:
    """The conditioning that an inpainting checkpoint needs: the picture without its masked part, and the mask."""
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
    """Latents stretched to the size of a picture of width x height pixels."""
    node = graph.add(
        "LatentUpscale", samples=samples, upscale_method=method, width=width, height=height, crop="disabled"
    )
    return Latent(node, 0)


def load_control_net(graph: Graph, control_net_name: str) -> ControlNet:
    """A ControlNet from a file."""
    return ControlNet(graph.add("ControlNetLoader", control_net_name=control_net_name), 0)


def set_union_type(graph: Graph, control_net: ControlNet, union_type: str) -> ControlNet:
    """A union ControlNet, set to one of the types of control maps that it was trained for."""
    return ControlNet(graph.add("SetUnionControlNetType", control_net=control_net, type=union_type), 0)


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
    """Both prompts guided by a control map, from `start_percent` to `end_percent` (0 to 1) of the sampling."""
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
    """The control map of a picture from a preprocessor of this class."""
    return Image(graph.add(class_type, image=image, **inputs), 0)


def decode_latent(graph: Graph, samples: Latent, vae: Vae) -> Image:
    """Decodes latents to pictures."""
    return Image(graph.add("VAEDecode", samples=samples, vae=vae), 0)


def decode_latent_tiled(graph: Graph, samples: Latent, vae: Vae, tile_size: int, overlap: int) -> Image:
    """Decodes latents to pictures in tiles."""
    node = graph.add(
        "VAEDecodeTiled",
        samples=samples,
        vae=vae,
        tile_size=tile_size,
        overlap=overlap,
        # Used for video alone, but required.
        temporal_size=64,
        temporal_overlap=8,
    )
    return Image(node, 0)


def decode_latent_seamless(graph: Graph, samples: Latent, vae: Vae) -> Image:
    """Decodes latents to pictures whose opposite edges match (a custom node)."""
    return Image(graph.add("CircularVAEDecode", samples=samples, vae=vae, tiling="enable"), 0)


def composite_masked(graph: Graph, *, destination: Image, source: Image, mask: Mask, x: int = 0, y: int = 0) -> Image:
    """`source` where the mask is white, `destination` elsewhere, with `source` and `mask` placed at `x`, `y`."""
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
    """A mix of two pictures of the same size: `below` alone at 0, `above` alone at 1."""
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
    """A picture with an alpha channel, transparent where the mask is 1. (The node inverts its input `alpha`.)"""
    return Image(graph.add("JoinImageWithAlpha", image=image, alpha=transparency), 0)


def scale(graph: Graph, image: Image, width: int, height: int, method: str) -> Image:
    """A picture stretched to width x height pixels."""
    node = graph.add("ImageScale", image=image, upscale_method=method, width=width, height=height, crop="disabled")
    return Image(node, 0)


def load_upscale_model(graph: Graph, model_name: str) -> UpscaleModel:
    """An upscale model from a file."""
    return UpscaleModel(graph.add("UpscaleModelLoader", model_name=model_name), 0)


def upscale_with_model(graph: Graph, model: UpscaleModel, image: Image) -> Image:
    """A picture enlarged by the factor of the model."""
    return Image(graph.add("ImageUpscaleWithModel", upscale_model=model, image=image), 0)


def load_face_model(graph: Graph, model_name: str) -> FaceModel:
    """A face restoration model from a file (a custom node)."""
    return FaceModel(graph.add("FaceRestoreModelLoader", model_name=model_name), 0)


def restore_faces_with_model(graph: Graph, model: FaceModel, image: Image, fidelity: float) -> Image:
    """A picture with restored faces (a custom node)."""
    node = graph.add(
        "FaceRestoreCFWithModel",
        facerestore_model=model,
        image=image,
        facedetection="retinaface_resnet50",
        codeformer_fidelity=fidelity,
    )
    return Image(node, 0)


def crop(graph: Graph, image: Image, width: int, height: int) -> Image:
    """The width x height pixels at the top left."""
    return Image(graph.add("ImageCrop", image=image, width=width, height=height, x=0, y=0), 0)


def save_image(graph: Graph, images: Image, filename_prefix: str) -> None:
    """Saves PNGs with the graph in them to the engine's output folder, as <prefix>_00001_.png and so on."""
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
    """KSamplerAdvanced: steps `start` to `end` of `steps`. The first part adds the noise, the last removes all."""
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
    """DPM adaptive in steps of `h_init` (in log noise). With its three coefficients at 0, all steps have this size."""
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
    """BasicScheduler: the noise levels of `steps` steps."""
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
    """SamplerCustom: one pass with a sampling method that has its own parameters."""
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
