"""What a request means when it leaves something out: the checkpoint, and settings that suit that checkpoint. Pure."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from shared.models.detect import Family, ModelFile, ModelPart
from starter import CHECKPOINT_NAME as STARTER
from starter import CHECKPOINT_NAMES as SMALL
from starter import VAE_NAME as SEPIA

MEGAPIXEL = 1024 * 1024
# Names of checkpoints that do not draw from words alone, for files whose header cannot be read.
OTHER_PURPOSE = re.compile(
    r"inpaint|refiner|ip2p|pix2pix|cosxl[_-]?edit|x4[_-]?upscal|zero123|svd(?!q)|sv3d|img2vid|[it]2v(?![a-z])"
    r"|stable[_ -]?video|ltx[_-]?video|cogvideo|hunyuan[_-]?(?:video|3d)|mochi[_-]?(?:1|preview)"
    r"|stable[_-]?audio|ace[_-]?step",
    re.I,
)


@dataclass(frozen=True)
class ModelDefaults:
    """Settings that suit a model. `guidance` is what models distilled with guidance take in place of cfg."""

    width: int = 512
    height: int = 512
    steps: int = 20
    cfg_scale: float = 7.0
    guidance: float | None = None
    sampler_name: str = "euler"
    scheduler: str = "normal"


# As their makers recommend: the size that each was trained with, and the steps after which little changes.
FAMILY_DEFAULTS: Mapping[Family, ModelDefaults] = {
    Family.SD1: ModelDefaults(),
    Family.SD2: ModelDefaults(width=768, height=768),
    Family.SDXL: ModelDefaults(width=1024, height=1024, steps=25),
    Family.SDXL_REFINER: ModelDefaults(width=1024, height=1024, steps=25),
    Family.SD3: ModelDefaults(width=1024, height=1024, steps=28, cfg_scale=4.5, scheduler="sgm_uniform"),
    Family.FLUX_DEV: ModelDefaults(width=1024, height=1024, cfg_scale=1.0, guidance=3.5, scheduler="simple"),
    Family.FLUX_SCHNELL: ModelDefaults(width=1024, height=1024, steps=4, cfg_scale=1.0, scheduler="simple"),
    Family.UNKNOWN: ModelDefaults(),
}
# Of Stable Diffusion 2, those that predict the noise: 2.0 base, 2.1 base and the one for inpainting.
SD2_BASE = ModelDefaults()


def choose_checkpoint(
    preferred: str | None, available: Sequence[str], is_text_to_image: Callable[[str], bool] = lambda _name: True
) -> str | None:
    """The checkpoint for a request that names none: the preferred one (a setting), else the first of the user's own,
    else the starter; None when there is nothing to choose from.

    Those that do not draw well from a prompt alone (`is_text_to_image`) come last.
    """
    if preferred is not None:
        return preferred
    own = sorted(name for name in available if name not in SMALL)
    candidates = [*own, *(name for name in available if name == STARTER)]
    return next((name for name in candidates if is_text_to_image(name)), candidates[0] if candidates else None)


def is_text_to_image(file: ModelFile) -> bool:
    """Whether a checkpoint draws well from a prompt alone: not one for inpainting, editing, video or sound, no refiner,
    and no file that holds other parts than a diffusion model."""
    if not file.known:
        return OTHER_PURPOSE.search(file.name) is None
    holds_one = not file.parts or ModelPart.DIFFUSION_MODEL in file.parts
    return holds_one and file.text_to_image and not file.inpainting and file.family is not Family.SDXL_REFINER


def is_starter(file: ModelFile) -> bool:
    """Whether it is the starter model or another checkpoint of its kit, under its own name or any other."""
    return file.starter or re.split(r"[/\\]", file.name)[-1] in SMALL


def without_starter_vae(available: Sequence[str]) -> list[str]:
    """Those that may decode what any model draws: all but the starter's, whose latents are its own."""
    return [name for name in available if name != SEPIA]


def defaults_for(file: ModelFile) -> ModelDefaults:
    """Settings that suit `file`: its maker's, where its header has any, else those of its family."""
    is_base = file.family is Family.SD2 and file.prediction == "epsilon"
    usual = SD2_BASE if is_base else FAMILY_DEFAULTS[file.family]
    width, height = file.size or (usual.width, usual.height)
    return replace(
        usual,
        width=width,
        height=height,
        steps=file.steps or usual.steps,
        cfg_scale=usual.cfg_scale if file.cfg_scale is None else file.cfg_scale,
    )


def recommended_pixels(file: ModelFile) -> int:
    """Pixels of the largest picture that `file` should draw unless a size was asked for."""
    width, height = file.size or (0, 0)
    return file.pixels or max(MEGAPIXEL, width * height)
