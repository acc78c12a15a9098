"""Trains the autoencoder: `python -m starter.training.train_autoencoder RUN_FOLDER --minutes 15`.

It stops after the given time, and resumes from the last checkpoint in the folder. With `--decoder-only` the encoder is
frozen, so the decoder can be trained further without invalidating encoded datasets.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from starter.scenes import Mix, Pixels, render, sample_scene
from starter.training.autoencoder import Autoencoder
from starter.training.loop import TrainingPlan, prepare, train
from starter.training.textures import texture

log = logging.getLogger(__name__)

CROP = 64
"""Pixels; small crops give more variety, and the network's field of view is small anyway."""
PICTURE_SIDE = 128
"""Side of the pictures that crops are taken from; each is used often, flipped and with permuted channels."""
SCENES = 0.4
"""Share of pictures of shapes; the others are textures."""
OUTER = ("taesd_encoder.0.", "taesd_encoder.14.", "taesd_decoder.1.", "taesd_decoder.19.")
NOISE = 0.08
"""Noise on latents during training, so that the decoder tolerates the remaining noise of a sampler."""


def make_pictures(rng: np.random.Generator, count: int, scenes: float) -> Tensor:
    """Generate pictures (count, 3, PICTURE_SIDE, PICTURE_SIDE) as bytes; `scenes` is the share of shapes."""
    pictures: list[Pixels] = []
    for _ in range(count):
        side = PICTURE_SIDE
        if rng.random() < scenes:
            pictures.append(render(sample_scene(rng, Mix(patterned=0.6)), side, side))
        else:
            pictures.append(texture(rng, side, side))
    return torch.from_numpy((np.stack(pictures) * 255 + 0.5).astype(np.uint8)).permute(0, 3, 1, 2).contiguous()


def random_crops(rng: np.random.Generator, pictures: Tensor, count: int) -> Tensor:
    """Random crops (count, 3, CROP, CROP) in 0..1, mirrored, transposed and with permuted channels at random."""
    crops = []
    for index in rng.integers(0, len(pictures), count):
        top, left = rng.integers(0, PICTURE_SIDE - CROP + 1, 2)
        crop = pictures[index][rng.permutation(3)][:, top : top + CROP, left : left + CROP]
        flips = [axis for axis in (1, 2) if rng.random() < 0.5]
        crop = crop.flip(flips) if flips else crop
        crops.append(crop.transpose(1, 2) if rng.random() < 0.5 else crop)
    whole = torch.stack(crops).to(torch.get_default_device())
    return (whole.float() / 255).contiguous(memory_format=torch.channels_last)


def reconstruction_loss(model: Autoencoder, pixels: Tensor) -> Tensor:
    """Squared and absolute error of pixels and edges, plus a penalty for latents without unit variance."""
    latents = model.encode(pixels)
    drawn = model.decode(latents + NOISE * torch.randn_like(latents))
    error = drawn - pixels
    edges = (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()) / 2
    # Mean 0 and deviation 1 in each channel: then one factor scales all four to the sampler's schedule.
    spread = latents.std((0, 2, 3)) - 1
    centre = latents.mean((0, 2, 3))
    return (
        4 * nn.functional.mse_loss(drawn, pixels)
        + error.abs().mean()
        + edges
        + 0.02 * (spread.square() + centre.square()).sum()
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--pictures", type=int, default=3000, help="pictures that crops are cut from")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--decoder-only", action="store_true")
    args = parser.parse_args()
    prepare()
    model = Autoencoder().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.taesd_encoder.requires_grad_(not args.decoder_only)
    pictures = make_pictures(np.random.default_rng(0), args.pictures, SCENES)
    path = args.folder / "autoencoder.pt"
    train(model, lambda rng: reconstruction_loss(model, random_crops(rng, pictures, args.random_crops)), path,
          TrainingPlan(args.minutes, args.rate, decay=0.6, outer=OUTER))  # fmt: skip
    model.load_state_dict(torch.load(path, weights_only=True)["average"])
    for name, scenes in (("scenes", 1.0), ("textures", 0.0)):
        unseen = make_pictures(np.random.default_rng(1), 32, scenes).to(torch.get_default_device()) / 255
        log.info("%s: %.1f dB", name, psnr(model, unseen))


@torch.no_grad()
def psnr(model: Autoencoder, pixels: Tensor) -> float:
    """Return the mean peak signal-to-noise ratio in dB of pictures encoded and decoded."""
    error = (model.decode(model.encode(pixels)).clamp(0, 1) - pixels).square().mean((1, 2, 3))
    return float((-10 * torch.log10(error + 1e-8)).mean())


if __name__ == "__main__":
    main()
