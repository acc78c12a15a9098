"""Generates datasets of encoded scenes and captions: `python -m starter.training.dataset FOLDER --count 20000`.

Encoding a picture costs a third of a training step, so every latent is used several times with different noise. A shard
is a file of a thousand scenes; more shards can be generated during training.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file

from starter.builders import AUTOENCODER_WEIGHTS, LATENT_DEVIATION
from starter.scenes import OUTLINE, PASTEL, PLAIN, Look, Mix, Pixels, render, sample_scene
from starter.training.autoencoder import Autoencoder
from starter.training.captions import caption, encode_caption

log = logging.getLogger(__name__)

LOOKS = {"plain": PLAIN, "outline": OUTLINE, "pastel": PASTEL}
BATCH = 50
Shard = dict[str, npt.NDArray[Any]]
LENGTH = 32
"""Stored rows of a caption; all others are END, which the attention bias accounts for."""


@dataclass(frozen=True)
class ShardContent:
    """The style of a shard's pictures, and its extra arrays.

    `extra`: "masked" adds the latents of the masked pictures (`masked`) and the masks (`mask`, one value per latent
    pixel), "edges" adds the pictures' edges (`edges`).
    """

    look: Look = PLAIN
    extra: str | None = None


def load_autoencoder(path: Path) -> Autoencoder:
    """Load the trained autoencoder from its packed file."""
    model = Autoencoder()
    model.load_state_dict({name: weight.float() for name, weight in load_file(path).items()})
    return model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@torch.no_grad()
def make_shard(
    model: Autoencoder, rng: np.random.Generator, side: tuple[int, int], count: int, content: ShardContent
) -> Shard:
    """Generate `count` scenes of `side` (height, width) pixels: latents (n, 4, h/8, w/8), rows (n, LENGTH), extras."""
    parts: dict[str, list[npt.NDArray[Any]]] = defaultdict(list)
    for start in range(0, count, BATCH):
        scenes = [sample_scene(rng, Mix()) for _ in range(min(BATCH, count - start))]
        pixels = np.stack([render(scene, *side, content.look) for scene in scenes])
        parts["latents"].append(encode_pictures(model, pixels))
        parts["rows"].append(np.array([encode_caption(caption(scene, rng), LENGTH) for scene in scenes], np.uint8))
        if content.extra == "masked":
            masks = np.stack([random_mask(rng, *side) for _ in scenes])
            # As in the engine: the masked part is grey, and the mask of the latents is rounded.
            parts["masked"].append(encode_pictures(model, np.where(masks[..., None], np.float32(0.5), pixels)))
            cells = masks.reshape(len(masks), side[0] // 8, 8, side[1] // 8, 8).mean((2, 4))
            parts["mask"].append(cells.round().astype(np.uint8)[:, None])
        elif content.extra == "edges":
            parts["edges"].append(canny_edges(pixels))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def encode_pictures(model: Autoencoder, pixels: Pixels) -> npt.NDArray[np.float16]:
    """Encode pictures (n, h, w, 3) to latents for the diffusion model."""
    latents = model.encode(torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2))
    return np.asarray((latents * LATENT_DEVIATION).half().numpy())


def random_mask(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return a mask (height, width): a rectangle or an ellipse anywhere, a fifth to nine tenths of the size."""
    y, x = np.arange(height)[:, None] / height, np.arange(width)[None, :] / width
    half_height, half_width = rng.uniform(0.1, 0.45, 2)
    v = (y - rng.uniform(0.15, 0.85)) / half_height
    u = (x - rng.uniform(0.15, 0.85)) / half_width
    return np.asarray(np.maximum(np.abs(u), np.abs(v)) < 1 if rng.random() < 0.5 else np.hypot(u, v) < 1)


def canny_edges(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """Return Canny edges (n, h, w), 0 or 1, by the library and thresholds of the engine's node."""
    from kornia.filters import canny  # its import takes seconds, and only this needs it

    found = canny(torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2), 0.1, 0.3)[1]
    return np.asarray(found[:, 0].numpy() > 0.5, np.uint8)


class ShardDataset:
    """All shards in the given folders, including those that appear later, grouped by the size of their latents."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders = folders
        self.known: set[Path] = set()
        self.groups: dict[tuple[int, ...], list[Shard]] = defaultdict(list)
        self.refreshed = -math.inf

    def refresh(self) -> None:
        """Load new shards, at most every 20 seconds."""
        if self.groups and time.monotonic() - self.refreshed < 20:
            return
        self.refreshed = time.monotonic()
        for path in sorted(path for folder in self.folders for path in folder.glob("*[0-9].npz")):
            if path not in self.known:
                self.known.add(path)
                with np.load(path) as shard:
                    arrays = {name: shard[name] for name in shard.files}
                self.groups[arrays["latents"].shape[2:]].append(arrays)

    def sample(self, rng: np.random.Generator, cells: int) -> Shard:
        """Sample a batch of one size with `cells` latent pixels in total; all scenes are equally likely."""
        self.refresh()
        sizes = list(self.groups)
        shares = np.array([h * w * sum(len(shard["rows"]) for shard in self.groups[h, w]) for h, w in sizes])
        height, width = sizes[int(rng.choice(len(sizes), p=shares / shares.sum()))]
        shards = self.groups[height, width]
        shard = shards[int(rng.integers(len(shards)))]
        chosen = rng.integers(0, len(shard["rows"]), max(2, cells // (height * width)))
        return {name: array[chosen] for name, array in shard.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--autoencoder", type=Path, default=AUTOENCODER_WEIGHTS)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--shard", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--look", choices=LOOKS, default="plain")
    parser.add_argument("--extra", choices=("masked", "edges"))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    args.folder.mkdir(parents=True, exist_ok=True)
    model = load_autoencoder(args.autoencoder)
    content, size = ShardContent(look=LOOKS[args.look], extra=args.extra), (args.height, args.width)
    for index in range(args.seed, args.seed + args.count // args.shard):
        path = args.folder / f"{args.height}x{args.width}-{index:04d}.npz"
        if not path.exists():
            shard = make_shard(model, np.random.default_rng([index, *size]), size, args.shard, content)
            np.savez(path.with_suffix(".part.npz"), **shard)  # type: ignore[arg-type]
            path.with_suffix(".part.npz").replace(path)
            log.info("%s", path.name)


if __name__ == "__main__":
    main()
