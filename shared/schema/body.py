"""The fields that a client may send, each with its type, range, default and description.

The names are those of the web page. A default of None depends on other fields or on the model, as the description says.
The tables of docs/api.md and the OpenAPI document are generated from these models.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from shared.schema.choices import AnySpelling
from shared.schema.ranges import (
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

LargeSizes = Annotated[Literal["two_passes", "direct"], AnySpelling()]
# Texts of a form for a switch that is off: those that pydantic reads as false, and those for no value.
OFF = ("false", "0", "0.0", "off", "no", "n", "f", "none", "null", "undefined", "")
# Other spellings of each choice: those of the web page and of AUTOMATIC1111, which also has numbers.
InpaintMode = Annotated[Literal["fill", "refine", "model"], AnySpelling({"original": "refine"})]
# Former names of "Crop and Resize" and "Resize and Fill" in the ControlNet extension of AUTOMATIC1111.
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


class RequestBody(BaseModel):
    """Base of all request bodies. Unknown fields are ignored here, and listed in the warnings of the reply."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=(), populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _merge_switches(cls, values: Any) -> Any:
        """Switches a part on if any of the switch's names does: the web page sends two names of one switch."""
        if not isinstance(values, Mapping):
            return values
        ignored: set[str] = set()
        for field in cls.model_fields.values():
            if field.annotation is bool and isinstance(field.validation_alias, AliasChoices):
                sent = [str(name) for name in field.validation_alias.choices if name in values]
                on = [name for name in sent if not _is_off(values[name])]
                ignored |= set(sent) - set((on or sent)[:1])
        return {name: value for name, value in values.items() if name not in ignored}


class LoraBody(RequestBody):
    """One LoRA."""

    lora_name: Annotated[Name, Field(description="file of the LoRA")]
    strength_model: Annotated[Strength, Field(description="effect on the model; 0 is none")] = 1.0
    strength_clip: Annotated[
        Strength | None, Field(description="effect on the text encoder; default: `strength_model`")
    ] = None
    enabled: Annotated[bool, Field(description="`false` ignores this LoRA")] = True


class ControlUnitBody(RequestBody):
    """One ControlNet: a picture that guides the drawing."""

    enabled: Annotated[bool, Field(description="`false` ignores this unit")] = True
    model: Annotated[Name | None, Field(description="file of the ControlNet")] = None
    input_image: Annotated[
        PictureText | None,
        Field(
            description="picture that guides: data URL, base64, or the name of an upload; default in "
            "img2img: the source"
        ),
    ] = None
    preprocessor: Annotated[
        Name | None,
        Field(
            description="`none` if the picture is a control map already, `canny`, or another that the "
            "engine has (GET /api/options lists them)"
        ),
    ] = None
    control_type: Annotated[
        Name | None,
        Field(description="type of control, such as `canny`; the preprocessor if `preprocessor` is left out"),
    ] = None
    weight: Annotated[Weight, Field(description="strength; 0 turns it off")] = 1.0
    guidance_start: Annotated[Fraction, Field(description="share of the sampling at which it starts")] = 0.0
    guidance_end: Annotated[Fraction, Field(description="share of the sampling at which it ends")] = 1.0
    control_mode: Annotated[
        ControlMode,
        Field(
            description="`prompt` favours the prompt (0.4 of the weight), `control` favours the "
            "ControlNet (it does not apply to the negative prompt)"
        ),
    ] = "balanced"
    resize_mode: Annotated[ResizeMode, Field(description="how the picture is fitted to `width` x `height`")] = (
        "just_resize"
    )
    resolution: Annotated[
        Annotated[int, Field(ge=64, le=2048), NotBool] | None,
        Field(description="short side in pixels at which the preprocessor works; default: the picture's own"),
    ] = None
    pixel_perfect: Annotated[bool, Field(description="`true` ignores `resolution` and uses the picture's own")] = False
    threshold_a: Annotated[float, Field(ge=0, le=255, description="low threshold of canny"), NotBool] = 100
    threshold_b: Annotated[float, Field(ge=0, le=255, description="high threshold of canny"), NotBool] = 200


class ControlNetBody(RequestBody):
    """The ControlNets of a request."""

    enabled: Annotated[bool, Field(description="`false` ignores all units")] = True
    units: Annotated[
        tuple[ControlUnitBody, ...], Field(max_length=8, description="the ControlNets, applied in order")
    ] = ()


class GenerationBody(RequestBody):
    """What txt2img and img2img have in common."""

    prompt: Annotated[
        Text,
        Field(description="what the picture shows; `<lora:name:0.8>` adds a LoRA, `embedding:name` an embedding"),
    ]
    negative_prompt: Annotated[Text, Field(description="what the picture should not show")] = ""
    model_name: Annotated[
        Name | None,
        Field(description="checkpoint, or diffusion model in a file of its own; default: your first one"),
    ] = None
    vae_name: Annotated[
        Name | None,
        Field(
            validation_alias=AliasChoices("vae_name", "vae"),
            description="VAE that replaces the checkpoint's; `automatic` keeps it",
        ),
    ] = None
    text_encoders: Annotated[
        tuple[Name, ...] | None,
        Field(
            max_length=3,
            description="text encoders of a diffusion model in a file of its own; default: those that fit it",
        ),
    ] = None
    width: Annotated[Side | None, Field(description="pixels; default: the model's own size")] = None
    height: Annotated[Side | None, Field(description="pixels; default: the model's own size")] = None
    steps: Annotated[Steps | None, Field(description="sampling steps; default: what suits the model")] = None
    cfg_scale: Annotated[
        Scale | None,
        Field(description="how closely the picture follows the prompt; default: what suits the model"),
    ] = None
    guidance: Annotated[
        Scale | None,
        Field(description="guidance of Flux models; default: `cfg_scale`"),
    ] = None
    sampler_name: Annotated[
        Name,
        Field(
            description="ComfyUI's name (`dpmpp_2m`), AUTOMATIC1111's label (`DPM++ 2M Karras`), or the web page's id"
        ),
    ] = "euler"
    scheduler: Annotated[
        Name | None,
        Field(
            description="such as `karras`; default: what suits the model; one in the sampler's label takes precedence"
        ),
    ] = None
    karras_sigmas: Annotated[bool, Field(description="`true` selects the scheduler `karras`")] = False
    seed: Annotated[
        int,
        Field(ge=-1, le=MAX_SEED, description="seed of the first picture, plus 1 for each further one; -1 is random"),
        NotBool,
    ] = -1
    random_seed: Annotated[bool, Field(description="`true` ignores `seed` and picks a random one")] = False
    batch_size: Annotated[
        int, Field(ge=1, le=16, description="pictures in a batch, each with its own seed"), NotBool
    ] = 1
    batch_count: Annotated[int, Field(ge=1, le=16, description="number of batches"), NotBool] = 1
    clip_skip: Annotated[
        int,
        Field(ge=1, le=12, description="layer of the text encoder to use, counted from the last"),
        NotBool,
    ] = 1
    lora: Annotated[LoraBody | None, Field(description="one LoRA")] = None
    loras: Annotated[tuple[LoraBody, ...], Field(max_length=16, description="several LoRAs, applied in order")] = ()
    controlnet: Annotated[ControlNetBody | None, Field(description="pictures that guide the composition")] = None
    hires_fix: Annotated[
        bool,
        Field(
            validation_alias=AliasChoices("hires_fix_enabled", "hires_fix"),
            description="enlarge the picture and refine it in a second pass; either name turns it on",
        ),
    ] = False
    hires_fix_upscaler: Annotated[
        Name,
        Field(
            description="`Latent`, `Latent (nearest)`, `Latent (bicubic)`, `Lanczos`, `Nearest`, or an "
            "upscale model; Lanczos replaces one that is not installed"
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
        Field(description="`upscale-by` uses the factor, `resize-to` the width and height"),
    ] = "upscale-by"
    hires_fix_upscale_factor: Annotated[Factor, Field(description="for `upscale-by`: factor of width and height")] = 2.0
    hires_fix_resize_width: Annotated[Side | None, Field(description="for `resize-to`: pixels")] = None
    hires_fix_resize_height: Annotated[Side | None, Field(description="for `resize-to`: pixels")] = None
    hires_fix_hires_steps: Annotated[
        int, Field(ge=0, le=1000, description="steps of the second pass; 0 means as many as the first"), NotBool
    ] = 0
    hires_fix_denoising_strength: Annotated[Fraction, Field(description="how much the second pass changes")] = 0.5
    hires_fix_sampler_name: Annotated[
        Name | None, Field(description="sampler of the second pass; default: that of the first")
    ] = None
    hires_fix_scheduler: Annotated[
        Name | None, Field(description="scheduler of the second pass; default: that of the first")
    ] = None
    hires_fix_cfg_scale: Annotated[
        Scale | None, Field(description="cfg of the second pass; default: that of the first")
    ] = None
    large_sizes: Annotated[
        LargeSizes,
        Field(
            description="sizes far beyond the model's own: `two_passes` starts at its own size, then "
            "enlarges and refines; `direct` uses one pass"
        ),
    ] = "two_passes"
    refiner_enabled: Annotated[
        bool,
        Field(description="another checkpoint finishes the picture, without LoRAs, ControlNet and `clip_skip`"),
    ] = False
    refiner_model: Annotated[
        Name | None, Field(description="checkpoint that takes over; `none` turns the refiner off")
    ] = None
    refiner_switch_at: Annotated[Fraction, Field(description="share of the steps after which it takes over")] = 0.8
    upscaler: Annotated[
        Name | None,
        Field(description="enlarges the finished picture: an upscale model, `Lanczos` or `Nearest`"),
    ] = None
    upscale_factor: Annotated[
        Factor, Field(description="factor of width and height, whatever the upscale model's own is")
    ] = 2.0
    restore_faces: Annotated[
        bool,
        Field(description="restore faces; needs the custom nodes FaceRestoreModelLoader and FaceRestoreCFWithModel"),
    ] = False
    face_restoration_model: Annotated[Name, Field(description="`codeformer`, `gfpgan`, or a file")] = "codeformer"
    codeformer_weight: Annotated[Fraction, Field(description="fidelity of the restored face")] = 0.5
    gfpgan_weight: Annotated[
        Fraction, Field(description="no effect, because the nodes have no such input; named in `warnings`")
    ] = 0.5
    tiling: Annotated[
        bool,
        Field(description="seamless at all edges; needs the custom nodes SeamlessTile and CircularVAEDecode"),
    ] = False
    tile_size: Annotated[
        int,
        Field(
            ge=64, le=4096, description="size in pixels of the tiles in which pictures over 4 megapixels are decoded"
        ),
        NotBool,
    ] = 512
    tile_overlap: Annotated[int, Field(ge=0, le=4096, description="pixels by which the tiles overlap"), NotBool] = 64
    custom_workflow: Annotated[dict[str, Any] | None, Field(description="your own graph, in ComfyUI's API format")] = (
        None
    )
    output_node: Annotated[
        Name | None,
        Field(
            coerce_numbers_to_str=True,
            description="id or title of the `SaveImage` of `custom_workflow` whose picture answers "
            "`Accept: image/...`; default: the last stage",
        ),
    ] = None
    preview: Annotated[bool, Field(description="send small pictures of the work in progress as events")] = False


class Txt2ImgBody(GenerationBody):
    """A picture from words alone."""


class CustomTxt2ImgBody(Txt2ImgBody):
    """A txt2img request with a custom graph, which has prompts of its own."""

    prompt: Annotated[Text, Field(description="replaces the prompt of the graph")] = ""


class _Img2ImgPictures(GenerationBody):
    """The pictures of img2img."""

    input_image: Annotated[
        PictureText,
        Field(description="source: data URL, base64, the file `image` of a form, or the name of an upload"),
    ]
    mask: Annotated[
        PictureText | None,
        Field(
            description="data URL, base64, the file `mask`, or the name of an upload; white is "
            "repainted, black is kept, grey blends"
        ),
    ] = None


class Img2ImgOptions(GenerationBody):
    """The fields of img2img without its pictures, which may also be files of a form."""

    denoising_strength: Annotated[
        Fraction | None,
        Field(
            description="how far the result may differ from the source; default: 0.75, with a mask 1 "
            "(0.75 in the mode `refine`)"
        ),
    ] = None
    resize_mode: Annotated[
        ResizeMode,
        Field(description="stretch the source, crop it to the proportions, or fill up with the colours of its edges"),
    ] = "just_resize"
    inpaint_mode: Annotated[
        InpaintMode | None,
        Field(
            description="`fill` replaces the masked part (VAEEncodeForInpaint), `refine` changes it "
            "(SetLatentNoiseMask), `model` uses an inpainting checkpoint "
            "(InpaintModelConditioning); default: `model` for such checkpoints, else `fill`"
        ),
    ] = None
    grow_mask_by: Annotated[
        int,
        Field(ge=0, le=64, description="pixels beyond the mask that `fill` repaints, to hide the seam"),
        NotBool,
    ] = 6
    mask_blur: Annotated[
        int,
        Field(
            ge=0,
            le=64,
            description="pixels on each side of the mask's edge over which result and source blend",
        ),
        NotBool,
    ] = 0
    invert_mask: Annotated[bool, Field(description="repaint black, keep white")] = False
    only_masked: Annotated[
        bool, Field(description="generate only the mask's surroundings, at `width` x `height`, and paste them back")
    ] = False
    only_masked_padding: Annotated[
        int, Field(ge=0, le=1024, description="pixels around the mask that are generated with it"), NotBool
    ] = 32
    outpaint_left: Annotated[int, Field(ge=0, le=2048, description="pixels to add on the left"), NotBool] = 0
    outpaint_top: Annotated[int, Field(ge=0, le=2048, description="pixels to add at the top"), NotBool] = 0
    outpaint_right: Annotated[int, Field(ge=0, le=2048, description="pixels to add on the right"), NotBool] = 0
    outpaint_bottom: Annotated[int, Field(ge=0, le=2048, description="pixels to add at the bottom"), NotBool] = 0
    outpaint_feathering: Annotated[
        int, Field(ge=0, le=512, description="pixels of the source over which the added part blends in"), NotBool
    ] = 16


class CustomImg2ImgOptions(Img2ImgOptions):
    """The fields of an img2img request with a custom graph, which has prompts of its own."""

    prompt: Annotated[Text, Field(description="replaces the prompt of the graph")] = ""


# In this order of bases, the schema lists the pictures before the options.
class Img2ImgBody(Img2ImgOptions, _Img2ImgPictures):
    """A picture from words and a picture; with a mask, only what is white in the mask is repainted."""


class _UpscalePicture(RequestBody):
    """The picture of an upscale request."""

    image: Annotated[
        PictureText,
        Field(description="data URL, base64, the file `image` of a form, or the name of an upload"),
    ]


class UpscaleOptions(RequestBody):
    """The fields of an upscale request without its picture, which may also be a file of a form."""

    upscaler: Annotated[Name, Field(description="an upscale model, `Lanczos`, `Nearest`, ...")] = "Lanczos"
    upscale_factor: Annotated[
        Factor, Field(description="factor of width and height, whatever the upscale model's own is")
    ] = 2.0
    restore_faces: Annotated[
        bool,
        Field(description="restore faces; needs the custom nodes FaceRestoreModelLoader and FaceRestoreCFWithModel"),
    ] = False
    face_restoration_model: Annotated[Name, Field(description="`codeformer`, `gfpgan`, or a file")] = "codeformer"
    codeformer_weight: Annotated[Fraction, Field(description="fidelity of the restored face")] = 0.5


class UpscaleBody(UpscaleOptions, _UpscalePicture):
    """A finished picture, enlarged."""


class ExtrasBody(RequestBody):
    """The fields of the web page's extras: upscalers and face restorers, blended over each other."""

    upscaler_model: Annotated[Name, Field(description="an upscale model, `Lanczos`, `Nearest`, ..., or `none`")] = (
        "Lanczos"
    )
    upscaler_visibility: Annotated[
        Fraction, Field(description="opacity of its result over the plainly enlarged picture")
    ] = 1.0
    upscaler_model_2: Annotated[Name, Field(description="a second upscaler")] = "none"
    upscaler_visibility_2: Annotated[Fraction, Field(description="opacity of its result over the first")] = 0.0
    upscale_factor: Annotated[
        Factor | None, Field(description="factor of width and height; default: the number in the upscaler's name, or 2")
    ] = None
    gfpgan_visibility: Annotated[Fraction, Field(description="opacity of faces restored by GFPGAN")] = 0.0
    codeformer_visibility: Annotated[Fraction, Field(description="opacity of faces restored by CodeFormer")] = 0.0
    codeformer_weight: Annotated[Fraction, Field(description="fidelity of faces restored by CodeFormer")] = 0.5
    output_format: Annotated[
        Literal["png", "jpg", "jpeg", "webp"],
        AnySpelling({f"{before}{name}": name for name in ("png", "jpg", "jpeg", "webp") for before in ("image/", ".")}),
        Field(description="format of the picture at `output_image`"),
    ] = "png"
