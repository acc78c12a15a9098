"""Parses the requests of txt2img and img2img: the recipes that put the parts together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from shared.schema.body import (
    CustomImg2ImgOptions,
    CustomTxt2ImgBody,
    GenerationBody,
    Img2ImgBody,
    Img2ImgOptions,
    Txt2ImgBody,
)
from shared.schema.request import GenerationRequest, Img2ImgRequest, Tiles, Txt2ImgRequest
from shared.web.parsing.canvas import Canvas, choose_canvas, hires_fix_parameters, second_pass
from shared.web.parsing.controlnet import is_on, parse_controls, unit_field
from shared.web.parsing.loras import choose_loras
from shared.web.parsing.models import ChosenModels, choose_models
from shared.web.parsing.parser import PICTURE_FIELDS, Parser, ParsingContext
from shared.web.parsing.prompts import parse_prompts
from shared.web.parsing.sampling import choose_refiner, choose_sampling, choose_seeds
from shared.web.parsing.source import parse_img2img_source
from shared.web.parsing.unused_fields import inactive_fields, ineffective_fields
from shared.web.parsing.upscale import choose_faces, choose_hires, choose_upscale, hires_substitute
from shared.web.request_body import Fields

R = TypeVar("R", bound=GenerationRequest)

# Fields that are never parameters, or that another parameter replaces.
NOT_PARAMETERS = {
    *PICTURE_FIELDS,
    *("controlnet", "custom_workflow", "output_node", "preview", "karras_sigmas", "random_seed"),
}
# Parameters that are always reported, whether or not they differ from their defaults.
ALWAYS_REPORTED = ("prompt", "negative_prompt", "batch_size", "batch_count")


@dataclass(frozen=True)
class ParsedRequest(Generic[R]):
    """A parsed request, and what is reported of it.

    `parameters` are the same request in the fields of the API: sent again, they make the same pictures.
    `explicit_fields` are those parameters that the client decided. `raw_uploads` are the pictures as they were sent, by
    the names that `parameters` has for them. `hires_fix_parameters` replace some of `parameters` for programs that do
    not know large_sizes.
    """

    request: R
    parameters: dict[str, Any]
    explicit_fields: frozenset[str]
    warnings: list[str]
    raw_uploads: dict[str, bytes]
    preview: bool
    hires_fix_parameters: dict[str, Any]


def parse_txt2img(fields: Fields, context: ParsingContext) -> ParsedRequest[Txt2ImgRequest]:
    """Parse a txt2img request. Raises InvalidValue, InvalidPicture, EngineUnavailable."""
    parser = Parser(fields, context)
    body = _read_txt2img_body(parser)
    models = choose_models(parser, body)
    canvas = choose_canvas(parser, body, models)
    request = Txt2ImgRequest(**vars(_parse_generation(parser, body, models, canvas)))
    return _parsed(parser, body, models, canvas, request)


def parse_img2img(fields: Fields, context: ParsingContext) -> ParsedRequest[Img2ImgRequest]:
    """Parse an img2img request. Raises InvalidValue, InvalidPicture, EngineUnavailable."""
    parser = Parser(fields, context)
    body = _read_img2img_body(parser)
    models = choose_models(parser, body)
    source = parse_img2img_source(parser, body, models)
    request = Img2ImgRequest(
        **vars(_parse_generation(parser, body, models, source.canvas)),
        source=source.picture,
        inpainting=source.inpainting,
    )
    return _parsed(parser, body, models, source.canvas, request)


def _read_txt2img_body(parser: Parser) -> GenerationBody:
    model = Txt2ImgBody if parser.custom_graph is None else CustomTxt2ImgBody
    body = parser.read_body(model, Txt2ImgBody, known={"denoising_strength"})
    sent = {name: value for name, value in parser.fields.values.items() if value not in (None, "")}
    # The web page always sends the fields of all parts, and means nothing by it.
    sends_all = "hires_fix_denoising_strength" in sent or {"hires_fix", "hires_fix_enabled"} <= sent.keys()
    if "denoising_strength" in sent and not sends_all:
        parser.warn(
            "denoising_strength has no effect in txt2img, which starts from noise alone; the second pass of hires_fix "
            "has hires_fix_denoising_strength"
        )
    return body


def _read_img2img_body(parser: Parser) -> Img2ImgOptions:
    model = Img2ImgOptions if parser.custom_graph is None else CustomImg2ImgOptions
    return parser.read_body(model, Img2ImgBody, known={"image"})


def _parse_generation(parser: Parser, body: GenerationBody, models: ChosenModels, canvas: Canvas) -> GenerationRequest:
    """Parse what txt2img and img2img have in common."""
    prompts = parse_prompts(parser, body, models)
    sampling, guidance = choose_sampling(parser, body, models, canvas.denoise)
    controls = parse_controls(parser, body.controlnet, canvas.size, canvas.image, models.file)
    if canvas.enlarged is None:
        hires = choose_hires(parser, body, canvas.size, sampling)
    else:
        hires = second_pass(canvas.size, canvas.enlarged, sampling)
    finished_size = canvas.whole or (canvas.size if hires is None else hires.size)
    return GenerationRequest(
        prompt=prompts.prompt,
        negative_prompt=prompts.negative_prompt,
        size=canvas.size,
        seeds=choose_seeds(body),
        models=models.files,
        sampling=sampling,
        tiles=Tiles(body.tile_size, body.tile_overlap),
        guidance=guidance,
        clip_skip=body.clip_skip,
        loras=choose_loras(parser.catalog, body, prompts.tagged_loras, models.file),
        controls=controls,
        refiner=choose_refiner(parser.catalog, body, sampling, models.file),
        hires=hires,
        faces=choose_faces(parser, body),
        upscale=choose_upscale(parser.catalog, body, finished_size),
        seamless=body.tiling,
    )


def _parsed(parser: Parser, body: GenerationBody, models: ChosenModels, canvas: Canvas, request: R) -> ParsedRequest[R]:
    if parser.custom_graph is None:
        parser.warn(*ineffective_fields(body, request))
    parameters = _parameters(parser, body, models, canvas, request)
    return ParsedRequest(
        request,
        parameters,
        _explicit_fields(body, parameters),
        parser.warnings,
        parser.pictures.raw_uploads,
        body.preview,
        hires_fix_parameters(request.size, request.hires) if canvas.enlarged and request.hires else {},
    )


def _parameters(
    parser: Parser, body: GenerationBody, models: ChosenModels, canvas: Canvas, request: GenerationRequest
) -> dict[str, Any]:
    """Return the request in the fields of the API: values that were chosen, and those sent that are not defaults.

    Fields of parts that are off are left out.
    """
    sent = body.model_dump(mode="json", exclude_defaults=True, exclude={*NOT_PARAMETERS, *inactive_fields(body)})
    parameters = {
        **{name: getattr(body, name) for name in ALWAYS_REPORTED},
        **sent,
        "model_name": models.name,
        "width": canvas.asked[0],
        "height": canvas.asked[1],
        "steps": request.sampling.steps,
        "cfg_scale": request.sampling.cfg,
        "sampler_name": request.sampling.sampler,
        "scheduler": request.sampling.scheduler,
        "seed": request.seeds[0],
    }
    if request.guidance is not None:
        parameters["guidance"] = request.guidance
    substitute = None if canvas.enlarged else hires_substitute(body, request.hires)
    if substitute is not None:
        parameters["hires_fix_upscaler"] = substitute
    if body.controlnet is not None and body.controlnet.enabled:
        parameters["controlnet"] = {"units": _unit_parameters(parser, body)}
    if isinstance(request, Img2ImgRequest):
        parameters |= _source_parameters(parser, canvas, request)
    return parameters


def _unit_parameters(parser: Parser, body: GenerationBody) -> list[dict[str, Any]]:
    """Return the units that are on, with names of uploads in place of their pictures."""
    units = []
    for index, unit in enumerate(body.controlnet.units if body.controlnet is not None else ()):
        if is_on(unit):
            parameters = unit.model_dump(mode="json", exclude_defaults=True)
            if unit.input_image is not None:
                parameters["input_image"] = parser.pictures.upload_names[f"{unit_field(index)}.input_image"]
            units.append(parameters)
    return units


def _source_parameters(parser: Parser, canvas: Canvas, request: Img2ImgRequest) -> dict[str, Any]:
    names = parser.pictures.upload_names
    parameters: dict[str, Any] = {name: names[name] for name in ("input_image", "mask") if name in names}
    parameters["denoising_strength"] = canvas.denoise
    if request.inpainting is not None:
        parameters["inpaint_mode"] = request.inpainting.mode
    return parameters


def _explicit_fields(body: GenerationBody, parameters: Mapping[str, Any]) -> frozenset[str]:
    """Return the parameters that the client decided, by their own name or by a field that replaces them."""
    sent = set(body.model_fields_set)
    if body.random_seed:
        sent.add("seed")
    # The label of a sampler may name the scheduler too.
    label = body.sampler_name.lower().replace(" ", "_").replace("-", "_")
    if body.karras_sigmas or label.endswith(f"_{parameters['scheduler']}"):
        sent.add("scheduler")
    return frozenset(sent & parameters.keys())
