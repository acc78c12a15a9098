"""Reads and writes quantised weights: 8 bits per weight, with a scale for each output row. numpy only.

The weights of a row have similar sizes, so 8 bits lose less than the noise of training, at a quarter of the bytes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

Arrays = dict[str, npt.NDArray[np.float32]]

SCALE = ".scale"


def save_quantised(tensors: Arrays, path: Path, metadata: dict[str, str]) -> None:
    """Write tensors: matrices as int8 with `<name>.scale` (rows,), vectors as float16."""
    packed: dict[str, npt.NDArray[np.int8] | npt.NDArray[np.float16]] = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2:
            packed[name] = tensor.astype(np.float16)
            continue
        rows = tensor.reshape(len(tensor), -1)
        scale = np.maximum(np.abs(rows).max(1) / 127, 1e-7).astype(np.float16)
        packed[name] = np.round(rows / scale[:, None].astype(np.float32)).astype(np.int8).reshape(tensor.shape)
        packed[name + SCALE] = scale
    save_file(packed, path, metadata=metadata)


def load_quantised(path: Path) -> Arrays:
    """Return the tensors of a quantised file as float32."""
    packed = load_file(path)
    tensors: Arrays = {}
    for name, tensor in packed.items():
        if name.endswith(SCALE):
            continue
        full = tensor.astype(np.float32)
        if name + SCALE in packed:
            full *= packed[name + SCALE].astype(np.float32).reshape(-1, *[1] * (tensor.ndim - 1))
        tensors[name] = full
    return tensors
