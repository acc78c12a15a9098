"""The memory budget of decoded and encoded pictures."""

import threading

import pytest
from PIL import Image

from shared.errors import BodyTooLarge, Busy, InvalidPicture
from shared.images.budget import MemoryBudget
from shared.images.decode import BYTES_TO_DECODE, decode_picture, read_picture
from shared.images.masks import read_mask
from shared.web.parsing.generation import parse_img2img
from shared.web.parsing.parser import ParsingContext
from shared.web.request_body import Fields
from tests.model_library import OWN, ModelLibrary
from tests.stack import encoded

SETTING = "DREAM_LAYER_PICTURE_MEMORY_MB"
SIDE = 100
PICTURE = encoded(Image.new("RGB", (SIDE, SIDE), "red"))
COST = SIDE * SIDE * BYTES_TO_DECODE["PNG"]


def test_a_picture_uses_memory_until_it_is_freed() -> None:
    budget = MemoryBudget(COST, SETTING)
    picture = read_picture(PICTURE, "input_image", budget=budget)
    assert budget.used == SIDE * SIDE * 4
    del picture
    assert budget.used == 0
    mask = read_mask(encoded(Image.new("L", (SIDE, SIDE), 255)), "mask", budget=budget)
    assert budget.used == SIDE * SIDE
    del mask
    assert budget.used == 0


def test_a_picture_larger_than_the_budget_is_refused_before_decoding() -> None:
    budget = MemoryBudget(COST - 1, SETTING)
    cut = PICTURE[: len(PICTURE) // 2]
    with pytest.raises(BodyTooLarge) as refused:
        decode_picture(cut, "mask", budget=budget)
    assert (refused.value.field, budget.used) == ("mask", 0)
    assert SETTING in str(refused.value.hint)


def test_a_picture_without_free_memory_is_refused_as_busy() -> None:
    budget = MemoryBudget(COST, SETTING, patience=0.01)
    first = read_picture(PICTURE, "input_image", budget=budget)
    with pytest.raises(Busy) as refused:
        read_picture(PICTURE, "input_image", budget=budget)
    assert refused.value.retry_after
    del first
    assert read_picture(PICTURE, "input_image", budget=budget).size == (SIDE, SIDE)


def test_a_picture_waits_for_memory() -> None:
    budget = MemoryBudget(COST, SETTING, patience=60)
    pictures = [read_picture(PICTURE, "input_image", budget=budget)]
    read: list[tuple[int, int]] = []
    waiting = threading.Thread(target=lambda: read.append(read_picture(PICTURE, "x", budget=budget).size))
    waiting.start()
    waiting.join(0.2)
    assert read == []
    pictures.clear()
    waiting.join(30)
    assert read == [(SIDE, SIDE)]


def test_a_damaged_picture_releases_its_memory() -> None:
    budget = MemoryBudget(COST, SETTING)
    noise = encoded(Image.effect_noise((SIDE, SIDE), 90).convert("RGB"))
    for _ in range(3):
        with pytest.raises(InvalidPicture):
            read_picture(noise[:3000], "input_image", budget=budget)
    assert budget.used == 0


def test_a_request_releases_the_memory_of_all_its_pictures() -> None:
    budget = MemoryBudget(10 * COST, SETTING)
    context = ParsingContext(OWN, ModelLibrary(), {}.get, budget=budget)
    white = encoded(Image.new("L", (SIDE, SIDE), 255))
    parsed = parse_img2img(Fields({"prompt": "x"}, {"image": PICTURE, "mask": white}), context)
    assert parsed.request.inpainting is not None
    del parsed
    assert budget.used == 0
    tight = ParsingContext(OWN, ModelLibrary(), {}.get, budget=MemoryBudget(COST - 1, SETTING))
    with pytest.raises(BodyTooLarge):
        parse_img2img(Fields({"prompt": "x"}, {"image": PICTURE}), tight)
