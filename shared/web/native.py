"""The native REST API: POST /api/txt2img, POST /api/img2img, GET /api/images/<name>."""

import io
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from flask import Blueprint, Response, jsonify, request, send_file

from shared.engine.client import SavedImage
from shared.errors import GenerationFailed, InvalidValue, NotFound
from shared.jobs.names import filename_prefix, locate
from shared.jobs.tables import JobRow, NewJob
from shared.schema import GenerationRequest
from shared.web.backend import Backend
from shared.web.body import Fields, read_fields
from shared.web.objections import objection
from shared.web.reading import read_img2img, read_txt2img
from shared.web.reply import picture_reply, result_body, wanted_format
from shared.web.waiting import accepted_reply, stream_reply, take_place, wait_for, wants_stream
from workflows.graph import Graph
from workflows.img2img import img2img
from workflows.stages import UPLOAD_FOLDER
from workflows.txt2img import txt2img

R = TypeVar("R", bound=GenerationRequest)

ONE_YEAR = 365 * 24 * 3600
LONGEST_KEY = 255
# Seconds for which a list of checkpoints is new enough to choose the default from.
FRESH = 1.0


def txt2img_routes(backend: Backend) -> Blueprint:
    """POST /api/txt2img."""
    return generation_routes(backend, "txt2img", read_txt2img, txt2img)


def img2img_routes(backend: Backend) -> Blueprint:
    """POST /api/img2img."""
    return generation_routes(backend, "img2img", read_img2img, img2img)


def image_routes(backend: Backend) -> Blueprint:
    """GET /api/images/<name>."""
    routes = Blueprint("images", __name__)

    @routes.get("/api/images/<name>")
    def get_image(name: str) -> Response:
        image = locate(name)
        if image is None:
            raise NotFound(f"{name} is not the name of a picture", hint="use the url of a reply")
        path = backend.archive.pictures.find(name)
        # A picture never changes under its name, so browsers may keep it.
        if path is not None:
            return send_file(path, mimetype="image/png", max_age=ONE_YEAR)
        png = backend.engine.view(image)
        if png is None:
            raise NotFound(f"there is no picture {name}", hint="it may have been deleted")
        return send_file(io.BytesIO(png), mimetype="image/png", max_age=ONE_YEAR)

    return routes


def generation_routes(
    backend: Backend,
    name: str,
    read: Callable[[Fields, str | None, Callable[[], Sequence[str]]], tuple[R, list[str]]],
    recipe: Callable[[R, str], Graph],
) -> Blueprint:
    """The one way of every generation: read the request, build its graph, check it, accept it as a job, reply."""
    routes = Blueprint(name, __name__)

    @routes.post(f"/api/{name}")
    def generate() -> Response:
        place = take_place(backend, request)
        try:
            row = accept()
            if wants_stream(request) and place is not None:
                streamed = stream_reply(backend, row, place)
                place = None
                return streamed
            return accepted_reply(backend, row) if place is None else _result(backend, wait_for(backend, row))
        finally:
            if place is not None:
                place.release()

    def accept() -> JobRow:
        key, body_hash = request.headers.get("Idempotency-Key"), None
        fields = read_fields(request)
        if key is not None:
            body_hash = fields.digest(name)
            earlier = backend.store.by_key(_checked(key))
            if earlier is not None:
                return _same(earlier, body_hash)
        parsed, warnings = read(fields, backend.settings.checkpoint, lambda: backend.catalog.checkpoints(FRESH))
        job_id = str(uuid.uuid4())
        graph = recipe(parsed, filename_prefix(job_id, datetime.now())).to_api()
        problems = backend.catalog.check(graph)
        if problems:
            raise objection(problems)
        job = NewJob(
            id=job_id,
            kind=name,
            client=request.remote_addr or "",
            service=name,
            spec={
                "request": parsed.model_dump(mode="json", exclude={"input_image", "mask"}),
                "graph": graph,
                "warnings": warnings,
                "uploads": [[picture.name, UPLOAD_FOLDER] for picture in parsed.pictures],
                "previews": parsed.preview,
            },
            model=parsed.model_name,
            work=parsed.width * parsed.height * parsed.steps * parsed.batch_size,
            idempotency_key=key,
            body_hash=body_hash,
        )
        row, new = backend.accept(job, {picture.name: picture.png for picture in parsed.pictures})
        # Another request with the same key may have been quicker.
        return row if new else _same(row, body_hash)

    return routes


def _checked(key: str) -> str:
    if not 1 <= len(key) <= LONGEST_KEY:
        raise InvalidValue(f"Idempotency-Key must have 1 to {LONGEST_KEY} characters", field="Idempotency-Key")
    return key


def _same(earlier: JobRow, body_hash: str | None) -> JobRow:
    """The job that was made under the same key, if for the same body."""
    if earlier.body_hash != body_hash:
        raise InvalidValue(
            "this Idempotency-Key was used for another request",
            field="Idempotency-Key",
            hint="use a new key for each request, and the same one only to repeat it",
            job_id=earlier.id,
        )
    return earlier


def _result(backend: Backend, row: JobRow) -> Response:
    output = wanted_format(request)
    if output is None:
        return jsonify(result_body(row, backend.base_url()))
    return picture_reply(row, backend.base_url(), _read(backend, row), output)


def _read(backend: Backend, row: JobRow) -> bytes:
    """The job's first picture: its file, or, if the engine runs elsewhere, what it shows."""
    image = SavedImage(**row.images[0]) if row.images else None
    path = None if image is None else backend.archive.pictures.find(image.filename)
    png = path.read_bytes() if path is not None else None if image is None else backend.engine.view(image)
    if png is None:
        raise GenerationFailed("the engine saved no picture", hint="data/logs/engine.log says more")
    return png
