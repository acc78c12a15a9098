"""Train the autoencoder: `python -m starter.train_autoencoder RUN_FOLDER --minutes 15`.

It stops by the clock, since that is what an engineer has; it resumes from the last checkpoint in the folder. With
`--decoder-only` the encoder is frozen: the decoder can be given more time later without making known latents stale.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from starter.autoencoder import Autoencoder
from starter.optimiser import Muon, split
from starter.scenes import Mix, Pixels, render, sample_scene
from starter.textures import texture

log = logging.getLogger(__name__)

CROP = 64
"""Pixels; small crops mean many different pictures, and the network sees no farther anyway."""
NOISE = 0.08
"""Noise on latents while training, so that the decoder forgives what a sampler leaves."""


def batch(rng: np.random.Generator, count: int, scenes: float) -> Tensor:
    """Random crops (count, 3, CROP, CROP) in 0..1; `scenes` is the share of shapes, the rest are textures."""
    pictures: list[Pixels] = []
    for _ in range(count):
        if rng.random() < scenes:
            side = int(rng.choice([64, 96, 128, 192]))
            whole = render(sample_scene(rng, Mix(patterned=0.6)), side, side)
        else:
            side = CROP
            whole = texture(rng, side, side)
        top, left = rng.integers(0, side - CROP + 1, 2)
        pictures.append(whole[top : top + CROP, left : left + CROP])
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def loss_of(model: Autoencoder, pixels: Tensor) -> Tensor:
    """Squared and absolute error, the same on differences of neighbours (edges), and latents held at unit variance."""
    latents = model.encode(pixels)
    drawn = model.decode(latents + NOISE * torch.randn_like(latents))
    error = drawn - pixels
    edges = (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()) / 2
    # Mean 0 and deviation 1 for each channel: then one number scales all four to what the sampler's schedule wants.
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
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--decoder-only", action="store_true")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(2)
    torch.manual_seed(0)
    model = Autoencoder().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    path = args.folder / "autoencoder.pt"
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True)["model"])
    if args.decoder_only:
        model.taesd_encoder.requires_grad_(False)
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    hidden, rest = split(named, ("taesd_encoder.0.", "taesd_encoder.14.", "taesd_decoder.1.", "taesd_decoder.19."))
    optimisers = [Muon(hidden, args.lr), torch.optim.Adam(rest, args.lr, betas=(0.9, 0.98))]
    rng = np.random.default_rng(int(time.time()))
    began = saved = time.monotonic()
    step, running = 0, 0.0
    while (share := (time.monotonic() - began) / (60 * args.minutes)) < 1:
        rate = args.lr * min(1.0, (step + 1) / 50, (1 - share) / 0.6 + 0.01)
        for optimiser in optimisers:
            optimiser.param_groups[0]["lr"] = rate
        loss = loss_of(model, batch(rng, args.batch, 0.5))
        model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        running += (loss.item() - running) * max(0.02, 1 / (step + 1))
        step += 1
        if step % 50 == 0:
            log.info("step %d, %.0f %% of the time, loss %.4f", step, 100 * share, running)
        if time.monotonic() - saved > 60:
            save(model, path, step)
            saved = time.monotonic()
    save(model, path, step)
    for name, scenes in (("scenes", 1.0), ("textures", 0.0)):
        log.info("%s: %.1f dB", name, psnr(model, batch(np.random.default_rng(1), 64, scenes)))


def save(model: Autoencoder, path: Path, step: int) -> None:
    """Write aside and rename, so that a killed run leaves the previous checkpoint."""
    aside = path.with_suffix(".part")
    torch.save({"model": model.state_dict(), "step": step}, aside)
    aside.replace(path)


@torch.no_grad()
def psnr(model: Autoencoder, pixels: Tensor) -> float:
    """Mean peak signal-to-noise ratio in dB of pictures sent through the autoencoder."""
    error = (model.decode(model.encode(pixels)).clamp(0, 1) - pixels).square().mean((1, 2, 3))
    return float((-10 * torch.log10(error + 1e-8)).mean())


if __name__ == "__main__":
    main()
