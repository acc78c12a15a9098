"""Ask a running engine for one-object pictures and count what is right: `python -m starter.evaluate http://127.0.0.1:8188`.

The prompts are seeded pairs of colours and shapes; the answer is read off the pixels by `starter.reading`.
"""

from __future__ import annotations

import argparse
import io
import itertools
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import requests
from PIL import Image

from starter import CHECKPOINT_NAME
from starter.reading import Picture, read
from starter.scenes import COLOURS, SHAPES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sampling:
    """How to draw. `side` in pixels."""

    side: int = 128
    steps: int = 10
    cfg: float = 5.0
    sampler: str = "euler"
    scheduler: str = "normal"


def graph(prompt: str, seed: int, how: Sampling) -> dict[str, object]:
    """The plainest graph that draws a prompt."""
    nodes: dict[str, tuple[str, dict[str, object]]] = {
        "model": ("CheckpointLoaderSimple", {"ckpt_name": CHECKPOINT_NAME}),
        "yes": ("CLIPTextEncode", {"text": prompt, "clip": ["model", 1]}),
        "no": ("CLIPTextEncode", {"text": "", "clip": ["model", 1]}),
        "empty": ("EmptyLatentImage", {"width": how.side, "height": how.side, "batch_size": 1}),
        "sample": ("KSampler", {"model": ["model", 0], "positive": ["yes", 0], "negative": ["no", 0],
                                "latent_image": ["empty", 0], "seed": seed, "steps": how.steps, "cfg": how.cfg,
                                "sampler_name": how.sampler, "scheduler": how.scheduler, "denoise": 1.0}),
        "decode": ("VAEDecode", {"samples": ["sample", 0], "vae": ["model", 2]}),
        "save": ("SaveImage", {"images": ["decode", 0], "filename_prefix": f"evaluate/{seed}"}),
    }  # fmt: skip
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def draw(engine: str, prompt: str, seed: int, how: Sampling) -> Picture:
    """One picture (h, w, 3) from the engine at this address."""
    queued = requests.post(f"{engine}/prompt", json={"prompt": graph(prompt, seed, how)}, timeout=60)
    queued.raise_for_status()
    job = queued.json()["prompt_id"]
    until = time.monotonic() + 300
    while time.monotonic() < until:
        entry = requests.get(f"{engine}/history/{job}", timeout=60).json().get(job)
        if entry:
            image = entry["outputs"]["save"]["images"][0]
            data = requests.get(f"{engine}/view", params=image, timeout=60).content
            return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        time.sleep(0.05)
    raise TimeoutError(f"no picture for {prompt!r}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine")
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--cfg", type=float, default=5.0)
    parser.add_argument("--sampler", default="euler")
    parser.add_argument("--scheduler", default="normal")
    parser.add_argument("--pictures", type=Path, help="keep a sheet of them in this file")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    how = Sampling(args.side, cfg=args.cfg, sampler=args.sampler, scheduler=args.scheduler)
    rng = np.random.default_rng(0)
    pairs = [pair for pair in itertools.product(COLOURS, SHAPES, COLOURS) if pair[0] != pair[2]]
    right = dict.fromkeys(("background", "colour", "shape", "all three"), 0)
    pictures = []
    for seed, index in enumerate(rng.permutation(len(pairs))[: args.count]):
        colour, shape, background = pairs[index]
        picture = draw(args.engine, f"a {colour} {shape} on a {background} background", seed, how)
        pictures.append(picture)
        seen = read(picture)
        marks = [False] * 3 if seen is None else [seen.background == background, seen.colour == colour,
                                                  seen.shape == shape and seen.match > 0.6]  # fmt: skip
        for name, mark in zip(right, [*marks, all(marks)], strict=True):
            right[name] += mark
        log.info("%s %s on %s: %s", colour, shape, background, seen)
    for name, number in right.items():
        log.info("%-10s %3d of %d", name, number, args.count)
    if args.pictures:
        columns = 8
        pictures += [np.zeros_like(pictures[0])] * (-len(pictures) % columns)
        sheet = np.concatenate([np.concatenate(pictures[i : i + columns], 1) for i in range(0, len(pictures), columns)])
        Image.fromarray(sheet).save(args.pictures)


if __name__ == "__main__":
    main()
