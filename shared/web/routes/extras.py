"""The extras tab of the web page: POST /api/extras/upscale. A job like others, with the page's field names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from flask import Blueprint, Response
from pydantic import Field

from shared.engine.catalog import FACE_NODES, NODE_SECONDS, EngineCatalog
from shared.errors import InvalidValue
from shared.images.decode import transparency_warnings
from shared.images.encode import BACKDROP, FORMATS_BY_EXTENSION
from shared.images.fit import as_upscale_source
from shared.jobs.job import JobRow, JobSpec
from shared.jobs.service import Jobs
from shared.schema.body import ExtrasBody, RequestBody
from shared.schema.control_replies import ExtrasReply
from shared.schema.ranges import PictureText
from shared.web.backend import Backend, current_backend
from shared.web.graph_errors import checked
from shared.web.openapi.components import (
    ACCEPTED,
    GENERATION_ERRORS,
    GENERATION_HEADERS,
    PICTURE,
    RESULT,
    PictureFile,
)
from shared.web.openapi.operation import BodySpec, Example, describe
from shared.web.parsing.extras import parse_extras
from shared.web.parsing.parser import Parser
from shared.web.parsing.validate_fields import missing_picture
from shared.web.reply import result_body
from shared.web.request_body import parse_json
from shared.web.submission import Submission, submission
from shared.web.urls import ReplyUrls
from workflows.upscale import extras

KIND = "extras"
PARAMS = "params"


extras_routes = Blueprint(KIND, __name__)


class ExtrasPicture(ExtrasBody):
    """A picture and its upscaling."""

    image: Annotated[PictureText, Field(description="data URL, base64, or the name of an upload")]


class ExtrasForm(RequestBody):
    """A picture as a file, and its upscaling."""

    image: Annotated[PictureFile, Field(description="the picture")]
    params: Annotated[str, Field(description="the other fields, as JSON")] = "{}"


@extras_routes.post("/api/extras/upscale")
@describe(
    "Web page",
    replace(RESULT, model=ExtrasReply),
    ACCEPTED,
    examples=(Example("Twice as large", {"image": PICTURE, "upscaler_model": "Lanczos", "output_format": "webp"}),),
    body=BodySpec(ExtrasPicture, ExtrasForm),
    parameters=GENERATION_HEADERS,
    errors=GENERATION_ERRORS,
)
def upscale_with_extras() -> Response:
    """Upscale a picture with one or two upscalers, and restore faces."""
    backend = current_backend()
    with submission(backend, KIND) as job:
        if job.row is None:
            submit_extras(backend, job)
        return job.answer(extras_body)


def submit_extras(backend: Backend, job: Submission) -> None:
    """Submit the job for a request of the extras tab."""
    parser = Parser(job.fields, backend.parsing_context())
    body = parser.read_body(ExtrasBody, ExtrasBody, values=extras_values(job.fields.values), known={"image"})
    image = parser.pictures.read_with_alpha("image")
    if image is None:
        hint = "send a form with a file named image"
        raise missing_picture("image", parser.pictures.field_names, ExtrasBody, hint)
    restores_faces = body.gfpgan_visibility or body.codeformer_visibility
    request = parse_extras(
        parser,
        body,
        as_upscale_source(image),
        _face_models(backend.catalog) if restores_faces else None,
        transparent=image.mode == "RGBA",
    )
    if FORMATS_BY_EXTENSION[body.output_format] == "jpeg":
        for warning in transparency_warnings(image, "image", BACKDROP):
            parser.warn(f"{warning}; png and webp keep transparency")
    graph = checked(backend, extras(request, job.prefix))
    size = request.ground.size
    parameters = {**body.model_dump(mode="json"), "image": parser.pictures.upload_names["image"]}
    job.submit(
        JobSpec(parameters=parameters, graph=graph, warnings=parser.warnings, size=size),
        engine_uploads={request.source.name: request.source.png},
        stored_uploads=parser.pictures.raw_uploads,
        model=" ".join([KIND, *(layer.how.model or layer.how.method for layer in request.layers)])[:255],
        work=float(size[0] * size[1]),
    )


def extras_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the fields in `params` with those next to it, which have less weight. Raises InvalidValue."""
    params = values.get(PARAMS) or {}
    if isinstance(params, str):
        try:
            params = parse_json(params)
        except ValueError as error:
            hint = getattr(error, "hint", None) or "send a JSON object as text"
            raise InvalidValue(f"{PARAMS} {error}", field=PARAMS, hint=hint) from error
    if not isinstance(params, Mapping):
        raise InvalidValue(f"{PARAMS} must be a JSON object", field=PARAMS)
    return {**{name: value for name, value in values.items() if name not in (PARAMS, "image")}, **params}


def extras_body(row: JobRow, urls: ReplyUrls, jobs: Jobs) -> dict[str, Any]:
    """The reply, with the URL of the picture in the requested format where the page expects it."""
    extension = row.spec.parameters["output_format"]
    picture_urls = [urls.image(f"{image['filename'].removesuffix('.png')}.{extension}") for image in row.images]
    return {**result_body(row, urls, jobs), "data": {"output_image": picture_urls[0] if picture_urls else None}}


def _face_models(catalog: EngineCatalog) -> list[str] | None:
    """The face restoration models; None if the engine lacks the nodes that use them."""
    if not all(catalog.has_node(name, NODE_SECONDS) for name in FACE_NODES):
        return None
    return catalog.choices(FACE_NODES[0], "model_name")
