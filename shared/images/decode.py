"""Decodes pictures from clients: base64 or bytes to upright 8-bit pictures in sRGB.

Pictures that cannot be decoded exactly are refused, never guessed: too large, damaged, or with an unknown range of
values. Pixels are converted in bands of rows, so that at most two whole pictures are in memory.

Pictures are normalised here and not sent on unchanged, because ComfyUI's LoadImage draws a truncated file with a part
missing, takes grey PNGs one level too dark, gets four of eight EXIF orientations wrong, and crops to multiples of 8.
It reads an upright 8-bit RGB PNG whose sides are multiples of 8 exactly.
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

# What cameras, phones, browsers and paint programs write (JPEG includes the MPO of phones). Clients cannot reach the
# other decoders of Pillow.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
FORMATS_TEXT = "PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF"
MAX_SOURCE_PIXELS = 64_000_000
# Peak bytes for each pixel during decoding: measured on plain pictures of 9 megapixels, rounded up. The libraries for
# WebP and AVIF hold several copies, that for progressive JPEG all coefficients.
BYTES_TO_DECODE = {"PNG": 10, "JPEG": 16, "MPO": 16, "WEBP": 18, "GIF": 10, "BMP": 10, "TIFF": 10, "AVIF": 14}
# Bytes for each pixel afterwards. Other modes have transparency and need a second picture when they are flattened.
BYTES_HELD = {"L": 1, "RGB": 4}
# Rows that are converted at a time.
BAND = 256
WITH_ALPHA = ("LA", "RGBA")
# TIFF's tag PhotometricInterpretation, and its value for pictures in which 0 is white.
PHOTOMETRIC, MIN_IS_WHITE = 262, 0
DATA_URL = re.compile(r"data:[^,]*?(;base64)?,", re.IGNORECASE)
BASE64_HINT = "send a data URL, base64, or a file of a form"
SNIFFED_BYTES = 1024
# First bytes of file types that cannot be read; the first match counts.
SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "a PNG with a damaged header"),
    (b"\xff\xd8\xff", "a JPEG with a damaged header"),
    (b"GIF8", "a GIF with a damaged header"),
    (b"II*\0", "a TIFF of an unsupported kind (such as camera RAW, or colours as floating-point numbers)"),
    (b"MM\0*", "a TIFF of an unsupported kind (such as camera RAW, or colours as floating-point numbers)"),
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
# Brands of ISO media files. Those start with the size of their first box.
BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC (of a phone)"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF that this service cannot decode"),
    b"crx ": "camera RAW",
}
TEXTS = ((b"<svg", "SVG"), (b"<html", "a web page"), (b"<!doctype html", "a web page"), (b'{"', "JSON"))


class _Unusable(Exception):
    """A decoded picture cannot be used. The arguments are the reason, which follows the field's name, and a hint."""


@dataclass(frozen=True)
class DecodedPicture:
    """A decoded picture of mode L, LA, RGB or RGBA.

    `lossy`: the file format changes levels slightly. `sequence`: what the file is if it contains further pictures, such
    as "an animation". `colour_problem`: why the colours are estimated, such as "is CMYK without a colour profile".
    """

    image: Image.Image
    lossy: bool
    sequence: str | None
    colour_problem: str | None = None


def silence_decoders() -> None:
    """Keep Pillow's warnings out of the log: a file can cause 65,000 of them. Call it once, when a process starts."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def read_picture(
    data: bytes,
    field: str,
    warnings: list[str] | None = None,
    *,
    backdrop: str = "white",
    budget: MemoryBudget | None = None,
) -> Image.Image:
    """Decode a picture to upright 8-bit RGB in sRGB, with `backdrop` behind transparent parts.

    Uses the first picture of an animation or of several pages. Adds to `warnings` what is lost. Raises InvalidPicture
    with the reason and `field`; BodyTooLarge and Busy if `budget` has no room.
    """
    decoded = decode_picture(data, field, budget=budget)
    if warnings is not None:
        warnings += decoding_warnings(decoded, field) + transparency_warnings(decoded.image, field, backdrop)
    return flatten(decoded.image, backdrop)


def read_with_alpha(data: bytes, field: str, warnings: list[str], budget: MemoryBudget | None = None) -> Image.Image:
    """Decode like `read_picture`, but keep the transparency: mode RGBA if any pixel is not opaque, else RGB."""
    decoded = decode_picture(data, field, budget=budget)
    warnings += decoding_warnings(decoded, field)
    mode = "RGBA" if is_transparent(decoded.image) else "RGB"
    return decoded.image if decoded.image.mode == mode else decoded.image.convert(mode)


def decode_base64(text: str, field: str) -> bytes:
    """Decode a data URL of any media type, or bare base64 in the standard or URL-safe alphabet."""
    match = DATA_URL.match(text)
    if match and not match[1]:
        raise InvalidPicture(
            f"{field} is a data URL that is not base64",
            field=field,
            hint="start it with data:image/png;base64,",
        )
    body = "".join(text[match.end() if match else 0 :].split()).translate(str.maketrans("-_", "+/"))
    if not body:
        raise InvalidPicture(f"{field} is empty", field=field, hint=BASE64_HINT)
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except ValueError as error:
        raise InvalidPicture(
            f"{field} is not base64", field=field, hint=f"{_explain_text(text)}{BASE64_HINT}"
        ) from error


def _explain_text(text: str) -> str:
    """Return the start of a hint that says what the text seems to be; empty if it is unclear."""
    if text.startswith("@"):
        return "a file name is not the file's content (curl sends files with -F image=@...); "
    if re.match(r"[a-z][a-z0-9+.-]+:|(?:www\.|/|~/|\.{0,2}[\\/])|[\w./\\:~ -]+\.\w{3,4}$", text, re.IGNORECASE):
        return "addresses and file names are not fetched; send the picture itself; "
    if fold(text) in NONE_WORDS or text.startswith("[object"):
        return f"{text[:30]!r} is what JavaScript makes of a missing value; "
    return ""


def decode_picture(
    data: bytes, field: str, *, colours: bool = True, budget: MemoryBudget | None = None
) -> DecodedPicture:
    """Decode the picture in `data`, or the first one of several. A truncated file is an error.

    With `colours=False`, as for masks, colour profiles are ignored. `budget` reserves memory before decoding, and until
    the picture is garbage-collected. Raises InvalidPicture with the reason and `field`; BodyTooLarge and Busy if the
    budget has no room.
    """
    image = _open(data, field)
    if budget is None:
        return _decode(image, data, field, colours=colours)
    pixels = image.width * image.height
    with budget.reserve(pixels * BYTES_TO_DECODE[image.format or ""], field):
        decoded = _decode(image, data, field, colours=colours)
        budget.hold(decoded.image, pixels * BYTES_HELD.get(decoded.image.mode, 8))
        return decoded


def _decode(image: Image.Image, data: bytes, field: str, *, colours: bool) -> DecodedPicture:
    try:
        image.load()
        sequence = _sequence(image)
        lossy = image.format in ("JPEG", "MPO", "AVIF") or (image.format == "WEBP" and data[12:16] != b"VP8L")
        _scale_transparent_colour(image, data)
        ImageOps.exif_transpose(image, in_place=True)
        convert, colour_problem = _conversion(image, data, colours=colours)
        return DecodedPicture(_convert_bands(image, convert), lossy, sequence, colour_problem)
    except _Unusable as error:
        reason, hint = error.args
        raise InvalidPicture(f"{field} {reason}", field=field, hint=hint) from error
    # Pillow's decoders report damaged data with many exception types (OSError, SyntaxError, ValueError, struct.error,
    # zlib.error, ...). All of them mean that the picture is at fault, not the server.
    except Exception as error:
        raise InvalidPicture(
            f"{field} is damaged or cut short: {error}", field=field, hint="save it again and send the whole file"
        ) from error


def is_transparent(image: Image.Image) -> bool:
    """Whether any pixel is not opaque."""
    return image.mode in WITH_ALPHA and image.getchannel("A").getextrema() != (255, 255)


def flatten(image: Image.Image, colour: str) -> Image.Image:
    """Convert to RGB, with `colour` behind transparent parts."""
    if image.mode not in WITH_ALPHA:
        return image if image.mode == "RGB" else image.convert("RGB")
    opaque = Image.new("RGB", image.size, colour)
    opaque.paste(image, mask=image)
    return opaque


def transparency_warnings(image: Image.Image, field: str, backdrop: str) -> list[str]:
    """Warn, if a picture is transparent anywhere, that `backdrop` shows there."""
    if not is_transparent(image):
        return []
    alpha = image.getchannel("A").histogram()
    part = sum((255 - level) * count for level, count in enumerate(alpha)) / 255 / sum(alpha)
    return [f"{field} is transparent ({max(part, 0.001):.1%} of it): those parts are taken as {backdrop}"]


def frame_warnings(decoded: DecodedPicture, field: str) -> list[str]:
    """Warn, if the file contains further pictures, that they are not used."""
    return [] if decoded.sequence is None else [f"{field} is {decoded.sequence}: only its first picture is used"]


def decoding_warnings(decoded: DecodedPicture, field: str) -> list[str]:
    """Warn about parts of a file that were not used, and about estimated colours."""
    colours = [] if decoded.colour_problem is None else [f"{field} {decoded.colour_problem}"]
    return frame_warnings(decoded, field) + colours


def _open(data: bytes, field: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidPicture(
            f"{field} has more than {MAX_SOURCE_PIXELS // 1_000_000} megapixels",
            field=field,
            hint="scale it down first",
        ) from error
    # As in `_decode`, Pillow reports a damaged header with many exception types.
    except Exception as error:
        file_type = sniff_file_type(data)
        raise InvalidPicture(
            f"{field} is {'' if file_type is None else f'{file_type}, and '}not a picture that can be read",
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


def _sequence(image: Image.Image) -> str | None:
    """Say what a file with several pictures is; None for a single picture."""
    # The second picture in a phone's JPEG (MPO) is a preview or a depth map of the first.
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return None
    return "a file of several pages" if image.format == "TIFF" else "an animation"


def _scale_transparent_colour(image: Image.Image, data: bytes) -> None:
    """Scale the transparent colour of a PNG with other than 8 bits in the same way as Pillow scales its pixels."""
    key = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "RGB" and isinstance(key, tuple) and data[24] == 16:
        image.info["transparency"] = tuple(level >> 8 for level in key)
    if image.format == "PNG" and image.mode == "L" and isinstance(key, int) and data[24] in (2, 4):
        image.info["transparency"] = key * 255 // (2 ** data[24] - 1)


def _convert_bands(image: Image.Image, convert: Callable[[Image.Image], Image.Image] | None) -> Image.Image:
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
    """Return a function that converts a band of rows to mode L, LA, RGB or RGBA in sRGB, and a colour problem.

    The function is None if the picture needs no conversion.
    """
    if image.mode in ("I", "F"):
        _check_range(image)
    grey = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I;16")
    base = image.mode if image.mode in ("CMYK", "LAB") else "L" if grey else "RGB"
    transform, problem = srgb_conversion(image, data, base) if colours or base == "LAB" else (None, None)
    transparent = image.has_transparency_data
    if transform is None and not transparent and image.mode in ("L", "RGB"):
        return None, problem
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

    return convert, problem


def _check_range(image: Image.Image) -> None:
    if image.mode == "I":
        raise _Unusable(
            "has 32-bit or signed integers, whose value for white is unknown",
            "save it with unsigned 8 or 16 bits for each channel",
        )
    low, high = image.getextrema()
    # This refuses NaN, too: comparisons with it are false.
    if not (isinstance(low, float) and isinstance(high, float) and low >= 0 and high <= 1):
        raise _Unusable(
            f"has floating-point numbers from {low} to {high}; only 0 (black) to 1 (white) can be read",
            "scale them to 0 to 1, or save it with 8 or 16 bits for each channel",
        )


def _is_min_white(image: Image.Image) -> bool:
    # Pillow inverts the levels of other bit depths itself.
    return image.mode.startswith("I;16") and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == MIN_IS_WHITE


def _from_16_bit(band: Image.Image, *, inverted: bool) -> Image.Image:
    levels = band.convert("I")
    # Not a constant: the table would take a megabyte of every service.
    to_8_bit = [round(level / 257) for level in range(65536)]
    grey = levels.point(to_8_bit[::-1] if inverted else to_8_bit, "L")
    key = band.info.get("transparency")
    if isinstance(key, int):
        opaque = [255] * 65536
        opaque[min(max(key, 0), 65535)] = 0
        grey.info.pop("transparency", None)
        grey.putalpha(levels.point(opaque, "L"))
    return grey


def sniff_file_type(data: bytes) -> str | None:
    """Say what a file is, as a noun for an error message; None if its first bytes do not tell."""
    if not data:
        return "empty"
    if data[4:8] == b"ftyp":
        return BRANDS.get(data[8:12], "a video")
    if data[:4] == b"RIFF":
        return "a WebP with a damaged header" if data[8:12] == b"WEBP" else "a sound or video"
    for signature, file_type in SIGNATURES:
        if data.startswith(signature):
            return file_type
    head = data[:SNIFFED_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next(
        (file_type for mark, file_type in TEXTS if (mark in head if mark == b"<svg" else head.startswith(mark))), None
    )
