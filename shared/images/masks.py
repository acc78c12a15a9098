"""Bytes from outside become masks: white = repaint, black = keep, grey = blend.

A mask tells by its levels or by its transparency, and programs differ in which. Levels count, unless what is opaque can
be no mask: then somebody erased what is to be repainted, as for ComfyUI's LoadImage. What may mean either is refused.
"""

from PIL import Image, ImageChops, ImageOps, ImageStat

from shared.errors import InvalidPicture
from shared.images.budget import MemoryBudget
from shared.images.decode import DecodedPicture, decode_picture, flatten, frame_warnings, is_transparent

# Levels of alpha from which a pixel counts as painted.
PAINTED = 16
# The largest difference of a pixel's channels, from 0 to 255, that is no colour yet.
COLOURLESS = 24
# Parts of all painted pixels: above it they are coloured; above it they are black or white, as those of masks.
COLOURED, BLACK_OR_WHITE = 0.02, 0.9
DARK, LIGHT = 32, 223
# Standard deviation of levels below which a picture is of one colour.
PLAIN = 4
# Pictures are compared at this size (pixels a side), and are the same if their levels differ by less, on average.
SKETCH, SAME = 32, 8
# Levels by which compression may change black and white.
NOISE = 16
WITHOUT_NOISE = [min(max(round((level - NOISE) * 255 / (255 - 2 * NOISE)), 0), 255) for level in range(256)]


def read_mask(
    data: bytes,
    field: str,
    warnings: list[str] | None = None,
    *,
    invert: bool = False,
    source: Image.Image | None = None,
    budget: MemoryBudget | None = None,
) -> Image.Image:
    """The mask as upright 8-bit grey. `source` is the picture that it is for, if that is known.

    With `invert`, what would stay is repainted, and the other way round. How it was read is added to `warnings` where
    that is not plain. Raises InvalidPicture, also for a mask that may mean either, or with nothing to repaint.
    """
    decoded = decode_picture(data, field, colours=False, budget=budget)
    if is_transparent(decoded.image):
        mask, note = _by_transparency(decoded.image, field, source)
    else:
        mask = decoded.image if decoded.image.mode == "L" else decoded.image.convert("L")
        note = _about_levels(decoded, field, source)
    if warnings is not None:
        warnings += [*frame_warnings(decoded, field), *([note] if note else [])]
    if decoded.lossy:
        mask = mask.point(WITHOUT_NOISE)
    if invert:
        mask = ImageOps.invert(mask)
    if is_empty(mask):
        colour, other = ("black", "white") if invert else ("white", "black")
        raise InvalidPicture(
            f"{field} has no {colour} in it, so nothing would be repainted",
            field=field,
            hint=f"paint {colour} where the picture is to change, and leave the rest {other}",
        )
    if budget is not None and mask is not decoded.image:
        budget.hold(mask, mask.width * mask.height)
    return mask


def is_empty(mask: Image.Image) -> bool:
    """Whether a mask (8-bit grey) is black all over."""
    return mask.getbbox() is None


def _by_transparency(image: Image.Image, field: str, source: Image.Image | None) -> tuple[Image.Image, str | None]:
    """The mask in a picture that is transparent somewhere, and how it was read."""
    alpha = image.getchannel("A")
    painted = alpha.point([255 if level >= PAINTED else 0 for level in range(256)])
    if is_empty(painted):
        return Image.new("L", image.size), None
    dark, light = _dark_and_light(image, painted)
    plain = max(ImageStat.Stat(image.convert("RGB"), painted).stddev) < PLAIN
    coloured = _is_coloured(image, painted)
    like_a_mask = not coloured and dark + light >= BLACK_OR_WHITE
    erased = (source is not None and not (like_a_mask and plain) and _is_same(image, source)) or (
        coloured and not plain
    )
    if erased:
        note = (
            f"{field} was read by its transparency, for what is opaque is a picture: the transparent part is repainted"
        )
        return ImageOps.invert(alpha), note
    if like_a_mask and light == 0:
        note = f"{field} has no white: its transparent part is repainted, and what is opaque and black stays"
        return ImageOps.invert(alpha), note
    if like_a_mask:
        note = f"{field} is transparent in parts: those stay, and what is white is repainted"
        return flatten(image, "black").convert("L"), note
    raise InvalidPicture(
        f"{field} is transparent in parts, and neither black nor white elsewhere, so that it may mean either",
        field=field,
        hint="send white where the picture is to change, on black and without transparency; or the source itself with "
        "that part erased",
    )


def _about_levels(decoded: DecodedPicture, field: str, source: Image.Image | None) -> str | None:
    image = decoded.image
    if image.mode not in ("RGB", "RGBA"):
        return None
    everywhere = Image.new("L", image.size, 255)
    if source is not None and sum(_dark_and_light(image, everywhere)) < BLACK_OR_WHITE and _is_same(image, source):
        return f"{field} is the same picture as the source: how bright it is tells how much is repainted"
    if _is_coloured(image, everywhere):
        return f"{field} has colours: how bright they are tells how much is repainted"
    return None


def _dark_and_light(image: Image.Image, painted: Image.Image) -> tuple[float, float]:
    """The parts of the painted pixels that are nearly black, and nearly white."""
    levels = image.convert("L").histogram(painted)
    count = sum(levels)
    return sum(levels[:DARK]) / count, sum(levels[LIGHT + 1 :]) / count


def _is_coloured(image: Image.Image, painted: Image.Image) -> bool:
    if image.mode in ("L", "LA"):
        return False
    red, green, blue = image.convert("RGB").split()
    highest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    lowest = ImageChops.darker(ImageChops.darker(red, green), blue)
    spread = ImageChops.subtract(highest, lowest).histogram(painted)
    return sum(spread[COLOURLESS + 1 :]) > COLOURED * sum(spread)


def _is_same(image: Image.Image, source: Image.Image) -> bool:
    """Whether what is opaque of a picture looks like the source at the same place."""
    if abs(image.width * source.height - source.width * image.height) > 0.02 * image.width * source.height:
        return False
    sketch = image.convert("RGBA").resize((SKETCH, SKETCH), Image.Resampling.BOX)
    opaque = sketch.getchannel("A").point([255 if level >= 250 else 0 for level in range(256)])
    if is_empty(opaque):
        return False
    apart = ImageChops.difference(
        sketch.convert("RGB"), source.convert("RGB").resize((SKETCH, SKETCH), Image.Resampling.BOX)
    )
    return max(ImageStat.Stat(apart, opaque).mean) < SAME
