"""Reads masks from clients: white = repaint, black = keep, grey = blend.

Programs store a mask in the levels of a picture or in its transparency. Levels count, unless the opaque part is a
picture: then the user erased the part to repaint, as for ComfyUI's LoadImage. An ambiguous mask is refused.
"""

from PIL import Image, ImageChops, ImageOps, ImageStat

from shared.errors import InvalidPicture
from shared.images.budget import MemoryBudget
from shared.images.decode import DecodedPicture, decode_picture, flatten, frame_warnings, is_transparent

# Lowest alpha level (0 to 255) of a painted pixel.
PAINTED = 16
# Largest difference (0 to 255) between the channels of a grey pixel.
COLOURLESS = 24
# Shares of the painted pixels: with more coloured ones the picture is coloured; with more black or white ones it looks
# like a mask.
COLOURED, BLACK_OR_WHITE = 0.02, 0.9
DARK, LIGHT = 32, 223
# Standard deviation of levels below which a picture has one plain colour.
PLAIN = 4
# Pictures are compared at SKETCH pixels a side, and are the same if their levels differ by less than SAME on average.
SKETCH, SAME = 32, 8
# Largest change of black and white by lossy compression, in levels.
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
    """Decode a mask to upright 8-bit grey. `source` is the picture that it belongs to, if known.

    `invert` swaps repaint and keep. Adds to `warnings` how the mask was read, if that is not obvious. Raises
    InvalidPicture, also for an ambiguous mask and for one with nothing to repaint.
    """
    decoded = decode_picture(data, field, colours=False, budget=budget)
    if is_transparent(decoded.image):
        mask, note = _read_transparent(decoded.image, field, source)
    else:
        mask = decoded.image if decoded.image.mode == "L" else decoded.image.convert("L")
        note = _explain_levels(decoded, field, source)
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
            hint=f"paint the part to change {colour} and the rest {other}",
        )
    if budget is not None and mask is not decoded.image:
        budget.hold(mask, mask.width * mask.height)
    return mask


def is_empty(mask: Image.Image) -> bool:
    """Whether a mask (8-bit grey) is completely black."""
    return mask.getbbox() is None


def _read_transparent(image: Image.Image, field: str, source: Image.Image | None) -> tuple[Image.Image, str | None]:
    """Read the mask from a picture with transparent parts; return it with a warning that says how it was read."""
    alpha = image.getchannel("A")
    painted = alpha.point([255 if level >= PAINTED else 0 for level in range(256)])
    if is_empty(painted):
        return Image.new("L", image.size), None
    dark, light = _dark_and_light(image, painted)
    is_plain = max(ImageStat.Stat(image.convert("RGB"), painted).stddev) < PLAIN
    is_coloured = _is_coloured(image, painted)
    is_like_mask = not is_coloured and dark + light >= BLACK_OR_WHITE
    is_erased_source = source is not None and not (is_like_mask and is_plain) and _is_same(image, source)
    if is_erased_source or (is_coloured and not is_plain):
        note = f"{field} was read by its transparency, because its opaque part is a picture: transparent is repainted"
        return ImageOps.invert(alpha), note
    if is_like_mask and light == 0:
        note = f"{field} has no white: its transparent part is repainted, and its black part is kept"
        return ImageOps.invert(alpha), note
    if is_like_mask:
        note = f"{field} has transparent parts: they are kept, and white is repainted"
        return flatten(image, "black").convert("L"), note
    raise InvalidPicture(
        f"{field} is ambiguous: it has transparent parts, and its opaque part is neither black nor white",
        field=field,
        hint="send a picture without transparency, white where the source is to change and black elsewhere; or send "
        "the source with that part erased",
    )


def _explain_levels(decoded: DecodedPicture, field: str, source: Image.Image | None) -> str | None:
    """Warn if an opaque mask is coloured or is the source itself."""
    image = decoded.image
    if image.mode not in ("RGB", "RGBA"):
        return None
    everywhere = Image.new("L", image.size, 255)
    if source is not None and sum(_dark_and_light(image, everywhere)) < BLACK_OR_WHITE and _is_same(image, source):
        return f"{field} is the same picture as the source: its brightness is used as the mask"
    if _is_coloured(image, everywhere):
        return f"{field} has colours: their brightness is used as the mask"
    return None


def _dark_and_light(image: Image.Image, painted: Image.Image) -> tuple[float, float]:
    """Return the shares of the painted pixels that are nearly black, and nearly white."""
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
    """Whether the opaque part of a picture looks like the source at the same place."""
    if abs(image.width * source.height - source.width * image.height) > 0.02 * image.width * source.height:
        return False
    sketch = image.convert("RGBA").resize((SKETCH, SKETCH), Image.Resampling.BOX)
    opaque = sketch.getchannel("A").point([255 if level >= 250 else 0 for level in range(256)])
    if is_empty(opaque):
        return False
    difference = ImageChops.difference(
        sketch.convert("RGB"), source.convert("RGB").resize((SKETCH, SKETCH), Image.Resampling.BOX)
    )
    return max(ImageStat.Stat(difference, opaque).mean) < SAME
