"""Ranges and types that all parts of a request share, and pictures as the engine reads them exactly.

Ranges come from the ComfyUI nodes that take the values (KSampler, EmptyLatentImage, VAEEncodeForInpaint, ...), narrowed
where the node's own range would only serve to exhaust the machine.
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
# The most steps that a sampler of ComfyUI's is divided into.
MOST_STEPS = 10_000
# Above so many pixels a picture is decoded and encoded tile by tile: at once it takes more than 10 GB.
MAX_UNTILED_PIXELS = 2048 * 2048


def is_text(value: str) -> bool:
    """Whether it can be written down. JSON can spell half of a character (a lone surrogate, as "\\ud800"), and nothing
    can hold it."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def align(side: int) -> int:
    """The next multiple of 8 pixels, which is what one latent cell covers."""
    return -(-side // LATENT_CELL) * LATENT_CELL


def aligned(size: tuple[int, int]) -> tuple[int, int]:
    """Both sides brought up to the next multiple of 8 pixels."""
    return align(size[0]), align(size[1])


def enlarged(size: tuple[int, int], to: tuple[int, int]) -> tuple[int, int]:
    """The size that all of a latent's picture gets when the part of `size` that counts becomes as large as `to`: what
    fills its last cells grows along."""
    width, height = aligned(size)
    return round(width * to[0] / size[0]), round(height * to[1] / size[1])


@dataclass(frozen=True)
class Picture:
    """A normalised picture or mask: an 8-bit RGB PNG, upright; RGBA where its transparency counts.

    `width` and `height` are those of the visible part, at the top left. Where the engine needs multiples of 8 pixels,
    at most 7 more to the right and below repeat the edge (a mask is black there). A mask is grey, white where the
    picture is to be repainted.
    """

    png: bytes
    width: int
    height: int

    @cached_property
    def name(self) -> str:
        """The file name for the engine's input folder: the content's SHA-256, so equal pictures are stored once."""
        return f"{hashlib.sha256(self.png).hexdigest()}.png"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the visible part."""
        return self.width, self.height


def _refuse_bool(value: Any) -> Any:
    # Python takes True for 1; somebody who sends `"steps": true` has mixed something up.
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


# Last in an annotation, so that it sees the value first.
NotBool = BeforeValidator(_refuse_bool)
Side = Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE), NotBool]
LONGEST_TEXT = 20_000
Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Name = Annotated[str, Field(max_length=500)]
# A data URL, base64, or the name of an upload. Its JSON Schema says so, and user interfaces offer a file chooser.
PictureText = Annotated[str, Field(json_schema_extra={"contentMediaType": "image/*"})]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), NotBool]
Strength = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False), NotBool]
Steps = Annotated[int, Field(ge=1, le=1000), NotBool]
Scale = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False), NotBool]
Factor = Annotated[float, Field(ge=1, le=8, allow_inf_nan=False), NotBool]
Weight = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False), NotBool]
