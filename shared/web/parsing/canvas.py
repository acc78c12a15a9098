"""The size of the first pass: pictures beyond a model's native size are drawn smaller, then enlarged and refined. Pure.

A diffusion model that starts from noise far beyond its training size repeats its subject and loses its shapes. A second
pass over an enlarged picture keeps the composition of the first, and takes fewer steps at the large size.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from shared.models.detect import Family
from shared.schema.body import GenerationBody
from shared.schema.ranges import aligned, enlarged
from shared.schema.request import Hires, Sampling, Size, Upscale
from shared.web.parsing.models import ChosenModels
from shared.web.parsing.parser import Parser

# The area that a model draws in one pass, in multiples of its training area. Black Forest Labs names up to two
# megapixels for Flux; others draw half as much again with few faults (512x768 with SD 1.5).
REACH = 1.5
FLUX_REACH = 2.0
# The first pass rounds to multiples of 8 pixels; slightly beyond the limit, it would save nothing.
SLACK = 1.05
# The denoise of the second pass: enough to sharpen what Lanczos blurred, too little to move shapes. It is also the
# fraction of the steps that the second pass takes, which decides the time: `bench.large_sizes` measures both.
REFINE_DENOISE = 0.25
REFINE_UPSCALER = "Lanczos"


@dataclass(frozen=True)
class Canvas:
    """What the first pass draws: its `size`, and the fraction of noise that it starts from (`denoise`, 0 to 1).

    `asked` is the size before outpainting. `whole` is the size of the finished picture if only a region of it is drawn.
    `enlarged` is the size of an automatic second pass. `image` is the source at this size, which ControlNets without a
    picture use.
    """

    size: Size
    asked: Size
    denoise: float = 1.0
    image: Image.Image | None = None
    whole: Size | None = None
    enlarged: Size | None = None


def choose_canvas(parser: Parser, body: GenerationBody, models: ChosenModels) -> Canvas:
    """Return the canvas of txt2img, by default in the native size of the model; warn of large sizes."""
    size = (body.width or models.defaults.width, body.height or models.defaults.height)
    return limit_canvas(parser, body, models, Canvas(size, asked=size))


def limit_canvas(parser: Parser, body: GenerationBody, models: ChosenModels, canvas: Canvas) -> Canvas:
    """Reduce a canvas that starts from noise to what the model draws in one pass, and warn of large sizes."""
    first = None
    if parser.custom_graph is None and canvas.denoise == 1:
        first = first_pass_size(canvas.size, models)
    if first is None:
        return canvas
    parser.warn(_size_warning(body, models, canvas.size, first))
    if body.large_sizes == "direct" or body.hires_fix:
        return canvas
    return replace(canvas, size=first, enlarged=canvas.size)


def first_pass_size(size: Size, models: ChosenModels) -> Size | None:
    """Return the size in pixels of a first pass for a picture of `size`; None if the model draws it in one pass.

    The first pass has the proportions of `size` and the model's training area; its short side is at least half of the
    trained one. Also None for a model of an unknown family, whose training size is unknown.
    """
    if models.file.family is Family.UNKNOWN:
        return None
    width, height = size
    native_area = models.defaults.width * models.defaults.height
    reach = FLUX_REACH if models.file.family in (Family.FLUX_DEV, Family.FLUX_SCHNELL) else REACH
    if width * height <= native_area * reach * SLACK:
        return None
    shortest = min(models.defaults.width, models.defaults.height) / 2
    factor = max(math.sqrt(native_area / (width * height)), shortest / min(width, height))
    if factor * factor * reach * SLACK >= 1:
        return None
    return round(width * factor), round(height * factor)


def second_pass(first: Size, size: Size, sampling: Sampling) -> Hires:
    """Return the pass that enlarges and refines a picture of size `first` to `size`."""
    steps = max(1, int(sampling.steps * REFINE_DENOISE))
    second = replace(sampling, steps=steps, denoise=REFINE_DENOISE)
    return Hires(size, second, upscale=Upscale(aligned(enlarged(first, size)), method=REFINE_UPSCALER.lower()))


def hires_fix_parameters(first: Size, hires: Hires) -> dict[str, Any]:
    """Return both passes as parameters of hires fix, for programs that do not know large_sizes."""
    return {
        "width": first[0],
        "height": first[1],
        "hires_fix": True,
        "hires_fix_upscaler": REFINE_UPSCALER,
        "hires_fix_upscale_method": "resize-to",
        "hires_fix_resize_width": hires.size[0],
        "hires_fix_resize_height": hires.size[1],
        "hires_fix_hires_steps": hires.sampling.steps,
        "hires_fix_denoising_strength": hires.sampling.denoise,
    }


def large_mask_warning(repainted: Size, models: ChosenModels) -> str:
    """Return the warning that a mask repaints more than the model draws in one pass."""
    native = f"{models.defaults.width}x{models.defaults.height}"
    return (
        f"mask repaints as much as {repainted[0]}x{repainted[1]} pixels from noise alone, beyond the {native} of this "
        f"model: it may repeat its subject; use {native} (width, height), or a lower denoising_strength"
    )


def _size_warning(body: GenerationBody, models: ChosenModels, size: Size, first: Size) -> str:
    beyond = f"{size[0]}x{size[1]} is beyond the {models.defaults.width}x{models.defaults.height} of this model"
    if body.hires_fix:
        return f"{beyond}: the first pass of hires_fix may repeat its subject; start from {first[0]}x{first[1]}"
    if body.large_sizes == "direct":
        return f"{beyond}, and large_sizes direct draws it in one pass: it may repeat its subject or lose its shapes"
    return f"{beyond}: drawn at {first[0]}x{first[1]}, then enlarged and refined; large_sizes direct draws in one pass"
