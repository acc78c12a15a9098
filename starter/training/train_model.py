"""Trains the diffusion model: `python -m starter.training.train_model RUN_FOLDER DATASET.. --minutes 90`.

DATASETs are folders that `starter.training.dataset` fills; new shards are used as they appear. A run saves its state in
RUN_FOLDER/model.pt, and resumes from it.

On Linux, `MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000` in the environment saves a sixth of the time: the
allocator then keeps large buffers for the next step.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from starter.training.dataset import ShardDataset
from starter.training.diffusion import noise_loss, signal_schedule, token_bias
from starter.training.loop import TrainingPlan, prepare, train
from starter.training.unet import NarrowUNet

OUTER = ("table", "input_blocks.0.", "out.", "time_embed")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--cells", type=int, default=6144, help="latent pixels in a batch")
    args = parser.parse_args()
    prepare()
    model = NarrowUNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    shards = ShardDataset(args.datasets)
    signal = signal_schedule()

    def predict(noisy: Tensor, steps: Tensor, rows: Tensor) -> Tensor:
        result: Tensor = model(noisy, steps, model.encode(rows), token_bias())
        return result

    def loss(rng: np.random.Generator) -> Tensor:
        return noise_loss(predict, shards.sample(rng, args.cells), rng, signal)

    train(model, loss, args.folder / "model.pt", TrainingPlan(args.minutes, args.rate, outer=OUTER))


if __name__ == "__main__":
    main()
