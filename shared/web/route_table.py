"""The routes of each service."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from flask import Blueprint, Flask

from shared.web.openapi.operation import Route, list_routes
from shared.web.routes.docs import docs_routes
from shared.web.routes.engine import engine_routes
from shared.web.routes.extras import extras_routes
from shared.web.routes.generate import img2img_routes, txt2img_routes
from shared.web.routes.jobs import img2img_interrupt_routes, job_routes, txt2img_interrupt_routes
from shared.web.routes.models import controlnet_routes, model_routes
from shared.web.routes.pictures import picture_page_routes, picture_routes
from shared.web.routes.png_info import png_info_routes
from shared.web.routes.prompts import prompt_routes
from shared.web.routes.report import report_routes
from shared.web.routes.runs import run_routes
from shared.web.routes.settings import settings_routes
from shared.web.routes.system import base_routes, system_routes
from shared.web.routes.upscale import upscale_routes
from shared.web.routes.workflows import workflow_routes

# Every service has these.
COMMON = (picture_routes, png_info_routes, job_routes, controlnet_routes, prompt_routes, system_routes)
TXT2IMG = (txt2img_routes, txt2img_interrupt_routes)
IMG2IMG = (img2img_routes, upscale_routes, img2img_interrupt_routes, workflow_routes)
# More routes of the web page, and those that need the process of the launcher.
CONTROL = (
    *(model_routes, picture_page_routes, extras_routes, run_routes, report_routes),
    *(settings_routes, engine_routes),
)

SERVICES: Mapping[str, tuple[Blueprint, ...]] = {
    "txt2img": (*COMMON, *TXT2IMG, *IMG2IMG),
    "img2img": (*COMMON, *IMG2IMG),
    "control": (*CONTROL, *COMMON),
}
# Routes that need no backend: every application has them, also in tests.
BASE = (base_routes, docs_routes)


@cache
def routes_by_service() -> Mapping[str, list[Route]]:
    """The routes of each service."""
    return {service: _routes_of(service) for service in SERVICES}


def _routes_of(service: str) -> list[Route]:
    app = Flask(service, static_folder=None)
    for blueprint in (*SERVICES[service], *BASE):
        app.register_blueprint(blueprint)
    return list_routes(app)
