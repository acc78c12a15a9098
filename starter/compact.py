"""Packs a trained autoencoder for the repository: `python -m starter.compact RUN_FOLDER`.

Half precision, and beside the weights the latents of the twelve colours, which assembly needs and cannot compute.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from starter.assemble import AUTOENCODER
from starter.autoencoder import Autoencoder
from starter.formula import COLOUR_TOKENS
from starter.scenes import PALETTE

log = logging.getLogger(__name__)


@torch.no_grad()
def colour_latents(model: Autoencoder) -> torch.Tensor:
    """What the middle of an even picture of each colour is encoded to: (12, 4)."""
    colours = torch.tensor(np.array([PALETTE[name] for name in COLOUR_TOKENS]) / 255, dtype=torch.float32)
    return model.encode(colours[:, :, None, None].expand(-1, -1, 128, 128))[:, :, 8, 8]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model = Autoencoder()
    model.load_state_dict(torch.load(parser.parse_args().folder / "autoencoder.pt", weights_only=True)["model"])
    tensors = {**model.state_dict(), "colour_latents": colour_latents(model)}
    AUTOENCODER.parent.mkdir(exist_ok=True)
    save_file({name: tensor.half().contiguous() for name, tensor in tensors.items()}, AUTOENCODER)
    log.info("%s: %.1f MB", AUTOENCODER, AUTOENCODER.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
