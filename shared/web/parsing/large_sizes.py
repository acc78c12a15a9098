"""Pictures larger than a model draws well: first at the size it was trained with, then enlarged and refined. Pure.

A diffusion model that starts from noise far beyond its training size repeats its subject and loses its shapes. A second
pass over an enlarged picture keeps the composition of the first, and also takes fewer steps at the large size.
"""

import math
from dataclasses import replace
from typing import Any

from shared.models.detect import Family
from shared.schema.body import GenerationBody
from shared.schema.request import Hires, Sampling, Size, Upscale
from shared.schema.units import aligned, enlarged
from shared.web.parsing.models import Chosen

# How many times the area of its training size a model draws in one pass. Black Forest Labs names up to two megapixels
# for Flux; of the others, half as much again is what people draw with few faults (512x768 with SD 1.5).
REACH = 1.5
FLUX_REACH = 2.0
# The first pass is a multiple of 8 pixels or nearly so; a little beyond the limit, it would save nothing.
SLACK = 1.05
# What the second pass draws anew of the noise: enough to sharpen what Lanczos blurred, too little to move shapes. And
# the part of the steps that it takes, which decides the time: `bench.large_sizes` measures both.
DENOISE = 0.25
UPSCALER = "Lanczos"


def first_pass_size(size: Size, chosen: Chosen) -> Size | None:
    """The size in pixels to draw first for a picture of `size`; None where the model draws that in one pass.

    It has the proportions of `size` and the area that the model was trained with; a short side stays at half of the
    trained one or more. None too for a model of an unknown family, whose size nobody knows.
    """
    if chosen.file.family is Family.UNKNOWN:
        return None
    width, height = size
    native = chosen.defaults.width * chosen.defaults.height
    reach = FLUX_REACH if chosen.file.family in (Family.FLUX_DEV, Family.FLUX_SCHNELL) else REACH
    if width * height <= native * reach * SLACK:
        return None
    shortest = min(chosen.defaults.width, chosen.defaults.height) / 2
    scale = max(math.sqrt(native / (width * height)), shortest / min(width, height))
    if scale * scale * reach * SLACK >= 1:
        return None
    return round(width * scale), round(height * scale)


def second_pass(first: Size, size: Size, sampling: Sampling) -> Hires:
    """The pass that makes a picture of `size` out of one of `first`: as many steps as DENOISE leaves of the first."""
    steps = max(1, int(sampling.steps * DENOISE))
    again = replace(sampling, steps=steps, denoise=DENOISE)
    return Hires(size, again, upscale=Upscale(aligned(enlarged(first, size)), method=UPSCALER.lower()))


def as_hires_fix(first: Size, hires: Hires) -> dict[str, Any]:
    """Both passes in the fields of hires fix, for programs that know only those."""
    return {
        "width": first[0],
        "height": first[1],
        "hires_fix": True,
        "hires_fix_upscaler": UPSCALER,
        "hires_fix_upscale_method": "resize-to",
        "hires_fix_resize_width": hires.size[0],
        "hires_fix_resize_height": hires.size[1],
        "hires_fix_hires_steps": hires.sampling.steps,
        "hires_fix_denoising_strength": hires.sampling.denoise,
    }


def hole_warning(painted: Size, chosen: Chosen) -> str:
    """What a client should know of a hole that is larger than what the model draws at once."""
    own = f"{chosen.defaults.width}x{chosen.defaults.height}"
    return (
        f"mask repaints as much as {painted[0]}x{painted[1]} pixels from noise alone, beyond the {own} of this model: "
        f"it may repeat its subject; draw in {own} (width, height), or with a lower denoising_strength"
    )


def size_warning(body: GenerationBody, chosen: Chosen, size: Size, first: Size | None) -> str | None:
    """What a client should know of a size beyond the model's own; None if there is nothing to say."""
    if first is None:
        return None
    beyond = f"{size[0]}x{size[1]} is beyond the {chosen.defaults.width}x{chosen.defaults.height} of this model"
    if body.hires_fix:
        return f"{beyond}: the first pass of hires_fix may repeat its subject; start from {first[0]}x{first[1]}"
    if body.large_sizes == "direct":
        return f"{beyond}, and large_sizes direct draws it in one pass: it may repeat its subject or lose its shapes"
    return f"{beyond}: drawn at {first[0]}x{first[1]}, then enlarged and refined; large_sizes direct takes one pass"
