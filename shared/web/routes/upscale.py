"""Upscaling: POST /api/upscale enlarges a picture by an exact factor."""

from __future__ import annotations

from typing import Annotated

from flask import Blueprint, Response
from pydantic import Field

from shared.images.fit import as_upscale_source
from shared.jobs.job import JobSpec
from shared.schema.body import UpscaleBody
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
from shared.web.parsing.pictures import SentPictures
from shared.web.parsing.unused_fields import idle, unchosen_parts_off, unswitched
from shared.web.parsing.upscale import LARGEST_UPSCALE, choose_faces, choose_upscaler, scaled
from shared.web.parsing.validate import ignored, missing_picture, tidy, validate
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
    values = tidy(job.fields.values)
    # The picture may be a file, and is read below.
    body, without_choice = unchosen_parts_off(validate(UpscaleBody, values | {"image": ""}))
    warnings = [*without_choice, *ignored({**values, **job.fields.files}, UpscaleBody), *unswitched(body)]
    sent = SentPictures(job.fields, backend.jobs.find_upload, backend.picture_memory)
    picture = sent.with_alpha("image")
    if picture is None:
        raise missing_picture(
            "image", sent.names, UpscaleBody, "send a data URL, base64, or a form with a file named image"
        )
    image, name = picture
    size = scaled(image.size, body.upscale_factor, "upscale_factor", LARGEST_UPSCALE)
    request = UpscaleRequest(
        source=as_upscale_source(image),
        upscale=choose_upscaler(body.upscaler, size, "upscaler", backend.catalog),
        faces=choose_faces(body, warnings),
        transparent=image.mode == "RGBA",
    )
    graph = checked(backend, upscale(request, job.prefix))
    parameters = body.model_dump(mode="json", exclude_defaults=True, exclude=idle(body))
    job.submit(
        JobSpec(
            parameters={**parameters, "image": name, "upscaler": body.upscaler},
            graph=graph,
            warnings=[*warnings, *sent.warnings],
            size=size,
        ),
        engine_uploads={request.source.name: request.source.png},
        stored_uploads=sent.kept,
        model=f"{KIND} {body.upscaler}",
        work=float(size[0] * size[1]),
    )
