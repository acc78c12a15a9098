"""Hires fix, upscaling and face restoration."""

import difflib
import math
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from shared.errors import InvalidValue
from shared.models.lookup import nearest_names
from shared.schema.body import GenerationBody, UpscaleBody
from shared.schema.choices import find_choice, fold, is_default_choice, is_no_choice
from shared.schema.request import FaceRestoration, Hires, Sampling, Size, Upscale
from shared.schema.units import MAX_SIDE, MIN_SIDE, aligned, enlarged
from shared.web.parsing.model_catalog import ModelCatalog, find_file, look_for
from shared.web.parsing.sampling import check_steps, choose_names

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
FACE_MODELS = {"codeformer": "codeformer.pth", "gfpgan": "GFPGANv1.4.pth"}
# Weights of GFPGAN: what the nodes do, and what the web page sends when nobody moved it.
FULL, UNTOUCHED = 1.0, 0.5
LARGEST_UPSCALE = 16384
# As in "4x-UltraSharp", "RealESRGAN_x4plus".
FACTOR_IN_NAME = re.compile(r"(?<!\d)([1-8])x|(?<![a-z\d])x([1-8])(?!\d)", re.IGNORECASE)
# Fewer letters are no name of an upscale model, and from this likeness on a name is a misspelt one.
LETTERS, LIKENESS = 4, 0.8
STANDS_IN = "Lanczos"


def choose_hires(
    body: GenerationBody, size: Size, sampling: Sampling, catalog: ModelCatalog, warnings: list[str]
) -> Hires | None:
    """The second pass over a first one of `size`, if there is to be one. Raises InvalidValue."""
    if not body.hires_fix:
        return None
    target = _hires_size(body, size)
    names = choose_names(
        body.hires_fix_sampler_name or sampling.sampler,
        body.hires_fix_scheduler,
        sampling.scheduler,
        catalog,
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
    upscaler = body.hires_fix_upscaler
    latent = find_choice(
        "latent" if is_default_choice(upscaler) and not is_no_choice(upscaler) else upscaler, LATENT_METHODS
    )
    if latent is not None:
        return Hires(target, again, latent_method=LATENT_METHODS[latent])
    # The second pass works with whole cells too.
    whole = aligned(enlarged(size, target))
    if is_no_choice(upscaler):
        warnings.append(f"hires_fix_upscaler is {upscaler!r}, so {STANDS_IN} was used")
        return Hires(target, again, upscale=Upscale(whole))
    if _is_not_installed(upscaler, catalog):
        warnings.append(not_there("hires_fix_upscaler", upscaler, catalog))
        return Hires(target, again, upscale=Upscale(whole))
    upscale = choose_upscaler(upscaler, whole, "hires_fix_upscaler", catalog, LATENT_UPSCALERS)
    return Hires(target, again, upscale=upscale)


def hires_upscaler(body: GenerationBody, hires: Hires | None) -> str | None:
    """The name of what stood in for the upscaler of hires fix; None if that was there."""
    if hires is None or hires.upscale is None or hires.upscale.model is not None:
        return None
    return None if plain_method(body.hires_fix_upscaler) is not None else STANDS_IN


def not_there(field: str, upscaler: str, catalog: ModelCatalog) -> str:
    """The warning that Lanczos stands in for an upscale model that is not installed."""
    there = ", ".join(nearest_names(upscaler, catalog.names("upscale_models"))) or "no upscale model yet"
    return f"{field} {upscaler!r} does not exist, so {STANDS_IN} was used; there is {there}"


def factor_in_name(name: str) -> float | None:
    """By how much an upscale model of that name enlarges, if the name tells."""
    match = FACTOR_IN_NAME.search(name)
    return float(match[1] or match[2]) if match else None


def plain_method(name: str) -> str | None:
    """The method of ImageScale that `name` means; None if it means none."""
    found = find_choice(name, PICTURE_METHODS, {"nearest-exact": "nearest"})
    return None if found is None else PICTURE_METHODS[found]


def _is_not_installed(name: str, catalog: ModelCatalog) -> bool:
    """Whether it is the name of an upscale model that the engine lacks, and no misspelt one of those that it has.

    The web page sends "4x-ultrasharp" whatever is installed; but who misspells a name wants to hear of it.
    """
    if plain_method(name) or look_for(name, catalog, ("upscale_models",), "hires_fix_upscaler", "upscale model"):
        return False
    letters = sum(letter.isalpha() for letter in name)
    if factor_in_name(name) is None or letters < LETTERS:
        return False
    there = [fold(PurePosixPath(each).stem) for each in catalog.names("upscale_models")]
    return not difflib.get_close_matches(fold(name), there, n=1, cutoff=LIKENESS)


def choose_upscale(body: GenerationBody, size: Size, catalog: ModelCatalog) -> Upscale | None:
    """What enlarges the finished picture of `size`, if it is to be enlarged. Raises InvalidValue."""
    if body.upscaler is None or is_no_choice(body.upscaler):
        return None
    return choose_upscaler(
        body.upscaler, scaled(size, body.upscale_factor, "upscale_factor", LARGEST_UPSCALE), "upscaler", catalog
    )


def choose_upscaler(
    upscaler: str, size: Size, field: str, catalog: ModelCatalog, besides: Sequence[str] = ()
) -> Upscale:
    """By the upscale model, or the plain method, of that name; by Lanczos if it says that no model was chosen. Raises
    InvalidValue that names `field`, and all that it takes: those, and `besides`."""
    method = "lanczos" if is_no_choice(upscaler) else plain_method(upscaler)
    if method is not None:
        return Upscale(size, method=method)
    besides = [*besides, *PLAIN_UPSCALERS]
    return Upscale(size, model=find_file(upscaler, catalog, "upscale_models", field, "upscale model", besides))


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
    known = find_choice("codeformer" if is_default_choice(model) else model, FACE_MODELS)
    if known == "gfpgan" and getattr(body, "gfpgan_weight", FULL) not in (FULL, UNTOUCHED):
        warnings.append("gfpgan_weight has no effect: the engine's nodes restore faces with GFPGAN in full")
    return FaceRestoration(model if known is None else FACE_MODELS[known], body.codeformer_weight)


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
