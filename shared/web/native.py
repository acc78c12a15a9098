"""The native REST API: POST /api/txt2img, POST /api/img2img, GET /api/images/<name>."""

import io
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from flask import Blueprint, Response, request, send_file

from shared.engine.client import SavedImage
from shared.errors import GenerationFailed, NotFound
from shared.jobs.names import filename_prefix, locate
from shared.jobs.runner import Job, Upload
from shared.schema import GenerationRequest
from shared.web.backend import Backend
from shared.web.body import Fields, read_fields
from shared.web.objections import objection
from shared.web.reading import read_img2img, read_txt2img
from shared.web.reply import Generation, json_reply, picture_reply, wanted_format
from workflows.graph import Graph
from workflows.img2img import img2img
from workflows.stages import UPLOAD_FOLDER
from workflows.txt2img import txt2img

log = logging.getLogger(__name__)

R = TypeVar("R", bound=GenerationRequest)

ONE_YEAR = 365 * 24 * 3600


def txt2img_routes(backend: Backend) -> Blueprint:
    """POST /api/txt2img."""
    return _generation_routes(backend, "txt2img", read_txt2img, txt2img)


def img2img_routes(backend: Backend) -> Blueprint:
    """POST /api/img2img."""
    return _generation_routes(backend, "img2img", read_img2img, img2img)


def image_routes(backend: Backend) -> Blueprint:
    """GET /api/images/<name>."""
    routes = Blueprint("images", __name__)

    @routes.get("/api/images/<name>")
    def get_image(name: str) -> Response:
        image = locate(name)
        if image is None:
            raise NotFound(f"{name} is not the name of a picture", hint="use the url of a reply")
        path = backend.settings.output_dir / image.subfolder / image.filename
        # A picture never changes under its name, so browsers may keep it.
        if path.is_file():
            return send_file(path, mimetype="image/png", max_age=ONE_YEAR)
        png = backend.engine.view(image)
        if png is None:
            raise NotFound(f"there is no picture {name}", hint="it may have been deleted")
        return send_file(io.BytesIO(png), mimetype="image/png", max_age=ONE_YEAR)

    return routes


def _generation_routes(
    backend: Backend,
    name: str,
    read: Callable[[Fields, str | None, Callable[[], Sequence[str]]], tuple[R, list[str]]],
    recipe: Callable[[R, str], Graph],
) -> Blueprint:
    """The one way of every generation: read the request, build its graph, check it, run it, reply."""
    routes = Blueprint(name, __name__)

    @routes.post(f"/api/{name}")
    def generate() -> Response:
        parsed, warnings = read(read_fields(request), backend.settings.checkpoint, backend.catalog.checkpoints)
        job_id = str(uuid.uuid4())
        graph = recipe(parsed, filename_prefix(job_id, datetime.now())).to_api()
        problems = backend.catalog.check(graph)
        if problems:
            raise objection(problems)
        uploads = tuple(Upload(UPLOAD_FOLDER, picture.name, picture.png) for picture in parsed.pictures)
        begun = time.monotonic()
        with backend.waiting_place():
            result = backend.runner.run(Job(job_id, graph, uploads), backend.settings.request_timeout)
        log.info(
            "%s %s: %d of %dx%d, %d steps, in %.1f s",
            name,
            job_id,
            len(result.images),
            parsed.width,
            parsed.height,
            parsed.steps,
            time.monotonic() - begun,
        )
        base_url = backend.settings.public_url or request.host_url
        generation = Generation(job_id, parsed, graph, result, warnings, base_url)
        output = wanted_format(request)
        if output is None:
            return json_reply(generation)
        return picture_reply(generation, _read(backend, result.images), output)

    return routes


def _read(backend: Backend, images: tuple[SavedImage, ...]) -> bytes:
    png = backend.engine.view(images[0]) if images else None
    if png is None:
        raise GenerationFailed("the engine saved no picture", hint="data/logs/engine.log says more")
    return png
