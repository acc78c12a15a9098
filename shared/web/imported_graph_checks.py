"""Checks imported graphs: refuses those that the engine would reject or not survive, and warns of ignored inputs."""

from __future__ import annotations

import io
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from shared.engine.check_graph import Problem, declared_inputs, extra_of
from shared.engine.client import SavedImage
from shared.engine.graph_memory import check_memory, check_texts
from shared.engine.node_policy import OWN_UPLOAD, check_files, check_limits, why_refused
from shared.errors import EngineError, InvalidValue
from shared.graph_walk import ApiGraph, Target, inputs_of, is_link
from shared.models.defaults import is_starter
from shared.models.downloadable import download_command
from shared.schema.ranges import Picture
from shared.settings import PREFIX
from shared.web.backend import Backend
from shared.web.parsing.prompt_warnings import warn_of_syntax, warn_of_unknown_words, warn_of_weights
from shared.web.parsing.prompts import installed_embeddings
from workflows.bindings import find_bindings, prompt_texts
from workflows.loading import input_name

MOST_WARNINGS = 50
MOST_PROBLEMS = 20
MOST_CHOICES = 10
# Frames, width, height.
LoadedSize = tuple[int, int, int]
# The size that counts for a file that is too large for Pillow to read its size.
HUGE: LoadedSize = (1, 20_000, 20_000)


def check_imported_graph(
    backend: Backend, graph: ApiGraph, field: str, fields: Mapping[Target, str], pictures: Iterable[Picture] = ()
) -> tuple[ApiGraph, list[str]]:
    """Check a graph against the engine. Returns it without the inputs that its nodes do not have, and their warnings.

    `pictures` came with the request. `fields` are the names of the fields that set inputs of the graph; an error names
    one of them, else `field`. Raises InvalidValue if the engine would refuse the graph or not survive it.
    """
    _check_nodes(backend, graph, field)
    problems = backend.catalog.check(graph)
    unused = [problem for problem in problems if _is_unused_input(graph, problem)]
    serious = [problem for problem in problems if not _is_unused_input(graph, problem)]
    if not serious:
        serious = _check_limits(backend, graph, pictures)
    if serious:
        raise _graph_error(serious, field, fields)
    cleaned = {name: {**node, "inputs": dict(node["inputs"])} for name, node in graph.items()}
    for problem in unused:
        del cleaned[problem.node]["inputs"][str(problem.input)]
    warnings = [f"ignored: {problem.message} (node {problem.node})" for problem in unused[:MOST_WARNINGS]]
    if len(unused) > MOST_WARNINGS:
        warnings.append(f"ignored: {len(unused) - MOST_WARNINGS} more inputs that no node has")
    return cleaned, warnings


def check_prompts(
    backend: Backend, graph: ApiGraph, field: str, fields: Mapping[Target, str], skip: Container[Target] = ()
) -> list[str]:
    """Warn of prompt syntax in a graph that the engine reads in another way than other programs do.

    A warning names the field that set the text, from `fields`, else its node. Raises InvalidValue for syntax that would
    fail the job or draw noise.
    """
    texts = {target: text for target, text in prompt_texts(graph) if target not in skip}
    files = installed_embeddings(backend.catalog, texts.values())
    warnings = []
    for target, text in texts.items():
        name = fields.get(target) or f"{field} ({'.'.join(target)})"
        try:
            warnings += [*warn_of_weights(text, name, files), *warn_of_syntax(text, name)]
        except InvalidValue as error:
            wrong = fields.get(target, field)
            raise InvalidValue(error.message, field=wrong, hint=error.hint, node=target[0]) from error
    return warnings


def check_starter_words(backend: Backend, graph: ApiGraph) -> list[str]:
    """Warn of words in a graph's prompts that the starter model does not know.

    There is no warning where another model, or a text encoder of its own, reads the prompts.
    """
    names = [name for node in graph.values() if isinstance(name := node["inputs"].get("ckpt_name"), str)]
    files = [backend.catalog.model_file("checkpoints", name) for name in names]
    has_text_encoder = any("CLIPLoader" in node["class_type"] for node in graph.values())
    if not files or has_text_encoder or not all(map(is_starter, files)):
        return []
    texts = dict(prompt_texts(graph))
    fields = find_bindings(graph).fields_of(("prompt", "negative_prompt"))
    negative = [text for target, text in texts.items() if fields.get(target) == "negative_prompt"]
    positive = [text for target, text in texts.items() if fields.get(target) != "negative_prompt"]
    return warn_of_unknown_words(files[0], positive, negative, installed_embeddings(backend.catalog, texts.values()))


def _check_nodes(backend: Backend, graph: ApiGraph, field: str) -> None:
    """Raise InvalidValue for a node that the node policy refuses. Unknown nodes are for the catalog to report."""
    definitions = backend.catalog.definitions({node["class_type"] for node in graph.values()})
    for name, node in graph.items():
        class_type = node["class_type"]
        if class_type not in definitions:
            continue
        reason = why_refused(class_type, definitions[class_type], backend.settings.allow_nodes)
        if reason is not None:
            raise InvalidValue(
                f"{class_type} (node {name}) is not allowed: it {reason}",
                field=field,
                hint=f"the operator of this service can allow it with {PREFIX}ALLOW_NODES={class_type}",
                node=name,
                class_type=class_type,
            )


def _check_limits(backend: Backend, graph: ApiGraph, pictures: Iterable[Picture]) -> list[Problem]:
    """Find problems with the files, sizes, texts and memory of a graph whose nodes and inputs are valid."""
    definitions = backend.catalog.definitions({node["class_type"] for node in graph.values()})
    for check in (check_files, check_limits, check_texts):
        if problems := check(graph, definitions):
            return problems
    sent = {input_name(picture): picture.png for picture in pictures}
    return check_memory(graph, definitions, loaded_sizes(backend, graph, definitions, sent))


def _is_unused_input(graph: ApiGraph, problem: Problem) -> bool:
    """Whether the problem is a value for an input that the node does not have. A link there is a serious mistake."""
    value = inputs_of(graph[problem.node]).get(str(problem.input))
    return problem.kind == "unknown_input" and not is_link(value)


def _graph_error(problems: list[Problem], field: str, fields: Mapping[Target, str]) -> InvalidValue:
    """Translate the problems of a graph into an error of the field that set the first wrong input."""
    problem = problems[0]
    nearest: list[Any] = problem.nearest or list(problem.options[:MOST_CHOICES])
    hint = f"use {', '.join(map(str, nearest))}" if nearest else None
    if problem.kind == "not_in_list" and isinstance(problem.value, str):
        command = download_command(problem.value)
        if command is not None:
            hint = f"{command} downloads it" + (f"; {hint}" if hint else "")
    if problem.kind == "unknown_node":
        hint = "install the custom node that has it into this engine"
    listed = [
        {"node": other.node, "input": other.input, "message": other.message} for other in problems[:MOST_PROBLEMS]
    ]
    return InvalidValue(
        f"{problem.message} (node {problem.node}, {problem.class_type})",
        field=fields.get((problem.node, problem.input or ""), field),
        hint=hint,
        node=problem.node,
        nearest=nearest or None,
        problems=listed if len(listed) > 1 else None,
    )


def loaded_sizes(
    backend: Backend, graph: Mapping[str, Any], definitions: Mapping[str, Any], sent: Mapping[str, bytes]
) -> dict[str, LoadedSize]:
    """Return the size of each picture that the graph loads, by name; unreadable pictures are left out.

    `sent` holds the pictures of this request, by their names in the graph. All names were checked: they are uploads, or
    files at the top of the engine's input folder.
    """
    sizes = {
        name: _picture_size(io.BytesIO(sent[name])) if name in sent else _stored_size(backend, name)
        for name in loaded_names(graph, definitions)
    }
    return {name: size for name, size in sizes.items() if size is not None}


def loaded_names(graph: Mapping[str, Any], definitions: Mapping[str, Any]) -> set[str]:
    """Return the names of the pictures that a graph loads."""
    return {
        value
        for node in graph.values()
        for key, declaration in declared_inputs(definitions[node["class_type"]], node["inputs"]).items()
        if extra_of(declaration).get("image_upload")
        if isinstance(value := node["inputs"].get(key), str) and value
    }


def _stored_size(backend: Backend, name: str) -> LoadedSize | None:
    """Return the size of an earlier upload, or of a file that the operator put into the engine's input folder."""
    if OWN_UPLOAD.fullmatch(name):
        sides = backend.jobs.upload_size(name.rpartition("/")[2])
        return None if sides is None else (1, *sides)
    if backend.settings.engine_url is None:
        return _picture_size(backend.settings.input_dir / name)
    try:
        content = backend.engine.download_image(SavedImage(name, "", "input"))
    except EngineError:
        return None
    return None if content is None else _picture_size(io.BytesIO(content))


def _picture_size(file: Path | io.BytesIO) -> LoadedSize | None:
    """Read the size from the file's header; the frames of an animation have to be counted."""
    try:
        with Image.open(file) as image:
            return getattr(image, "n_frames", 1), *image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return HUGE
    except (OSError, ValueError, SyntaxError):
        return None
