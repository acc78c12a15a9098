"""Hires fix, upscaling and face restoration."""

import math
from collections.abc import Sequence

from shared.errors import InvalidValue
from shared.schema.body import GenerationBody, UpscaleBody
from shared.schema.request import Enlarging, FaceRestoration, Hires, Sampling, Size
from shared.schema.units import MAX_SIDE, MIN_SIDE, aligned, enlarged
from shared.web.reading.inventory import Inventory, find_file
from shared.web.reading.sampling import check_steps, choose_names

LATENT_METHODS = {
    "latent": "bilinear",
    "latent (nearest)": "nearest-exact",
    "latent (nearest-exact)": "nearest-exact",
    "latent (bilinear)": "bilinear",
    "latent (bicubic)": "bicubic",
    "latent (bislerp)": "bislerp",
    "latent (area)": "area",
}
PICTURE_METHODS = {"lanczos": "lanczos", "nearest": "nearest-exact", "bicubic": "bicubic", "bilinear": "bilinear"}
# As they are told to people.
LATENT_UPSCALERS = [name.capitalize() for name in LATENT_METHODS]
PLAIN_UPSCALERS = [name.capitalize() for name in PICTURE_METHODS]
LARGEST_UPSCALE = 16384
NOT_CHOSEN = ("none",)


def choose_hires(
    body: GenerationBody, size: Size, sampling: Sampling, inventory: Inventory, warnings: list[str]
) -> Hires | None:
    """The second pass over a first one of `size`, if there is to be one. Raises InvalidValue."""
    if not body.hires_fix:
        return None
    target = _hires_size(body, size)
    names = choose_names(
        body.hires_fix_sampler_name or sampling.sampler,
        body.hires_fix_scheduler,
        sampling.scheduler,
        inventory,
        warnings,
        prefix="hires_fix_",
    )
    again = Sampling(
        steps=body.hires_fix_hires_steps or sampling.steps,
        cfg=sampling.cfg if body.hires_fix_cfg_scale is None else body.hires_fix_cfg_scale,
        sampler=names.sampler,
        scheduler=names.scheduler,
        denoise=body.hires_fix_denoising_strength,
    )
    check_steps(again, "hires_fix_hires_steps", "hires_fix_denoising_strength")
    method = LATENT_METHODS.get(body.hires_fix_upscaler.lower())
    if method is not None:
        return Hires(target, again, latent_method=method)
    # The second pass works with whole cells too.
    whole = aligned(enlarged(size, target))
    enlarging = choose_enlarging(body.hires_fix_upscaler, whole, "hires_fix_upscaler", inventory, LATENT_UPSCALERS)
    return Hires(target, again, enlarging=enlarging)


def choose_upscale(body: GenerationBody, size: Size, inventory: Inventory) -> Enlarging | None:
    """What enlarges the finished picture of `size`, if it is to be enlarged. Raises InvalidValue."""
    if body.upscaler is None or body.upscaler.lower() in NOT_CHOSEN:
        return None
    return choose_enlarging(
        body.upscaler, scaled(size, body.upscale_factor, "upscale_factor", LARGEST_UPSCALE), "upscaler", inventory
    )


def choose_enlarging(
    upscaler: str, size: Size, field: str, inventory: Inventory, besides: Sequence[str] = ()
) -> Enlarging:
    """By the upscale model, or the plain method, of that name. Raises InvalidValue that names `field`, and all that it
    takes: those, and `besides`."""
    method = PICTURE_METHODS.get(upscaler.lower())
    if method is not None:
        return Enlarging(size, method=method)
    besides = [*besides, *PLAIN_UPSCALERS]
    return Enlarging(size, model=find_file(upscaler, inventory, "upscale_models", field, "upscale model", besides))


def scaled(size: Size, factor: float, field: str, largest: int, smallest: int = 1) -> Size:
    """Both sides times `factor`, `smallest` pixels at least. Raises InvalidValue that names `field` if one gets larger
    than `largest`."""
    width, height = (max(smallest, round(side * factor)) for side in size)
    if max(width, height) > largest:
        most = math.floor(100 * largest / max(size)) / 100
        raise InvalidValue(
            f"{field} {factor:g} makes {width}x{height} of {size[0]}x{size[1]}, more than {largest} pixels a side",
            field=field,
            hint=f"use {most:.2f} or less" if most >= 1 else "send a smaller picture",
            value=factor,
        )
    return width, height


def choose_faces(body: GenerationBody | UpscaleBody, warnings: list[str]) -> FaceRestoration | None:
    """What restores faces, if they are to be; whether the engine can is seen when the graph is checked."""
    if not body.restore_faces:
        return None
    model = body.face_restoration_model
    known = {"codeformer": "codeformer.pth", "gfpgan": "GFPGANv1.4.pth"}
    if model.lower() == "gfpgan":
        warnings.append("gfpgan_weight has no effect: the engine's nodes restore faces with GFPGAN in full")
    return FaceRestoration(known.get(model.lower(), model), body.codeformer_weight)


def _hires_size(body: GenerationBody, size: Size) -> Size:
    if body.hires_fix_upscale_method == "upscale-by":
        return scaled(size, body.hires_fix_upscale_factor, "hires_fix_upscale_factor", MAX_SIDE, MIN_SIDE)
    width, height = body.hires_fix_resize_width, body.hires_fix_resize_height
    if width is None and height is None:
        raise InvalidValue(
            "hires_fix_upscale_method is resize-to, and no size is given",
            field="hires_fix_resize_width",
            hint="send hires_fix_resize_width, hires_fix_resize_height or both",
        )
    if width is None or height is None:
        # The other side follows the proportions.
        factor = width / size[0] if width is not None else (height or 0) / size[1]
        field = "hires_fix_resize_width" if width is not None else "hires_fix_resize_height"
        return scaled(size, factor, field, MAX_SIDE, MIN_SIDE)
    return width, height
