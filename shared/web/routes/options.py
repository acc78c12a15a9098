"""GET /api/options: everything that a user interface offers to choose from, in one answer."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, jsonify

from shared.engine.catalog import engine_options
from shared.models.defaults import defaults_for
from shared.schema.body import Img2ImgBody, Txt2ImgBody
from shared.web.backend import Backend
from shared.web.parsing.model_catalog import match_file
from shared.web.parsing.models import default_checkpoint, default_first
from shared.web.parsing.upscale import LATENT_UPSCALERS, PLAIN_UPSCALERS
from workflows.preprocessors import PREPROCESSORS


def option_routes(backend: Backend) -> Blueprint:
    """GET /api/options."""
    routes = Blueprint("options", __name__)

    @routes.get("/api/options")
    def get_options() -> Response:
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

    return routes


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
