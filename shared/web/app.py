"""Creates the Flask application of a service: routes, error replies, CORS and access control."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Flask, Response, request
from flask.json.provider import DefaultJSONProvider
from flask_cors import CORS
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestEntityTooLarge
from werkzeug.exceptions import NotFound as RouteNotFound
from werkzeug.http import parse_date

from shared.errors import BodyTooLarge, DreamLayerError, NotFound, RequestError
from shared.json_limits import dump_json
from shared.settings import Settings
from shared.web.backend import BACKEND, MANAGER, SETTINGS, Backend
from shared.web.proxies import ProxyMiddleware
from shared.web.reply import base_url, error_reply
from shared.web.request_body import MAX_FIELDS, StrictRequest
from shared.web.route_hints import LONGEST_PATH, hint_for_method, hint_for_path
from shared.web.route_table import BASE, SERVICES
from shared.web.routes.models import UPLOADS, ModelUploads
from shared.web.security import ACCESS_CONTROL, HEAD_ERROR, SECURITY_HEADERS, AccessControl

if TYPE_CHECKING:
    from shared.engine.manager import EngineManager

log = logging.getLogger(__name__)

DATE_HEADERS = ("HTTP_IF_MODIFIED_SINCE", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_IF_RANGE")


class StrictJsonProvider(DefaultJSONProvider):
    """Writes JSON that browsers can parse: NaN and Infinity, which files and the engine may contain, become null."""

    sort_keys = False

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Serialise like Flask, but without NaN and Infinity."""
        options = {"default": self.default, "ensure_ascii": self.ensure_ascii, "sort_keys": self.sort_keys}
        return dump_json(obj, **{**options, **kwargs})


def txt2img_app(backend: Backend) -> Flask:
    """Create the application of the txt2img service."""
    return create_app("txt2img", backend.settings, SERVICES["txt2img"], backend)


def img2img_app(backend: Backend) -> Flask:
    """Create the application of the img2img service."""
    return create_app("img2img", backend.settings, SERVICES["img2img"], backend)


def control_app(backend: Backend, manager: EngineManager, uploads: ModelUploads) -> Flask:
    """Create the application of the control service."""
    app = create_app("control", backend.settings, SERVICES["control"], backend)
    app.extensions |= {MANAGER: manager, UPLOADS: uploads}
    return app


def create_app(service: str, settings: Settings, routes: Sequence[Blueprint], backend: Backend | None = None) -> Flask:
    """Create an application with these routes. `service` is its name in /health; most routes need `backend`."""
    app = Flask(service, static_folder=None)
    app.extensions |= {SETTINGS: settings, BACKEND: backend}
    app.json = StrictJsonProvider(app)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_mb * 1024 * 1024
    # By default, Flask refuses text fields of forms over 500 kB. A picture in base64 is larger.
    app.config["MAX_FORM_MEMORY_SIZE"] = app.config["MAX_CONTENT_LENGTH"]
    app.config["MAX_FORM_PARTS"] = MAX_FIELDS

    # Few clients follow a redirect, and fewer with POST. A 404 names the right path instead.
    app.url_map.merge_slashes = False
    app.request_class = StrictRequest
    app.wsgi_app = ProxyMiddleware(app.wsgi_app, settings)  # type: ignore[method-assign]
    access_control = app.extensions[ACCESS_CONTROL] = AccessControl(settings)

    @app.before_request
    def check_caller() -> None:
        error = request.environ.get(HEAD_ERROR)
        if isinstance(error, DreamLayerError):
            # The server has checked the head of this request already: a wrong key counts once.
            raise error
        if request.method != "OPTIONS":
            access_control.check(request)
        _drop_invalid_dates(request.environ)

    @app.after_request
    def restrict_browsers(response: Response) -> Response:
        return add_security_headers(response, has_key=settings.api_key is not None)

    app.register_error_handler(DreamLayerError, _known_error)
    app.register_error_handler(HTTPException, lambda error: _http_error(error, service, settings))
    app.register_error_handler(Exception, _unexpected_error)
    for blueprint in (*routes, *BASE):
        app.register_blueprint(blueprint)
    # flask_cors adds its headers after the error handlers, so errors have them too.
    CORS(
        app,
        origins=list(settings.allowed_origins),
        expose_headers=[
            "Content-Disposition",
            "Content-Location",
            "Link",
            "Location",
            "Retry-After",
            "X-Job-Id",
            "X-Seed",
            "X-Warnings",
        ],
        max_age=3600,
    )
    return app


def add_security_headers(response: Response, *, has_key: bool) -> Response:
    """Restrict the use of a response by other web pages and, if there is an API key, by shared caches."""
    response.headers.update(SECURITY_HEADERS)
    # The web page may have any allowed origin and shows pictures with <img>. Their names cannot be guessed.
    if (response.mimetype or "").startswith("image/"):
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    if has_key and response.cache_control.public:
        response.cache_control.public = False
        response.cache_control.private = True
    return response


def _drop_invalid_dates(environ: dict[str, Any]) -> None:
    """Make Werkzeug ignore dates that it fails to parse: an invalid date counts as not sent (RFC 9110, 13.1)."""
    for name in DATE_HEADERS:
        try:
            parse_date(environ.get(name))
        except ArithmeticError:
            environ[name] = "no date"


def _http_error(error: HTTPException, service: str, settings: Settings) -> Response:
    """Reply to Flask's own errors in our format."""
    if isinstance(error, RouteNotFound):
        hint = hint_for_path(request.path, service, settings)
        return error_reply(NotFound(f"this service has no route {request.path[:LONGEST_PATH]}", hint=hint))
    if isinstance(error, RequestEntityTooLarge):
        return error_reply(
            BodyTooLarge("the body is too large", hint="send a smaller picture, or raise DREAM_LAYER_MAX_BODY_MB")
        )
    response = error_reply(RequestError(error.description or error.name))
    response.status_code = error.code or 400
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        hint = hint_for_method(request.path, error.valid_methods, base_url(settings))
        response = error_reply(RequestError(f"{request.path} does not allow {request.method}", hint=hint))
        response.status_code = 405
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def _known_error(error: DreamLayerError) -> Response:
    response = error_reply(error)
    _release_frames(error)
    return response


def _unexpected_error(error: Exception) -> Response:
    log.exception("unexpected error in %s %r", request.method, request.path[:LONGEST_PATH], exc_info=error)
    _release_frames(error)
    return error_reply(DreamLayerError("unexpected error in the server", hint="see the log of the server"))


def _release_frames(error: BaseException | None) -> None:
    """Free the local variables, such as pictures, of the functions that an error passed through.

    An error and its frames often refer to each other, and Python collects such cycles only now and then: without this,
    an idle service keeps large uploads that it has refused.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
