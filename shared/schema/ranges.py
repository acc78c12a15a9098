"""Types and ranges of fields, sizes in pixels, and the pictures that are sent to the engine.

The ranges are those of ComfyUI's nodes (KSampler, EmptyLatentImage, VAEEncodeForInpaint, ...), or smaller where the
node's own range would exhaust the machine.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

MAX_SEED = 2**64 - 1
MIN_SIDE = 16
MAX_SIDE = 4096
LATENT_CELL = 8
# The most steps of a ComfyUI sampler.
MOST_STEPS = 10_000
# Larger pictures are decoded and encoded in tiles: in one piece they take more than 10 GB.
MAX_UNTILED_PIXELS = 2048 * 2048


def is_text(value: str) -> bool:
    """Whether the text can be encoded. JSON can contain half a character (a lone surrogate, as "\\ud800")."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def align(side: int) -> int:
    """Round up to a multiple of 8 pixels, the side of one latent cell."""
    return -(-side // LATENT_CELL) * LATENT_CELL


def aligned(size: tuple[int, int]) -> tuple[int, int]:
    """Round both sides up to multiples of 8 pixels."""
    return align(size[0]), align(size[1])


def enlarged(size: tuple[int, int], to: tuple[int, int]) -> tuple[int, int]:
    """Return the size of a latent's whole picture, in pixels, if its visible part is enlarged from `size` to `to`.

    The padding of the last latent cells is enlarged too.
    """
    width, height = aligned(size)
    return round(width * to[0] / size[0]), round(height * to[1] / size[1])


@dataclass(frozen=True)
class Picture:
    """A picture or mask for the engine: an upright 8-bit RGB PNG, or RGBA if its transparency is used.

    `width` and `height` are those of the visible part, at the top left. To get multiples of 8 pixels, up to 7 pixels to
    the right and below repeat the edge (black in a mask). A mask is grey, and white where the picture is repainted.
    """

    png: bytes
    width: int
    height: int

    @cached_property
    def name(self) -> str:
        """The file name in the engine's input folder: the SHA-256 of the content, so equal pictures are stored once."""
        return f"{hashlib.sha256(self.png).hexdigest()}.png"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the visible part."""
        return self.width, self.height


def _refuse_bool(value: Any) -> Any:
    # In Python, True equals 1; `"steps": true` is a mistake of the client.
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


# The last part of an annotation runs first.
NotBool = BeforeValidator(_refuse_bool)
Side = Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE), NotBool]
LONGEST_TEXT = 20_000
Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Name = Annotated[str, Field(max_length=500)]
# A data URL, base64, or the name of an upload. User interfaces read the media type in the schema, and offer files.
PictureText = Annotated[str, Field(json_schema_extra={"contentMediaType": "image/*"})]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), NotBool]
Strength = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False), NotBool]
Steps = Annotated[int, Field(ge=1, le=1000), NotBool]
Scale = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False), NotBool]
Factor = Annotated[float, Field(ge=1, le=8, allow_inf_nan=False), NotBool]
Weight = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False), NotBool]
