"""Under which name a browser saves a picture: the format that was chosen on the page, filled in. Pure.

The picture's own name stays as it is, for its place and its job follow from that (`shared.jobs.picture_names`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from shared.jobs.picture_names import NAME, picture_number

TOKEN = re.compile(r"\[([a-z_]+)\]|\{([a-z_]+)\}|%([a-z_]+)%")
# Bad in the names of some system, or separating folders.
UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]+')
LONGEST = 150
LONGEST_FORMAT = 200
# What a token stands for; the second ones are parameters of the job.
OF_NAME = ("date", "time", "datetime", "number", "job")
OF_JOB = {
    "seed": "seed",
    "model": "model_name",
    "model_name": "model_name",
    "prompt": "prompt",
    "width": "width",
    "height": "height",
    "steps": "steps",
    "cfg": "cfg_scale",
    "sampler": "sampler_name",
    "scheduler": "scheduler",
}
TOKENS = (*OF_NAME, *OF_JOB)


def unknown_tokens(chosen: str) -> list[str]:
    """The tokens of a format that stand for nothing, and are left as they are."""
    return [name for match in TOKEN.finditer(chosen) if (name := _name(match)) not in TOKENS]


def title(chosen: str, filename: str, parameters: Mapping[str, Any]) -> str:
    """The name, without ending, to save the picture `filename` under; `parameters` are those of its job and its own."""
    stem = filename.removesuffix(".png")
    if not NAME.fullmatch(filename):
        return stem
    date, time, job = filename.split("_")[0].split("-")[:3]
    facts = {"date": date, "time": time, "datetime": f"{date}-{time}", "job": job, "number": picture_number(filename)}

    def fill(token: re.Match[str]) -> str:
        name = _name(token)
        value = facts.get(name, parameters.get(OF_JOB.get(name, "")))
        if name not in TOKENS:
            return token[0]
        text = "" if value is None else str(value)
        return text.rpartition(".")[0] or text if name.startswith("model") else text

    filled = UNSAFE.sub("-", TOKEN.sub(fill, chosen)).strip(" .-_")[:LONGEST].strip(" .-_")
    return filled or stem


def _name(match: re.Match[str]) -> str:
    return match[1] or match[2] or match[3]
