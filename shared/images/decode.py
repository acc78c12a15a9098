"""Encoded pictures from outside, decoded: upright, 8 bits a channel, in sRGB colours, with their transparency.

What cannot be done rightly is refused, never guessed: a picture that is too large, damaged, or whose numbers have no
known range. Pixels are converted in bands of rows, so that no more than two whole pictures are held at a time.
"""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageOps

from shared.errors import InvalidPicture
from shared.images.budget import MemoryBudget
from shared.images.colours import to_srgb
from shared.images.file_kinds import what_it_is

# What cameras, phones, browsers and painting programs write (JPEG includes the MPO of phones). Other decoders of
# Pillow stay unreachable from outside.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
FORMATS_TEXT = "PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF"
MAX_SOURCE_PIXELS = 64_000_000
# Bytes for each pixel while a picture is decoded, at most: measured on plain pictures of 9 megapixels, rounded up. The
# libraries for WebP and AVIF hold several copies, that for progressive JPEG all coefficients.
BYTES_TO_DECODE = {"PNG": 10, "JPEG": 16, "MPO": 16, "WEBP": 18, "GIF": 10, "BMP": 10, "TIFF": 10, "AVIF": 14}
# And afterwards; one with transparency is laid on a backdrop, so that there are two.
BYTES_HELD = {"L": 1, "RGB": 4}
# Rows that are converted at a time.
BAND = 256
WITH_ALPHA = ("LA", "RGBA")
# TIFF's tag PhotometricInterpretation, and its value for pictures in which 0 is white.
PHOTOMETRIC, MIN_IS_WHITE = 262, 0


class _Unusable(Exception):
    """A picture that was read and cannot be used: its argument says why, the second what would be right."""


@dataclass(frozen=True)
class Decoded:
    """A picture of mode L, LA, RGB or RGBA; `lossy` if its format changes levels a little; `several` says what it is
    of which only the first picture was decoded ("an animation", "a file of several pages"), if it is that; `doubt` what
    it is or has that leaves its colours in doubt ("is CMYK without a colour profile ..."), if they are."""

    image: Image.Image
    lossy: bool
    several: str | None
    doubt: str | None = None


def silence_decoders() -> None:
    """Keeps what Pillow warns of out of the log, for good: a file can be made to have 65,000 such warnings, and what a
    client must know is in our own. To be called once, when a process starts."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(data: bytes, field: str, *, colours: bool = True, budget: MemoryBudget | None = None) -> Decoded:
    """The picture in `data`, all of it: a truncated file is an error here. Of several, the first.

    Without `colours` its numbers stay as they are, whatever its profile says: so for masks. `budget` has room for it
    before any of it is decoded, and until the picture is let go of.
    Raises InvalidPicture with the reason and `field`; BodyTooLarge and Busy, if there is no room.
    """
    image = _open(data, field)
    if budget is None:
        return _decoded(image, data, field, colours=colours)
    pixels = image.width * image.height
    with budget.admit(pixels * BYTES_TO_DECODE[image.format or ""], field):
        decoded = _decoded(image, data, field, colours=colours)
        budget.hold(decoded.image, pixels * BYTES_HELD.get(decoded.image.mode, 8))
        return decoded


def _decoded(image: Image.Image, data: bytes, field: str, *, colours: bool) -> Decoded:
    try:
        image.load()
        several = _several(image)
        lossy = image.format in ("JPEG", "MPO", "AVIF") or (image.format == "WEBP" and data[12:16] != b"VP8L")
        _mend_transparency(image, data)
        ImageOps.exif_transpose(image, in_place=True)
        convert, doubt = _conversion(image, data, colours=colours)
        return Decoded(_by_bands(image, convert), lossy, several, doubt)
    except _Unusable as error:
        reason, hint = error.args
        raise InvalidPicture(f"{field} {reason}", field=field, hint=hint) from error
    # Pillow's decoders report damaged data through many types (OSError, SyntaxError, ValueError, struct.error,
    # zlib.error, ...); whichever it is, the picture is at fault and not the server.
    except Exception as error:
        raise InvalidPicture(
            f"{field} is damaged or cut short: {error}", field=field, hint="save it again and send it whole"
        ) from error


def is_transparent(image: Image.Image) -> bool:
    """Whether any pixel is not opaque."""
    return image.mode in WITH_ALPHA and image.getchannel("A").getextrema() != (255, 255)


def _open(data: bytes, field: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidPicture(
            f"{field} has more than {MAX_SOURCE_PIXELS // 1_000_000} megapixels",
            field=field,
            hint="scale it down first",
        ) from error
    # As in `decode`, a damaged head is reported through many types.
    except Exception as error:
        kind = what_it_is(data)
        raise InvalidPicture(
            f"{field} is {'' if kind is None else f'{kind}, and '}not a picture that can be read",
            field=field,
            hint=f"send {FORMATS_TEXT}",
        ) from error
    width, height = image.size
    if width * height > MAX_SOURCE_PIXELS:
        raise InvalidPicture(
            f"{field} has {width}x{height} pixels, more than {MAX_SOURCE_PIXELS // 1_000_000} megapixels",
            field=field,
            hint="scale it down first",
        )
    return image


def _several(image: Image.Image) -> str | None:
    # The second picture in a phone's JPEG (MPO) is a preview or a depth map of the first.
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return None
    return "a file of several pages" if image.format == "TIFF" else "an animation"


def _mend_transparency(image: Image.Image, data: bytes) -> None:
    """Scales the transparent level or colour of a PNG that has not 8 bits as Pillow scales its pixels."""
    key = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "RGB" and isinstance(key, tuple) and data[24] == 16:
        image.info["transparency"] = tuple(level >> 8 for level in key)
    if image.format == "PNG" and image.mode == "L" and isinstance(key, int) and data[24] in (2, 4):
        image.info["transparency"] = key * 255 // (2 ** data[24] - 1)


def _by_bands(image: Image.Image, convert: Callable[[Image.Image], Image.Image] | None) -> Image.Image:
    if convert is None:
        return image
    width, height = image.size
    converted = Image.new(convert(image.crop((0, 0, 1, 1))).mode, image.size)
    for top in range(0, height, BAND):
        converted.paste(convert(image.crop((0, top, width, min(top + BAND, height)))), (0, top))
    return converted


def _conversion(
    image: Image.Image, data: bytes, *, colours: bool
) -> tuple[Callable[[Image.Image], Image.Image] | None, str | None]:
    """What makes of each band one of mode L, LA, RGB or RGBA in sRGB (None if the picture is that already), and what is
    in doubt about its colours."""
    if image.mode in ("I", "F"):
        _check_range(image)
    grey = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I;16")
    base = image.mode if image.mode in ("CMYK", "LAB") else "L" if grey else "RGB"
    transform, doubt = to_srgb(image, data, base) if colours or base == "LAB" else (None, None)
    transparent = image.has_transparency_data
    if transform is None and not transparent and image.mode in ("L", "RGB"):
        return None, doubt
    inverted = image.format == "TIFF" and _is_min_white(image)

    def convert(band: Image.Image) -> Image.Image:
        if band.mode.startswith("I;16"):
            band = _from_16_bit(band, inverted=inverted)
        elif band.mode == "F":
            band = band.point(lambda level: level * 255 + 0.5).convert("L")
        alpha = band.convert("LA" if grey else "RGBA").getchannel("A") if transparent else None
        if band.mode != base:
            band = band.convert("RGBA").convert("RGB") if base == "RGB" else band.convert("LA").convert("L")
        if transform is not None:
            band = transform(band)
        elif base == "CMYK":
            band = band.convert("RGB")
        if alpha is not None:
            band.putalpha(alpha)
        return band

    return convert, doubt


def _check_range(image: Image.Image) -> None:
    if image.mode == "I":
        raise _Unusable(
            "has whole numbers of 32 bits, or signed ones, and which of them is white cannot be told",
            "save it with 8 or 16 bits for each channel, unsigned",
        )
    low, high = image.getextrema()
    # Not a number is in no range either.
    if not (isinstance(low, float) and isinstance(high, float) and low >= 0 and high <= 1):
        raise _Unusable(
            f"has floating-point numbers from {low} to {high}; read are those from 0 (black) to 1 (white)",
            "scale them to 0 to 1, or save it with 8 or 16 bits for each channel",
        )


def _is_min_white(image: Image.Image) -> bool:
    # For other depths Pillow turns the levels round itself.
    return image.mode.startswith("I;16") and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == MIN_IS_WHITE


def _from_16_bit(band: Image.Image, *, inverted: bool) -> Image.Image:
    levels = band.convert("I")
    # Made each time: kept, the table would take a megabyte of every service.
    to_8_bit = [round(level / 257) for level in range(65536)]
    grey = levels.point(to_8_bit[::-1] if inverted else to_8_bit, "L")
    key = band.info.get("transparency")
    if isinstance(key, int):
        opaque = [255] * 65536
        opaque[min(max(key, 0), 65535)] = 0
        grey.info.pop("transparency", None)
        grey.putalpha(levels.point(opaque, "L"))
    return grey
