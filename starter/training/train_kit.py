"""Trains the parts of the kit: `python -m starter.training.train_kit PART RUN_FOLDER [DATASET] --minutes 6`.

    PART        DATASET: made by `starter.training.dataset` with
    outline     --look outline      the LoRA: shapes become outlines
    pastel      --look pastel       the pastel checkpoint: pale colours, black contours
    inpainting  --extra masked      the inpainting checkpoint
    canny       --extra edges       the ControlNet
    upscaler    (none)              the 2x upscale model

All but the upscaler start from the committed diffusion model, so train that first. A run saves RUN_FOLDER/PART.pt, and
resumes from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from starter.builders import MODEL_WEIGHTS
from starter.quantisation import load_quantised
from starter.scenes import SHAPES
from starter.training.controlnet import NarrowControlNet
from starter.training.dataset import ShardDataset
from starter.training.diffusion import noise_loss, signal_schedule, token_bias
from starter.training.loop import LossFunction, TrainingPlan, prepare, train
from starter.training.low_rank import LowRank
from starter.training.train_autoencoder import make_pictures, random_crops
from starter.training.unet import NarrowUNet
from starter.vocabulary import ROWS, TOKEN_IDS

CELLS = 3072
"""Latent pixels of a batch."""
SCALE = 2
UPSCALER_WIDTH = 24
UPSCALER_DEPTH = 5
"""Convolutions between the first and the last one."""
RANKS = {"outline": 8, "pastel": 24, "inpainting": 24}
FIRST = "input_blocks.0.0.weight"
SHAPE_ROWS = [ROWS[TOKEN_IDS[shape][0]] for shape in SHAPES]
ANY_SHAPE = ROWS[TOKEN_IDS["shape"][0]]
UNNAMED = 0.5
"""Share of captions without the shape, so that the ControlNet learns to use the edges."""

Training = tuple[nn.Module, LossFunction]


class Upscaler(nn.Module):
    """Enlarges pictures (n, 3, h, w) in 0..1 to (n, 3, 2h, 2w).

    It has the layout of Real-ESRGAN's compact models, which the engine's loader knows. The convolutions work at the
    small size; the last channels become 2 x 2 pixels each and are added to the picture enlarged by repetition.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, UPSCALER_WIDTH, 3, padding=1), nn.PReLU(UPSCALER_WIDTH)]
        for _ in range(UPSCALER_DEPTH):
            layers += [nn.Conv2d(UPSCALER_WIDTH, UPSCALER_WIDTH, 3, padding=1), nn.PReLU(UPSCALER_WIDTH)]
        last = nn.Conv2d(UPSCALER_WIDTH, 3 * SCALE * SCALE, 3, padding=1)
        nn.init.zeros_(last.weight)
        self.body = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) to (n, 3, 2h, 2w)."""
        drawn = functional.pixel_shuffle(self.body(x), SCALE)
        return drawn + functional.interpolate(x, scale_factor=float(SCALE), mode="nearest")


def base_model(inputs: int = 4) -> NarrowUNet:
    """Load the committed diffusion model; additional `inputs` have no effect at first."""
    model = NarrowUNet(inputs).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = {name: torch.tensor(weight) for name, weight in load_quantised(MODEL_WEIGHTS).items()}
    weights[FIRST] = functional.pad(weights[FIRST], (0, 0, 0, 0, 0, inputs - 4))
    model.load_state_dict(weights)
    return model  # type: ignore[no-any-return]


def train_look(rank: int, shards: ShardDataset) -> Training:
    """A low-rank change for another style of the same scenes."""
    model, signal, bias = LowRank(base_model(), rank), signal_schedule(), token_bias()
    return model, lambda rng: noise_loss(
        lambda noisy, steps, rows: model(noisy, steps, rows, bias), shards.sample(rng, CELLS), rng, signal
    )


def train_inpainting(rank: int, shards: ShardDataset) -> Training:
    """A low-rank change for inpainting. Its inputs, in the engine's order: noisy latents, mask, masked latents."""
    model, signal, bias = LowRank(base_model(9), rank, whole=(FIRST,)), signal_schedule(), token_bias()

    def loss(rng: np.random.Generator) -> Tensor:
        sample = shards.sample(rng, CELLS)
        mask, masked = (torch.tensor(sample[name]).float() for name in ("mask", "masked"))
        return noise_loss(
            lambda noisy, steps, rows: model(torch.cat([noisy, mask, masked], 1), steps, rows, bias),
            sample, rng, signal,
        )  # fmt: skip

    return model, loss


def train_canny(shards: ShardDataset) -> Training:
    """A ControlNet for the frozen model."""
    base = base_model().requires_grad_(False)
    model = NarrowControlNet.for_model(base).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    signal, bias = signal_schedule(), token_bias()

    def loss(rng: np.random.Generator) -> Tensor:
        sample = shards.sample(rng, CELLS)
        unnamed = (rng.random(len(sample["rows"])) < UNNAMED)[:, None]
        sample["rows"] = np.where(unnamed & np.isin(sample["rows"], SHAPE_ROWS), ANY_SHAPE, sample["rows"])
        edges = torch.tensor(sample["edges"]).float()[:, None].expand(-1, 3, -1, -1)

        def predict(noisy: Tensor, steps: Tensor, rows: Tensor) -> Tensor:
            context = base.encode(rows)
            result: Tensor = base(noisy, steps, context, bias, model(noisy, steps, context, bias, edges))
            return result

        return noise_loss(predict, sample, rng, signal)

    return model, loss


def train_upscaler() -> Training:
    """The upscaler, with half-sized crops of scenes and textures as inputs."""
    model = Upscaler().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pictures = make_pictures(np.random.default_rng(7), 1500, 0.5)

    def loss(rng: np.random.Generator) -> Tensor:
        large = random_crops(rng, pictures, 32)
        error: Tensor = model(functional.interpolate(large, scale_factor=1 / SCALE, mode="area")) - large
        return error.abs().mean() + 4 * error.square().mean()

    return model, loss


def main() -> None:
    """Command line."""
    trainings: dict[str, Callable[[ShardDataset], Training]] = {
        "outline": lambda shards: train_look(RANKS["outline"], shards),
        "pastel": lambda shards: train_look(RANKS["pastel"], shards),
        "inpainting": lambda shards: train_inpainting(RANKS["inpainting"], shards),
        "canny": train_canny,
        "upscaler": lambda _: train_upscaler(),
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=trainings)
    parser.add_argument("folder", type=Path)
    parser.add_argument("datasets", type=Path, nargs="*")
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--rate", type=float, default=4e-3)
    args = parser.parse_args()
    prepare()
    model, loss = trainings[args.part](ShardDataset(args.datasets))
    train(model, loss, args.folder / f"{args.part}.pt", TrainingPlan(args.minutes, args.rate))


if __name__ == "__main__":
    main()
