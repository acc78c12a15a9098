"""Parses the source picture of img2img and its mask, and fits them to the size that is drawn."""

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
from shared.schema.body import Img2ImgBody, Img2ImgOptions, InpaintMode, ResizeMode
from shared.schema.ranges import MAX_SIDE, Picture, aligned
from shared.schema.request import Inpainting, Paste, Size
from shared.web.parsing.canvas import Canvas, first_pass_size, large_mask_warning, limit_canvas
from shared.web.parsing.models import ChosenModels
from shared.web.parsing.parser import GraphAlpha, Parser
from shared.web.parsing.validate_fields import missing_picture

# Below this denoise, grey remains visible in a masked part that VAEEncodeForInpaint greyed out.
MIN_FILL_DENOISE = 0.9
# A mask whose brightest level is at least this repaints in full, as far as anybody can see.
FULL_LEVEL = 250
OUTPAINT_FIELDS = ("outpaint_left", "outpaint_top", "outpaint_right", "outpaint_bottom")


@dataclass(frozen=True)
class Source:
    """The picture that img2img starts from, and what is repainted of it.

    `repainted` is a size with the area that is drawn: of the whole canvas, or of the part under the mask.
    """

    picture: Picture
    canvas: Canvas
    inpainting: Inpainting | None
    repainted: Size


def parse_img2img_source(parser: Parser, body: Img2ImgOptions, models: ChosenModels) -> Source:
    """Read input_image and mask, and fits them to the canvas.

    For a custom graph they keep their own size, unless another was asked for. Raises InvalidPicture and InvalidValue.
    """
    sent_image = _read_image(parser)
    mask = _read_mask(parser, body, flatten(sent_image, "white"))
    image = _resolve_transparency(parser, sent_image, has_mask=mask is not None)
    mode = _inpaint_mode(parser, body, models)
    if body.only_masked and parser.custom_graph is None:
        source = _draw_region(parser, body, models, mode, image, mask)
    else:
        source = _draw_whole(parser, body, models, mode, image, mask)
    parser.warn(*_unused_fields(body, has_mask=mask is not None, inpainting=source.inpainting))
    return _limit_size(parser, body, models, source)


def _read_image(parser: Parser) -> Image.Image:
    image = parser.pictures.read_with_alpha("input_image", "image")
    if image is None:
        raise missing_picture(
            "input_image",
            parser.pictures.field_names,
            Img2ImgBody,
            "send input_image as a data URL or base64, or a form with a file named image",
        )
    return image


def _read_mask(parser: Parser, body: Img2ImgOptions, image: Image.Image) -> Image.Image | None:
    """Return the mask in the size of the picture, or None; warn if it was stretched or repaints nothing in full."""
    mask = parser.pictures.read_mask("mask", invert=body.invert_mask, source=image)
    if mask is None:
        return None
    if _is_distorted(mask.size, image.size):
        parser.warn(f"mask has other proportions ({mask.width}x{mask.height}) than input_image and was stretched")
    mask = fit(mask, image.size, "just_resize")
    brightest = max(level for level, count in enumerate(mask.histogram()) if count)
    if brightest < FULL_LEVEL:
        parser.warn(
            f"mask is nowhere brighter than {brightest} of 255, so at most {brightest / 255:.0%} of the result is "
            "visible; use white to show it in full"
        )
    return mask


def _resolve_transparency(parser: Parser, image: Image.Image, *, has_mask: bool) -> Image.Image:
    """Return the source without transparency, unless a custom graph uses it; warn of what is lost or missing."""
    alpha = parser.custom_graph
    if alpha is not None and alpha.source and not (alpha.shared and has_mask):
        if (alpha.shared or not has_mask) and not is_transparent(image):
            parser.warn(
                "custom_workflow reads its mask from the transparency of input_image, which has none: send a mask, or "
                "the picture with the part to repaint erased"
            )
        return image
    hint = "" if has_mask else "; to repaint only the transparent part, send the same picture as mask too"
    for warning in transparency_warnings(image, "input_image", "white"):
        parser.warn(f"{warning}, and the result is opaque{hint}")
    return flatten(image, "white")


def _draw_whole(
    parser: Parser,
    body: Img2ImgOptions,
    models: ChosenModels,
    mode: InpaintMode,
    image: Image.Image,
    mask: Image.Image | None,
) -> Source:
    """Draw the whole source, with about the model's usual number of pixels if no size was asked for; outpaint it."""
    alpha = parser.custom_graph
    size = _choose_size(parser, body, models, image)
    image = fit(image, size, body.resize_mode)
    mask = None if mask is None else _fit_mask(mask, size, body.resize_mode)
    blend = None if mask is None else blur(mask, body.mask_blur)
    asked = size
    pixels = (body.outpaint_left, body.outpaint_top, body.outpaint_right, body.outpaint_bottom)
    if any(pixels):
        added = _outpaint(body, size, pixels)
        size = added.size
        image = extend(image, pixels)
        mask = added if mask is None else ImageChops.lighter(extend(mask, pixels), added)
        blend = added if blend is None else ImageChops.lighter(extend(blend, pixels), added)
    picture = as_picture(image)
    inpainting = None
    if mask is not None and blend is not None:
        # The nodes of a custom graph interpret grey themselves; our graphs repaint whatever is not black.
        drawn = as_latent_mask(blend) if alpha is None else _mask_for_graph(alpha, image, mask)
        picture = drawn if alpha is not None and alpha.shared else picture
        inpainting = Inpainting(mode, drawn, as_mask(blend), body.grow_mask_by)
    if alpha is not None and aligned(size) != size:
        parser.warn(
            f"LoadImage takes multiples of 8 pixels: the edges of input_image, with {'x'.join(map(str, size))}, are "
            "repeated"
        )
    canvas = Canvas(size, asked, _choose_denoise(parser, body, inpainting), flatten(image, "white"))
    return Source(picture, canvas, inpainting, size if blend is None else _repainted_size(blend))


def _choose_size(parser: Parser, body: Img2ImgOptions, models: ChosenModels, image: Image.Image) -> Size:
    usual = image.width * image.height if parser.custom_graph is not None else recommended_pixels(models.file)
    size = choose_size(image.size, body.width, body.height, usual)
    if body.width is None and body.height is None and size != image.size:
        parser.warn(
            f"input_image has {image.width}x{image.height} pixels and was scaled to {size[0]}x{size[1]}; "
            "send width and height for another size"
        )
    if body.resize_mode == "just_resize" and _is_distorted(image.size, size):
        parser.warn(
            f"input_image was stretched from {image.width}x{image.height} to {size[0]}x{size[1]}; "
            "resize_mode crop_and_resize or fill keeps its proportions"
        )
    return size


def _outpaint(body: Img2ImgOptions, size: Size, pixels: tuple[int, int, int, int]) -> Image.Image:
    """Return the mask of what outpainting adds, in the size of the extended picture. Raises InvalidValue."""
    added = outpaint_mask(size, pixels, body.outpaint_feathering)
    if max(added.size) > MAX_SIDE:
        raise InvalidValue(
            f"outpainting would extend the picture to {added.width}x{added.height}, more than {MAX_SIDE} pixels a side",
            field=next(field for field, count in zip(OUTPAINT_FIELDS, pixels, strict=True) if count),
            hint="add fewer pixels, or send a smaller width and height",
        )
    return added


def _mask_for_graph(alpha: GraphAlpha, image: Image.Image, mask: Image.Image) -> Picture:
    """Return the mask in the form that a custom graph reads."""
    if alpha.shared:
        return as_cutout(image, mask)
    return as_cutout(mask.convert("RGB"), mask) if alpha.mask else as_mask(mask)


def _draw_region(
    parser: Parser,
    body: Img2ImgOptions,
    models: ChosenModels,
    mode: InpaintMode,
    image: Image.Image,
    mask: Image.Image | None,
) -> Source:
    """Draw only the region around the mask, enlarged to the canvas, to be pasted back into the source."""
    if mask is None:
        raise InvalidValue(
            "only_masked needs a mask", field="only_masked", hint="send a mask, or leave only_masked out"
        )
    if any(getattr(body, field) for field in OUTPAINT_FIELDS):
        raise InvalidValue(
            "only_masked draws a region of the source and outpainting extends it, so they cannot be combined",
            field="only_masked",
            hint="send one request after the other",
        )
    size = (body.width or models.defaults.width, body.height or models.defaults.height)
    blend = blur(mask, body.mask_blur)
    box = mask_region(blend, body.only_masked_padding, size)
    pasted_size = (box[2] - box[0], box[3] - box[1])
    part = fit(image.crop(box), size, "just_resize")
    drawn_blend = fit(blend.crop(box), size, "just_resize")
    inpainting = Inpainting(
        mode,
        mask=as_latent_mask(drawn_blend),
        blend=as_mask(blend.crop(box), align=False),
        grow_mask_by=body.grow_mask_by,
        paste=Paste(as_picture(image, align=False), box[0], box[1], pasted_size),
    )
    canvas = Canvas(size, size, _choose_denoise(parser, body, inpainting), part, whole=image.size)
    return Source(as_picture(part), canvas, inpainting, _repainted_size(drawn_blend))


def _limit_size(parser: Parser, body: Img2ImgOptions, models: ChosenModels, source: Source) -> Source:
    """Reduce a source that is redrawn from noise to what the model draws in one pass; warn of a large mask."""
    canvas = source.canvas
    if source.inpainting is not None:
        starts_from_noise = parser.custom_graph is None and canvas.denoise == 1
        if starts_from_noise and first_pass_size(source.repainted, models) is not None:
            parser.warn(large_mask_warning(source.repainted, models))
        return source
    limited = limit_canvas(parser, body, models, canvas)
    if limited.enlarged is None or limited.image is None:
        return source
    image = fit(limited.image, limited.size, "just_resize")
    return Source(as_picture(image), replace(limited, image=image), None, limited.size)


def _repainted_size(blend: Image.Image) -> Size:
    """Return a size in the proportions of a mask, with as many pixels as the mask has above 0."""
    share = 1 - blend.histogram()[0] / (blend.width * blend.height)
    return round(blend.width * share**0.5), round(blend.height * share**0.5)


def _fit_mask(mask: Image.Image, size: Size, mode: ResizeMode) -> Image.Image:
    fitted = fit(mask, size, mode)
    if is_empty(fitted):
        raise InvalidPicture(
            f"mask is empty in the {size[0]}x{size[1]} pixels that are drawn",
            field="mask",
            hint="send a larger width and height, another resize_mode, or only_masked",
        )
    return fitted


def _unused_fields(body: Img2ImgOptions, *, has_mask: bool, inpainting: Inpainting | None) -> list[str]:
    """Return a warning for each field of img2img that was sent and has no effect."""
    no_mask = None if has_mask else "there is no mask"
    reasons = {
        "mask_blur": no_mask,
        "invert_mask": no_mask,
        "inpaint_mode": "there is neither a mask nor outpainting" if inpainting is None else None,
        "grow_mask_by": "only inpaint_mode fill repaints beyond the mask"
        if inpainting is None or inpainting.mode != "fill"
        else None,
        "only_masked_padding": None if body.only_masked else "only_masked is not set",
        "outpaint_feathering": None
        if any(getattr(body, name) for name in OUTPAINT_FIELDS)
        else "there is no outpainting",
        "resize_mode": "only_masked stretches the region around the mask" if body.only_masked else None,
    }
    sent = body.model_dump(exclude_defaults=True)
    return [f"{name} has no effect: {reason}" for name, reason in reasons.items() if reason and name in sent]


def _inpaint_mode(parser: Parser, body: Img2ImgOptions, models: ChosenModels) -> InpaintMode:
    is_inpainting_model = models.file.inpainting
    if body.inpaint_mode == "model" and not is_inpainting_model and models.file.known:
        parser.warn(f"inpaint_mode model is for inpainting checkpoints, which {models.name} is not; use fill or refine")
    return body.inpaint_mode or ("model" if is_inpainting_model else "fill")


def _choose_denoise(parser: Parser, body: Img2ImgOptions, inpainting: Inpainting | None) -> float:
    if body.denoising_strength is None:
        return 1.0 if inpainting is not None and inpainting.mode != "refine" else 0.75
    is_greyed = inpainting is not None and inpainting.mode == "fill"
    if is_greyed and body.denoising_strength < MIN_FILL_DENOISE:
        parser.warn(
            f"denoising_strength {body.denoising_strength:g} leaves grey in the masked part, which is greyed out "
            "before it is repainted; use 1, or inpaint_mode refine"
        )
    return body.denoising_strength


def _is_distorted(before: Size, after: Size) -> bool:
    """Whether the proportions differ by more than two per cent."""
    return abs(before[0] * after[1] - before[1] * after[0]) > 0.02 * before[0] * after[1]
