"""The routes that draw, and those around pictures."""

import base64
import io
import math
from typing import Annotated

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import Field, WithJsonSchema

from shared.errors import (
    BodyTooLarge,
    Busy,
    Cancelled,
    EngineError,
    EngineRejected,
    EngineUnavailable,
    GenerationFailed,
    InvalidPicture,
    InvalidValue,
    NotAcceptable,
    NotFound,
    QueueFull,
    RequestError,
    StorageFailed,
    UnsupportedBody,
    WaitExpired,
)
from shared.schema.body import Body as Fields
from shared.schema.body import Img2ImgBody, Txt2ImgBody, UpscaleBody
from shared.schema.events import EVENTS
from shared.schema.replies import AcceptedReply, PngInfoReply, ResultReply, UploadReply
from shared.schema.units import PictureText
from shared.web.openapi.operation import JSON, REF, Body, Example, Operation, Parameter, Reply
from shared.web.reply import FORMATS

RGB = tuple[int, int, int]
File = Annotated[str, WithJsonSchema({"type": "string", "format": "binary"})]
PictureFile = Annotated[str, WithJsonSchema({"type": "string", "format": "binary", "contentMediaType": "image/*"})]
# Size, steps and the rest are what suits the model at hand. The words are among those that the starter model knows.
CIRCLE = {"prompt": "a red circle on a blue background", "seed": 7}
GREEN_STAR = {"prompt": "a green star on a blue background", "seed": 7}
PNG = {"Accept": "image/png"}

BINARY = {"type": "string", "format": "binary"}
# Before OpenAPI 3.2 has its `itemSchema`, the schema of a stream is that of each event, by convention.
EVENT = {
    "oneOf": [
        {
            "type": "object",
            "title": name,
            "properties": {
                "event": {"const": name},
                "id": {"type": "string", "pattern": "^[0-9]+$", "description": "for `Last-Event-ID`"},
                "data": {
                    "type": "string",
                    "contentMediaType": JSON,
                    "contentSchema": {"$ref": REF.format(model=model.__name__)},
                },
            },
            "required": ["event", "data"],
        }
        for name, model in EVENTS.items()
    ]
}
STREAM = Reply(
    "the job's events until its last one (`queued`, `started`, `progress`, `preview`, `image`, then `completed`, "
    "`failed` or `cancelled`), each with JSON as its data",
    types={"text/event-stream": EVENT},
    headers=("X-Job-Id", "X-Warnings"),
    parts=tuple(EVENTS.values()),
)
RESULT = Reply(
    "the result; its first picture itself (of a custom graph, that of its last stage or of `output_node`), or its "
    "events, if `Accept` asks for that",
    ResultReply,
    {**dict.fromkeys(FORMATS, BINARY), **STREAM.types},
    ("X-Job-Id", "X-Seed", "X-Warnings", "Content-Location", "Link"),
    parts=STREAM.parts,
)
ACCEPTED = Reply(
    "accepted, with `Prefer: respond-async`", AcceptedReply, headers=("Location", "X-Job-Id", "X-Warnings"), status=202
)
BODY_ERRORS = (RequestError, BodyTooLarge, UnsupportedBody, InvalidValue, InvalidPicture)
DRAWING_ERRORS = (
    *BODY_ERRORS,
    NotAcceptable,
    Cancelled,
    QueueFull,
    GenerationFailed,
    EngineError,
    EngineRejected,
    Busy,
    EngineUnavailable,
    WaitExpired,
    StorageFailed,
)
DRAWING_HEADERS = (
    Parameter(
        "Accept",
        "header",
        "the type of the answer",
        {"type": "string", "enum": ["application/json", *FORMATS, *STREAM.types], "default": "application/json"},
    ),
    Parameter(
        "Prefer",
        "header",
        "`respond-async`: answer 202 at once; `cancel-on-disconnect`: the job ends when the client hangs up",
        {"type": "string"},
    ),
    Parameter(
        "Idempotency-Key",
        "header",
        "a repeated request with the same key is the same job; with another body the key is a 422",
        {"type": "string", "minLength": 1, "maxLength": 255},
    ),
)


class Img2ImgForm(Img2ImgBody):
    """The fields of img2img as a form, where pictures may be files."""

    input_image: Annotated[str, Field(description="in place of the file: data URL, base64, or a name")] = ""
    image: Annotated[PictureFile | None, Field(description="the source")] = None
    mask: Annotated[PictureFile | None, Field(description="white is repainted, black stays exactly; or as text")] = None


class UpscaleForm(UpscaleBody):
    """The fields of upscale as a form."""

    image: Annotated[PictureFile, Field(description="the picture")]


class UploadBody(Fields):
    """A picture."""

    file: Annotated[PictureText, Field(description="data URL or base64")]


class UploadForm(Fields):
    """A picture as a file."""

    file: Annotated[PictureFile, Field(description="the picture")]


class PngInfoBody(Fields):
    """A picture with a recipe."""

    image: Annotated[PictureText, Field(description="data URL or base64")]


class PngInfoForm(Fields):
    """A picture with a recipe, as a file."""

    image: Annotated[PictureFile, Field(description="the picture")]


def _data_url(picture: Image.Image, infotext: str = "") -> str:
    buffer, texts = io.BytesIO(), PngInfo()
    if infotext:
        texts.add_text("parameters", infotext)
    picture.save(buffer, "PNG", optimize=True, pnginfo=texts)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _drawn_circle(size: int, circle: RGB, background: RGB, share: float = 0.5) -> Image.Image:
    """A circle in the middle, with this share of the picture's width; smooth, and few bytes as a PNG."""
    # Not by ImageDraw, which takes 1.6 MB of every service's memory. The gradient has its 255 in the corners.
    edge = 255 * share / math.sqrt(2)
    distance = Image.radial_gradient("L").resize((2 * size, 2 * size))
    inside = distance.point(lambda level: 255 if level < edge else 0).resize((size, size), Image.Resampling.BOX)
    return Image.composite(
        Image.new("RGB", (size, size), circle), Image.new("RGB", (size, size), background), inside
    ).quantize(8)


BLACK, WHITE, RED, BLUE = (0, 0, 0), (255, 255, 255), (220, 28, 36), (32, 70, 212)
PICTURE = _data_url(_drawn_circle(256, RED, BLUE))
MASK = _data_url(_drawn_circle(256, WHITE, BLACK, 0.8))
RECIPE = _data_url(
    _drawn_circle(64, RED, BLUE),
    "a red circle on a blue background\nSteps: 10, Sampler: Euler, CFG scale: 3, Seed: 7, Size: 256x256",
)

OPERATIONS = (
    Operation(
        "POST",
        "/api/txt2img",
        "Draw",
        "Draw pictures from words",
        (RESULT, ACCEPTED),
        (
            Example("A picture", CIRCLE),
            Example("The picture itself", {"prompt": "a yellow star on a purple background", "seed": 7}, PNG),
            Example("Watched as it is drawn", CIRCLE | {"preview": True}, {"Accept": "text/event-stream"}),
            Example("Come back for it later", CIRCLE, {"Prefer": "respond-async"}, status=202),
            Example(
                "Two pictures, drawn small and then large",
                {"prompt": "a house on a hill", "seed": 7, "batch_size": 2}
                | {"hires_fix": True, "hires_fix_upscale_factor": 1.5},
            ),
            Example("As a form", CIRCLE, form=True),
        ),
        body=Body(Txt2ImgBody),
        parameters=DRAWING_HEADERS,
        errors=DRAWING_ERRORS,
    ),
    Operation(
        "POST",
        "/api/img2img",
        "Draw",
        "Draw pictures from a picture and words, or repaint a part of it",
        (RESULT, ACCEPTED),
        (
            Example("Over a picture", {**GREEN_STAR, "input_image": PICTURE, "denoising_strength": 0.8}),
            Example("Its middle repainted", {**GREEN_STAR, "input_image": PICTURE, "mask": MASK}),
        ),
        body=Body(Img2ImgBody, Img2ImgForm),
        parameters=DRAWING_HEADERS,
        errors=DRAWING_ERRORS,
    ),
    Operation(
        "POST",
        "/api/upscale",
        "Draw",
        "Enlarge a picture",
        (RESULT, ACCEPTED),
        (Example("Twice as large", {"image": PICTURE, "upscaler": "Lanczos", "upscale_factor": 2}),),
        body=Body(UpscaleBody, UpscaleForm),
        parameters=DRAWING_HEADERS,
        errors=DRAWING_ERRORS,
    ),
    Operation(
        "POST",
        "/api/upload-controlnet-image",
        "Pictures",
        "Keep a picture that later requests may name",
        (Reply("its name", UploadReply),),
        (Example("A picture", {"file": PICTURE}),),
        body=Body(UploadBody, UploadForm),
        errors=(*BODY_ERRORS, StorageFailed),
    ),
    Operation(
        "POST",
        "/api/png-info",
        "Pictures",
        "What a picture was made with, ready to be sent again",
        (Reply("its parameters, text and graph", PngInfoReply),),
        (Example("A picture with a recipe", {"image": RECIPE}),),
        description="Takes a file of a form, the picture itself as the body, or JSON. Of others' pictures, what their "
        "text or their graph tells.",
        body=Body(PngInfoBody, PngInfoForm),
        errors=BODY_ERRORS,
    ),
    *(
        Operation(
            "GET",
            f"{folder}/<name>",
            "Pictures",
            summary,
            (Reply("the picture", types=dict.fromkeys(FORMATS, BINARY)),),
            (Example("A picture of a reply", path={"name": "20261122-143210-3f2a9c1e0b7d_00001_.png"}),),
            parameters=(
                Parameter("name", "path", "`filename` of a picture in a reply; it may end in .webp or .jpg"),
                Parameter(
                    "download", "query", "1: a file to save, in place of a picture to show", {"enum": ["1", "0"]}
                ),
            ),
            errors=(NotFound, InvalidValue, Busy, EngineUnavailable),
        )
        for folder, summary in (("/api/images", "A picture"), ("/images", "The same, where the web page looks for it"))
    ),
)
