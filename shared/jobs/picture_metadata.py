"""What a picture was made with, put into its file: as the Stable Diffusion world writes it, and as our API takes it."""

from __future__ import annotations

import json
from typing import Any

from shared import __version__
from shared.images.embedded_text import BrokenPng, with_texts
from shared.jobs.job import JobRow
from shared.jobs.picture_names import picture_index, picture_number
from shared.metadata.infotext import write_infotext

# Our own text comes first, so that the first bytes of a file tell whether it is there.
OURS, THEIRS = "dream_layer", "parameters"
# The kinds that the text of the others can describe.
GENERATIONS = ("txt2img", "img2img")


def with_parameters(png: bytes, row: JobRow, filename: str) -> bytes:
    """The job's picture of that name with its recipe; as it is if there is none, or if it is no whole PNG."""
    parameters = picture_parameters(row, filename)
    if parameters is None:
        return png
    texts = {OURS: json.dumps({"version": __version__, "kind": row.kind, "parameters": parameters})}
    if row.kind in GENERATIONS:
        texts[THEIRS] = _infotext(row, parameters)
    try:
        return with_texts(png, texts)
    except BrokenPng:
        return png


def infotext(row: JobRow, filename: str) -> str | None:
    """The text that the Stable Diffusion world reads, for formats other than PNG."""
    parameters = picture_parameters(row, filename) if row.kind in GENERATIONS else None
    return None if parameters is None else _infotext(row, parameters)


def _infotext(row: JobRow, parameters: dict[str, Any]) -> str:
    return write_infotext({**parameters, **row.spec.label_parameters}, row.kind)


def picture_parameters(row: JobRow, filename: str) -> dict[str, Any] | None:
    """The API's fields that make this one picture of a job again; None if there are none, or if they stay untold."""
    spec = row.spec
    if not spec.parameters or not spec.repeatable or not spec.embeds_parameters:
        return None
    # The seed makes the first picture of a batch; for the others no field of the API would.
    if row.has_imported_graph and picture_index(filename) > 0:
        return None
    parameters = dict(spec.parameters)
    seeds, index = spec.seeds, picture_number(filename) - 1
    if index < len(seeds):
        parameters |= {"seed": seeds[index], "batch_size": 1, "batch_count": 1}
    units = (parameters.get("controlnet") or {}).get("units", ())
    # Those that are off may hold whole pictures, and do nothing.
    if len(on := [unit for unit in units if unit.get("enabled", True)]) < len(units):
        parameters["controlnet"] = {"units": on}
    return parameters
