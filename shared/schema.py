"""The requests that the API takes, as immutable values: everything resolved, nothing left to guess.

A request is complete when it exists: the seed is a number, the checkpoint a name, pictures are decoded. The web layer
resolves what a client leaves out (see `shared.web.reading`); `workflows` turns the result into a graph.

Ranges come from the ComfyUI nodes that take the values (KSampler, EmptyLatentImage, VAEEncodeForInpaint), narrowed
where the node's own range would only serve to exhaust the machine.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MAX_SEED = 2**64 - 1
MIN_SIDE = 16
MAX_SIDE = 4096
LATENT_CELL = 8


def align(side: int) -> int:
    """The next multiple of 8 pixels, which is what one latent cell covers."""
    return -(-side // LATENT_CELL) * LATENT_CELL


@dataclass(frozen=True)
class Picture:
    """A normalised picture or mask: an 8-bit RGB PNG, upright, its sides multiples of 8 pixels.

    `width` and `height` are those of the visible part, at the top left; the rest, at most 7 pixels to the right and
    below, repeats the edge (a mask is black there). A mask is grey, white where the picture is to be repainted.
    """

    png: bytes
    width: int
    height: int

    @cached_property
    def name(self) -> str:
        """The file name for the engine's input folder: the content's SHA-256, so equal pictures are stored once."""
        return f"{hashlib.sha256(self.png).hexdigest()}.png"


def _refuse_bool(value: Any) -> Any:
    # Python takes True for 1; somebody who sends `"steps": true` has mixed something up.
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


# Last in an annotation, so that it sees the value first.
NotBool = BeforeValidator(_refuse_bool)
Side = Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE), NotBool]
Text = Annotated[str, Field(max_length=20_000)]


class Sides(BaseModel):
    """The size that a client asked for, as far as it did."""

    width: Side | None = None
    height: Side | None = None


class GenerationRequest(BaseModel):
    """What txt2img and img2img have in common. `preview` asks for small pictures among the job's events."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())

    prompt: Text
    negative_prompt: Text = ""
    width: Side = 512
    height: Side = 512
    steps: Annotated[int, Field(ge=1, le=1000), NotBool] = 20
    cfg_scale: Annotated[float, Field(ge=0, le=100), NotBool] = 7.0
    sampler_name: str = "euler"
    scheduler: str = "normal"
    seed: Annotated[int, Field(ge=0, le=MAX_SEED), NotBool]
    batch_size: Annotated[int, Field(ge=1, le=16), NotBool] = 1
    model_name: str
    preview: bool = False

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures that the graph loads."""
        return ()


class Txt2ImgRequest(GenerationRequest):
    """A picture from words alone."""


class Img2ImgRequest(GenerationRequest):
    """A picture from words and a picture; with a mask, only what is white in the mask is repainted.

    `input_image` and `mask` have the visible size width x height. Without a mask, `denoising_strength` says how far the
    result may go from the source (0: not at all, 1: as if from noise). With one, the hole is greyed before it is
    encoded (VAEEncodeForInpaint), so anything much below 1 leaves grey in it.
    """

    input_image: Picture
    mask: Picture | None = None
    denoising_strength: Annotated[float, Field(ge=0, le=1), NotBool] = 0.75
    grow_mask_by: Annotated[int, Field(ge=0, le=64), NotBool] = 6

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The source, and the mask if there is one."""
        return (self.input_image,) if self.mask is None else (self.input_image, self.mask)
