"""The way from what a client sent to a request with everything resolved."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from shared.images.budget import MemoryBudget
from shared.models.detect import ModelFile
from shared.schema.body import GenerationBody, Img2ImgBody, LoraBody, Txt2ImgBody
from shared.schema.choices import is_no_choice
from shared.schema.request import GenerationRequest, Img2ImgRequest, Lora, Sampling, Tiles, Txt2ImgRequest
from shared.web.body import Fields
from shared.web.parsing.compatibility import find_fitting
from shared.web.parsing.control import is_on, read_controls
from shared.web.parsing.large_sizes import as_hires_fix, first_pass_size, hole_warning, second_pass, size_warning
from shared.web.parsing.model_catalog import ModelCatalog
from shared.web.parsing.models import Chosen, choose_models, models_of_a_graph
from shared.web.parsing.pictures import SentPictures
from shared.web.parsing.prompts import embedding_files, misplaced_loras, read_prompt, take_loras
from shared.web.parsing.sampling import check_steps, choose_cfg, choose_names, choose_refiner, choose_seeds
from shared.web.parsing.sources import AlphaUse, Canvas, drawn_small, read_source
from shared.web.parsing.starter_words import starter_warnings
from shared.web.parsing.unused_fields import idle, unchosen_parts_off, unswitched, without_effect
from shared.web.parsing.upscale import choose_faces, choose_hires, choose_upscale, hires_upscaler
from shared.web.parsing.validate import ignored, tidy, validate

R = TypeVar("R", bound=GenerationRequest)

FROM_FIELDS = {"input_image", "mask"}
# Stands in for the picture that is read apart.
NO_PICTURE = {"input_image": ""}
# Of the parameters: told by the names of what was sent, or not at all.
LEFT_OUT = {*FROM_FIELDS, "controlnet", "custom_workflow", "output_node", "preview"}
# Always told, whether or not they differ from their defaults.
ALWAYS = (
    *("prompt", "negative_prompt", "model_name", "width", "height", "steps", "cfg_scale", "sampler_name"),
    *("scheduler", "seed", "batch_size", "batch_count"),
)


@dataclass(frozen=True)
class ParsedRequest(Generic[R]):
    """A request, and what else is to be known of it.

    `parameters` say the same as `request`, in the fields of the API: sent again, they make the same pictures. `said`
    are those that the client decided. `kept` are the pictures as they were sent, by the names that stand for
    them in `parameters`. `spelled_out` replaces some of `parameters` for programs that know no `large_sizes`.
    """

    request: R
    parameters: dict[str, Any]
    said: frozenset[str]
    warnings: list[str]
    kept: dict[str, bytes]
    preview: bool
    spelled_out: dict[str, Any]


@dataclass(frozen=True)
class Context:
    """What reading needs to know besides the fields: the settings' checkpoint, the engine, what was uploaded, and
    whether the graph is the client's own (`custom`): then its nodes decide what has an effect, and on which size. Also
    the room for pictures (`budget`), and what that graph takes from transparency (`alpha`)."""

    preferred: str | None
    catalog: ModelCatalog
    stored: Callable[[str], bytes | None]
    custom: bool = False
    budget: MemoryBudget | None = None
    alpha: AlphaUse | None = None


def read_txt2img(fields: Fields, context: Context) -> ParsedRequest[Txt2ImgRequest]:
    """The request in `fields`. Raises InvalidValue, InvalidPicture, EngineUnavailable."""
    values = tidy(fields.values)
    body, without_choice = unchosen_parts_off(validate(Txt2ImgBody, values))
    warnings = without_choice + ignored({**values, **fields.files}, Txt2ImgBody, {"denoising_strength"})
    if "denoising_strength" in values and not _sends_all_parts(values):
        warnings.append(
            "denoising_strength has no effect in txt2img, which starts from noise alone; the second pass of hires_fix "
            "has hires_fix_denoising_strength"
        )
    warnings += unswitched(body)
    chosen = _choose_models(body, context)
    warnings += chosen.warnings
    size = (body.width or chosen.defaults.width, body.height or chosen.defaults.height)
    sent = SentPictures(fields, context.stored, context.budget)
    first = None if context.custom else first_pass_size(size, chosen)
    if (warning := size_warning(body, chosen, size, first)) is not None:
        warnings.append(warning)
    frame = Canvas(size, asked=size)
    if first is not None and body.large_sizes == "two_passes" and not body.hires_fix:
        frame = Canvas(first, asked=size, enlarged=size)
    parts, parameters = _common(body, chosen, frame, sent, context, warnings)
    warnings += sent.warnings
    request = Txt2ImgRequest(**parts)
    warnings += [] if context.custom else without_effect(body, request)
    spelled_out = as_hires_fix(request.size, request.hires) if frame.enlarged and request.hires else {}
    return ParsedRequest(request, parameters, _said(body, parameters), warnings, sent.kept, body.preview, spelled_out)


def _sends_all_parts(values: Mapping[str, Any]) -> bool:
    """Whether the client sends the fields of all parts each time, as the web page does, and means nothing by it."""
    return "hires_fix_denoising_strength" in values or {"hires_fix", "hires_fix_enabled"} <= values.keys()


def read_img2img(fields: Fields, context: Context) -> ParsedRequest[Img2ImgRequest]:
    """Like `read_txt2img`, with the picture and the mask."""
    values = tidy(fields.values)
    # The pictures are read from `fields`, for they may be files.
    body, without_choice = unchosen_parts_off(
        validate(Img2ImgBody, {name: value for name, value in values.items() if name not in FROM_FIELDS} | NO_PICTURE)
    )
    warnings = [*without_choice, *ignored({**values, **fields.files}, Img2ImgBody, {"image"}), *unswitched(body)]
    chosen = _choose_models(body, context)
    warnings += chosen.warnings
    sent = SentPictures(fields, context.stored, context.budget)
    source = read_source(body, chosen, sent, warnings, custom=(context.alpha or AlphaUse()) if context.custom else None)
    first = None if context.custom or source.frame.denoise < 1 else first_pass_size(source.painted, chosen)
    if source.inpainting is not None:
        warnings += [] if first is None else [hole_warning(source.painted, chosen)]
    else:
        if (warning := size_warning(body, chosen, source.frame.size, first)) is not None:
            warnings.append(warning)
        if first is not None and body.large_sizes == "two_passes" and not body.hires_fix:
            source = drawn_small(source, first)
    parts, parameters = _common(body, chosen, source.frame, sent, context, warnings)
    warnings += sent.warnings
    parameters |= {**source.names, "denoising_strength": source.frame.denoise}
    if source.inpainting is not None:
        parameters["inpaint_mode"] = source.inpainting.mode
    request = Img2ImgRequest(**parts, source=source.picture, inpainting=source.inpainting)
    warnings += [] if context.custom else without_effect(body, request)
    spelled_out = as_hires_fix(request.size, request.hires) if source.frame.enlarged and request.hires else {}
    return ParsedRequest(request, parameters, _said(body, parameters), warnings, sent.kept, body.preview, spelled_out)


def _choose_models(body: GenerationBody, context: Context) -> Chosen:
    if context.custom:
        return models_of_a_graph(body, context.catalog)
    return choose_models(body, context.preferred, context.catalog)


def _common(
    body: GenerationBody,
    chosen: Chosen,
    frame: Canvas,
    sent: SentPictures,
    context: Context,
    warnings: list[str],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What every request holds, and the parameters that say the same."""
    catalog = context.catalog
    embeddings = embedding_files(catalog, body.prompt, body.negative_prompt)
    prompt, tagged = take_loras(body.prompt)
    prompt, odd = read_prompt(prompt, "prompt", embeddings)
    negative_prompt, odd_too = read_prompt(body.negative_prompt, "negative_prompt", embeddings)
    warnings += odd + misplaced_loras(negative_prompt) + odd_too
    if not context.custom and not chosen.models.text_encoders:
        warnings += starter_warnings(chosen.file, [prompt], [negative_prompt], embeddings)
    names = choose_names(
        body.sampler_name,
        body.scheduler,
        chosen.defaults.scheduler,
        catalog,
        warnings,
        karras=body.karras_sigmas,
    )
    cfg, guidance = choose_cfg(body, chosen, warnings)
    sampling = Sampling(
        steps=body.steps or chosen.defaults.steps,
        cfg=cfg,
        sampler=names.sampler,
        scheduler=names.scheduler,
        denoise=frame.denoise,
    )
    check_steps(sampling, "steps", "denoising_strength")
    if sampling.sampler == "dpm_adaptive":
        warnings.append(
            "dpm_adaptive chooses its steps itself, and may never come to an end; here they are even, and as many as "
            "steps allows (each asks the model three times)"
        )
    controls, control_names = read_controls(
        body.controlnet, frame.size, frame.image, sent, catalog, chosen.file, warnings
    )
    if frame.enlarged is None:
        hires = choose_hires(body, frame.size, sampling, catalog, warnings)
    else:
        hires = second_pass(frame.size, frame.enlarged, sampling)
    upscaler = None if frame.enlarged else hires_upscaler(body, hires)
    finished = frame.whole or (frame.size if hires is None else hires.size)
    seeds = choose_seeds(body)
    parts = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "size": frame.size,
        "seeds": seeds,
        "models": chosen.models,
        "sampling": sampling,
        "tiles": Tiles(body.tile_size, body.tile_overlap),
        "guidance": guidance,
        "clip_skip": body.clip_skip,
        "loras": _loras(body, tagged, catalog, chosen.file),
        "controls": controls,
        "refiner": choose_refiner(body, sampling, catalog, chosen.file),
        "hires": hires,
        "faces": choose_faces(body, warnings),
        "upscale": choose_upscale(body, finished, catalog),
        "seamless": body.tiling,
    }
    resolved = {
        "model_name": chosen.name,
        "width": frame.asked[0],
        "height": frame.asked[1],
        "steps": sampling.steps,
        "cfg_scale": cfg,
        "sampler_name": sampling.sampler,
        "scheduler": sampling.scheduler,
        "seed": seeds[0],
        **({} if upscaler is None else {"hires_fix_upscaler": upscaler}),
    }
    return parts, _parameters(body, resolved, guidance, control_names)


def _said(body: GenerationBody, parameters: Mapping[str, Any]) -> frozenset[str]:
    """The parameters that the client decided: by their names, or by another that stands for one of them."""
    said = set(body.model_fields_set)
    if body.random_seed:
        said.add("seed")
    # A sampler's label may name the scheduler too.
    if body.karras_sigmas or _spells(body.sampler_name, parameters["scheduler"]):
        said.add("scheduler")
    return frozenset(said & parameters.keys())


def _spells(label: str, scheduler: str) -> bool:
    return label.lower().replace(" ", "_").replace("-", "_").endswith(f"_{scheduler}")


def _parameters(
    body: GenerationBody, resolved: Mapping[str, Any], guidance: float | None, control_names: Mapping[int, str]
) -> dict[str, Any]:
    """The fields that were chosen, or sent and differ from their defaults, without those of parts that are off."""
    left_out = {*LEFT_OUT, *idle(body), "karras_sigmas", "random_seed"}
    told = body.model_dump(mode="json", exclude_defaults=True, exclude=left_out)
    parameters = {name: getattr(body, name) for name in ALWAYS} | told | dict(resolved)
    if guidance is not None:
        parameters["guidance"] = guidance
    if body.controlnet is not None and body.controlnet.enabled:
        units = {
            index: unit.model_dump(mode="json", exclude_defaults=True)
            for index, unit in enumerate(body.controlnet.units)
            if is_on(unit)
        }
        for index, name in control_names.items():
            units[index]["input_image"] = name
        parameters["controlnet"] = {"units": list(units.values())}
    return parameters


def _loras(
    body: GenerationBody, tagged: Sequence[LoraBody], catalog: ModelCatalog, model: ModelFile
) -> tuple[Lora, ...]:
    """The LoRAs of `lora`, of `loras`, and of the prompt's tags, in this order."""
    asked = [("lora.lora_name", body.lora)] if body.lora is not None else []
    asked += [(f"loras[{index}].lora_name", lora) for index, lora in enumerate(body.loras)]
    asked += [("prompt", lora) for lora in tagged]
    found = []
    for field, lora in asked:
        if lora.enabled and lora.lora_name and not is_no_choice(lora.lora_name):
            name = find_fitting(lora.lora_name, catalog, "loras", field, "LoRA", model)
            clip = lora.strength_model if lora.strength_clip is None else lora.strength_clip
            found.append(Lora(name, lora.strength_model, clip))
    return tuple(found)
