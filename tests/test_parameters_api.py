"""Parameters of txt2img on the real engine: their effects on pixels, graphs and errors."""

import time
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image, ImageDraw

from tests import safetensors_factory as factory
from tests.stack import TIMEOUT, TestStack, data_url, read_stream

PROMPT = "a red circle on a blue background"
QUICK = {"prompt": PROMPT, "steps": 2, "width": 64, "height": 64}


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.size == b.size and a.tobytes() == b.tobytes()


def difference(a: Image.Image, b: Image.Image) -> float:
    """Mean difference of two pictures, 0 to 255."""
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


def draw(stack: TestStack, **fields: Any) -> Image.Image:
    return stack.picture(stack.draw(**{"prompt": PROMPT, "seed": 5, **fields}))


def classes(reply: dict[str, Any]) -> list[str]:
    return [node["class_type"] for node in reply["workflow"]["prompt"].values()]


def test_each_picture_of_a_batch_has_a_seed_that_reproduces_it(stack: TestStack) -> None:
    # An ancestral sampler adds noise at each step, so pictures that share a noise generator would differ.
    fields = {**QUICK, "steps": 3, "sampler_name": "euler-a"}
    alone = [draw(stack, **fields, seed=seed) for seed in (9, 8)]
    # Another request between them empties the engine's cache.
    draw(stack, **{**QUICK, "prompt": "a green square"})
    reply = stack.draw(**fields, seed=7, batch_size=3, batch_count=2)
    images = reply["comfy_response"]["generated_images"]
    assert [image["seed"] for image in images] == [7, 8, 9, 10, 11, 12]
    assert [image["batch_index"] for image in images] == [0, 1, 2, 3, 4, 5]
    pictures = stack.pictures(reply)
    assert len({picture.tobytes() for picture in pictures}) == 6
    assert same(pictures[2], alone[0])
    assert same(pictures[1], alone[1])


def test_each_picture_is_an_event_as_soon_as_it_exists(stack: TestStack) -> None:
    response = requests.post(
        f"{stack.txt2img}/api/txt2img",
        json={"prompt": PROMPT, "steps": 6, "seed": 3, "batch_count": 3},
        headers={"Accept": "text/event-stream"},
        stream=True,
        timeout=TIMEOUT,
    )
    seen = []
    for event in read_stream(response):
        if event.name == "image":
            assert requests.get(event.data["url"], timeout=TIMEOUT).status_code == 200
            # The first event arrives while the job still draws the others.
            if not seen:
                assert stack.job(event.data["job_id"])["state"] == "running"
            seen.append((event.data["batch_index"], event.data["seed"]))
    assert sorted(seen) == [(0, 3), (1, 4), (2, 5)]


def test_a_label_sets_sampler_and_scheduler(stack: TestStack) -> None:
    label = stack.draw(**QUICK, seed=5, sampler_name="DPM++ 2M Karras")
    assert (label["parameters"]["sampler_name"], label["parameters"]["scheduler"]) == ("dpmpp_2m", "karras")
    names = stack.draw(**QUICK, seed=5, sampler_name="dpmpp_2m", scheduler="karras")
    assert same(stack.picture(label), stack.picture(names))


def test_dpm_adaptive_takes_the_requested_steps(stack: TestStack) -> None:
    reply = stack.draw(**{**QUICK, "steps": 6}, sampler_name="dpm-adaptive")
    assert "SamplerDPMAdaptative" in classes(reply)
    assert reply["timings"]["ran_s"] < 30


def test_a_lora_changes_the_picture_except_at_strength_0(stack: TestStack) -> None:
    plain = draw(stack)
    tagged = draw(stack, prompt=f"{PROMPT} <lora:dream-layer-outline:1>")
    assert difference(plain, tagged) > 5
    for field in (
        {"lora": {"enabled": True, "lora_name": "dream-layer-outline.safetensors"}},
        {"loras": [{"lora_name": "dream-layer-outline"}]},
    ):
        assert same(draw(stack, **field), tagged)
    assert same(draw(stack, loras=[{"lora_name": "dream-layer-outline", "strength_model": 0}]), plain)
    assert same(draw(stack, lora={"enabled": False, "lora_name": "dream-layer-outline"}), plain)


def test_an_embedding_is_used_and_a_missing_one_is_a_warning(stack: TestStack) -> None:
    reply = stack.draw(prompt="embedding:dream-layer-ruby, embedding:ugly", steps=1)
    assert "'ugly', which does not exist" in reply["warnings"][0]
    assert len(reply["warnings"]) == 1
    assert not same(draw(stack, prompt="embedding:dream-layer-ruby"), draw(stack, prompt="nothing"))


def test_clip_skip_and_vae_take_effect(stack: TestStack) -> None:
    plain = draw(stack)
    # Only the first layer of the starter's text encoder matters, so clip_skip is checked in the graph.
    skipped = stack.draw(**QUICK, clip_skip=2)["workflow"]["prompt"]
    assert skipped["CLIPSetLastLayer"]["inputs"]["stop_at_clip_layer"] == -2
    assert skipped["CLIPTextEncode"]["inputs"]["clip"] == ["CLIPSetLastLayer", 0]
    brown = np.asarray(draw(stack, vae_name="dream-layer-sepia")).reshape(-1, 3).mean(0)
    assert brown[0] > brown[1] > brown[2]
    assert same(draw(stack, vae_name="automatic", clip_skip=1), plain)


def test_controlnet_canny_follows_the_edges(stack: TestStack) -> None:
    drawn = Image.new("RGB", (128, 128), "white")
    ImageDraw.Draw(drawn).rectangle((16, 44, 80, 112), fill="red")
    unit = {"model": "dream-layer-canny", "input_image": data_url(drawn), "preprocessor": "canny", "unit_index": 0}
    # The prompt names neither shape nor position.
    fields = {"prompt": "a red shape on a white background"}

    def overlap(image: Image.Image) -> float:
        expected, actual = (np.asarray(picture).astype(int)[..., 1] < 128 for picture in (drawn, image))
        return float((expected & actual).sum() / (expected | actual).sum())

    free = draw(stack, **fields)
    followed = overlap(draw(stack, **fields, controlnet={"enabled": True, "units": [unit]}))
    assert followed > 0.7
    assert followed > overlap(free) + 0.15
    assert same(draw(stack, **fields, controlnet={"units": [{**unit, "enabled": False}]}), free)
    off = draw(stack, **fields, controlnet={"units": [{**unit, "weight": 0}]})
    assert difference(off, free) < 1
    late = {**unit, "guidance_start": 1.0}
    assert difference(draw(stack, **fields, controlnet={"units": [late]}), free) < 1


@pytest.mark.parametrize("mode", ["prompt", "control"])
def test_control_modes_differ(stack: TestStack, mode: str) -> None:
    lines = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(lines).ellipse((8, 8, 50, 50), outline="black", width=3)
    unit = {"model": "dream-layer-canny", "input_image": data_url(lines), "preprocessor": "canny"}
    balanced = draw(stack, **QUICK, controlnet={"units": [unit]})
    assert not same(draw(stack, **QUICK, controlnet={"units": [{**unit, "control_mode": mode}]}), balanced)


def test_hires_fix_returns_the_requested_size(stack: TestStack) -> None:
    for fields, size in (
        ({"hires_fix_enabled": True, "hires_fix_upscale_factor": 2.5}, (160, 160)),
        (
            {
                "hires_fix": True,
                "hires_fix_upscaler": "dream-layer-2x",
                "hires_fix_upscale_method": "resize-to",
                "hires_fix_resize_width": 101,
                "hires_fix_resize_height": 93,
            },
            (101, 93),
        ),
    ):
        reply = stack.draw(**QUICK, **fields)
        assert stack.picture(reply).size == size
        assert (reply["comfy_response"]["generated_images"][0]["width"], reply["parameters"]["width"]) == (size[0], 64)


def test_hires_fix_preserves_the_picture_at_low_denoising_strength(stack: TestStack) -> None:
    first = draw(stack)
    fields = {"hires_fix": True, "hires_fix_upscaler": "Lanczos", "hires_fix_hires_steps": 4}
    little = draw(stack, **fields, hires_fix_denoising_strength=0.1)
    assert little.size == (256, 256)
    assert difference(little, first.resize((256, 256), Image.Resampling.LANCZOS)) < 15
    much = draw(stack, **fields, hires_fix_denoising_strength=1)
    assert difference(much, first.resize((256, 256), Image.Resampling.LANCZOS)) > difference(
        little, first.resize((256, 256), Image.Resampling.LANCZOS)
    )


def test_the_finished_picture_is_enlarged_by_exactly_the_factor(stack: TestStack) -> None:
    plain = draw(stack)
    enlarged = draw(stack, upscaler="dream-layer-2x", upscale_factor=1.7)
    assert enlarged.size == (218, 218)
    assert difference(enlarged.resize((128, 128), Image.Resampling.BOX), plain) < 6


def test_the_refiner_takes_over(stack: TestStack) -> None:
    fields = {"refiner_enabled": True, "refiner_model": "dream-layer-pastel"}
    base, other = draw(stack), draw(stack, model_name="dream-layer-pastel")
    assert same(draw(stack, **fields, refiner_switch_at=1.0), base)
    assert same(draw(stack, **fields, refiner_switch_at=0.0), other)
    between = draw(stack, **fields, refiner_switch_at=0.5)
    assert difference(between, base) > 2
    assert difference(between, other) > 2


@pytest.mark.parametrize(
    ("fields", "field", "node"),
    [
        ({"tiling": True}, "tiling", "SeamlessTile"),
        ({"restore_faces": True}, "restore_faces", "FaceRestoreModelLoader"),
        (
            {"controlnet": {"units": [{"model": "dream-layer-canny", "preprocessor": "openpose"}]}},
            "controlnet.units[0].preprocessor",
            "OpenposePreprocessor",
        ),
    ],
)
def test_features_that_need_custom_nodes_are_refused_with_the_name_of_the_node(
    stack: TestStack, fields: dict[str, Any], field: str, node: str
) -> None:
    if "controlnet" in fields:
        fields["controlnet"]["units"][0]["input_image"] = data_url(Image.new("RGB", (64, 64)))
    response = requests.post(f"{stack.txt2img}/api/txt2img", json={**QUICK, **fields}, timeout=TIMEOUT)
    assert response.status_code == 422
    error = response.json()["error"]
    assert (error["field"], error["node"]) == (field, node)
    assert "custom nodes" in error["hint"]


def test_returned_parameters_reproduce_the_picture(stack: TestStack) -> None:
    lines = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(lines).rectangle((8, 8, 50, 50), outline="black", width=3)
    unit = {"model": "dream-layer-canny", "input_image": data_url(lines), "preprocessor": "canny"}
    first = stack.draw(
        **QUICK,
        controlnet={"units": [unit]},
        sampler_name="Euler a",
        clip_skip=2,
        lora={"lora_name": "dream-layer-outline"},
    )
    draw(stack, **{**QUICK, "prompt": "a green square"})
    again = stack.draw(**first["parameters"])
    assert again["parameters"] == first["parameters"]
    assert same(stack.picture(again), stack.picture(first))


def test_missing_parts_of_a_split_model_are_reported(stack: TestStack) -> None:
    path = stack.data_dir / "models" / "diffusion_models" / "tiny-flux.safetensors"
    try:
        factory.write(path, factory.flux_transformer(guided=True))
        time.sleep(1.1)
        response = requests.post(
            f"{stack.txt2img}/api/txt2img", json={"prompt": "x", "model_name": "tiny-flux"}, timeout=TIMEOUT
        )
        assert response.status_code == 422
        assert response.json()["error"]["field"] == "text_encoders"
        assert "clip_l and t5xxl" in response.json()["message"]
    finally:
        path.unlink(missing_ok=True)


def test_a_lora_for_another_family_is_refused_before_a_job_is_queued(stack: TestStack) -> None:
    path = stack.data_dir / "models" / "loras" / "tiny-xl.safetensors"
    name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    jobs = f"{stack.txt2img}/api/jobs"
    before = requests.get(jobs, timeout=TIMEOUT).json()["jobs"]
    try:
        factory.write(path, {f"{name}.lora_up.weight": (640, 4), f"{name}.lora_down.weight": (4, 2048)})
        response = requests.post(f"{stack.txt2img}/api/txt2img", json={"prompt": "x <lora:tiny-xl:1>"}, timeout=TIMEOUT)
        assert response.status_code == 422
        assert "tiny-xl.safetensors is for SDXL, but the model " in response.json()["message"]
        assert "dream-layer-outline.safetensors" in response.json()["error"]["hint"]
        assert requests.get(jobs, timeout=TIMEOUT).json()["jobs"] == before
    finally:
        path.unlink(missing_ok=True)


def test_a_user_interface_can_be_built_from_the_options(stack: TestStack) -> None:
    options = requests.get(f"{stack.txt2img}/api/options", timeout=TIMEOUT).json()
    assert options["parameters"]["txt2img"]["properties"]["steps"]["anyOf"][0]["maximum"] == 1000
    for name in options["hires_upscalers"]:
        stack.draw(**{**QUICK, "steps": 1}, hires_fix=True, hires_fix_upscaler=name, hires_fix_upscale_factor=1.25)
