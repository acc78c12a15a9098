"""Bytes from outside become pictures and masks that the engine reads exactly; and PNG bytes become other formats.

Why everything is normalised here, not sent on as it is: ComfyUI's LoadImage draws a truncated file with a part missing,
takes grey PNGs one level too dark, gets four of the eight EXIF orientations wrong, and crops to multiples of 8. An
upright 8-bit RGB PNG with sides that are multiples of 8 comes through to the last bit.
"""

import base64
import io
import re
from typing import Literal

from PIL import Image, ImageCms, ImageOps

from shared.errors import InvalidPicture
from shared.exif import comment_exif

# What cameras, phones, browsers and painting programs write (JPEG includes the MPO of phones). Other decoders of
# Pillow stay unreachable from outside.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
FORMATS_TEXT = "PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF"
MAX_SOURCE_PIXELS = 64_000_000

OutputFormat = Literal["png", "webp", "jpeg"]
# What a picture's name may end in: all are saved as PNG, and converted when they are asked for.
ENDINGS: dict[str, OutputFormat] = {"png": "png", "webp": "webp", "jpg": "jpeg", "jpeg": "jpeg"}
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
        looks_named = re.match(r"https?://|[\w./\\:~ -]+\.\w{3,4}$", text)
        raise InvalidPicture(
            f"{field} is not base64",
            field=field,
            hint="addresses and file names are not fetched; send the picture itself"
            if looks_named
            else "send a data URL, base64, or a file of a form",
        ) from error


def read_picture(data: bytes, field: str) -> Image.Image:
    """The picture as upright 8-bit RGB in sRGB colours; what is transparent becomes white.

    Of an animation, the first frame. Raises InvalidPicture with the reason and `field`.
    """
    image = _decode(data, field)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        opaque = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(opaque, image)
    return image.convert("RGB")


def read_mask(data: bytes, field: str, *, invert: bool = False) -> Image.Image:
    """The mask as upright 8-bit grey, white = repaint; what is transparent counts as black (keep).

    With `invert`, black and transparent mean repaint. Raises InvalidPicture, also for a mask with nothing to repaint.
    """
    image = _decode(data, field)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    mask = image.convert("L")
    if invert:
        mask = ImageOps.invert(mask)
    if is_empty(mask):
        colour, other = ("black", "white") if invert else ("white", "black")
        raise InvalidPicture(
            f"{field} has no {colour} in it, so nothing would be repainted",
            field=field,
            hint=f"paint {colour} where the picture is to change, and leave the rest {other}",
        )
    return mask


def is_empty(mask: Image.Image) -> bool:
    """Whether a mask (8-bit grey) is black all over."""
    return mask.getbbox() is None


def convert_png(png: bytes, output: OutputFormat, comment: str | None = None) -> bytes:
    """The same picture as PNG (unchanged, with its embedded texts), lossless-looking WebP, or JPEG with `comment`."""
    if output == "png":
        return png
    buffer = io.BytesIO()
    exif = None if comment is None else comment_exif(comment)
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        image.convert("RGB").save(buffer, output, quality=92, exif=exif or b"")
    return buffer.getvalue()


def _decode(data: bytes, field: str) -> Image.Image:
    """The decoded picture in any 8-bit mode, upright. Decodes all of it: a truncated file is an error here."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    # As below, a damaged head is reported through many types.
    except Exception as error:
        raise InvalidPicture(
            f"{field} is not a picture that can be read", field=field, hint=f"send {FORMATS_TEXT}"
        ) from error
    width, height = image.size
    if width * height > MAX_SOURCE_PIXELS:
        raise InvalidPicture(
            f"{field} has {width}x{height} pixels, more than {MAX_SOURCE_PIXELS // 1_000_000} megapixels",
            field=field,
            hint="scale it down first",
        )
    try:
        image.load()
        return _to_srgb(_to_8_bit(ImageOps.exif_transpose(image)))
    # Pillow's decoders report damaged data through many types (OSError, SyntaxError, ValueError, struct.error,
    # zlib.error, ...); whichever it is, the picture is at fault and not the server.
    except Exception as error:
        raise InvalidPicture(
            f"{field} is damaged or cut short: {error}", field=field, hint="save it again and send it whole"
        ) from error


def _to_8_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return image.convert("I").point(lambda level: level * (1 / 257)).convert("L")
    if image.mode == "I":
        # Pillow opens 16-bit grey PNGs in this mode in some versions.
        return image.point(lambda level: level * (1 / 257)).convert("L")
    if image.mode == "F":
        raise ValueError("pictures of floating-point numbers are not supported")
    return image


def _to_srgb(image: Image.Image) -> Image.Image:
    """Colours through the embedded profile, so that a wide-gamut phone picture keeps its looks."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK"):
        return image
    try:
        converted = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError):
        return image  # a broken profile: the numbers as they stand are the best that is known
    return converted if converted is not None else image
