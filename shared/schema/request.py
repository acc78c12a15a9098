"""Parsed requests as immutable values, with every default and every file name resolved.

`shared.web.parsing` makes them from the fields of a request, and `workflows` builds graphs from them. A part that is
None or empty is off, and adds nothing to the graph.
"""

from dataclasses import dataclass

from shared.schema.body import ControlMode, InpaintMode
from shared.schema.ranges import Picture, aligned, enlarged

Size = tuple[int, int]


@dataclass(frozen=True)
class Models:
    """The model files of a request.

    Either `checkpoint` holds all parts, or `diffusion_model` holds one, and `text_encoders` and `vae` the others.
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
    """The file of a LoRA, and its strengths for the model and the text encoder."""

    name: str
    strength_model: float
    strength_clip: float


@dataclass(frozen=True)
class Sampling:
    """One pass of a sampler, in ComfyUI's names. `denoise` is the fraction of noise that it starts from, 0 to 1."""

    steps: int
    cfg: float
    sampler: str
    scheduler: str
    denoise: float = 1.0


@dataclass(frozen=True)
class Preprocessing:
    """How a control map is made of a picture: `node` is a class of the engine, with its `inputs`."""

    node: str
    inputs: tuple[tuple[str, float], ...] = ()
    resolution: int | None = None


@dataclass(frozen=True)
class ControlUnit:
    """A ControlNet with its picture, active from `start` to `end` (fractions of the steps, 0 to 1)."""

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
    """An enlargement to exactly `size`: with an upscale model if there is one, then with `method` (of ImageScale)."""

    size: Size
    model: str | None = None
    method: str = "lanczos"


@dataclass(frozen=True)
class Hires:
    """A second pass over the enlarged picture: enlarged as a latent by `latent_method`, or as pixels by `upscale`."""

    size: Size
    sampling: Sampling
    latent_method: str | None = None
    upscale: Upscale | None = None


@dataclass(frozen=True)
class Refiner:
    """A second checkpoint that takes over after the fraction `switch_at` of the steps."""

    checkpoint: str
    switch_at: float

    def begins_at(self, steps: int) -> int:
        """Return the step, from 0, at which it takes over; `steps` if it never does."""
        return round(steps * self.switch_at)


@dataclass(frozen=True)
class FaceRestoration:
    """The file of a face model, and its fidelity to the generated face (0 to 1)."""

    model: str
    fidelity: float


@dataclass(frozen=True)
class Tiles:
    """The side of the tiles in which large pictures are decoded, and their overlap, in pixels."""

    size: int
    overlap: int


@dataclass(frozen=True)
class GenerationRequest:
    """What txt2img and img2img have in common.

    `size` is the size of the first pass in pixels: the graph rounds it up to multiples of 8, and crops the result. Each
    of `seeds` makes one picture.
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
        """The size in pixels of the first pass's latent."""
        return aligned(self.size)

    @property
    def drawn_size(self) -> Size:
        """The size in pixels of the last pass, before the finished picture is enlarged."""
        return self.size if self.hires is None else self.hires.size

    @property
    def passes(self) -> tuple[Sampling, ...]:
        """The sampling of each pass."""
        return (self.sampling, *([self.hires.sampling] if self.hires else []))

    @property
    def padded_size(self) -> Size:
        """The size in pixels of the last pass, with the padding of the first pass's latent."""
        return self.latent_size if self.hires is None else enlarged(self.size, self.hires.size)

    @property
    def latent_sizes(self) -> tuple[Size, ...]:
        """The size in pixels of each pass's latent."""
        return (self.latent_size, *([aligned(self.padded_size)] if self.hires else []))

    @property
    def work(self) -> int:
        """The amount of sampling: pixels times steps, of all passes and pictures."""
        sizes = [self.size, *([self.hires.size] if self.hires else [])]
        passes = zip(sizes, self.passes, strict=True)
        return len(self.seeds) * sum(width * height * sampling.steps for (width, height), sampling in passes)

    @property
    def final_size(self) -> Size:
        """The size in pixels of the finished pictures."""
        return self.drawn_size if self.upscale is None else self.upscale.size


@dataclass(frozen=True)
class Txt2ImgRequest(GenerationRequest):
    """A txt2img request."""


@dataclass(frozen=True)
class Paste:
    """Where a drawn region is pasted: into the `size` pixels of `picture` at `x` and `y`."""

    picture: Picture
    x: int
    y: int
    size: Size


@dataclass(frozen=True)
class Inpainting:
    """What is repainted, and how the result is composited over the source.

    `blend` is the opacity of the result, from black (invisible) to white; it has the size of the source, or with
    `paste` that of the pasted region. `mask` has the size of the source, and is white wherever `blend` is not black. In
    custom graphs it is the mask as it was sent, with its greys.
    """

    mode: InpaintMode
    mask: Picture
    blend: Picture
    grow_mask_by: int = 6
    paste: Paste | None = None


@dataclass(frozen=True, kw_only=True)
class Img2ImgRequest(GenerationRequest):
    """An img2img request."""

    source: Picture
    inpainting: Inpainting | None = None

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures of source, ControlNets and inpainting, each once."""
        pictures = [self.source, *super().pictures]
        if self.inpainting is not None:
            pictures += [self.inpainting.mask, self.inpainting.blend]
            if self.inpainting.paste is not None:
                pictures.append(self.inpainting.paste.picture)
        return tuple({picture.name: picture for picture in pictures}.values())

    @property
    def final_size(self) -> Size:
        """The size in pixels of the finished pictures: that of the whole source if only a region of it is drawn."""
        if self.upscale is None and self.inpainting is not None and self.inpainting.paste is not None:
            return self.inpainting.paste.picture.size
        return super().final_size


@dataclass(frozen=True)
class UpscaleRequest:
    """An upscale request; if the source is `transparent`, so is the result."""

    source: Picture
    upscale: Upscale
    faces: FaceRestoration | None = None
    transparent: bool = False


@dataclass(frozen=True)
class EnlargedLayer:
    """An enlarged picture, and its opacity (over 0, up to 1)."""

    how: Upscale
    visibility: float


@dataclass(frozen=True)
class FacesLayer:
    """Restored faces, and their opacity (over 0, up to 1)."""

    how: FaceRestoration
    visibility: float


@dataclass(frozen=True)
class ExtrasRequest:
    """An extras request: the picture enlarged as `ground`, with `layers` and then `faces` blended over it.

    If the source is `transparent`, so is the result.
    """

    source: Picture
    ground: Upscale
    layers: tuple[EnlargedLayer, ...] = ()
    faces: tuple[FacesLayer, ...] = ()
    transparent: bool = False
