"""The service itself: what it is, whether it is ready, what there is to choose from, and the services next to it."""

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
from shared.web.parsing.model_catalog import match_file
from shared.web.parsing.models import MAIN, default_checkpoint, default_first
from shared.web.parsing.upscale import LATENT_UPSCALERS, PLAIN_UPSCALERS
from shared.web.reply import base_address
from shared.web.server.ports import url_host
from workflows.preprocessors import PREPROCESSORS

# Seconds in which the engine must answer: whoever asks for readiness wants to know now.
READY_TIMEOUT = 3.0
# Seconds within which a service on this machine says that it lives; its threads for that are never busy.
SERVICE_TIMEOUT = 2.0
LONGEST_ANSWER = 10_000

# Those that need neither the engine nor the jobs: every application has them.
service_routes = Blueprint("service", __name__)
system_routes = Blueprint("system", __name__)


@service_routes.get("/")
@describe(
    "System",
    ReplySpec("where it is described", IndexReply),
    ReplySpec("for `Accept: text/html`", status=302, headers=("Location",)),
    examples=(Example("Ask"),),
    is_open=True,
)
def index() -> ResponseReturnValue:
    """What this is; for a browser, the way to /docs."""
    settings = current_settings()
    if "text/html" in request.accept_mimetypes.values():
        return redirect(f"{settings.public_url.rstrip('/') if settings.public_url else request.script_root}/docs")
    base = base_address(settings)
    about = {"service": current_app.name, "version": __version__, "docs": f"{base}/docs"}
    return jsonify({"status": "ok", **about, "openapi": f"{base}/openapi.json"})


@service_routes.get("/health")
@describe(
    "System",
    ReplySpec("it lives", HealthReply),
    examples=(Example("Ask"),),
    is_open=True,
)
def health() -> Response:
    """Whether the service lives, whatever the engine does."""
    return jsonify({"status": "ok", "service": current_app.name, "version": __version__})


@system_routes.get("/ready")
@describe(
    "System",
    ReplySpec("yes", ReadyReply),
    ReplySpec("no, and why", ReadyReply, status=503),
    examples=(Example("Ask"),),
)
def get_readiness() -> tuple[Response, int]:
    """Whether a picture can be made now."""
    backend = current_backend()
    unfinished = backend.jobs.unfinished()
    reason = _obstacle(backend, unfinished)
    body = {"status": "error" if reason else "ok", "ready": reason is None, "reason": reason, "jobs": unfinished}
    return jsonify(body), 200 if reason is None else 503


def _obstacle(backend: Backend, unfinished: int) -> str | None:
    """Why no picture can be made now; None if nothing is in the way."""
    try:
        backend.engine.get_system_stats(READY_TIMEOUT)
        names = {folder: backend.catalog.names(folder, 0.0) for folder in MAIN}
        stuck = _stuck(backend)
    except EngineDenied as error:
        return f"{error.message}: {error.hint}"
    except EngineError as error:
        return f"{error.message}: it is starting, or was not started"
    chosen = default_checkpoint(backend.settings.checkpoint, backend.catalog)
    if chosen is None:
        return f"there is no checkpoint in {backend.settings.models_dir / 'checkpoints'}"
    # It may be a diffusion model, and named without its folder and extension, as in a request.
    if not match_names(chosen, [name for files in names.values() for name in files]):
        return f"the checkpoint {chosen} of DREAM_LAYER_CHECKPOINT does not exist"
    if unfinished >= backend.settings.queue_limit:
        return f"the queue is full: {unfinished} jobs wait"
    return stuck


def _stuck(backend: Backend) -> str | None:
    """What is said of a job that has ended long ago and still runs in the engine; None if there is none."""
    for row in backend.jobs.ended_but_running(READY_TIMEOUT):
        seconds = time.time() - (row.finished or math.inf)
        if seconds >= backend.settings.cancel_timeout:
            away = backend.settings.engine_url
            remedy = "the launcher restarts it" if away is None else f"restart it where it runs ({away})"
            return f"the engine still works on job {row.id}, which was {row.state.value} {seconds:.0f} s ago: {remedy}"
    return None


@system_routes.get("/api/options")
@describe(
    "System",
    ReplySpec("models, samplers, limits, fields", OptionsReply),
    examples=(Example("Ask"),),
    errors=(EngineUnavailable,),
)
def get_options() -> Response:
    """All there is to choose from, now."""
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
            # As JSON Schema: types, ranges, choices and meanings of all fields.
            "parameters": {
                "txt2img": Txt2ImgBody.model_json_schema(by_alias=False),
                "img2img": Img2ImgBody.model_json_schema(by_alias=False),
            },
        }
    )


def _checkpoints(files: list[dict[str, Any]], backend: Backend) -> list[dict[str, Any]]:
    return default_first(files, backend.settings.checkpoint, backend.catalog, lambda file: str(file["name"]))


def _defaults(backend: Backend) -> dict[str, Any]:
    """What a request gets that names nothing but a prompt."""
    wanted = default_checkpoint(backend.settings.checkpoint, backend.catalog)
    # The setting may leave out its folder and ending.
    chosen = None if wanted is None else match_file(wanted, backend.catalog.names("checkpoints"))
    if chosen is None:
        return {"model_name": wanted}
    return {"model_name": chosen, **asdict(defaults_for(backend.catalog.model_file("checkpoints", chosen)))}


@service_routes.get("/api/services")
@describe(
    "System",
    ReplySpec("all of them, with the ports of the web page", ServicesReply),
    examples=(Example("Ask"),),
)
def list_services() -> Response:
    """The services, where each has its page, and which of them run."""
    settings = current_settings()
    ports, base = ports_of(settings), base_address(settings)
    with ThreadPoolExecutor(len(ports)) as pool:
        found = list(pool.map(lambda each: runs(settings.host, each[2], each[1]), ports))
    services = [
        {"name": name, "service": service, "port": port, "running": running} | {"docs": docs_address(base, port, ports)}
        for (name, service, port), running in zip(ports, found, strict=True)
    ]
    return jsonify({"status": "success", "services": services})


def ports_of(settings: Settings) -> list[tuple[str, str, int]]:
    """Name, service and port of each. The control service answers on those that the web page has built in too. Pure."""
    return [
        ("txt2img", "txt2img", settings.txt2img_port),
        ("img2img", "img2img", settings.img2img_port),
        ("control", "control", settings.control_port),
        ("extras", "control", settings.extras_port),
        ("runs", "control", settings.runs_port),
        ("report", "control", settings.report_port),
        ("img2txt", "control", settings.img2txt_port),
    ]


def docs_address(base: str, port: int, ports: list[tuple[str, str, int]]) -> str | None:
    """The address of the page of the service on `port`, for who reached one of ours at `base`. Pure.

    None behind a proxy: only who has set it up knows under which address it hands on to the others.
    """
    called = urlsplit(base)
    if called.path or called.port not in [each for _, _, each in ports]:
        return None
    host = called.netloc.rpartition(":")[0]
    return f"{called.scheme}://{host}:{port}/docs"


def runs(host: str, port: int, service: str) -> bool:
    """Whether this service of ours answers on a port of this machine; `host` is what it was told to listen on."""
    connection = http.client.HTTPConnection(url_host(host).strip("[]"), port, timeout=SERVICE_TIMEOUT)
    try:
        connection.request("GET", "/health")
        said = json.loads(connection.getresponse().read(LONGEST_ANSWER))
    except (OSError, ValueError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return isinstance(said, dict) and said.get("service") == service
