"""Decoding of pictures and masks: every mode, orientation and kind of damage."""

import base64
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms

from shared.errors import InvalidPicture
from shared.images.decode import decode_base64, decode_picture, read_picture
from shared.images.encode import convert_png
from shared.images.masks import read_mask
from shared.schema.ranges import Picture
from tests.profiles import grey, grey_ink, swapped_rgb
from tests.stack import encoded

RED = (200, 16, 32)


def solid(mode: str, colour: object, size: tuple[int, int] = (20, 12)) -> Image.Image:
    return Image.new(mode, size, colour)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("image", "output", "expected"),
    [
        (solid("RGB", RED), "PNG", RED),
        (solid("RGB", RED), "BMP", RED),
        (solid("RGB", RED), "TIFF", RED),
        (solid("RGB", RED).quantize(4), "PNG", RED),
        (solid("RGB", RED).quantize(4), "GIF", RED),
        (solid("L", 77), "PNG", (77, 77, 77)),
        (solid("1", 1), "PNG", (255, 255, 255)),
        (solid("LA", (77, 255)), "PNG", (77, 77, 77)),
        (solid("LA", (77, 0)), "PNG", (255, 255, 255)),
        (solid("RGBA", (*RED, 255)), "PNG", RED),
        (solid("RGBA", (*RED, 0)), "PNG", (255, 255, 255)),
        (solid("RGBA", (0, 0, 0, 51)), "PNG", (204, 204, 204)),
        (solid("I;16", 128 * 257), "PNG", (128, 128, 128)),
        (solid("I;16", 65535), "TIFF", (255, 255, 255)),
    ],
)
def test_every_mode_becomes_8_bit_rgb_without_losing_a_level(
    image: Image.Image, output: str, expected: tuple[int, int, int]
) -> None:
    picture = read_picture(encoded(image, output), "input_image")
    assert picture.mode == "RGB"
    assert picture.getpixel((3, 3)) == expected


@pytest.mark.parametrize(("output", "mode"), [("JPEG", "RGB"), ("JPEG", "CMYK"), ("JPEG", "L"), ("WEBP", "RGB")])
def test_lossy_formats_are_read_with_small_errors(output: str, mode: str) -> None:
    picture = read_picture(encoded(solid("RGB", RED).convert(mode), output, quality=95), "input_image")
    expected = solid("RGB", RED).convert(mode).convert("RGB").getpixel((3, 3))
    assert np.abs(np.subtract(picture.getpixel((3, 3)), expected)).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_tag_is_applied(orientation: int) -> None:
    upright = Image.fromarray(np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3))
    # The stored pictures from which each tag makes the upright picture.
    stored: dict[int, Callable[[Image.Image], Image.Image]] = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored[orientation](upright), "PNG", exif=exif)
    assert np.array_equal(np.asarray(read_picture(data, "input_image")), np.asarray(upright))


def test_only_the_first_frame_of_an_animation_is_read() -> None:
    data = encoded(solid("RGB", RED), "GIF", save_all=True, append_images=[solid("RGB", (0, 0, 0))])
    assert read_picture(data, "input_image").getpixel((0, 0)) == RED


BLUE = (RED[2], RED[1], RED[0])


@pytest.mark.parametrize(
    ("image", "output", "profile", "expected"),
    [
        (solid("RGB", BLUE), "PNG", swapped_rgb(), (*RED, 255)),
        (solid("RGB", BLUE), "JPEG", swapped_rgb(), (*RED, 255)),
        (solid("RGB", BLUE), "TIFF", swapped_rgb(), (*RED, 255)),
        (solid("RGB", BLUE), "WEBP", swapped_rgb(), (*RED, 255)),
        (solid("RGB", BLUE).quantize(4), "PNG", swapped_rgb(), (*RED, 255)),
        (solid("RGBA", (*BLUE, 77)), "PNG", swapped_rgb(), (*RED, 77)),
        (solid("RGBA", (*BLUE, 77)), "TIFF", swapped_rgb(), (*RED, 77)),
        (solid("L", 100), "PNG", grey(1.0), (168, 168, 168, 255)),
        (solid("L", 100), "JPEG", grey(1.0), (168, 168, 168, 255)),
        (solid("LA", (100, 77)), "PNG", grey(1.0), (168, 168, 168, 77)),
        (solid("I;16", 100 * 257), "PNG", grey(1.0), (168, 168, 168, 255)),
        # Grey with an RGB profile, which some programs write.
        (solid("L", 100), "PNG", swapped_rgb(), (100, 100, 100, 255)),
        (solid("CMYK", (255, 0, 0, 0)), "JPEG", grey_ink(), (119, 119, 119, 255)),
        (solid("CMYK", (255, 0, 0, 0)), "TIFF", grey_ink(), (119, 119, 119, 255)),
        # Profiles of another mode and damaged profiles are ignored.
        (solid("RGB", RED), "PNG", grey(1.0), (*RED, 255)),
        (solid("RGB", RED), "PNG", grey_ink(), (*RED, 255)),
        (solid("CMYK", (255, 0, 0, 0)), "JPEG", swapped_rgb(), (0, 255, 255, 255)),
        (solid("L", 100), "PNG", grey_ink(), (100, 100, 100, 255)),
        (solid("LA", (100, 77)), "PNG", b"broken", (100, 100, 100, 77)),
        (solid("CMYK", (255, 0, 0, 0)), "JPEG", grey_ink()[:200], (0, 255, 255, 255)),
    ],
)
def test_the_profile_of_every_mode_is_applied(
    image: Image.Image, output: str, profile: bytes, expected: tuple[int, int, int, int]
) -> None:
    options = {"quality": 100} if output in ("JPEG", "WEBP") else {}
    picture = decode_picture(encoded(image, output, icc_profile=profile, **options), "input_image").image.convert(
        "RGBA"
    )
    # A gamma of 2.2 is not exactly the curve of sRGB, especially in dark colours.
    assert np.abs(np.subtract(picture.getpixel((3, 3)), expected)).max() <= 10


def test_a_white_lab_picture_is_white() -> None:
    picture = read_picture(encoded(solid("LAB", (255, 128, 128)), "TIFF"), "input_image")
    assert picture.mode == "RGB"
    assert np.asarray(picture).min() >= 253


@pytest.mark.parametrize(
    ("level", "expected"), [(0.0, 0), (0.25, 64), (0.5, 128), (1.0, 255)], ids=["black", "dark", "middle", "white"]
)
def test_floating_point_numbers_from_0_to_1_are_read(level: float, expected: int) -> None:
    image = solid("F", level)
    assert read_picture(encoded(image, "TIFF"), "x").getpixel((3, 3)) == (expected,) * 3
    if expected:
        assert read_mask(encoded(image, "TIFF"), "mask").getpixel((3, 3)) == expected


def test_16_bit_pictures_with_0_as_white_are_inverted() -> None:
    data = encoded(solid("I;16", 257 * 55), "TIFF")
    tag = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    assert data.count(tag) == 1
    inverted = data.replace(tag, struct.pack("<HHIHH", 262, 3, 1, 0, 0))
    assert read_picture(inverted, "x").getpixel((3, 3)) == (200, 200, 200)


def bare_png(bits: int, kind: int, row: bytes, key: bytes) -> bytes:
    """Return a PNG of 4 x 4 pixels with a transparent colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, bits, kind, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress((b"\0" + row) * 4))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"tRNS", key) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        bare_png(1, 0, bytes([0b01010000]), b"\0\1"),
        bare_png(2, 0, bytes([0b00010001]), b"\0\1"),
        bare_png(4, 0, bytes([0x05, 0x05]), b"\0\5"),
        bare_png(8, 0, bytes([9, 7, 9, 7]), b"\0\7"),
        bare_png(16, 0, struct.pack(">4H", 500, 501, 500, 501), struct.pack(">H", 501)),
        bare_png(8, 2, bytes([1, 2, 3, 1, 2, 4] * 2), struct.pack(">3H", 1, 2, 4)),
    ],
    ids=["1-bit", "2-bit", "4-bit", "8-bit", "16-bit", "rgb"],
)
def test_a_transparent_colour_is_transparent_at_every_depth(data: bytes) -> None:
    alpha = decode_picture(data, "x").image.getchannel("A")
    assert [alpha.getpixel((x, 2)) for x in range(4)] == [255, 0, 255, 0]


@pytest.mark.parametrize(
    ("output", "message"),
    [("GIF", "an animation"), ("PNG", "an animation"), ("WEBP", "an animation"), ("TIFF", "a file of several pages")],
)
def test_only_the_first_picture_of_a_file_is_used_with_a_warning(output: str, message: str) -> None:
    one, other = solid("RGB", RED), solid("RGB", (0, 90, 0))
    data = encoded(one, output, save_all=True, append_images=[other, one], lossless=True)
    warnings: list[str] = []
    assert read_picture(data, "input_image", warnings).getpixel((3, 3)) == RED
    assert warnings == [f"input_image is {message}: only its first picture is used"]
    problems: list[str] = []
    read_mask(data, "mask", problems)
    assert f"mask is {message}: only its first picture is used" in problems
    alone: list[str] = []
    read_picture(encoded(one, output), "input_image", alone)
    assert alone == []


def test_an_embedded_profile_is_applied_and_a_broken_one_ignored() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert read_picture(encoded(solid("RGB", RED), icc_profile=lab), "x").getpixel((0, 0)) == RED
    assert read_picture(encoded(solid("RGB", RED), icc_profile=b"broken"), "x").getpixel((0, 0)) == RED


def test_the_second_picture_in_the_jpeg_of_a_phone_is_ignored() -> None:
    data = encoded(solid("RGB", RED), "MPO", save_all=True, append_images=[solid("RGB", (0, 0, 0))])
    warnings: list[str] = []
    assert np.abs(np.subtract(read_picture(data, "input_image", warnings).getpixel((0, 0)), RED)).max() <= 6
    # The second picture is only for HDR screens.
    assert warnings == []


def test_lost_transparency_is_a_warning() -> None:
    image = solid("RGBA", (*RED, 255), (20, 10))
    image.paste((0, 0, 0, 0), (0, 0, 5, 10))
    warnings: list[str] = []
    assert read_picture(encoded(image), "image", warnings).getpixel((2, 2)) == (255, 255, 255)
    assert read_picture(encoded(image), "image", backdrop="black").getpixel((2, 2)) == (0, 0, 0)
    assert warnings == ["image is transparent (25.0% of it): those parts are taken as white"]
    opaque: list[str] = []
    read_picture(encoded(solid("RGBA", (*RED, 255))), "image", opaque)
    assert opaque == []


def test_pictures_higher_than_a_band_are_converted_whole() -> None:
    ramp = Image.linear_gradient("L").resize((3, 700))
    palette = Image.merge("RGB", [ramp, ramp.transpose(Image.Transpose.FLIP_TOP_BOTTOM), ramp]).quantize(256)
    deep = Image.fromarray(np.asarray(ramp).astype(np.uint16) * 257)
    for image, expected in ((palette, palette.convert("RGB")), (deep, ramp.convert("RGB"))):
        assert np.array_equal(np.asarray(read_picture(encoded(image), "x")), np.asarray(expected))


def huge_png() -> bytes:
    """Return a PNG whose header has a size of 10000 x 8000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 10000, 8000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


NOISE = Image.effect_noise((64, 64), 90).convert("RGB")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "can be read"),
        (b"hello", "can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "can be read"),
        (encoded(NOISE)[:3000], "damaged or cut short"),
        (encoded(NOISE, "JPEG")[:900], "damaged or cut short"),
        (encoded(NOISE, "WEBP")[:900], "can be read|damaged or cut short"),
        (encoded(NOISE).replace(b"IDAT", b"IDAX"), "can be read|damaged or cut short"),
        (huge_png(), "10000x8000 pixels, more than 64 megapixels"),
        (encoded(Image.new("F", (4, 4), 1.5), "TIFF"), "floating-point numbers from 1.5 to 1.5"),
        (encoded(Image.new("F", (4, 4), -0.1), "TIFF"), "floating-point"),
        (encoded(Image.new("F", (4, 4), float("nan")), "TIFF"), "floating-point"),
        (encoded(Image.new("F", (4, 4), float("inf")), "TIFF"), "floating-point"),
        (encoded(Image.new("I", (4, 4), 200), "TIFF"), "32-bit or signed integers"),
        (encoded(Image.new("I", (4, 4), -1), "TIFF"), "32-bit or signed integers"),
    ],
)
def test_an_unusable_file_is_refused_with_the_reason(data: bytes, message: str) -> None:
    with pytest.raises(InvalidPicture, match=message) as refused:
        read_picture(data, "input_image")
    assert refused.value.field == "input_image"
    assert refused.value.hint


def test_every_form_of_base64_is_decoded() -> None:
    data = bytes(range(256))
    text = base64.b64encode(data).decode()
    for form in (
        text,
        text.rstrip("="),
        "\n".join(text[i : i + 40] for i in range(0, len(text), 40)),
        base64.urlsafe_b64encode(data).decode(),
        f"data:image/png;base64,{text}",
        f"data:application/octet-stream;charset=x;base64,{text}",
        f"DATA:;BASE64,{text}",
    ):
        assert decode_base64(form, "mask") == data


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("http://example.org/a.png", "not fetched"),
        ("C:\\pictures\\a.png", "not fetched"),
        ("cat.png", "not fetched"),
        ("data:image/png,abc", "base64"),
        ("data:image/png;base64,", "data URL"),
        ("§§§", "data URL"),
    ],
)
def test_text_that_is_not_base64_is_refused_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(InvalidPicture) as refused:
        decode_base64(text, "mask")
    assert hint in str(refused.value.hint)


@pytest.mark.parametrize(
    ("image", "inside", "outside"),
    [
        (Image.new("L", (8, 8), 0), 255, 0),
        (Image.new("RGB", (8, 8), (0, 0, 0)), (255, 255, 255), 0),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 0)), (255, 255, 255, 255), 0),
        (Image.new("1", (8, 8), 0), 1, 0),
    ],
)
def test_white_is_repainted_in_a_mask_of_any_mode(image: Image.Image, inside: object, outside: int) -> None:
    image.paste(inside, (2, 2, 6, 6))  # type: ignore[arg-type]
    mask = read_mask(encoded(image), "mask")
    assert mask.mode == "L"
    assert mask.getpixel((4, 4)) == 255
    assert mask.getpixel((0, 0)) == outside


def test_a_mask_without_white_is_refused() -> None:
    with pytest.raises(InvalidPicture, match="nothing would be repainted"):
        read_mask(encoded(Image.new("L", (8, 8), 0)), "mask")


def test_equal_pictures_have_equal_names() -> None:
    assert Picture(b"a", 8, 8).name == Picture(b"a", 8, 8).name != Picture(b"b", 8, 8).name


def test_a_png_is_converted_unless_png_is_requested() -> None:
    png = encoded(NOISE)
    assert convert_png(png, "png").content is png
    for output in ("webp", "jpeg"):
        with Image.open(io.BytesIO(convert_png(png, output).content)) as picture:  # type: ignore[arg-type]
            assert picture.format == output.upper()
            assert picture.size == NOISE.size


def test_webp_keeps_transparency_and_jpeg_makes_it_white() -> None:
    png = encoded(solid("RGBA", (0, 0, 0, 0)))
    with Image.open(io.BytesIO(convert_png(png, "webp").content)) as picture:
        assert picture.getpixel((3, 3))[3] == 0  # type: ignore[index]
    with Image.open(io.BytesIO(convert_png(png, "jpeg").content)) as picture:
        assert min(picture.getpixel((3, 3))) >= 250  # type: ignore[type-var,arg-type]


def erased(picture: Image.Image) -> bytes:
    """Return the picture with a transparent square in its middle."""
    copy = picture.convert("RGBA")
    copy.paste((0, 0, 0, 0), (16, 16, 48, 48))
    return encoded(copy)


def test_the_transparent_part_of_a_picture_is_the_mask_with_a_warning() -> None:
    warnings: list[str] = []
    photo = Image.merge("RGB", [Image.linear_gradient("L").rotate(at).resize((64, 64)) for at in (0, 90, 180)])
    plain = Image.new("RGB", (64, 64), RED)
    grey = NOISE.convert("L").resize((64, 64))
    for data, source in ((erased(photo), None), (erased(plain), plain), (erased(grey), grey)):
        mask = read_mask(data, "mask", warnings, source=source)
        assert (mask.getpixel((32, 32)), mask.getpixel((2, 2))) == (255, 0)
        assert "read by its transparency" in warnings.pop()


def test_an_ambiguous_transparent_mask_is_refused() -> None:
    with pytest.raises(InvalidPicture, match="mask is ambiguous"):
        read_mask(erased(Image.new("RGB", (64, 64), RED)), "mask")
