"""The header of a safetensors file: names, types and shapes of its tensors, and what its maker wrote about it.

Read with the standard library alone, for services load no torch. The weights themselves are not touched, but for the
values of one small tensor that tell what no shape does.
"""

import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from shared.json_limits import load_json

# Headers of real models have less than 5 MB. A service stays small, whatever lies in a folder.
LARGEST = 16 * 1024 * 1024
# Commas and brackets in it: of each tensor about eight. The largest of real models have 20,000 tensors.
MOST_JSON_VALUES = 500_000
PREFIX = struct.Struct("<Q")
# How the name of the tensor ends whose values are read: a bias of UNets, as the original code and as diffusers name it.
PROBED_TENSORS = (
    "output_blocks.11.1.transformer_blocks.0.norm1.bias",
    "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias",
)
MAX_PROBED_VALUES = 4096
# A bfloat16 is the upper half of a float32.
FORMATS = {"F32": (4, "<f", b""), "F16": (2, "<e", b""), "BF16": (2, "<f", b"\0\0")}


@dataclass(frozen=True)
class Tensor:
    """What the header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class SafetensorsHeader:
    """The tensors of a file by name, its metadata, and the values of its probed tensor, if it has one."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    values: tuple[float, ...] = ()


def read_header(path: Path) -> SafetensorsHeader | None:
    """The header of `path`; None for whatever is not a whole safetensors file, or cannot be read."""
    try:
        # A pipe of that name would never answer.
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with path.open("rb") as file:
            (length,) = PREFIX.unpack(file.read(PREFIX.size))
            if length > LARGEST:
                return None
            header = load_json(file.read(length), most=MOST_JSON_VALUES)
            start = PREFIX.size + length
            return _parse(header, file, start, file.seek(0, 2) - start)
    # Whatever the bytes are: too few, no JSON, not of this form, or nested without end.
    except (OSError, struct.error, ValueError, ArithmeticError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def _parse(header: dict[str, Any], file: BinaryIO, start: int, size: int) -> SafetensorsHeader | None:
    """`header` as JSON has it, of weights that begin at `start` and have `size` bytes; None if the file ends before its
    weights, as when it is still being copied."""
    metadata = header.pop("__metadata__", None) or {}
    if max((int(entry["data_offsets"][1]) for entry in header.values()), default=0) > size:
        return None
    telling = next((name for name in header if name.endswith(PROBED_TENSORS)), None)
    return SafetensorsHeader(
        {
            name: Tensor(str(entry["dtype"]), tuple(int(side) for side in entry["shape"]))
            for name, entry in header.items()
        },
        {name: value for name, value in metadata.items() if isinstance(value, str)},
        () if telling is None else _values(header[telling], file, start),
    )


def _values(entry: dict[str, Any], file: BinaryIO, start: int) -> tuple[float, ...]:
    """The first values of a tensor; none if they are of another type."""
    if entry["dtype"] not in FORMATS:
        return ()
    width, code, lower = FORMATS[entry["dtype"]]
    begin, end = (int(offset) for offset in entry["data_offsets"])
    file.seek(start + begin)
    data = file.read(min(max(0, end - begin), MAX_PROBED_VALUES * width))
    return tuple(struct.unpack(code, lower + data[i : i + width])[0] for i in range(0, len(data), width))
