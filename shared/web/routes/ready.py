"""GET /ready: whether a picture can be made now, and if not, why."""

from __future__ import annotations

import math
import time

from flask import Blueprint, Response, jsonify

from shared.errors import EngineDenied, EngineError
from shared.models.lookup import match_names
from shared.web.backend import Backend
from shared.web.parsing.models import MAIN, default_checkpoint

# Seconds in which the engine must answer: whoever asks for readiness wants to know now.
TIMEOUT = 3.0


def ready_routes(backend: Backend) -> Blueprint:
    """GET /ready, with status 200 or 503."""
    routes = Blueprint("ready", __name__)

    @routes.get("/ready")
    def ready() -> tuple[Response, int]:
        unfinished = backend.jobs.unfinished()
        reason = _obstacle(backend, unfinished)
        body = {"status": "error" if reason else "ok", "ready": reason is None, "reason": reason, "jobs": unfinished}
        return jsonify(body), 200 if reason is None else 503

    return routes


def _obstacle(backend: Backend, unfinished: int) -> str | None:
    """Why no picture can be made now; None if nothing is in the way."""
    try:
        backend.engine.system_stats(TIMEOUT)
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
    for row in backend.jobs.ended_but_running(TIMEOUT):
        seconds = time.time() - (row.finished or math.inf)
        if seconds >= backend.settings.cancel_timeout:
            away = backend.settings.engine_url
            remedy = "the launcher restarts it" if away is None else f"restart it where it runs ({away})"
            return f"the engine still works on job {row.id}, which was {row.state.value} {seconds:.0f} s ago: {remedy}"
    return None
