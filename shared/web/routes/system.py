"""The service itself: its name, health, readiness and options, and the other services."""

from __future__ import annotations

import http.client
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Response, current_app, jsonify, redirect, request
from flask.typing import ResponseReturnValue

from shared import __version__
from shared.engine.catalog import engine_options
from shared.errors import EngineDenied, EngineError, EngineUnavailable
from shared.models.defaults import defaults_for
from shared.models.lookup import match_names
from shared.schema.body import Img2ImgBody, Txt2ImgBody
from shared.schema.replies import HealthReply, IndexReply, OptionsReply, ReadyReply, ServicesReply
from shared.settings import Settings
from shared.web.backend import Backend, current_backend, current_settings
from shared.web.openapi.operation import Example, ReplySpec, describe
from shared.web.parsing.model_catalog import MODEL, match_file
from shared.web.parsing.models import default_checkpoint, default_first
from shared.web.parsing.upscale import LATENT_UPSCALERS, PLAIN_UPSCALERS
from shared.web.reply import base_url
from shared.web.server.ports import url_host
from workflows.preprocessors import PREPROCESSORS

# Seconds for the engine to answer a readiness check.
READY_TIMEOUT = 3.0
# Seconds for a service on this machine to answer /health, for which it always has a free thread.
SERVICE_TIMEOUT = 2.0
LARGEST_HEALTH_REPLY = 10_000

# Routes that need no backend.
base_routes = Blueprint("base", __name__)
system_routes = Blueprint("system", __name__)


@base_routes.get("/")
@describe(
    "System",
    ReplySpec("the name and version, and the URLs of the documentation", IndexReply),
    ReplySpec("the redirect, for `Accept: text/html`", status=302, headers=("Location",)),
    examples=(Example("The service"),),
    is_open=True,
)
def index() -> ResponseReturnValue:
    """Get the name and version of the service; browsers are redirected to /docs."""
    settings = current_settings()
    if "text/html" in request.accept_mimetypes.values():
        return redirect(f"{settings.public_url.rstrip('/') if settings.public_url else request.script_root}/docs")
    base = base_url(settings)
    about = {"service": current_app.name, "version": __version__, "docs": f"{base}/docs"}
    return jsonify({"status": "ok", **about, "openapi": f"{base}/openapi.json"})


@base_routes.get("/health")
@describe(
    "System",
    ReplySpec("the service is alive", HealthReply),
    examples=(Example("The check"),),
    is_open=True,
)
def health() -> Response:
    """Check that the service is alive, whatever the state of the engine."""
    return jsonify({"status": "ok", "service": current_app.name, "version": __version__})


@system_routes.get("/ready")
@describe(
    "System",
    ReplySpec("ready", ReadyReply),
    ReplySpec("not ready, with the reason", ReadyReply, status=503),
    examples=(Example("The check"),),
)
def get_readiness() -> tuple[Response, int]:
    """Check whether a picture can be generated now."""
    backend = current_backend()
    unfinished = backend.jobs.count_unfinished()
    reason = _why_not_ready(backend, unfinished)
    body = {"status": "error" if reason else "ok", "ready": reason is None, "reason": reason, "jobs": unfinished}
    return jsonify(body), 200 if reason is None else 503


def _why_not_ready(backend: Backend, unfinished: int) -> str | None:
    """The reason why no picture can be generated now; None if there is none."""
    try:
        backend.engine.get_system_stats(READY_TIMEOUT)
        names = {folder: backend.catalog.names(folder, 0.0) for folder in MODEL.folders}
        stuck = _stuck_job(backend)
    except EngineDenied as error:
        return f"{error.message}: {error.hint}"
    except EngineError as error:
        return f"{error.message}: it is still starting, or does not run"
    chosen = default_checkpoint(backend.settings.checkpoint, backend.catalog)
    if chosen is None:
        return f"there is no checkpoint in {backend.settings.models_dir / 'checkpoints'}"
    # As in a request, it may be a diffusion model, and its folder and extension may be left out.
    if not match_names(chosen, [name for files in names.values() for name in files]):
        return f"DREAM_LAYER_CHECKPOINT is {chosen}, which does not exist"
    if unfinished >= backend.settings.queue_limit:
        return f"the queue is full: {unfinished} jobs are waiting"
    return stuck


def _stuck_job(backend: Backend) -> str | None:
    """A message about a job that ended long ago but still runs in the engine; None if there is none."""
    for row in backend.jobs.finished_but_running(READY_TIMEOUT):
        seconds = time.time() - (row.finished or math.inf)
        if seconds >= backend.settings.cancel_timeout:
            url = backend.settings.engine_url
            remedy = "the launcher will restart it" if url is None else f"restart the engine at {url}"
            return f"the engine still runs job {row.id}, which was {row.state.value} {seconds:.0f} s ago: {remedy}"
    return None


@system_routes.get("/api/options")
@describe(
    "System",
    ReplySpec("models, samplers, schedulers, upscalers, limits, and the schemas of the fields", OptionsReply),
    examples=(Example("All options"),),
    errors=(EngineUnavailable,),
)
def get_options() -> Response:
    """List the models, samplers and all other choices for requests."""
    backend = current_backend()
    choices = engine_options(backend.catalog, PREPROCESSORS)
    return jsonify(
        {
            "status": "success",
            **choices,
            "checkpoints": _checkpoints(choices["checkpoints"], backend),
            "upscalers": [*choices["upscalers"], *PLAIN_UPSCALERS],
            "hires_upscalers": [*LATENT_UPSCALERS, *choices["upscalers"], *PLAIN_UPSCALERS],
            "defaults": _defaults(backend),
            "limits": {
                "max_body_mb": backend.settings.max_body_mb,
                "queue_limit": backend.settings.queue_limit,
                "request_timeout_s": backend.settings.request_timeout,
            },
            # JSON Schemas: types, ranges, choices and descriptions of all fields.
            "parameters": {
                "txt2img": Txt2ImgBody.model_json_schema(by_alias=False),
                "img2img": Img2ImgBody.model_json_schema(by_alias=False),
            },
        }
    )


def _checkpoints(files: list[dict[str, Any]], backend: Backend) -> list[dict[str, Any]]:
    return default_first(files, backend.settings.checkpoint, backend.catalog, lambda file: str(file["name"]))


def _defaults(backend: Backend) -> dict[str, Any]:
    """The parameters of a request that has only a prompt."""
    wanted = default_checkpoint(backend.settings.checkpoint, backend.catalog)
    # The setting may leave out the folder and the extension.
    chosen = None if wanted is None else match_file(wanted, backend.catalog.names("checkpoints"))
    if chosen is None:
        return {"model_name": wanted}
    return {"model_name": chosen, **asdict(defaults_for(backend.catalog.model_file("checkpoints", chosen)))}


@base_routes.get("/api/services")
@describe(
    "System",
    ReplySpec("the services, also on the ports of the web page", ServicesReply),
    examples=(Example("All services"),),
)
def list_services() -> Response:
    """List the services, with the URLs of their /docs pages and whether they run."""
    settings = current_settings()
    ports, base = ports_of(settings), base_url(settings)
    with ThreadPoolExecutor(len(ports)) as pool:
        are_running = list(pool.map(lambda row: is_running(settings.host, row[2], row[1]), ports))
    services = [
        {"name": name, "service": service, "port": port, "running": running} | {"docs": docs_url(base, port, ports)}
        for (name, service, port), running in zip(ports, are_running, strict=True)
    ]
    return jsonify({"status": "success", "services": services})


def ports_of(settings: Settings) -> list[tuple[str, str, int]]:
    """Name, service and port of each. The control service also serves the ports that the web page has built in."""
    return [
        ("txt2img", "txt2img", settings.txt2img_port),
        ("img2img", "img2img", settings.img2img_port),
        ("control", "control", settings.control_port),
        ("extras", "control", settings.extras_port),
        ("runs", "control", settings.runs_port),
        ("report", "control", settings.report_port),
        ("img2txt", "control", settings.img2txt_port),
    ]


def docs_url(base: str, port: int, ports: list[tuple[str, str, int]]) -> str | None:
    """The URL of the /docs page on `port`, for a client that reached this service at `base`.

    None behind a proxy, whose URLs for the other services are unknown here.
    """
    url = urlsplit(base)
    if url.path or url.port not in [row[2] for row in ports]:
        return None
    host = url.netloc.rpartition(":")[0]
    return f"{url.scheme}://{host}:{port}/docs"


def is_running(host: str, port: int, service: str) -> bool:
    """Whether this service answers on a port of this machine; `host` is the address that the services listen on."""
    connection = http.client.HTTPConnection(url_host(host).strip("[]"), port, timeout=SERVICE_TIMEOUT)
    try:
        connection.request("GET", "/health")
        reply = json.loads(connection.getresponse().read(LARGEST_HEALTH_REPLY))
    except (OSError, ValueError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return isinstance(reply, dict) and reply.get("service") == service
