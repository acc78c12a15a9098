"""Train the diffusion model: `python -m starter.training.train_model RUN_FOLDER BANKS.. --minutes 90`.

BANKS are folders that `starter.training.dataset` fills; shards that appear while training runs are used. All that a run
needs is in RUN_FOLDER/model.pt, and a run that finds one goes on from it.

On Linux, `MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000` in the environment saves a sixth of the time: the
allocator then keeps the large buffers that every step needs again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from starter.training.dataset import Shards
from starter.training.diffusion import kept_signal, loss_of, token_bias
from starter.training.loop import Plan, prepare, train
from starter.training.narrow import Narrow

OUTER = ("table", "input_blocks.0.", "out.", "time_embed")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("banks", type=Path, nargs="+")
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--cells", type=int, default=6144, help="latent pixels in a batch")
    args = parser.parse_args()
    prepare()
    model = Narrow().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    shards = Shards(args.banks)
    signal = kept_signal()

    def predict(noisy: Tensor, steps: Tensor, rows: Tensor) -> Tensor:
        result: Tensor = model(noisy, steps, model.encode(rows), token_bias())
        return result

    def loss(rng: np.random.Generator) -> Tensor:
        return loss_of(predict, shards.sample(rng, args.cells), rng, signal)

    train(model, loss, args.folder / "model.pt", Plan(args.minutes, args.rate, outer=OUTER))


if __name__ == "__main__":
    main()
