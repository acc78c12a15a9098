"""The trained model's measures, and where each of its tensors lies in the wide layout that the loader demands.

A narrow tensor becomes a wide one of zeros with its entries at `spots` of its rows and columns. numpy only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from starter.layout import CHANNELS, CONTEXT

Array = npt.NDArray[np.float32]
Spots = npt.NDArray[np.int_]

HEADS = 8
WIDTHS = (80, 160, 160)
"""Channels in use at full, half and quarter size of the latents; multiples of 20, so that norm groups stay whole."""
TIME_WIDTH = 320
"""Channels in use of the wide model's 1280 for the time."""


def _heads(width: int) -> Spots:
    """Where a narrow model's heads lie: the first few channels of each wide head."""
    each = width // HEADS
    return np.concatenate([np.arange(each) + head * (CHANNELS // HEADS) for head in range(HEADS)])


def _halves(width: int, wide: int) -> Spots:
    """Where value and gate of a feed-forward lie."""
    return np.concatenate([np.arange(width), wide + np.arange(width)])


_JOINED = {  # widths of the two inputs that are concatenated before each output block
    0: (WIDTHS[2], WIDTHS[2]),
    1: (WIDTHS[2], WIDTHS[1]),
    2: (WIDTHS[1], WIDTHS[1]),
    3: (WIDTHS[1], WIDTHS[0]),
    4: (WIDTHS[0], WIDTHS[0]),
    5: (WIDTHS[0], WIDTHS[0]),
}


def spots(name: str, shape: tuple[int, ...], used_context: Spots) -> tuple[tuple[int, ...], Spots, Spots]:
    """(wide shape, rows, columns) for a tensor of the narrow diffusion model; columns is empty for vectors."""
    rows = np.arange(shape[0])
    columns = np.arange(shape[1]) if len(shape) > 1 else np.arange(0)
    wide_rows, wide_columns = CHANNELS, CHANNELS
    if name.startswith("time_embed"):
        wide_rows, wide_columns = 4 * CHANNELS, CHANNELS if ".0." in name else 4 * CHANNELS
    elif "emb_layers" in name:
        wide_columns = 4 * CHANNELS
    elif name == "input_blocks.0.0.weight":
        wide_columns = 4
    elif name.startswith("out.2"):
        wide_rows = 4
    elif ".to_" in name:
        if ".to_out." not in name:
            rows = _heads(shape[0])
        elif len(shape) > 1:
            columns = _heads(shape[1])
        if "attn2.to_k" in name or "attn2.to_v" in name:
            columns, wide_columns = used_context, CONTEXT
    elif ".ff.net.0." in name:
        rows, wide_rows = _halves(shape[0] // 2, 4 * CHANNELS), 8 * CHANNELS
    elif ".ff.net.2." in name:
        wide_columns = 4 * CHANNELS
    elif name.startswith("output_blocks") and ("in_layers" in name or "skip_connection" in name):
        first, second = _JOINED[int(name.split(".")[1])]
        joined = np.concatenate([np.arange(first), CHANNELS + np.arange(second)])
        if ".in_layers.0." in name:
            rows, wide_rows = joined, 2 * CHANNELS
        elif len(shape) > 1:
            columns, wide_columns = joined, 2 * CHANNELS
    return (wide_rows, wide_columns, *shape[2:]) if len(shape) > 1 else (wide_rows,), rows, columns


def widen(name: str, narrow: Array, used_context: Spots) -> npt.NDArray[np.float16]:
    """A narrow tensor in the wide layout, half precision."""
    shape, rows, columns = spots(name, narrow.shape, used_context)
    wide = np.zeros(shape, np.float16)
    if narrow.ndim == 1:
        wide[rows] = narrow
    else:
        wide[rows[:, None], columns[None, :]] = narrow
    return wide
