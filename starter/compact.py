"""Packs what a training run made for the repository: `python -m starter.compact RUN_FOLDER`.

The autoencoder in half precision (its errors are seen directly), the diffusion model in 8 bits (see
`starter.quantise`). Whichever of the two the folder holds is packed.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from safetensors.torch import save_file

from starter.assemble import AUTOENCODER, MODEL
from starter.quantise import save_compact

log = logging.getLogger(__name__)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=MODEL.parent, help="folder of the compact files")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args.out.mkdir(parents=True, exist_ok=True)
    written = []
    if (args.folder / "autoencoder.pt").exists():
        state = torch.load(args.folder / "autoencoder.pt", weights_only=True)["model"]
        written.append(args.out / AUTOENCODER.name)
        save_file({name: tensor.half().contiguous() for name, tensor in state.items()}, written[-1])
    if (args.folder / "model.pt").exists():
        # The running average of the weights: what the last steps agree on, without their noise.
        average = torch.load(args.folder / "model.pt", weights_only=True)["average"]
        written.append(args.out / MODEL.name)
        save_compact({name: tensor.numpy() for name, tensor in average.items()}, written[-1])
    for path in written:
        # safetensors makes files that only their owner can read.
        path.chmod(0o644)
        log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
