"""Packs what training runs made for the repository: `python -m starter.training.compact RUN_FOLDER`.

Every `PART.pt` in the folder becomes `PART.safetensors`: what makes pixels directly (the autoencoder, the upscaler) in
half precision, the rest in 8 bits (see `starter.quantise`).
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from safetensors.torch import save_file

from starter.quantise import save_compact
from starter.recipes import CONTRACT, WEIGHTS, contract
from starter.training.lowrank import plain_names

log = logging.getLogger(__name__)

EXACT = ("autoencoder", "upscaler")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the compact files")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args.out.mkdir(parents=True, exist_ok=True)
    for run in sorted(args.folder.glob("*.pt")):
        state = plain_names(torch.load(run, map_location="cpu", weights_only=True)["average"])
        path = args.out / f"{run.stem}.safetensors"
        metadata = {CONTRACT: contract()}
        if run.stem in EXACT:
            save_file({name: tensor.half().contiguous() for name, tensor in state.items()}, path, metadata=metadata)
        else:
            save_compact({name: tensor.numpy() for name, tensor in state.items()}, path, metadata)
        # safetensors makes files that only their owner can read.
        path.chmod(0o644)
        log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
