"""Scenes made once into latents and captions: `python -m starter.dataset FOLDER --side 128 --count 20000`.

Encoding a picture costs a third of a training step on it, so every latent is used several times, each time with other
noise. Shards are files of a few thousand; more of them can be made while training runs.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from starter.assemble import AUTOENCODER, LATENT_DEVIATION
from starter.autoencoder import Autoencoder
from starter.captions import caption
from starter.scenes import Mix, render, sample_scene
from starter.words import encode

log = logging.getLogger(__name__)

LENGTH = 32
"""Rows kept of a caption; all beyond are END, and the trainer counts them without holding them."""


def load_autoencoder(path: Path) -> Autoencoder:
    """The trained autoencoder from its compact file."""
    model = Autoencoder()
    model.load_state_dict({name: weight.float() for name, weight in load_file(path).items()})
    return model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@torch.no_grad()
def make_shard(path: Path, model: Autoencoder, seed: int, side: tuple[int, int], count: int, mix: Mix) -> None:
    """Write `count` scenes of `side` (height, width) pixels: latents (n, 4, h/8, w/8) and rows (n, LENGTH)."""
    rng = np.random.default_rng(seed)
    latents, rows = [], []
    for start in range(0, count, 32):
        scenes = [sample_scene(rng, mix) for _ in range(min(32, count - start))]
        pixels = torch.from_numpy(np.stack([render(scene, *side) for scene in scenes])).permute(0, 3, 1, 2)
        latents.append((model.encode(pixels) * LATENT_DEVIATION).half().numpy())
        rows += [encode(caption(scene, rng), LENGTH) for scene in scenes]
    aside = path.with_suffix(".part.npz")
    np.savez(aside, latents=np.concatenate(latents), rows=np.array(rows, np.uint8))
    aside.replace(path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--autoencoder", type=Path, default=AUTOENCODER)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--shard", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--simple", action="store_true", help="mostly single shapes on plain grounds")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    args.folder.mkdir(parents=True, exist_ok=True)
    model = load_autoencoder(args.autoencoder)
    mix = Mix(one=0.85, two=0.1, empty=0.02, landscape=0.03, patterned=0.12) if args.simple else Mix()
    for index in range(args.count // args.shard):
        path = args.folder / f"{args.height}x{args.width}-{args.seed + index:04d}.npz"
        if not path.exists():
            make_shard(path, model, args.seed + index, (args.height, args.width), args.shard, mix)
            log.info("%s", path.name)


if __name__ == "__main__":
    main()
