"""Infotexts: round trips, and infotexts written by other programs."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.metadata.infotext import GenerationParameters, read_infotext, write_infotext
from shared.metadata.sampler_labels import SAMPLER_LABELS, SCHEDULER_LABELS
from shared.schema.body import GenerationBody, Img2ImgBody, Txt2ImgBody

WORDS = (
    *("a red circle", "(masterpiece:1.2)", "embedding:ruby", "<lora:outline:0.8>", "caf\xe9", "\u5186", "\n", ", "),
    *('say "hello"', "Steps: many", "Size: 3x4, Seed: 1", "Negative", "[a|b]", "back\\slash", "BREAK", "  "),
)


FILES = (
    *("model", "a model, with a comma", "v1.5 (pruned)", 'with "quotes"', "\u6a21\u578b", "name: with colon", "[x] y"),
    *("(a) b", "a-b_c.d"),
)


# The characters allowed in a `<lora:...>` tag.
LORAS = ("outline", "two words", "v1.5_(x)")


def random_prompt(rng: random.Random) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randrange(6))).strip()


def random_number(rng: random.Random, low: float, high: float) -> float:
    return round(rng.uniform(low, high), rng.choice([0, 1, 2, 6, 17]))


def random_subset(rng: random.Random, fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if rng.random() < 0.5}


def random_unit(rng: random.Random) -> dict[str, Any]:
    return random_subset(
        rng,
        {
            "model": rng.choice(FILES),
            "preprocessor": rng.choice(["none", "canny", "openpose"]),
            "control_type": rng.choice(["canny", "depth"]),
            "weight": random_number(rng, 0, 2),
            "guidance_start": random_number(rng, 0, 0.4),
            "guidance_end": random_number(rng, 0.5, 1),
            "control_mode": rng.choice(["balanced", "prompt", "control"]),
            "resize_mode": rng.choice(["just_resize", "crop_and_resize", "fill"]),
            "resolution": rng.randrange(64, 2048),
            "pixel_perfect": rng.random() < 0.5,
            "threshold_a": random_number(rng, 0, 255),
            "threshold_b": rng.randrange(255),
        },
    )


def random_fields(rng: random.Random) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "prompt": random_prompt(rng),
        "negative_prompt": random_prompt(rng),
        "model_name": rng.choice(FILES),
        "width": rng.randrange(16, 4096),
        "height": rng.randrange(16, 4096),
        "steps": rng.randrange(1, 1000),
        "cfg_scale": random_number(rng, 0, 30),
        "sampler_name": rng.choice([*SAMPLER_LABELS, "uni_pc_bh2", "res_multistep", "euler_cfg_pp"]),
        "scheduler": rng.choice([*SCHEDULER_LABELS, "of a custom node"]),
        "seed": rng.choice([0, 2**64 - 1, rng.randrange(2**32)]),
        "batch_size": 1,
        "batch_count": 1,
    }
    fields |= random_subset(
        rng,
        {
            "guidance": random_number(rng, 1, 30),
            "vae_name": f"{rng.choice(FILES)}.safetensors",
            "text_encoders": [f"{rng.choice(FILES)}.safetensors" for _ in range(rng.randrange(1, 4))],
            "clip_skip": rng.randrange(1, 12),
            "tiling": True,
            "controlnet": {"units": [random_unit(rng) for _ in range(rng.randrange(1, 4))]},
        },
    )
    if rng.random() < 0.5:
        fields |= random_hires_fields(rng)
    if rng.random() < 0.5:
        fields |= {"refiner_enabled": True, "refiner_model": rng.choice(FILES)}
        fields |= random_subset(rng, {"refiner_switch_at": random_number(rng, 0, 1)})
    if rng.random() < 0.5:
        fields |= {"upscaler": rng.choice(["Lanczos", "4x-UltraSharp.pth"]), "upscale_factor": random_number(rng, 1, 8)}
    if rng.random() < 0.5:
        fields |= {"restore_faces": True, "face_restoration_model": rng.choice(["codeformer", "gfpgan", "x.pth"])}
        fields |= random_subset(rng, {"codeformer_weight": random_number(rng, 0, 1)})
    return fields


def random_hires_fields(rng: random.Random) -> dict[str, Any]:
    size = {"hires_fix_upscale_factor": random_number(rng, 1, 8)}
    if rng.random() < 0.5:
        width, height = rng.choice([(64, None), (None, 64), (640, 333)])
        size = {"hires_fix_upscale_method": "resize-to"}  # type: ignore[dict-item]
        size |= {"hires_fix_resize_width": width, "hires_fix_resize_height": height}  # type: ignore[dict-item]
    return {
        "hires_fix": True,
        **size,
        **random_subset(
            rng,
            {
                "hires_fix_upscaler": rng.choice(["Latent", "Latent (nearest)", "Lanczos", "4x, sharp.pth"]),
                "hires_fix_hires_steps": rng.randrange(100),
                "hires_fix_denoising_strength": random_number(rng, 0, 1),
                "hires_fix_sampler_name": rng.choice(list(SAMPLER_LABELS)),
                "hires_fix_scheduler": rng.choice(list(SCHEDULER_LABELS)),
                "hires_fix_cfg_scale": random_number(rng, 0, 30),
            },
        ),
    }


def random_img2img_fields(rng: random.Random) -> dict[str, Any]:
    return {
        "denoising_strength": random_number(rng, 0, 1),
        **random_subset(
            rng,
            {
                "resize_mode": rng.choice(["just_resize", "crop_and_resize", "fill"]),
                "inpaint_mode": rng.choice(["fill", "refine", "model"]),
                "grow_mask_by": rng.randrange(64),
                "mask_blur": rng.randrange(64),
                "invert_mask": rng.random() < 0.5,
                "only_masked": rng.random() < 0.5,
                "only_masked_padding": rng.randrange(1024),
                "outpaint_left": rng.randrange(2048),
                "outpaint_top": rng.randrange(2048),
                "outpaint_right": rng.randrange(2048),
                "outpaint_bottom": rng.randrange(2048),
                "outpaint_feathering": rng.randrange(512),
            },
        ),
    }


def with_defaults(model: type[GenerationBody], fields: dict[str, Any]) -> GenerationBody:
    """Fill in the defaults of missing fields."""
    return model(**{"input_image": "", **fields})


@settings(max_examples=300, deadline=None)
@given(rng=st.randoms(use_true_random=True))
def test_a_txt2img_infotext_is_read_back_unchanged(rng: random.Random) -> None:
    fields = random_fields(rng)
    text = write_infotext(fields)
    result = read_infotext(text)
    assert result is not None
    assert result.kind == "txt2img"
    assert result.warnings == []
    assert with_defaults(Txt2ImgBody, result.parameters) == with_defaults(Txt2ImgBody, fields), text
    assert write_infotext(result.parameters) == text


@settings(max_examples=300, deadline=None)
@given(rng=st.randoms(use_true_random=True))
def test_an_img2img_infotext_is_read_back_unchanged(rng: random.Random) -> None:
    fields = random_fields(rng) | random_img2img_fields(rng)
    text = write_infotext(fields, "img2img")
    result = read_infotext(text)
    assert result is not None
    assert result.kind == "img2img"
    assert result.warnings == []
    assert with_defaults(Img2ImgBody, result.parameters) == with_defaults(Img2ImgBody, fields), text


def test_the_format_matches_other_programs() -> None:
    fields = {
        "prompt": "a red circle",
        "negative_prompt": "blurry",
        "model_name": "folder/dream.safetensors",
        "width": 512,
        "height": 768,
        "steps": 20,
        "cfg_scale": 7.0,
        "sampler_name": "dpmpp_2m",
        "scheduler": "karras",
        "seed": 42,
        "clip_skip": 2,
        "lora": {"lora_name": "dir/outline.safetensors", "strength_model": 0.8},
        "loras": [
            {"lora_name": "b", "strength_model": 1.0, "strength_clip": 0.5},
            {"lora_name": "c", "enabled": False},
        ],
        "hires_fix": True,
        "controlnet": {"units": [{"model": "canny.safetensors", "preprocessor": "canny"}]},
    }
    prompts, negative, labels = write_infotext(fields).split("\n")
    assert prompts == "a red circle <lora:outline:0.8> <lora:b:0.5:1>"
    assert negative == "Negative prompt: blurry"
    assert labels.startswith(
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 42, Model: dream, Clip skip: 2, "
        'Size: 512x768, ControlNet 0: "Module: canny, Model: canny, Weight: 1, Resize Mode: Just resize, Threshold A: '
        '100, Threshold B: 200, Guidance Start: 0, Guidance End: 1, Control Mode: Balanced", Hires upscaler: Latent, '
        "Hires upscale: 2, Denoising strength: 0.5, Version: Dream Layer "
    )


A1111 = """a castle, (sunset:1.2),
second line <lora:detail:0.6>
Negative prompt: blurry,
ugly
Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5.5, Seed: 1234567890, Size: 832x1216, Model hash: \
31e35c80fc, Model: sd_xl_base_1.0, VAE hash: 235745af8d, VAE: sdxl_vae.safetensors, Denoising strength: 0.4, Clip \
skip: 2, ControlNet 0: "Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight: 0.8, Resize Mode: Crop and \
Resize, Processor Res: 512, Threshold A: 100.0, Threshold B: 200.0, Guidance Start: 0.0, Guidance End: 0.5, Pixel \
Perfect: True, Control Mode: ControlNet is more important", Hires upscale: 1.5, Hires steps: 12, Hires upscaler: \
R-ESRGAN 4x+, Lora hashes: "detail: 7c6bad76eb54, other: abc", Refiner: sd_xl_refiner_1.0 [7440042bbd], Refiner \
switch at: 0.8, RNG: CPU, Version: v1.10.1"""


def test_an_a1111_infotext_is_read() -> None:
    assert read_infotext(A1111) == GenerationParameters(
        "txt2img",
        {
            "prompt": "a castle, (sunset:1.2),\nsecond line <lora:detail:0.6>",
            "negative_prompt": "blurry,\nugly",
            "steps": 30,
            "sampler_name": "dpmpp_2m",
            "scheduler": "karras",
            "cfg_scale": 5.5,
            "seed": 1234567890,
            "width": 832,
            "height": 1216,
            "model_name": "sd_xl_base_1.0",
            "vae_name": "sdxl_vae.safetensors",
            "clip_skip": 2,
            "hires_fix": True,
            "hires_fix_upscaler": "R-ESRGAN 4x+",
            "hires_fix_hires_steps": 12,
            "hires_fix_upscale_factor": 1.5,
            "hires_fix_denoising_strength": 0.4,
            "refiner_enabled": True,
            "refiner_model": "sd_xl_refiner_1.0",
            "refiner_switch_at": 0.8,
            "controlnet": {
                "units": [
                    {
                        "preprocessor": "canny",
                        "model": "control_v11p_sd15_canny",
                        "weight": 0.8,
                        "resize_mode": "crop_and_resize",
                        "resolution": 512,
                        "threshold_a": 100.0,
                        "threshold_b": 200.0,
                        "guidance_start": 0.0,
                        "guidance_end": 0.5,
                        "pixel_perfect": True,
                        "control_mode": "control",
                    }
                ]
            },
        },
        ["ignored unknown labels: RNG"],
    )


def parameters(text: str) -> dict[str, Any]:
    result = read_infotext(text)
    assert result is not None
    return result.parameters


def test_the_older_sampler_and_controlnet_format_is_read() -> None:
    values = parameters(
        "x\nSteps: 20, Sampler: DPM++ SDE Karras, CFG scale: 7, Seed: 1, Size: 512x512, ControlNet 0: "
        '"preprocessor: canny, model: c [abcdef12], weight: 1, starting/ending: (0, 0.7), resize mode: Just Resize, '
        'pixel perfect: False, control mode: Balanced, preprocessor params: (256, 50, 150)"'
    )
    assert (values["sampler_name"], values["scheduler"]) == ("dpmpp_sde", "karras")
    (unit,) = values["controlnet"]["units"]
    assert (unit["preprocessor"], unit["model"], unit["guidance_end"]) == ("canny", "c", 0.7)
    assert (unit["resolution"], unit["threshold_a"], unit["threshold_b"]) == (256, 50, 150)


def test_a_forge_infotext_is_read() -> None:
    values = parameters(
        "x\nSteps: 20, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 1, Size: "
        "896x1152, Model hash: abc, Model: flux1-dev, Hires CFG Scale: 2, Hires upscale: 2, Hires upscaler: Latent "
        "(antialiased), Hires Schedule type: Use same scheduler, Denoising strength: 0.7, Module 1: ae, Module 2: "
        "clip_l, Module 3: t5xxl_fp8, Version: f2.0.1v1.10.1-previous-664-gd557aef9"
    )
    assert (values["scheduler"], values["guidance"], values["cfg_scale"]) == ("simple", 3.5, 1)
    assert (values["vae_name"], values["text_encoders"]) == ("ae", ["clip_l", "t5xxl_fp8"])
    assert (values["hires_fix_cfg_scale"], values["hires_fix_upscaler"]) == (2, "Latent")
    assert "hires_fix_scheduler" not in values


def test_an_sd_next_infotext_is_read() -> None:
    result = read_infotext(
        "x\nNegative prompt: y\nSteps: 20, Size: 1024x1024, Sampler: Euler a, Seed: 7, CFG scale: 6, Clip skip: 1, "
        'Model: base, App: SD.Next, Version: 4a8d1e2, Operations: "txt2img", Hashes: {"model": "a, b"}, Parser: native'
    )
    assert result is not None
    assert result.warnings == []
    assert (result.kind, result.parameters["sampler_name"]) == ("txt2img", "euler_ancestral")


def test_an_img2img_infotext_of_another_program_is_read() -> None:
    result = read_infotext(
        "x\nSteps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7, Seed: 1, Size: 512x512, Denoising "
        "strength: 0.55, Mask blur: 4, Masked content: original, Inpaint area: Only masked, Masked area padding: 32"
    )
    assert result is not None
    assert result.kind == "img2img"
    assert "scheduler" not in result.parameters
    expected = {"denoising_strength": 0.55, "mask_blur": 4, "inpaint_mode": "refine", "only_masked": True}
    assert expected.items() <= result.parameters.items()


def test_values_keep_their_commas_with_and_without_quotes() -> None:
    result = read_infotext(
        'x\nSteps: 20, Seed: 1, Model: "a, b: c", Wildcards: {"x": ["a, b", {"Seed": 2}]}, Note: one, two, Clip skip: '
        '2, Odd: "unclosed, Sampler: Euler'
    )
    assert result is not None
    assert (result.parameters["model_name"], result.parameters["seed"]) == ("a, b: c", 1)
    assert (result.parameters["clip_skip"], result.parameters["sampler_name"]) == (2, "euler")
    assert result.warnings == ["ignored unknown labels: Wildcards, Note, Odd"]


def test_a_value_without_quotes_keeps_its_commas() -> None:
    assert parameters("x\nSteps: 20, Seed: 1, Model: a, b,, c, Clip skip: 2")["model_name"] == "a, b, c"


def test_unknown_labels_add_a_warning() -> None:
    result = read_infotext("x\nSteps: 20, Seed: abc, CFG scale: nan, Size: large, Sampler: Mine")
    assert result is not None
    assert result.parameters == {"prompt": "x", "negative_prompt": "", "steps": 20, "sampler_name": "Mine"}
    assert result.warnings == ["ignored unknown labels: Seed, CFG scale, Size"]


@pytest.mark.parametrize("text", ["", "a prompt alone", "a prompt: with a colon", "Negative prompt: x", '{"steps": 1}'])
def test_other_texts_have_no_parameters(text: str) -> None:
    assert read_infotext(text) is None


def test_prompts_are_optional_and_windows_line_endings_are_accepted() -> None:
    assert parameters("Steps: 1, Seed: 2")["prompt"] == ""
    assert parameters("Negative prompt: y\nSteps: 1, Seed: 2")["negative_prompt"] == "y"
    values = parameters("a\r\nb\r\nNegative prompt: c\r\nSteps: 1, Seed: 2\r\n")
    assert (values["prompt"], values["negative_prompt"], values["seed"]) == ("a\nb", "c", 2)


def test_malformed_infotexts_are_read_quickly_without_errors() -> None:
    rng = random.Random(3)
    pieces = ["Steps: 1", ", ", ": ", '"', "\\", "[", "{", "(", ")", "]", "}", "\n", "Size", "a", " ", "9" * 5000, "-"]
    for _ in range(2000):
        read_infotext("".join(rng.choice(pieces) for _ in range(rng.randrange(40))))
    for piece in (*pieces, 'a:"', "a:[", 'a:["', "a:(", "a:{", " :", "a :"):
        read_infotext("x\nSteps: 1, " + piece * 20_000)
