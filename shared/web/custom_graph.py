"""The field `custom_workflow`: a custom graph, and the other fields of the request set on its inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shared.errors import InvalidValue
from shared.graph_walk import ApiGraph
from shared.jobs.picture_names import with_prefix
from shared.json_limits import JsonTooLarge
from shared.schema.ranges import Picture
from shared.schema.request import GenerationRequest, Img2ImgRequest
from shared.web.backend import Backend
from shared.web.imported_graph_checks import check_imported_graph, check_prompts, check_starter_words
from shared.web.parsing.generation import ParsedRequest
from shared.web.parsing.parser import GraphAlpha
from shared.web.request_body import parse_json
from workflows.bindings import BINDABLE, Bindings, bind, find_bindings, reads_alpha
from workflows.imported_graph import read_graph
from workflows.loading import input_name

CUSTOM_FIELD = "custom_workflow"
# Fields that no input of a custom graph takes: its nodes do this work, or nothing does.
NEVER_BOUND = (
    "tile_size",
    "tile_overlap",
    "text_encoders",
    "mask_blur",
    "grow_mask_by",
    "only_masked",
    "only_masked_padding",
    "large_sizes",
)


def read_custom_graph(value: Any) -> tuple[ApiGraph, Bindings]:
    """Read the graph in `value`, and find the inputs that fields bind to. Raises InvalidValue."""
    graph = read_graph(_parse_text(value), CUSTOM_FIELD)
    return graph, find_bindings(graph)


def graph_alpha(graph: ApiGraph, bindings: Bindings) -> GraphAlpha:
    """Find out how the graph uses transparency."""
    source, mask = bindings.targets.get("input_image", []), bindings.targets.get("mask", [])
    return GraphAlpha(
        source=any(reads_alpha(graph, target) for target in source),
        mask=any(reads_alpha(graph, target) for target in mask),
        shared=bool(mask) and mask == source,
    )


def bindable_values(parsed: ParsedRequest[Any]) -> tuple[dict[str, Any], list[str]]:
    """The values that the client sent for fields that bind to inputs, and a warning about those that do not.

    Pictures are names in the engine's input folder.
    """
    values = {name: parsed.parameters[name] for name in BINDABLE if name in parsed.explicit_fields}
    request: GenerationRequest = parsed.request
    # Without LoRA tags, and with embeddings as the engine finds them.
    prompts = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
    values |= {name: text for name, text in prompts.items() if name in values}
    if isinstance(request, Img2ImgRequest):
        values["input_image"] = input_name(request.source)
        if request.inpainting is not None:
            values["mask"] = input_name(request.inpainting.mask)
    is_used = {
        "batch_count": parsed.parameters["batch_count"] > 1,
        "vae_name": request.models.vae is not None and request.models.checkpoint is not None,
        "clip_skip": request.clip_skip > 1,
        "lora": request.loras,
        "controlnet": request.controls,
        "hires_fix": request.hires,
        "refiner_enabled": request.refiner,
        "upscaler": request.upscale,
        "restore_faces": request.faces,
        "tiling": request.seamless,
        **{name: name in parsed.parameters for name in NEVER_BOUND},
        "inpaint_mode": "inpaint_mode" in parsed.explicit_fields,
    }
    unbound = [name for name, used in is_used.items() if used]
    warning = f"{', '.join(unbound)}: not used with {CUSTOM_FIELD}, whose own nodes decide this"
    return values, [warning] if unbound else []


def bind_values(
    backend: Backend,
    graph: ApiGraph,
    bindings: Bindings,
    values: Mapping[str, Any],
    prefix: str,
    pictures: Iterable[Picture] = (),
) -> tuple[ApiGraph, list[str]]:
    """Set `values` on the graph (see `workflows.bindings`) and check it. Returns the graph and warnings.

    The graph saves pictures under `prefix`; `pictures` came with the request. Raises InvalidValue.
    """
    bound, warnings = bind(graph, values, bindings)
    fields = bindings.fields_of(values)
    checked, ignored = check_imported_graph(backend, bound, CUSTOM_FIELD, fields, pictures)
    # Prompts from fields were checked when the request was parsed.
    parsed = {target for target, name in fields.items() if name in ("prompt", "negative_prompt")}
    ignored += check_prompts(backend, checked, CUSTOM_FIELD, {}, skip=parsed)
    ignored += check_starter_words(backend, checked)
    return with_prefix(checked, prefix), warnings + ignored


def _parse_text(value: Any) -> Any:
    """Parse a graph that was sent as text or as a file of a form, which has no objects."""
    if not isinstance(value, str | bytes):
        return value
    try:
        return parse_json(value)
    except JsonTooLarge as error:
        raise InvalidValue(f"{CUSTOM_FIELD} {error}", field=CUSTOM_FIELD) from error
    except ValueError:
        # `read_graph` reports it.
        return value
