"""What a report says of runs: a table for spreadsheets, and a page for people. Pure."""

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

COLUMNS = (
    *("run_id", "timestamp", "generation_type", "model", "vae", "prompt", "negative_prompt", "seed", "sampler"),
    *("steps", "cfg_scale", "width", "height", "batch_size", "batch_count", "loras", "controlnets"),
    *("generated_images", "version"),
)
# Spreadsheets compute what begins so, in some countries in the wide letters too: a prompt could fetch or send things.
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "\uff1d", "\uff0b", "\uff0d", "\uff20")

Run = Mapping[str, Any]


def runs_csv(runs: Sequence[Run]) -> bytes:
    """A row for each run, with a mark in front by which spreadsheets know that it is UTF-8."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for run in runs:
        writer.writerow([cell(_flat(name, run[name])) for name in COLUMNS])
    return buffer.getvalue().encode("utf-8-sig", errors="replace")


def cell(value: Any) -> str:
    """The value as a cell that no spreadsheet takes for a formula: such texts get an apostrophe in front."""
    if isinstance(value, int | float):
        return str(value)
    text = str(value).replace("\0", "")
    return f"'{text}" if text.lstrip(" ").startswith(FORMULAS) else text


def readme(runs: Sequence[Run], missing: Sequence[str], made: datetime) -> bytes:
    """What is in the bundle, and what could not be put into it."""
    models = sorted({run["model"] for run in runs if run["model"]})
    pictures = sum(len(run["generated_images"]) for run in runs) - len(missing)
    lines = [
        "# Dream Layer report",
        "",
        f"Made on {made:%Y-%m-%d} at {made:%H:%M}: {len(runs)} runs with {pictures} pictures.",
        "",
        "- `runs.csv`: a row for each run, with everything that it was made with. Texts that a spreadsheet would take",
        "  for a formula have an apostrophe in front.",
        "- `images/`: the pictures, named as in the column `generated_images`. Each PNG holds the ComfyUI graph that",
        "  drew it: ComfyUI opens it when the picture is dropped on its page.",
        "",
        f"Models: {', '.join(models) or 'none that is known by name'}.",
    ]
    if missing:
        lines += ["", "Not there any more:", "", *(f"- {name}" for name in missing)]
    return ("\n".join(lines) + "\n").encode(errors="replace")


def _flat(name: str, value: Any) -> Any:
    match name:
        case "loras":
            return "; ".join(f"{each['name']}:{each['strength']:g}" for each in value)
        case "controlnets":
            return "; ".join(f"{each['model']}:{each['strength']:g}" for each in value if each["enabled"])
        case "generated_images":
            return "; ".join(value)
    return value
