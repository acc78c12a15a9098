"""Samplers and schedulers by any of the names that people know them by. Pure.

Three vocabularies meet here: the engine's ("dpmpp_2m" and "karras"), the labels of the best known web UI
("DPM++ 2M Karras", "Euler a"), and the ids of the web page ("dpm-2m-karras").
"""

import re
from collections.abc import Sequence

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
