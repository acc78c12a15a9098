"""A soft mask has the same levels at the same position in every file format and at every size."""

import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from shared.images.masks import read_mask
from shared.schema.request import Img2ImgRequest
from tests.parsing import picture
from tests.profiles import swapped_rgb
from tests.stack import encoded, open_rgb
from tests.test_colours import chunk, gamma, with_chunks

SIZE = (96, 64)


def soft(size: tuple[int, int] = SIZE) -> Image.Image:
    """A soft spot, off centre, so that rotation and mirroring change it."""
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    distance = np.hypot((x / size[0] - 0.3) * 2.6, (y / size[1] - 0.4) * 2.2)
    return Image.fromarray(np.clip(255 * (1.35 - distance), 0, 255).astype(np.uint8))


MASK = soft()


def numbers(image: Image.Image) -> "np.ndarray[Any, Any]":
    return np.asarray(image).astype(int)


def white(mask: Image.Image, mode: str) -> Image.Image:
    """A white image with the mask as its alpha channel."""
    image = Image.new(mode, mask.size, (255,) * len(mode))
    image.putalpha(mask)
    return image


def palette(mask: Image.Image) -> Image.Image:
    """The mask as a palette image with a shuffled palette."""
    order = [(level * 77 + 5) % 256 for level in range(256)]
    image = Image.frombytes("P", mask.size, bytes(order.index(level) for level in mask.tobytes()))
    image.putpalette([level for level in order for _ in range(3)])
    return image


def deep(mask: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(mask).astype(np.uint16) * 257)


def exif_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


LEVELS = {
    "grey": encoded(MASK),
    "colours": encoded(MASK.convert("RGB")),
    "opaque": encoded(MASK.convert("RGBA")),
    "grey and opaque": encoded(MASK.convert("LA")),
    "palette": encoded(palette(MASK)),
    "palette, GIF": encoded(palette(MASK), "GIF"),
    "16 bits": encoded(deep(MASK)),
    "16 bits, TIFF": encoded(deep(MASK), "TIFF"),
    "float": encoded(Image.fromarray(np.asarray(MASK).astype(np.float32) / 255), "TIFF"),
    "BMP": encoded(MASK, "BMP"),
    "lossless WebP": encoded(MASK, "WEBP", lossless=True),
    "CMYK": encoded(Image.merge("CMYK", [Image.new("L", SIZE)] * 3 + [ImageOps.invert(MASK)]), "TIFF"),
    "with a profile": encoded(MASK.convert("RGB"), icc_profile=swapped_rgb()),
    "with a gamma": with_chunks(encoded(MASK), gamma(1.0)),
    "white paint": encoded(white(MASK, "RGB")),
    "white paint, grey": encoded(white(MASK, "L")),
    "turned": encoded(MASK.transpose(Image.Transpose.ROTATE_90), exif=exif_orientation(6)),
    "mirrored": encoded(MASK.transpose(Image.Transpose.FLIP_LEFT_RIGHT), exif=exif_orientation(2)),
    "turned, TIFF": encoded(MASK.transpose(Image.Transpose.ROTATE_90), "TIFF", tiffinfo={274: 6}),
    "turned, 16 bits": encoded(deep(MASK.transpose(Image.Transpose.ROTATE_90)), exif=exif_orientation(6)),
}
LOSSY = {
    "JPEG": encoded(MASK, "JPEG", quality=95),
    "JPEG in colours": encoded(MASK.convert("RGB"), "JPEG", quality=95),
    "WebP": encoded(MASK.convert("RGB"), "WEBP", quality=95),
    "turned JPEG": encoded(MASK.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif_orientation(6)),
}


@pytest.mark.parametrize("file_format", LEVELS)
def test_every_format_has_the_same_levels(file_format: str) -> None:
    mask = read_mask(LEVELS[file_format], "mask")
    assert (mask.mode, mask.size) == ("L", SIZE)
    assert abs(numbers(mask) - numbers(MASK)).max() <= 1


@pytest.mark.parametrize("file_format", LOSSY)
def test_lossy_compression_changes_the_levels_only_slightly(file_format: str) -> None:
    # Levels are stretched, so that black and white are restored.
    assert abs(numbers(read_mask(LOSSY[file_format], "mask")) - numbers(MASK)).max() <= 24


@pytest.mark.parametrize("file_format", LEVELS)
def test_every_format_can_be_inverted(file_format: str) -> None:
    mask = read_mask(LEVELS[file_format], "mask", invert=True)
    assert abs(numbers(mask) - 255 + numbers(MASK)).max() <= 1


def test_a_transparent_palette_and_a_transparent_16_bit_level_are_read() -> None:
    """Transparent pixels count as black."""
    image = palette(MASK)
    alpha = bytes(level for level in (image.getpalette() or [])[::3])
    image.putpalette([255] * 768)
    mask = read_mask(encoded(image, transparency=alpha), "mask")
    assert abs(numbers(mask) - numbers(MASK)).max() <= 1
    hard = MASK.point([255 if level > 100 else 0 for level in range(256)])
    key = with_chunks(encoded(deep(hard)), chunk(b"tRNS", struct.pack(">H", 0)))
    assert (numbers(read_mask(key, "mask")) == numbers(hard)).all()


def test_levels_are_multiplied_by_alpha() -> None:
    """A white half and a black half that both fade out: transparent pixels are not repainted."""
    halves = Image.new("L", SIZE, 255)
    halves.paste(0, (SIZE[0] // 2, 0, SIZE[0], SIZE[1]))
    image = Image.merge("LA", [halves, MASK])
    expected = numbers(MASK)
    expected[:, SIZE[0] // 2 :] = 0
    assert abs(numbers(read_mask(encoded(image), "mask")) - expected).max() <= 1


def source_and_blend(request: Img2ImgRequest) -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
    """The levels of the source and of its blend mask, within the visible area."""
    assert request.inpainting is not None
    visible = []
    for shown in (request.source, request.inpainting.blend):
        levels = open_rgb(shown.png).convert("L").crop((0, 0, *shown.size))
        visible.append(levels if levels.size == request.source.size else levels.resize(request.source.size))
    return numbers(visible[0]), numbers(visible[1])


SIZES: list[dict[str, Any]] = [
    {},
    {"width": 192, "height": 128},
    {"width": 96, "height": 96, "resize_mode": "just_resize"},
    {"width": 96, "height": 96, "resize_mode": "crop_and_resize"},
    {"width": 96, "height": 96, "resize_mode": "fill"},
    {"width": 77, "height": 91, "resize_mode": "crop_and_resize"},
    {"width": 51, "height": 33},
    {"width": 40},
    {"width": 192, "height": 128, "only_masked": True, "only_masked_padding": 4},
    {"width": 64, "height": 64, "only_masked": True, "only_masked_padding": 4},
]


@pytest.mark.parametrize("values", SIZES, ids=str)
@pytest.mark.parametrize("factor", [0.5, 1, 3.25])
def test_the_mask_stays_aligned_with_its_picture(values: dict[str, Any], factor: float) -> None:
    """The picture is its own mask, so both must have the same levels at every size."""
    size = (round(SIZE[0] * factor), round(SIZE[1] * factor))
    files = {"image": encoded(MASK.convert("RGB")), "mask": encoded(soft(size))}
    source, blend = source_and_blend(picture(files, **values))
    assert source.shape == blend.shape
    if values.get("resize_mode") == "fill":
        # The added area repeats the picture's edges and is not repainted.
        source, blend = source[:, 16:-16], blend[:, 16:-16]
        source, blend = source[20:-20], blend[20:-20]
    # The steepest part of the spot falls by 7 levels a pixel: an offset of half a pixel fails the test.
    steep = max(abs(np.diff(source, axis=0)).max(), abs(np.diff(source, axis=1)).max())
    assert abs(source - blend).mean() <= 1.5
    assert np.percentile(abs(source - blend), 99) <= 3 + 0.5 * steep


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_pictures_and_masks_are_aligned(orientation: int) -> None:
    stored = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    image = MASK if stored is None else MASK.transpose(stored)
    turned_picture = encoded(image.convert("RGB"), "JPEG", quality=100, exif=exif_orientation(orientation))
    turned_mask = encoded(image, exif=exif_orientation(orientation))
    upright = encoded(MASK)
    for files in (
        {"image": turned_picture, "mask": upright},
        {"image": encoded(MASK.convert("RGB")), "mask": turned_mask},
        {"image": turned_picture, "mask": turned_mask},
    ):
        source, blend = source_and_blend(picture(files))
        assert abs(source - blend).max() <= 6


@pytest.mark.parametrize(
    "pixels", [(16, 0, 0, 0), (0, 9, 0, 0), (0, 0, 13, 0), (0, 0, 0, 16), (7, 8, 9, 10), (8, 0, 8, 0)]
)
def test_outpainting_keeps_the_position_of_the_mask_and_fades_inwards(pixels: tuple[int, int, int, int]) -> None:
    names = ("outpaint_left", "outpaint_top", "outpaint_right", "outpaint_bottom")
    values = {name: count for name, count in zip(names, pixels, strict=True) if count}
    request = picture({"image": encoded(MASK.convert("RGB")), "mask": encoded(MASK)}, **values, outpaint_feathering=12)
    source, blend = source_and_blend(request)
    left, top, right, bottom = pixels
    inner = (slice(top, source.shape[0] - bottom), slice(left, source.shape[1] - right))
    assert (source[inner] == numbers(MASK)).all()
    # The brighter of mask and fade applies; the added area is repainted in full.
    assert (blend[inner] >= numbers(MASK)).all()
    outside = np.ones_like(blend, dtype=bool)
    outside[inner] = False
    assert (blend[outside] == 255).all()
    expected = numbers(MASK)[12 if top else 0 : -12 if bottom else None, 12 if left else 0 : -12 if right else None]
    blended = blend[inner][12 if top else 0 : -12 if bottom else None, 12 if left else 0 : -12 if right else None]
    assert (blended == expected).all()


def test_a_blurred_mask_fades_symmetrically() -> None:
    hard = Image.new("L", (128, 64))
    hard.paste(255, (64, 0, 128, 64))
    plain = Image.new("RGB", hard.size, "blue")
    for values in ({}, {"only_masked": True, "width": 128, "height": 64, "only_masked_padding": 64}):
        request = picture({"image": encoded(plain), "mask": encoded(hard)}, mask_blur=16, **values)
        assert request.inpainting is not None
        row = numbers(open_rgb(request.inpainting.blend.png).convert("L"))[32]
        middle = len(row) - 64
        assert abs(row[middle - 1] + row[middle] - 255) <= 2
        assert all(abs(row[middle - 1 - offset] + row[middle + offset] - 255) <= 2 for offset in range(40))
