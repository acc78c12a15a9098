"""Reads and writes infotexts: the generation parameters that Stable Diffusion programs store in a picture. Pure.

    a red circle <lora:outline:0.8>
    Negative prompt: blurry
    Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 42, Size: 512x512, Model: name, ...

The format and its labels are those of AUTOMATIC1111's web UI, which other programs use too. `write_infotext` and
`read_infotext` convert between it and the API's fields. Input pictures and masks are not part of it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shared import __version__
from shared.metadata.labels import (
    CONTROL,
    FACES,
    HIRES,
    IGNORED,
    IMG2IMG,
    PLAIN,
    POSTPROCESS,
    REFINER,
    Label,
    read_file,
    read_float,
    write_file,
    write_number,
)
from shared.metadata.sampler_labels import read_sampler_label
from shared.schema.body import ControlUnitBody, Img2ImgBody

NEGATIVE = "Negative prompt:"
STRENGTH, HIRES_STRENGTH = "Denoising strength", "Hires denoising strength"
HIRES_LABELS = {label.text.casefold() for label in HIRES} | {"hires upscale", "hires resize"}
# The labels of img2img alone: in txt2img, the denoising strength is that of the hires pass.
IMG2IMG_LABELS = {label.text.casefold() for label in IMG2IMG} - {STRENGTH.casefold()} | {HIRES_STRENGTH.casefold()}
SIZE = re.compile(r"(\d{1,5})\s?x\s?(\d{1,5})")
NUMBERED = re.compile(r"(?P<label>controlnet|text encoder|module) ?\d+")
LABEL = re.compile(r"[ \t]*(?P<label>\w[^:,\n\"]{0,60}?)[ \t]?:[ \t]*")
QUOTED = re.compile(r'"(?:\\.|[^"\\])*"(?=\s*(?:,|\n|$))')
PARENTHESES = re.compile(r"\([^()\n]*\)(?=\s*(?:,|\n|$))")
UNQUOTED = re.compile(r"[^,\n]*")
FEWEST_LABELS = 3
# Longer texts are not read. A prompt has up to 20,000 characters; real texts have a few thousand in all.
LONGEST_INFOTEXT = 100_000
# How many bracketed values of one text may fail to parse as JSON: each attempt may read the whole text.
MOST_BROKEN = 10
# How many unknown labels a warning names.
MOST_NAMED = 20


@dataclass(frozen=True)
class GenerationParameters:
    """The parameters read from a picture: `kind` is txt2img or img2img, `parameters` are fields ready to be sent."""

    kind: str
    parameters: dict[str, Any]
    warnings: list[str]


def write_infotext(parameters: Mapping[str, Any], kind: str = "txt2img") -> str:
    """The infotext of a picture with these parameters, which are the fields that a job reports."""
    sent = {name: value for name, value in parameters.items() if value is not None}
    pairs = [pair for label in PLAIN if (pair := label.write(sent)) is not None]
    if "width" in sent and "height" in sent:
        pairs.append(("Size", f"{sent['width']}x{sent['height']}"))
    if kind == "img2img":
        pairs += [pair for label in IMG2IMG if (pair := label.write(sent)) is not None]
    pairs += [(f"Text encoder {n}", name) for n, name in enumerate(sent.get("text_encoders", ()), 1)]
    units = (sent.get("controlnet") or {}).get("units", ())
    pairs += [(f"ControlNet {n}", _write_unit(unit)) for n, unit in enumerate(units) if unit.get("enabled", True)]
    values = {name: field.default for name, field in Img2ImgBody.model_fields.items()} | sent
    if values["hires_fix"]:
        pairs += _write_hires(values, STRENGTH if kind == "txt2img" else HIRES_STRENGTH)
    for field, labels in (("refiner_enabled", REFINER), ("upscaler", POSTPROCESS), ("restore_faces", FACES)):
        if values[field]:
            pairs += [pair for label in labels if (pair := label.write(values)) is not None]
    pairs.append(("Version", f"Dream Layer {__version__}"))
    negative = str(sent.get("negative_prompt", "")).strip()
    lines = [_prompt_with_loras(sent), f"{NEGATIVE} {negative}" if negative else "", _join(pairs)]
    return "\n".join(line for line in lines if line)


def read_infotext(text: str) -> GenerationParameters | None:
    """The parameters in an infotext; None if it has another format, or more than `LONGEST_INFOTEXT` characters.

    Takes time in proportion to the length of any text.
    """
    if len(text) > LONGEST_INFOTEXT:
        return None
    prompts, labels = _divide(text.replace("\r\n", "\n").strip())
    if not labels:
        return None
    prompt, negative = _read_prompts(prompts)
    parameters: dict[str, Any] = {"prompt": prompt, "negative_prompt": negative}
    names = {label.casefold(): label for label in labels}
    remaining = {label.casefold(): value for label, value in labels.items()}
    has_hires = not HIRES_LABELS.isdisjoint(remaining)
    is_strength_alone = STRENGTH.casefold() in remaining and not has_hires
    kind = "img2img" if is_strength_alone or not IMG2IMG_LABELS.isdisjoint(remaining) else "txt2img"
    if has_hires:
        parameters |= {"hires_fix": True, **_read_hires(remaining, kind)}
    for label in (*PLAIN, *REFINER, *POSTPROCESS, *FACES, *(IMG2IMG if kind == "img2img" else ())):
        parameters |= label.take(remaining)
    if size := SIZE.fullmatch(remaining.get("size", "")):
        del remaining["size"]
        parameters |= {"width": int(size[1]), "height": int(size[2])}
    parameters |= _read_numbered(remaining)
    if "refiner_model" in parameters:
        parameters["refiner_enabled"] = True
    if "face_restoration_model" in parameters:
        parameters["restore_faces"] = True
    if "sampler_name" in parameters:
        # Older versions wrote the scheduler after the sampler: "DPM++ 2M Karras".
        parameters["sampler_name"], scheduler = read_sampler_label(parameters["sampler_name"])
        if scheduler is not None:
            parameters.setdefault("scheduler", scheduler)
    unknown = [names[label] for label in remaining if label not in IGNORED]
    warnings = [f"ignored unknown labels: {_list_names(unknown)}"] if unknown else []
    return GenerationParameters(
        kind, {name: value for name, value in parameters.items() if value is not None}, warnings
    )


def _prompt_with_loras(parameters: Mapping[str, Any]) -> str:
    """The prompt, followed by the LoRAs that were sent as fields."""
    loras = [parameters["lora"]] if "lora" in parameters else []
    words = [str(parameters.get("prompt", "")).strip()]
    for lora in [*loras, *parameters.get("loras", ())]:
        name = write_file(lora["lora_name"])
        # A tag cannot hold a name with one of its own delimiters.
        if not lora.get("enabled", True) or name.casefold() in ("", "none") or set(name) & set(":<>"):
            continue
        model, clip = lora.get("strength_model", 1.0), lora.get("strength_clip")
        strengths = [model] if clip is None or clip == model else [clip, model]
        words.append(f"<lora:{name}:{':'.join(f'{float(strength):.10g}' for strength in strengths)}>")
    return " ".join(word for word in words if word)


def _write_hires(values: Mapping[str, Any], strength: str) -> list[tuple[str, str]]:
    pairs = [pair for label in HIRES if (pair := label.write(values)) is not None]
    if values["hires_fix_upscale_method"] == "upscale-by":
        pairs.append(("Hires upscale", write_number(values["hires_fix_upscale_factor"])))
    else:
        # 0 is a side that follows from the other.
        width, height = (values[f"hires_fix_resize_{side}"] or 0 for side in ("width", "height"))
        pairs.append(("Hires resize", f"{width}x{height}"))
    pairs.append((strength, write_number(values["hires_fix_denoising_strength"])))
    return pairs


def _read_hires(remaining: dict[str, str], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for label in HIRES:
        found |= label.take(remaining)
    found |= Label("Hires upscale", "hires_fix_upscale_factor", read=read_float).take(remaining)
    resize = SIZE.fullmatch(remaining.pop("hires resize", ""))
    if resize is not None:
        sides = {"hires_fix_resize_width": int(resize[1]) or None, "hires_fix_resize_height": int(resize[2]) or None}
        found |= {"hires_fix_upscale_method": "resize-to", **sides}
    if "hires_fix_sampler_name" in found:
        found["hires_fix_sampler_name"], scheduler = read_sampler_label(found["hires_fix_sampler_name"])
        if scheduler is not None:
            found.setdefault("hires_fix_scheduler", scheduler)
    names = [HIRES_STRENGTH, "Hires strength", *([STRENGTH] if kind == "txt2img" else [])]
    for name in reversed(names):
        found |= Label(name, "hires_fix_denoising_strength", read=read_float).take(remaining)
    return found


def _write_unit(unit: Mapping[str, Any]) -> str:
    values = {name: field.default for name, field in ControlUnitBody.model_fields.items()} | dict(unit)
    return _join([pair for label in CONTROL if (pair := label.write(values)) is not None])


def _read_unit(text: str) -> dict[str, Any]:
    # Older versions wrote these labels in lower case, and pairs as "(0, 1)".
    remaining = {name.casefold(): value for name, value in _pairs(text)}
    for names, value in (
        (("guidance start", "guidance end"), remaining.pop("starting/ending", "")),
        (("processor res", "threshold a", "threshold b"), remaining.pop("preprocessor params", "")),
    ):
        remaining |= {
            name: part.strip() for name, part in zip(names, value.strip("()").split(","), strict=False) if part
        }
    remaining |= {new: remaining.pop(old) for old, new in (("preprocessor", "module"),) if old in remaining}
    unit: dict[str, Any] = {}
    for label in CONTROL:
        unit |= label.take(remaining)
    return unit


def _read_numbered(remaining: dict[str, str]) -> dict[str, Any]:
    """The numbered labels: ControlNets, and files of text encoders (Forge calls them modules)."""
    units, encoders, found = [], [], dict[str, Any]()
    for label in list(remaining):
        match = NUMBERED.fullmatch(label)
        if match is None:
            continue
        value = remaining.pop(label)
        kind = match["label"]
        if kind == "controlnet":
            units.append(_read_unit(value))
        elif kind == "module" and ("vae" in value.casefold() or value.casefold() == "ae"):
            found["vae_name"] = value
        else:
            encoders.append(read_file(value))
    if units:
        found["controlnet"] = {"units": units}
    if encoders:
        found["text_encoders"] = encoders
    return found


def _divide(text: str) -> tuple[str, dict[str, str]]:
    """The lines with the prompts, and the labels of the last lines with their values."""
    lines = text.split("\n")
    starts = [index for index, line in enumerate(lines) if re.match(r"\s*Steps:\s*\d", line)]
    index = starts[-1] if starts else len(lines) - 1
    labels = dict(_pairs("\n".join(lines[index:])))
    # A prompt alone may have a colon in it too.
    if not starts and len(labels) < FEWEST_LABELS:
        return text, {}
    return "\n".join(lines[:index]), labels


def _read_prompts(text: str) -> tuple[str, str]:
    prompt, found, negative = f"\n{text}".partition(f"\n{NEGATIVE}")
    return prompt.strip(), negative.strip() if found else ""


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Labels and values, each "label: value" up to a comma; a value in quotes or brackets may contain commas."""
    position, label, broken = 0, "", 0
    parts: list[str] = []
    while position < len(text):
        match = LABEL.match(text, position)
        if match is not None:
            if label:
                yield label, ", ".join(parts)
            label, position = match["label"], match.end()
            end = None
            if text[position : position + 1] in ("[", "{") and broken < MOST_BROKEN:
                end = _json_end(text, position)
                broken += end is None
            value, position = _value(text, position) if end is None else (text[position:end], end)
            parts = [value]
        else:
            # A comma in a value without quotes.
            more = UNQUOTED.match(text, position)
            position = more.end() if more is not None else len(text)
            if more is not None and more[0].strip():
                parts.append(more[0].strip())
        position += 1
    if label:
        yield label, ", ".join(parts)


def _json_end(text: str, position: int) -> int | None:
    """The end of the JSON value that begins at `position`; None if it is not valid."""
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, position)[1]
    except (ValueError, RecursionError):
        return None


def _value(text: str, position: int) -> tuple[str, int]:
    """The value that begins at `position`, in quotes, in parentheses or plain, and its end."""
    match = QUOTED.match(text, position)
    if match is not None:
        try:
            return str(json.loads(match[0], strict=False)), match.end()
        except ValueError:
            return match[0][1:-1], match.end()
    match = PARENTHESES.match(text, position) or UNQUOTED.match(text, position)
    return (match[0].strip(), match.end()) if match is not None else ("", len(text))


def _list_names(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _join(pairs: list[tuple[str, str]]) -> str:
    return ", ".join(f"{label}: {_quote(value)}" for label, value in pairs)


def _quote(value: str) -> str:
    if value and value == value.strip() and not re.search(r'[,:\n"]|^[\[{(]', value):
        return value
    return json.dumps(value, ensure_ascii=False)
