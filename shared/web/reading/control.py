"""ControlNet units: which network, which picture, and what makes a control map of it."""

from PIL import Image

from shared.engine.families import ModelFile
from shared.errors import InvalidPicture, InvalidValue
from shared.fitting import as_picture, fit
from shared.schema.body import ControlNetBody, ControlUnitBody
from shared.schema.request import ControlUnit, Preprocessing, Size
from shared.web.reading.inventory import Inventory
from shared.web.reading.matching import find_fitting
from shared.web.reading.pictures import SentPictures
from workflows.preprocessors import PREPROCESSORS, UNION_TYPES

NOTHING = ("none", "")
# Canny's thresholds in the engine; those of the request go from 0 to 255.
LOWEST, HIGHEST = 0.01, 0.99
# Pixels; those custom nodes take no less.
LEAST_RESOLUTION = 64


def read_controls(
    body: ControlNetBody | None,
    size: Size,
    source: Image.Image | None,
    sent: SentPictures,
    inventory: Inventory,
    chosen: ModelFile,
    warnings: list[str],
) -> tuple[tuple[ControlUnit, ...], dict[int, str]]:
    """The units that are on, and by the index of the unit the names of the pictures that were sent.

    A unit without a picture takes the `source` of img2img. Raises InvalidValue and InvalidPicture.
    """
    units, names = [], {}
    if body is not None and body.enabled:
        for index, unit in enumerate(body.units):
            if not unit.enabled:
                continue
            field = f"controlnet.units[{index}]"
            picture = source
            if unit.input_image is not None:
                picture, names[index] = sent.decode(unit.input_image, f"{field}.input_image")
            units.append(_unit(unit, field, size, picture, inventory, chosen))
            warnings += _without_effect(unit, field, units[-1])
    return tuple(units), names


def _unit(
    unit: ControlUnitBody,
    field: str,
    size: Size,
    picture: Image.Image | None,
    inventory: Inventory,
    chosen: ModelFile,
) -> ControlUnit:
    if picture is None:
        raise InvalidPicture(
            f"{field}.input_image is missing",
            field=f"{field}.input_image",
            hint="send a data URL, base64, or the name that an upload was given; or set the unit's enabled to false",
        )
    available = inventory.names("controlnet")
    if unit.model is None or unit.model.lower() in NOTHING:
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
    model = find_fitting(unit.model, inventory, "controlnet", f"{field}.model", "ControlNet", chosen)
    return ControlUnit(
        model=model,
        picture=as_picture(fit(picture, size, unit.resize_mode)),
        preprocessing=_preprocessing(unit, field, size, inventory),
        weight=unit.weight,
        start=unit.guidance_start,
        end=unit.guidance_end,
        mode=unit.control_mode,
        union_type=_union_type(unit, inventory.model_file("controlnet", model)),
    )


def _without_effect(unit: ControlUnitBody, field: str, read: ControlUnit) -> list[str]:
    """Warnings about what was sent for a unit and changes nothing."""
    found = []
    if read.start == read.end:
        found.append(f"{field} has no effect: it begins and ends at {read.start:g}")
    kind = (unit.control_type or "").lower()
    understood = (*NOTHING, "canny", *PREPROCESSORS, *(UNION_TYPES if read.union_type else ()))
    if unit.preprocessor is None and kind not in understood:
        found.append(
            f"{field}.control_type {unit.control_type!r} has no effect: it names no preprocessor, so the picture is "
            "taken for a control map"
        )
    return found


def _preprocessing(unit: ControlUnitBody, field: str, size: Size, inventory: Inventory) -> Preprocessing | None:
    wanted = _kind(unit)
    if wanted in NOTHING:
        return None
    resolution = None if unit.pixel_perfect else unit.resolution
    if wanted == "canny":
        low, high = sorted(min(max(value / 255, LOWEST), HIGHEST) for value in (unit.threshold_a, unit.threshold_b))
        inputs = (("low_threshold", round(low, 4)), ("high_threshold", round(high, 4)))
        return Preprocessing("Canny", inputs, resolution)
    node = PREPROCESSORS.get(wanted)
    if node is None or not inventory.has_node(node):
        there = ", ".join(
            ["none", "canny", *(name for name, each in PREPROCESSORS.items() if inventory.has_node(each))]
        )
        raise InvalidValue(
            f"{field}.preprocessor {wanted!r} "
            + ("is not known" if node is None else f"needs the node {node}, which this engine does not have"),
            field=f"{field}.preprocessor",
            hint=f"there is {there}; the custom nodes comfyui_controlnet_aux in data/custom_nodes bring more",
            value=wanted,
            node=node,
        )
    return Preprocessing(node, (("resolution", resolution or max(LEAST_RESOLUTION, min(size))),))


def _kind(unit: ControlUnitBody) -> str:
    """The preprocessor asked for; the control type where none is, if that is one."""
    if unit.preprocessor is not None:
        return unit.preprocessor.lower()
    kind = (unit.control_type or "none").lower()
    return kind if kind == "canny" or kind in PREPROCESSORS else "none"


def _union_type(unit: ControlUnitBody, file: ModelFile) -> str | None:
    """What a ControlNet for several kinds of maps is told; None for those made for one."""
    if not file.union:
        return None
    return UNION_TYPES.get((unit.control_type or unit.preprocessor or "").lower(), "auto")
