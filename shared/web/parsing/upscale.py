"""Chooses how pictures are enlarged and how faces are restored: hires fix, `upscaler`, `restore_faces`."""

import difflib
import math
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from shared.errors import InvalidValue
from shared.models.lookup import nearest_names
from shared.schema.body import GenerationBody, UpscaleOptions
from shared.schema.choices import find_choice, fold, is_default_choice, is_no_choice
from shared.schema.ranges import MAX_SIDE, MIN_SIDE, aligned, enlarged
from shared.schema.request import FaceRestoration, Hires, Sampling, Size, Upscale
from shared.web.parsing.model_catalog import UPSCALE_MODEL, ModelCatalog, find_file, search_file
from shared.web.parsing.parser import Parser
from shared.web.parsing.sampling import check_steps, choose_sampler

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
# The same methods as hints and menus show them.
LATENT_UPSCALERS = [name.capitalize() for name in LATENT_METHODS]
PLAIN_UPSCALERS = [name.capitalize() for name in PICTURE_METHODS]
FACE_MODELS = {"codeformer": "codeformer.pth", "gfpgan": "GFPGANv1.4.pth"}
# Weights of GFPGAN that need no warning: what the nodes do, and what the web page sends by default.
GFPGAN_WEIGHTS = (1.0, 0.5)
MAX_UPSCALED_SIDE = 16384
# Matches the factor in "4x-UltraSharp" and "RealESRGAN_x4plus".
FACTOR_IN_NAME = re.compile(r"(?<!\d)([1-8])x|(?<![a-z\d])x([1-8])(?!\d)", re.IGNORECASE)
# A name with fewer letters is not that of an upscale model; one that is this similar to an installed one is misspelt.
MIN_LETTERS, MISSPELLING_SIMILARITY = 4, 0.8
SUBSTITUTE = "Lanczos"


def choose_hires(parser: Parser, body: GenerationBody, size: Size, sampling: Sampling) -> Hires | None:
    """Return the second pass after a first pass of `size`; None if hires fix is off. Raises InvalidValue."""
    if not body.hires_fix:
        return None
    target = _hires_size(body, size)
    sampler, scheduler = choose_sampler(
        parser,
        body.hires_fix_sampler_name or sampling.sampler,
        body.hires_fix_scheduler,
        sampling.scheduler,
        prefix="hires_fix_",
    )
    second = Sampling(
        steps=body.hires_fix_hires_steps or sampling.steps,
        cfg=sampling.cfg if body.hires_fix_cfg_scale is None else body.hires_fix_cfg_scale,
        sampler=sampler,
        scheduler=scheduler,
        denoise=body.hires_fix_denoising_strength,
    )
    check_steps(second, "hires_fix_hires_steps", "hires_fix_denoising_strength")
    upscaler = body.hires_fix_upscaler
    is_left_to_us = is_default_choice(upscaler) and not is_no_choice(upscaler)
    latent = find_choice("latent" if is_left_to_us else upscaler, LATENT_METHODS)
    if latent is not None:
        return Hires(target, second, latent_method=LATENT_METHODS[latent])
    # The second pass works on whole latent cells.
    return Hires(target, second, upscale=_hires_upscale(parser, upscaler, aligned(enlarged(size, target))))


def hires_substitute(body: GenerationBody, hires: Hires | None) -> str | None:
    """Return the upscaler that replaced that of hires fix; None if it was not replaced."""
    if hires is None or hires.upscale is None or hires.upscale.model is not None:
        return None
    return None if match_method(body.hires_fix_upscaler) is not None else SUBSTITUTE


def choose_upscale(catalog: ModelCatalog, body: GenerationBody, size: Size) -> Upscale | None:
    """Return how the finished picture of `size` is enlarged; None if it is not. Raises InvalidValue."""
    if body.upscaler is None or is_no_choice(body.upscaler):
        return None
    target = scale_size(size, body.upscale_factor, "upscale_factor", MAX_UPSCALED_SIDE)
    return choose_upscaler(catalog, body.upscaler, target, "upscaler")


def choose_upscaler(
    catalog: ModelCatalog, upscaler: str, size: Size, field: str, other_choices: Sequence[str] = ()
) -> Upscale:
    """Return the upscale by the upscale model or the method of that name; by Lanczos if the name means none.

    Raises InvalidValue that names `field`, and the closest names, with `other_choices` that the field accepts.
    """
    method = "lanczos" if is_no_choice(upscaler) else match_method(upscaler)
    if method is not None:
        return Upscale(size, method=method)
    _, model = find_file(catalog, UPSCALE_MODEL, upscaler, field, [*other_choices, *PLAIN_UPSCALERS])
    return Upscale(size, model=model)


def choose_faces(parser: Parser, body: GenerationBody | UpscaleOptions) -> FaceRestoration | None:
    """Return how faces are restored; None if they are not. The graph check finds out whether the engine can."""
    if not body.restore_faces:
        return None
    model = body.face_restoration_model
    known = find_choice("codeformer" if is_default_choice(model) else model, FACE_MODELS)
    if known == "gfpgan" and isinstance(body, GenerationBody) and body.gfpgan_weight not in GFPGAN_WEIGHTS:
        parser.warn("gfpgan_weight has no effect: the engine's nodes always restore faces with GFPGAN in full")
    return FaceRestoration(model if known is None else FACE_MODELS[known], body.codeformer_weight)


def substitute_warning(catalog: ModelCatalog, field: str, upscaler: str) -> str:
    """Return the warning that Lanczos replaces an upscale model that is not installed."""
    closest = " or ".join(nearest_names(upscaler, catalog.names("upscale_models")))
    hint = f"use {closest}" if closest else "no upscale model is installed"
    return f"{field} {upscaler!r} does not exist, so {SUBSTITUTE} was used; {hint}"


def factor_in_name(name: str) -> float | None:
    """Return the factor in the name of an upscale model; None if the name has none."""
    match = FACTOR_IN_NAME.search(name)
    return float(match[1] or match[2]) if match else None


def match_method(name: str) -> str | None:
    """Return the method of ImageScale that a name means; None if it means none."""
    method = find_choice(name, PICTURE_METHODS, {"nearest-exact": "nearest"})
    return None if method is None else PICTURE_METHODS[method]


def scale_size(size: Size, factor: float, field: str, largest: int, smallest: int = 1) -> Size:
    """Multiply both sides by `factor`, to at least `smallest` pixels.

    Raises InvalidValue that names `field` if a side exceeds `largest` pixels.
    """
    width, height = (max(smallest, round(side * factor)) for side in size)
    if max(width, height) > largest:
        max_factor = math.floor(100 * largest / max(size)) / 100
        raise InvalidValue(
            f"{field} {factor:g} enlarges {size[0]}x{size[1]} to {width}x{height}, more than {largest} pixels a side",
            field=field,
            hint=f"use {max_factor:.2f} or less" if max_factor >= 1 else "send a smaller picture",
            value=factor,
        )
    return width, height


def _hires_upscale(parser: Parser, upscaler: str, size: Size) -> Upscale:
    if is_no_choice(upscaler):
        parser.warn(f"hires_fix_upscaler is {upscaler!r}, so {SUBSTITUTE} was used")
        return Upscale(size)
    if _is_not_installed(parser.catalog, upscaler):
        parser.warn(substitute_warning(parser.catalog, "hires_fix_upscaler", upscaler))
        return Upscale(size)
    return choose_upscaler(parser.catalog, upscaler, size, "hires_fix_upscaler", LATENT_UPSCALERS)


def _is_not_installed(catalog: ModelCatalog, name: str) -> bool:
    """Whether a name is that of an upscale model that the engine lacks, and not a misspelling of one that it has.

    The web page sends "4x-ultrasharp" whatever is installed, so that is replaced; a misspelling is refused.
    """
    if match_method(name) or search_file(catalog, UPSCALE_MODEL, name, "hires_fix_upscaler"):
        return False
    letters = sum(letter.isalpha() for letter in name)
    if factor_in_name(name) is None or letters < MIN_LETTERS:
        return False
    installed = [fold(PurePosixPath(file).stem) for file in catalog.names("upscale_models")]
    return not difflib.get_close_matches(fold(name), installed, n=1, cutoff=MISSPELLING_SIMILARITY)


def _hires_size(body: GenerationBody, size: Size) -> Size:
    if body.hires_fix_upscale_method == "upscale-by":
        return scale_size(size, body.hires_fix_upscale_factor, "hires_fix_upscale_factor", MAX_SIDE, MIN_SIDE)
    width, height = body.hires_fix_resize_width, body.hires_fix_resize_height
    if width is None and height is None:
        raise InvalidValue(
            "hires_fix_upscale_method is resize-to, but no size was sent",
            field="hires_fix_resize_width",
            hint="send hires_fix_resize_width, hires_fix_resize_height or both",
        )
    if width is None or height is None:
        # The other side follows the proportions.
        factor = width / size[0] if width is not None else (height or 0) / size[1]
        field = "hires_fix_resize_width" if width is not None else "hires_fix_resize_height"
        return scale_size(size, factor, field, MAX_SIDE, MIN_SIDE)
    return width, height
