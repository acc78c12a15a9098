"""The txt2img service, by default on http://localhost:5001. It answers /api/img2img too."""

import sys

if __name__ == "__main__":
    from launcher.environment import enter_environment

    # Before anything is imported that a bare Python does not have.
    enter_environment(__file__)

from flask import Flask

from shared.web.app import create_app
from shared.web.backend import Backend
from shared.web.routes.fetch_prompt import suggestion_routes
from shared.web.routes.generate import image_routes, img2img_routes, txt2img_routes
from shared.web.routes.jobs import interrupt_routes, job_routes
from shared.web.routes.models import controlnet_routes
from shared.web.routes.options import option_routes
from shared.web.routes.png_info import pnginfo_routes
from shared.web.routes.ready import ready_routes
from shared.web.routes.uploads import upload_routes
from shared.web.routes.upscale import upscale_routes
from shared.web.routes.workflows import workflow_routes
from shared.web.service import main


def build(backend: Backend) -> Flask:
    """The service's application."""
    routes = [
        txt2img_routes(backend),
        interrupt_routes(backend, "txt2img"),
        img2img_routes(backend),
        interrupt_routes(backend, "img2img"),
        image_routes(backend),
        workflow_routes(backend),
        job_routes(backend),
        pnginfo_routes(backend),
        ready_routes(backend),
        option_routes(backend),
        upload_routes(backend),
        controlnet_routes(backend.catalog),
        suggestion_routes(backend),
        upscale_routes(backend),
    ]
    return create_app("txt2img", backend.settings, routes)


if __name__ == "__main__":
    sys.exit(main(build, lambda settings: settings.txt2img_port, "DREAM_LAYER_TXT2IMG_PORT"))
