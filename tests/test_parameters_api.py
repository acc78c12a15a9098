"""Parameters of txt2img on the real engine: each is seen in the pixels, in the graph, or in an objection."""

import time
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image, ImageDraw

from tests import tiny
from tests.house import TIMEOUT, TestHouse, data_url, read_stream

PROMPT = "a red circle on a blue background"
QUICK = {"prompt": PROMPT, "steps": 2, "width": 64, "height": 64}


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.size == b.size and a.tobytes() == b.tobytes()


def difference(a: Image.Image, b: Image.Image) -> float:
    """Mean difference of two pictures, 0 to 255."""
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


def draw(house: TestHouse, **fields: Any) -> Image.Image:
    return house.picture(house.draw(**{"prompt": PROMPT, "seed": 5, **fields}))


def classes(reply: dict[str, Any]) -> list[str]:
    return [node["class_type"] for node in reply["workflow"]["prompt"].values()]


def test_each_picture_of_a_batch_has_a_seed_that_makes_it_again(house: TestHouse) -> None:
    # An ancestral sampler adds noise at each step, so a shared stream of noise would show.
    fields = {**QUICK, "steps": 3, "sampler_name": "euler-a"}
    alone = [draw(house, **fields, seed=seed) for seed in (9, 8)]
    # Something between, so that nothing of it is left in the engine's cache.
    draw(house, **{**QUICK, "prompt": "a green square"})
    reply = house.draw(**fields, seed=7, batch_size=3, batch_count=2)
    images = reply["comfy_response"]["generated_images"]
    assert [image["seed"] for image in images] == [7, 8, 9, 10, 11, 12]
    assert [image["batch_index"] for image in images] == [0, 1, 2, 3, 4, 5]
    pictures = house.pictures(reply)
    assert len({picture.tobytes() for picture in pictures}) == 6
    assert same(pictures[2], alone[0])
    assert same(pictures[1], alone[1])


def test_each_picture_is_told_as_soon_as_it_is_there(house: TestHouse) -> None:
    response = requests.post(
        f"{house.txt2img}/api/txt2img",
        json={"prompt": PROMPT, "steps": 6, "seed": 3, "batch_count": 3},
        headers={"Accept": "text/event-stream"},
        stream=True,
        timeout=TIMEOUT,
    )
    seen = []
    for told in read_stream(response):
        if told.name == "image":
            assert requests.get(told.data["url"], timeout=TIMEOUT).status_code == 200
            # They do not come all at the end: the first one is there while others are still drawn.
            if not seen:
                assert house.job(told.data["job_id"])["state"] == "running"
            seen.append((told.data["batch_index"], told.data["seed"]))
    assert sorted(seen) == [(0, 3), (1, 4), (2, 5)]


def test_a_label_sets_sampler_and_scheduler(house: TestHouse) -> None:
    label = house.draw(**QUICK, seed=5, sampler_name="DPM++ 2M Karras")
    assert (label["parameters"]["sampler_name"], label["parameters"]["scheduler"]) == ("dpmpp_2m", "karras")
    names = house.draw(**QUICK, seed=5, sampler_name="dpmpp_2m", scheduler="karras")
    assert same(house.picture(label), house.picture(names))


def test_dpm_adaptive_keeps_to_the_steps(house: TestHouse) -> None:
    reply = house.draw(**{**QUICK, "steps": 6}, sampler_name="dpm-adaptive")
    assert "SamplerDPMAdaptative" in classes(reply)
    assert reply["timings"]["ran_s"] < 30


def test_a_lora_changes_the_picture_and_at_strength_0_it_does_not(house: TestHouse) -> None:
    plain = draw(house)
    tagged = draw(house, prompt=f"{PROMPT} <lora:dream-layer-outline:1>")
    assert difference(plain, tagged) > 5
    for field in (
        {"lora": {"enabled": True, "lora_name": "dream-layer-outline.safetensors"}},
        {"loras": [{"lora_name": "dream-layer-outline"}]},
    ):
        assert same(draw(house, **field), tagged)
    assert same(draw(house, loras=[{"lora_name": "dream-layer-outline", "strength_model": 0}]), plain)
    assert same(draw(house, lora={"enabled": False, "lora_name": "dream-layer-outline"}), plain)


def test_an_embedding_is_used_and_a_missing_one_is_a_warning(house: TestHouse) -> None:
    reply = house.draw(prompt="embedding:dream-layer-ruby, embedding:ugly", steps=1)
    assert "'ugly', which does not exist" in reply["warnings"][0]
    assert len(reply["warnings"]) == 1
    assert not same(draw(house, prompt="embedding:dream-layer-ruby"), draw(house, prompt="nothing"))


def test_clip_skip_and_vae_reach_the_picture(house: TestHouse) -> None:
    plain = draw(house)
    # The starter's text encoder does its work in its first layer, so what is skipped is seen in the graph.
    skipped = house.draw(**QUICK, clip_skip=2)["workflow"]["prompt"]
    assert skipped["CLIPSetLastLayer"]["inputs"]["stop_at_clip_layer"] == -2
    assert skipped["CLIPTextEncode"]["inputs"]["clip"] == ["CLIPSetLastLayer", 0]
    brown = np.asarray(draw(house, vae_name="dream-layer-sepia")).reshape(-1, 3).mean(0)
    assert brown[0] > brown[1] > brown[2]
    assert same(draw(house, vae_name="automatic", clip_skip=1), plain)


def test_controlnet_canny_follows_the_edges(house: TestHouse) -> None:
    drawn = Image.new("RGB", (128, 128), "white")
    ImageDraw.Draw(drawn).rectangle((16, 44, 80, 112), fill="red")
    unit = {"model": "dream-layer-canny", "input_image": data_url(drawn), "preprocessor": "canny", "unit_index": 0}
    # The prompt says neither shape nor place.
    fields = {"prompt": "a red shape on a white background"}

    def overlap(image: Image.Image) -> float:
        truth, found = (np.asarray(each).astype(int)[..., 1] < 128 for each in (drawn, image))
        return float((truth & found).sum() / (truth | found).sum())

    free = draw(house, **fields)
    followed = overlap(draw(house, **fields, controlnet={"enabled": True, "units": [unit]}))
    assert followed > 0.7
    assert followed > overlap(free) + 0.15
    assert same(draw(house, **fields, controlnet={"units": [{**unit, "enabled": False}]}), free)
    off = draw(house, **fields, controlnet={"units": [{**unit, "weight": 0}]})
    assert difference(off, free) < 1
    late = {**unit, "guidance_start": 1.0}
    assert difference(draw(house, **fields, controlnet={"units": [late]}), free) < 1


@pytest.mark.parametrize("mode", ["prompt", "control"])
def test_control_modes_differ(house: TestHouse, mode: str) -> None:
    lines = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(lines).ellipse((8, 8, 50, 50), outline="black", width=3)
    unit = {"model": "dream-layer-canny", "input_image": data_url(lines), "preprocessor": "canny"}
    balanced = draw(house, **QUICK, controlnet={"units": [unit]})
    assert not same(draw(house, **QUICK, controlnet={"units": [{**unit, "control_mode": mode}]}), balanced)


def test_hires_fix_gives_the_size_asked_for(house: TestHouse) -> None:
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
        reply = house.draw(**QUICK, **fields)
        assert house.picture(reply).size == size
        assert (reply["comfy_response"]["generated_images"][0]["width"], reply["parameters"]["width"]) == (size[0], 64)


def test_hires_fix_keeps_the_picture_and_denoises_it_anew(house: TestHouse) -> None:
    first = draw(house)
    fields = {"hires_fix": True, "hires_fix_upscaler": "Lanczos", "hires_fix_hires_steps": 4}
    little = draw(house, **fields, hires_fix_denoising_strength=0.1)
    assert little.size == (256, 256)
    assert difference(little, first.resize((256, 256), Image.Resampling.LANCZOS)) < 15
    much = draw(house, **fields, hires_fix_denoising_strength=1)
    assert difference(much, first.resize((256, 256), Image.Resampling.LANCZOS)) > difference(
        little, first.resize((256, 256), Image.Resampling.LANCZOS)
    )


def test_the_finished_picture_is_enlarged_by_exactly_the_factor(house: TestHouse) -> None:
    plain = draw(house)
    enlarged = draw(house, upscaler="dream-layer-2x", upscale_factor=1.7)
    assert enlarged.size == (218, 218)
    assert difference(enlarged.resize((128, 128), Image.Resampling.BOX), plain) < 6


def test_the_refiner_takes_over(house: TestHouse) -> None:
    fields = {"refiner_enabled": True, "refiner_model": "dream-layer-pastel"}
    base, other = draw(house), draw(house, model_name="dream-layer-pastel")
    assert same(draw(house, **fields, refiner_switch_at=1.0), base)
    assert same(draw(house, **fields, refiner_switch_at=0.0), other)
    between = draw(house, **fields, refiner_switch_at=0.5)
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
def test_what_needs_custom_nodes_is_refused_and_named(
    house: TestHouse, fields: dict[str, Any], field: str, node: str
) -> None:
    if "controlnet" in fields:
        fields["controlnet"]["units"][0]["input_image"] = data_url(Image.new("RGB", (64, 64)))
    response = requests.post(f"{house.txt2img}/api/txt2img", json={**QUICK, **fields}, timeout=TIMEOUT)
    assert response.status_code == 422
    error = response.json()["error"]
    assert (error["field"], error["node"]) == (field, node)
    assert "custom nodes" in error["hint"]


def test_parameters_sent_again_make_the_picture_again(house: TestHouse) -> None:
    lines = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(lines).rectangle((8, 8, 50, 50), outline="black", width=3)
    unit = {"model": "dream-layer-canny", "input_image": data_url(lines), "preprocessor": "canny"}
    first = house.draw(
        **QUICK,
        controlnet={"units": [unit]},
        sampler_name="Euler a",
        clip_skip=2,
        lora={"lora_name": "dream-layer-outline"},
    )
    draw(house, **{**QUICK, "prompt": "a green square"})
    again = house.draw(**first["parameters"])
    assert again["parameters"] == first["parameters"]
    assert same(house.picture(again), house.picture(first))


def test_a_model_in_parts_says_which_parts_it_misses(house: TestHouse) -> None:
    path = house.data_dir / "models" / "diffusion_models" / "tiny-flux.safetensors"
    try:
        tiny.write(path, tiny.flux_transformer(guided=True))
        time.sleep(1.1)
        response = requests.post(
            f"{house.txt2img}/api/txt2img", json={"prompt": "x", "model_name": "tiny-flux"}, timeout=TIMEOUT
        )
        assert response.status_code == 422
        assert response.json()["error"]["field"] == "text_encoders"
        assert "clip_l and t5xxl" in response.json()["message"]
    finally:
        path.unlink(missing_ok=True)


def test_a_lora_for_another_family_is_refused_before_anything_is_queued(house: TestHouse) -> None:
    path = house.data_dir / "models" / "loras" / "tiny-xl.safetensors"
    name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    jobs = f"{house.txt2img}/api/jobs"
    before = requests.get(jobs, timeout=TIMEOUT).json()["jobs"]
    try:
        tiny.write(path, {f"{name}.lora_up.weight": (640, 4), f"{name}.lora_down.weight": (4, 2048)})
        response = requests.post(f"{house.txt2img}/api/txt2img", json={"prompt": "x <lora:tiny-xl:1>"}, timeout=TIMEOUT)
        assert response.status_code == 422
        assert "tiny-xl.safetensors is for SDXL, and " in response.json()["message"]
        assert "dream-layer-outline.safetensors" in response.json()["error"]["hint"]
        assert requests.get(jobs, timeout=TIMEOUT).json()["jobs"] == before
    finally:
        path.unlink(missing_ok=True)


def test_a_user_interface_can_be_built_from_the_options(house: TestHouse) -> None:
    options = requests.get(f"{house.txt2img}/api/options", timeout=TIMEOUT).json()
    assert options["parameters"]["txt2img"]["properties"]["steps"]["anyOf"][0]["maximum"] == 1000
    for name in options["hires_upscalers"]:
        house.draw(**{**QUICK, "steps": 1}, hires_fix=True, hires_fix_upscaler=name, hires_fix_upscale_factor=1.25)
