"""The requests of the golden graphs: one for each feature, and one for each pair of features that interact."""

from dataclasses import replace
from typing import Any

from shared.graph_walk import ApiGraph
from shared.schema.ranges import Picture
from shared.schema.request import (
    ControlUnit,
    EnlargedLayer,
    ExtrasRequest,
    FaceRestoration,
    FacesLayer,
    Hires,
    Img2ImgRequest,
    Inpainting,
    Lora,
    Models,
    Paste,
    Preprocessing,
    Refiner,
    Sampling,
    Tiles,
    Txt2ImgRequest,
    Upscale,
    UpscaleRequest,
)
from workflows.img2img import img2img
from workflows.txt2img import txt2img
from workflows.upscale import extras, upscale

PREFIX = "20261122/20261122-143210-3f2a9c1e0b7d"
SAMPLING = Sampling(steps=12, cfg=6.5, sampler="dpmpp_2m", scheduler="karras")
ADAPTIVE = replace(SAMPLING, sampler="dpm_adaptive")
COMMON: dict[str, Any] = {
    "prompt": "a red circle",
    "negative_prompt": "blue",
    "size": (512, 512),
    "seeds": (42,),
    "models": Models(checkpoint="model.safetensors"),
    "sampling": SAMPLING,
    "tiles": Tiles(512, 64),
}
SOURCE, MASK, SOFT = (Picture(name, 512, 512) for name in (b"source", b"mask", b"soft"))
MAP = Picture(b"map", 512, 512)
LORAS = (Lora("one.safetensors", 0.8, 0.6), Lora("two.safetensors", -0.5, 0.0))
CANNY = Preprocessing("Canny", (("low_threshold", 0.39), ("high_threshold", 0.78)))
UNIT = ControlUnit("canny.safetensors", MAP, CANNY, weight=0.9, start=0.1, end=0.8, mode="balanced")
REFINER = Refiner("refiner.safetensors", 0.75)
AGAIN = Sampling(steps=6, cfg=7.0, sampler="euler", scheduler="normal", denoise=0.5)
HIRES_LATENT = Hires((1024, 1024), AGAIN, latent_method="bicubic")
HIRES_MODEL = Hires((1000, 776), AGAIN, upscale=Upscale((1000, 776), model="4x.safetensors"))
PLAIN = Upscale((1024, 1024))
FIRST = EnlargedLayer(Upscale((1024, 1024), model="2x.safetensors"), 1.0)
SECOND = EnlargedLayer(Upscale((1024, 1024), model="4x.safetensors"), 0.3)
FILL = Inpainting("fill", MASK, MASK)
SPLIT_FLUX = Models(
    diffusion_model="flux.safetensors",
    text_encoders=("clip_l.safetensors", "t5xxl.safetensors"),
    clip_type="flux",
    vae="ae.safetensors",
    latent_channels=16,
)
SPLIT_SD3 = replace(
    SPLIT_FLUX,
    text_encoders=("clip_l.safetensors", "clip_g.safetensors", "t5xxl.safetensors"),
    clip_type="sd3",
)


def draw(**fields: Any) -> ApiGraph:
    return txt2img(Txt2ImgRequest(**{**COMMON, **fields}), PREFIX).to_api()


def redraw(inpainting: Inpainting | None = None, denoise: float = 1.0, **fields: Any) -> ApiGraph:
    sampling = replace(fields.pop("sampling", SAMPLING), denoise=denoise)
    request = Img2ImgRequest(**{**COMMON, **fields, "sampling": sampling}, source=SOURCE, inpainting=inpainting)
    return img2img(request, PREFIX).to_api()


def enlarge(*layers: EnlargedLayer, faces: tuple[FacesLayer, ...] = ()) -> ApiGraph:
    return extras(ExtrasRequest(SOURCE, PLAIN, layers, faces), PREFIX).to_api()


GRAPHS: dict[str, ApiGraph] = {
    "txt2img": draw(),
    "txt2img_batch": draw(seeds=(42, 43, 44)),
    "txt2img_odd_size": draw(size=(501, 333)),
    "txt2img_dpm_adaptive": draw(sampling=ADAPTIVE),
    "txt2img_clip_skip": draw(clip_skip=2),
    "txt2img_vae": draw(models=Models(checkpoint="model.safetensors", vae="vae.safetensors")),
    "txt2img_loras": draw(loras=LORAS),
    "txt2img_loras_clip_skip": draw(loras=LORAS, clip_skip=2),
    "txt2img_large_tiled": draw(size=(4096, 2048), tiles=Tiles(768, 96)),
    "control_balanced": draw(controls=(UNIT,)),
    "control_prompt": draw(controls=(replace(UNIT, mode="prompt"),)),
    "control_only": draw(controls=(replace(UNIT, mode="control"),)),
    "control_map_as_it_is": draw(controls=(replace(UNIT, preprocessing=None),)),
    "control_resolution": draw(controls=(replace(UNIT, preprocessing=replace(CANNY, resolution=256)),)),
    "control_union": draw(controls=(replace(UNIT, union_type="auto"),)),
    "control_two_units_batch": draw(controls=(UNIT, replace(UNIT, preprocessing=None, mode="control")), seeds=(1, 2)),
    "control_img2img": redraw(controls=(UNIT,), denoise=0.6),
    "control_inpaint_model": redraw(replace(FILL, mode="model"), controls=(UNIT,)),
    "control_loras": draw(controls=(UNIT,), loras=LORAS),
    "refiner": draw(refiner=REFINER),
    "refiner_img2img": redraw(refiner=REFINER, denoise=0.5),
    "refiner_img2img_hardly_anything": redraw(refiner=REFINER, denoise=0.0001),
    "refiner_img2img_nothing": redraw(refiner=REFINER, denoise=0.0),
    "refiner_from_the_start": draw(refiner=replace(REFINER, switch_at=0.0)),
    "refiner_never": draw(refiner=replace(REFINER, switch_at=1.0)),
    "refiner_control": draw(refiner=REFINER, controls=(UNIT,)),
    "hires_latent": draw(hires=HIRES_LATENT),
    "hires_model_odd_size": draw(hires=HIRES_MODEL),
    "hires_lanczos": draw(hires=replace(HIRES_LATENT, latent_method=None, upscale=PLAIN)),
    "hires_large_tiled": draw(hires=replace(HIRES_LATENT, size=(4096, 4096))),
    "hires_of_an_odd_size": draw(size=(65, 67), hires=Hires((100, 134), AGAIN, latent_method="bilinear")),
    "hires_refiner": draw(hires=HIRES_LATENT, refiner=REFINER),
    "hires_control": draw(hires=HIRES_LATENT, controls=(UNIT,)),
    "hires_batch": draw(hires=HIRES_LATENT, seeds=(7, 8)),
    "hires_img2img": redraw(hires=HIRES_LATENT, denoise=0.5),
    "hires_inpaint": redraw(FILL, hires=HIRES_LATENT),
    "upscale_model": draw(upscale=Upscale((768, 768), model="4x.safetensors")),
    "upscale_lanczos_batch": draw(upscale=Upscale((1024, 1024)), seeds=(1, 2)),
    "hires_upscale": draw(hires=HIRES_LATENT, upscale=Upscale((2048, 2048), model="4x.safetensors")),
    "upscale_alone": upscale(UpscaleRequest(SOURCE, Upscale((640, 640), model="4x.safetensors")), PREFIX).to_api(),
    "upscale_transparent": upscale(
        UpscaleRequest(SOURCE, Upscale((640, 640), model="4x.safetensors"), transparent=True), PREFIX
    ).to_api(),
    "extras_plain": enlarge(),
    "extras_one": enlarge(FIRST),
    "extras_one_half": enlarge(replace(FIRST, visibility=0.5)),
    "extras_two": enlarge(FIRST, SECOND),
    "extras_two_halves": enlarge(replace(FIRST, visibility=0.5), SECOND),
    "extras_transparent": extras(ExtrasRequest(SOURCE, PLAIN, (FIRST, SECOND), transparent=True), PREFIX).to_api(),
    "img2img": redraw(denoise=0.4),
    "img2img_batch": redraw(seeds=(42, 43), denoise=0.4),
    "img2img_odd_size": redraw(size=(509, 512), denoise=0.4),
    "inpaint": redraw(FILL),
    "inpaint_blurred": redraw(replace(FILL, blend=SOFT)),
    "inpaint_batch": redraw(FILL, seeds=(42, 43)),
    "inpaint_odd_size_grown": redraw(replace(FILL, grow_mask_by=16), size=(509, 500)),
    "inpaint_refine": redraw(replace(FILL, mode="refine"), denoise=0.6),
    "inpaint_model": redraw(replace(FILL, mode="model")),
    "inpaint_only_masked": redraw(
        replace(FILL, blend=SOFT, paste=Paste(Picture(b"whole", 801, 600), x=120, y=64, size=(300, 300)))
    ),
    "inpaint_only_masked_hires": redraw(
        replace(FILL, paste=Paste(Picture(b"whole", 801, 600), x=120, y=64, size=(300, 300))), hires=HIRES_LATENT
    ),
    "inpaint_refiner": redraw(FILL, refiner=REFINER),
    "inpaint_loras": redraw(FILL, loras=LORAS),
    "flux_split": draw(models=SPLIT_FLUX, guidance=3.5, sampling=replace(SAMPLING, cfg=1.0, scheduler="simple")),
    "flux_checkpoint": draw(models=Models(checkpoint="model.safetensors", latent_channels=16), guidance=3.5),
    "flux_img2img": redraw(models=SPLIT_FLUX, guidance=3.5, denoise=0.7),
    "sd3_split": draw(models=SPLIT_SD3),
    "one_text_encoder": draw(models=replace(SPLIT_FLUX, text_encoders=("clip_l.safetensors",), clip_type="sd3")),
}
# A stock engine lacks some nodes of these graphs, so they are not checked against it.
CUSTOM_GRAPHS: dict[str, ApiGraph] = {
    "seamless": draw(seamless=True),
    "faces": draw(faces=FaceRestoration("codeformer.pth", 0.5)),
    "extras_faces": enlarge(
        FIRST,
        faces=(
            FacesLayer(FaceRestoration("GFPGANv1.4.pth", 0.5), 1.0),
            FacesLayer(FaceRestoration("codeformer.pth", 0.7), 0.4),
        ),
    ),
    "control_custom_preprocessor": draw(
        controls=(replace(UNIT, preprocessing=Preprocessing("LineArtPreprocessor", (("resolution", 512),))),)
    ),
}
