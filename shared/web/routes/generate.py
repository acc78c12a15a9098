"""Generation of pictures: POST /api/txt2img and POST /api/img2img."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from flask import Blueprint, Response
from pydantic import Field

from shared.jobs.job import JobSpec
from shared.schema.body import Img2ImgBody, Txt2ImgBody
from shared.schema.request import GenerationRequest
from shared.web.backend import Backend, current_backend
from shared.web.custom_graph import CUSTOM_FIELD, bind_values, bindable_values, graph_alpha, read_custom_graph
from shared.web.graph_errors import checked
from shared.web.openapi.components import (
    ACCEPTED,
    GENERATION_ERRORS,
    GENERATION_HEADERS,
    MASK,
    PICTURE,
    RESULT,
    PictureFile,
)
from shared.web.openapi.operation import BodySpec, Example, describe
from shared.web.parsing.generation import ParsedRequest, parse_img2img, parse_txt2img
from shared.web.parsing.parser import ParsingContext
from shared.web.request_body import Fields
from shared.web.submission import Submission, submission
from workflows.graph_builder import Graph
from workflows.img2img import img2img
from workflows.outputs import OUTPUT_FIELD, find_output
from workflows.txt2img import txt2img

R = TypeVar("R", bound=GenerationRequest)
Parse = Callable[[Fields, ParsingContext], ParsedRequest[R]]
Build = Callable[[R, str], Graph]

# Examples leave size and steps to the defaults of the model, and use words that the starter model knows.
CIRCLE = {"prompt": "a red circle on a blue background", "seed": 7}
GREEN_STAR = {"prompt": "a green star on a blue background", "seed": 7}
YELLOW_STAR = {"prompt": "a yellow star on a purple background", "seed": 7}
TWO_HOUSES = {"prompt": "a house on a hill", "seed": 7, "batch_size": 2}

txt2img_routes = Blueprint("txt2img", __name__)
img2img_routes = Blueprint("img2img", __name__)


@txt2img_routes.post("/api/txt2img")
@describe(
    "Generate",
    RESULT,
    ACCEPTED,
    examples=(
        Example("A picture", CIRCLE),
        Example("The picture itself", YELLOW_STAR, {"Accept": "image/png"}),
        Example("Progress and previews", CIRCLE | {"preview": True}, {"Accept": "text/event-stream"}),
        Example("Reply at once", CIRCLE, {"Prefer": "respond-async"}, status=202),
        Example(
            "Two pictures with a hires fix",
            TWO_HOUSES | {"hires_fix": True, "hires_fix_upscale_factor": 1.5},
        ),
        Example("As a form", CIRCLE, form=True),
    ),
    body=BodySpec(Txt2ImgBody),
    parameters=GENERATION_HEADERS,
    errors=GENERATION_ERRORS,
)
def generate_from_text() -> Response:
    """Generate pictures from a prompt."""
    return generate("txt2img", parse_txt2img, txt2img)


class Img2ImgForm(Img2ImgBody):
    """The fields of img2img as a form, in which pictures may be files."""

    input_image: Annotated[str, Field(description="instead of a file: data URL, base64, or the name of an upload")] = ""
    image: Annotated[PictureFile | None, Field(description="the source picture")] = None
    mask: Annotated[PictureFile | None, Field(description="white is repainted, black stays unchanged; or as text")] = (
        None
    )


@img2img_routes.post("/api/img2img")
@describe(
    "Generate",
    RESULT,
    ACCEPTED,
    examples=(
        Example("From a picture", {**GREEN_STAR, "input_image": PICTURE, "denoising_strength": 0.8}),
        Example("Repaint the middle", {**GREEN_STAR, "input_image": PICTURE, "mask": MASK}),
    ),
    body=BodySpec(Img2ImgBody, Img2ImgForm),
    parameters=GENERATION_HEADERS,
    errors=GENERATION_ERRORS,
)
def generate_from_picture() -> Response:
    """Generate pictures from a picture and a prompt, or repaint a part of it."""
    return generate("img2img", parse_img2img, img2img)


def generate(kind: str, parse: Parse[R], build: Build[R]) -> Response:
    """Parse the fields of the request, build a graph, check it, submit a job, and reply.

    A custom graph in the request replaces the graph of `build`.
    """
    backend = current_backend()
    with submission(backend, kind) as job:
        custom = job.fields.values.get(CUSTOM_FIELD, job.fields.files.get(CUSTOM_FIELD))
        if job.row is None and custom in (None, ""):
            parsed = parse(job.fields, backend.parsing_context())
            request = parsed.request
            graph = checked(backend, build(request, job.prefix))
            job.submit(
                JobSpec(
                    parameters=parsed.parameters,
                    graph=graph,
                    warnings=parsed.warnings,
                    label_parameters=parsed.hires_fix_parameters,
                    seeds=request.seeds,
                    size=request.final_size,
                    previews=parsed.preview,
                ),
                engine_uploads={picture.name: picture.png for picture in request.pictures},
                stored_uploads=parsed.raw_uploads,
                model=parsed.parameters["model_name"],
                work=request.work,
            )
        elif job.row is None:
            _submit_custom_graph(backend, job, custom, parse)
        return job.answer()


def _submit_custom_graph(backend: Backend, job: Submission, value: Any, parse: Parse[R]) -> None:
    """Submit a job for a custom graph, with the other fields of the request set on it."""
    graph, bindings = read_custom_graph(value)
    context = replace(backend.parsing_context(), custom_graph=graph_alpha(graph, bindings))
    parsed = parse(job.fields.without(CUSTOM_FIELD), context)
    values, warnings = bindable_values(parsed)
    pictures = parsed.request.pictures
    bound, more_warnings = bind_values(backend, graph, bindings, values, job.prefix, pictures)
    output = job.fields.values.get(OUTPUT_FIELD)
    job.submit(
        JobSpec(
            parameters={name: value for name, value in values.items() if name not in ("input_image", "mask")},
            graph=bound,
            warnings=[*parsed.warnings, *warnings, *more_warnings],
            previews=parsed.preview,
            repeatable=False,
            output_node=None if output in (None, "") else find_output(bound, output),
        ),
        engine_uploads={picture.name: picture.png for picture in pictures},
        stored_uploads=parsed.raw_uploads,
        model=CUSTOM_FIELD,
    )
