"""txt2img on the real engine, over HTTP."""

import io
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image, ImageChops

from starter.scenes import COLOURS
from starter.shape_detection import nearest_colours
from tests.stack import PNG, TIMEOUT, TestStack, open_rgb

PROMPT = "a red circle on a blue background"


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.size == b.size and ImageChops.difference(a, b).getbbox() is None


def test_a_picture_has_the_requested_size(stack: TestStack) -> None:
    reply = stack.draw(prompt=PROMPT, width=96, height=64, steps=2)
    assert stack.picture(reply).size == (96, 64)
    assert reply["status"] == "success"
    assert reply["warnings"] == []


def test_a_size_that_is_not_a_multiple_of_8_is_respected(stack: TestStack) -> None:
    reply = stack.draw(prompt=PROMPT, width=75, height=61, steps=2)
    assert stack.picture(reply).size == (75, 61)


def test_without_a_model_name_the_starter_draws_at_its_native_size(stack: TestStack) -> None:
    reply = stack.draw(prompt=PROMPT)
    assert reply["parameters"]["model_name"] == "dream-layer-starter.safetensors"
    assert stack.picture(reply).size == (128, 128)


def test_pixels_are_the_same_for_the_same_seed_only(stack: TestStack) -> None:
    first, again, other = (
        stack.picture(stack.draw(prompt=PROMPT, seed=seed, steps=4, width=64, height=64)) for seed in (7, 7, 8)
    )
    assert same(first, again)
    assert not same(first, other)


def test_the_picture_has_the_colours_of_the_prompt(stack: TestStack) -> None:
    picture = stack.picture(stack.draw(prompt="a yellow circle on a purple background", seed=7))
    names = nearest_colours(np.asarray(picture))
    assert COLOURS[names[64, 64]] == "yellow"
    for corner in ((6, 6), (121, 6), (6, 121), (121, 121)):
        assert COLOURS[names[corner]] == "purple"


def test_another_prompt_gives_another_picture(stack: TestStack) -> None:
    first, other = (
        stack.picture(stack.draw(prompt=prompt, seed=7, steps=4, width=64, height=64))
        for prompt in (PROMPT, "a green square on a yellow background")
    )
    assert not same(first, other)


@pytest.mark.parametrize("fields", [{}, {"seed": -1}, {"seed": None}, {"seed": 5, "random_seed": True}])
def test_a_random_seed_is_reported_and_reproduces_the_picture(stack: TestStack, fields: dict[str, Any]) -> None:
    reply = stack.draw(prompt=PROMPT, steps=2, width=64, height=64, **fields)
    other = stack.draw(prompt=PROMPT, steps=2, width=64, height=64, **fields)
    assert reply["seed"] != other["seed"]
    again = stack.draw(prompt=PROMPT, steps=2, width=64, height=64, seed=reply["seed"])
    assert same(stack.picture(reply), stack.picture(again))


def test_a_batch_has_as_many_different_pictures(stack: TestStack) -> None:
    pictures = stack.pictures(stack.draw(prompt=PROMPT, batch_size=3, steps=2, width=64, height=64))
    assert len(pictures) == 3
    assert not same(pictures[0], pictures[1])
    assert not same(pictures[1], pictures[2])


def test_the_reply_has_the_fields_that_the_web_page_reads(stack: TestStack) -> None:
    reply = stack.draw(prompt=PROMPT, steps=1, width=64, height=64)
    (image,) = reply["comfy_response"]["generated_images"]
    assert image["url"] == f"{stack.txt2img}/api/images/{image['filename']}"
    assert image["type"] == "output"
    assert reply["comfy_response"]["prompt_id"] == reply["job_id"] == reply["run_id"]
    assert reply["workflow"]["prompt"]["KSampler"]["inputs"]["steps"] == 1
    assert reply["message"].startswith("1 picture in ")


@pytest.mark.parametrize(("accept", "expected"), [("image/png", "PNG"), ("image/webp", "WEBP"), ("image/jpeg", "JPEG")])
def test_accept_selects_the_picture_as_the_response(stack: TestStack, accept: str, expected: str) -> None:
    response = requests.post(
        f"{stack.txt2img}/api/txt2img",
        json={"prompt": PROMPT, "steps": 1, "width": 64, "height": 64, "seed": 3},
        headers={"Accept": accept},
        timeout=TIMEOUT,
    )
    assert response.status_code == 200
    assert response.headers["Content-Type"] == accept
    assert response.headers["X-Seed"] == "3"
    with Image.open(io.BytesIO(response.content)) as picture:
        assert picture.format == expected
        assert picture.size == (64, 64)


def test_the_picture_in_the_response_equals_the_served_one(stack: TestStack) -> None:
    response = requests.post(
        f"{stack.txt2img}/api/txt2img",
        json={"prompt": PROMPT, "steps": 1, "width": 64, "height": 64, "batch_size": 2},
        headers=PNG,
        timeout=TIMEOUT,
    )
    served = requests.get(response.headers["Content-Location"], timeout=TIMEOUT)
    assert served.content == response.content
    assert "max-age" in served.headers["Cache-Control"]
    assert not same(
        open_rgb(requests.get(response.links["alternate"]["url"], timeout=TIMEOUT).content), open_rgb(response.content)
    )


def test_a_form_is_accepted(stack: TestStack) -> None:
    response = requests.post(
        f"{stack.txt2img}/api/txt2img",
        data={"prompt": PROMPT, "steps": "1", "width": "64", "height": "64", "cfg_scale": "3.5"},
        timeout=TIMEOUT,
    )
    assert response.status_code == 200, response.text
    assert response.json()["parameters"]["cfg_scale"] == 3.5


def test_unknown_fields_are_reported(stack: TestStack) -> None:
    reply = stack.draw(prompt=PROMPT, steps=1, width=64, height=64, negativ_prompt="blue", hires_fix=False, lora=None)
    assert reply["warnings"] == ["ignored unknown fields: negativ_prompt (did you mean negative_prompt?)"]


def test_fields_in_the_query_are_reported(stack: TestStack) -> None:
    small = {"prompt": PROMPT, "steps": 1, "width": 64, "height": 64}
    sent = requests.post(f"{stack.txt2img}/api/txt2img?steps=5&seed=1", json=small, timeout=TIMEOUT)
    assert sent.json()["warnings"] == ["ignored in the query: steps, seed; send fields in the body"]


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({}, "prompt", "prompt is missing"),
        ({"prompt": 5}, "prompt", "must be text"),
        ({"prompt": PROMPT, "width": 10000}, "width", "a whole number from 16 to 4096, not 10000"),
        ({"prompt": PROMPT, "steps": "many"}, "steps", "a whole number from 1 to 1000, not 'many'"),
        ({"prompt": PROMPT, "steps": 2.5}, "steps", "a whole number"),
        ({"prompt": PROMPT, "steps": True}, "steps", "a whole number"),
        ({"prompt": PROMPT, "cfg_scale": -1}, "cfg_scale", "a number from 0 to 100"),
        ({"prompt": PROMPT, "seed": -2}, "seed", "-1 for a random one"),
        ({"prompt": PROMPT, "batch_size": 0}, "batch_size", "a whole number from 1 to 16"),
        ({"prompt": PROMPT, "model_name": "dream-layer"}, "model_name", "does not exist"),
        ({"prompt": PROMPT, "sampler_name": "eular"}, "sampler_name", "does not exist"),
        ({"prompt": PROMPT, "scheduler": "karas"}, "scheduler", "does not exist"),
    ],
)
def test_an_invalid_value_is_a_422_that_names_the_field(
    stack: TestStack, fields: dict[str, Any], field: str, message: str
) -> None:
    response = requests.post(f"{stack.txt2img}/api/txt2img", json=fields, timeout=TIMEOUT)
    assert response.status_code == 422
    body = response.json()
    assert body["status"] == "error"
    assert body["error"]["field"] == field
    assert message in body["message"]


def test_an_unknown_name_is_answered_with_the_closest_ones(stack: TestStack) -> None:
    url = f"{stack.txt2img}/api/txt2img"
    model = requests.post(url, json={"prompt": PROMPT, "model_name": "dream-layer"}, timeout=TIMEOUT).json()
    related = [f"dream-layer-{name}.safetensors" for name in ("starter", "pastel", "inpainting")]
    assert sorted(model["error"]["nearest"]) == sorted(related)
    sampler = requests.post(url, json={"prompt": PROMPT, "sampler_name": "dpmpp_2"}, timeout=TIMEOUT).json()
    assert sampler["error"]["nearest"][0] == "dpmpp_2m"
    assert "dpmpp_2m" in sampler["error"]["hint"]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "message"),
    [
        (b'{"prompt": "x", "lora": ' + b"[" * 60 + b"]" * 60 + b"}", "application/json", 400, "more than 50 levels"),
        (b'{"prompt": ', "application/json", 400, "not valid JSON"),
        (b"[1]", "application/json", 400, "must be a JSON object"),
        (b"null", "application/json", 400, "must be a JSON object"),
        (b"", "application/json", 400, "not valid JSON"),
        (b"<a/>", "application/xml", 415, "application/xml"),
    ],
)
def test_an_invalid_body_is_explained(
    stack: TestStack, body: bytes, content_type: str, status: int, message: str
) -> None:
    response = requests.post(
        f"{stack.txt2img}/api/txt2img", data=body, headers={"Content-Type": content_type}, timeout=TIMEOUT
    )
    assert response.status_code == status
    assert message in response.json()["message"]
    assert response.json()["error"]["hint"]


def test_a_checkpoint_of_the_user_is_listed_and_preferred(stack: TestStack) -> None:
    checkpoints = stack.data_dir / "models" / "checkpoints"
    own = checkpoints / "my-own.safetensors"
    own.hardlink_to(checkpoints / "dream-layer-starter.safetensors")
    try:
        models = requests.get(f"{stack.control}/api/models", timeout=TIMEOUT).json()["models"]
        assert {"id": own.name, "name": "my-own", "filename": own.name} in models
        fields = {"prompt": PROMPT, "steps": 1, "width": 64, "height": 64}
        assert stack.draw(**fields, model_name=own.name)["parameters"]["model_name"] == own.name
        # Without model_name, the user's checkpoint is preferred to the starter.
        assert stack.draw(**fields)["parameters"]["model_name"] == own.name
    finally:
        own.unlink()


@pytest.mark.parametrize("name", ["../../engine.log", "x.png", "20261122-000000-000000000000_00001_.jpg", "%2e%2e%2fx"])
def test_an_invalid_picture_name_never_becomes_a_path(stack: TestStack, name: str) -> None:
    response = requests.get(f"{stack.txt2img}/api/images/{name}", timeout=TIMEOUT)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


def test_a_deleted_picture_is_a_404(stack: TestStack) -> None:
    response = requests.get(f"{stack.txt2img}/api/images/20200101-000000-000000000000_00001_.png", timeout=TIMEOUT)
    assert response.status_code == 404
    assert "deleted" in response.json()["error"]["hint"]
