"""The parameters in a picture's file: as our API takes them, and as the text that Stable Diffusion programs read."""

from __future__ import annotations

import json
from typing import Any

from shared import __version__
from shared.images.embedded_text import BrokenPng, with_texts
from shared.jobs.job import JobRow
from shared.jobs.picture_names import picture_index, picture_number
from shared.metadata.infotext import write_infotext

# The keys of the texts. Ours comes first, so that the first bytes of a file show whether it has parameters.
OURS, THEIRS = "dream_layer", "parameters"
# The kinds of job that the text of other programs can describe.
GENERATION_KINDS = ("txt2img", "img2img")


def with_parameters(png: bytes, row: JobRow, filename: str) -> bytes:
    """The job's picture with its parameters embedded; unchanged if it has none, or if it is not a complete PNG."""
    parameters = picture_parameters(row, filename)
    if parameters is None:
        return png
    texts = {OURS: json.dumps({"version": __version__, "kind": row.kind, "parameters": parameters})}
    if row.kind in GENERATION_KINDS:
        texts[THEIRS] = _infotext(row, parameters)
    try:
        return with_texts(png, texts)
    except BrokenPng:
        return png


def infotext(row: JobRow, filename: str) -> str | None:
    """The text that other programs read, for formats other than PNG; None if the picture has no such text."""
    parameters = picture_parameters(row, filename) if row.kind in GENERATION_KINDS else None
    return None if parameters is None else _infotext(row, parameters)


def _infotext(row: JobRow, parameters: dict[str, Any]) -> str:
    return write_infotext({**parameters, **row.spec.label_parameters}, row.kind)


def picture_parameters(row: JobRow, filename: str) -> dict[str, Any] | None:
    """The parameters that reproduce this one picture of a job; None if none do, or if the job embeds none."""
    spec = row.spec
    if not spec.parameters or not spec.repeatable or not spec.embeds_parameters:
        return None
    # In an imported graph, a seed reproduces only the first picture of a batch.
    if row.has_imported_graph and picture_index(filename) > 0:
        return None
    parameters = dict(spec.parameters)
    seeds, index = spec.seeds, picture_number(filename) - 1
    if index < len(seeds):
        parameters |= {"seed": seeds[index], "batch_size": 1, "batch_count": 1}
    units = (parameters.get("controlnet") or {}).get("units", ())
    # Disabled units have no effect, and may contain whole pictures.
    enabled = [unit for unit in units if unit.get("enabled", True)]
    if len(enabled) < len(units):
        parameters["controlnet"] = {"units": enabled}
    return parameters
