"""Colour spaces of picture files, their conversion to sRGB, and files that are not pictures."""

import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from shared.errors import InvalidPicture
from shared.images.decode import decode_picture, read_picture, silence_decoders
from shared.images.masks import read_mask
from tests.profiles import grey_ink, swapped_rgb
from tests.stack import encoded
from tests.test_decode import bare_png

COLOUR = (180, 90, 40)
ADOBE, DISPLAY_P3, WIDE = (
    (0.64, 0.33, 0.21, 0.71, 0.15, 0.06),
    (0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    (0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
)
SRGB = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
WHITE = (0.3127, 0.329)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """Insert chunks after the header of a PNG."""
    return png[:33] + b"".join(chunks) + png[33:]


def gamma(value: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def points(primaries: tuple[float, ...], white: tuple[float, float] = WHITE) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in (*white, *primaries))))


def cicp(primaries: int, curve: int) -> bytes:
    return chunk(b"cICP", bytes([primaries, curve, 0, 1]))


def matrix(primaries: tuple[float, ...]) -> Any:
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in zip(primaries[::2], primaries[1::2], strict=True)]).T
    x, y = WHITE
    return columns * np.linalg.solve(columns, [x / y, 1, (1 - x - y) / y])


def expected(colour: tuple[int, ...], primaries: tuple[float, ...], exponent: float | None) -> Any:
    """Return the colour in sRGB. Every white point is D65. Without an exponent, the curve is that of sRGB."""
    levels = np.array(colour) / 255
    srgb = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    linear = srgb if exponent is None else levels**exponent
    linear = np.clip(np.linalg.solve(matrix(SRGB), matrix(primaries) @ linear), 0, 1)
    return 255 * np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def exif(space: int, index: str | None = None) -> Image.Exif:
    tags = Image.Exif()
    tags[0x8769] = {0xA001: space} if index is None else {0xA001: space, 0xA005: {1: index}}
    return tags


PROFILED = encoded(Image.new("RGB", (8, 8), COLOUR), icc_profile=swapped_rgb())
FOR_INK = encoded(Image.new("RGB", (8, 8), COLOUR), icc_profile=grey_ink())
PLAIN = encoded(Image.new("RGB", (8, 8), COLOUR))
GREY = encoded(Image.new("L", (8, 8), 90))
JPEG = {"quality": 100, "subsampling": 0}


@pytest.mark.parametrize(
    ("data", "primaries", "exponent"),
    [
        (with_chunks(PLAIN, gamma(1.0)), SRGB, 1.0),
        (with_chunks(PLAIN, gamma(1 / 1.8)), SRGB, 1.8),
        (with_chunks(PLAIN, gamma(0.45455), points(ADOBE)), ADOBE, None),
        (with_chunks(PLAIN, gamma(1.0), points(WIDE)), WIDE, 1.0),
        (with_chunks(PLAIN, points(DISPLAY_P3)), DISPLAY_P3, None),
        (with_chunks(PLAIN, cicp(12, 13)), DISPLAY_P3, None),
        (with_chunks(PLAIN, cicp(9, 13)), WIDE, None),
        (with_chunks(PLAIN, cicp(1, 8)), SRGB, 1.0),
        # cICP takes precedence over a profile and over the older chunks.
        (with_chunks(PROFILED, cicp(12, 13)), DISPLAY_P3, None),
        (with_chunks(PLAIN, cicp(1, 13), gamma(1.0)), SRGB, None),
        # sRGB takes precedence over gAMA. Values close to sRGB count as exactly sRGB.
        (with_chunks(PLAIN, chunk(b"sRGB", b"\0"), gamma(1.0)), SRGB, None),
        (with_chunks(PLAIN, gamma(0.45455), points(SRGB)), SRGB, None),
        (encoded(Image.new("RGB", (8, 8), COLOUR), exif=exif(2)), ADOBE, 563 / 256),
        (encoded(Image.new("RGB", (8, 8), COLOUR), "JPEG", exif=exif(2), **JPEG), ADOBE, 563 / 256),
        (encoded(Image.new("RGB", (8, 8), COLOUR), "JPEG", exif=exif(0xFFFF, "R03"), **JPEG), ADOBE, 563 / 256),
        (encoded(Image.new("RGB", (8, 8), COLOUR), "JPEG", exif=exif(0xFFFF), **JPEG), SRGB, None),
        (encoded(Image.new("RGB", (8, 8), COLOUR), "WEBP", lossless=True, exif=exif(2).tobytes()), ADOBE, 563 / 256),
        (encoded(Image.new("RGB", (8, 8), COLOUR), "TIFF", tiffinfo={318: WHITE, 319: ADOBE}), ADOBE, 2.2),
    ],
)  # fmt: skip
def test_the_colour_space_of_a_file_is_applied(
    data: bytes, primaries: tuple[float, ...], exponent: float | None
) -> None:
    warnings: list[str] = []
    pixel = read_picture(data, "input_image", warnings).getpixel((3, 3))
    assert np.abs(np.subtract(pixel, expected(COLOUR, primaries, exponent))).max() <= 2.5
    assert warnings == []


@pytest.mark.parametrize("image", [PLAIN, GREY])
def test_srgb_is_not_converted(image: bytes) -> None:
    before = read_picture(image, "x").getpixel((3, 3))
    for chunks in ((gamma(0.45455),), (gamma(0.45455), points(SRGB)), (cicp(1, 13),), (cicp(1, 1),), (cicp(2, 2),)):
        assert read_picture(with_chunks(image, *chunks), "x").getpixel((3, 3)) == before


def test_gamma_is_applied_to_grey_pictures_but_not_to_masks() -> None:
    linear = with_chunks(GREY, gamma(1.0))
    level = expected((90, 90, 90), SRGB, 1.0)[0]
    assert abs(read_picture(linear, "x").getpixel((3, 3))[0] - level) <= 2  # type: ignore[index]
    assert read_mask(linear, "mask").getpixel((3, 3)) == 90


def test_colour_conversion_keeps_transparency() -> None:
    image = Image.new("RGBA", (8, 8), (*COLOUR, 77))
    decoded = decode_picture(with_chunks(encoded(image), gamma(1.0)), "x").image
    assert decoded.getpixel((3, 3))[3] == 77  # type: ignore[index]
    assert np.abs(np.subtract(decoded.getpixel((3, 3))[:3], expected(COLOUR, SRGB, 1.0))).max() <= 2  # type: ignore[index]
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, *COLOUR])
    data = with_chunks(encoded(palette, transparency=bytes([255, 77])), gamma(1.0))
    assert np.abs(np.subtract(decode_picture(data, "x").image.getpixel((3, 3)), decoded.getpixel((3, 3)))).max() <= 1


def test_a_transparent_16_bit_colour_is_applied() -> None:
    row = struct.pack(">12H", *([500, 600, 700, 1000, 2000, 3000] * 2))
    alpha = decode_picture(bare_png(16, 2, row, struct.pack(">3H", 1000, 2000, 3000)), "x").image.getchannel("A")
    assert [alpha.getpixel((x, 2)) for x in range(4)] == [255, 0, 255, 0]


def avif(primaries: int, curve: int) -> bytes:
    data = encoded(Image.new("RGB", (16, 16), COLOUR), "AVIF", quality=100, subsampling="4:4:4")
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">HH", primaries, curve) + data[at + 4 :]


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_an_avif_without_a_profile_is_converted() -> None:
    for codes, primaries in (((1, 13), SRGB), ((12, 13), DISPLAY_P3)):
        pixel = read_picture(avif(*codes), "x").getpixel((3, 3))
        assert np.abs(np.subtract(pixel, expected(COLOUR, primaries, None))).max() <= 4
    warnings: list[str] = []
    read_picture(avif(9, 16), "input_image", warnings)
    assert warnings == ["input_image is HDR (PQ), which is not supported: save it as sRGB for exact colours"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (with_chunks(PLAIN, cicp(9, 16)), "is HDR (PQ)"),
        (with_chunks(PLAIN, cicp(9, 18)), "is HDR (HLG)"),
        (with_chunks(PLAIN, cicp(77, 13)), "has an unsupported colour space (77/13)"),
        (with_chunks(PLAIN, gamma(0.0001)), "has an unusable colour profile"),
        (with_chunks(PLAIN, gamma(0.45455), points((0.3, 0.3) * 3)), "has an unusable colour profile"),
        (with_chunks(PLAIN, gamma(0.45455), points((0.64, 0, 0.3, 0.6, 0.15, 0.06))), "has an unusable colour profile"),
        (encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG"), "is CMYK without a colour profile"),
        (encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "TIFF"), "is CMYK without a colour profile"),
        (encoded(Image.new("RGB", (8, 8), COLOUR), icc_profile=b"broken"), "has an unusable colour profile"),
        (FOR_INK, "has a colour profile of the wrong kind (CMYK)"),
    ],
)  # fmt: skip
def test_unsupported_colours_add_a_warning(data: bytes, message: str) -> None:
    warnings: list[str] = []
    read_picture(data, "input_image", warnings)
    (warning,) = warnings
    assert warning.startswith(f"input_image {message}")


def test_an_ordinary_picture_adds_no_warning() -> None:
    for data in (
        PLAIN,
        GREY,
        encoded(Image.new("1", (8, 8), 1)),
        encoded(Image.new("RGB", (8, 8), COLOUR), "JPEG", exif=exif(1)),
        encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", icc_profile=grey_ink()),
    ):
        warnings: list[str] = []
        read_picture(data, "input_image", warnings)
        assert warnings == []


@pytest.mark.parametrize("colour", [(128, 178, 88), (200, 100, 160), (60, 128, 128)])
def test_lab_is_converted_with_signed_values(colour: tuple[int, int, int]) -> None:
    """Compares with the CIE formulas, from 8-bit Lab (a and b have an offset of 128) to sRGB."""
    light, a, b = colour[0] / 255 * 100, colour[1] - 128, colour[2] - 128
    y = (light + 16) / 116
    ratios = [((t**3) if t > 6 / 29 else 3 * (6 / 29) ** 2 * (t - 4 / 29)) for t in (y + a / 500, y, y - b / 200)]
    xyz = np.array(ratios) * [0.9642, 1.0, 0.8249]
    adapt = np.array(
        [[0.9555766, -0.0230393, 0.0631636], [-0.0282895, 1.0099416, 0.0210077], [0.0122982, -0.020483, 1.3299098]]
    )
    linear = np.clip(np.linalg.solve(matrix(SRGB), adapt @ xyz), 0, 1)
    srgb = 255 * np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    pixel = read_picture(encoded(Image.new("LAB", (8, 8), colour), "TIFF"), "x").getpixel((3, 3))
    assert np.abs(np.subtract(pixel, srgb)).max() <= 3


def brand(name: bytes) -> bytes:
    return struct.pack(">I", 24) + b"ftyp" + name + bytes(4) + b"mif1" + name + bytes(100)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (brand(b"heic"), "is HEIC"),
        (brand(b"mif1"), "is HEIC"),
        (brand(b"crx "), "is camera RAW"),
        (brand(b"mp42"), "is a video"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "is JPEG XL"),
        (b"\xff\x4f\xff\x51" + bytes(50), "is JPEG 2000"),
        (b"8BPS\0\1" + bytes(50), "is a Photoshop document"),
        (b"%PDF-1.7\n", "is a PDF"),
        (b"PK\3\4" + bytes(50), "is a zip archive"),
        (b"P6\n1 1\n255\nabc", "is a PNM picture"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "is SVG"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b'{"detail": "not found"}', "is JSON"),
        (PLAIN[:20], "is a PNG with a damaged header"),
        (b"hello", "is not a picture"),
    ],
)
def test_the_format_of_an_unsupported_file_is_named(data: bytes, message: str) -> None:
    with pytest.raises(InvalidPicture) as refused:
        read_picture(data, "input_image")
    assert refused.value.message.startswith(f"input_image {message}")
    assert "not a picture that can be read" in refused.value.message
    assert "PNG" in str(refused.value.hint)


def test_a_picture_above_the_pixel_limit_of_pillow_is_reported_as_too_large() -> None:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(InvalidPicture, match="megapixels"):
        read_picture(data, "input_image")


def test_the_gain_map_of_a_phone_picture_is_ignored() -> None:
    # An MPO file contains both. The gain map is for HDR screens: how much brighter to show each pixel.
    base, gains = Image.new("RGB", (64, 64), COLOUR), Image.new("RGB", (16, 16), (255, 255, 255))
    data = encoded(base, "MPO", save_all=True, append_images=[gains], **JPEG)
    warnings: list[str] = []
    picture = read_picture(data, "input_image", warnings)
    assert (picture.size, warnings) == ((64, 64), [])
    assert np.abs(np.subtract(picture.getpixel((3, 3)), COLOUR)).max() <= 3


def test_colour_chunks_behind_too_many_others_are_ignored() -> None:
    data = with_chunks(PLAIN, *(chunk(b"tEXt", b"k\0v") for _ in range(2000)), cicp(9, 16))
    warnings: list[str] = []
    assert read_picture(data, "x", warnings).getpixel((3, 3)) == COLOUR
    # The last chunk is beyond the limit.
    assert warnings == []


def test_a_file_with_many_flaws_does_not_fill_the_log() -> None:
    """Decodes a TIFF with many tags whose data lies beyond the end of the file."""
    usual = [(256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 8), (279, 64)]
    tags = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in usual)
    tags += b"".join(struct.pack("<HHII", 40_000 + number, 7, 30_000, 30_000) for number in range(500))
    data = b"II*\0" + struct.pack("<IH", 8, len(usual) + 500) + tags + bytes(4)
    data += bytes(30_100 - len(data))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert decode_picture(data, "x").image.size == (8, 8)
        assert caught
        caught.clear()
        silence_decoders()
        assert decode_picture(data, "x").image.size == (8, 8)
    assert caught == []
