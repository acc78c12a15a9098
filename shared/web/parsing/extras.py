"""Parses the web page's extras: upscalers and face restorers, blended into one picture."""

from collections.abc import Sequence

from shared.errors import InvalidValue
from shared.images.encode import FORMATS_BY_EXTENSION, format_limits
from shared.schema.body import ExtrasBody
from shared.schema.choices import fold, is_no_choice
from shared.schema.ranges import Picture
from shared.schema.request import EnlargedLayer, ExtrasRequest, FaceRestoration, FacesLayer, Size, Upscale
from shared.web.parsing.model_catalog import UPSCALE_MODEL, match_file, search_file
from shared.web.parsing.parser import Parser
from shared.web.parsing.upscale import MAX_UPSCALED_SIDE, factor_in_name, match_method, scale_size, substitute_warning

DEFAULT_FACTOR = 2.0
# Names that the web page has for upscale models, folded, with the names of their files.
FILE_NAMES = {"realesrganx4plus": ("RealESRGAN_x4plus",)}
GFPGAN, CODEFORMER = "GFPGANv1.4.pth", "codeformer.pth"


def parse_extras(
    parser: Parser, body: ExtrasBody, source: Picture, face_models: Sequence[str] | None, *, transparent: bool = False
) -> ExtrasRequest:
    """Return what is done with `source`. Raises InvalidValue.

    Upscalers that the page names but that are not installed are replaced by Lanczos. `face_models` are those of the
    engine; None if it cannot restore faces.
    """
    upscalers = [
        (field, name, visibility)
        for field, name, visibility in (
            ("upscaler_model", body.upscaler_model, body.upscaler_visibility),
            ("upscaler_model_2", body.upscaler_model_2, body.upscaler_visibility_2),
        )
        if not is_no_choice(name) and visibility > 0
    ]
    if len(upscalers) == 2 and body.upscaler_visibility_2 >= 1:
        parser.warn("upscaler_visibility_2 is 1, so nothing of the first upscaler is visible")
    size = _choose_size(parser, body, source.size, upscalers[0][1] if upscalers else None)
    layers = tuple(
        EnlargedLayer(_choose_upscale(parser, field, name, size), visibility) for field, name, visibility in upscalers
    )
    return ExtrasRequest(source, Upscale(size), layers, _choose_faces(parser, body, face_models), transparent)


def _choose_size(parser: Parser, body: ExtrasBody, source: Size, upscaler: str | None) -> Size:
    factor = body.upscale_factor
    if factor is None and upscaler is None:
        parser.warn("no upscaler is chosen and visible, so the picture keeps its size")
        factor = 1.0
    if factor is None:
        factor = factor_in_name(upscaler or "") or DEFAULT_FACTOR
    output_limits = format_limits(FORMATS_BY_EXTENSION[body.output_format], parser.budget)
    largest = MAX_UPSCALED_SIDE if output_limits is None else min(output_limits.side, MAX_UPSCALED_SIDE)
    size = scale_size(source, factor, "upscale_factor", largest)
    reason = None if output_limits is None else output_limits.explain_excess(size)
    if reason is not None:
        raise InvalidValue(
            reason, field="output_format", hint="use png, or a smaller upscale_factor", value=body.output_format
        )
    return size


def _choose_upscale(parser: Parser, field: str, name: str, size: Size) -> Upscale:
    method = match_method(name)
    if method is not None:
        return Upscale(size, method=method)
    for file_name in (name, *FILE_NAMES.get(fold(name), ())):
        found = search_file(parser.catalog, UPSCALE_MODEL, file_name, field)
        if found is not None:
            return Upscale(size, model=found[1])
    parser.warn(substitute_warning(parser.catalog, field, name))
    return Upscale(size)


def _choose_faces(parser: Parser, body: ExtrasBody, face_models: Sequence[str] | None) -> tuple[FacesLayer, ...]:
    layers = []
    for field, model, visibility, fidelity in (
        ("gfpgan_visibility", GFPGAN, body.gfpgan_visibility, 0.5),
        ("codeformer_visibility", CODEFORMER, body.codeformer_visibility, body.codeformer_weight),
    ):
        if visibility <= 0:
            continue
        if face_models is None:
            parser.warn(f"{field} has no effect: it needs the custom nodes facerestore_cf in data/custom_nodes")
            continue
        file = match_file(model, face_models)
        if file is None:
            parser.warn(f"{field} has no effect: the face model {model} does not exist")
            continue
        layers.append(FacesLayer(FaceRestoration(file, fidelity), visibility))
    return tuple(layers)
