"""Plain fields become a complete request: defaults chosen, seed drawn, pictures decoded and brought to size."""

import difflib
import secrets
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from shared.defaults import choose_checkpoint, defaults_for, usual_pixels
from shared.errors import EngineUnavailable, InvalidPicture, InvalidValue
from shared.images import choose_size, fit_mask, fit_picture, read_mask, read_picture
from shared.schema import Img2ImgRequest, Sides, Txt2ImgRequest
from shared.web.body import Fields

R = TypeVar("R", bound=BaseModel)

TEXT_FIELDS = ("prompt", "negative_prompt")
PICTURE_FIELDS = ("input_image", "mask")
# Names that a request does not have itself: a switch for the seed, and the usual name of a form's file.
FURTHER_FIELDS = {Txt2ImgRequest: {"random_seed"}, Img2ImgRequest: {"random_seed", "image"}}
# Below this, a hole that VAEEncodeForInpaint greyed keeps visible grey.
FULL_REPAINT = 0.9


def read_txt2img(
    fields: Fields, preferred: str | None, checkpoints: Callable[[], Sequence[str]]
) -> tuple[Txt2ImgRequest, list[str]]:
    """The request in `fields`, and warnings about what was ignored.

    `preferred` is the checkpoint of the settings; `checkpoints` lists those that there are, and is asked only when the
    client names none. Raises InvalidValue.
    """
    values, warnings = _common(Txt2ImgRequest, fields, preferred, checkpoints)
    return _validate(Txt2ImgRequest, values), warnings


def read_img2img(
    fields: Fields, preferred: str | None, checkpoints: Callable[[], Sequence[str]]
) -> tuple[Img2ImgRequest, list[str]]:
    """Like `read_txt2img`, with the picture and the mask. Raises InvalidPicture too."""
    source_bytes = fields.picture("input_image", "image")
    if source_bytes is None:
        raise InvalidPicture(
            "input_image is missing",
            field="input_image",
            hint="send input_image as a data URL or base64, or a form with a file named image",
        )
    source = read_picture(source_bytes, "input_image")
    mask_bytes = fields.picture("mask")
    mask = read_mask(mask_bytes, "mask") if mask_bytes is not None else None

    values, warnings = _common(Img2ImgRequest, fields, preferred, checkpoints)
    asked = _validate(Sides, _sent(fields, {"width", "height"}))
    size = choose_size(source.size, asked.width, asked.height, usual_pixels(str(values["model_name"])))
    if asked == Sides() and size != source.size:
        warnings.append(
            f"input_image has {source.width}x{source.height} pixels and was scaled to {size[0]}x{size[1]}; "
            "send width and height for another size"
        )
    if _stretched(source.size, size):
        warnings.append(f"input_image was stretched from {source.width}x{source.height} to {size[0]}x{size[1]}")
    values.update(width=size[0], height=size[1], input_image=fit_picture(source, size))
    if mask is not None:
        if _stretched(mask.size, source.size):
            warnings.append(
                f"mask has other proportions ({mask.width}x{mask.height}) than input_image and was stretched"
            )
        values.update(mask=fit_mask(mask, size))
        values.setdefault("denoising_strength", 1.0)
    request = _validate(Img2ImgRequest, values)
    if request.mask is not None and request.denoising_strength < FULL_REPAINT:
        warnings.append(
            f"denoising_strength {request.denoising_strength:g} leaves grey in the masked part, which is greyed out "
            "before it is repainted; leave denoising_strength out, or use 1"
        )
    return request, warnings


def _common(
    model: type[Txt2ImgRequest] | type[Img2ImgRequest],
    fields: Fields,
    preferred: str | None,
    checkpoints: Callable[[], Sequence[str]],
) -> tuple[dict[str, Any], list[str]]:
    """The values for `model` from `fields` with checkpoint, seed and the checkpoint's own defaults filled in."""
    values = _sent(fields, model.model_fields.keys() - set(PICTURE_FIELDS))
    if _is_true(fields.values.get("random_seed")) or str(values.get("seed", -1)) == "-1":
        # 32 bits: any JSON reader keeps them exactly.
        values["seed"] = secrets.randbelow(2**32)
    if not values.get("model_name"):
        chosen = choose_checkpoint(preferred, checkpoints())
        if chosen is None:
            raise EngineUnavailable(
                "the engine has no checkpoint to draw with",
                hint="put a .safetensors file into data/models/checkpoints",
            )
        values["model_name"] = chosen
    values = {**defaults_for(str(values["model_name"])), **values}
    understood = model.model_fields.keys() | FURTHER_FIELDS[model]
    return values, _ignored([name for name in [*fields.values, *fields.files] if name not in understood], understood)


def _sent(fields: Fields, names: Collection[str]) -> dict[str, Any]:
    """What the client sent of `names`. An empty text where no text belongs is a field of a form left empty."""
    return {
        name: value for name, value in fields.values.items() if name in names and (value != "" or name in TEXT_FIELDS)
    }


def _ignored(names: list[str], understood: set[str]) -> list[str]:
    """One warning that names every field that was not used, and what may have been meant."""
    if not names:
        return []
    said = []
    for name in names:
        near = difflib.get_close_matches(name, understood, n=1, cutoff=0.75)
        said.append(f"{name} (did you mean {near[0]}?)" if near else name)
    return [f"ignored, because not known here: {', '.join(said)}"]


def _is_true(value: Any) -> bool:
    return value is True or str(value).lower() in ("true", "1", "on", "yes")


def _stretched(before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether the proportions differ by more than two per cent."""
    return abs(before[0] * after[1] - before[1] * after[0]) > 0.02 * before[0] * after[1]


def _validate(model: type[R], values: dict[str, Any]) -> R:
    try:
        return model(**values)
    except ValidationError as error:
        problems = [_problem(item) for item in error.errors(include_url=False)]
        raise InvalidValue(
            problems[0]["message"],
            field=problems[0]["field"],
            hint=None if problems[0]["field"] == "prompt" else "leave it out, or send null, for the default",
            problems=problems if len(problems) > 1 else None,
        ) from error


def _problem(item: Any) -> dict[str, str]:
    """A pydantic error as the field and a sentence with the range and the value."""
    field = str(item["loc"][0])
    if item["type"] == "missing":
        return {"field": field, "message": f"{field} is missing"}
    shown = repr(item["input"])
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return {"field": field, "message": f"{field} must be {_right_value(field)}, not {shown}"}


def _right_value(field: str) -> str:
    """What the schema asks of a field, in words: "a whole number from 16 to 4096"."""
    if field == "seed":
        return "a whole number from 0 to 2^64-1, or -1 for a random one"
    declared = Img2ImgRequest.model_json_schema()["properties"][field]
    if declared["type"] == "boolean":
        return "true or false"
    if declared["type"] == "string":
        return f"text of at most {declared['maxLength']} characters" if "maxLength" in declared else "text"
    kind = "a whole number" if declared["type"] == "integer" else "a number"
    return f"{kind} from {declared['minimum']:g} to {declared['maximum']:g}"
