"""POST /api/png-info: what a picture was made with, ready to be sent again."""

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
from shared.schema.replies import PngInfoReply
from shared.schema.units import PictureText
from shared.web.backend import current_backend
from shared.web.body import read_fields
from shared.web.openapi.components import BODY_ERRORS, RECIPE, PictureFile
from shared.web.openapi.operation import BodySpec, Example, ReplySpec, describe
from shared.web.parsing.pictures import UPLOAD_NAME

HINT = "send the file as it was made: editors, chats and web pages often leave such texts out of their copies"


png_info_routes = Blueprint("png-info", __name__)


class PngInfoBody(RequestBody):
    """A picture with a recipe."""

    image: Annotated[PictureText, Field(description="data URL or base64")]


class PngInfoForm(RequestBody):
    """A picture with a recipe, as a file."""

    image: Annotated[PictureFile, Field(description="the picture")]


@png_info_routes.post("/api/png-info")
@describe(
    "Pictures",
    ReplySpec("its parameters, text and graph", PngInfoReply),
    examples=(Example("A picture with a recipe", {"image": RECIPE}),),
    body=BodySpec(PngInfoBody, PngInfoForm),
    errors=BODY_ERRORS,
)
def read_png_info() -> Response:
    """What a picture was made with, ready to be sent again.

    Takes a file of a form, the picture itself as the body, or JSON. Of others' pictures, what their text or their
    graph tells.
    """
    uploads = current_backend().jobs.files.uploads
    texts = _texts(_picture(request))
    infotext = texts.get(THEIRS)
    graph = _json_object(texts.get("prompt"))
    recipe = _recipe(texts, graph)
    if recipe is None and not graph and not texts.get(THEIRS):
        raise InvalidPicture("the picture does not tell how it was made", field="image", hint=HINT)
    warnings = []
    if infotext is not None and len(infotext) > LONGEST_INFOTEXT:
        warnings.append(f"the text {THEIRS} has more than {LONGEST_INFOTEXT:,} characters, and is not read")
        infotext = None
    if recipe is not None:
        warnings += recipe.warnings
        warnings += _missing(recipe, lambda name: uploads.find(name) is not None)
    return jsonify(
        {
            "status": "success",
            "message": "the picture tells how it was made"
            if recipe is not None
            else "the picture has a text, but not one that is understood here",
            "kind": None if recipe is None else recipe.kind,
            "parameters": {} if recipe is None else recipe.parameters,
            "infotext": infotext,
            "workflow": {"prompt": graph} if graph else None,
            "warnings": warnings,
        }
    )


def _picture(sent: Request) -> bytes:
    """The file `image` of a form, or its only one; `image` in JSON; or the body itself. Raises InvalidPicture."""
    # `curl --data-binary` says of any file that it is a form.
    mistaken = sent.mimetype == "application/x-www-form-urlencoded" and sent.get_data().startswith(SIGNATURE)
    if mistaken or sent.mimetype.startswith("image/") or sent.mimetype == "application/octet-stream":
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


def _texts(picture: bytes) -> dict[str, str]:
    try:
        return read_texts(picture)
    except BrokenPng:
        return read_exif(picture)


def _recipe(texts: Mapping[str, str], graph: Mapping[str, Any]) -> GenerationParameters | None:
    """From our own text, which is exact; else from that of the Stable Diffusion world; else from the graph."""
    ours = _json_object(texts.get(OURS))
    kind, parameters = ours.get("kind"), ours.get("parameters")
    if isinstance(kind, str) and isinstance(parameters, dict):
        return GenerationParameters(kind, parameters, [])
    return read_infotext(texts.get(THEIRS, "")) or read_parameters(graph)


def _missing(recipe: GenerationParameters, kept: Callable[[str], bool]) -> Iterator[str]:
    """What must be added before the parameters can be sent."""
    names = {name: recipe.parameters.get(name) for name in ("input_image", "mask", "image")}
    controlnet = recipe.parameters.get("controlnet")
    units = controlnet.get("units") if isinstance(controlnet, dict) else None
    for index, unit in enumerate(units if isinstance(units, list) else []):
        field = f"controlnet.units[{index}].input_image"
        names[field] = unit.get("input_image") if isinstance(unit, dict) else None
        # In img2img, the source stands in for it.
        if names[field] is None and recipe.kind == "txt2img":
            yield f"{field} is not in the picture's text: add the picture that guided the drawing"
    if recipe.kind == "img2img" and names["input_image"] is None:
        yield "input_image is not in the picture's text: add the picture that it was made from, and its mask"
    for field, name in names.items():
        if isinstance(name, str) and UPLOAD_NAME.fullmatch(name) and not kept(name):
            yield f"{field} names an upload that is not here (any more): put the picture itself in its place"


def _json_object(text: str | None) -> dict[str, Any]:
    """The object that the text holds as JSON; empty if there is none, or one of more values than any graph has."""
    try:
        # ComfyUI writes NaN, which no browser reads.
        found = load_json(text or "null", parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
