"""Encodes the engine's PNGs in the format that a client wants, within the limits of format and memory."""

import io
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from shared.errors import NotAcceptable
from shared.images.budget import MemoryBudget
from shared.images.decode import flatten, transparency_warnings
from shared.images.embedded_text import comment_exif, read_size

OutputFormat = Literal["png", "webp", "jpeg"]
# Extensions in addresses of pictures. All pictures are saved as PNG, and converted for each request.
FORMATS_BY_EXTENSION: dict[str, OutputFormat] = {"png": "png", "webp": "webp", "jpg": "jpeg", "jpeg": "jpeg"}
# Longest side, in pixels, that the encoders of libwebp and libjpeg accept.
MAX_SIDES: dict[OutputFormat, int] = {"webp": 16_383, "jpeg": 65_500}
# Pillow takes larger pictures for an attack.
MAX_PIXELS = 80_000_000
# Peak bytes for each pixel during encoding: measured on noise of 9 megapixels, rounded up.
BYTES_TO_ENCODE: dict[OutputFormat, int] = {"webp": 28, "jpeg": 10}
HEAD = 32
BACKDROP, QUALITY = "white", 92


@dataclass(frozen=True)
class FormatLimits:
    """The largest `side` and number of `pixels` of a format. `setting` names the setting that raises `pixels`."""

    name: str
    side: int
    pixels: int
    setting: str | None = None

    def explain_excess(self, size: tuple[int, int]) -> str | None:
        """Say why a picture of this size (width, height) is too large; None if it is not."""
        width, height = size
        if max(size) > self.side:
            return f"{self.name} allows at most {self.side} pixels a side, and this picture has {width}x{height}"
        if width * height > self.pixels:
            megapixels = self.pixels / 1_000_000
            return f"{self.name} is limited to {megapixels:g} megapixels, and this picture has {width}x{height} pixels"
        return None


@dataclass(frozen=True)
class EncodedPicture:
    """The bytes of a file, and warnings about what was lost."""

    content: bytes
    warnings: tuple[str, ...] = ()


def format_limits(output: OutputFormat, budget: MemoryBudget | None = None) -> FormatLimits | None:
    """Return the limits of a format within `budget`; None if there are none."""
    if output == "png":
        return None
    side = MAX_SIDES[output]
    if budget is None or budget.limit >= MAX_PIXELS * BYTES_TO_ENCODE[output]:
        return FormatLimits(output, side, MAX_PIXELS)
    return FormatLimits(output, side, budget.limit // BYTES_TO_ENCODE[output], budget.setting)


def check_size(size: tuple[int, int], output: OutputFormat, budget: MemoryBudget | None = None) -> None:
    """Raise NotAcceptable, with the limit, if a picture of that size cannot be written in that format."""
    limits = format_limits(output, budget)
    reason = None if limits is None else limits.explain_excess(size)
    if limits is not None and reason is not None:
        more = "" if limits.setting is None else f"; the operator of this service can raise {limits.setting}"
        raise NotAcceptable(reason, hint=f"request it as PNG{more}", format=output)


def convert_png(
    png: bytes | Path, output: OutputFormat, comment: str | None = None, *, budget: MemoryBudget | None = None
) -> EncodedPicture:
    """Convert a PNG (bytes or a file) to WebP, with its transparency, or to JPEG, and add `comment`.

    JPEG has no transparency: those parts become white. PNG output is the input, unchanged. Raises NotAcceptable if the
    format cannot hold the picture, Busy if `budget` has no room for long, and FileNotFoundError.
    """
    if output == "png":
        return EncodedPicture(png if isinstance(png, bytes) else png.read_bytes())
    try:
        size = _size(png)
        check_size(size, output, budget)
        memory = size[0] * size[1] * BYTES_TO_ENCODE[output]
        room = nullcontext() if budget is None else budget.reserve(memory, "the picture")
        with room, Image.open(png if isinstance(png, Path) else io.BytesIO(png), formats=("PNG",)) as image:
            return _encode(image, output, comment)
    except FileNotFoundError:
        raise
    # A damaged file, a picture that the encoder refuses, or too little memory. Pillow's message may contain a path.
    except (OSError, ValueError, SyntaxError, MemoryError) as error:
        raise NotAcceptable(
            f"the picture cannot be written as {output}: its file is damaged, or the encoder refused it",
            hint="request it as PNG",
            format=output,
        ) from error


def _encode(image: Image.Image, output: OutputFormat, comment: str | None) -> EncodedPicture:
    buffer = io.BytesIO()
    exif = None if comment is None else comment_exif(comment)
    lost = [f"the metadata is too long for {output} and was left out"] if comment is not None and exif is None else []
    if output == "webp" and image.mode in ("RGB", "RGBA"):
        visible = image
    else:
        lost += [
            f"{note}, because {output} has no transparency"
            for note in transparency_warnings(image, "the picture", BACKDROP)
        ]
        visible = flatten(image, BACKDROP)
    visible.save(buffer, output, quality=QUALITY, exif=exif or b"")
    return EncodedPicture(buffer.getvalue(), tuple(lost))


def _size(png: bytes | Path) -> tuple[int, int]:
    if isinstance(png, Path):
        with png.open("rb") as file:
            head = file.read(HEAD)
    else:
        head = png[:HEAD]
    size = read_size(head)
    if size is None:
        raise ValueError("not a PNG")
    return size
