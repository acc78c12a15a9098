"""Names of samplers and schedulers: the engine's own, the ids of the web page, and common labels."""

import pytest

from shared.metadata.sampler_labels import match_sampler, match_scheduler
from tests.model_library import ModelLibrary

SAMPLERS = ModelLibrary().choices("KSampler", "sampler_name")
SCHEDULERS = ModelLibrary().choices("KSampler", "scheduler")


@pytest.mark.parametrize("name", SAMPLERS)
def test_engine_names_are_matched_in_any_spelling(name: str) -> None:
    assert match_sampler(name, SAMPLERS, SCHEDULERS) == (name, None, None)
    assert match_sampler(name.upper().replace("_", " "), SAMPLERS, SCHEDULERS)[0] == name


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_name_may_end_with_any_scheduler(name: str) -> None:
    for scheduler in SCHEDULERS:
        assert match_sampler(f"{name} {scheduler}", SAMPLERS, SCHEDULERS)[:2] == (name, scheduler)


@pytest.mark.parametrize(
    ("name", "sampler", "scheduler"),
    [
        # The web page's ids.
        ("euler", "euler", None),
        ("euler-a", "euler_ancestral", None),
        ("ddim", "ddim", None),
        ("lms", "lms", None),
        ("heun", "heun", None),
        ("dpm2", "dpm_2", None),
        ("dpm2-a", "dpm_2_ancestral", None),
        ("dpm-2s-a", "dpmpp_2s_ancestral", None),
        ("dpm-2m", "dpmpp_2m", None),
        ("dpm-sde", "dpmpp_sde", None),
        ("dpm-fast", "dpm_fast", None),
        ("dpm-adaptive", "dpm_adaptive", None),
        ("plms", "ipndm", None),
        ("lms-karras", "lms", "karras"),
        ("dpm2-karras", "dpm_2", "karras"),
        ("dpm2-a-karras", "dpm_2_ancestral", "karras"),
        ("dpm-2s-a-karras", "dpmpp_2s_ancestral", "karras"),
        ("dpm-2m-karras", "dpmpp_2m", "karras"),
        ("dpm-sde-karras", "dpmpp_sde", "karras"),
        # Common labels.
        ("Euler a", "euler_ancestral", None),
        ("DPM++ 2M", "dpmpp_2m", None),
        ("DPM++ 2M Karras", "dpmpp_2m", "karras"),
        ("dpm++ 2m sde karras", "dpmpp_2m_sde", "karras"),
        ("DPM++ 2M SDE Heun Exponential", "dpmpp_2m_sde_heun", "exponential"),
        ("DPM++ 3M SDE", "dpmpp_3m_sde", None),
        ("DPM++ SDE Karras", "dpmpp_sde", "karras"),
        ("DPM++ 2S a Karras", "dpmpp_2s_ancestral", "karras"),
        ("DPM2 a", "dpm_2_ancestral", None),
        ("UniPC", "uni_pc", None),
        ("LCM", "lcm", None),
        ("DDIM", "ddim", None),
        # Unknown names are left unchanged; the check against the engine's list refuses them.
        ("Restart", "Restart", None),
        ("karras", "karras", None),
        ("", "", None),
    ],
)
def test_common_sampler_names_are_matched(name: str, sampler: str, scheduler: str | None) -> None:
    assert match_sampler(name, SAMPLERS, SCHEDULERS)[:2] == (sampler, scheduler)


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("Karras", "karras"),
        ("SGM Uniform", "sgm_uniform"),
        ("KL Optimal", "kl_optimal"),
        ("ddim", "ddim_uniform"),
        ("Uniform", "normal"),
        ("Automatic", None),
        ("Polyexponential", "Polyexponential"),
    ],
)
def test_common_scheduler_names_are_matched(name: str, scheduler: str | None) -> None:
    assert match_scheduler(name, SCHEDULERS) == scheduler
