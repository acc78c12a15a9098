"""Decodes pictures from clients: base64 or bytes to upright 8-bit pictures in sRGB.

What cannot be done rightly is refused, never guessed: a picture that is too large, damaged, or whose numbers have no
known range. Pixels are converted in bands of rows, so that no more than two whole pictures are held at a time.

Why everything is normalised here, not sent on as it is: ComfyUI's LoadImage draws a truncated file with a part missing,
takes grey PNGs one level too dark, gets four of the eight EXIF orientations wrong, and crops to multiples of 8. An
upright 8-bit RGB PNG with sides that are multiples of 8 comes through to the last bit.
"""

import base64
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageOps

from shared.errors import InvalidPicture
from shared.images.budget import MemoryBudget
from shared.images.colours import srgb_conversion
from shared.schema.choices import NONE_WORDS, fold

SNIFFED_BYTES = 1024
# By what a file begins with; the first that fits counts.
SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "a PNG with a damaged beginning"),
    (b"\xff\xd8\xff", "a JPEG with a damaged beginning"),
    (b"GIF8", "a GIF with a damaged beginning"),
    (b"II*\0", "a TIFF of a kind that is not read here (as camera RAW, or colours in floating-point numbers)"),
    (b"MM\0*", "a TIFF of a kind that is not read here (as camera RAW, or colours in floating-point numbers)"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "a Photoshop document"),
    (b"gimp xcf", "a GIMP document"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"#?RGBE", "Radiance HDR"),
    (b"\0\0\1\0", "an icon file"),
    (b"DDS ", "a DDS texture"),
    (b"%PDF", "a PDF"),
    (b"%!PS", "PostScript"),
    (b"PK\3\4", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x1aE\xdf\xa3", "a video"),
    *((b"P%d" % kind, "a PNM picture") for kind in range(1, 8)),
)
# Brands of the ISO media format, which begins with the size of its first box.
BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC (of a phone)"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF that the decoder of this service does not read"),
    b"crx ": "camera RAW",
}
TEXTS = ((b"<svg", "SVG"), (b"<html", "a web page"), (b"<!doctype html", "a web page"), (b'{"', "JSON"))


def sniff_file_type(data: bytes) -> str | None:
    """What the file is, as a noun; None if its first bytes do not tell."""
    if not data:
        return "empty"
    if data[4:8] == b"ftyp":
        return BRANDS.get(data[8:12], "a video")
    if data[:4] == b"RIFF":
        return "a WebP with a damaged beginning" if data[8:12] == b"WEBP" else "a sound or video"
    for beginning, kind in SIGNATURES:
        if data.startswith(beginning):
            return kind
    head = data[:SNIFFED_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((kind for mark, kind in TEXTS if (mark in head if mark == b"<svg" else head.startswith(mark))), None)


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
class DecodedPicture:
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


def decode_picture(
    data: bytes, field: str, *, colours: bool = True, budget: MemoryBudget | None = None
) -> DecodedPicture:
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


def _decoded(image: Image.Image, data: bytes, field: str, *, colours: bool) -> DecodedPicture:
    try:
        image.load()
        several = _several(image)
        lossy = image.format in ("JPEG", "MPO", "AVIF") or (image.format == "WEBP" and data[12:16] != b"VP8L")
        _mend_transparency(image, data)
        ImageOps.exif_transpose(image, in_place=True)
        convert, doubt = _conversion(image, data, colours=colours)
        return DecodedPicture(_by_bands(image, convert), lossy, several, doubt)
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
    # As in `decode_picture`, a damaged head is reported through many types.
    except Exception as error:
        kind = sniff_file_type(data)
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
    transform, doubt = srgb_conversion(image, data, base) if colours or base == "LAB" else (None, None)
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
    if fold(text) in NONE_WORDS or text.startswith("[object"):
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
    decoded = decode_picture(data, field, budget=budget)
    if warnings is not None:
        warnings += decoding_warnings(decoded, field) + transparency_warnings(decoded.image, field, backdrop)
    return flatten(decoded.image, backdrop)


def read_with_alpha(data: bytes, field: str, warnings: list[str], budget: MemoryBudget | None = None) -> Image.Image:
    """Like `read_picture`, with its transparency: of mode RGBA if any pixel is not opaque, else RGB."""
    decoded = decode_picture(data, field, budget=budget)
    warnings += decoding_warnings(decoded, field)
    mode = "RGBA" if is_transparent(decoded.image) else "RGB"
    return decoded.image if decoded.image.mode == mode else decoded.image.convert(mode)


def transparency_warnings(image: Image.Image, field: str, backdrop: str) -> list[str]:
    """A warning that `backdrop` shows where a picture is transparent, if it is so anywhere."""
    if not is_transparent(image):
        return []
    alpha = image.getchannel("A").histogram()
    part = sum((255 - level) * count for level, count in enumerate(alpha)) / 255 / sum(alpha)
    return [f"{field} is transparent ({max(part, 0.001):.1%} of it): there it was taken as {backdrop}"]


def frame_warnings(decoded: DecodedPicture, field: str) -> list[str]:
    """A warning about further pictures in the file, if there are any."""
    return [] if decoded.several is None else [f"{field} is {decoded.several}: the first picture of it is used"]


def decoding_warnings(decoded: DecodedPicture, field: str) -> list[str]:
    """Warnings about what of a file was not used, or could not be told."""
    return [*frame_warnings(decoded, field), *([] if decoded.doubt is None else [f"{field} {decoded.doubt}"])]


def flatten(image: Image.Image, colour: str) -> Image.Image:
    """A picture as RGB, with `colour` behind what is transparent."""
    if image.mode not in WITH_ALPHA:
        return image if image.mode == "RGB" else image.convert("RGB")
    opaque = Image.new("RGB", image.size, colour)
    opaque.paste(image, mask=image)
    return opaque
