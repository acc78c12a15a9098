"""The native REST API: POST /api/txt2img, POST /api/img2img, GET /api/images/<name>."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from flask import Blueprint, Response, request

from shared.errors import InvalidValue, NotAcceptable, NotFound
from shared.images.encode import FORMATS_BY_EXTENSION
from shared.jobs.job import JobRow, JobSpec
from shared.jobs.picture_names import locate
from shared.schema.request import Common
from shared.schema.words import find_word
from shared.web.backend import Backend
from shared.web.body import Fields
from shared.web.custom import FIELD as CUSTOM
from shared.web.custom import alpha_use, custom_graph, read_custom, sent_values
from shared.web.download_names import title
from shared.web.graph_errors import checked
from shared.web.parsing.requests import Context, ParsedRequest, read_img2img, read_txt2img
from shared.web.parsing.sources import AlphaUse
from shared.web.picture_files import picture_file
from shared.web.reply import picture_facts
from shared.web.submission import Submission, submission
from workflows.graph import Graph
from workflows.img2img import img2img
from workflows.outputs import FIELD as OUTPUT
from workflows.outputs import find_output
from workflows.txt2img import txt2img

R = TypeVar("R", bound=Common)

ONE_YEAR = 365 * 24 * 3600
# The words of `?download=`.
DOWNLOAD = {"": True, "1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def txt2img_routes(backend: Backend) -> Blueprint:
    """POST /api/txt2img."""
    return generation_routes(backend, "txt2img", read_txt2img, txt2img)


def img2img_routes(backend: Backend) -> Blueprint:
    """POST /api/img2img."""
    return generation_routes(backend, "img2img", read_img2img, img2img)


def image_routes(backend: Backend) -> Blueprint:
    """GET /api/images/<name>, and the same at /images/<name>."""
    routes = Blueprint("images", __name__)

    @routes.get("/images/<name>")
    @routes.get("/api/images/<name>")
    def get_image(name: str) -> Response:
        stem, _, ending = name.rpartition(".")
        output = FORMATS_BY_EXTENSION.get(ending.lower())
        image = None if output is None else locate(f"{stem}.png")
        if image is None or output is None:
            raise NotFound(f"{name} is not the name of a picture", hint="use the url of a reply")
        row, download = job_of(image.filename), wants_download()
        try:
            # A picture never changes under its name, so browsers may keep it.
            response = picture_file(backend, image, output, row, max_age=ONE_YEAR)
        except NotAcceptable as error:
            # Here it is the name that asks for a format.
            raise InvalidValue(error.message, field="name", hint=f"ask for {stem}.png") from error
        if response is None:
            raise NotFound(f"there is no picture {name}", hint="it may have been deleted")
        return named(response, image.filename, ending, row, download=download)

    def named(response: Response, filename: str, ending: str, row: JobRow | None, *, download: bool) -> Response:
        """The picture, with the name to save it under: if a format for that was chosen, or it is to be saved."""
        chosen = backend.paths.read().filename_format
        if chosen is not None:
            facts = {} if row is None else _title_facts(row, picture_facts(row, filename, backend.jobs.files.pictures))
            stem = title(chosen, filename, facts)
        elif download:
            stem = filename.removesuffix(".png")
        else:
            return response
        offered = quote(f"{stem}.{ending}", safe="")
        kind = "attachment" if download else "inline"
        response.headers["Content-Disposition"] = f"{kind}; filename*=UTF-8''{offered}"
        return response

    def job_of(filename: str) -> JobRow | None:
        """The job of a picture, if it is still known."""
        return backend.jobs.of_picture(filename)

    return routes


def wants_download() -> bool:
    """Whether the address asks for a file to save (`?download=1`), in place of one to show. Raises InvalidValue."""
    asked = request.args.get("download")
    if asked is None:
        return False
    wants = DOWNLOAD.get(find_word(asked, DOWNLOAD) or asked)
    if wants is None:
        raise InvalidValue(f"download {asked!r} is neither 1 nor 0", field="download", hint="?download=1")
    return wants


def _title_facts(row: JobRow, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The request's parameters and the picture's own facts, which alone count for a graph of the client's own."""
    measured = ("seed", "width", "height") if row.has_imported_graph else ()
    return {**{name: value for name, value in row.spec.parameters.items() if name not in measured}, **facts}


def generation_routes(
    backend: Backend,
    name: str,
    parse: Callable[[Fields, Context], ParsedRequest[R]],
    build: Callable[[R, str], Graph],
) -> Blueprint:
    """POST /api/<name>: a request of our own fields, or a graph of the client's own."""
    routes = Blueprint(name, __name__)

    @routes.post(f"/api/{name}")
    def generate() -> Response:
        with submission(backend, name) as job:
            custom = job.fields.values.get(CUSTOM, job.fields.files.get(CUSTOM))
            if job.row is None and custom in (None, ""):
                submit_request(job)
            elif job.row is None:
                submit_custom(job, custom)
            return job.answer()

    def context(alpha: AlphaUse | None = None) -> Context:
        stored = backend.jobs.files.uploads.find
        return Context(
            backend.settings.checkpoint, backend.catalog, stored, alpha is not None, backend.picture_memory, alpha
        )

    def submit_request(job: Submission) -> None:
        parsed = parse(job.fields, context())
        request = parsed.request
        graph = checked(backend, build(request, job.prefix))
        job.submit(
            JobSpec(
                parameters=parsed.parameters,
                graph=graph,
                warnings=parsed.warnings,
                label_parameters=parsed.spelled_out,
                seeds=request.seeds,
                size=request.final_size,
                previews=parsed.preview,
            ),
            loaded={picture.name: picture.png for picture in request.pictures},
            kept=parsed.kept,
            model=parsed.parameters["model_name"],
            work=request.work,
        )

    def submit_custom(job: Submission, custom: Any) -> None:
        """A graph of the client's own, with what it sent beside it placed in it."""
        own, places = read_custom(custom)
        values = {"prompt": "", **{key: value for key, value in job.fields.values.items() if key != CUSTOM}}
        files = {key: content for key, content in job.fields.files.items() if key != CUSTOM}
        parsed = parse(Fields(values, files), context(alpha_use(own, places)))
        sent, without_place = sent_values(parsed)
        if "prompt" not in job.fields.values:
            # Ours stood in for it; what stands in the graph stays.
            sent.pop("prompt", None)
        graph, not_placed = custom_graph(backend, own, places, sent, job.prefix, parsed.request.pictures)
        asked = job.fields.values.get(OUTPUT)
        job.submit(
            JobSpec(
                parameters={key: value for key, value in sent.items() if key not in ("input_image", "mask")},
                graph=graph,
                warnings=[*parsed.warnings, *without_place, *not_placed],
                previews=parsed.preview,
                repeatable=False,
                output_node=None if asked in (None, "") else find_output(graph, asked),
            ),
            loaded={picture.name: picture.png for picture in parsed.request.pictures},
            kept=parsed.kept,
            model=CUSTOM,
        )

    return routes
