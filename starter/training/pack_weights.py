"""Packs the results of training runs for the repository: `python -m starter.training.pack_weights RUN_FOLDER`.

Every `PART.pt` in the folder becomes `PART.safetensors`: autoencoder and upscaler, which output pixels, in half
precision, the rest in 8 bits (see `starter.quantisation`).
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from safetensors.torch import save_file

from starter.builders import FINGERPRINT_KEY, WEIGHTS, weights_fingerprint
from starter.quantisation import save_quantised
from starter.training.low_rank import plain_names

log = logging.getLogger(__name__)

HALF_PRECISION = ("autoencoder", "upscaler")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the packed files")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args.out.mkdir(parents=True, exist_ok=True)
    for run in sorted(args.folder.glob("*.pt")):
        state = plain_names(torch.load(run, map_location="cpu", weights_only=True)["average"])
        path = args.out / f"{run.stem}.safetensors"
        metadata = {FINGERPRINT_KEY: weights_fingerprint()}
        if run.stem in HALF_PRECISION:
            save_file({name: tensor.half().contiguous() for name, tensor in state.items()}, path, metadata=metadata)
        else:
            save_quantised({name: tensor.numpy() for name, tensor in state.items()}, path, metadata)
        # safetensors creates files that only their owner can read.
        path.chmod(0o644)
        log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
