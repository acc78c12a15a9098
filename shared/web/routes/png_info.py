"""The parameters in a picture: POST /api/png-info reads them, ready to be sent again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from flask import Blueprint, Request, Response, jsonify, request
from pydantic import Field

from shared.errors import InvalidPicture
from shared.images.embedded_text import SIGNATURE, BrokenPng, read_exif, read_texts
from shared.jobs.picture_metadata import OURS, THEIRS
from shared.json_limits import load_json
from shared.metadata.graph_reader import read_parameters
from shared.metadata.infotext import LONGEST_INFOTEXT, GenerationParameters, read_infotext
from shared.schema.body import RequestBody
from shared.schema.ranges import PictureText
from shared.schema.replies import PngInfoReply
from shared.web.backend import current_backend
from shared.web.openapi.components import BODY_ERRORS, PICTURE_WITH_PARAMETERS, PictureFile
from shared.web.openapi.operation import BodySpec, Example, ReplySpec, describe
from shared.web.parsing.pictures import UPLOAD_NAME
from shared.web.request_body import read_fields

NO_PARAMETERS_HINT = "send the original file: editors, chats and web pages often strip such texts from copies"


png_info_routes = Blueprint("png-info", __name__)


class PngInfoBody(RequestBody):
    """A picture with its parameters."""

    image: Annotated[PictureText, Field(description="data URL or base64")]


class PngInfoForm(RequestBody):
    """A picture with its parameters, as a file."""

    image: Annotated[PictureFile, Field(description="the picture")]


@png_info_routes.post("/api/png-info")
@describe(
    "Pictures",
    ReplySpec("the parameters, text and graph in the picture", PngInfoReply),
    examples=(Example("A picture with parameters", {"image": PICTURE_WITH_PARAMETERS}),),
    body=BodySpec(PngInfoBody, PngInfoForm),
    errors=BODY_ERRORS,
)
def read_png_info() -> Response:
    """Read the parameters that a picture was generated with, ready to be sent again.

    Send a form with a file, the picture itself as the body, or JSON. Pictures of other programs are read too, as far
    as their text or graph goes.
    """
    jobs = current_backend().jobs
    texts = _read_embedded_texts(_read_picture(request))
    infotext = texts.get(THEIRS)
    graph = _json_object(texts.get("prompt"))
    generation = _read_parameters(texts, graph)
    if generation is None and not graph and not texts.get(THEIRS):
        raise InvalidPicture("the picture has no generation parameters", field="image", hint=NO_PARAMETERS_HINT)
    warnings = []
    if infotext is not None and len(infotext) > LONGEST_INFOTEXT:
        warnings.append(f"the text {THEIRS} was not read: it has more than {LONGEST_INFOTEXT:,} characters")
        infotext = None
    if generation is not None:
        warnings += generation.warnings
        warnings += _warn_of_missing_pictures(generation, lambda name: jobs.find_upload(name) is not None)
    return jsonify(
        {
            "status": "success",
            "message": "the picture has generation parameters"
            if generation is not None
            else "the picture has a text of an unknown format",
            "kind": None if generation is None else generation.kind,
            "parameters": {} if generation is None else generation.parameters,
            "infotext": infotext,
            "workflow": {"prompt": graph} if graph else None,
            "warnings": warnings,
        }
    )


def _read_picture(sent: Request) -> bytes:
    """Read the file `image` of a form, or its only file; `image` in JSON; or the body itself. Raises InvalidPicture."""
    # `curl --data-binary` sends any file with the type of a form.
    is_mislabelled = sent.mimetype == "application/x-www-form-urlencoded" and sent.get_data().startswith(SIGNATURE)
    if is_mislabelled or sent.mimetype.startswith("image/") or sent.mimetype == "application/octet-stream":
        return sent.get_data()
    fields = read_fields(sent)
    content = next(iter(fields.files.values())) if len(fields.files) == 1 else fields.picture("image")
    if content is None:
        raise InvalidPicture(
            "image is missing",
            field="image",
            hint="send a form with a file named image, the picture itself, or JSON with image as a data URL",
        )
    return content


def _read_embedded_texts(picture: bytes) -> dict[str, str]:
    try:
        return read_texts(picture)
    except BrokenPng:
        return read_exif(picture)


def _read_parameters(texts: Mapping[str, str], graph: Mapping[str, Any]) -> GenerationParameters | None:
    """Read our own text, which is exact; else the infotext of AUTOMATIC1111; else the graph."""
    ours = _json_object(texts.get(OURS))
    kind, parameters = ours.get("kind"), ours.get("parameters")
    if isinstance(kind, str) and isinstance(parameters, dict):
        return GenerationParameters(kind, parameters, [])
    return read_infotext(texts.get(THEIRS, "")) or read_parameters(graph)


def _warn_of_missing_pictures(generation: GenerationParameters, is_stored: Callable[[str], bool]) -> Iterator[str]:
    """Warn of pictures that must be added before the parameters can be sent."""
    names = {name: generation.parameters.get(name) for name in ("input_image", "mask", "image")}
    controlnet = generation.parameters.get("controlnet")
    units = controlnet.get("units") if isinstance(controlnet, dict) else None
    for index, unit in enumerate(units if isinstance(units, list) else []):
        field = f"controlnet.units[{index}].input_image"
        names[field] = unit.get("input_image") if isinstance(unit, dict) else None
        # In img2img, it defaults to the source.
        if names[field] is None and generation.kind == "txt2img":
            yield f"{field} is not in the picture's text: add the control image"
    if generation.kind == "img2img" and names["input_image"] is None:
        yield "input_image is not in the picture's text: add the source picture, and the mask if there was one"
    for field, name in names.items():
        if isinstance(name, str) and UPLOAD_NAME.fullmatch(name) and not is_stored(name):
            yield f"{field} names an upload that does not exist (any more): send the picture itself instead"


def _json_object(text: str | None) -> dict[str, Any]:
    """Parse a JSON object; empty if the text is not one, or has more values than any graph."""
    try:
        # ComfyUI writes NaN, which browsers cannot parse.
        value = load_json(text or "null", parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
