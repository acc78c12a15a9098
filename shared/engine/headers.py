"""The header of a safetensors file: names, types and shapes of its tensors, and what its maker wrote about it.

Read with the standard library alone, for services load no torch; the weights themselves are not touched.
"""

import json
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Headers of real models have less than 5 MB. A service stays small, whatever lies in a folder.
LARGEST = 16 * 1024 * 1024
PREFIX = struct.Struct("<Q")


@dataclass(frozen=True)
class Tensor:
    """What the header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """The tensors of a file by their names, and its metadata."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header | None:
    """The header of `path`; None for whatever is not a whole safetensors file, or cannot be read."""
    try:
        # A pipe of that name would never answer.
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with path.open("rb") as file:
            (length,) = PREFIX.unpack(file.read(PREFIX.size))
            if length > LARGEST:
                return None
            header = json.loads(file.read(length))
            size = file.seek(0, 2)
        return _parse(header, size - PREFIX.size - length)
    # Whatever the bytes are: too few, no JSON, not of this form, or nested without end.
    except (OSError, struct.error, ValueError, ArithmeticError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def _parse(header: dict[str, Any], size: int) -> Header | None:
    """`header` as JSON has it; None if the file ends before its weights, as when it is still being copied."""
    metadata = header.pop("__metadata__", None) or {}
    if max((int(entry["data_offsets"][1]) for entry in header.values()), default=0) > size:
        return None
    return Header(
        {
            name: Tensor(str(entry["dtype"]), tuple(int(side) for side in entry["shape"]))
            for name, entry in header.items()
        },
        {name: value for name, value in metadata.items() if isinstance(value, str)},
    )
