"""Train the diffusion model: `python -m starter.train_model RUN_FOLDER SHARDS.. --minutes 60`.

SHARDS are folders that `starter.dataset` fills; shards that appear while training runs are used. Every few minutes all
that a run needs goes to `model.pt`, and a run that finds one goes on from it. The learning rate follows the clock, so a
run ends well whatever the machine was busy with.

On Linux, `MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000` in the environment saves a sixth of the time: the
allocator then keeps the large buffers that every step needs again.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from starter.dataset import LENGTH
from starter.narrow import Narrow
from starter.optimiser import Muon, split
from starter.words import PLACES, encode

log = logging.getLogger(__name__)

STEPS = 1000
DROPPED = 0.1
"""Share of samples trained without their caption, which is what guidance and negative prompts need."""
LATE = 650
"""A third of the samples come from steps beyond this one, where colours and layout are decided."""
OUTER = ("table", "input_blocks.0.", "out.", "time_embed")


def kept_signal() -> Tensor:
    """Stable Diffusion 1.5's schedule: share of the signal's variance left at each of the 1000 steps."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64).square()
    return (1 - betas).cumprod(0).float()


def token_bias() -> Tensor:
    """Logit bias (LENGTH,): the last of the rows stands for all the END tokens up to PLACES, which are all alike."""
    bias = torch.zeros(LENGTH)
    bias[-1] = float(np.log(PLACES - LENGTH + 1))
    return bias


class Shards:
    """All shards found so far, grouped by the size of their latents."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders = folders
        self.known: set[Path] = set()
        self.groups: dict[tuple[int, ...], list[tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8]]]] = defaultdict(
            list
        )

    def refresh(self) -> None:
        """Look for new shards."""
        for path in sorted(path for folder in self.folders for path in folder.glob("*[0-9].npz")):
            if path not in self.known:
                self.known.add(path)
                with np.load(path) as shard:
                    self.groups[shard["latents"].shape[2:]].append((shard["latents"], shard["rows"]))

    def batch(self, rng: np.random.Generator, cells: int, large: float) -> tuple[Tensor, Tensor]:
        """Latents and rows; `cells` latent pixels in all. `large` is the share of batches with more than 8 x 8."""
        sizes = sorted(self.groups, key=lambda size: size[0] * size[1])
        bigger = sizes[1:]
        size = bigger[int(rng.integers(len(bigger)))] if bigger and rng.random() < large else sizes[0]
        latents, rows = self.groups[size][int(rng.integers(len(self.groups[size])))]
        chosen = rng.integers(0, len(latents), max(4, cells // (size[0] * size[1])))
        return torch.from_numpy(latents[chosen]).float(), torch.from_numpy(rows[chosen].astype(np.int64))


def sample_steps(rng: np.random.Generator, count: int) -> Tensor:
    """Time steps (count,), spread evenly over the batch, a third of them late."""
    share = (np.arange(count) + rng.random(count)) / count
    late = rng.random(count) < 1 / 3
    return torch.from_numpy(np.where(late, LATE + share * (STEPS - LATE), share * STEPS).astype(np.int64))


def loss_of(model: Narrow, latents: Tensor, rows: Tensor, steps: Tensor, signal: Tensor) -> Tensor:
    """Squared error of the predicted noise, weighted."""
    kept = signal[steps][:, None, None, None]
    noise = torch.randn_like(latents)
    noisy = (kept.sqrt() * latents + (1 - kept).sqrt() * noise).contiguous(memory_format=torch.channels_last)
    predicted = model(noisy, steps, model.encode(rows), token_bias())
    # As an error of the picture: never more than 5 (early steps are many and easy), never less than 0.05 (in late ones
    # a small error of noise is a large one of the picture, and that decides the colours).
    ratio = kept / (1 - kept)
    weight = ratio.clamp(0.05, 5) / ratio
    error: Tensor = weight * (predicted - noise).square()
    return error.mean()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("shards", type=Path, nargs="+")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--cells", type=int, default=4096, help="latent pixels in a batch")
    parser.add_argument("--large", type=float, default=0.5, help="share of batches of larger pictures")
    parser.add_argument("--decay", type=float, default=0.5, help="share of the time in which the rate falls to zero")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    args.folder.mkdir(parents=True, exist_ok=True)
    model = Narrow().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = {name: value.clone() for name, value in model.state_dict().items()}
    hidden, rest = split(model.named_parameters(), OUTER)
    optimisers = [Muon(hidden, args.lr), torch.optim.AdamW(rest, args.lr, betas=(0.9, 0.98), weight_decay=0.0)]
    path, step, seen, spent = args.folder / "model.pt", 0, 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        average = state["average"]
        for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        step, seen, spent = state["step"], state["seen"], state["spent"]
    shards = Shards(args.shards)
    rng = np.random.default_rng(time.time_ns())
    signal = kept_signal()
    nothing = torch.from_numpy(encode("", LENGTH))
    began = saved = time.monotonic()
    running = 0.0
    while (share := (spent + time.monotonic() - began) / (60 * args.minutes)) < 1:
        if step % 20 == 0 or not shards.groups:
            shards.refresh()
        rate = args.lr * min(1.0, (step + 1) / 40, (1 - share) / args.decay + 0.01)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
        latents, rows = shards.batch(rng, args.cells, args.large)
        rows[torch.from_numpy(rng.random(len(rows)) < DROPPED)] = nothing
        loss = loss_of(model, latents, rows, sample_steps(rng, len(rows)), signal)
        model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        step, seen = step + 1, seen + len(rows)
        keep = min(0.995, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            average[name].lerp_(value, 1 - keep)
        running = loss.item() if running == 0 else running + 0.03 * (loss.item() - running)
        if step % 25 == 0:
            log.info("step %d, %d samples, %.0f %%, loss %.4f", step, seen, 100 * share, running)
        if time.monotonic() - saved > 120:
            save(path, model, average, optimisers, (step, seen, spent + time.monotonic() - began))
            saved = time.monotonic()
    save(path, model, average, optimisers, (step, seen, spent + time.monotonic() - began))


def save(
    path: Path,
    model: Narrow,
    average: dict[str, Tensor],
    optimisers: list[torch.optim.Optimizer],
    progress: tuple[int, int, float],
) -> None:
    """Write aside and rename, so that a killed run leaves the previous checkpoint."""
    step, seen, spent = progress
    aside = path.with_suffix(".part")
    torch.save(
        {"model": model.state_dict(), "average": average, "optimisers": [o.state_dict() for o in optimisers],
         "step": step, "seen": seen, "spent": spent}, aside)  # fmt: skip
    aside.replace(path)


if __name__ == "__main__":
    main()
