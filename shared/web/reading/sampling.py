"""How a request is sampled: seeds, passes, refiner."""

import difflib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from shared.engine.families import Family, ModelFile
from shared.errors import InvalidValue
from shared.schema.body import GenerationBody
from shared.schema.request import Refiner, Sampling
from shared.schema.units import MAX_SEED, MOST_STEPS
from shared.web.reading.inventory import Inventory
from shared.web.reading.matching import SAME_LATENTS, find_fitting
from shared.web.reading.models import Chosen
from shared.web.reading.samplers import read_sampler, read_scheduler

NOT_CHOSEN = ("none", "automatic")
# The scheduler that the web page sends beside every sampler.
UNDECIDED = "normal"
# Schedulers that divide by one step less than they make.
LEAST_STEPS = {"kl_optimal": 2}


@dataclass(frozen=True)
class Names:
    """A sampler and a scheduler in the engine's names."""

    sampler: str
    scheduler: str


def choose_seeds(body: GenerationBody) -> tuple[int, ...]:
    """The seed of each picture. Raises InvalidValue if they count beyond the largest."""
    count = body.batch_size * body.batch_count
    # 32 bits: any JSON reader keeps them exactly.
    first = secrets.randbelow(2**32) if body.random_seed or body.seed == -1 else body.seed
    if first + count - 1 > MAX_SEED:
        raise InvalidValue(
            f"seed {first} leaves no room for {count} pictures, whose seeds count up",
            field="seed",
            hint=f"use {MAX_SEED - count + 1} or less",
        )
    return tuple(range(first, first + count))


def choose_names(
    sampler_name: str,
    scheduler: str | None,
    default: str,
    inventory: Inventory,
    warnings: list[str],
    prefix: str = "",
    *,
    karras: bool = False,
) -> Names:
    """Sampler and scheduler; a scheduler that is part of the sampler's name goes before `karras`, and that before one
    of its own.

    Raises InvalidValue that names the field, `prefix` before it, and the nearest there are.
    """
    samplers = inventory.choices("KSampler", "sampler_name")
    schedulers = inventory.choices("KSampler", "scheduler")
    sampler, ending, warning = read_sampler(sampler_name, samplers, schedulers)
    if warning is not None:
        warnings.append(warning)
    named = None if scheduler is None else read_scheduler(scheduler, schedulers)
    decided = ending or ("karras" if karras else None)
    by = f"{prefix}sampler_name" if ending else "karras_sigmas"
    if decided is not None and named not in (None, UNDECIDED, decided):
        warnings.append(f"{prefix}scheduler {scheduler} has no effect: {by} says {decided}")
    if karras and decided != "karras":
        warnings.append(f"karras_sigmas has no effect: {by} says {decided}")
    return Names(
        _one_of(samplers, sampler, f"{prefix}sampler_name"),
        _one_of(schedulers, decided or named or default, f"{prefix}scheduler"),
    )


def check_steps(sampling: Sampling, steps_field: str, denoise_field: str) -> None:
    """Raises InvalidValue for fewer steps than the scheduler can do with, and for more than the engine can bear."""
    if sampling.denoise == 0:
        return
    enough = sampling.steps / MOST_STEPS
    if sampling.denoise < enough:
        raise InvalidValue(
            f"{denoise_field} {sampling.denoise:g} is too little for {sampling.steps} steps",
            field=denoise_field,
            hint=f"send 0, which changes nothing, or {enough:g} or more",
            value=sampling.denoise,
        )
    # KSampler is divided into so many, and runs the last of them, to denoise by a part.
    total = int(sampling.steps / sampling.denoise)
    least = LEAST_STEPS.get(sampling.scheduler, 1)
    if total < least:
        raise InvalidValue(
            f"the scheduler {sampling.scheduler} needs at least {least} steps, and {steps_field} is {sampling.steps}",
            field=steps_field,
            hint=f"send {steps_field} {least}, or another scheduler",
            value=sampling.steps,
        )


def _one_of(available: Sequence[str], name: str, field: str) -> str:
    if name in available:
        return name
    nearest = difflib.get_close_matches(name.lower(), available, n=3, cutoff=0.4) or list(available[:10])
    raise InvalidValue(
        f"{field} {name!r} does not exist",
        field=field,
        hint=f"there is {', '.join(nearest)}",
        value=name,
        nearest=nearest,
    )


def choose_cfg(body: GenerationBody, chosen: Chosen, warnings: list[str]) -> tuple[float, float | None]:
    """cfg and Flux's guidance. A model that was distilled with guidance takes one number, and it is not cfg."""
    cfg = chosen.defaults.cfg_scale if body.cfg_scale is None else body.cfg_scale
    family = chosen.file.family
    if family is Family.FLUX_DEV:
        if body.guidance is not None:
            return cfg, body.guidance
        if body.cfg_scale is None:
            return cfg, chosen.defaults.guidance
        warnings.append(
            f"cfg_scale {cfg:g} is given to this model as its guidance, with cfg 1; send guidance too to set both"
        )
        return 1.0, cfg
    if body.guidance is not None:
        warnings.append("guidance has no effect: it is for models that were distilled with it, as Flux dev")
    if family is Family.FLUX_SCHNELL and cfg != 1:
        warnings.append(f"cfg_scale {cfg:g} is not used: this model was made to be drawn with cfg 1")
        return 1.0, None
    return cfg, None


def choose_refiner(body: GenerationBody, sampling: Sampling, inventory: Inventory, model: ModelFile) -> Refiner | None:
    """The second checkpoint, if there is to be one. Raises InvalidValue."""
    if not body.refiner_enabled:
        return None
    if body.refiner_model is None or body.refiner_model.lower() in NOT_CHOSEN:
        raise InvalidValue(
            "refiner_enabled is true, and refiner_model names none",
            field="refiner_model",
            hint="name a checkpoint, or leave refiner_enabled out",
        )
    if sampling.sampler == "dpm_adaptive":
        raise InvalidValue(
            "dpm_adaptive cannot be divided between a checkpoint and its refiner",
            field="sampler_name",
            hint="choose another sampler, or leave refiner_enabled out",
        )
    name = find_fitting(
        body.refiner_model, inventory, "checkpoints", "refiner_model", "checkpoint", model, alike=SAME_LATENTS
    )
    return Refiner(name, body.refiner_switch_at)
