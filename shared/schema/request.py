"""A request with everything resolved, as immutable values: nothing left to guess, nothing that the engine cannot see.

The web layer makes them from what a client sent (see `shared.web.parsing`); `workflows` turns them into graphs. A part
that is None or empty was not asked for, and adds nothing to the graph.
"""

from dataclasses import dataclass

from shared.schema.body import ControlMode, InpaintMode
from shared.schema.units import Picture, aligned, enlarged

Size = tuple[int, int]


@dataclass(frozen=True)
class Models:
    """The files that a picture is drawn with.

    `checkpoint` holds all parts; or `diffusion_model` is one part alone, with `text_encoders` and `vae` beside it.
    `clip_type` is the type in ComfyUI's CLIPLoader ("flux", "sd3", ...). Latents of SD 3 and Flux have 16 channels.
    """

    checkpoint: str | None = None
    diffusion_model: str | None = None
    text_encoders: tuple[str, ...] = ()
    clip_type: str = "stable_diffusion"
    vae: str | None = None
    latent_channels: int = 4


@dataclass(frozen=True)
class Lora:
    """A LoRA's file, and how strongly it changes the model and the text encoder."""

    name: str
    strength_model: float
    strength_clip: float


@dataclass(frozen=True)
class Sampling:
    """One pass of a sampler, in the engine's names. `denoise` is the part of the noise that is drawn anew, 0 to 1."""

    steps: int
    cfg: float
    sampler: str
    scheduler: str
    denoise: float = 1.0


@dataclass(frozen=True)
class Preprocessing:
    """What makes a control map of a picture: `node` is the class of the engine, with its own inputs."""

    node: str
    inputs: tuple[tuple[str, float], ...] = ()
    resolution: int | None = None


@dataclass(frozen=True)
class ControlUnit:
    """A picture that guides the drawing from `start` to `end` (parts of the sampling, 0 to 1)."""

    model: str
    picture: Picture
    preprocessing: Preprocessing | None
    weight: float
    start: float
    end: float
    mode: ControlMode
    union_type: str | None = None


@dataclass(frozen=True)
class Upscale:
    """From one size to another: by an upscale model, then by `method` (a name of ImageScale) to exactly `size`."""

    size: Size
    model: str | None = None
    method: str = "lanczos"


@dataclass(frozen=True)
class Hires:
    """A second pass over the enlarged picture: enlarged as latent by `latent_method`, or as picture by `upscale`."""

    size: Size
    sampling: Sampling
    latent_method: str | None = None
    upscale: Upscale | None = None


@dataclass(frozen=True)
class Refiner:
    """A second checkpoint that takes over after the part `switch_at` of the steps."""

    checkpoint: str
    switch_at: float

    def begins_at(self, steps: int) -> int:
        """The step, from 0, with which it takes over; `steps` if it never does."""
        return round(steps * self.switch_at)


@dataclass(frozen=True)
class FaceRestoration:
    """A face model's file, and how true to the drawn face it stays (0 to 1)."""

    model: str
    fidelity: float


@dataclass(frozen=True)
class Tiles:
    """Pixels of the tiles in which large pictures are decoded, and by which they overlap."""

    size: int
    overlap: int


@dataclass(frozen=True)
class GenerationRequest:
    """What txt2img and img2img have in common.

    `size` is that of the first pass, in pixels, as the client asked: the graph works with multiples of 8 and cuts the
    rest off. Each of `seeds` makes one picture.
    """

    prompt: str
    negative_prompt: str
    size: Size
    seeds: tuple[int, ...]
    models: Models
    sampling: Sampling
    tiles: Tiles
    guidance: float | None = None
    clip_skip: int = 1
    loras: tuple[Lora, ...] = ()
    controls: tuple[ControlUnit, ...] = ()
    refiner: Refiner | None = None
    hires: Hires | None = None
    faces: FaceRestoration | None = None
    upscale: Upscale | None = None
    seamless: bool = False

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures that the graph loads."""
        return tuple(unit.picture for unit in self.controls)

    @property
    def latent_size(self) -> Size:
        """The size in pixels that the first pass works with."""
        return aligned(self.size)

    @property
    def drawn_size(self) -> Size:
        """The size in pixels of what is drawn, before the finished picture is enlarged."""
        return self.size if self.hires is None else self.hires.size

    @property
    def passes(self) -> tuple[Sampling, ...]:
        """How each pass samples."""
        return (self.sampling, *([self.hires.sampling] if self.hires else []))

    @property
    def padded_size(self) -> Size:
        """The size in pixels of what is drawn together with what fills the last cells of the first pass's latent."""
        return self.latent_size if self.hires is None else enlarged(self.size, self.hires.size)

    @property
    def latent_sizes(self) -> tuple[Size, ...]:
        """The size in pixels that each pass works with."""
        return (self.latent_size, *([aligned(self.padded_size)] if self.hires else []))

    @property
    def work(self) -> int:
        """How much there is to sample: pixels times steps, of all passes and pictures."""
        sizes = [self.size, *([self.hires.size] if self.hires else [])]
        each = zip(sizes, self.passes, strict=True)
        return len(self.seeds) * sum(width * height * sampling.steps for (width, height), sampling in each)

    @property
    def final_size(self) -> Size:
        """The size in pixels of the finished pictures."""
        return self.drawn_size if self.upscale is None else self.upscale.size


@dataclass(frozen=True)
class Txt2ImgRequest(GenerationRequest):
    """A picture from words alone."""


@dataclass(frozen=True)
class Paste:
    """Where what was drawn belongs: `size` pixels of `picture`, from `x` and `y` on."""

    picture: Picture
    x: int
    y: int
    size: Size


@dataclass(frozen=True)
class Inpainting:
    """What is repainted, and how it is laid over the source.

    `blend` tells how much of the result shows, from black (nothing) to white; it has the source's size, or with `paste`
    the size of the pasted part. `mask` has the source's size: white is drawn anew, which is so wherever `blend` is not
    black. In graphs of the client's own it is the mask that was sent, with its greys.
    """

    mode: InpaintMode
    mask: Picture
    blend: Picture
    grow_mask_by: int = 6
    paste: Paste | None = None


@dataclass(frozen=True, kw_only=True)
class Img2ImgRequest(GenerationRequest):
    """A picture from words and a picture."""

    source: Picture
    inpainting: Inpainting | None = None

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The source, and what inpainting adds, and what guides the drawing; each once."""
        found = [self.source, *super().pictures]
        if self.inpainting is not None:
            found += [self.inpainting.mask, self.inpainting.blend]
            if self.inpainting.paste is not None:
                found.append(self.inpainting.paste.picture)
        return tuple({picture.name: picture for picture in found}.values())

    @property
    def final_size(self) -> Size:
        """The size in pixels of the finished pictures: of the whole source, where only a part of it was drawn."""
        if self.upscale is None and self.inpainting is not None and self.inpainting.paste is not None:
            return self.inpainting.paste.picture.size
        return super().final_size


@dataclass(frozen=True)
class UpscaleRequest:
    """A finished picture, enlarged; if it is `transparent` somewhere, so is the result."""

    source: Picture
    upscale: Upscale
    faces: FaceRestoration | None = None
    transparent: bool = False


@dataclass(frozen=True)
class EnlargedLayer:
    """One way to enlarge a picture, and how much of it shows (over 0, up to 1)."""

    how: Upscale
    visibility: float


@dataclass(frozen=True)
class FacesLayer:
    """Restored faces, and how much of them shows (over 0, up to 1)."""

    how: FaceRestoration
    visibility: float


@dataclass(frozen=True)
class ExtrasRequest:
    """A finished picture, enlarged to the size of `ground` in several ways, each laid over those before it.

    If it is `transparent` somewhere, so is the result.
    """

    source: Picture
    ground: Upscale
    layers: tuple[EnlargedLayer, ...] = ()
    faces: tuple[FacesLayer, ...] = ()
    transparent: bool = False
