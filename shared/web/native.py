"""The native REST API: POST /api/txt2img, POST /api/img2img, GET /api/images/<name>."""

import io
import logging
import time
import uuid
from datetime import datetime

from flask import Blueprint, Response, request, send_file

from shared.engine.client import SavedImage
from shared.errors import GenerationFailed, NotFound
from shared.jobs.names import filename_prefix, locate
from shared.jobs.runner import Job, Upload
from shared.schema import GenerationRequest, Img2ImgRequest
from shared.web.backend import Backend
from shared.web.body import read_fields
from shared.web.objections import objection
from shared.web.reading import read_img2img, read_txt2img
from shared.web.reply import Generation, json_reply, picture_reply, wanted_format
from workflows.img2img import img2img
from workflows.stages import UPLOAD_FOLDER
from workflows.txt2img import txt2img

log = logging.getLogger(__name__)

ONE_YEAR = 365 * 24 * 3600


def txt2img_routes(backend: Backend) -> Blueprint:
    """POST /api/txt2img."""
    routes = Blueprint("txt2img", __name__)

    @routes.post("/api/txt2img")
    def post_txt2img() -> Response:
        parsed, warnings = read_txt2img(read_fields(request), backend.settings.checkpoint, backend.catalog.checkpoints)
        job_id = str(uuid.uuid4())
        graph = txt2img(parsed, filename_prefix(job_id, datetime.now())).to_api()
        return _generate(backend, parsed, Job(job_id, graph), warnings)

    return routes


def img2img_routes(backend: Backend) -> Blueprint:
    """POST /api/img2img."""
    routes = Blueprint("img2img", __name__)

    @routes.post("/api/img2img")
    def post_img2img() -> Response:
        parsed, warnings = read_img2img(read_fields(request), backend.settings.checkpoint, backend.catalog.checkpoints)
        job_id = str(uuid.uuid4())
        graph = img2img(parsed, filename_prefix(job_id, datetime.now())).to_api()
        return _generate(backend, parsed, Job(job_id, graph, _uploads(parsed)), warnings)

    return routes


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


def _uploads(parsed: Img2ImgRequest) -> tuple[Upload, ...]:
    pictures = [picture for picture in (parsed.input_image, parsed.mask) if picture is not None]
    return tuple(Upload(UPLOAD_FOLDER, picture.name, picture.png) for picture in pictures)


def _generate(backend: Backend, parsed: GenerationRequest, job: Job, warnings: list[str]) -> Response:
    """Checks the graph against the live engine, runs it, and writes the reply that the client accepts."""
    problems = backend.catalog.check(job.graph)
    if problems:
        raise objection(problems)
    begun = time.monotonic()
    with backend.waiting_place():
        result = backend.runner.run(job, backend.settings.request_timeout)
    log.info(
        "%s %s: %d of %dx%d, %d steps, in %.1f s",
        request.path,
        job.id,
        len(result.images),
        parsed.width,
        parsed.height,
        parsed.steps,
        time.monotonic() - begun,
    )
    base_url = backend.settings.public_url or request.host_url
    generation = Generation(job.id, parsed, job.graph, result, warnings, base_url)
    output = wanted_format(request)
    if output is None:
        return json_reply(generation)
    return picture_reply(generation, _read(backend, result.images), output)


def _read(backend: Backend, images: tuple[SavedImage, ...]) -> bytes:
    png = backend.engine.view(images[0]) if images else None
    if png is None:
        raise GenerationFailed("the engine saved no picture", hint="data/logs/engine.log says more")
    return png
