"""POST /api/img2txt: the newer web page asks for a description of a picture, and is told that there is none."""

from __future__ import annotations

from flask import Blueprint, Response

from shared.errors import NotSupported


def img2txt_routes() -> Blueprint:
    """POST /api/img2txt, which answers 501: nothing here describes pictures."""
    routes = Blueprint("img2txt", __name__)

    @routes.post("/api/img2txt")
    def describe_picture() -> Response:
        raise NotSupported(
            "Img2Txt is not available: this backend has no model that describes pictures",
            hint="POST /api/png-info reads the prompt of a picture that was generated",
        )

    return routes
