"""POST /api/upscale: a finished picture, enlarged by exactly a factor."""

from __future__ import annotations

from flask import Blueprint, Response

from shared.images.fit import as_source_to_enlarge
from shared.schema.body import UpscaleBody
from shared.schema.request import UpscaleRequest
from shared.web.backend import Backend
from shared.web.body import Fields
from shared.web.graph_errors import graph_error
from shared.web.parsing.pictures import SentPictures
from shared.web.parsing.unused_fields import idle, unchosen_parts_off, unswitched
from shared.web.parsing.upscale import LARGEST_UPSCALE, choose_faces, choose_upscaler, scaled
from shared.web.parsing.validate import ignored, missing_picture, tidy, validate
from shared.web.submission import Draft, draw
from workflows.upscale import upscale

KIND = "upscale"


def upscale_routes(backend: Backend) -> Blueprint:
    """POST /api/upscale."""
    routes = Blueprint(KIND, __name__)

    @routes.post(f"/api/{KIND}")
    def enlarge() -> Response:
        return draw(backend, KIND, draft)

    def draft(fields: Fields, prefix: str) -> Draft:
        values = tidy(fields.values)
        # The picture is read from `fields`, for it may be a file.
        body, without_choice = unchosen_parts_off(validate(UpscaleBody, values | {"image": ""}))
        warnings = [*without_choice, *ignored({**values, **fields.files}, UpscaleBody), *unswitched(body)]
        sent = SentPictures(fields, backend.archive.uploads.find, backend.picture_memory)
        found = sent.with_alpha("image")
        if found is None:
            raise missing_picture(
                "image", sent.names, UpscaleBody, "send a data URL, base64, or a form with a file named image"
            )
        image, name = found
        warnings += sent.warnings
        size = scaled(image.size, body.upscale_factor, "upscale_factor", LARGEST_UPSCALE)
        request = UpscaleRequest(
            source=as_source_to_enlarge(image),
            upscale=choose_upscaler(body.upscaler, size, "upscaler", backend.catalog),
            faces=choose_faces(body, warnings),
            transparent=image.mode == "RGBA",
        )
        graph = upscale(request, prefix).to_api()
        problems = backend.catalog.check(graph)
        if problems:
            raise graph_error(problems)
        return Draft(
            request={
                **body.model_dump(mode="json", exclude_defaults=True, exclude=idle(body)),
                "image": name,
                "upscaler": body.upscaler,
            },
            graph=graph,
            warnings=warnings,
            uploads={request.source.name: request.source.png},
            kept=sent.kept,
            size=size,
            model=f"{KIND} {body.upscaler}",
            work=float(size[0] * size[1]),
        )

    return routes
