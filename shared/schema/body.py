"""What a client may send: every field of the API with its type, range, default and meaning, once.

The names are those that the web page sends. `None` as a default means that it follows from something else, as the
description says. The tables of docs/api.md and the OpenAPI document are made from these models.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from shared.schema.units import (
    MAX_SEED,
    Factor,
    Fraction,
    Name,
    NotBool,
    PictureText,
    Scale,
    Side,
    Steps,
    Strength,
    Text,
    Weight,
)
from shared.schema.words import AnySpelling

LargeSizes = Annotated[Literal["two_passes", "direct"], AnySpelling()]
# How forms write that a switch is off; what pydantic takes for false, and no value at all.
OFF = ("false", "0", "0.0", "off", "no", "n", "f", "none", "null", "undefined", "")
# Beside each choice, how the web page and AUTOMATIC1111 (also by number) write it.
InpaintMode = Annotated[Literal["fill", "refine", "model"], AnySpelling({"original": "refine"})]
# As the ControlNet extension of AUTOMATIC1111 called them once, which are "Crop and Resize" and "Resize and Fill" now.
INNER_FIT = ("inner fit (scale to fit)", "scale to fit (inner fit)")
OUTER_FIT = ("outer fit (shrink to fit)", "envelope (outer fit)")
ResizeMode = Annotated[
    Literal["just_resize", "crop_and_resize", "fill"],
    AnySpelling(
        {
            **dict.fromkeys(("0", "resize", "stretch"), "just_resize"),
            **dict.fromkeys(("1", "crop_resize", "crop", *INNER_FIT), "crop_and_resize"),
            **dict.fromkeys(("2", "resize_fill", "resize_and_fill", *OUTER_FIT), "fill"),
        }
    ),
]
ControlMode = Annotated[
    Literal["balanced", "prompt", "control"],
    AnySpelling(
        {
            "0": "balanced",
            **dict.fromkeys(("1", "my prompt is more important", "prompt is more important", "my_prompt"), "prompt"),
            **dict.fromkeys(("2", "controlnet is more important", "controlnet"), "control"),
            "more_prompt": "prompt",
            "more_control": "control",
        }
    ),
]


def _is_off(value: Any) -> bool:
    return value in (None, False) or (isinstance(value, str) and value.strip().lower() in OFF)


class Body(BaseModel):
    """Unknown fields are left out here, and named in the reply's warnings."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=(), populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _on_if_either_says_so(cls, values: Any) -> Any:
        """Of a switch that was sent under several names, one that switches it on counts: the web page sends both."""
        if not isinstance(values, Mapping):
            return values
        passed_over: set[str] = set()
        for field in cls.model_fields.values():
            if field.annotation is bool and isinstance(field.validation_alias, AliasChoices):
                sent = [str(name) for name in field.validation_alias.choices if name in values]
                on = [name for name in sent if not _is_off(values[name])]
                passed_over |= set(sent) - set((on or sent)[:1])
        return {name: value for name, value in values.items() if name not in passed_over}


class LoraBody(Body):
    """One LoRA."""

    lora_name: Annotated[Name, Field(description="its file, with or without folder and extension")]
    strength_model: Annotated[Strength, Field(description="how strongly it changes the model; 0 is without it")] = 1.0
    strength_clip: Annotated[
        Strength | None, Field(description="how strongly it changes the text encoder; as `strength_model` if left out")
    ] = None
    enabled: Annotated[bool, Field(description="`false` is as if it were not there")] = True


class ControlUnitBody(Body):
    """One ControlNet: a picture that guides the drawing."""

    enabled: Annotated[bool, Field(description="`false` is as if it were not there")] = True
    model: Annotated[Name | None, Field(description="the ControlNet's file")] = None
    input_image: Annotated[
        PictureText | None, Field(description="data URL, base64, or the name that an upload was given")
    ] = None
    preprocessor: Annotated[
        Name | None,
        Field(
            description="`none` (the picture is a control map already), `canny` (Canny), or one whose node the engine "
            "has; GET /api/options lists them"
        ),
    ] = None
    control_type: Annotated[
        Name | None, Field(description="stands in for `preprocessor` where that is left out, as `canny` does")
    ] = None
    weight: Annotated[Weight, Field(description="ControlNetApplyAdvanced's strength; 0 is without it")] = 1.0
    guidance_start: Annotated[Fraction, Field(description="the part of the sampling at which it begins")] = 0.0
    guidance_end: Annotated[Fraction, Field(description="and at which it ends")] = 1.0
    control_mode: Annotated[
        ControlMode,
        Field(
            description="`balanced`; `prompt` weakens it to 0.4 of its weight; `control` leaves it out of the negative "
            "prompt's side, so that cfg_scale drives it home"
        ),
    ] = "balanced"
    resize_mode: Annotated[ResizeMode, Field(description="how its picture is brought to width x height")] = (
        "just_resize"
    )
    resolution: Annotated[
        Annotated[int, Field(ge=64, le=2048), NotBool] | None,
        Field(description="short side in pixels at which the preprocessor works; as large as the picture if left out"),
    ] = None
    pixel_perfect: Annotated[bool, Field(description="`resolution` is ignored: as large as the picture")] = False
    threshold_a: Annotated[float, Field(ge=0, le=255, description="Canny's low threshold"), NotBool] = 100
    threshold_b: Annotated[float, Field(ge=0, le=255, description="Canny's high threshold"), NotBool] = 200


class ControlNetBody(Body):
    """The ControlNets of a request."""

    enabled: Annotated[bool, Field(description="`false` is as if there were no units")] = True
    units: Annotated[
        tuple[ControlUnitBody, ...], Field(max_length=8, description="the ControlNets, applied in their order")
    ] = ()


class GenerationBody(Body):
    """What txt2img and img2img have in common."""

    prompt: Annotated[
        Text,
        Field(description="what the picture shall show; `<lora:name:0.8>` adds a LoRA, `embedding:name` an embedding"),
    ]
    negative_prompt: Annotated[Text, Field(description="what it shall not show")] = ""
    model_name: Annotated[
        Name | None,
        Field(description="the checkpoint, or a diffusion model in its own file; the first of your own if left out"),
    ] = None
    vae_name: Annotated[
        Name | None,
        Field(
            validation_alias=AliasChoices("vae_name", "vae"),
            description="a VAE in place of the checkpoint's (VAELoader); `automatic` is the checkpoint's",
        ),
    ] = None
    text_encoders: Annotated[
        tuple[Name, ...] | None,
        Field(max_length=3, description="files for a model that has none; found by what they are if left out"),
    ] = None
    width: Annotated[Side | None, Field(description="pixels; the size that the model was made for if left out")] = None
    height: Annotated[Side | None, Field(description="pixels; likewise")] = None
    steps: Annotated[Steps | None, Field(description="sampling steps; what suits the model if left out")] = None
    cfg_scale: Annotated[
        Scale | None,
        Field(description="how closely the prompt is followed (cfg); what suits the model if left out"),
    ] = None
    guidance: Annotated[
        Scale | None,
        Field(description="FluxGuidance, for models that have it; there `cfg_scale` stands in if this is left out"),
    ] = None
    sampler_name: Annotated[
        Name,
        Field(description="the engine's name (`dpmpp_2m`), the known label (`DPM++ 2M Karras`), or the page's id"),
    ] = "euler"
    scheduler: Annotated[
        Name | None, Field(description="such as `karras`; what suits the model if left out; a label's own goes first")
    ] = None
    karras_sigmas: Annotated[bool, Field(description="the scheduler is `karras`")] = False
    seed: Annotated[
        int,
        Field(ge=-1, le=MAX_SEED, description="the first picture's; each further one counts one up; -1 is random"),
        NotBool,
    ] = -1
    random_seed: Annotated[bool, Field(description="`seed` is ignored, and drawn at random")] = False
    batch_size: Annotated[int, Field(ge=1, le=16, description="pictures, each with a seed of its own"), NotBool] = 1
    batch_count: Annotated[int, Field(ge=1, le=16, description="how often so many"), NotBool] = 1
    clip_skip: Annotated[
        int,
        Field(ge=1, le=12, description="layers of the text encoder, counted from the last (CLIPSetLastLayer)"),
        NotBool,
    ] = 1
    lora: Annotated[LoraBody | None, Field(description="one LoRA")] = None
    loras: Annotated[tuple[LoraBody, ...], Field(max_length=16, description="several, in their order")] = ()
    controlnet: Annotated[ControlNetBody | None, Field(description="pictures that guide the drawing")] = None
    hires_fix: Annotated[
        bool,
        Field(
            validation_alias=AliasChoices("hires_fix_enabled", "hires_fix"),
            description="draw, enlarge, and draw the details anew (a second KSampler); on if either name says so",
        ),
    ] = False
    hires_fix_upscaler: Annotated[
        Name,
        Field(
            description="`Latent`, `Latent (nearest)`, `Latent (bicubic)`; `Lanczos`, `Nearest`; or an upscale model: "
            "Lanczos stands in for one that is not installed"
        ),
    ] = "Latent"
    hires_fix_upscale_method: Annotated[
        Literal["upscale-by", "resize-to"],
        AnySpelling(
            {
                **dict.fromkeys(("scale_by", "by", "factor"), "upscale-by"),
                **dict.fromkeys(("scale_to", "upscale_to", "to"), "resize-to"),
            }
        ),
        Field(description="which of the next three counts"),
    ] = "upscale-by"
    hires_fix_upscale_factor: Annotated[Factor, Field(description="times the size")] = 2.0
    hires_fix_resize_width: Annotated[Side | None, Field(description="pixels, for `resize-to`")] = None
    hires_fix_resize_height: Annotated[Side | None, Field(description="pixels, for `resize-to`")] = None
    hires_fix_hires_steps: Annotated[
        int, Field(ge=0, le=1000, description="steps of the second pass; 0 is as many as the first"), NotBool
    ] = 0
    hires_fix_denoising_strength: Annotated[Fraction, Field(description="how much the second pass changes")] = 0.5
    hires_fix_sampler_name: Annotated[Name | None, Field(description="its sampler; the first one if left out")] = None
    hires_fix_scheduler: Annotated[Name | None, Field(description="its scheduler; the first one if left out")] = None
    hires_fix_cfg_scale: Annotated[Scale | None, Field(description="its cfg; the first one if left out")] = None
    large_sizes: Annotated[
        LargeSizes,
        Field(
            description="sizes far beyond the model's own, drawn from noise alone: `two_passes` draws at its own size "
            "first, then enlarges and refines; `direct` draws in one pass"
        ),
    ] = "two_passes"
    refiner_enabled: Annotated[
        bool,
        Field(
            description="another checkpoint takes over (KSamplerAdvanced twice), without LoRA, ControlNet, clip_skip"
        ),
    ] = False
    refiner_model: Annotated[Name | None, Field(description="that checkpoint; `none` is as if it were off")] = None
    refiner_switch_at: Annotated[Fraction, Field(description="the part of the steps after which it does")] = 0.8
    upscaler: Annotated[
        Name | None,
        Field(description="enlarges the finished picture: an upscale model, `Lanczos` or `Nearest`"),
    ] = None
    upscale_factor: Annotated[Factor, Field(description="by exactly this, whatever the upscale model's own is")] = 2.0
    restore_faces: Annotated[
        bool, Field(description="needs the nodes FaceRestoreModelLoader and FaceRestoreCFWithModel in the engine")
    ] = False
    face_restoration_model: Annotated[Name, Field(description="`codeformer`, `gfpgan`, or a file")] = "codeformer"
    codeformer_weight: Annotated[Fraction, Field(description="fidelity of the restored face")] = 0.5
    gfpgan_weight: Annotated[Fraction, Field(description="only named in `warnings`: those nodes have none")] = 0.5
    tiling: Annotated[
        bool,
        Field(description="seamless at all edges; needs the nodes SeamlessTile and CircularVAEDecode in the engine"),
    ] = False
    tile_size: Annotated[
        int,
        Field(ge=64, le=4096, description="pixels of the tiles in which pictures over 4 megapixels are decoded"),
        NotBool,
    ] = 512
    tile_overlap: Annotated[int, Field(ge=0, le=4096, description="pixels by which they overlap"), NotBool] = 64
    custom_workflow: Annotated[
        dict[str, Any] | None, Field(description="a graph of your own, in ComfyUI's API format")
    ] = None
    output_node: Annotated[
        Name | None,
        Field(
            coerce_numbers_to_str=True,
            description="the `SaveImage` of `custom_workflow`, by its id or title, whose picture is the answer to "
            "`Accept: image/...`; if left out, the last stage",
        ),
    ] = None
    preview: Annotated[bool, Field(description="small pictures of the work in progress, as events of the job")] = False


class Txt2ImgBody(GenerationBody):
    """A picture from words alone."""


class Img2ImgBody(GenerationBody):
    """A picture from words and a picture; with a mask, only what is white in the mask is repainted."""

    input_image: Annotated[
        PictureText,
        Field(description="data URL, base64, the file `image` of a form, or the name that an upload was given"),
    ]
    mask: Annotated[
        PictureText | None,
        Field(description="likewise, or the file `mask`; white is repainted, black stays exactly, grey blends the two"),
    ] = None
    denoising_strength: Annotated[
        Fraction | None,
        Field(
            description="how far the result may go from the source (denoise); 0.75 if left out, with a mask 1 (in the "
            "mode `refine` 0.75)"
        ),
    ] = None
    resize_mode: Annotated[
        ResizeMode,
        Field(description="stretch, cut to the proportions, or fill up with the edge's colours"),
    ] = "just_resize"
    inpaint_mode: Annotated[
        InpaintMode | None,
        Field(
            description="`fill` greys the hole first (VAEEncodeForInpaint), `refine` goes on from what is there "
            "(SetLatentNoiseMask), `model` is for inpainting checkpoints (InpaintModelConditioning); for those the "
            "default, else `fill`"
        ),
    ] = None
    grow_mask_by: Annotated[
        int,
        Field(ge=0, le=64, description="pixels by which `fill` repaints beyond the mask, to hide the seam"),
        NotBool,
    ] = 6
    mask_blur: Annotated[
        int,
        Field(
            ge=0,
            le=64,
            description="pixels to each side of the mask's edge over which the result fades into the source",
        ),
        NotBool,
    ] = 0
    invert_mask: Annotated[bool, Field(description="black is repainted, white stays")] = False
    only_masked: Annotated[
        bool, Field(description="draw only the mask's surroundings, at width x height, and paste them back")
    ] = False
    only_masked_padding: Annotated[
        int, Field(ge=0, le=1024, description="pixels of the source around the mask that are drawn along"), NotBool
    ] = 32
    outpaint_left: Annotated[int, Field(ge=0, le=2048, description="pixels to add"), NotBool] = 0
    outpaint_top: Annotated[int, Field(ge=0, le=2048, description="pixels to add"), NotBool] = 0
    outpaint_right: Annotated[int, Field(ge=0, le=2048, description="pixels to add"), NotBool] = 0
    outpaint_bottom: Annotated[int, Field(ge=0, le=2048, description="pixels to add"), NotBool] = 0
    outpaint_feathering: Annotated[
        int, Field(ge=0, le=512, description="pixels of the source over which what is added fades in"), NotBool
    ] = 16


class UpscaleBody(Body):
    """A finished picture, enlarged."""

    image: Annotated[
        PictureText,
        Field(description="data URL, base64, the file `image` of a form, or the name that an upload was given"),
    ]
    upscaler: Annotated[Name, Field(description="an upscale model, `Lanczos`, `Nearest`, ...")] = "Lanczos"
    upscale_factor: Annotated[Factor, Field(description="by exactly this, whatever the upscale model's own is")] = 2.0
    restore_faces: Annotated[
        bool, Field(description="needs the nodes FaceRestoreModelLoader and FaceRestoreCFWithModel in the engine")
    ] = False
    face_restoration_model: Annotated[Name, Field(description="`codeformer`, `gfpgan`, or a file")] = "codeformer"
    codeformer_weight: Annotated[Fraction, Field(description="fidelity of the restored face")] = 0.5


class ExtrasBody(Body):
    """What the web page's extras ask for, beside the picture: upscalers and face restorers, laid over each other."""

    upscaler_model: Annotated[Name, Field(description="an upscale model, `Lanczos`, `Nearest`, ... or `none`")] = (
        "Lanczos"
    )
    upscaler_visibility: Annotated[
        Fraction, Field(description="how much of it shows over the picture plainly enlarged")
    ] = 1.0
    upscaler_model_2: Annotated[Name, Field(description="likewise, a second one")] = "none"
    upscaler_visibility_2: Annotated[Fraction, Field(description="how much of it shows over the first")] = 0.0
    upscale_factor: Annotated[
        Factor | None, Field(description="by exactly this; if left out, the number in the name of the upscaler, or 2")
    ] = None
    gfpgan_visibility: Annotated[Fraction, Field(description="how much shows of faces that GFPGAN restored")] = 0.0
    codeformer_visibility: Annotated[
        Fraction, Field(description="how much shows of faces that CodeFormer restored")
    ] = 0.0
    codeformer_weight: Annotated[Fraction, Field(description="fidelity of the faces that CodeFormer restores")] = 0.5
    output_format: Annotated[
        Literal["png", "jpg", "jpeg", "webp"],
        AnySpelling({f"{before}{name}": name for name in ("png", "jpg", "jpeg", "webp") for before in ("image/", ".")}),
        Field(description="of the picture that `output_image` leads to"),
    ] = "png"
