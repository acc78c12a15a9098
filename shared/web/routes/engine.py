"""The engine over HTTP: its state, a restart, and its memory."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from shared.engine.manager import EngineManager
from shared.errors import InvalidValue
from shared.web.body import read_optional_fields


def engine_routes(manager: EngineManager) -> Blueprint:
    """GET /api/engine, POST /api/engine/restart and POST /api/engine/free."""
    routes = Blueprint("engine", __name__)

    @routes.get("/api/engine")
    def get_engine() -> Response:
        return jsonify({"status": "success", "engine": manager.state()})

    @routes.post("/api/engine/restart")
    def restart_engine() -> tuple[Response, int]:
        when_idle = _flag("when_idle")
        manager.restart(when_idle=when_idle)
        message = (
            "the engine is started again as soon as no job is left"
            if when_idle
            else "the engine is being started again; what it was drawing is drawn anew"
        )
        return jsonify({"status": "success", "message": message, "when_idle": when_idle}), 202

    @routes.post("/api/engine/free")
    def free_engine() -> Response:
        read_optional_fields(request)
        manager.free()
        return jsonify({"status": "success", "message": "the engine drops its models as soon as no job runs"})

    return routes


def _flag(name: str) -> bool:
    """A field of the body, which may be left out as a whole, or of the address."""
    sent = read_optional_fields(request, name).values
    value = sent.get(name, request.args.get(name, False))
    if value in (True, "true", "1", 1):
        return True
    if value in (False, "false", "0", 0):
        return False
    raise InvalidValue(f"{name} must be true or false", field=name)
