"""Upscaling: POST /api/upscale enlarges a picture by an exact factor."""

from __future__ import annotations

from typing import Annotated

from flask import Blueprint, Response
from pydantic import Field

from shared.images.fit import as_upscale_source
from shared.jobs.job import JobSpec
from shared.schema.body import UpscaleBody, UpscaleOptions
from shared.schema.request import UpscaleRequest
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
from shared.web.parsing.parser import Parser
from shared.web.parsing.unused_fields import inactive_fields
from shared.web.parsing.upscale import MAX_UPSCALED_SIDE, choose_faces, choose_upscaler, scale_size
from shared.web.parsing.validate_fields import missing_picture
from shared.web.submission import Submission, submission
from workflows.upscale import upscale

KIND = "upscale"


upscale_routes = Blueprint(KIND, __name__)


class UpscaleForm(UpscaleBody):
    """The fields of upscaling as a form."""

    image: Annotated[PictureFile, Field(description="the picture")]


@upscale_routes.post("/api/upscale")
@describe(
    "Generate",
    RESULT,
    ACCEPTED,
    examples=(Example("Twice as large", {"image": PICTURE, "upscaler": "Lanczos", "upscale_factor": 2}),),
    body=BodySpec(UpscaleBody, UpscaleForm),
    parameters=GENERATION_HEADERS,
    errors=GENERATION_ERRORS,
)
def upscale_picture() -> Response:
    """Upscale a picture."""
    backend = current_backend()
    with submission(backend, KIND) as job:
        if job.row is None:
            submit_upscale(backend, job)
        return job.answer()


def submit_upscale(backend: Backend, job: Submission) -> None:
    """Submit the job for an upscaling request."""
    parser = Parser(job.fields, backend.parsing_context())
    body = parser.read_body(UpscaleOptions, UpscaleBody)
    image = parser.pictures.read_with_alpha("image")
    if image is None:
        hint = "send a data URL, base64, or a form with a file named image"
        raise missing_picture("image", parser.pictures.field_names, UpscaleBody, hint)
    size = scale_size(image.size, body.upscale_factor, "upscale_factor", MAX_UPSCALED_SIDE)
    request = UpscaleRequest(
        source=as_upscale_source(image),
        upscale=choose_upscaler(parser.catalog, body.upscaler, size, "upscaler"),
        faces=choose_faces(parser, body),
        transparent=image.mode == "RGBA",
    )
    graph = checked(backend, upscale(request, job.prefix))
    parameters = body.model_dump(mode="json", exclude_defaults=True, exclude=inactive_fields(body))
    parameters |= {"image": parser.pictures.upload_names["image"], "upscaler": body.upscaler}
    job.submit(
        JobSpec(
            parameters=parameters,
            graph=graph,
            warnings=parser.warnings,
            size=size,
        ),
        engine_uploads={request.source.name: request.source.png},
        stored_uploads=parser.pictures.raw_uploads,
        model=f"{KIND} {body.upscaler}",
        work=float(size[0] * size[1]),
    )
