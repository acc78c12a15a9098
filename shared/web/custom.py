"""Graphs of clients' own: checked so that the engine survives them, and told in words when it would not."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

from shared.engine.graph_memory import check_memory, check_texts
from shared.engine.node_policy import check_files, check_limits, why_refused
from shared.engine.validate import Problem
from shared.errors import InvalidValue
from shared.graphs import ApiGraph, Target
from shared.jobs.picture_names import with_prefix
from shared.json_limits import JsonTooLarge
from shared.models.defaults import is_starter
from shared.models.downloadable import download_command
from shared.schema.request import Common, Img2ImgRequest
from shared.schema.units import Picture
from shared.settings import PREFIX
from shared.web.backend import Backend
from shared.web.body import parse_json
from shared.web.parsing.loaded import loaded_sizes
from shared.web.parsing.prompts import embedding_files, heard
from shared.web.parsing.requests import ParsedRequest
from shared.web.parsing.sources import AlphaUse
from shared.web.parsing.starter_words import starter_warnings
from shared.web.parsing.unsupported_syntax import misread
from workflows.bindings import BINDABLE, Bindings, bind, find_bindings, prompt_texts, reads_alpha
from workflows.imported import read_graph
from workflows.loading import input_name

FIELD = "custom_workflow"
MOST_WARNINGS = 50
# Fields whose work a graph of one's own does by itself, or not.
UNPLACED = (
    "tile_size",
    "tile_overlap",
    "text_encoders",
    "mask_blur",
    "grow_mask_by",
    "only_masked",
    "only_masked_padding",
    "large_sizes",
)


def read_custom(value: Any) -> tuple[ApiGraph, Bindings]:
    """The graph in `value`, and the places of fields in it. Raises InvalidValue."""
    graph = read_graph(_from_text(value), FIELD)
    return graph, find_bindings(graph)


def alpha_use(graph: ApiGraph, bindings: Bindings) -> AlphaUse:
    """What the graph takes from the transparency of the pictures that are placed in it."""
    source, mask = bindings.targets.get("input_image", []), bindings.targets.get("mask", [])
    return AlphaUse(
        source=any(reads_alpha(graph, target) for target in source),
        mask=any(reads_alpha(graph, target) for target in mask),
        shared=bool(mask) and mask == source,
    )


def custom_graph(
    backend: Backend,
    graph: ApiGraph,
    bindings: Bindings,
    values: Mapping[str, Any],
    prefix: str,
    pictures: Iterable[Picture] = (),
) -> tuple[ApiGraph, list[str]]:
    """The graph with `values` placed on it (see `workflows.bindings`), and warnings. Raises InvalidValue.

    `pictures` are those that came with it.
    """
    placed, warnings = bind(graph, values, bindings)
    fields = bindings.fields_of(values)
    checked, ignored = check(backend, placed, FIELD, fields, pictures)
    # What was placed was read before.
    read = {target for target, name in fields.items() if name in ("prompt", "negative_prompt")}
    odd = misread_prompts(backend, checked, FIELD, {}, except_for=read)
    odd += unknown_to_starter(backend, checked)
    return with_prefix(checked, prefix), warnings + ignored + odd


def _from_text(value: Any) -> Any:
    """A form has no objects: there, a graph is JSON, as text or as a file."""
    if not isinstance(value, str | bytes):
        return value
    try:
        return parse_json(value)
    except JsonTooLarge as error:
        raise InvalidValue(f"{FIELD} {error}", field=FIELD) from error
    except ValueError:
        return value


def sent_values(reading: ParsedRequest[Any]) -> tuple[dict[str, Any], list[str]]:
    """What a client said itself, of all that has a place in a graph, with pictures as names in the input folder; and a
    warning about what it asked for that has none."""
    values = {name: reading.parameters[name] for name in BINDABLE if name in reading.said}
    request: Common = reading.request
    # Without tags for LoRAs, and with embeddings as the engine finds them.
    texts = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
    values |= {name: text for name, text in texts.items() if name in values}
    if isinstance(request, Img2ImgRequest):
        values["input_image"] = input_name(request.source)
        if request.inpainting is not None:
            values["mask"] = input_name(request.inpainting.mask)
    asked = {
        "batch_count": reading.parameters["batch_count"] > 1,
        "vae_name": request.models.vae is not None and request.models.checkpoint is not None,
        "clip_skip": request.clip_skip > 1,
        "lora": request.loras,
        "controlnet": request.controls,
        "hires_fix": request.hires,
        "refiner_enabled": request.refiner,
        "upscaler": request.upscale,
        "restore_faces": request.faces,
        "tiling": request.seamless,
        **{name: name in reading.parameters for name in UNPLACED},
        "inpaint_mode": "inpaint_mode" in reading.said,
    }
    without_place = [name for name, there in asked.items() if there]
    warning = f"{', '.join(without_place)}: not used, for custom_workflow has its own nodes for that, or none"
    return values, [warning] if without_place else []


def misread_prompts(
    backend: Backend, graph: ApiGraph, field: str, fields: Mapping[Target, str], except_for: Container[Target] = ()
) -> list[str]:
    """Warnings of what the engine will read in the graph's prompts otherwise than it looks, each with the field that
    set it, after `fields`, else with its node. Raises InvalidValue for what would end the job, or draw noise."""
    texts = {target: text for target, text in prompt_texts(graph) if target not in except_for}
    files = embedding_files(backend.catalog, *texts.values())
    warnings = []
    for target, text in texts.items():
        guilty = fields.get(target, field)
        name = fields.get(target) or f"{field} ({'.'.join(target)})"
        try:
            warnings += [*heard(text, name, files), *misread(text, name)]
        except InvalidValue as error:
            raise InvalidValue(error.message, field=guilty, hint=error.hint, node=target[0]) from error
    return warnings


def unknown_to_starter(backend: Backend, graph: ApiGraph) -> list[str]:
    """The warning that the starter model does not know some words of the graph's prompts; none for other models, and
    where a text encoder of its own reads them."""
    names = [name for node in graph.values() if isinstance(name := node["inputs"].get("ckpt_name"), str)]
    files = [backend.catalog.model_file("checkpoints", name) for name in names]
    other_encoder = any("CLIPLoader" in node["class_type"] for node in graph.values())
    if not files or other_encoder or not all(map(is_starter, files)):
        return []
    texts = dict(prompt_texts(graph))
    fields = find_bindings(graph).fields_of(("prompt", "negative_prompt"))
    negative = [text for target, text in texts.items() if fields.get(target) == "negative_prompt"]
    positive = [text for target, text in texts.items() if fields.get(target) != "negative_prompt"]
    return starter_warnings(files[0], positive, negative, embedding_files(backend.catalog, *texts.values()))


def check(
    backend: Backend, graph: ApiGraph, field: str, fields: Mapping[Target, str], pictures: Iterable[Picture] = ()
) -> tuple[ApiGraph, list[str]]:
    """The graph without values that the engine would ignore, and a warning for each.

    `pictures` are those that came with the request. Raises InvalidValue for what it would refuse or not survive; the
    error's field is the one that the input was set by, after `fields`, else `field`.
    """
    definitions = backend.catalog.definitions({node["class_type"] for node in graph.values()})
    for name, node in graph.items():
        class_type = node["class_type"]
        reason = (
            None
            if class_type not in definitions
            else why_refused(class_type, definitions[class_type], backend.settings.allow_nodes)
        )
        if reason is not None:
            raise InvalidValue(
                f"{class_type} (node {name}) is not allowed: it {reason}",
                field=field,
                hint=f"whoever runs this service can allow it: {PREFIX}ALLOW_NODES={class_type}",
                node=name,
                class_type=class_type,
            )
    problems = backend.catalog.check(graph)
    unused = [each for each in problems if _is_unused(graph, each)]
    serious = [each for each in problems if not _is_unused(graph, each)]
    if not serious:
        definitions = backend.catalog.definitions({node["class_type"] for node in graph.values()})
        checks = (check_files, check_limits, check_texts)
        serious = next((found for each in checks if (found := each(graph, definitions))), [])
    if not serious:
        sent = {input_name(picture): picture.png for picture in pictures}
        serious = check_memory(graph, definitions, loaded_sizes(backend, graph, definitions, sent))
    if serious:
        raise _objection(serious, field, fields)
    cleaned = {name: {**node, "inputs": dict(node["inputs"])} for name, node in graph.items()}
    for each in unused:
        del cleaned[each.node]["inputs"][str(each.input)]
    warnings = [f"ignored: {each.message} (node {each.node})" for each in unused[:MOST_WARNINGS]]
    if len(unused) > MOST_WARNINGS:
        warnings.append(f"ignored: {len(unused) - MOST_WARNINGS} further inputs that no node has")
    return cleaned, warnings


def _is_unused(graph: ApiGraph, problem: Problem) -> bool:
    """Whether it is a value for an input that the node does not have; a link there is no harmless mistake."""
    linked = isinstance(graph[problem.node]["inputs"].get(str(problem.input)), list)
    return problem.kind == "unknown_input" and not linked


def _objection(problems: list[Problem], field: str, fields: Mapping[Target, str]) -> InvalidValue:
    problem = problems[0]
    guilty = fields.get((problem.node, problem.input or ""), field)
    nearest: list[Any] = problem.nearest or list(problem.options[:10])
    hint = f"there is {', '.join(map(str, nearest))}" if nearest else None
    command = (
        download_command(problem.value) if problem.kind == "not_in_list" and isinstance(problem.value, str) else None
    )
    if command is not None:
        hint = f"{command} downloads it" + (f"; {hint}" if hint else "")
    if problem.kind == "unknown_node":
        hint = "it may need a custom node that is not installed in this engine"
    return InvalidValue(
        f"{problem.message} (node {problem.node}, {problem.class_type})",
        field=guilty,
        hint=hint,
        node=problem.node,
        nearest=nearest or None,
        problems=[{"node": each.node, "input": each.input, "message": each.message} for each in problems[:20]]
        if len(problems) > 1
        else None,
    )
