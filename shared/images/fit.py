"""Brings pictures and masks to the size and shape that a graph needs. Pure.

All functions take and return 8-bit RGB pictures and 8-bit grey masks; sizes are (width, height) in pixels. The
functions `as_...` encode them for the engine.
"""

import io
import itertools

from PIL import Image, ImageChops, ImageFilter, ImageOps, ImageStat

from shared.schema.body import ResizeMode
from shared.schema.ranges import LATENT_CELL, MAX_SIDE, MIN_SIDE, Picture, aligned

Size = tuple[int, int]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels."""
# Pixels over which colours are spread below full transparency: more than the filters of upscalers reach.
SPREAD = 5
# Pixels a side of the tiles in which that is done.
TILE = 128


def choose_size(source: Size, width: int | None, height: int | None, usual_pixels: int) -> Size:
    """Return width and height in pixels of the result for a source of the given size.

    If both are requested, those. If one is, the other follows the source's proportions. If none is, the source's own
    size, but at most about `usual_pixels`, which the model is made for. Sides are limited to 16 to 4096.
    """
    source_width, source_height = source
    if width is not None and height is not None:
        return width, height
    if width is not None:
        scale = width / source_width
    elif height is not None:
        scale = height / source_height
    else:
        scale = min(1.0, (usual_pixels / (source_width * source_height)) ** 0.5)
    sides = (round(source_width * scale), round(source_height * scale))
    chosen = tuple(min(max(side, MIN_SIDE), MAX_SIDE) for side in sides)
    return width or chosen[0], height or chosen[1]


def fit(image: Image.Image, size: Size, mode: ResizeMode) -> Image.Image:
    """Resize to exactly `size`: by stretching, by cropping to the centre, or by repeating the edges."""
    if image.size == size:
        return image
    if mode == "just_resize":
        return image.resize(size, _resampling(image))
    if mode == "crop_and_resize":
        return ImageOps.fit(image, size, _resampling(image))
    inner = ImageOps.contain(image, size, _resampling(image))
    left, top = (size[0] - inner.width) // 2, (size[1] - inner.height) // 2
    return extend(inner, (left, top, size[0] - inner.width - left, size[1] - inner.height - top))


def extend(image: Image.Image, pixels: Box) -> Image.Image:
    """Add pixels at the left, top, right and bottom: repeated edges of a picture, black of a mask."""
    left, top, right, bottom = pixels
    width, height = image.size
    extended = Image.new(image.mode, (left + width + right, top + height + bottom))
    extended.paste(image, (left, top))
    if image.mode == "L":
        return extended
    if left:
        extended.paste(image.crop((0, 0, 1, height)).resize((left, height)), (0, top))
    if right:
        extended.paste(image.crop((width - 1, 0, width, height)).resize((right, height)), (left + width, top))
    if top:
        extended.paste(extended.crop((0, top, extended.width, top + 1)).resize((extended.width, top)), (0, 0))
    if bottom:
        row = extended.crop((0, top + height - 1, extended.width, top + height))
        extended.paste(row.resize((extended.width, bottom)), (0, top + height))
    return extended


def blur(mask: Image.Image, pixels: int) -> Image.Image:
    """Blur the edges of a mask over about `pixels` to each side; farther away it stays exactly the same."""
    return mask.filter(ImageFilter.GaussianBlur(pixels / 2)) if pixels else mask


def outpaint_mask(size: Size, pixels: Box, feathering: int) -> Image.Image:
    """Return the mask for a picture of `size` extended by `pixels`: white outside, fading over `feathering` inside."""
    left, top, right, bottom = pixels
    width, height = size
    mask = Image.new("L", (left + width + right, top + height + bottom), 255)
    inner = Image.new("L", size)
    for axis, (before, after) in enumerate(((left, right), (top, bottom))):
        length = size[axis]
        ramp = Image.new("L", (length, 1))
        ramp.putdata([_fade(at, length, before > 0, after > 0, feathering) for at in range(length)])
        ramp = ramp if axis == 0 else ramp.transpose(Image.Transpose.ROTATE_270)
        inner = ImageChops.lighter(inner, ramp.resize(size))
    mask.paste(inner, (left, top))
    return mask


def mask_region(mask: Image.Image, padding: int, proportions: Size) -> Box:
    """Return the box that contains the whole mask with `padding` around it.

    The box has the given proportions if the picture is large enough.
    """
    box = mask.getbbox() or (0, 0, *mask.size)
    sides = []
    target = proportions[0] / proportions[1]
    width = min(box[2] - box[0] + 2 * padding, mask.width)
    height = min(box[3] - box[1] + 2 * padding, mask.height)
    if width / height < target:
        width = min(max(width, round(height * target)), mask.width)
    else:
        height = min(max(height, round(width / target)), mask.height)
    for low, high, length, whole in ((box[0], box[2], width, mask.width), (box[1], box[3], height, mask.height)):
        start = min(max((low + high - length) // 2, 0), whole - length)
        sides.append((start, start + length))
    (left, right), (top, bottom) = sides
    return left, top, right, bottom


def as_picture(image: Image.Image, *, align: bool = True) -> Picture:
    """Encode a picture for the engine. `align` extends the sides to multiples of 8 by repeating the edges."""
    return _as_png(extend(image, _to_alignment(image.size)) if align else image, image.size)


def as_upscale_source(image: Image.Image) -> Picture:
    """Encode a picture (RGB or RGBA) for an upscaler, with its transparency.

    It does not pass through an autoencoder, so its sides need not be multiples of 8.
    """
    return as_picture(spread_colours(image) if image.mode == "RGBA" else image, align=False)


def spread_colours(image: Image.Image) -> Image.Image:
    """Give fully transparent pixels of an RGBA picture the colours of the visible pixels around them.

    Upscalers mix neighbours, so the colours below full transparency (mostly black) would show at the edges. Visible
    pixels stay the same. Pixels farther than SPREAD from all visible ones get the mean visible colour.
    """
    alpha = image.getchannel("A")
    visible = alpha.point(_touched)
    if visible.getextrema()[0] == 255 or visible.getbbox() is None:
        return image
    mean = tuple(round(level) for level in ImageStat.Stat(image, visible).mean[:3])
    width, height = image.size
    result = Image.new("RGB", image.size, mean)
    # In tiles, because most of them contain no edge.
    for top, left in itertools.product(range(0, height, TILE), range(0, width, TILE)):
        right, bottom = min(width, left + TILE), min(height, top + TILE)
        around = (max(0, left - SPREAD), max(0, top - SPREAD), min(width, right + SPREAD), min(height, bottom + SPREAD))
        part = image.crop(around)
        part.putalpha(visible.crop(around))
        part = _spread(part).crop((left - around[0], top - around[1], right - around[0], bottom - around[1]))
        result.paste(part, (left, top), part.getchannel("A"))
    result.putalpha(alpha)
    return result


def _spread(image: Image.Image) -> Image.Image:
    """Grow the opaque part of a picture with an alpha of 0 or 255 by SPREAD pixels, each the mean of its neighbours."""
    if image.getchannel("A").getextrema() in ((0, 0), (255, 255)):
        return image
    for _ in range(SPREAD):
        grown = image.convert("RGBa").filter(ImageFilter.BoxBlur(1)).convert("RGBA")
        grown.putalpha(grown.getchannel("A").point(_touched))
        grown.paste(image, mask=image.getchannel("A"))
        image = grown
    return image


def as_mask(mask: Image.Image, *, align: bool = True) -> Picture:
    """Encode a mask for the engine as an RGB PNG. `align` extends the sides to multiples of 8 with black."""
    padded = extend(mask, _to_alignment(mask.size)) if align else mask
    return _as_png(padded.convert("RGB"), mask.size)


def as_cutout(image: Image.Image, mask: Image.Image, *, align: bool = True) -> Picture:
    """Encode a picture that is transparent where its mask is white: LoadImage then returns the mask, with its greys."""
    cut = image.convert("RGBA")
    cut.putalpha(ImageOps.invert(mask))
    return as_picture(cut, align=align)


def as_latent_mask(blend: Image.Image) -> Picture:
    """Encode the mask of the latent cells to repaint, so that `blend` (8-bit grey) has a result wherever it is above 0.

    The mask is black and white: a cell (8 x 8 pixels) is white if any of its pixels is above 0. The engine rounds masks
    before it fills the masked area with grey, and samples them at the centre of each cell; whole cells survive both.
    """
    padded = extend(blend, _to_alignment(blend.size)).point(_touched)
    cells = padded.reduce(LATENT_CELL).point(_touched)
    return _as_png(cells.resize(padded.size, Image.Resampling.NEAREST).convert("RGB"), blend.size)


def _touched(level: int) -> int:
    return 255 if level else 0


def _resampling(image: Image.Image) -> Image.Resampling:
    # Lanczos overshoots at hard edges. That is harmless in pictures, but not in masks.
    return Image.Resampling.BILINEAR if image.mode == "L" else Image.Resampling.LANCZOS


def _fade(at: int, length: int, before: bool, after: bool, feathering: int) -> int:
    """Return the level (0 to 255) of the mask at one position of a row, by its distance from the extended sides."""
    distance = min(at if before else length, length - 1 - at if after else length)
    return 0 if distance >= feathering else round(255 * (1 - (distance + 1) / (feathering + 1)))


def _to_alignment(size: Size) -> Box:
    width, height = aligned(size)
    return 0, 0, width - size[0], height - size[1]


def _as_png(image: Image.Image, visible: Size) -> Picture:
    buffer = io.BytesIO()
    # Level 1: the engine reads the file once, so speed counts more than size.
    image.save(buffer, "PNG", compress_level=1)
    return Picture(buffer.getvalue(), *visible)
