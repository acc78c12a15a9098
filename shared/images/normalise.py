"""Bytes from outside become pictures that the engine reads exactly.

Why everything is normalised here, not sent on as it is: ComfyUI's LoadImage draws a truncated file with a part missing,
takes grey PNGs one level too dark, gets four of the eight EXIF orientations wrong, and crops to multiples of 8. An
upright 8-bit RGB PNG with sides that are multiples of 8 comes through to the last bit.
"""

import base64
import re

from PIL import Image

from shared.errors import InvalidPicture
from shared.images.budget import MemoryBudget
from shared.images.decode import WITH_ALPHA, Decoded, decode, is_transparent
from shared.schema.words import NOTHING, plain

DATA_URL = re.compile(r"data:[^,]*?(;base64)?,", re.IGNORECASE)


def decode_base64(text: str, field: str) -> bytes:
    """The bytes of a data URL (whatever type it claims) or of bare base64, standard or URL-safe alphabet."""
    match = DATA_URL.match(text)
    if match and not match[1]:
        raise InvalidPicture(
            f"{field} is a data URL that is not base64",
            field=field,
            hint="start it with data:image/png;base64,",
        )
    body = "".join(text[match.end() if match else 0 :].split()).translate(str.maketrans("-_", "+/"))
    if not body:
        raise InvalidPicture(f"{field} is empty", field=field, hint="send a data URL, base64, or a file of a form")
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except ValueError as error:
        raise InvalidPicture(
            f"{field} is not base64",
            field=field,
            hint=f"{_why_no_base64(text)}send a data URL, base64, or a file of a form",
        ) from error


def _why_no_base64(text: str) -> str:
    """The start of a hint: what the text seems to be; empty if it seems nothing."""
    if text.startswith("@"):
        return "the name of a file is not its content (curl sends files with -F image=@...); "
    if re.match(r"[a-z][a-z0-9+.-]+:|(?:www\.|/|~/|\.{0,2}[\\/])|[\w./\\:~ -]+\.\w{3,4}$", text, re.IGNORECASE):
        return "addresses and file names are not fetched; send the picture itself; "
    if plain(text) in NOTHING or text.startswith("[object"):
        return f"{text[:30]!r} is what JavaScript makes of no text; "
    return ""


def read_picture(
    data: bytes,
    field: str,
    warnings: list[str] | None = None,
    *,
    backdrop: str = "white",
    budget: MemoryBudget | None = None,
) -> Image.Image:
    """The picture as upright 8-bit RGB in sRGB colours; where it is transparent, `backdrop` shows.

    Of an animation, or of several pages, the first. What is lost by that is added to `warnings`. Raises InvalidPicture
    with the reason and `field`; BodyTooLarge and Busy, if `budget` has no room.
    """
    decoded = decode(data, field, budget=budget)
    if warnings is not None:
        warnings += notes_on(decoded, field) + transparency_left(decoded.image, field, backdrop)
    return on_backdrop(decoded.image, backdrop)


def read_with_alpha(data: bytes, field: str, warnings: list[str], budget: MemoryBudget | None = None) -> Image.Image:
    """Like `read_picture`, with its transparency: of mode RGBA if any pixel is not opaque, else RGB."""
    decoded = decode(data, field, budget=budget)
    warnings += notes_on(decoded, field)
    mode = "RGBA" if is_transparent(decoded.image) else "RGB"
    return decoded.image if decoded.image.mode == mode else decoded.image.convert(mode)


def transparency_left(image: Image.Image, field: str, backdrop: str) -> list[str]:
    """A warning that `backdrop` shows where a picture is transparent, if it is so anywhere."""
    if not is_transparent(image):
        return []
    alpha = image.getchannel("A").histogram()
    part = sum((255 - level) * count for level, count in enumerate(alpha)) / 255 / sum(alpha)
    return [f"{field} is transparent ({max(part, 0.001):.1%} of it): there it was taken as {backdrop}"]


def frames_left(decoded: Decoded, field: str) -> list[str]:
    """A warning about further pictures in the file, if there are any."""
    return [] if decoded.several is None else [f"{field} is {decoded.several}: the first picture of it is used"]


def notes_on(decoded: Decoded, field: str) -> list[str]:
    """Warnings about what of a file was not used, or could not be told."""
    return [*frames_left(decoded, field), *([] if decoded.doubt is None else [f"{field} {decoded.doubt}"])]


def on_backdrop(image: Image.Image, colour: str) -> Image.Image:
    """A picture as RGB, with `colour` behind what is transparent."""
    if image.mode not in WITH_ALPHA:
        return image if image.mode == "RGB" else image.convert("RGB")
    opaque = Image.new("RGB", image.size, colour)
    opaque.paste(image, mask=image)
    return opaque
