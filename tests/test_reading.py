"""Fields become requests: defaults, seeds, sizes, warnings."""

from typing import Any

import pytest
from PIL import Image

from shared.defaults import choose_checkpoint
from shared.errors import EngineUnavailable, InvalidPicture, InvalidValue
from shared.schema import Img2ImgRequest, Txt2ImgRequest
from shared.web.body import Fields
from shared.web.reading import read_img2img, read_txt2img
from starter import CHECKPOINT_NAME
from tests.house import encoded

OWN = "dreamshaper.safetensors"
PICTURE = encoded(Image.new("RGB", (64, 32), "red"))
WHITE = encoded(Image.new("L", (64, 32), 255))


def words(**values: Any) -> tuple[Txt2ImgRequest, list[str]]:
    return read_txt2img(Fields({"prompt": "x", **values}, {}), None, lambda: [OWN])


def picture(files: dict[str, bytes] | None = None, **values: Any) -> tuple[Img2ImgRequest, list[str]]:
    return read_img2img(Fields({"prompt": "x", **values}, files or {"image": PICTURE}), None, lambda: [OWN])


def test_what_is_left_out_has_the_usual_value() -> None:
    request, warnings = words()
    assert (request.width, request.height, request.steps, request.cfg_scale) == (512, 512, 20, 7.0)
    assert (request.sampler_name, request.scheduler, request.batch_size) == ("euler", "normal", 1)
    assert request.model_name == OWN
    assert warnings == []


def test_the_starter_has_defaults_of_its_own_which_the_client_overrides() -> None:
    request, _ = words(model_name=CHECKPOINT_NAME, steps=3)
    assert (request.width, request.height, request.steps) == (128, 128, 3)


def test_seeds() -> None:
    assert words(seed=5)[0].seed == 5
    assert words(seed="5")[0].seed == 5
    assert words(seed=2**64 - 1)[0].seed == 2**64 - 1
    for random in (
        {},
        {"seed": -1},
        {"seed": "-1"},
        {"seed": 5, "random_seed": True},
        {"seed": 5, "random_seed": "true"},
    ):
        drawn = {words(**random)[0].seed for _ in range(3)}
        assert len(drawn) == 3
        assert all(0 <= seed < 2**32 for seed in drawn)
    assert words(seed=5, random_seed=False)[0].seed == 5


def test_the_checkpoint_of_a_request_that_names_none() -> None:
    assert choose_checkpoint("set.safetensors", [OWN]) == "set.safetensors"
    assert choose_checkpoint(None, [CHECKPOINT_NAME, "z.safetensors", "b.safetensors"]) == "b.safetensors"
    assert choose_checkpoint(None, [CHECKPOINT_NAME]) == CHECKPOINT_NAME
    assert choose_checkpoint(None, []) is None
    with pytest.raises(EngineUnavailable, match="no checkpoint"):
        read_txt2img(Fields({"prompt": "x"}, {}), None, list)


def test_the_engine_is_not_asked_for_checkpoints_when_one_is_named() -> None:
    def fail() -> list[str]:
        raise AssertionError("asked")

    assert read_txt2img(Fields({"prompt": "x", "model_name": OWN}, {}), None, fail)[0].model_name == OWN


def test_a_picture_for_txt2img_is_not_ignored_in_silence() -> None:
    request, warnings = read_txt2img(Fields({"prompt": "x"}, {"image": PICTURE, "mask": WHITE}), None, lambda: [OWN])
    assert isinstance(request, Txt2ImgRequest)
    assert warnings == ["ignored, because not known here: image, mask"]


def test_a_field_of_a_form_that_was_left_empty_has_its_default() -> None:
    request, warnings = picture({"image": PICTURE}, width="", seed="", steps="", model_name="", negative_prompt="")
    assert (request.width, request.height, request.steps, request.model_name) == (64, 32, 20, OWN)
    assert warnings == []


def test_all_wrong_fields_are_told_at_once() -> None:
    with pytest.raises(InvalidValue) as wrong:
        words(width=5, steps="x")
    assert [problem["field"] for problem in wrong.value.details["problems"]] == ["width", "steps"]


def test_denoising_strength_depends_on_the_mask() -> None:
    assert picture()[0].denoising_strength == 0.75
    request, warnings = picture({"image": PICTURE, "mask": WHITE})
    assert request.denoising_strength == 1.0
    assert warnings == []
    request, warnings = picture({"image": PICTURE, "mask": WHITE}, denoising_strength=0.5)
    assert request.denoising_strength == 0.5
    assert "leaves grey" in warnings[0]


def test_picture_and_mask_have_the_size_of_the_request() -> None:
    request, warnings = picture({"image": PICTURE, "mask": encoded(Image.new("L", (9, 9), 255))}, width=100)
    assert (request.width, request.height) == (100, 50)
    assert request.mask is not None
    assert (request.input_image.width, request.mask.height) == (100, 50)
    assert warnings == ["mask has other proportions (9x9) than input_image and was stretched"]


def test_a_file_goes_before_a_field_and_either_name_will_do() -> None:
    assert picture({"input_image": PICTURE})[0].width == 64
    with pytest.raises(InvalidPicture, match="input_image is missing"):
        picture({"picture": PICTURE})


def test_fields_that_are_not_used_are_named_once() -> None:
    assert words(hires_fix=False, Prompt="x")[1] == [
        "ignored, because not known here: hires_fix, Prompt (did you mean prompt?)"
    ]
    assert picture({"image": PICTURE, "photo": b""})[1] == ["ignored, because not known here: photo"]
