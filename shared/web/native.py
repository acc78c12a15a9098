"""The native REST API: POST /api/txt2img, POST /api/img2img, GET /api/images/<name>."""

import io
from collections.abc import Callable
from typing import Any, TypeVar

from flask import Blueprint, Response, send_file

from shared.errors import NotFound
from shared.jobs.names import job_beginning, locate
from shared.jobs.recipes import with_recipe
from shared.schema.request import Common
from shared.web.accepting import Draft, draw
from shared.web.backend import Backend
from shared.web.body import Fields
from shared.web.custom import FIELD as CUSTOM
from shared.web.custom import custom_graph, sent_values
from shared.web.objections import objection
from shared.web.reading.requests import Context, Reading, read_img2img, read_txt2img
from workflows.graph import Graph
from workflows.img2img import img2img
from workflows.txt2img import txt2img

R = TypeVar("R", bound=Common)

ONE_YEAR = 365 * 24 * 3600


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
        path = backend.archive.pictures.finished(name)
        # A picture never changes under its name, so browsers may keep it.
        if path is not None:
            return send_file(path, mimetype="image/png", max_age=ONE_YEAR)
        png = backend.picture(image)
        if png is None:
            raise NotFound(f"there is no picture {name}", hint="it may have been deleted")
        # It was told of before its job's end, or the engine runs elsewhere.
        row = backend.store.by_beginning(job_beginning(name) or name)
        whole = png if row is None else with_recipe(png, row, name)
        return send_file(io.BytesIO(whole), mimetype="image/png", max_age=ONE_YEAR)

    return routes


def generation_routes(
    backend: Backend,
    name: str,
    read: Callable[[Fields, Context], Reading[R]],
    recipe: Callable[[R, str], Graph],
) -> Blueprint:
    """The one way of every generation: read the request, build its graph, check it; the rest is `draw`."""
    routes = Blueprint(name, __name__)

    @routes.post(f"/api/{name}")
    def generate() -> Response:
        return draw(backend, name, draft)

    def parse(fields: Fields) -> Reading[R]:
        return read(fields, Context(backend.settings.checkpoint, backend.catalog, backend.archive.uploads.find))

    def draft(fields: Fields, prefix: str) -> Draft:
        custom = fields.values.get(CUSTOM, fields.files.get(CUSTOM))
        if custom not in (None, ""):
            return draft_custom(custom, fields, prefix)
        reading = parse(fields)
        parsed = reading.request
        graph = recipe(parsed, prefix).to_api()
        problems = backend.catalog.check(graph)
        if problems:
            raise objection(problems)
        return Draft(
            request=reading.parameters,
            graph=graph,
            warnings=reading.warnings,
            uploads={picture.name: picture.png for picture in parsed.pictures},
            kept=reading.kept,
            seeds=parsed.seeds,
            size=parsed.final_size,
            model=reading.parameters["model_name"],
            work=parsed.work,
            previews=reading.preview,
        )

    def draft_custom(custom: Any, fields: Fields, prefix: str) -> Draft:
        """A graph of the client's own, with what it sent beside it placed in it."""
        rest = {"prompt": "", **{key: value for key, value in fields.values.items() if key != CUSTOM}}
        files = {key: content for key, content in fields.files.items() if key != CUSTOM}
        reading = parse(Fields(rest, files))
        values, without_place = sent_values(reading)
        if "prompt" not in fields.values:
            # Ours stood in for it; what stands in the graph stays.
            values.pop("prompt", None)
        graph, not_placed = custom_graph(backend, custom, values, prefix)
        return Draft(
            request={key: value for key, value in values.items() if key not in ("input_image", "mask")},
            graph=graph,
            warnings=[*reading.warnings, *without_place, *not_placed],
            uploads={picture.name: picture.png for picture in reading.request.pictures},
            kept=reading.kept,
            model=CUSTOM,
            previews=reading.preview,
            repeatable=False,
        )

    return routes
