"""How a request is sampled: samplers and schedulers by any of their names, seeds, passes, refiner.

Three vocabularies meet here: the engine's ("dpmpp_2m" and "karras"), the labels of the best known web UI
("DPM++ 2M Karras", "Euler a"), and the ids of the web page ("dpm-2m-karras").
"""

import difflib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from shared.errors import InvalidValue
from shared.models.detect import Family, ModelFile
from shared.schema.body import GenerationBody
from shared.schema.request import Refiner, Sampling
from shared.schema.units import MAX_SEED, MOST_STEPS
from shared.web.parsing.compatibility import SAME_LATENTS, find_fitting
from shared.web.parsing.model_catalog import ModelCatalog
from shared.web.parsing.models import Chosen

# Only what differs from the engine's name once case, spaces, hyphens and underscores are gone and "++" is "pp". The
# page's ids leave "++" out where the engine has no sampler of the name without.
SAMPLERS = {
    "eulera": "euler_ancestral",
    "dpm2a": "dpm_2_ancestral",
    "dpm2sa": "dpmpp_2s_ancestral",
    "dpmpp2sa": "dpmpp_2s_ancestral",
    "dpm2m": "dpmpp_2m",
    "dpmsde": "dpmpp_sde",
    "dpm2msde": "dpmpp_2m_sde",
    "dpm3msde": "dpmpp_3m_sde",
    "heunpp": "heunpp2",
    "plms": "ipndm",
}
SCHEDULERS = {"uniform": "normal", "ddim": "ddim_uniform", "automatic": None}
REPLACED = {"plms": "PLMS runs as ipndm, its improved form"}


def read_sampler(wanted: str, samplers: Sequence[str], schedulers: Sequence[str]) -> tuple[str, str | None, str | None]:
    """The engine's sampler that `wanted` means, the scheduler that its name ends in (or None), and a warning (or None).

    What is not understood comes back as it is.
    """
    if wanted in samplers:
        return wanted, None, None
    simple = _simple(wanted)
    sampler = _match(simple, SAMPLERS, samplers)
    if sampler is not None:
        return sampler, None, _replaced(simple, sampler)
    for ending in sorted(map(_simple, schedulers), key=len, reverse=True):
        if simple.endswith(ending) and simple != ending:
            start = simple.removesuffix(ending)
            sampler, scheduler = _match(start, SAMPLERS, samplers), _match(ending, {}, schedulers)
            if sampler is not None and scheduler is not None:
                return sampler, scheduler, _replaced(start, sampler)
    return wanted, None, None


def read_scheduler(wanted: str, schedulers: Sequence[str]) -> str | None:
    """The engine's scheduler that `wanted` means; None for "automatic"; what is not understood as it is."""
    if wanted in schedulers:
        return wanted
    simple = _simple(wanted)
    if simple in SCHEDULERS and _match(simple, {}, schedulers) is None:
        return SCHEDULERS[simple]
    return _match(simple, {}, schedulers) or wanted


def _replaced(simple: str, sampler: str) -> str | None:
    """The warning for a sampler that stands in for another; an engine may have that one itself."""
    return REPLACED.get(simple) if sampler == SAMPLERS.get(simple) else None


def _match(simple: str, known: dict[str, str], names: Sequence[str]) -> str | None:
    """The engine's name that is spelt so, else the one that is known by this one; None also if two are spelt so."""
    found = [name for name in names if _simple(name) == simple]
    if found:
        return found[0] if len(found) == 1 else None
    return known[simple] if known.get(simple) in names else None


def _simple(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))


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
    catalog: ModelCatalog,
    warnings: list[str],
    prefix: str = "",
    *,
    karras: bool = False,
) -> Names:
    """Sampler and scheduler; a scheduler that is part of the sampler's name goes before `karras`, and that before one
    of its own.

    Raises InvalidValue that names the field, `prefix` before it, and the nearest there are.
    """
    samplers = catalog.choices("KSampler", "sampler_name")
    schedulers = catalog.choices("KSampler", "scheduler")
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


def choose_refiner(body: GenerationBody, sampling: Sampling, catalog: ModelCatalog, model: ModelFile) -> Refiner | None:
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
        body.refiner_model, catalog, "checkpoints", "refiner_model", "checkpoint", model, alike=SAME_LATENTS
    )
    return Refiner(name, body.refiner_switch_at)
