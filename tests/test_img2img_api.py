"""img2img and inpainting on the real engine, over HTTP, checked by comparing pixels."""

import base64
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image, ImageDraw

from starter.scenes import COLOURS, PALETTE
from starter.shape_detection import nearest_colours
from tests.stack import PNG, TIMEOUT, TestStack, data_url, encoded, open_rgb

PROMPT = "a green circle on a white background"


def pixels(image: Image.Image) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """Height x width x 3, 0 to 255."""
    return np.asarray(image.convert("RGB"), dtype=np.float32)


def distance(a: Image.Image, b: Image.Image) -> float:
    """Root mean square difference of the levels."""
    return float(np.sqrt(np.mean((pixels(a) - pixels(b)) ** 2)))


@pytest.fixture(scope="module")
def source() -> Image.Image:
    """A picture with edges, colours and a gradient, 128 x 128."""
    image = Image.linear_gradient("L").resize((128, 128)).convert("RGB")
    draw = ImageDraw.Draw(image)
    draw.rectangle((10, 20, 60, 110), fill=(200, 30, 40))
    draw.ellipse((70, 40, 120, 90), fill=(30, 60, 210))
    return image


@pytest.fixture(scope="module")
def mask() -> Image.Image:
    """A mask with a white 64 x 64 square in the middle."""
    image = Image.new("L", (128, 128))
    ImageDraw.Draw(image).rectangle((32, 32, 95, 95), fill=255)
    return image


def test_low_denoising_stays_nearer_the_source_than_high(stack: TestStack, source: Image.Image) -> None:
    near, middle, far = (
        distance(
            source, stack.picture(stack.redraw(prompt=PROMPT, input_image=source, denoising_strength=strength, seed=4))
        )
        for strength in (0.1, 0.5, 1.0)
    )
    assert near < middle < far


def test_the_result_has_the_size_of_the_source_unless_a_size_is_given(stack: TestStack, source: Image.Image) -> None:
    photo = source.resize((90, 61))
    own = stack.redraw(prompt=PROMPT, input_image=photo, steps=2)
    assert stack.picture(own).size == (90, 61)
    assert own["warnings"] == []
    resized = stack.redraw(prompt=PROMPT, input_image=photo, steps=2, width=64, height=64)
    assert stack.picture(resized).size == (64, 64)
    (warning,) = resized["warnings"]
    assert warning.startswith("input_image was stretched from 90x61 to 64x64")
    wide = stack.redraw(prompt=PROMPT, input_image=photo, steps=2, width=180)
    assert stack.picture(wide).size == (180, 122)


def test_a_large_source_is_scaled_down_unless_a_size_is_given(stack: TestStack, source: Image.Image) -> None:
    reply = stack.redraw(prompt=PROMPT, input_image=source.resize((1024, 512)), steps=1, denoising_strength=0.1)
    assert stack.picture(reply).size == (362, 181)
    assert "was scaled to 362x181" in reply["warnings"][0]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_pixels_outside_the_mask_are_unchanged(
    stack: TestStack, source: Image.Image, mask: Image.Image, batch_size: int
) -> None:
    reply = stack.redraw(prompt=PROMPT, input_image=source, mask=mask, steps=4, batch_size=batch_size)
    assert reply["parameters"]["denoising_strength"] == 1.0
    results = stack.pictures(reply)
    assert len(results) == batch_size
    outside = np.asarray(mask) == 0
    for result in results:
        changed = np.abs(pixels(result) - pixels(source)).max(axis=2)
        assert changed[outside].max() == 0
        assert changed[~outside].mean() > 10
    if batch_size == 2:
        assert distance(results[0], results[1]) > 1


def test_pixels_outside_the_mask_are_unchanged_at_sizes_not_divisible_by_8(
    stack: TestStack, source: Image.Image, mask: Image.Image
) -> None:
    odd, odd_mask = source.crop((0, 0, 101, 93)), mask.crop((0, 0, 101, 93))
    result = stack.picture(stack.redraw(prompt=PROMPT, input_image=odd, mask=odd_mask, steps=2))
    outside = np.asarray(odd_mask) == 0
    assert result.size == odd.size
    assert np.abs(pixels(result) - pixels(odd)).max(axis=2)[outside].max() == 0


def test_every_level_outside_the_mask_is_unchanged(stack: TestStack, mask: Image.Image) -> None:
    levels = Image.fromarray(np.arange(128 * 128 * 3, dtype=np.uint32).reshape(128, 128, 3).astype(np.uint8))
    result = stack.picture(stack.redraw(prompt=PROMPT, input_image=levels, mask=mask, steps=1))
    outside = np.asarray(mask) == 0
    assert np.array_equal(pixels(result)[outside], pixels(levels)[outside])


def test_the_mask_is_an_input_of_vae_encode_for_inpaint_and_not_of_ksampler(
    stack: TestStack, source: Image.Image, mask: Image.Image
) -> None:
    graph = stack.redraw(prompt=PROMPT, input_image=source, mask=mask, steps=1, grow_mask_by=3)["workflow"]["prompt"]
    encode = graph["VAEEncodeForInpaint"]["inputs"]
    assert graph["KSampler"]["inputs"]["latent_image"] == ["VAEEncodeForInpaint", 0]
    assert "mask" not in graph["KSampler"]["inputs"]
    assert encode["mask"] == ["LoadImageMask", 0]
    assert encode["pixels"] == ["LoadImage", 0]
    assert encode["grow_mask_by"] == 3


def test_the_masked_area_follows_the_prompt(stack: TestStack) -> None:
    source = Image.new("RGB", (128, 128), PALETTE["blue"])
    left = Image.new("L", (128, 128))
    left.paste(255, (0, 0, 64, 128))
    fields = {"prompt": "a yellow square on a black background", "input_image": source, "mask": left, "seed": 3}
    result = stack.picture(stack.redraw(**fields))
    # The left edge has the background colour of the prompt; the right half is unchanged.
    painted = np.median(pixels(result)[:, :16].reshape(-1, 3), axis=0)
    assert COLOURS[nearest_colours(painted[None, None])[0, 0]] == "black"
    assert (pixels(result)[:, 64:] == PALETTE["blue"]).all()


def test_a_low_strength_with_a_mask_is_applied_with_a_warning(
    stack: TestStack, source: Image.Image, mask: Image.Image
) -> None:
    reply = stack.redraw(prompt=PROMPT, input_image=source, mask=mask, steps=2, denoising_strength=0.5)
    assert reply["workflow"]["prompt"]["KSampler"]["inputs"]["denoise"] == 0.5
    assert "leaves grey" in reply["warnings"][0]


def test_strength_0_returns_the_source_through_the_autoencoder(stack: TestStack, source: Image.Image) -> None:
    reply = stack.redraw(prompt=PROMPT, input_image=source, denoising_strength=0)
    assert distance(stack.picture(reply), source) < 40


def test_both_services_and_all_notations_return_the_same_picture(
    stack: TestStack, source: Image.Image, mask: Image.Image
) -> None:
    fields = {"prompt": PROMPT, "seed": 11, "steps": 2}
    picture, white = encoded(source), encoded(mask)
    bare = {"input_image": base64.b64encode(picture).decode(), "mask": base64.b64encode(white).decode()}
    octets = {
        "input_image": data_url(source, "application/octet-stream"),
        "mask": data_url(mask, "image/png;charset=utf-8"),
    }
    results = [
        requests.post(f"{base}/api/img2img", headers=PNG, timeout=TIMEOUT, **body)
        for base in (stack.txt2img, stack.img2img)
        for body in (
            {"json": {**fields, **bare}},
            {"json": {**fields, **octets}},
            {"data": fields, "files": {"image": ("a.png", picture), "mask": ("m.png", white)}},
            {"data": {**fields, **octets}},
        )
    ]
    assert [result.status_code for result in results] == [200] * 8, [result.text[:200] for result in results]
    first = pixels(open_rgb(results[0].content))
    for result in results[1:]:
        assert np.array_equal(pixels(open_rgb(result.content)), first)


def test_a_large_picture_in_a_text_field_of_a_form_is_accepted(stack: TestStack) -> None:
    noise = Image.effect_noise((900, 900), 100).convert("RGB")
    url = data_url(noise)
    assert len(url) > 600_000
    response = requests.post(
        f"{stack.img2img}/api/img2img",
        data={"prompt": PROMPT, "input_image": url, "width": 64, "height": 64, "steps": 1},
        timeout=TIMEOUT,
    )
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("fields", "status", "field", "message"),
    [
        ({}, 422, "input_image", "input_image is missing"),
        ({"input_image": "https://example.org/cat.png"}, 422, "input_image", "not base64"),
        ({"input_image": base64.b64encode(b"not a picture at all").decode()}, 422, "input_image", "cannot|can be read"),
        ({"input_image": 5}, 422, "input_image", "must be text"),
        ({"mask": base64.b64encode(b"nor this").decode()}, 422, "mask", "can be read"),
        ({"denoising_strength": 1.5}, 422, "denoising_strength", "a number from 0 to 1, not 1.5"),
        ({"width": 8}, 422, "width", "from 16 to 4096"),
        ({"grow_mask_by": 65}, 422, "grow_mask_by", "from 0 to 64"),
    ],
)
def test_wrong_input_is_a_422_that_names_the_field(
    stack: TestStack, source: Image.Image, fields: dict[str, Any], status: int, field: str, message: str
) -> None:
    body = {"prompt": PROMPT, **({"input_image": data_url(source)} if fields else {}), **fields}
    response = requests.post(f"{stack.img2img}/api/img2img", json=body, timeout=TIMEOUT)
    assert response.status_code == status
    assert response.json()["error"]["field"] == field
    assert any(part in response.json()["message"] for part in message.split("|"))


def test_a_black_mask_is_refused(stack: TestStack, source: Image.Image) -> None:
    response = requests.post(
        f"{stack.img2img}/api/img2img",
        json={"prompt": PROMPT, "input_image": data_url(source), "mask": data_url(Image.new("L", (128, 128)))},
        timeout=TIMEOUT,
    )
    assert response.status_code == 422
    assert response.json()["error"] == {
        "code": "invalid_picture",
        "field": "mask",
        "hint": "paint the part to change white and the rest black",
    }
