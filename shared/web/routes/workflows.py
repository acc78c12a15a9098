"""Named workflows: GET /api/workflows, GET and POST /api/workflows/<name>."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any

from flask import Blueprint, Response, jsonify
from PIL import Image
from pydantic import Field, TypeAdapter, ValidationError

from shared.errors import DreamLayerError, InvalidPicture, InvalidValue, NotFound
from shared.graph_walk import ApiGraph
from shared.images.decode import flatten, is_transparent, transparency_warnings
from shared.images.fit import as_cutout, as_mask, as_picture, fit
from shared.jobs.job import JobSpec
from shared.jobs.picture_names import PREFIX_INPUT, with_prefix
from shared.schema.body import RequestBody
from shared.schema.ranges import Picture, align
from shared.schema.replies import WorkflowReply, WorkflowsReply
from shared.web.backend import Backend, current_backend
from shared.web.imported_graph_checks import check_imported_graph, check_prompts, check_starter_words
from shared.web.openapi.components import ACCEPTED, GENERATION_ERRORS, GENERATION_HEADERS, RESULT
from shared.web.openapi.operation import BodySpec, Example, ParameterSpec, ReplySpec, describe
from shared.web.parsing.pictures import PictureReader
from shared.web.submission import Submission, submission
from shared.web.workflow_folder import NAME
from workflows.bindings import MASK_LOADER, SIDES, reads_alpha, set_inputs
from workflows.loading import input_name
from workflows.outputs import OUTPUT_FIELD, find_output
from workflows.templates import PICTURE_TYPES, WORKFLOW_FIELD, NamedWorkflow

KIND = "workflow"
SAMPLE = {"name": "shape"}
NAME_PARAMETER = ParameterSpec(
    "name", "path", "the name of the file without `.json`", {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"}
)

workflow_routes = Blueprint("workflows", __name__)


class WorkflowBody(RequestBody, extra="allow"):
    """The parameters of the workflow: the `schema` of GET at the same path."""

    output_node: Annotated[
        str | None,
        Field(description="the id or title of the `SaveImage` whose picture is the reply to `Accept: image/...`"),
    ] = None


@workflow_routes.get("/api/workflows")
@describe(
    "Workflows",
    ReplySpec("all workflows, with the errors in broken files", WorkflowsReply),
    examples=(Example("All workflows"),),
)
def list_workflows() -> Response:
    """List the named workflows."""
    workflows = [_summarise(name, workflow) for name, workflow in current_backend().workflows.all()]
    return jsonify({"status": "success", "workflows": workflows})


@workflow_routes.get("/api/workflows/<name>")
@describe(
    "Workflows",
    ReplySpec("the workflow", WorkflowReply),
    examples=(Example("A workflow", path=SAMPLE),),
    parameters=(NAME_PARAMETER,),
    errors=(NotFound, InvalidValue),
)
def get_workflow(name: str) -> Response:
    """Get the parameters and the graph of a workflow."""
    workflow = _find_workflow(current_backend(), name)
    return jsonify({"status": "success", **_summarise(name, workflow), "graph": workflow.graph})


@workflow_routes.post("/api/workflows/<name>")
@describe(
    "Workflows",
    RESULT,
    ACCEPTED,
    examples=(Example("With the default parameters", {"seed": 7}, path=SAMPLE),),
    body=BodySpec(WorkflowBody),
    parameters=(NAME_PARAMETER, *GENERATION_HEADERS),
    errors=(NotFound, *GENERATION_ERRORS),
)
def run_workflow(name: str) -> Response:
    """Run a workflow."""
    backend = current_backend()
    workflow = _find_workflow(backend, name)
    with submission(backend, KIND, f"{KIND} {name}") as job:
        if job.row is None:
            _submit_workflow(backend, workflow, job)
        return job.answer()


def _summarise(name: str, workflow: NamedWorkflow | DreamLayerError) -> dict[str, Any]:
    if isinstance(workflow, DreamLayerError):
        return {"name": name, "error": {"message": workflow.message, "hint": workflow.hint}}
    header, schema = workflow.header, workflow.schema()
    return {"name": name, "title": header.title or name, "description": header.description, "schema": schema}


def _find_workflow(backend: Backend, name: str) -> NamedWorkflow:
    """The workflow of this name. Raises NotFound, and InvalidValue for a broken file."""
    workflow = backend.workflows.find(name) if NAME.fullmatch(name) else None
    if workflow is None:
        raise NotFound(f"there is no workflow {name}", hint="see GET /api/workflows")
    if isinstance(workflow, DreamLayerError):
        message = f"the workflow {name} is broken: {workflow.message}"
        raise InvalidValue(message, field=WORKFLOW_FIELD, hint=workflow.hint)
    return workflow


def _submit_workflow(backend: Backend, workflow: NamedWorkflow, job: Submission) -> None:
    """Submit a job that runs the workflow with the parameters in the request."""
    fields, parameters = job.fields, workflow.header.parameters
    sent = {**dict.fromkeys(fields.files), **fields.values}
    # Fields of every request, unless they are parameters of the workflow.
    common = {name for name in ("preview", "image", OUTPUT_FIELD) if name not in parameters}
    if "input_image" not in parameters:
        common.discard("image")
    sent_parameters = {name: value for name, value in sent.items() if name not in common}
    values, warnings = workflow.read(sent_parameters, secrets.randbelow(2**32))
    for side in SIDES:
        length = values.get(side)
        if type(length) is int and not parameters[side].targets and align(length) != length:
            warnings.append(f"{side} {length} was raised to {align(length)}, a multiple of 8")
            values[side] = align(length)
    reader = PictureReader(fields, backend.jobs.find_upload, backend.picture_memory)
    images = {
        name: image
        for name, parameter in parameters.items()
        if parameter.type in PICTURE_TYPES
        and (image := _read_image(workflow, name, reader, accept_image="image" in common)) is not None
    }
    inputs = {target: value for name, value in values.items() for target in workflow.targets[name]}
    pictures = prepare_pictures(workflow, set_inputs(workflow.graph, inputs), images, reader.warnings)
    inputs |= {target: input_name(picture) for target, picture in pictures.items()}
    field_of_input = {target: name for name in [*values, *images] for target in workflow.targets[name]}
    warnings += _warn_of_prefixes(workflow, sent_parameters)
    graph, ignored = check_imported_graph(
        backend, set_inputs(workflow.graph, inputs), WORKFLOW_FIELD, field_of_input, pictures.values()
    )
    output = sent.get(OUTPUT_FIELD) if OUTPUT_FIELD in common else None
    job.submit(
        JobSpec(
            parameters={"workflow": workflow.name, **values},
            graph=with_prefix(graph, job.prefix),
            warnings=[
                *(*warnings, *reader.warnings, *ignored),
                *check_prompts(backend, graph, WORKFLOW_FIELD, field_of_input),
                *check_starter_words(backend, graph),
            ],
            output_node=None if output in (None, "") else find_output(graph, output),
            previews="preview" in common and _read_preview(fields.values.get("preview", False)),
        ),
        engine_uploads={picture.name: picture.png for picture in pictures.values()},
        stored_uploads=reader.raw_uploads,
        # Estimates use the earlier jobs of this workflow.
        model=f"{KIND} {workflow.name}",
    )


def _warn_of_prefixes(workflow: NamedWorkflow, sent: Mapping[str, Any]) -> list[str]:
    """Warn of parameters that would set the names of files: their names have to identify the job."""
    return [
        f"{name}: not used as {node}.{PREFIX_INPUT}, because file names identify their job; set the file name format "
        "of the web page to name downloads"
        for name, targets in workflow.targets.items()
        if sent.get(name) is not None
        for node, node_input in targets
        if node_input == PREFIX_INPUT
    ]


def _read_preview(value: Any) -> bool:
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError as error:
        raise InvalidValue(f"preview must be true or false, not {value!r}", field="preview") from error


def _read_image(workflow: NamedWorkflow, name: str, sent: PictureReader, *, accept_image: bool) -> Image.Image | None:
    """Read the picture of a parameter. With `accept_image`, the field `image` is another name of `input_image`."""
    parameter = workflow.header.parameters[name]
    names = (name, "image") if accept_image and name == "input_image" else (name,)
    image = sent.read_mask(name, invert=False) if parameter.type == "mask" else sent.read_with_alpha(*names)
    if image is None and parameter.required:
        usage = f"send a data URL, base64, or a file of a form named {name}"
        hint = workflow.hint(name, sent.field_names)
        raise InvalidPicture(f"{name} is missing", field=name, hint=usage if hint is None else f"{hint}; {usage}")
    return image


def prepare_pictures(
    workflow: NamedWorkflow, graph: ApiGraph, images: Mapping[str, Image.Image], warnings: list[str]
) -> Mapping[tuple[str, str], Picture]:
    """Convert pictures to what the nodes of `graph` read: some read a mask from the transparency of a picture."""
    prepared: dict[tuple[str, str], Picture] = {}
    parameters = workflow.header.parameters
    # Pictures first, so that a mask can be added to its picture.
    for name in sorted(images, key=lambda name: parameters[name].type == "mask"):
        image = images[name]
        # A picture that the workflow binds itself keeps its size: only its graph knows whether it may be padded.
        align = not parameters[name].targets
        masks = [other for other in images if parameters[other].type == "mask"]
        for target in workflow.targets[name]:
            if parameters[name].type == "mask":
                if target in prepared:
                    continue
                in_alpha = reads_alpha(graph, target)
                prepared[target] = (
                    as_cutout(image.convert("RGB"), image, align=align) if in_alpha else as_mask(image, align=align)
                )
                continue
            mask = next((images[other] for other in masks if target in workflow.targets[other]), None)
            if mask is not None and graph[target[0]]["class_type"] == MASK_LOADER:
                # This node reads only the mask, which follows.
                continue
            if mask is not None:
                mask = fit(mask, image.size, "just_resize")
                prepared[target] = as_cutout(flatten(image, "white"), mask, align=align)
            elif reads_alpha(graph, target):
                if not is_transparent(image):
                    warnings.append(
                        f"{name} has no transparency, which {target[0]} reads as a mask: nothing is repainted"
                    )
                prepared[target] = as_picture(image, align=align)
            else:
                warnings += [text for text in transparency_warnings(image, name, "white") if text not in warnings]
                prepared[target] = as_picture(flatten(image, "white"), align=align)
    return prepared
