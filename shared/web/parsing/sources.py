"""The source of img2img and its mask, brought to the sizes in which the graph wants them."""

from dataclasses import dataclass, replace

from PIL import Image, ImageChops

from shared.errors import InvalidPicture, InvalidValue
from shared.images.decode import flatten, is_transparent, transparency_warnings
from shared.images.fit import (
    as_cutout,
    as_latent_mask,
    as_mask,
    as_picture,
    blur,
    choose_size,
    extend,
    fit,
    mask_region,
    outpaint_mask,
)
from shared.images.masks import is_empty
from shared.models.defaults import recommended_pixels
from shared.schema.body import Img2ImgBody, InpaintMode, ResizeMode
from shared.schema.request import Inpainting, Paste, Size
from shared.schema.units import MAX_SIDE, Picture, aligned
from shared.web.parsing.models import Chosen
from shared.web.parsing.pictures import SentPictures
from shared.web.parsing.validate import missing_picture

# Below this, a hole that VAEEncodeForInpaint greyed keeps visible grey.
FULL_REPAINT = 0.9
# The level from which a mask's brightest part looks repainted in full.
FULLY_REPAINTED = 250
OUTPAINT_FIELDS = ("outpaint_left", "outpaint_top", "outpaint_right", "outpaint_bottom")


@dataclass(frozen=True)
class Canvas:
    """What the first pass draws: of what `size`, and from how much noise (`denoise`, 0 to 1).

    `asked` is the size before anything was added to it. `whole` is that of the finished picture, where only a part of
    it is drawn. `enlarged` is the size that a second pass brings it to, where the model cannot draw that at once.
    `image` is the source at this size, for ControlNets without a picture of their own.
    """

    size: Size
    asked: Size
    denoise: float = 1.0
    image: Image.Image | None = None
    whole: Size | None = None
    enlarged: Size | None = None


@dataclass(frozen=True)
class AlphaUse:
    """What a graph of the client's own takes from transparency: `source` if it uses that of input_image, `mask` if the
    mask is placed as transparency, and `shared` if it becomes that of input_image."""

    source: bool = False
    mask: bool = False
    shared: bool = False


@dataclass(frozen=True)
class Source:
    """The picture to start from, and what is repainted of it; `names` stand for the pictures as they were sent.

    `painted` is the size in pixels of what is drawn anew: of the whole frame, or of as much as the mask lets through.
    """

    picture: Picture
    frame: Canvas
    inpainting: Inpainting | None
    names: dict[str, str]
    painted: Size


def drawn_small(source: Source, first: Size) -> Source:
    """A source without a mask, to be drawn in `first` pixels and then enlarged to its own size."""
    image = source.frame.image and fit(source.frame.image, first, "just_resize")
    picture = as_picture(image) if image else source.picture
    frame = replace(source.frame, size=first, image=image, enlarged=source.frame.size)
    return replace(source, picture=picture, frame=frame, painted=first)


def read_source(
    body: Img2ImgBody, chosen: Chosen, sent: SentPictures, warnings: list[str], *, custom: AlphaUse | None = None
) -> Source:
    """Source and mask; for a graph of the client's own (`custom`) in their own size, unless another was asked for.

    Raises InvalidPicture and InvalidValue.
    """
    found = sent.with_alpha("input_image", "image")
    if found is None:
        raise missing_picture(
            "input_image",
            sent.names,
            Img2ImgBody,
            "send input_image as a data URL or base64, or a form with a file named image",
        )
    sent_image, name = found
    image = flatten(sent_image, "white")
    names = {"input_image": name}
    mask: Image.Image | None = None
    found = sent.mask("mask", invert=body.invert_mask, source=image)
    if found is not None:
        mask, names["mask"] = found
        if _stretched(mask.size, image.size):
            warnings.append(
                f"mask has other proportions ({mask.width}x{mask.height}) than input_image and was stretched"
            )
        mask = fit(mask, image.size, "just_resize")
        warnings += _faint(mask)
    if custom is not None and custom.source and not (custom.shared and mask is not None):
        # Opaque or not, it goes into the graph as it is.
        image = sent_image
        if (custom.shared or mask is None) and not is_transparent(image):
            warnings.append(
                "custom_workflow takes its mask from the transparency of input_image, which has none: send a mask, or "
                "the picture with the part to repaint erased"
            )
    else:
        warnings += [
            f"{note}, and the result is opaque"
            + ("" if mask is not None else "; to repaint just that, send the same picture as mask too")
            for note in transparency_warnings(sent_image, "input_image", "white")
        ]
    mode = _mode(body, chosen, warnings)
    if custom or not body.only_masked:
        usual = image.width * image.height if custom else recommended_pixels(chosen.file)
        source = _whole(body, usual, image, mask, mode, names, warnings, custom=custom)
        if custom and aligned(source.frame.size) != source.frame.size:
            warnings.append(
                "LoadImage takes multiples of 8 pixels: of input_image, with "
                f"{'x'.join(map(str, source.frame.size))}, the edges are repeated"
            )
    elif mask is None:
        raise InvalidValue(
            "only_masked needs a mask", field="only_masked", hint="send a mask, or leave only_masked out"
        )
    else:
        source = _surroundings(body, chosen, image, mask, mode, names, warnings)
    warnings += _without_effect(body, masked=mask is not None, inpainting=source.inpainting)
    return source


def _whole(
    body: Img2ImgBody,
    usual: int,
    image: Image.Image,
    mask: Image.Image | None,
    mode: InpaintMode,
    names: dict[str, str],
    warnings: list[str],
    *,
    custom: AlphaUse | None,
) -> Source:
    """All of the source, with no more than about `usual` pixels if no size was asked for; and what is added to it."""
    size = choose_size(image.size, body.width, body.height, usual)
    if body.width is None and body.height is None and size != image.size:
        warnings.append(
            f"input_image has {image.width}x{image.height} pixels and was scaled to {size[0]}x{size[1]}; "
            "send width and height for another size"
        )
    if body.resize_mode == "just_resize" and _stretched(image.size, size):
        warnings.append(
            f"input_image was stretched from {image.width}x{image.height} to {size[0]}x{size[1]}; "
            "resize_mode crop_and_resize or fill keeps its proportions"
        )
    image = fit(image, size, body.resize_mode)
    mask = None if mask is None else _fit_mask(mask, size, body.resize_mode)
    blend = None if mask is None else blur(mask, body.mask_blur)

    asked = size
    pixels = (body.outpaint_left, body.outpaint_top, body.outpaint_right, body.outpaint_bottom)
    if any(pixels):
        added = outpaint_mask(size, pixels, body.outpaint_feathering)
        size = added.size
        if max(size) > MAX_SIDE:
            raise InvalidValue(
                f"the picture would grow to {size[0]}x{size[1]}, more than {MAX_SIDE} pixels a side",
                field=next(f for f, n in zip(OUTPAINT_FIELDS, pixels, strict=True) if n),
                hint="add less, or send a smaller width and height",
            )
        image = extend(image, pixels)
        mask = added if mask is None else ImageChops.lighter(extend(mask, pixels), added)
        blend = added if blend is None else ImageChops.lighter(extend(blend, pixels), added)

    picture = as_picture(image)
    inpainting = None
    if mask is not None and blend is not None:
        # The nodes of a client's own graph do with grey what they do; ours draw whatever the result shows.
        drawn = as_latent_mask(blend) if custom is None else _for_graph(custom, image, mask)
        picture = drawn if custom is not None and custom.shared else picture
        inpainting = Inpainting(mode, drawn, as_mask(blend), body.grow_mask_by)
    frame = Canvas(size, asked, _denoise(body, inpainting, warnings), flatten(image, "white"))
    return Source(picture, frame, inpainting, names, size if blend is None else _painted(blend))


def _for_graph(use: AlphaUse, image: Image.Image, mask: Image.Image) -> Picture:
    """The mask as a graph of the client's own reads it."""
    if use.shared:
        return as_cutout(image, mask)
    return as_cutout(mask.convert("RGB"), mask) if use.mask else as_mask(mask)


def _surroundings(
    body: Img2ImgBody,
    chosen: Chosen,
    image: Image.Image,
    mask: Image.Image,
    mode: InpaintMode,
    names: dict[str, str],
    warnings: list[str],
) -> Source:
    """The mask's surroundings alone, enlarged to the size that is drawn, to be pasted back."""
    if any(getattr(body, field) for field in OUTPAINT_FIELDS):
        raise InvalidValue(
            "only_masked draws a part of the source, outpainting makes it larger: both at once is not possible",
            field="only_masked",
            hint="send one request after the other",
        )
    size = (body.width or chosen.defaults.width, body.height or chosen.defaults.height)
    blend = blur(mask, body.mask_blur)
    box = mask_region(blend, body.only_masked_padding, size)
    place = (box[2] - box[0], box[3] - box[1])
    part = fit(image.crop(box), size, "just_resize")
    inpainting = Inpainting(
        mode,
        mask=as_latent_mask(fit(blend.crop(box), size, "just_resize")),
        blend=as_mask(blend.crop(box), align=False),
        grow_mask_by=body.grow_mask_by,
        paste=Paste(as_picture(image, align=False), box[0], box[1], place),
    )
    frame = Canvas(size, size, _denoise(body, inpainting, warnings), part, whole=image.size)
    painted = _painted(fit(blend.crop(box), size, "just_resize"))
    return Source(as_picture(part), frame, inpainting, names, painted)


def _painted(blend: Image.Image) -> Size:
    """The size, in the proportions of the mask `blend`, that has as many pixels as it is above 0."""
    share = 1 - blend.histogram()[0] / (blend.width * blend.height)
    return round(blend.width * share**0.5), round(blend.height * share**0.5)


def _fit_mask(mask: Image.Image, size: Size, mode: ResizeMode) -> Image.Image:
    fitted = fit(mask, size, mode)
    if is_empty(fitted):
        raise InvalidPicture(
            f"nothing of mask is left in the {size[0]}x{size[1]} pixels that are drawn",
            field="mask",
            hint="send a larger width and height, another resize_mode, or only_masked",
        )
    return fitted


def _faint(mask: Image.Image) -> list[str]:
    """A warning about a mask that repaints nothing in full."""
    brightest = max(level for level, count in enumerate(mask.histogram()) if count)
    if brightest >= FULLY_REPAINTED:
        return []
    return [
        f"mask is nowhere brighter than {brightest} of 255, so the result shows by {brightest / 255:.0%} at most; "
        "white shows it in full"
    ]


def _without_effect(body: Img2ImgBody, *, masked: bool, inpainting: Inpainting | None) -> list[str]:
    """A warning for each field that was sent and changes nothing here."""
    no_mask = None if masked else "there is no mask"
    reasons = {
        "mask_blur": no_mask,
        "invert_mask": no_mask,
        "inpaint_mode": "there is neither a mask nor outpainting" if inpainting is None else None,
        "grow_mask_by": "only inpaint_mode fill repaints beyond the mask"
        if inpainting is None or inpainting.mode != "fill"
        else None,
        "only_masked_padding": None if body.only_masked else "only_masked is not set",
        "outpaint_feathering": None if any(getattr(body, name) for name in OUTPAINT_FIELDS) else "nothing is added",
        "resize_mode": "only_masked stretches the mask's surroundings" if body.only_masked else None,
    }
    sent = body.model_dump(exclude_defaults=True)
    return [f"{name} has no effect: {reason}" for name, reason in reasons.items() if reason and name in sent]


def _mode(body: Img2ImgBody, chosen: Chosen, warnings: list[str]) -> InpaintMode:
    made_for_it = chosen.file.inpainting
    mode = body.inpaint_mode or ("model" if made_for_it else "fill")
    if body.inpaint_mode == "model" and not made_for_it and chosen.file.known:
        warnings.append(
            f"inpaint_mode model is for inpainting checkpoints, and {chosen.name} is none; fill or refine suit it"
        )
    return mode


def _denoise(body: Img2ImgBody, inpainting: Inpainting | None, warnings: list[str]) -> float:
    greyed = inpainting is not None and inpainting.mode == "fill"
    if body.denoising_strength is None:
        return 1.0 if inpainting is not None and inpainting.mode != "refine" else 0.75
    if greyed and body.denoising_strength < FULL_REPAINT:
        warnings.append(
            f"denoising_strength {body.denoising_strength:g} leaves grey in the masked part, which is greyed out "
            "before it is repainted; use 1, or inpaint_mode refine"
        )
    return body.denoising_strength


def _stretched(before: Size, after: Size) -> bool:
    """Whether the proportions differ by more than two per cent."""
    return abs(before[0] * after[1] - before[1] * after[0]) > 0.02 * before[0] * after[1]
