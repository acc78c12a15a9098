"""Chooses how a request is sampled: sampler, scheduler, cfg, seeds, refiner.

Sampler names come from three vocabularies: ComfyUI's ("dpmpp_2m" and "karras"), the labels of AUTOMATIC1111
("DPM++ 2M Karras", "Euler a"), and the ids of the web page ("dpm-2m-karras").
"""

import difflib
import secrets
from collections.abc import Sequence

from shared.errors import InvalidValue
from shared.metadata.sampler_labels import match_sampler, match_scheduler
from shared.models.detect import Family, ModelFile
from shared.schema.body import GenerationBody
from shared.schema.ranges import MAX_SEED, MOST_STEPS
from shared.schema.request import Refiner, Sampling
from shared.web.parsing.model_catalog import CHECKPOINT, SAME_LATENTS, ModelCatalog, find_fitting_file
from shared.web.parsing.models import ChosenModels
from shared.web.parsing.parser import Parser

# The scheduler that the web page sends with every sampler, whether or not the user chose one.
PAGE_SCHEDULER = "normal"
# Schedulers that divide by the number of steps minus one.
MIN_STEPS = {"kl_optimal": 2}
NO_REFINER = ("none", "automatic")


def choose_sampling(
    parser: Parser, body: GenerationBody, models: ChosenModels, denoise: float
) -> tuple[Sampling, float | None]:
    """Choose how the first pass samples, and the guidance of models that take it. Raises InvalidValue."""
    sampler, scheduler = choose_sampler(
        parser, body.sampler_name, body.scheduler, models.defaults.scheduler, karras=body.karras_sigmas
    )
    cfg, guidance = _choose_cfg(parser, body, models)
    sampling = Sampling(
        steps=body.steps or models.defaults.steps, cfg=cfg, sampler=sampler, scheduler=scheduler, denoise=denoise
    )
    check_steps(sampling, "steps", "denoising_strength")
    if sampling.sampler == "dpm_adaptive":
        parser.warn(
            "dpm_adaptive chooses its own steps and may never end; here it makes as many equal steps as steps allows, "
            "each of which runs the model three times"
        )
    return sampling, guidance


def choose_sampler(
    parser: Parser, sampler_name: str, scheduler: str | None, default: str, prefix: str = "", *, karras: bool = False
) -> tuple[str, str]:
    """Return the sampler and the scheduler in ComfyUI's names.

    A scheduler in the sampler's name wins over `karras`, which wins over `scheduler`. Raises InvalidValue that names
    the field, with `prefix` in front, and the closest names.
    """
    samplers = parser.catalog.choices("KSampler", "sampler_name")
    schedulers = parser.catalog.choices("KSampler", "scheduler")
    sampler, ending, warning = match_sampler(sampler_name, samplers, schedulers)
    if warning is not None:
        parser.warn(warning)
    named = None if scheduler is None else match_scheduler(scheduler, schedulers)
    decided = ending or ("karras" if karras else None)
    deciding_field = f"{prefix}sampler_name" if ending else "karras_sigmas"
    if decided is not None and named not in (None, PAGE_SCHEDULER, decided):
        parser.warn(f"{prefix}scheduler {scheduler} has no effect: {deciding_field} sets {decided}")
    if karras and decided != "karras":
        parser.warn(f"karras_sigmas has no effect: {deciding_field} sets {decided}")
    return (
        _check_choice(samplers, sampler, f"{prefix}sampler_name"),
        _check_choice(schedulers, decided or named or default, f"{prefix}scheduler"),
    )


def check_steps(sampling: Sampling, steps_field: str, denoise_field: str) -> None:
    """Raise InvalidValue for fewer steps than the scheduler needs, or more than ComfyUI accepts."""
    if sampling.denoise == 0:
        return
    min_denoise = sampling.steps / MOST_STEPS
    if sampling.denoise < min_denoise:
        raise InvalidValue(
            f"{denoise_field} {sampling.denoise:g} is too small for {sampling.steps} steps",
            field=denoise_field,
            hint=f"use 0, which changes nothing, or {min_denoise:g} or more",
            value=sampling.denoise,
        )
    # To denoise by a fraction, KSampler divides the schedule into this many steps, and runs the last of them.
    total = int(sampling.steps / sampling.denoise)
    min_steps = MIN_STEPS.get(sampling.scheduler, 1)
    if total < min_steps:
        raise InvalidValue(
            f"the scheduler {sampling.scheduler} needs {min_steps} steps or more, and {steps_field} is "
            f"{sampling.steps}",
            field=steps_field,
            hint=f"set {steps_field} to {min_steps}, or use another scheduler",
            value=sampling.steps,
        )


def choose_seeds(body: GenerationBody) -> tuple[int, ...]:
    """Return the seed of each picture. Raises InvalidValue if they exceed the largest seed."""
    count = body.batch_size * body.batch_count
    # 32 bits: every JSON parser reads them exactly.
    first = secrets.randbelow(2**32) if body.random_seed or body.seed == -1 else body.seed
    if first + count - 1 > MAX_SEED:
        raise InvalidValue(
            f"seed {first} is too large for {count} pictures, whose seeds count up",
            field="seed",
            hint=f"use {MAX_SEED - count + 1} or less",
        )
    return tuple(range(first, first + count))


def choose_refiner(catalog: ModelCatalog, body: GenerationBody, sampling: Sampling, model: ModelFile) -> Refiner | None:
    """Return the refiner, or None if it is off. Raises InvalidValue."""
    if not body.refiner_enabled:
        return None
    if body.refiner_model is None or body.refiner_model.lower() in NO_REFINER:
        raise InvalidValue(
            "refiner_enabled is true, but refiner_model names no checkpoint",
            field="refiner_model",
            hint="name a checkpoint, or leave refiner_enabled out",
        )
    if sampling.sampler == "dpm_adaptive":
        raise InvalidValue(
            "dpm_adaptive cannot be divided between a checkpoint and its refiner",
            field="sampler_name",
            hint="use another sampler, or leave refiner_enabled out",
        )
    name = find_fitting_file(catalog, CHECKPOINT, body.refiner_model, "refiner_model", model, SAME_LATENTS)
    return Refiner(name, body.refiner_switch_at)


def _choose_cfg(parser: Parser, body: GenerationBody, models: ChosenModels) -> tuple[float, float | None]:
    """Return cfg and Flux's guidance. A guidance-distilled model uses a single number, as guidance, and cfg 1."""
    cfg = models.defaults.cfg_scale if body.cfg_scale is None else body.cfg_scale
    family = models.file.family
    if family is Family.FLUX_DEV:
        if body.guidance is not None:
            return cfg, body.guidance
        if body.cfg_scale is None:
            return cfg, models.defaults.guidance
        parser.warn(f"cfg_scale {cfg:g} is used as this model's guidance, with cfg 1; send guidance too to set both")
        return 1.0, cfg
    if body.guidance is not None:
        parser.warn("guidance has no effect: only guidance-distilled models such as Flux dev use it")
    if family is Family.FLUX_SCHNELL and cfg != 1:
        parser.warn(f"cfg_scale {cfg:g} is not used: this model requires cfg 1")
        return 1.0, None
    return cfg, None


def _check_choice(available: Sequence[str], name: str, field: str) -> str:
    if name in available:
        return name
    closest = difflib.get_close_matches(name.lower(), available, n=3, cutoff=0.4) or list(available[:10])
    raise InvalidValue(
        f"{field} {name!r} does not exist",
        field=field,
        hint=f"use {' or '.join(closest)}",
        value=name,
        nearest=closest,
    )
