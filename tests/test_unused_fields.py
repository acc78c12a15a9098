"""Warnings about fields without effect, except those that the web page always sends."""

from dataclasses import replace
from typing import Any

import pytest

from shared.errors import InvalidValue
from shared.schema.body import Txt2ImgBody
from shared.web.parsing.generation import parse_txt2img
from shared.web.parsing.parser import GraphAlpha, ParsingContext
from shared.web.parsing.unused_fields import PARTS
from shared.web.request_body import Fields
from tests.model_library import OWN, REFINER, SCHNELL, ModelLibrary
from tests.parsing import URL, context, read, refused, reread
from tests.payloads import generation

PART_FIELDS = {name: switch for switch, names in PARTS.items() for name in names}
VALUES = {
    "hires_fix_upscaler": "Lanczos",
    "hires_fix_upscale_method": "resize-to",
    "hires_fix_resize_width": 512,
    "hires_fix_resize_height": 512,
    "hires_fix_sampler_name": "ddim",
    "hires_fix_scheduler": "karras",
    "refiner_model": "none such",
    "face_restoration_model": "gfpgan",
}


def without_effect(**values: Any) -> set[str]:
    """Return the fields that the warnings of a request report as having no effect."""
    return {warning.split()[0] for warning in read(**values).warnings if "no effect" in warning}


def test_every_field_of_a_part_is_listed() -> None:
    assert set(Txt2ImgBody.model_fields) >= {*PARTS, *PART_FIELDS}
    named = {name for name in Txt2ImgBody.model_fields if name.startswith(("hires_fix_", "refiner_"))}
    assert named - {*PARTS} <= {*PART_FIELDS}


@pytest.mark.parametrize("name", PART_FIELDS)
def test_a_field_of_a_part_that_is_off_is_reported(name: str) -> None:
    sent = {name: VALUES.get(name, 1)}
    switch = PART_FIELDS[name]
    assert read(**sent).warnings == [f"{name} has no effect without {switch}"]
    assert reread(**sent).warnings == [f"{name} has no effect without {switch}"]
    # The client switched the part off, so the field needs no warning.
    off = "none" if switch == "upscaler" else False
    assert read(**sent, **{switch: off}).warnings == []


def test_fields_of_a_part_that_is_on_are_not_reported() -> None:
    assert without_effect(hires_fix=True, hires_fix_hires_steps=3, hires_fix_upscale_factor=3) == set()
    assert without_effect(hires_fix_enabled=True, hires_fix_hires_steps=3) == set()
    assert without_effect(refiner_enabled=True, refiner_model=REFINER, refiner_switch_at=0.5) == set()
    assert without_effect(restore_faces=True, codeformer_weight=0.9) == set()
    assert without_effect(upscaler="Lanczos", upscale_factor=3) == set()


def test_parameters_omit_parts_that_are_off_and_can_be_sent_again() -> None:
    parts = {"hires_fix_hires_steps": 9, "refiner_model": "x", "face_restoration_model": "gfpgan"}
    first = read(**generation(**parts, denoising_strength=None))
    assert first.warnings == []
    assert not first.parameters.keys() & PART_FIELDS.keys()
    again = read(**first.parameters)
    assert (again.request, again.warnings, again.parameters) == (first.request, [], first.parameters)
    enlarged = read(
        **generation(hires_fix_enabled=True, hires_fix=True, hires_fix_upscaler="Latent", denoising_strength=None)
    )
    assert enlarged.warnings == []
    assert read(**enlarged.parameters).warnings == []
    assert read(**enlarged.parameters).request == enlarged.request


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({"sampler_name": "DPM++ 2M Karras", "scheduler": "exponential"}, {"scheduler"}),
        ({"sampler_name": "dpm-2m-karras", "scheduler": "normal"}, set()),
        ({"sampler_name": "DPM++ 2M Karras", "scheduler": "karras", "karras_sigmas": True}, set()),
        ({"sampler_name": "euler", "scheduler": "simple", "karras_sigmas": True}, {"scheduler"}),
        ({"sampler_name": "euler", "scheduler": "automatic", "karras_sigmas": True}, set()),
        ({"sampler_name": "DPM++ 2M Exponential", "karras_sigmas": True}, {"karras_sigmas"}),
        (
            {
                "hires_fix": True,
                "hires_fix_sampler_name": "DPM++ 2M Karras",
                "hires_fix_scheduler": "simple",
                "scheduler": "exponential",
            },
            {"hires_fix_scheduler"},
        ),
    ],
)
def test_an_overridden_scheduler_is_reported(values: dict[str, Any], fields: set[str]) -> None:
    assert without_effect(**values) == fields


def test_the_warning_about_an_overridden_scheduler_has_the_reason() -> None:
    (warning,) = read(sampler_name="DPM++ 2M Karras", scheduler="exponential").warnings
    assert warning == "scheduler exponential has no effect: sampler_name sets karras"
    (warning,) = read(scheduler="simple", karras_sigmas=True).warnings
    assert warning == "scheduler simple has no effect: karras_sigmas sets karras"


def test_a_refiner_without_steps_is_reported() -> None:
    refined = {"refiner_enabled": True, "refiner_model": REFINER}
    (warning,) = read(**refined, steps=2, refiner_switch_at=0.8).warnings
    assert warning == "refiner_model has no effect: refiner_switch_at 0.8 leaves it none of 2 steps"
    assert without_effect(**refined, steps=3, refiner_switch_at=0.8) == set()
    assert without_effect(**refined, refiner_switch_at=0) == set()
    of_base = {"clip_skip": 2, "loras": [{"lora_name": "glow"}], "controlnet": {"units": []}}
    assert without_effect(**refined, **of_base, refiner_switch_at=0) == set(of_base)
    assert without_effect(**refined, **of_base, refiner_switch_at=0, hires_fix=True) == set()
    assert without_effect(**refined, **of_base) == set()
    assert without_effect(**refined, refiner_switch_at=1) == {"refiner_model"}


def test_the_unused_one_of_two_names_for_a_field_is_reported() -> None:
    assert without_effect(vae_name="automatic", vae="none such") == {"vae"}
    assert without_effect(vae="automatic") == set()


@pytest.mark.parametrize(
    "notation", ["<hypernet:ink:0.5>", "<LYCO:ink>", "BREAK", "AND", "[red:blue:0.5]", "[red:10]", "[:blue: .25]"]
)
def test_notations_of_other_programs_are_reported(notation: str) -> None:
    text = f"a circle {notation} on white"
    for field in ("prompt", "negative_prompt"):
        assert read(**{field: text}).warnings == [f"{field} has {notation}, which is read as words"]


def test_words_that_resemble_a_notation_are_not_reported() -> None:
    text = "(red:1.2), ((green)), a break and BRAND, \\(a:b:0.5\\), <lora:glow:0.8> 16:9"
    assert read(prompt=text).warnings == []


@pytest.mark.parametrize("brackets", ["[blue]", "[a, b]", "\\[a:b:0.5\\]"])
def test_brackets_are_reported_as_words(brackets: str) -> None:
    assert read(prompt=f"a {brackets} circle").warnings == [f"prompt has {brackets}, which is read as words"]


def test_a_lora_in_the_negative_prompt_is_reported() -> None:
    (warning,) = read(negative_prompt="blur <lora:glow:1>").warnings
    assert warning == "negative_prompt has <lora:glow:1>, which has no effect there; LoRAs belong in prompt"


def test_a_negative_prompt_that_no_pass_uses_is_reported() -> None:
    blur = {"negative_prompt": "blur", "model_name": OWN}
    (warning,) = read(**blur, cfg_scale=1).warnings
    assert warning == "negative_prompt has no effect: with cfg_scale 1 only the prompt counts"
    assert without_effect(**blur, cfg_scale=1.5) == set()
    assert without_effect(negative_prompt=" ", cfg_scale=1) == set()
    assert without_effect(**blur, cfg_scale=1, hires_fix=True, hires_fix_cfg_scale=4) == set()
    assert without_effect(**blur, cfg_scale=1, hires_fix=True) == {"negative_prompt"}
    # Some models have cfg_scale 1 by default.
    assert without_effect(negative_prompt="blur", model_name=SCHNELL) == {"negative_prompt"}


def test_tile_fields_are_reported_if_the_picture_is_drawn_untiled() -> None:
    tiles = {"tile_size": 256, "tile_overlap": 32}
    assert without_effect(**tiles, width=2048, height=2048) == set(tiles)
    assert without_effect(**tiles, width=2048, height=2056) == set()
    assert without_effect(**tiles, width=1024, height=1032, hires_fix=True) == set()
    assert without_effect(tile_size=512, tile_overlap=64) == set()


def test_unused_hires_fix_sizes_are_reported_unless_the_method_is_sent() -> None:
    sides = {"hires_fix_resize_width": 1024, "hires_fix_resize_height": 1024}
    assert without_effect(hires_fix=True, **sides) == set(sides)
    assert without_effect(hires_fix=True, **sides, hires_fix_upscale_method="upscale-by") == set()
    assert without_effect(hires_fix=True, **sides, hires_fix_upscale_method="resize-to") == set()


def test_a_controlnet_unit_with_an_empty_range_is_reported() -> None:
    unit = {"model": "canny", "input_image": URL, "preprocessor": "canny"}
    warnings = read(controlnet={"units": [{**unit, "guidance_start": 0.5, "guidance_end": 0.5}, unit]}).warnings
    assert warnings == ["controlnet.units[0] has no effect: it begins and ends at 0.5"]


def test_a_control_type_without_a_preprocessor_is_reported() -> None:
    unit = {"model": "canny", "input_image": URL}
    (warning,) = read(controlnet={"units": [{**unit, "control_type": "IP-Adapter"}]}).warnings
    assert warning.startswith("controlnet.units[0].control_type 'IP-Adapter' has no effect")
    for fields in (
        {"control_type": "canny"},
        {"control_type": "None"},
        {"control_type": "All"},
        {"control_type": "ip-adapter", "preprocessor": "none"},
    ):
        assert read(controlnet={"units": [{**unit, **fields}]}).warnings == []


# The types in the menus of the web page and of AUTOMATIC1111.
MENU = (
    *("All", "Canny", "Depth", "IP-Adapter", "Inpaint", "Instant-ID", "InstructP2P", "Lineart", "MLSD", "NormalMap"),
    *("OpenPose", "PhotoMaker", "PuLID", "Recolor", "Reference", "Revision", "Scribble/Sketch", "Segmentation"),
    *("Shuffle", "SoftEdge", "SparseCtrl", "T2I-Adapter", "Tile/Blur", "Tile", "Blur", "Sketch"),
)


@pytest.mark.parametrize("sent", MENU)
@pytest.mark.parametrize("model", ["canny", "union"])
def test_every_control_type_of_the_menus_is_known(sent: str, model: str) -> None:
    unit = {"model": model, "input_image": URL, "preprocessor": "canny", "control_type": sent}
    parsed = read(controlnet={"units": [unit]})
    # If the network lacks a type, the preprocessor selects one.
    assert parsed.request.controls[0].union_type != "auto"
    assert parsed.warnings == []


def test_a_control_type_that_a_union_network_lacks_is_reported() -> None:
    unit = {"model": "union", "input_image": URL, "preprocessor": "none", "control_type": "Shuffle"}
    (warning,) = read(controlnet={"units": [unit]}).warnings
    assert warning.startswith("controlnet.units[0].control_type 'Shuffle' has no effect: union")
    assert read(controlnet={"units": [{**unit, "control_type": "All"}]}).warnings == []


@pytest.mark.parametrize("preprocessor", [None, "none", "canny"])
@pytest.mark.parametrize("model", ["canny", "union"])
@pytest.mark.parametrize(
    ("sent", "hint"),
    [("cany", "did you mean canny?"), ("dept", "did you mean depth?"), ("x", "use one of canny, depth")],
)
def test_an_unknown_control_type_is_refused(sent: str, hint: str, model: str, preprocessor: str | None) -> None:
    unit = {"model": model, "input_image": URL, "preprocessor": preprocessor, "control_type": sent}
    error = refused(controlnet={"units": [{**unit}]})
    assert error.field == "controlnet.units[0].control_type"
    assert hint in str(error.hint)


def test_unused_fields_are_not_reported_for_a_custom_graph() -> None:
    fields = Fields({"prompt": "x", "negative_prompt": "blur", "cfg_scale": 1, "tile_size": 256}, {})
    assert parse_txt2img(fields, replace(context(), custom_graph=GraphAlpha())).warnings == []
    assert len(parse_txt2img(fields, context()).warnings) == 2


def test_a_custom_graph_uses_its_own_model_and_values() -> None:
    library = ModelLibrary(checkpoints=(), diffusion_models=("flux-alone.safetensors",))
    own = ParsingContext(None, library, lambda _: None, custom_graph=GraphAlpha())
    parsed = parse_txt2img(Fields({"prompt": "x", "cfg_scale": 7}, {}), own)
    assert (parsed.parameters["cfg_scale"], parsed.warnings) == (7, [])
    parsed = parse_txt2img(Fields({"prompt": "x", "cfg_scale": 7, "model_name": "flux-alone"}, {}), own)
    assert (parsed.parameters["model_name"], parsed.parameters["cfg_scale"]) == ("flux-alone.safetensors", 7)
    with pytest.raises(InvalidValue, match="the model 'none such' does not exist"):
        parse_txt2img(Fields({"prompt": "x", "model_name": "none such"}, {}), own)


def test_hints_suggest_omitting_only_optional_fields() -> None:
    assert refused(prompt="x" * 20001).hint == "shorten it: it has 20,001 characters"
    assert "leave it out" in str(refused(steps=0).hint)


def test_a_denoising_strength_that_would_block_the_engine_is_refused() -> None:
    with pytest.raises(InvalidValue) as wrong:
        reread(denoising_strength=1e-5, steps=2)
    assert (wrong.value.field, wrong.value.hint) == (
        "denoising_strength",
        "use 0, which changes nothing, or 0.0002 or more",
    )
    for strength in (0, 0.0002, 1):
        assert reread(denoising_strength=strength, steps=2).request.sampling.denoise == strength
    # 0.0003 * 10000 is a little less than 3.
    assert reread(denoising_strength=0.0003, steps=3).request.sampling.denoise == 0.0003
    hires = {"hires_fix": True, "hires_fix_hires_steps": 1000}
    assert refused(**hires, hires_fix_denoising_strength=0.09).field == "hires_fix_denoising_strength"
    assert without_effect(**hires, hires_fix_denoising_strength=0.1) == set()
    # Dividing the steps by this number overflows.
    assert refused(**hires, hires_fix_denoising_strength=5e-324).field == "hires_fix_denoising_strength"


def test_too_few_steps_for_the_scheduler_are_refused() -> None:
    error = refused(scheduler="kl_optimal", steps=1)
    assert (error.field, error.hint) == ("steps", "set steps to 2, or use another scheduler")
    assert without_effect(scheduler="kl_optimal", steps=2) == set()
    hires = {"scheduler": "kl_optimal", "hires_fix": True, "hires_fix_hires_steps": 1}
    assert refused(**hires, hires_fix_denoising_strength=0.6).field == "hires_fix_hires_steps"
    # The last of two scheduled steps is run.
    assert without_effect(**hires, hires_fix_denoising_strength=0.5) == set()
    assert without_effect(**hires, hires_fix_denoising_strength=0) == set()
