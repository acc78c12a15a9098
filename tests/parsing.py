"""Helpers that parse requests with a fake model catalog."""

from typing import Any

import pytest
from PIL import Image, ImageDraw

from shared.errors import InvalidValue
from shared.schema.request import Img2ImgRequest, Txt2ImgRequest
from shared.web.parsing.generation import ParsedRequest, parse_img2img, parse_txt2img
from shared.web.parsing.parser import ParsingContext
from shared.web.request_body import Fields
from tests.model_library import OWN, ModelLibrary
from tests.stack import data_url, encoded

IMAGE = Image.new("RGB", (64, 32), "red")
PICTURE = encoded(IMAGE)
URL = data_url(IMAGE)
WHITE = encoded(Image.new("L", (64, 32), 255))
# The right half is white: it is repainted.
HALF = Image.new("L", (64, 32))
ImageDraw.Draw(HALF).rectangle((32, 0, 63, 31), fill=255)
HALF_MASK = encoded(HALF)


def context(library: ModelLibrary | None = None, **stored: bytes) -> ParsingContext:
    return ParsingContext(
        OWN, library or ModelLibrary(), {name.removeprefix("n"): content for name, content in stored.items()}.get
    )


def read(library: ModelLibrary | None = None, **values: Any) -> ParsedRequest[Txt2ImgRequest]:
    return parse_txt2img(Fields({"prompt": "x", **values}, {}), context(library))


def words(**values: Any) -> Txt2ImgRequest:
    return read(**values).request


def reread(files: dict[str, bytes] | None = None, **values: Any) -> ParsedRequest[Img2ImgRequest]:
    return parse_img2img(Fields({"prompt": "x", **values}, files or {"image": PICTURE}), context())


def picture(files: dict[str, bytes] | None = None, **values: Any) -> Img2ImgRequest:
    return reread(files, **values).request


def refused(**values: Any) -> InvalidValue:
    with pytest.raises(InvalidValue) as wrong:
        read(**values)
    return wrong.value
