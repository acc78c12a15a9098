"""Replies, parameters, errors and example pictures that operations share."""

import base64
import io
import math
from typing import Annotated

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import WithJsonSchema

from shared.errors import (
    BodyTooLarge,
    Busy,
    Cancelled,
    DreamLayerError,
    EngineError,
    EngineRejected,
    EngineUnavailable,
    GenerationFailed,
    InvalidPicture,
    InvalidValue,
    NotAcceptable,
    QueueFull,
    RequestError,
    StorageFailed,
    UnsupportedBody,
    WaitExpired,
)
from shared.schema.replies import EVENTS, AcceptedReply, ResultReply
from shared.web.openapi.operation import JSON, REF, ParameterSpec, ReplySpec
from shared.web.reply import FORMATS

RGB = tuple[int, int, int]
Errors = tuple[type[DreamLayerError], ...]
File = Annotated[str, WithJsonSchema({"type": "string", "format": "binary"})]
PictureFile = Annotated[str, WithJsonSchema({"type": "string", "format": "binary", "contentMediaType": "image/*"})]
NUMBER = {"type": "integer", "minimum": 1}
UUID = {"type": "string", "format": "uuid"}
BINARY = {"type": "string", "format": "binary"}
# By convention, the schema of a stream is that of an event, until OpenAPI 3.2 and its `itemSchema`.
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
STREAM = ReplySpec(
    "the events of the job until its last one (`queued`, `started`, `progress`, `preview`, `image`, then `completed`, "
    "`failed` or `cancelled`), with JSON as their data",
    types={"text/event-stream": EVENT},
    headers=("X-Job-Id", "X-Warnings"),
    parts=tuple(EVENTS.values()),
)
RESULT = ReplySpec(
    "the result; or, as `Accept` asks, its first picture (of a custom graph, that of its last stage or of "
    "`output_node`) or its events",
    ResultReply,
    {**dict.fromkeys(FORMATS, BINARY), **STREAM.types},
    ("X-Job-Id", "X-Seed", "X-Warnings", "Content-Location", "Link"),
    parts=STREAM.parts,
)
ACCEPTED = ReplySpec(
    "accepted, with `Prefer: respond-async`", AcceptedReply, headers=("Location", "X-Job-Id", "X-Warnings"), status=202
)
BODY_ERRORS: tuple[type[DreamLayerError], ...] = (
    RequestError,
    BodyTooLarge,
    UnsupportedBody,
    InvalidValue,
    InvalidPicture,
)
GENERATION_ERRORS: Errors = (
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
GENERATION_HEADERS = (
    ParameterSpec(
        "Accept",
        "header",
        "the type of the reply",
        {"type": "string", "enum": ["application/json", *FORMATS, *STREAM.types], "default": "application/json"},
    ),
    ParameterSpec(
        "Prefer",
        "header",
        "`respond-async`: reply 202 at once; `cancel-on-disconnect`: cancel the job if the client disconnects",
        {"type": "string"},
    ),
    ParameterSpec(
        "Idempotency-Key",
        "header",
        "requests with the same key and body get the same job; the same key with another body is a 422",
        {"type": "string", "minLength": 1, "maxLength": 255},
    ),
)


def _data_url(picture: Image.Image, infotext: str = "") -> str:
    buffer, texts = io.BytesIO(), PngInfo()
    if infotext:
        texts.add_text("parameters", infotext)
    picture.save(buffer, "PNG", optimize=True, pnginfo=texts)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _draw_circle(size: int, circle: RGB, background: RGB, share: float = 0.5) -> Image.Image:
    """A smooth circle in the middle, whose width is `share` of the picture's; its PNG is small."""
    # ImageDraw would take 1.6 MB of memory in each service. The gradient is 255 in the corners.
    edge = 255 * share / math.sqrt(2)
    distance = Image.radial_gradient("L").resize((2 * size, 2 * size))
    inside = distance.point(lambda level: 255 if level < edge else 0).resize((size, size), Image.Resampling.BOX)
    return Image.composite(
        Image.new("RGB", (size, size), circle), Image.new("RGB", (size, size), background), inside
    ).quantize(8)


BLACK, WHITE, RED, BLUE = (0, 0, 0), (255, 255, 255), (220, 28, 36), (32, 70, 212)
PICTURE = _data_url(_draw_circle(256, RED, BLUE))
MASK = _data_url(_draw_circle(256, WHITE, BLACK, 0.8))
PICTURE_WITH_PARAMETERS = _data_url(
    _draw_circle(64, RED, BLUE),
    "a red circle on a blue background\nSteps: 10, Sampler: Euler, CFG scale: 3, Seed: 7, Size: 256x256",
)
