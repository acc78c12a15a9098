"""The control service's routes: the engine's state, and what models there are."""

from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from flask import Blueprint, Response, jsonify

from shared.engine.catalog import Catalog


def control_routes(engine_state: Callable[[], dict[str, Any]], catalog: Catalog) -> Blueprint:
    """GET /api/engine and GET /api/models."""
    routes = Blueprint("control", __name__)

    @routes.get("/api/engine")
    def get_engine() -> Response:
        return jsonify({"status": "success", "engine": engine_state()})

    @routes.get("/api/models")
    def get_models() -> Response:
        names = catalog.names("checkpoints", 0.0)
        models = [{"id": name, "name": PurePath(name).stem, "filename": name} for name in names]
        return jsonify({"status": "success", "models": models})

    return routes
