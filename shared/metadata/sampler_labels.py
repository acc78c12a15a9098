"""The names of samplers and schedulers: ComfyUI's own, the labels of AUTOMATIC1111, and the ids of the web page. Pure.

A label that people know from another program is added to the tables here.
"""

import re
from collections.abc import Sequence

# AUTOMATIC1111's labels, by ComfyUI's names. Infotexts in pictures contain them.
SAMPLER_LABELS = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "lms": "LMS",
    "dpm_fast": "DPM fast",
    "dpm_adaptive": "DPM adaptive",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "ddim": "DDIM",
    "lcm": "LCM",
    "uni_pc": "UniPC",
    "ddpm": "DDPM",
}
SCHEDULER_LABELS = {
    "karras": "Karras",
    "exponential": "Exponential",
    "sgm_uniform": "SGM Uniform",
    "simple": "Simple",
    "normal": "Normal",
    "ddim_uniform": "DDIM",
    "beta": "Beta",
    "kl_optimal": "KL Optimal",
    "linear_quadratic": "Linear Quadratic",
}

# Names that differ from ComfyUI's even without case, spaces, hyphens and underscores, and with "pp" for "++". The ids
# of the web page leave "++" out if ComfyUI has no sampler of the name without it.
SAMPLER_SYNONYMS = {
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
SCHEDULER_SYNONYMS = {"uniform": "normal", "ddim": "ddim_uniform", "automatic": None}
REPLACEMENTS = {"plms": "PLMS runs as ipndm, its improved form"}


def match_sampler(
    wanted: str, samplers: Sequence[str], schedulers: Sequence[str]
) -> tuple[str, str | None, str | None]:
    """Return ComfyUI's sampler for a name, the scheduler that the name ends in (or None), and a warning (or None).

    A name that is not understood is returned unchanged.
    """
    if wanted in samplers:
        return wanted, None, None
    simple = simplify_name(wanted)
    sampler = _match(simple, SAMPLER_SYNONYMS, samplers)
    if sampler is not None:
        return sampler, None, _replacement_warning(simple, sampler)
    for ending in sorted(map(simplify_name, schedulers), key=len, reverse=True):
        if simple.endswith(ending) and simple != ending:
            start = simple.removesuffix(ending)
            sampler, scheduler = _match(start, SAMPLER_SYNONYMS, samplers), _match(ending, {}, schedulers)
            if sampler is not None and scheduler is not None:
                return sampler, scheduler, _replacement_warning(start, sampler)
    return wanted, None, None


def match_scheduler(wanted: str, schedulers: Sequence[str]) -> str | None:
    """Return ComfyUI's scheduler for a name; None for "automatic"; a name that is not understood unchanged."""
    if wanted in schedulers:
        return wanted
    simple = simplify_name(wanted)
    if simple in SCHEDULER_SYNONYMS and _match(simple, {}, schedulers) is None:
        return SCHEDULER_SYNONYMS[simple]
    return _match(simple, {}, schedulers) or wanted


def read_sampler_label(text: str) -> tuple[str, str | None]:
    """The engine's name of a sampler, and of the scheduler that may follow it; other text is returned as it is."""
    known = {simplify_name(label): name for name, label in SAMPLER_LABELS.items()} | {
        simplify_name(name): name for name in SAMPLER_LABELS
    }
    folded = simplify_name(text)
    if folded in known:
        return known[folded], None
    for scheduler in SCHEDULER_LABELS:
        ending = simplify_name(scheduler)
        if folded.endswith(ending) and folded.removesuffix(ending) in known:
            return known[folded.removesuffix(ending)], scheduler
    return text, None


def read_scheduler_label(text: str) -> str | None:
    """The engine's name of a scheduler; None for "Automatic" and "Use same scheduler"; other text as it is."""
    folded = simplify_name(text)
    if folded == "automatic" or folded.startswith("usesame"):
        return None
    known = {simplify_name(label): name for name, label in SCHEDULER_LABELS.items()} | {
        simplify_name(name): name for name in SCHEDULER_LABELS
    }
    return {"uniform": "normal"}.get(folded) or known.get(folded, text)


def _replacement_warning(simple: str, sampler: str) -> str | None:
    """The warning for a sampler that replaces another; an engine may have the other one itself."""
    return REPLACEMENTS.get(simple) if sampler == SAMPLER_SYNONYMS.get(simple) else None


def _match(simple: str, synonyms: dict[str, str], names: Sequence[str]) -> str | None:
    """Return the only name that simplifies to `simple`, else its synonym; None if several names do."""
    matches = [name for name in names if simplify_name(name) == simple]
    if matches:
        return matches[0] if len(matches) == 1 else None
    return synonyms[simple] if synonyms.get(simple) in names else None


def simplify_name(name: str) -> str:
    """Return a name without case, spaces, hyphens and underscores, and with "pp" for "++"."""
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))
