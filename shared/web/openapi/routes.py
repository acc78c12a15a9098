"""GET /openapi.json, and the page that shows it: GET /docs and its files."""

import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

from flask import Blueprint, Response, current_app, jsonify, request

from shared.errors import NotFound
from shared.settings import Settings
from shared.web.openapi.document import Document, openapi_document

# Plain files, without anything from elsewhere: they work offline, and behind any proxy.
PAGE = Path(__file__).with_name("page")
INDEX = "index.html"
TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
MEGABYTE = 1024 * 1024


def openapi_routes(service: str, base_url: Callable[[], str], settings: Settings) -> Blueprint:
    """GET /openapi.json, GET /docs and GET /docs/<file>, for the application that they are registered with."""
    routes = Blueprint("openapi", __name__)
    keyed = settings.api_key is not None
    limits = {"": settings.max_body_mb * MEGABYTE, "/api/upload-model": settings.max_model_mb * MEGABYTE}
    turn = threading.Lock()

    @cache
    def document() -> Document:
        """All of it but the address: a tenth of a second's work, and always the same."""
        return openapi_document(service, current_app.url_map, "", keyed=keyed, limits=limits)

    @routes.get("/openapi.json")
    def get_document() -> Response:
        with turn:
            whole = document()
        return jsonify({**whole, "servers": [{"url": base_url()}]})

    @routes.get("/docs")
    def get_page() -> Response:
        return page_file(INDEX)

    @routes.get("/docs/<file>")
    def get_page_file(file: str) -> Response:
        return page_file(file)

    return routes


def page_file(name: str) -> Response:
    """A file of the page. Browsers ask each time whether it has changed. Raises NotFound."""
    mimetype = TYPES.get(Path(name).suffix)
    # What a name leads to differs between systems: "..\\x" leaves the folder on Windows.
    if mimetype is None or name not in [path.name for path in PAGE.iterdir()]:
        raise NotFound(f"the page has no file {name[:100]}", hint="the page is GET /docs")
    response = Response((PAGE / name).read_bytes(), mimetype=mimetype)
    response.headers["Cache-Control"] = "no-cache"
    response.add_etag()
    response.make_conditional(request)
    return response
