"""POST /api/upload-controlnet-image: a picture that later requests may name."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from shared.errors import InvalidPicture
from shared.images.decode import read_picture
from shared.web.backend import Backend
from shared.web.body import read_fields
from shared.web.parsing.pictures import upload_name


def upload_routes(backend: Backend) -> Blueprint:
    """POST /api/upload-controlnet-image."""
    routes = Blueprint("uploads", __name__)

    @routes.post("/api/upload-controlnet-image")
    def upload() -> Response:
        fields = read_fields(request)
        content = fields.picture("file", "image")
        if content is None:
            raise InvalidPicture("file is missing", field="file", hint="send a form with a file named file")
        # Decoded whole, so that what cannot be used is refused now and not when it is named.
        picture = read_picture(content, "file", budget=backend.picture_memory)
        name = upload_name(content)
        backend.jobs.files.keep_alone(name, content)
        told = {"status": "success", "message": "the picture is uploaded", "filename": name}
        return jsonify({**told, "width": picture.width, "height": picture.height})

    return routes
