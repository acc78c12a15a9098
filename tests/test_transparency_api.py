"""Transparency is preserved from input to output on the real engine."""

import io
import json
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image, ImageDraw

from tests.stack import TIMEOUT, TestStack, data_url, encoded

RED = (200, 16, 32)


def logo(size: tuple[int, int] = (90, 61)) -> Image.Image:
    """Return a red disc, partly half transparent, on a transparent background; invisible pixels are green."""
    image = Image.new("RGBA", size, (0, 255, 0, 0))
    draw = ImageDraw.Draw(image)
    draw.ellipse((20, 10, 60, 50), fill=(*RED, 255))
    draw.rectangle((26, 24, 34, 36), fill=(*RED, 128))
    return image


def pixels(image: Image.Image) -> "np.ndarray[Any, Any]":
    return np.asarray(image).astype(int)


def download(url: str) -> Image.Image:
    response = requests.get(url, timeout=TIMEOUT)
    assert response.status_code == 200, response.text
    return Image.open(io.BytesIO(response.content))


def check_logo(result: Image.Image, size: tuple[int, int]) -> None:
    """Check that the result is the enlarged logo: the shape in its alpha channel, the colour in its visible pixels."""
    assert (result.mode, result.size) == ("RGBA", size)
    alpha = pixels(result.getchannel("A"))
    expected = pixels(logo().getchannel("A").resize(size, Image.Resampling.LANCZOS))
    assert abs(alpha - expected).max() <= 3
    assert (alpha == 255).sum() > 1000
    visible = pixels(result.convert("RGB"))[alpha > 8]
    # The upscale model sharpens, so colours vary; green or a white or black background would differ by 90 or more.
    assert abs(visible - RED).max() <= 30


@pytest.mark.parametrize("upscaler", ["Lanczos", "dream-layer-2x"])
def test_an_enlarged_logo_keeps_its_transparency(stack: TestStack, upscaler: str) -> None:
    body = {"image": data_url(logo()), "upscaler": upscaler, "upscale_factor": 2.5}
    response = requests.post(f"{stack.img2img}/api/upscale", json=body, timeout=TIMEOUT)
    assert response.status_code == 200, response.text
    reply = response.json()
    assert reply["warnings"] == []
    (entry,) = reply["comfy_response"]["generated_images"]
    png, webp = download(entry["url"]), download(entry["url"].replace(".png", ".webp"))
    check_logo(png, (225, 152))
    (path,) = (stack.data_dir / "output").rglob(entry["filename"])
    with Image.open(path) as on_disk:
        assert on_disk.tobytes() == png.tobytes()
    assert abs(pixels(webp.getchannel("A")) - pixels(png.getchannel("A"))).max() <= 1


def test_extras_keep_transparency_through_both_upscalers(stack: TestStack) -> None:
    params = {
        "upscaler_model": "dream-layer-2x", "upscaler_visibility": 1, "upscaler_model_2": "Lanczos",
        "upscaler_visibility_2": 0.5, "gfpgan_visibility": 0, "codeformer_visibility": 0, "codeformer_weight": 0,
        "output_format": "PNG",
    }  # fmt: skip
    response = requests.post(
        f"{stack.extras}/api/extras/upscale",
        files={"image": ("logo.png", encoded(logo()), "image/png")},
        data={"params": json.dumps(params)},
        timeout=TIMEOUT,
    )
    assert response.status_code == 200, response.text
    check_logo(download(response.json()["data"]["output_image"]), (180, 122))


def test_transparency_is_preserved_within_one_level_at_the_same_size(stack: TestStack) -> None:
    soft = logo()
    soft.putalpha(Image.linear_gradient("L").resize(soft.size))
    params = {"upscaler_model": "none", "output_format": "PNG"}
    files = {"image": ("logo.png", encoded(soft), "image/png")}
    response = requests.post(
        f"{stack.extras}/api/extras/upscale", files=files, data={"params": json.dumps(params)}, timeout=TIMEOUT
    )
    result = download(response.json()["data"]["output_image"])
    assert result.size == soft.size
    assert abs(pixels(result.getchannel("A")) - pixels(soft.getchannel("A"))).max() <= 1


def test_an_opaque_picture_gets_no_alpha_channel(stack: TestStack) -> None:
    opaque = Image.new("RGBA", (40, 30), (*RED, 255))
    reply = requests.post(f"{stack.img2img}/api/upscale", json={"image": data_url(opaque)}, timeout=TIMEOUT).json()
    assert download(reply["comfy_response"]["generated_images"][0]["url"]).mode == "RGB"


@pytest.mark.parametrize("has_mask_file", [True, False])
def test_a_mask_loader_of_the_same_file_reads_the_transparency_or_the_mask(
    stack: TestStack, has_mask_file: bool
) -> None:
    graph = {
        "picture": {"class_type": "LoadImage", "inputs": {"image": "clipspace.png"}},
        "hole": {"class_type": "LoadImageMask", "inputs": {"image": "clipspace.png", "channel": "alpha"}},
        "black": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 0}},
        "shown": {
            "class_type": "ImageCompositeMasked",
            "inputs": {
                "destination": ["picture", 0], "source": ["black", 0], "x": 0, "y": 0, "resize_source": False,
                "mask": ["hole", 0],
            },
        },
        "save": {"class_type": "SaveImage", "inputs": {"images": ["shown", 0], "filename_prefix": "x"}},
    }  # fmt: skip
    plain, mask = Image.new("RGB", (64, 48), (200, 16, 32)), Image.linear_gradient("L").resize((64, 48))
    erased = plain.copy()
    erased.putalpha(mask.point([255 - level for level in range(256)]))
    fields = {"input_image": plain, "mask": mask} if has_mask_file else {"input_image": erased}
    reply = stack.redraw(prompt="x", custom_workflow=graph, **fields)
    expected = Image.composite(Image.new("RGB", (64, 48)), plain, mask)
    assert abs(pixels(stack.picture(reply)) - pixels(expected)).max() <= 2
