"""The engine's PNGs in the formats that clients ask for, within what a format and the memory bear."""

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
# What a picture's name may end in: all are saved as PNG, and converted when they are asked for.
FORMATS_BY_EXTENSION: dict[str, OutputFormat] = {"png": "png", "webp": "webp", "jpg": "jpeg", "jpeg": "jpeg"}
# The largest side that the encoders of libwebp and libjpeg take, in pixels.
MAX_SIDES: dict[OutputFormat, int] = {"webp": 16_383, "jpeg": 65_500}
# The most pixels that are converted; Pillow itself takes more for an attack.
MAX_PIXELS = 80_000_000
# Bytes for each pixel while a picture is converted, at most: measured on noise of 9 megapixels, rounded up.
BYTES_TO_ENCODE: dict[OutputFormat, int] = {"webp": 28, "jpeg": 10}
HEAD = 32
BACKDROP, QUALITY = "white", 92


@dataclass(frozen=True)
class FormatLimits:
    """The largest picture of a format: pixels a `side`, and `pixels` in all. `more` says who can have more of them."""

    name: str
    side: int
    pixels: int
    more: str | None = None

    def objection(self, size: tuple[int, int]) -> str | None:
        """Why a picture of this size (width, height) is too large; None if it is not."""
        width, height = size
        if max(size) > self.side:
            return (
                f"{self.name} is for pictures of at most {self.side} pixels a side, and this one has {width}x{height}"
            )
        if width * height > self.pixels:
            megapixels = self.pixels / 1_000_000
            return (
                f"as {self.name}, pictures of at most {megapixels:g} megapixels are sent, and this one has "
                f"{width}x{height} pixels"
            )
        return None


@dataclass(frozen=True)
class EncodedPicture:
    """The bytes of a file, and what was lost on the way."""

    content: bytes
    warnings: tuple[str, ...] = ()


def format_limits(output: OutputFormat, budget: MemoryBudget | None = None) -> FormatLimits | None:
    """The largest picture that can be written in that format within `budget`; None if any can."""
    if output == "png":
        return None
    side = MAX_SIDES[output]
    if budget is None or budget.limit >= MAX_PIXELS * BYTES_TO_ENCODE[output]:
        return FormatLimits(output, side, MAX_PIXELS)
    return FormatLimits(output, side, budget.limit // BYTES_TO_ENCODE[output], budget.setting)


def check_size(size: tuple[int, int], output: OutputFormat, budget: MemoryBudget | None = None) -> None:
    """Raises NotAcceptable, with the limit, if a picture of that size cannot be written in that format."""
    bounds = format_limits(output, budget)
    reason = None if bounds is None else bounds.objection(size)
    if bounds is not None and reason is not None:
        more = "" if bounds.more is None else f"; whoever runs this service can raise {bounds.more}"
        raise NotAcceptable(reason, hint=f"ask for it as PNG{more}", format=output)


def convert_png(
    png: bytes | Path, output: OutputFormat, comment: str | None = None, *, budget: MemoryBudget | None = None
) -> EncodedPicture:
    """A PNG (its bytes, or its file) as WebP that looks the same and is as transparent, or as JPEG; with `comment`.

    JPEG has no transparency, and shows white there. A picture that is to be PNG is not touched. Raises NotAcceptable
    where the format cannot hold the picture, Busy where `budget` has no room for long, and FileNotFoundError.
    """
    if output == "png":
        return EncodedPicture(png if isinstance(png, bytes) else png.read_bytes())
    try:
        size = _size(png)
        check_size(size, output, budget)
        room = nullcontext() if budget is None else budget.admit(size[0] * size[1] * BYTES_TO_ENCODE[output], "it")
        with room, Image.open(png if isinstance(png, Path) else io.BytesIO(png), formats=("PNG",)) as image:
            return _encode(image, output, comment)
    except FileNotFoundError:
        raise
    # A damaged file, what an encoder does not take, or memory that was not there; Pillow's words may hold a path.
    except (OSError, ValueError, SyntaxError, MemoryError) as error:
        raise NotAcceptable(
            f"the picture cannot be written as {output}: its file is damaged, or the encoder refused it",
            hint="ask for it as PNG",
            format=output,
        ) from error


def _encode(image: Image.Image, output: OutputFormat, comment: str | None) -> EncodedPicture:
    buffer = io.BytesIO()
    exif = None if comment is None else comment_exif(comment)
    lost = [f"the recipe is too long for {output}, and left out"] if comment is not None and exif is None else []
    if output == "webp" and image.mode in ("RGB", "RGBA"):
        seen = image
    else:
        lost += [
            f"{note}, for {output} has no transparency"
            for note in transparency_warnings(image, "the picture", BACKDROP)
        ]
        seen = flatten(image, BACKDROP)
    seen.save(buffer, output, quality=QUALITY, exif=exif or b"")
    return EncodedPicture(buffer.getvalue(), tuple(lost))


def _size(png: bytes | Path) -> tuple[int, int]:
    if isinstance(png, Path):
        with png.open("rb") as file:
            head = file.read(HEAD)
    else:
        head = png[:HEAD]
    size = read_size(head)
    if size is None:
        raise ValueError("it is no PNG")
    return size
