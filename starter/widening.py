"""Pads the trained narrow tensors with zeros to the widths that the loader requires. numpy only.

`wide_indices` has the rows and columns of the wide tensor that receive the narrow one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from starter.layout import CHANNELS, CONTEXT
from starter.layout import HINT_WIDTHS as WIDE_HINT_WIDTHS
from starter.text_encoder import USED_CHANNELS

Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int_]

HEADS = 8
WIDTHS = (80, 160, 160)
"""Channels in use at full, half and quarter resolution; multiples of 20, so that norm groups are used completely."""
TIME_WIDTH = 320
"""Channels in use of the wide model's 1280 channels of the time embedding."""


def _head_indices(width: int) -> Indices:
    """Indices of the narrow model's heads: the first channels of each wide head."""
    narrow = width // HEADS
    return np.concatenate([np.arange(narrow) + head * (CHANNELS // HEADS) for head in range(HEADS)])


def _gate_indices(width: int, wide: int) -> Indices:
    """Indices of value and gate of a feed-forward layer."""
    return np.concatenate([np.arange(width), wide + np.arange(width)])


HINT_WIDTHS = (16, 16, 24, 24, 32, 32, 48)
"""Channels in use in the ControlNet's encoder of the hint picture."""
_CONCATENATED = {  # widths of the two inputs of each output block
    0: (WIDTHS[2], WIDTHS[2]),
    1: (WIDTHS[2], WIDTHS[1]),
    2: (WIDTHS[1], WIDTHS[1]),
    3: (WIDTHS[1], WIDTHS[0]),
    4: (WIDTHS[0], WIDTHS[0]),
    5: (WIDTHS[0], WIDTHS[0]),
}


def wide_indices(name: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], Indices, Indices]:
    """Return the wide shape, the rows and the columns for a narrow tensor; vectors have no columns."""
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
            rows = _head_indices(shape[0])
        elif len(shape) > 1:
            columns = _head_indices(shape[1])
        if "attn2.to_k" in name or "attn2.to_v" in name:
            columns, wide_columns = USED_CHANNELS, CONTEXT
    elif ".ff.net.0." in name:
        rows, wide_rows = _gate_indices(shape[0] // 2, 4 * CHANNELS), 8 * CHANNELS
    elif ".ff.net.2." in name:
        wide_columns = 4 * CHANNELS
    elif name.startswith("output_blocks") and ("in_layers" in name or "skip_connection" in name):
        first, second = _CONCATENATED[int(name.split(".")[1])]
        joined = np.concatenate([np.arange(first), CHANNELS + np.arange(second)])
        if ".in_layers.0." in name:
            rows, wide_rows = joined, 2 * CHANNELS
        elif len(shape) > 1:
            columns, wide_columns = joined, 2 * CHANNELS
    return (wide_rows, wide_columns, *shape[2:]) if len(shape) > 1 else (wide_rows,), rows, columns


def widen(name: str, narrow: Array) -> npt.NDArray[np.float16]:
    """Return a narrow tensor in the wide layout, in half precision."""
    shape, rows, columns = wide_indices(name, narrow.shape)
    wide = np.zeros(shape, np.float16)
    if narrow.ndim == 1:
        wide[rows] = narrow
    else:
        wide[rows[:, None], columns[None, :]] = narrow
    return wide


def widen_factors(
    name: str, shape: tuple[int, ...], up: Array, down: Array
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]:
    """Widen the two factors of a low-rank change of the narrow tensor `name` with this shape."""
    wide_shape, rows, columns = wide_indices(name, shape)
    rank = up.shape[1]
    wide_up = np.zeros((wide_shape[0], rank, *[1] * (len(shape) - 2)), np.float16)
    wide_down = np.zeros((rank, *wide_shape[1:]), np.float16)
    wide_up[rows] = up.reshape(len(up), rank, *[1] * (len(shape) - 2))
    wide_down[:, columns] = down.reshape(rank, *shape[1:])
    return wide_up, wide_down
