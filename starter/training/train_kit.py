"""Train the parts beside the model: `python -m starter.training.train_kit PART RUN_FOLDER [BANK] --minutes 6`.

    PART        BANK: what `starter.training.dataset` made with
    outline     --look outline      a LoRA: shapes become outlines
    pastel      --look pastel       the second checkpoint: pale colours, black contours
    inpainting  --extra masked      the inpainting checkpoint
    canny       --extra edges       the ControlNet
    upscaler    (none)              the 2x upscale model

All but the upscaler start from the committed diffusion model, so they are made after it. A run leaves
RUN_FOLDER/PART.pt and goes on from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from starter.quantise import load_compact
from starter.recipes import MODEL_WEIGHTS
from starter.scenes import SHAPES
from starter.training.control import Control
from starter.training.dataset import Shards
from starter.training.diffusion import kept_signal, loss_of, token_bias
from starter.training.loop import Loss, Plan, prepare, train
from starter.training.lowrank import LowRank
from starter.training.narrow import Narrow
from starter.training.train_autoencoder import bank as pictures_bank
from starter.training.train_autoencoder import batch as crops
from starter.training.upscaler import SCALE, Upscaler
from starter.words import ROWS, TOKEN_IDS

CELLS = 3072
RANKS = {"outline": 8, "pastel": 24, "inpainting": 24}
FIRST = "input_blocks.0.0.weight"
SHAPE_ROWS = [ROWS[TOKEN_IDS[shape][0]] for shape in SHAPES]
ANY_SHAPE = ROWS[TOKEN_IDS["shape"][0]]
UNNAMED = 0.5
"""Share of captions that do not say the shape, so that the ControlNet learns to tell it from the edges."""

Part = tuple[nn.Module, Loss]


def base_model(inputs: int = 4) -> Narrow:
    """The committed diffusion model; further `inputs` start without effect."""
    model = Narrow(inputs).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = {name: torch.tensor(weight) for name, weight in load_compact(MODEL_WEIGHTS).items()}
    weights[FIRST] = functional.pad(weights[FIRST], (0, 0, 0, 0, 0, inputs - 4))
    model.load_state_dict(weights)
    return model  # type: ignore[no-any-return]


def look(rank: int, shards: Shards) -> Part:
    """Another look of the same scenes."""
    model, signal, bias = LowRank(base_model(), rank), kept_signal(), token_bias()
    return model, lambda rng: loss_of(
        lambda noisy, steps, rows: model(noisy, steps, rows, bias), shards.sample(rng, CELLS), rng, signal
    )


def inpainting(rank: int, shards: Shards) -> Part:
    """Noisy latents, the mask, and the latents of the picture with a grey hole, in the engine's order."""
    model, signal, bias = LowRank(base_model(9), rank, whole=(FIRST,)), kept_signal(), token_bias()

    def loss(rng: np.random.Generator) -> Tensor:
        sample = shards.sample(rng, CELLS)
        mask, masked = (torch.tensor(sample[name]).float() for name in ("mask", "masked"))
        return loss_of(
            lambda noisy, steps, rows: model(torch.cat([noisy, mask, masked], 1), steps, rows, bias),
            sample, rng, signal,
        )  # fmt: skip

    return model, loss


def canny(shards: Shards) -> Part:
    """A ControlNet beside the frozen model."""
    base = base_model().requires_grad_(False)
    model = Control.beside(base).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    signal, bias = kept_signal(), token_bias()

    def loss(rng: np.random.Generator) -> Tensor:
        sample = shards.sample(rng, CELLS)
        unnamed = (rng.random(len(sample["rows"])) < UNNAMED)[:, None]
        sample["rows"] = np.where(unnamed & np.isin(sample["rows"], SHAPE_ROWS), ANY_SHAPE, sample["rows"])
        edges = torch.tensor(sample["edges"]).float()[:, None].expand(-1, 3, -1, -1)

        def predict(noisy: Tensor, steps: Tensor, rows: Tensor) -> Tensor:
            context = base.encode(rows)
            result: Tensor = base(noisy, steps, context, bias, model(noisy, steps, context, bias, edges))
            return result

        return loss_of(predict, sample, rng, signal)

    return model, loss


def upscaler() -> Part:
    """Half-sized crops of scenes and textures, and the crops themselves."""
    model = Upscaler().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pictures = pictures_bank(np.random.default_rng(7), 1500, 0.5)

    def loss(rng: np.random.Generator) -> Tensor:
        large = crops(rng, pictures, 32)
        error: Tensor = model(functional.interpolate(large, scale_factor=1 / SCALE, mode="area")) - large
        return error.abs().mean() + 4 * error.square().mean()

    return model, loss


def main() -> None:
    """Command line."""
    makers: dict[str, Callable[[Shards], Part]] = {
        "outline": lambda shards: look(RANKS["outline"], shards),
        "pastel": lambda shards: look(RANKS["pastel"], shards),
        "inpainting": lambda shards: inpainting(RANKS["inpainting"], shards),
        "canny": canny,
        "upscaler": lambda _: upscaler(),
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=makers)
    parser.add_argument("folder", type=Path)
    parser.add_argument("bank", type=Path, nargs="*")
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--rate", type=float, default=4e-3)
    args = parser.parse_args()
    prepare()
    model, loss = makers[args.part](Shards(args.bank))
    train(model, loss, args.folder / f"{args.part}.pt", Plan(args.minutes, args.rate))


if __name__ == "__main__":
    main()
