"""GET /openapi.json and GET /docs."""

from collections.abc import Callable
from pathlib import Path

from flask import Blueprint, Response, current_app, jsonify

from shared.web.openapi.document import openapi_document

# One file, without anything from elsewhere: it works offline, and behind any proxy.
PAGE = Path(__file__).with_name("page.html")


def openapi_routes(service: str, base_url: Callable[[], str], *, keyed: bool) -> Blueprint:
    """GET /openapi.json and GET /docs, for the application that they are registered with."""
    routes = Blueprint("openapi", __name__)

    @routes.get("/openapi.json")
    def get_document() -> Response:
        return jsonify(openapi_document(service, current_app.url_map, base_url(), keyed=keyed))

    @routes.get("/docs")
    def get_page() -> Response:
        return Response(PAGE.read_bytes(), mimetype="text/html")

    return routes
