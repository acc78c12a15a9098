"""Reads the header of a safetensors file: names, types and shapes of its tensors, and its metadata.

Uses only the standard library, because services do not load torch. Of the weights it reads only one small tensor, whose
values decide what shapes cannot.
"""

import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from shared.json_limits import load_json

# Bytes. Headers of real models have less than 5 MB; the limit keeps a service small whatever files a folder contains.
LARGEST = 16 * 1024 * 1024
# Values in the JSON: about eight for each tensor. The largest real models have 20,000 tensors.
MOST_JSON_VALUES = 500_000
PREFIX = struct.Struct("<Q")
# The tensor whose values are read, by the end of its name: a bias of UNets, as the original code and diffusers name it.
PROBED_TENSORS = (
    "output_blocks.11.1.transformer_blocks.0.norm1.bias",
    "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias",
)
MAX_PROBED_VALUES = 4096
# A bfloat16 is the upper half of a float32.
FORMATS = {"F32": (4, "<f", b""), "F16": (2, "<e", b""), "BF16": (2, "<f", b"\0\0")}


@dataclass(frozen=True)
class Tensor:
    """The type and shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class SafetensorsHeader:
    """The tensors of a file by name, its metadata, and the values of its probed tensor, if it has one."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    values: tuple[float, ...] = ()


def read_header(path: Path) -> SafetensorsHeader | None:
    """Read the header of a file; None if it is unreadable or not a complete safetensors file."""
    try:
        # Reading a named pipe would block forever.
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with path.open("rb") as file:
            (length,) = PREFIX.unpack(file.read(PREFIX.size))
            if length > LARGEST:
                return None
            header = load_json(file.read(length), most=MOST_JSON_VALUES)
            start = PREFIX.size + length
            return _parse(header, file, start, file.seek(0, 2) - start)
    # The bytes may be anything: too few, not JSON, of another form, or nested too deeply.
    except (OSError, struct.error, ValueError, ArithmeticError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def _parse(header: dict[str, Any], file: BinaryIO, start: int, size: int) -> SafetensorsHeader | None:
    """Parse the JSON of a header. The weights begin at `start` and have `size` bytes.

    Returns None if the file is shorter than its weights, for example because it is still being copied.
    """
    metadata = header.pop("__metadata__", None) or {}
    if max((int(entry["data_offsets"][1]) for entry in header.values()), default=0) > size:
        return None
    probed = next((name for name in header if name.endswith(PROBED_TENSORS)), None)
    return SafetensorsHeader(
        {
            name: Tensor(str(entry["dtype"]), tuple(int(side) for side in entry["shape"]))
            for name, entry in header.items()
        },
        {name: value for name, value in metadata.items() if isinstance(value, str)},
        () if probed is None else _values(header[probed], file, start),
    )


def _values(entry: dict[str, Any], file: BinaryIO, start: int) -> tuple[float, ...]:
    """Read the first values of a tensor; empty for unsupported types."""
    if entry["dtype"] not in FORMATS:
        return ()
    width, code, lower = FORMATS[entry["dtype"]]
    begin, end = (int(offset) for offset in entry["data_offsets"])
    file.seek(start + begin)
    data = file.read(min(max(0, end - begin), MAX_PROBED_VALUES * width))
    return tuple(struct.unpack(code, lower + data[i : i + width])[0] for i in range(0, len(data), width))
