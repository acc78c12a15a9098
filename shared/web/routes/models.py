"""The lists of models that the web page fills its menus with."""

from __future__ import annotations

from pathlib import PurePath

from flask import Blueprint, Response, jsonify

from shared.engine.catalog import EngineCatalog
from shared.web.parsing.models import default_first

# The engine's folders, by the names that the page's routes have.
LISTS = {"models": "checkpoints", "lora-models": "loras", "upscaler-models": "upscale_models"}


def model_routes(catalog: EngineCatalog, preferred: str | None) -> Blueprint:
    """GET /api/models, /api/lora-models and /api/upscaler-models; `preferred` is the checkpoint of the settings."""
    routes = Blueprint("models", __name__)

    def lister(folder: str) -> Response:
        names = catalog.names(folder, 0.0)
        if folder == "checkpoints":
            # The page preselects the first.
            names = default_first(names, preferred, catalog, str)
        models = [{"id": name, "name": PurePath(name).stem, "filename": name} for name in names]
        return jsonify({"status": "success", "models": models})

    for route, folder in LISTS.items():
        routes.add_url_rule(f"/api/{route}", route, lister, defaults={"folder": folder})
    return routes


def controlnet_routes(catalog: EngineCatalog) -> Blueprint:
    """GET /api/controlnet/models; plain names, for the page cannot show objects here."""
    routes = Blueprint("controlnet-models", __name__)

    @routes.get("/api/controlnet/models")
    def list_controlnets() -> Response:
        return jsonify({"status": "success", "models": catalog.names("controlnet", 0.0)})

    return routes
