"""ControlNet units: which network, which picture, and what makes a control map of it."""

import difflib

from PIL import Image

from shared.errors import InvalidPicture, InvalidValue
from shared.images.fit import as_picture, fit
from shared.models.detect import ModelFile
from shared.schema.body import ControlNetBody, ControlUnitBody
from shared.schema.choices import is_default_choice, is_no_choice
from shared.schema.request import ControlUnit, Preprocessing, Size
from shared.web.parsing.compatibility import find_fitting
from shared.web.parsing.model_catalog import ModelCatalog
from shared.web.parsing.pictures import SentPictures
from workflows.preprocessors import PACKAGE, PREPROCESSORS, SYNONYMS, UNION_TYPES, is_control_type, preprocessor_name

# Kinds of control that are shown a picture, not a map of it.
OF_PICTURES = (
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
# Canny's thresholds in the engine; those of the request go from 0 to 255.
LOWEST, HIGHEST = 0.01, 0.99
# Pixels; those custom nodes take no less.
LEAST_RESOLUTION = 64


def read_controls(
    body: ControlNetBody | None,
    size: Size,
    source: Image.Image | None,
    sent: SentPictures,
    catalog: ModelCatalog,
    chosen: ModelFile,
    warnings: list[str],
) -> tuple[tuple[ControlUnit, ...], dict[int, str]]:
    """The units that are on, and by the index of the unit the names of the pictures that were sent.

    A unit without a picture takes the `source` of img2img. Raises InvalidValue and InvalidPicture.
    """
    units, names = [], {}
    if body is not None and body.enabled:
        for index, unit in enumerate(body.units):
            field = f"controlnet.units[{index}]"
            if not is_on(unit):
                if unit.enabled:
                    warnings.append(f"{field} is off, because its model is {unit.model!r}")
                continue
            picture = source
            if unit.input_image is not None:
                picture, names[index] = sent.decode(unit.input_image, f"{field}.input_image", backdrop=_backdrop(unit))
            units.append(_unit(unit, field, size, picture, catalog, chosen))
            warnings += _without_effect(unit, field, units[-1])
    return tuple(units), names


def is_on(unit: ControlUnitBody) -> bool:
    """Whether a unit is to act: a menu in which no model was chosen switches it off."""
    return unit.enabled and not (unit.model is not None and is_no_choice(unit.model))


def _unit(
    unit: ControlUnitBody,
    field: str,
    size: Size,
    picture: Image.Image | None,
    catalog: ModelCatalog,
    chosen: ModelFile,
) -> ControlUnit:
    if picture is None:
        raise InvalidPicture(
            f"{field}.input_image is missing",
            field=f"{field}.input_image",
            hint="send a data URL, base64, or the name that an upload was given; or set the unit's enabled to false",
        )
    available = catalog.names("controlnet")
    if not unit.model:
        raise InvalidValue(
            f"{field}.model is missing",
            field=f"{field}.model",
            hint=f"there is {', '.join(available[:10])}" if available else "put one into data/models/controlnet",
        )
    if unit.guidance_start > unit.guidance_end:
        raise InvalidValue(
            f"{field}.guidance_start {unit.guidance_start:g} is after its guidance_end {unit.guidance_end:g}",
            field=f"{field}.guidance_start",
            hint="the unit acts between the two",
        )
    _check_type(unit, field)
    model = find_fitting(unit.model, catalog, "controlnet", f"{field}.model", "ControlNet", chosen)
    return ControlUnit(
        model=model,
        picture=as_picture(fit(picture, size, unit.resize_mode)),
        preprocessing=_preprocessing(unit, field, size, catalog),
        weight=unit.weight,
        start=unit.guidance_start,
        end=unit.guidance_end,
        mode=unit.control_mode,
        union_type=_union_type(unit, catalog.model_file("controlnet", model)),
    )


def _check_type(unit: ControlUnitBody, field: str) -> None:
    """Raises InvalidValue for a type of control that there is not: a ControlNet for several would choose by itself."""
    sent = unit.control_type
    if sent is None or is_default_choice(sent) or is_control_type(sent):
        return
    known = sorted({"canny", *UNION_TYPES})
    near = difflib.get_close_matches(sent.lower(), {*known, *PREPROCESSORS, *SYNONYMS}, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}"
    raise InvalidValue(
        f"{field}.control_type {sent!r} is not known", field=f"{field}.control_type", hint=hint, value=sent
    )


def _without_effect(unit: ControlUnitBody, field: str, read: ControlUnit) -> list[str]:
    """Warnings about what was sent for a unit and changes nothing."""
    found = []
    if read.start == read.end:
        found.append(f"{field} has no effect: it begins and ends at {read.start:g}")
    kind = preprocessor_name(unit.control_type or "none")
    understood = ("canny", *PREPROCESSORS, *(UNION_TYPES if read.union_type else ()))
    no_choice = is_default_choice(kind) or kind == "all"
    if read.union_type == "auto" and not no_choice:
        found.append(f"{field}.control_type {unit.control_type!r} has no effect: {read.model} has no such type")
    elif unit.preprocessor is None and kind not in understood and not no_choice:
        found.append(
            f"{field}.control_type {unit.control_type!r} has no effect: it names no preprocessor, so the picture is "
            "taken for a control map"
        )
    return found


def _preprocessing(unit: ControlUnitBody, field: str, size: Size, catalog: ModelCatalog) -> Preprocessing | None:
    wanted = _kind(unit)
    if wanted == "none":
        return None
    resolution = None if unit.pixel_perfect else unit.resolution
    if wanted == "canny":
        low, high = sorted(min(max(value / 255, LOWEST), HIGHEST) for value in (unit.threshold_a, unit.threshold_b))
        inputs = (("low_threshold", round(low, 4)), ("high_threshold", round(high, 4)))
        return Preprocessing("Canny", inputs, resolution)
    node = PREPROCESSORS.get(wanted)
    if node is None or not catalog.has_node(node):
        raise _no_preprocessor(unit, field, wanted, node, catalog)
    return Preprocessing(node, (("resolution", resolution or max(LEAST_RESOLUTION, min(size))),))


def _no_preprocessor(
    unit: ControlUnitBody, field: str, wanted: str, node: str | None, catalog: ModelCatalog
) -> InvalidValue:
    """The error for a preprocessor that is not known, or whose node is not installed: then it names what to install."""
    there = ", ".join(["none", "canny", *(name for name, each in PREPROCESSORS.items() if catalog.has_node(each))])
    named = "preprocessor" if unit.preprocessor is not None else "control_type"
    if node is None:
        near = difflib.get_close_matches(wanted, PREPROCESSORS, n=1)
        why, package = "is not known", None
        more = f"did you mean {near[0]}?" if near else f"the custom nodes {PACKAGE} in data/custom_nodes bring more"
    else:
        why, package = f"needs the node {node}, which this engine does not have", PACKAGE
        more = f"install the custom nodes {PACKAGE}: put them into data/custom_nodes and start again"
    sent = getattr(unit, named)
    return InvalidValue(
        f"{field}.{named} {sent!r} {why}",
        field=f"{field}.{named}",
        hint=f"there is {there}; {more}",
        value=sent,
        node=node,
        package=package,
    )


def _backdrop(unit: ControlUnitBody) -> str:
    """What shows where a unit's picture is transparent: the ground of a control map is black, a picture's is white."""
    kind = (unit.control_type or "").lower()
    is_map = _kind(unit) == "none" and not kind.startswith(OF_PICTURES)
    return "black" if is_map else "white"


def _kind(unit: ControlUnitBody) -> str:
    """The preprocessor asked for; the control type where none is, if that is one."""
    if unit.preprocessor is not None:
        return "none" if is_no_choice(unit.preprocessor) else preprocessor_name(unit.preprocessor)
    kind = preprocessor_name(unit.control_type or "none")
    return kind if kind == "canny" or kind in PREPROCESSORS else "none"


def _union_type(unit: ControlUnitBody, file: ModelFile) -> str | None:
    """What a ControlNet for several kinds of maps is told; None for those made for one."""
    if not file.union:
        return None
    told = (UNION_TYPES.get(preprocessor_name(name)) for name in (unit.control_type, unit.preprocessor) if name)
    return next((each for each in told if each is not None), "auto")
