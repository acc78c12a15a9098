"""The Flask application of a service: routes, errors, CORS, who may call."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Flask, Response, request
from flask.json.provider import DefaultJSONProvider
from flask_cors import CORS
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestEntityTooLarge
from werkzeug.exceptions import NotFound as NoSuchRoute
from werkzeug.http import parse_date

from shared.errors import BodyTooLarge, DreamLayerError, NotFound, RequestError
from shared.json_limits import dump_json
from shared.settings import Settings
from shared.web.backend import BACKEND, MANAGER, SETTINGS, Backend
from shared.web.body import MOST_FIELDS, StrictRequest
from shared.web.proxies import ProxyMiddleware
from shared.web.reply import base_address, error_reply
from shared.web.route_hints import LONGEST, way_to, way_to_call
from shared.web.route_table import ALWAYS, SERVICES
from shared.web.routes.models import UPLOADS, ModelUploads
from shared.web.security import ACCESS_CONTROL, HEAD_ERROR, SECURITY_HEADERS, AccessControl

if TYPE_CHECKING:
    from shared.engine.manager import EngineManager

log = logging.getLogger(__name__)

DATES = ("HTTP_IF_MODIFIED_SINCE", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_IF_RANGE")


class ReadableJson(DefaultJSONProvider):
    """Replies as JSON that browsers read, whatever numbers a file or the engine brought."""

    sort_keys = False

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """As Flask writes it, without NaN and Infinity."""
        options = {"default": self.default, "ensure_ascii": self.ensure_ascii, "sort_keys": self.sort_keys}
        return dump_json(obj, **{**options, **kwargs})


def txt2img_app(backend: Backend) -> Flask:
    """The application of the txt2img service."""
    return create_app("txt2img", backend.settings, SERVICES["txt2img"], backend)


def img2img_app(backend: Backend) -> Flask:
    """The application of the img2img service."""
    return create_app("img2img", backend.settings, SERVICES["img2img"], backend)


def control_app(backend: Backend, manager: EngineManager, uploads: ModelUploads) -> Flask:
    """The application of the control service."""
    app = create_app("control", backend.settings, SERVICES["control"], backend)
    app.extensions |= {MANAGER: manager, UPLOADS: uploads}
    return app


def create_app(service: str, settings: Settings, routes: Sequence[Blueprint], backend: Backend | None = None) -> Flask:
    """Create the application of `service` (its name in /health). `routes` may need `backend`."""
    app = Flask(service, static_folder=None)
    app.extensions |= {SETTINGS: settings, BACKEND: backend}
    app.json = ReadableJson(app)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_mb * 1024 * 1024
    # Flask refuses text fields of a form over 500 kB by default; a picture as base64 is larger.
    app.config["MAX_FORM_MEMORY_SIZE"] = app.config["MAX_CONTENT_LENGTH"]
    app.config["MAX_FORM_PARTS"] = MOST_FIELDS

    # A redirect would be followed by few clients, and with POST by fewer; the 404 says where the route is.
    app.url_map.merge_slashes = False
    app.request_class = StrictRequest
    app.wsgi_app = ProxyMiddleware(app.wsgi_app, settings)  # type: ignore[method-assign]
    guard = app.extensions[ACCESS_CONTROL] = AccessControl(settings)

    @app.before_request
    def check_caller() -> None:
        refusal = request.environ.get(HEAD_ERROR)
        if isinstance(refusal, DreamLayerError):
            # The server asked the same guard, and a wrong key is counted once.
            raise refusal
        if request.method != "OPTIONS":
            guard.check(request)
        _forget_wrong_dates(request.environ)

    @app.after_request
    def restrict_browsers(response: Response) -> Response:
        return restrict(response, keyed=settings.api_key is not None)

    app.register_error_handler(DreamLayerError, _expected)
    app.register_error_handler(HTTPException, lambda error: _http_error(error, service, settings))
    app.register_error_handler(Exception, _unexpected)
    for blueprint in (*routes, *ALWAYS):
        app.register_blueprint(blueprint)
    # It adds its headers after the error handlers have run, so errors carry them too.
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


def restrict(response: Response, *, keyed: bool) -> Response:
    """What pages of others, and caches between us and the client, must not do with a response. Pure."""
    response.headers.update(SECURITY_HEADERS)
    # The web page shows pictures by <img> and may be at any address that is allowed; their names cannot be guessed.
    if (response.mimetype or "").startswith("image/"):
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    if keyed and response.cache_control.public:
        response.cache_control.public = False
        response.cache_control.private = True
    return response


def _forget_wrong_dates(environ: dict[str, Any]) -> None:
    """Takes dates that are none out of a request: they count as not sent (RFC 9110, 13.1); Werkzeug fails at some."""
    for name in DATES:
        try:
            parse_date(environ.get(name))
        except ArithmeticError:
            environ[name] = "no date"


def _http_error(error: HTTPException, service: str, settings: Settings) -> Response:
    """Flask's own errors in our shape."""
    if isinstance(error, NoSuchRoute):
        hint = way_to(request.path, service, settings)
        return error_reply(NotFound(f"there is no {request.path[:LONGEST]} here", hint=hint))
    if isinstance(error, RequestEntityTooLarge):
        return error_reply(
            BodyTooLarge("the body is too large", hint="scale the picture down, or raise DREAM_LAYER_MAX_BODY_MB")
        )
    response = error_reply(RequestError(error.description or error.name))
    response.status_code = error.code or 400
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        hint = way_to_call(request.path, error.valid_methods, base_address(settings))
        response = error_reply(RequestError(f"{request.path} does not take {request.method}", hint=hint))
        response.status_code = 405
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def _expected(error: DreamLayerError) -> Response:
    response = error_reply(error)
    _let_go(error)
    return response


def _unexpected(error: Exception) -> Response:
    log.exception("unexpected error in %s %r", request.method, request.path[:LONGEST], exc_info=error)
    _let_go(error)
    return error_reply(DreamLayerError("something went wrong in the server", hint="its log has the details"))


def _let_go(error: BaseException | None) -> None:
    """Frees what the functions hold that an error came through, such as pictures.

    An error and the frames that it came through often refer to each other, and Python looks for such circles only now
    and then: a service that had refused some large uploads kept them for as long as it had nothing else to do.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
