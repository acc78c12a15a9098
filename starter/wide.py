"""The trained model's measures, and where each of its tensors lies in the wide layout that the loader demands.

A narrow tensor becomes a wide one of zeros with its entries at `spots` of its rows and columns. numpy only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from starter.layout import CHANNELS, CONTEXT
from starter.layout import HINT_WIDTHS as WIDE_HINT_WIDTHS
from starter.text import USED

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


HINT_WIDTHS = (16, 16, 24, 24, 32, 32, 48)
"""Channels in use inside the ControlNet's look at its edges."""
_JOINED = {  # widths of the two inputs that are concatenated before each output block
    0: (WIDTHS[2], WIDTHS[2]),
    1: (WIDTHS[2], WIDTHS[1]),
    2: (WIDTHS[1], WIDTHS[1]),
    3: (WIDTHS[1], WIDTHS[0]),
    4: (WIDTHS[0], WIDTHS[0]),
    5: (WIDTHS[0], WIDTHS[0]),
}


def spots(name: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], Spots, Spots]:
    """(wide shape, rows, columns) for a tensor of the narrow diffusion model; columns is empty for vectors."""
    rows = np.arange(shape[0])
    columns = np.arange(shape[1]) if len(shape) > 1 else np.arange(0)
    wide_rows, wide_columns = CHANNELS, CHANNELS
    if name.startswith("time_embed"):
        wide_rows, wide_columns = 4 * CHANNELS, CHANNELS if ".0." in name else 4 * CHANNELS
    elif "emb_layers" in name:
        wide_columns = 4 * CHANNELS
    elif name == "input_blocks.0.0.weight":
        wide_columns = shape[1]
    elif name.startswith("input_hint_block."):
        widths = (3, *WIDE_HINT_WIDTHS, CHANNELS)
        wide_columns, wide_rows = widths[int(name.split(".")[1]) // 2 :][:2]
    elif name.startswith("out.2"):
        wide_rows = 4
    elif ".to_" in name:
        if ".to_out." not in name:
            rows = _heads(shape[0])
        elif len(shape) > 1:
            columns = _heads(shape[1])
        if "attn2.to_k" in name or "attn2.to_v" in name:
            columns, wide_columns = USED, CONTEXT
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


def widen(name: str, narrow: Array) -> npt.NDArray[np.float16]:
    """A narrow tensor in the wide layout, half precision."""
    shape, rows, columns = spots(name, narrow.shape)
    wide = np.zeros(shape, np.float16)
    if narrow.ndim == 1:
        wide[rows] = narrow
    else:
        wide[rows[:, None], columns[None, :]] = narrow
    return wide


def widen_factors(
    name: str, shape: tuple[int, ...], up: Array, down: Array
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]:
    """The factors of a change of the narrow tensor `name` (of that shape) as those of the change of the wide one."""
    wide_shape, rows, columns = spots(name, shape)
    rank = up.shape[1]
    wide_up = np.zeros((wide_shape[0], rank, *[1] * (len(shape) - 2)), np.float16)
    wide_down = np.zeros((rank, *wide_shape[1:]), np.float16)
    wide_up[rows] = up.reshape(len(up), rank, *[1] * (len(shape) - 2))
    wide_down[:, columns] = down.reshape(rank, *shape[1:])
    return wide_up, wide_down
