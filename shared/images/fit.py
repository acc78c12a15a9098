"""Pictures and masks brought to the size and shape that a graph needs. Pure.

All take and give 8-bit RGB pictures and 8-bit grey masks; sizes are (width, height) in pixels. `as_picture`,
`as_mask` and `as_latent_mask` make of them what the engine reads.
"""

import io
import itertools

from PIL import Image, ImageChops, ImageFilter, ImageOps, ImageStat

from shared.schema.body import ResizeMode
from shared.schema.units import LATENT_CELL, MAX_SIDE, MIN_SIDE, Picture, aligned

Size = tuple[int, int]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels."""
# Pixels over which colours go on beneath full transparency: more than filters reach when a picture is enlarged.
SPREAD = 5
# Pixels a side of the parts in which that is done.
TILE = 128


def choose_size(source: Size, width: int | None, height: int | None, usual_pixels: int) -> Size:
    """Width and height in pixels of the result for a source of the given size.

    Both asked for: those. One: the other follows the source's proportions. None: the source's own size, but no more
    than about `usual_pixels`, which the model is made for. Sides stay within 16 to 4096.
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
    """A picture at exactly `size`: stretched, cut to the proportions from its middle, or filled up with its edges."""
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
    """More room at the left, top, right and bottom: a picture's edges repeated, a mask black."""
    left, top, right, bottom = pixels
    width, height = image.size
    room = Image.new(image.mode, (left + width + right, top + height + bottom))
    room.paste(image, (left, top))
    if image.mode == "L":
        return room
    if left:
        room.paste(image.crop((0, 0, 1, height)).resize((left, height)), (0, top))
    if right:
        room.paste(image.crop((width - 1, 0, width, height)).resize((right, height)), (left + width, top))
    if top:
        room.paste(room.crop((0, top, room.width, top + 1)).resize((room.width, top)), (0, 0))
    if bottom:
        row = room.crop((0, top + height - 1, room.width, top + height))
        room.paste(row.resize((room.width, bottom)), (0, top + height))
    return room


def blur(mask: Image.Image, pixels: int) -> Image.Image:
    """A mask whose edges fade over about `pixels` to each side; farther off it is exactly what it was."""
    return mask.filter(ImageFilter.GaussianBlur(pixels / 2)) if pixels else mask


def outpaint_mask(size: Size, pixels: Box, feathering: int) -> Image.Image:
    """The mask for a picture of `size` that grows by `pixels`: white where it grew, fading over `feathering` inside."""
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
    """The part of a picture that holds all of its mask and `padding` around it, of the given proportions if the
    picture is large enough for that."""
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
    """A picture as the engine reads it exactly; its edges repeated up to multiples of 8 pixels, unless not `align`."""
    return _as_png(extend(image, _to_alignment(image.size)) if align else image, image.size)


def as_upscale_source(image: Image.Image) -> Picture:
    """A picture (RGB or RGBA) to be enlarged as a picture: nothing of it goes through an autoencoder, so its sides may
    be any, and its transparency stays."""
    return as_picture(spread_colours(image) if image.mode == "RGBA" else image, align=False)


def spread_colours(image: Image.Image) -> Image.Image:
    """An RGBA picture whose fully transparent pixels have the colours of the visible pixels around them.

    Upscale mixes neighbours, and what programs leave under full transparency (mostly black) would show at the edges.
    Visible pixels stay as they are; farther than SPREAD pixels from all of them, their mean colour stands.
    """
    alpha = image.getchannel("A")
    visible = alpha.point(_touched)
    if visible.getextrema()[0] == 255 or visible.getbbox() is None:
        return image
    mean = tuple(round(level) for level in ImageStat.Stat(image, visible).mean[:3])
    width, height = image.size
    result = Image.new("RGB", image.size, mean)
    # By tiles, for most of them hold no edge.
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
    """A picture whose alpha is 0 or 255, grown by SPREAD pixels: each new one is the mean of its neighbours."""
    if image.getchannel("A").getextrema() in ((0, 0), (255, 255)):
        return image
    for _ in range(SPREAD):
        grown = image.convert("RGBa").filter(ImageFilter.BoxBlur(1)).convert("RGBA")
        grown.putalpha(grown.getchannel("A").point(_touched))
        grown.paste(image, mask=image.getchannel("A"))
        image = grown
    return image


def as_mask(mask: Image.Image, *, align: bool = True) -> Picture:
    """A mask as the engine reads it exactly: an RGB PNG, black up to multiples of 8 pixels, unless not `align`."""
    padded = extend(mask, _to_alignment(mask.size)) if align else mask
    return _as_png(padded.convert("RGB"), mask.size)


def as_cutout(image: Image.Image, mask: Image.Image, *, align: bool = True) -> Picture:
    """A picture that is transparent where its mask is white: LoadImage's MASK is then the mask, with its greys."""
    cut = image.convert("RGBA")
    cut.putalpha(ImageOps.invert(mask))
    return as_picture(cut, align=align)


def as_latent_mask(blend: Image.Image) -> Picture:
    """The mask of what must be drawn anew for `blend` (8-bit grey) to have a result to show wherever it is above 0.

    All black or white: white are the latent cells (8 x 8 pixels) that hold a pixel above 0. The engine rounds masks
    where it greys a hole, and reads them at the middle of each cell; a mask of whole cells loses nothing to either.
    """
    padded = extend(blend, _to_alignment(blend.size)).point(_touched)
    cells = padded.reduce(LATENT_CELL).point(_touched)
    return _as_png(cells.resize(padded.size, Image.Resampling.NEAREST).convert("RGB"), blend.size)


def _touched(level: int) -> int:
    return 255 if level else 0


def _resampling(image: Image.Image) -> Image.Resampling:
    # Lanczos overshoots at hard edges, which a picture can bear and a mask cannot.
    return Image.Resampling.BILINEAR if image.mode == "L" else Image.Resampling.LANCZOS


def _fade(at: int, length: int, before: bool, after: bool, feathering: int) -> int:
    """How white the mask is at one place of a row, counted from the sides that grow."""
    distance = min(at if before else length, length - 1 - at if after else length)
    return 0 if distance >= feathering else round(255 * (1 - (distance + 1) / (feathering + 1)))


def _to_alignment(size: Size) -> Box:
    width, height = aligned(size)
    return 0, 0, width - size[0], height - size[1]


def _as_png(image: Image.Image, visible: Size) -> Picture:
    buffer = io.BytesIO()
    # Level 1: the engine reads it once on the same machine, so speed counts and size does not.
    image.save(buffer, "PNG", compress_level=1)
    return Picture(buffer.getvalue(), *visible)
