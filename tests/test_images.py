"""Pictures and masks from outside: every mode, orientation and way to be broken."""

import base64
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms

from shared.errors import InvalidPicture
from shared.images import convert_png, decode_base64, read_mask, read_picture
from shared.schema.units import Picture
from tests.house import encoded

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
def test_lossy_formats_come_close(output: str, mode: str) -> None:
    picture = read_picture(encoded(solid("RGB", RED).convert(mode), output, quality=95), "input_image")
    expected = solid("RGB", RED).convert(mode).convert("RGB").getpixel((3, 3))
    assert np.abs(np.subtract(picture.getpixel((3, 3)), expected)).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_tag_is_applied(orientation: int) -> None:
    upright = Image.fromarray(np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3))
    # What a camera stores so that the tag, applied, gives the upright picture.
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


def test_of_an_animation_the_first_frame_is_taken() -> None:
    data = encoded(solid("RGB", RED), "GIF", save_all=True, append_images=[solid("RGB", (0, 0, 0))])
    assert read_picture(data, "input_image").getpixel((0, 0)) == RED


def test_an_embedded_profile_is_applied_and_a_broken_one_ignored() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert read_picture(encoded(solid("RGB", RED), icc_profile=lab), "x").getpixel((0, 0)) == RED
    assert read_picture(encoded(solid("RGB", RED), icc_profile=b"broken"), "x").getpixel((0, 0)) == RED


def test_the_two_pictures_in_one_jpeg_of_a_phone() -> None:
    data = encoded(solid("RGB", RED), "MPO", save_all=True, append_images=[solid("RGB", (0, 0, 0))])
    assert np.abs(np.subtract(read_picture(data, "input_image").getpixel((0, 0)), RED)).max() <= 6


def huge_png() -> bytes:
    """A PNG that says it has 10000 x 8000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 10000, 8000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


NOISE = Image.effect_noise((64, 64), 90).convert("RGB")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "can be read"),
        (b"hello", "can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "can be read"),
        (encoded(NOISE)[:3000], "damaged or cut short"),
        (encoded(NOISE, "JPEG")[:900], "damaged or cut short"),
        (encoded(NOISE, "WEBP")[:900], "can be read|damaged or cut short"),
        (encoded(NOISE).replace(b"IDAT", b"IDAX"), "can be read|damaged or cut short"),
        (huge_png(), "10000x8000 pixels, more than 64 megapixels"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "floating-point"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(data: bytes, says: str) -> None:
    with pytest.raises(InvalidPicture, match=says) as refused:
        read_picture(data, "input_image")
    assert refused.value.field == "input_image"
    assert refused.value.hint


def test_base64_in_all_its_forms() -> None:
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
def test_text_that_is_no_base64_is_refused_with_a_hint(text: str, hint: str) -> None:
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


def test_a_png_converts_and_png_stays_as_it_is() -> None:
    png = encoded(NOISE)
    assert convert_png(png, "png") is png
    for output in ("webp", "jpeg"):
        with Image.open(io.BytesIO(convert_png(png, output))) as picture:  # type: ignore[arg-type]
            assert picture.format == output.upper()
            assert picture.size == NOISE.size
