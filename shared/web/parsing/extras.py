"""The web page's extras: which of the upscalers and face restorers that it names there are, and how large it gets."""

from collections.abc import Sequence

from shared.errors import InvalidValue
from shared.images.budget import MemoryBudget
from shared.images.encode import FORMATS_BY_EXTENSION, FormatLimits, format_limits
from shared.schema.body import ExtrasBody
from shared.schema.choices import fold, is_no_choice
from shared.schema.request import EnlargedLayer, ExtrasRequest, FaceRestoration, FacesLayer, Size, Upscale
from shared.schema.units import Picture
from shared.web.parsing.model_catalog import ModelCatalog, look_for, match_file
from shared.web.parsing.upscale import LARGEST_UPSCALE, factor_in_name, not_there, plain_method, scaled

USUAL_FACTOR = 2.0
# What the web page calls a well-known upscaler, in plain letters, and the name that its file has.
ALSO_CALLED = {"realesrganx4plus": ("RealESRGAN_x4plus",)}
GFPGAN, CODEFORMER = "GFPGANv1.4.pth", "codeformer.pth"


def read_extras(
    body: ExtrasBody,
    source: Picture,
    catalog: ModelCatalog,
    face_models: Sequence[str] | None,
    warnings: list[str],
    *,
    transparent: bool = False,
    budget: MemoryBudget | None = None,
) -> ExtrasRequest:
    """What is to be done with `source`. The page names upscalers that may not be there: they are replaced by Lanczos.

    `face_models` are those that the engine has; None if it cannot restore faces. `budget` is what encoding the result
    may take. Raises InvalidValue.
    """
    wanted = [
        (name, visibility, field)
        for name, visibility, field in (
            (body.upscaler_model, body.upscaler_visibility, "upscaler_model"),
            (body.upscaler_model_2, body.upscaler_visibility_2, "upscaler_model_2"),
        )
        if not is_no_choice(name) and visibility > 0
    ]
    if len(wanted) == 2 and wanted[1][1] >= 1:
        warnings.append("upscaler_visibility_2 is 1: nothing is to be seen of the first upscaler")
    bounds = format_limits(FORMATS_BY_EXTENSION[body.output_format], budget)
    size = _size(body, source.size, wanted[0][0] if wanted else None, bounds, warnings)
    layers = [
        EnlargedLayer(_enlarging(name, size, field, catalog, warnings), visibility)
        for name, visibility, field in wanted
    ]
    return ExtrasRequest(source, Upscale(size), tuple(layers), _faces(body, face_models, warnings), transparent)


def _size(
    body: ExtrasBody, source: Size, upscaler: str | None, bounds: FormatLimits | None, warnings: list[str]
) -> Size:
    factor = body.upscale_factor
    if factor is None and upscaler is None:
        warnings.append("no upscaler is chosen, or none is visible: the picture keeps its size")
        factor = 1.0
    if factor is None:
        factor = factor_in_name(upscaler or "") or USUAL_FACTOR
    size = scaled(
        source, factor, "upscale_factor", LARGEST_UPSCALE if bounds is None else min(bounds.side, LARGEST_UPSCALE)
    )
    reason = None if bounds is None else bounds.objection(size)
    if reason is not None:
        raise InvalidValue(
            reason, field="output_format", hint="use png, or a smaller upscale_factor", value=body.output_format
        )
    return size


def _enlarging(name: str, size: Size, field: str, catalog: ModelCatalog, warnings: list[str]) -> Upscale:
    method = plain_method(name)
    if method is not None:
        return Upscale(size, method=method)
    for each in (name, *ALSO_CALLED.get(fold(name), ())):
        found = look_for(each, catalog, ("upscale_models",), field, "upscale model")
        if found is not None:
            return Upscale(size, model=found[1])
    warnings.append(not_there(field, name, catalog))
    return Upscale(size)


def _faces(body: ExtrasBody, face_models: Sequence[str] | None, warnings: list[str]) -> tuple[FacesLayer, ...]:
    found = []
    for field, model, visibility, fidelity in (
        ("gfpgan_visibility", GFPGAN, body.gfpgan_visibility, 0.5),
        ("codeformer_visibility", CODEFORMER, body.codeformer_visibility, body.codeformer_weight),
    ):
        if visibility <= 0:
            continue
        if face_models is None:
            warnings.append(f"{field} has no effect: it needs the custom nodes facerestore_cf in data/custom_nodes")
            continue
        file = match_file(model, face_models)
        if file is None:
            warnings.append(f"{field} has no effect: the face model {model} does not exist")
            continue
        found.append(FacesLayer(FaceRestoration(file, fidelity), visibility))
    return tuple(found)
