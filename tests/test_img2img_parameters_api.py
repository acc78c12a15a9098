"""Parameters of img2img on the real engine: masks, modes, sizes and edges; and upscaling of finished pictures."""

from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from tests.stack import TIMEOUT, TestStack, data_url, encoded

QUICK = {"prompt": "a yellow square on a black background", "steps": 3, "seed": 3}


def levels(image: Image.Image) -> Any:
    return np.asarray(image).astype(int)


@pytest.fixture
def source() -> Image.Image:
    """Noise: an autoencoder changes every pixel of it."""
    return Image.effect_noise((128, 128), 80).convert("RGB")


@pytest.fixture
def mask() -> Image.Image:
    mask = Image.new("L", (128, 128))
    ImageDraw.Draw(mask).rectangle((64, 32, 111, 95), fill=255)
    return mask


def redraw(stack: TestStack, **fields: Any) -> Image.Image:
    return stack.picture(stack.redraw(**{**QUICK, **fields}))


def changed(result: Image.Image, source: Image.Image) -> Any:
    """Which pixels differ."""
    return (levels(result) != levels(source)).any(axis=-1)


@pytest.mark.parametrize("mode", ["fill", "refine", "model"])
def test_pixels_outside_the_mask_are_unchanged_in_each_mode(
    stack: TestStack, source: Image.Image, mask: Image.Image, mode: str
) -> None:
    model = {"model_name": "dream-layer-inpainting"} if mode == "model" else {}
    reply = stack.redraw(**QUICK, input_image=source, mask=mask, inpaint_mode=mode, **model)
    different = changed(stack.picture(reply), source)
    inside = levels(mask) > 0
    assert not different[~inside].any()
    assert different[inside].mean() > 0.9
    node = {"fill": "VAEEncodeForInpaint", "refine": "SetLatentNoiseMask", "model": "InpaintModelConditioning"}[mode]
    graph = reply["workflow"]["prompt"]
    assert graph["KSampler"]["inputs"]["latent_image"][0] == node
    assert "mask" not in graph["KSampler"]["inputs"]


@pytest.mark.parametrize("upscaler", ["Lanczos", "Latent"])
@pytest.mark.parametrize(("size", "factor"), [((65, 67), 2.0), ((61, 70), 1.35), ((64, 72), 1.3)])
def test_hires_fix_enlarges_the_area_outside_the_mask_by_exactly_the_factor(
    stack: TestStack, upscaler: str, size: tuple[int, int], factor: float
) -> None:
    """A latent has cells of 8 pixels; the padding of the last cells must not become part of the picture."""
    ramps = [Image.linear_gradient("L").rotate(angle).resize(size) for angle in (0, 90, 180)]
    source = Image.merge("RGB", ramps)
    mask = Image.new("L", size)
    mask.paste(255, (8, 8, 20, 20))
    hires = {"hires_fix": True, "hires_fix_upscaler": upscaler, "hires_fix_upscale_factor": factor}
    result = redraw(stack, **hires, input_image=source, mask=mask, steps=1)
    expected_size = (round(size[0] * factor), round(size[1] * factor))
    assert result.size == expected_size
    difference = np.abs(levels(result) - levels(source.resize(expected_size, Image.Resampling.LANCZOS))).max(axis=-1)
    outside = np.asarray(mask.resize(expected_size).filter(ImageFilter.MaxFilter(5))) == 0
    # A shift by one pixel would change levels by at least four.
    assert difference[outside].max() <= 3


def test_an_inpainting_checkpoint_is_detected(stack: TestStack, source: Image.Image, mask: Image.Image) -> None:
    reply = stack.redraw(**QUICK, input_image=source, mask=mask, model_name="dream-layer-inpainting")
    assert reply["parameters"]["inpaint_mode"] == "model"
    assert reply["warnings"] == []


def test_an_inverted_mask_repaints_the_rest(stack: TestStack, source: Image.Image, mask: Image.Image) -> None:
    different = changed(redraw(stack, input_image=source, mask=mask, invert_mask=True), source)
    inside = levels(mask) > 0
    assert not different[inside].any()
    assert different[~inside].mean() > 0.9


def test_a_blurred_mask_fades_and_leaves_distant_pixels_unchanged(
    stack: TestStack, source: Image.Image, mask: Image.Image
) -> None:
    different = changed(redraw(stack, input_image=source, mask=mask, mask_blur=8), source)
    reach = levels(mask.filter(ImageFilter.GaussianBlur(4))) > 0
    inside = levels(mask) > 0
    assert not different[~reach].any()
    assert different[reach & ~inside].mean() > 0.3


def test_a_soft_mask_blends(stack: TestStack, mask: Image.Image) -> None:
    plain = Image.new("RGB", (128, 128), (0, 0, 255))
    soft = mask.point(lambda level: level // 2 + 1 if level else 0)
    fields = {"input_image": plain, "prompt": "a yellow square on a yellow background", "steps": 6}
    full = levels(redraw(stack, mask=mask, **fields))[64, 88]
    half = levels(redraw(stack, mask=soft, **fields))[64, 88]
    assert abs(half - (full + np.array([0, 0, 255])) / 2).max() < 12


def ramp(size: tuple[int, int], start: int, end: int) -> Image.Image:
    """A mask that fades from black at column `start` to white at column `end`."""
    levels = [min(max(round(255 * (x - start) / (end - start)), 0), 255) for x in range(size[0])]
    row = Image.new("L", (size[0], 1))
    row.putdata(levels)
    return row.resize(size)


HALF = ramp((128, 128), 63, 64)
HIRES = {"hires_fix": True, "hires_fix_upscale_factor": 1.5}
SOFT = ramp((128, 128), 16, 112)


@pytest.mark.parametrize(
    ("mask", "fields"),
    [
        (SOFT, {"inpaint_mode": "fill"}),
        (SOFT, {"inpaint_mode": "refine", "denoising_strength": 0.9}),
        (SOFT, {"model_name": "dream-layer-inpainting"}),
        (ImageOps.invert(SOFT), {"invert_mask": True}),
        (SOFT, {"only_masked": True, "width": 128, "height": 128}),
        (HALF, {"mask_blur": 48}),
        (None, {"outpaint_right": 32, "outpaint_feathering": 80}),
        (SOFT, {**HIRES, "hires_fix_upscaler": "Latent"}),
        (SOFT, {**HIRES, "hires_fix_upscaler": "Lanczos"}),
    ],
    ids=[
        "fill",
        "refine",
        "model",
        "inverted",
        "only-masked",
        "blurred",
        "outpainted",
        "hires-latent",
        "hires-picture",
    ],
)
def test_a_soft_edge_has_no_seam(stack: TestStack, mask: Image.Image | None, fields: dict[str, Any]) -> None:
    """The repainted area covers the whole soft edge, so there is no seam where the mask is half white."""
    plain = Image.new("RGB", (128, 128), (0, 0, 255))
    common = {"prompt": "a yellow square on a yellow background", "steps": 6, "input_image": plain}
    rows = levels(redraw(stack, **common, **({} if mask is None else {"mask": mask}), **fields))
    # The median over all rows hides chance steps of single rows.
    steps = np.median(np.abs(np.diff(rows, axis=1)), axis=0).max(axis=-1)
    # It fades over at least 80 columns, so a smooth transition changes by about 3 levels a column.
    assert steps.max() <= 24
    # The white end was repainted: it is no longer blue.
    assert np.median(rows[:, -8:, 2]) < 160


def test_thin_lines_are_drawn_in_every_mode(stack: TestStack) -> None:
    """The engine samples a mask in the middle of each cell of 8 pixels, where these lines have no pixels."""
    plain = Image.new("RGB", (128, 128), (0, 0, 255))
    mask = Image.new("L", (128, 128))
    for x in range(32, 96, 16):
        mask.paste(255, (x, 16, x + 2, 112))
    common = {"prompt": "a yellow square on a yellow background", "steps": 6, "input_image": plain, "mask": mask}
    for fields in ({"inpaint_mode": "fill", "grow_mask_by": 0}, {"inpaint_mode": "refine", "denoising_strength": 1}):
        rows = levels(redraw(stack, **common, **fields))
        assert np.median(rows[levels(mask) > 0][:, 2]) < 160
        assert (rows[levels(mask) == 0] == (0, 0, 255)).all()


def test_a_mask_of_another_size_or_with_alpha_is_accepted(
    stack: TestStack, source: Image.Image, mask: Image.Image
) -> None:
    clear = Image.new("RGBA", mask.size, (255, 255, 255, 0))
    clear.paste((255, 255, 255, 255), mask=mask)
    for other in (mask.resize((64, 64), Image.Resampling.NEAREST), clear):
        different = changed(redraw(stack, input_image=source, mask=other), source)
        # Two pixels of tolerance at the edge of the enlarged mask.
        assert not different[levels(mask.filter(ImageFilter.MaxFilter(5))) == 0].any()
        assert different[levels(mask.filter(ImageFilter.MinFilter(5))) > 0].mean() > 0.9


def test_a_full_mask_repaints_everything(stack: TestStack, source: Image.Image) -> None:
    full = Image.new("L", source.size, 255)
    assert changed(redraw(stack, input_image=source, mask=full), source).mean() > 0.9


def test_only_masked_repaints_a_small_part_of_a_large_picture(stack: TestStack) -> None:
    large = Image.effect_noise((401, 299), 80).convert("RGB")
    mask = Image.new("L", large.size)
    ImageDraw.Draw(mask).rectangle((300, 200, 339, 229), fill=255)
    reply = stack.redraw(
        **QUICK, input_image=large, mask=mask, only_masked=True, only_masked_padding=16, width=128, height=128
    )
    result = stack.picture(reply)
    assert result.size == large.size
    assert reply["comfy_response"]["generated_images"][0]["width"] == 401
    different, inside = changed(result, large), levels(mask) > 0
    assert not different[~inside].any()
    assert different[inside].mean() > 0.9


def test_outpainting_adds_pixels_and_keeps_the_source(stack: TestStack) -> None:
    source = Image.effect_noise((96, 64), 80).convert("RGB")
    result = redraw(stack, input_image=source, outpaint_left=37, outpaint_bottom=20, outpaint_feathering=8)
    assert result.size == (133, 84)
    inner = result.crop((37 + 8, 0, 133, 64 - 8))
    assert inner.tobytes() == source.crop((8, 0, 96, 56)).tobytes()
    # The new area follows the prompt: black, neither the grey of an empty area nor a repetition of the edge.
    new = levels(result)[:64, :37]
    assert np.median(new) < 50
    assert not (new == levels(source)[:, :1]).all(axis=-1).any(axis=1).all()


def test_resize_modes_stretch_crop_or_fill(stack: TestStack) -> None:
    wide = Image.new("RGB", (256, 128), "blue")
    ImageDraw.Draw(wide).rectangle((0, 0, 63, 127), fill="red")
    red_shares = {}
    for mode in ("just_resize", "crop_and_resize", "fill"):
        fields = {"input_image": wide, "resize_mode": mode, "width": 128, "height": 128, "denoising_strength": 0}
        picture = redraw(stack, **fields)
        assert picture.size == (128, 128)
        reddish = levels(picture)[64, :, 0] > 128
        red_shares[mode] = reddish.mean()
    # A quarter of the width is red; the middle square has no red.
    assert abs(red_shares["just_resize"] - 0.25) < 0.04
    assert red_shares["crop_and_resize"] < 0.04
    assert abs(red_shares["fill"] - 0.25) < 0.04


def test_each_picture_of_an_inpainted_batch_is_unchanged_outside_the_mask(
    stack: TestStack, source: Image.Image, mask: Image.Image
) -> None:
    reply = stack.redraw(**QUICK, input_image=source, mask=mask, batch_size=2)
    first, second = stack.pictures(reply)
    inside = levels(mask) > 0
    for result in (first, second):
        assert not changed(result, source)[~inside].any()
    assert changed(first, second)[inside].any()
    assert second.tobytes() == redraw(stack, input_image=source, mask=mask, seed=QUICK["seed"] + 1).tobytes()  # type: ignore[operator]


def test_an_upload_can_be_reused_by_name(stack: TestStack, source: Image.Image, mask: Image.Image) -> None:
    first = stack.redraw(**QUICK, input_image=source, mask=mask, mask_blur=4)
    again = stack.redraw(**first["parameters"])
    assert stack.picture(again).tobytes() == stack.picture(first).tobytes()
    uploaded = requests.post(
        f"{stack.txt2img}/api/upload-controlnet-image",
        files={"file": ("x.png", encoded(source))},
        data={"unit_index": "0"},
        timeout=TIMEOUT,
    )
    assert uploaded.status_code == 200, uploaded.text
    name = uploaded.json()["filename"]
    assert redraw(stack, input_image=name, steps=1).size == source.size
    unit = {"model": "dream-layer-canny", "input_image": name, "preprocessor": "canny"}
    stack.draw(**QUICK, controlnet={"units": [unit]})
    broken = requests.post(
        f"{stack.txt2img}/api/upload-controlnet-image", files={"file": ("x.png", b"no picture")}, timeout=TIMEOUT
    )
    assert broken.status_code == 422


def test_a_finished_picture_is_upscaled(stack: TestStack) -> None:
    small = Image.new("RGB", (90, 61), "blue")
    ImageDraw.Draw(small).ellipse((20, 10, 60, 50), fill="red")
    for upscaler in ("dream-layer-2x", "Lanczos"):
        response = requests.post(
            f"{stack.img2img}/api/upscale",
            json={"image": data_url(small), "upscaler": upscaler, "upscale_factor": 2.5},
            timeout=TIMEOUT,
        )
        assert response.status_code == 200, response.text
        reply = response.json()
        result = stack.picture(reply)
        assert result.size == (225, 152)
        assert reply["comfy_response"]["generated_images"][0]["width"] == 225
        assert abs(levels(result.resize(small.size, Image.Resampling.BOX)) - levels(small)).mean() < 6
        repeated = requests.post(f"{stack.img2img}/api/upscale", json=reply["parameters"], timeout=TIMEOUT)
        assert stack.picture(repeated.json()).tobytes() == result.tobytes()
    for body, field in (
        ({"upscaler": "4x"}, "upscaler"),
        ({"upscale_factor": 9}, "upscale_factor"),
        ({"image": None}, "image"),
    ):
        refused = requests.post(
            f"{stack.img2img}/api/upscale", json={"image": data_url(small), **body}, timeout=TIMEOUT
        )
        assert (refused.status_code, refused.json()["error"]["field"]) == (422, field)
