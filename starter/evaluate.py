"""Measures how well the starter model follows prompts: `python -m starter.evaluate [http://localhost:5001]`.

The services must be running. It requests pictures from the txt2img service and detects their shapes
(`starter.shape_detection`). The prompts are combinations of colours and shapes that never occurred in training
(`starter.scenes.held_out`); they are seeded, so every run uses the same. A picture is correct if the colour of its
background and all shapes with their colours are.
"""

from __future__ import annotations

import argparse
import io
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import requests
from PIL import Image

from starter import CHECKPOINT_NAME
from starter.scenes import COLOURS, SHAPES, held_out
from starter.shape_detection import DetectedScene, Picture, detect_shapes

log = logging.getLogger(__name__)

ExpectedShapes = tuple[tuple[str, str], ...]
"""(colour, shape) of each expected shape."""


@dataclass(frozen=True)
class EvaluationRow:
    """A row of the table: the parameters of its pictures. `side` in pixels; `share` of the number of pictures."""

    name: str
    side: int = 128
    sampler: str = "euler"
    scheduler: str = "normal"
    cfg: float = 3.0
    things: int = 1
    share: float = 1.0


ROWS = (
    EvaluationRow("one shape"),
    EvaluationRow("one shape, dpmpp_2m karras", sampler="dpmpp_2m", scheduler="karras"),
    EvaluationRow("one shape, euler_ancestral", sampler="euler_ancestral"),
    EvaluationRow("one shape, cfg 5", cfg=5),
    EvaluationRow("one shape, cfg 7", cfg=7),
    EvaluationRow("one shape, dpmpp_2m karras, cfg 7", sampler="dpmpp_2m", scheduler="karras", cfg=7),
    EvaluationRow("one shape, 256 px", side=256, share=0.5),
    EvaluationRow("one shape, 512 px", side=512, share=0.15),
    EvaluationRow("two shapes", things=2),
)


def make_prompt(rng: np.random.Generator, count: int) -> tuple[str, str, ExpectedShapes]:
    """Return a prompt with `count` shapes, the background's colour and the expected shapes; the first is held out."""
    while True:
        first, second, background = (str(colour) for colour in rng.permutation(COLOURS)[:3])
        shapes = [str(rng.choice(SHAPES)) for _ in range(2)]
        if held_out(shapes[0], first, background):
            break
    things = ((first, shapes[0]), (second, shapes[1]))[:count]
    subject = " and ".join(f"a {colour} {shape}" for colour, shape in things)
    return f"{subject} on a {background} background", background, things


def request_picture(service: str, prompt: str, row: EvaluationRow, seed: int, **further: str) -> tuple[Picture, float]:
    """Request a picture (h, w, 3); returns it and the seconds it took. `further` are other fields of the request."""
    fields = {"prompt": prompt, "seed": seed, "width": row.side, "height": row.side, "steps": 10, "cfg_scale": row.cfg}
    fields |= {"sampler_name": row.sampler, "scheduler": row.scheduler, "model_name": CHECKPOINT_NAME}
    fields |= further
    begun = time.monotonic()
    reply = requests.post(f"{service}/api/txt2img", json=fields, headers={"Accept": "image/png"}, timeout=600)
    reply.raise_for_status()
    return np.asarray(Image.open(io.BytesIO(reply.content)).convert("RGB")), time.monotonic() - begun


def score(seen: DetectedScene, background: str, things: ExpectedShapes) -> tuple[bool, bool, bool]:
    """Return whether the background, the colours, and everything together are correct."""
    colours = sorted(thing.colour for thing in seen.things[: len(things)]) == sorted(colour for colour, _ in things)
    ground = seen.background == background
    return ground, colours, ground and colours and all(seen.shows(*thing) for thing in things)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("service", nargs="?", default="http://localhost:5001")
    parser.add_argument("--count", type=int, default=48, help="pictures per row of the table")
    parser.add_argument("--only", default="", help="measure only rows whose name contains this")
    parser.add_argument("--pictures", type=Path, help="save a contact sheet of each row in this folder")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    log.info("%-36s %6s %8s %8s %6s %8s", "", "asked", "ground", "colours", "all", "seconds")
    for number, row in enumerate(ROWS):
        if args.only not in row.name:
            continue
        rng, pictures, marks, took = np.random.default_rng(number), [], [], []
        for seed in range(max(1, round(args.count * row.share))):
            prompt, background, things = make_prompt(rng, row.things)
            picture, seconds = request_picture(args.service, prompt, row, seed)
            pictures.append(picture)
            marks.append(score(detect_shapes(picture), background, things))
            took.append(seconds)
            log.debug("%s: %s", prompt, marks[-1])
        ground, colours, right = np.mean(marks, 0)
        log.info("%-36s %6d %7.1f%% %7.1f%% %5.1f%% %8.2f", row.name, len(marks), 100 * ground, 100 * colours,
                 100 * right, np.median(took))  # fmt: skip
        if args.pictures:
            args.pictures.mkdir(parents=True, exist_ok=True)
            Image.fromarray(contact_sheet(pictures)).save(args.pictures / f"{number}.png")


def contact_sheet(pictures: list[Picture], columns: int = 8) -> Picture:
    """Arrange pictures of one size in rows."""
    filled = pictures + [np.zeros_like(pictures[0])] * (-len(pictures) % columns)
    rows = [np.concatenate(filled[start : start + columns], 1) for start in range(0, len(filled), columns)]
    return np.concatenate(rows)


if __name__ == "__main__":
    main()
