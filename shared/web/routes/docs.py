"""The OpenAPI document and the /docs page: GET /openapi.json, GET /docs."""

from __future__ import annotations

import threading
from pathlib import Path

from flask import Blueprint, Response, current_app, jsonify, request

from shared.errors import NotFound
from shared.web.backend import current_settings
from shared.web.openapi.document import Document, openapi_document
from shared.web.openapi.operation import JSON, Example, ParameterSpec, ReplySpec, describe, list_routes
from shared.web.reply import base_url

# Plain files that load nothing from other hosts: they work offline, and behind any proxy.
PAGE = Path(__file__).parents[1] / "openapi" / "page"
INDEX = "index.html"
TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
TEXT = {"type": "string"}
MEGABYTE = 1024 * 1024
# The key of the document in an application's extensions.
DOCUMENT = "openapi_document"

docs_routes = Blueprint("docs", __name__)
_document_lock = threading.Lock()


@docs_routes.get("/openapi.json")
@describe(
    "System",
    ReplySpec("an OpenAPI 3.1 document", types={JSON: {"type": "object"}}),
    examples=(Example("The document"),),
)
def get_document() -> Response:
    """This document."""
    return jsonify({**_document(), "servers": [{"url": base_url(current_settings())}]})


@docs_routes.get("/docs")
@describe(
    "System",
    ReplySpec("the page", types={"text/html": TEXT}),
    examples=(Example("The page"),),
    is_open=True,
)
def get_page() -> Response:
    """This document as a web page."""
    return _page_file(INDEX)


@docs_routes.get("/docs/<file>")
@describe(
    "System",
    ReplySpec("the file", types={f"text/{kind}": TEXT for kind in ("javascript", "css", "html")}),
    examples=(Example("The style sheet", path={"file": "style.css"}),),
    parameters=(ParameterSpec("file", "path", "the name of the file"),),
    errors=(NotFound,),
    is_open=True,
)
def get_page_file(file: str) -> Response:
    """A file of the web page."""
    return _page_file(file)


def _document() -> Document:
    """The document without its URL. Writing it takes 0.1 s, so the application keeps it."""
    settings = current_settings()
    with _document_lock:
        if DOCUMENT not in current_app.extensions:
            keyed = settings.api_key is not None
            limits = {"": settings.max_body_mb * MEGABYTE, "/api/upload-model": settings.max_model_mb * MEGABYTE}
            current_app.extensions[DOCUMENT] = openapi_document(
                current_app.name, list_routes(current_app), "", keyed=keyed, limits=limits
            )
    document: Document = current_app.extensions[DOCUMENT]
    return document


def _page_file(name: str) -> Response:
    """Reply with a file of the page, which browsers revalidate each time. Raises NotFound."""
    mimetype = TYPES.get(Path(name).suffix)
    # The name may leave the folder: on Windows, as "..\\x".
    if mimetype is None or name not in [path.name for path in PAGE.iterdir()]:
        raise NotFound(f"the page has no file {name[:100]}", hint="open /docs")
    response = Response((PAGE / name).read_bytes(), mimetype=mimetype)
    response.headers["Cache-Control"] = "no-cache"
    response.add_etag()
    response.make_conditional(request)
    return response
