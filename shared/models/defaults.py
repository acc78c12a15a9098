"""Defaults of a request: which checkpoint it uses if it names none, and the settings that suit a checkpoint. Pure."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from shared.models.detect import Family, ModelFile, ModelPart
from starter import CHECKPOINT_NAME as STARTER
from starter import CHECKPOINT_NAMES as STARTER_KIT
from starter import VAE_NAME as STARTER_VAE

MEGAPIXEL = 1024 * 1024
# Names of checkpoints that are not for text-to-image, for files whose header cannot be read.
OTHER_PURPOSE = re.compile(
    r"inpaint|refiner|ip2p|pix2pix|cosxl[_-]?edit|x4[_-]?upscal|zero123|svd(?!q)|sv3d|img2vid|[it]2v(?![a-z])"
    r"|stable[_ -]?video|ltx[_-]?video|cogvideo|hunyuan[_-]?(?:video|3d)|mochi[_-]?(?:1|preview)"
    r"|stable[_-]?audio|ace[_-]?step",
    re.I,
)


@dataclass(frozen=True)
class ModelDefaults:
    """Settings that suit a model. Models that were distilled with guidance use `guidance` instead of cfg."""

    width: int = 512
    height: int = 512
    steps: int = 20
    cfg_scale: float = 7.0
    guidance: float | None = None
    sampler_name: str = "euler"
    scheduler: str = "normal"


# As their makers recommend: the size of the training pictures, and the steps after which little changes.
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
# Stable Diffusion 2 models that predict the noise: 2.0 base, 2.1 base and the inpainting model.
SD2_BASE = ModelDefaults()


def choose_checkpoint(
    preferred: str | None, available: Sequence[str], is_text_to_image: Callable[[str], bool] = lambda _name: True
) -> str | None:
    """Return the checkpoint for a request that names none; None if there is none.

    That is the preferred one (a setting), else the first of the user's own, else the starter. Checkpoints that are not
    for text-to-image come last.
    """
    if preferred is not None:
        return preferred
    own = sorted(name for name in available if name not in STARTER_KIT)
    candidates = [*own, *(name for name in available if name == STARTER)]
    return next((name for name in candidates if is_text_to_image(name)), candidates[0] if candidates else None)


def is_text_to_image(file: ModelFile) -> bool:
    """Whether a checkpoint makes good pictures from a prompt only.

    Refiners, models for inpainting, editing, video or sound, and files without a diffusion model do not.
    """
    if not file.known:
        return OTHER_PURPOSE.search(file.name) is None
    has_diffusion_model = not file.parts or ModelPart.DIFFUSION_MODEL in file.parts
    return has_diffusion_model and file.text_to_image and not file.inpainting and file.family is not Family.SDXL_REFINER


def is_starter(file: ModelFile) -> bool:
    """Whether a file is the starter model or another checkpoint of its kit, even if it was renamed."""
    return file.starter or re.split(r"[/\\]", file.name)[-1] in STARTER_KIT


def without_starter_vae(available: Sequence[str]) -> list[str]:
    """Return the VAEs without the starter's, which decodes only the starter's own latents."""
    return [name for name in available if name != STARTER_VAE]


def defaults_for(file: ModelFile) -> ModelDefaults:
    """Return settings that suit a model: those in its header, else those of its family."""
    predicts_noise = file.family is Family.SD2 and file.prediction == "epsilon"
    base = SD2_BASE if predicts_noise else FAMILY_DEFAULTS[file.family]
    width, height = file.size or (base.width, base.height)
    return replace(
        base,
        width=width,
        height=height,
        steps=file.steps or base.steps,
        cfg_scale=base.cfg_scale if file.cfg_scale is None else file.cfg_scale,
    )


def recommended_pixels(file: ModelFile) -> int:
    """Return the pixels of the largest picture that a model should draw if the request has no size."""
    width, height = file.size or (0, 0)
    return file.pixels or max(MEGAPIXEL, width * height)
