"""Parses ControlNet units: the network, its picture, and the preprocessor that makes a control map of it."""

import difflib

from PIL import Image

from shared.errors import InvalidPicture, InvalidValue
from shared.images.fit import as_picture, fit
from shared.models.detect import ModelFile
from shared.schema.body import ControlNetBody, ControlUnitBody
from shared.schema.choices import is_default_choice, is_no_choice
from shared.schema.request import ControlUnit, Preprocessing, Size
from shared.web.parsing.model_catalog import CONTROLNET, ModelCatalog, find_fitting_file
from shared.web.parsing.parser import Parser
from workflows.preprocessors import PACKAGE, PREPROCESSORS, SYNONYMS, UNION_TYPES, is_control_type, preprocessor_name

# Control types whose network takes a picture, not a control map.
PICTURE_TYPES = (
    "tile",
    "blur",
    "inpaint",
    "repaint",
    "ip2p",
    "pix2pix",
    "instruct",
    "reference",
    "recolor",
    "ip-adapter",
)
# The range of Canny's thresholds in ComfyUI; those of a request go from 0 to 255.
MIN_THRESHOLD, MAX_THRESHOLD = 0.01, 0.99
# Pixels: the smallest resolution of the preprocessors that are custom nodes.
MIN_RESOLUTION = 64


def parse_controls(
    parser: Parser, body: ControlNetBody | None, size: Size, source: Image.Image | None, model: ModelFile
) -> tuple[ControlUnit, ...]:
    """Return the units that are on. A unit without a picture uses the `source` of img2img.

    Raises InvalidValue and InvalidPicture.
    """
    if body is None or not body.enabled:
        return ()
    units = []
    for index, unit in enumerate(body.units):
        field = unit_field(index)
        if is_on(unit):
            units.append(_parse_unit(parser, unit, field, size, source, model))
            parser.warn(*_unused_values(unit, field, units[-1]))
        elif unit.enabled:
            parser.warn(f"{field} is off, because its model is {unit.model!r}")
    return tuple(units)


def is_on(unit: ControlUnitBody) -> bool:
    """Whether a unit is used: the "none" entry of a model menu switches it off."""
    return unit.enabled and not (unit.model is not None and is_no_choice(unit.model))


def unit_field(index: int) -> str:
    """Return the path of a unit in the request."""
    return f"controlnet.units[{index}]"


def _parse_unit(
    parser: Parser, unit: ControlUnitBody, field: str, size: Size, source: Image.Image | None, model: ModelFile
) -> ControlUnit:
    picture = source
    if unit.input_image is not None:
        picture = parser.pictures.decode(unit.input_image, f"{field}.input_image", backdrop=_backdrop(unit))
    if picture is None:
        raise InvalidPicture(
            f"{field}.input_image is missing",
            field=f"{field}.input_image",
            hint="send a data URL, base64, or the name of an upload; or set the unit's enabled to false",
        )
    if not unit.model:
        available = parser.catalog.names("controlnet")
        raise InvalidValue(
            f"{field}.model is missing",
            field=f"{field}.model",
            hint=f"use {' or '.join(available[:10])}" if available else "put a ControlNet into data/models/controlnet",
        )
    if unit.guidance_start > unit.guidance_end:
        raise InvalidValue(
            f"{field}.guidance_start {unit.guidance_start:g} is after its guidance_end {unit.guidance_end:g}",
            field=f"{field}.guidance_start",
            hint="use a guidance_start that is not greater than guidance_end",
        )
    _check_control_type(unit, field)
    file = find_fitting_file(parser.catalog, CONTROLNET, unit.model, f"{field}.model", model)
    return ControlUnit(
        model=file,
        picture=as_picture(fit(picture, size, unit.resize_mode)),
        preprocessing=_choose_preprocessing(parser.catalog, unit, field, size),
        weight=unit.weight,
        start=unit.guidance_start,
        end=unit.guidance_end,
        mode=unit.control_mode,
        union_type=_union_type(unit, parser.catalog.model_file("controlnet", file)),
    )


def _check_control_type(unit: ControlUnitBody, field: str) -> None:
    """Raise InvalidValue for an unknown control type, for which a union ControlNet would choose by itself."""
    control_type = unit.control_type
    if control_type is None or is_default_choice(control_type) or is_control_type(control_type):
        return
    known = sorted({"canny", *UNION_TYPES})
    closest = difflib.get_close_matches(control_type.lower(), {*known, *PREPROCESSORS, *SYNONYMS}, n=1)
    raise InvalidValue(
        f"{field}.control_type {control_type!r} is unknown",
        field=f"{field}.control_type",
        hint=f"did you mean {closest[0]}?" if closest else f"use one of {', '.join(known)}",
        value=control_type,
    )


def _unused_values(unit: ControlUnitBody, field: str, parsed: ControlUnit) -> list[str]:
    """Return warnings of a unit's values that have no effect."""
    warnings = []
    if parsed.start == parsed.end:
        warnings.append(f"{field} has no effect: it begins and ends at {parsed.start:g}")
    control_type = preprocessor_name(unit.control_type or "none")
    understood = ("canny", *PREPROCESSORS, *(UNION_TYPES if parsed.union_type else ()))
    is_left_to_us = is_default_choice(control_type) or control_type == "all"
    if parsed.union_type == "auto" and not is_left_to_us:
        warnings.append(f"{field}.control_type {unit.control_type!r} has no effect: {parsed.model} has no such type")
    elif unit.preprocessor is None and control_type not in understood and not is_left_to_us:
        warnings.append(
            f"{field}.control_type {unit.control_type!r} has no effect: it names no preprocessor, so the picture is "
            "used as a control map"
        )
    return warnings


def _choose_preprocessing(catalog: ModelCatalog, unit: ControlUnitBody, field: str, size: Size) -> Preprocessing | None:
    wanted = _wanted_preprocessor(unit)
    if wanted == "none":
        return None
    resolution = None if unit.pixel_perfect else unit.resolution
    if wanted == "canny":
        thresholds = (unit.threshold_a, unit.threshold_b)
        low, high = sorted(min(max(value / 255, MIN_THRESHOLD), MAX_THRESHOLD) for value in thresholds)
        inputs = (("low_threshold", round(low, 4)), ("high_threshold", round(high, 4)))
        return Preprocessing("Canny", inputs, resolution)
    node = PREPROCESSORS.get(wanted)
    if node is None or not catalog.has_node(node):
        raise _unavailable_preprocessor(catalog, unit, field, wanted)
    return Preprocessing(node, (("resolution", resolution or max(MIN_RESOLUTION, min(size))),))


def _unavailable_preprocessor(catalog: ModelCatalog, unit: ControlUnitBody, field: str, wanted: str) -> InvalidValue:
    """The error for a preprocessor that is unknown, or whose node is not installed; it names what to install."""
    available = ", ".join(["none", "canny", *(name for name, node in PREPROCESSORS.items() if catalog.has_node(node))])
    sent_field = "preprocessor" if unit.preprocessor is not None else "control_type"
    node = PREPROCESSORS.get(wanted)
    if node is None:
        closest = difflib.get_close_matches(wanted, PREPROCESSORS, n=1)
        reason, package = "is unknown", None
        more = f"did you mean {closest[0]}?" if closest else f"the custom nodes {PACKAGE} in data/custom_nodes add more"
    else:
        reason, package = f"needs the node {node}, which this engine does not have", PACKAGE
        more = f"to install the custom nodes {PACKAGE}, put them into data/custom_nodes and restart"
    value = getattr(unit, sent_field)
    return InvalidValue(
        f"{field}.{sent_field} {value!r} {reason}",
        field=f"{field}.{sent_field}",
        hint=f"use one of {available}; {more}",
        value=value,
        node=node,
        package=package,
    )


def _backdrop(unit: ControlUnitBody) -> str:
    """Return the colour that replaces transparency in a unit's picture: black in control maps, white in pictures."""
    control_type = (unit.control_type or "").lower()
    is_map = _wanted_preprocessor(unit) == "none" and not control_type.startswith(PICTURE_TYPES)
    return "black" if is_map else "white"


def _wanted_preprocessor(unit: ControlUnitBody) -> str:
    """Return the preprocessor; without one, the control type if there is a preprocessor of that name."""
    if unit.preprocessor is not None:
        return "none" if is_no_choice(unit.preprocessor) else preprocessor_name(unit.preprocessor)
    control_type = preprocessor_name(unit.control_type or "none")
    return control_type if control_type == "canny" or control_type in PREPROCESSORS else "none"


def _union_type(unit: ControlUnitBody, file: ModelFile) -> str | None:
    """Return the type that a union ControlNet is set to; None for a ControlNet of a single type."""
    if not file.union:
        return None
    types = (UNION_TYPES.get(preprocessor_name(name)) for name in (unit.control_type, unit.preprocessor) if name)
    return next((union_type for union_type in types if union_type is not None), "auto")
