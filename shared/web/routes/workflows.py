"""Workflows of the user's own as routes: GET /api/workflows, GET and POST /api/workflows/<name>."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any

from flask import Blueprint, Response, jsonify
from PIL import Image
from pydantic import Field, TypeAdapter, ValidationError

from shared.errors import DreamLayerError, InvalidPicture, InvalidValue, NotFound
from shared.graphs import ApiGraph
from shared.images.decode import flatten, is_transparent, transparency_warnings
from shared.images.fit import as_cutout, as_mask, as_picture, fit
from shared.jobs.job import JobSpec
from shared.jobs.picture_names import PREFIX_INPUT, with_prefix
from shared.schema.body import RequestBody
from shared.schema.replies import WorkflowReply, WorkflowsReply
from shared.schema.units import Picture, align
from shared.web.backend import Backend, current_backend
from shared.web.imported_graphs import check_imported_graph, check_prompts, check_starter_words
from shared.web.openapi.components import ACCEPTED, DRAWING_ERRORS, DRAWING_HEADERS, RESULT
from shared.web.openapi.operation import BodySpec, Example, ParameterSpec, ReplySpec, describe
from shared.web.parsing.pictures import SentPictures
from shared.web.submission import Submission, submission
from shared.web.workflow_folder import NAME
from workflows.bindings import MASK_LOADER, SIDES, reads_alpha, set_inputs
from workflows.loading import input_name
from workflows.outputs import OUTPUT_FIELD, find_output
from workflows.templates import PICTURE_TYPES, WORKFLOW_FIELD, NamedWorkflow

KIND = "workflow"
SAMPLE = {"name": "shape"}
NAME_PARAMETER = ParameterSpec(
    "name", "path", "the file's name without `.json`", {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"}
)

workflow_routes = Blueprint("workflows", __name__)


class WorkflowBody(RequestBody, extra="allow"):
    """The parameters that GET of the same address tells, as `schema`."""

    output_node: Annotated[
        str | None,
        Field(description="the `SaveImage`, by its id or title, whose picture is the answer to `Accept: image/...`"),
    ] = None


@workflow_routes.get("/api/workflows")
@describe(
    "Workflows",
    ReplySpec("all files, and what is wrong with those that are broken", WorkflowsReply),
    examples=(Example("All"),),
)
def list_workflows() -> Response:
    """The workflows that are routes."""
    listed = [_about(name, found) for name, found in current_backend().workflows.all()]
    return jsonify({"status": "success", "workflows": listed})


@workflow_routes.get("/api/workflows/<name>")
@describe(
    "Workflows",
    ReplySpec("the workflow", WorkflowReply),
    examples=(Example("A workflow", path=SAMPLE),),
    parameters=(NAME_PARAMETER,),
    errors=(NotFound, InvalidValue),
)
def get_workflow(name: str) -> Response:
    """A workflow: its parameters and its graph."""
    workflow = _find_workflow(current_backend(), name)
    return jsonify({"status": "success", **_about(name, workflow), "graph": workflow.graph})


@workflow_routes.post("/api/workflows/<name>")
@describe(
    "Workflows",
    RESULT,
    ACCEPTED,
    examples=(Example("With what the file says", {"seed": 7}, path=SAMPLE),),
    body=BodySpec(WorkflowBody),
    parameters=(NAME_PARAMETER, *DRAWING_HEADERS),
    errors=(NotFound, *DRAWING_ERRORS),
)
def run_workflow(name: str) -> Response:
    """Draw with a workflow."""
    backend = current_backend()
    workflow = _find_workflow(backend, name)
    with submission(backend, KIND, f"{KIND} {name}") as job:
        if job.row is None:
            _submit(backend, workflow, job)
        return job.answer()


def _about(name: str, found: NamedWorkflow | DreamLayerError) -> dict[str, Any]:
    if isinstance(found, DreamLayerError):
        return {"name": name, "error": {"message": found.message, "hint": found.hint}}
    header = found.header
    return {"name": name, "title": header.title or name, "description": header.description, "schema": found.schema()}


def _find_workflow(backend: Backend, name: str) -> NamedWorkflow:
    """The workflow of this name. Raises NotFound, and InvalidValue for a broken file."""
    found = backend.workflows.find(name) if NAME.fullmatch(name) else None
    if found is None:
        raise NotFound(f"there is no workflow {name}", hint="GET /api/workflows lists them")
    if isinstance(found, DreamLayerError):
        raise InvalidValue(f"the workflow {name} is broken: {found.message}", field=WORKFLOW_FIELD, hint=found.hint)
    return found


def _submit(backend: Backend, workflow: NamedWorkflow, job: Submission) -> None:
    fields, parameters = job.fields, workflow.header.parameters
    sent = {**dict.fromkeys(fields.files), **fields.values}
    # As with every request, unless the workflow gives these names another meaning.
    further = {name for name in ("preview", "image", OUTPUT_FIELD) if name not in parameters}
    if "input_image" not in parameters:
        further.discard("image")
    own = {key: value for key, value in sent.items() if key not in further}
    values, warnings = workflow.read(own, secrets.randbelow(2**32))
    for side in SIDES:
        asked = values.get(side)
        if type(asked) is int and not parameters[side].targets and align(asked) != asked:
            warnings.append(f"{side} {asked} was raised to {align(asked)}, a multiple of 8")
            values[side] = align(asked)
    reader = SentPictures(fields, backend.jobs.files.uploads.find, backend.picture_memory)
    images = {
        key: image
        for key, parameter in parameters.items()
        if parameter.type in PICTURE_TYPES
        and (image := _image(workflow, key, reader, also="image" in further)) is not None
    }
    settings = {target: value for key, value in values.items() for target in workflow.targets[key]}
    pictures = place_pictures(workflow, set_inputs(workflow.graph, settings), images, reader.warnings)
    settings |= {target: input_name(picture) for target, picture in pictures.items()}
    sent_by = {target: key for key in [*values, *images] for target in workflow.targets[key]}
    warnings += _prefixes_not_used(workflow, own)
    graph, ignored = check_imported_graph(
        backend, set_inputs(workflow.graph, settings), WORKFLOW_FIELD, sent_by, pictures.values()
    )
    asked = sent.get(OUTPUT_FIELD) if OUTPUT_FIELD in further else None
    job.submit(
        JobSpec(
            parameters={"workflow": workflow.name, **values},
            graph=with_prefix(graph, job.prefix),
            warnings=[
                *(*warnings, *reader.warnings, *ignored),
                *check_prompts(backend, graph, WORKFLOW_FIELD, sent_by),
                *check_starter_words(backend, graph),
            ],
            output_node=None if asked in (None, "") else find_output(graph, asked),
            previews="preview" in further and _preview(fields.values.get("preview", False)),
        ),
        loaded={picture.name: picture.png for picture in pictures.values()},
        kept=reader.kept,
        # Its own earlier jobs tell how long it takes.
        model=f"{KIND} {workflow.name}",
    )


def _prefixes_not_used(workflow: NamedWorkflow, sent: Mapping[str, Any]) -> list[str]:
    """Warnings of parameters that were to name the files: those get names from which their job follows."""
    return [
        f"{key}: not used as {node}.{PREFIX_INPUT}, for pictures are saved under names that lead to their job; "
        "the page's file name format names downloads"
        for key, targets in workflow.targets.items()
        if sent.get(key) is not None
        for node, name in targets
        if name == PREFIX_INPUT
    ]


def _preview(value: Any) -> bool:
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError as error:
        raise InvalidValue(f"preview must be true or false, not {value!r}", field="preview") from error


def _image(workflow: NamedWorkflow, name: str, sent: SentPictures, *, also: bool) -> Image.Image | None:
    """The picture of a parameter, as it was sent; `also`: that of `input_image` may be called `image`."""
    parameter = workflow.header.parameters[name]
    names = (name, "image") if also and name == "input_image" else (name,)
    found = sent.mask(name, invert=False) if parameter.type == "mask" else sent.with_alpha(*names)
    if found is None:
        if parameter.required:
            how = f"send a data URL, base64, or a file of a form named {name}"
            hint = workflow.hint(name, sent.names)
            raise InvalidPicture(f"{name} is missing", field=name, hint=how if hint is None else f"{hint}; {how}")
        return None
    return found[0]


def place_pictures(
    workflow: NamedWorkflow, graph: ApiGraph, images: Mapping[str, Image.Image], warnings: list[str]
) -> Mapping[tuple[str, str], Picture]:
    """The pictures as the node of each target in `graph` reads them: a mask may be the transparency of a picture."""
    placed: dict[tuple[str, str], Picture] = {}
    parameters = workflow.header.parameters
    # Pictures go first, so that a mask finds the one that it belongs to.
    for key in sorted(images, key=lambda key: parameters[key].type == "mask"):
        image = images[key]
        # What a picture of the workflow's own is for, and whether it may be padded for it, only its graph knows.
        align = not parameters[key].targets
        masks = [other for other in images if parameters[other].type == "mask"]
        for target in workflow.targets[key]:
            if parameters[key].type == "mask":
                if target in placed:
                    continue
                in_alpha = reads_alpha(graph, target)
                placed[target] = (
                    as_cutout(image.convert("RGB"), image, align=align) if in_alpha else as_mask(image, align=align)
                )
                continue
            mask = next((images[other] for other in masks if target in workflow.targets[other]), None)
            if mask is not None and graph[target[0]]["class_type"] == MASK_LOADER:
                # A node for masks has the mask alone; it comes later.
                continue
            if mask is not None:
                mask = fit(mask, image.size, "just_resize")
                placed[target] = as_cutout(flatten(image, "white"), mask, align=align)
            elif reads_alpha(graph, target):
                if not is_transparent(image):
                    warnings.append(f"{key} has no transparency, which {target[0]} reads: it repaints nothing then")
                placed[target] = as_picture(image, align=align)
            else:
                warnings += [note for note in transparency_warnings(image, key, "white") if note not in warnings]
                placed[target] = as_picture(flatten(image, "white"), align=align)
    return placed
