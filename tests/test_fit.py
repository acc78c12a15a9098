"""Pictures and masks are resized, cropped, padded and extended."""

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from shared.images.fit import (
    SPREAD,
    TILE,
    as_latent_mask,
    as_mask,
    as_picture,
    as_upscale_source,
    blur,
    choose_size,
    extend,
    fit,
    mask_region,
    outpaint_mask,
    spread_colours,
)
from tests.stack import open_rgb

NOISE = Image.effect_noise((40, 20), 90).convert("RGB")


def levels(image: Image.Image) -> Any:
    """Return the levels of a picture as signed integers, so that differences do not overflow."""
    return np.asarray(image).astype(int)


@pytest.mark.parametrize(
    ("source", "width", "height", "expected"),
    [
        ((640, 480), None, None, (640, 480)),
        ((640, 480), 100, 200, (100, 200)),
        ((640, 480), 320, None, (320, 240)),
        ((640, 480), None, 240, (320, 240)),
        ((4000, 3000), None, None, (1182, 887)),
        ((4, 4), None, None, (16, 16)),
        ((10_000, 20), 2000, None, (2000, 16)),
    ],
)
def test_the_size_of_a_result_is_chosen(
    source: tuple[int, int], width: int | None, height: int | None, expected: tuple[int, int]
) -> None:
    assert choose_size(source, width, height, usual_pixels=1024 * 1024) == expected


def test_pictures_are_padded_with_their_edge_and_masks_with_black() -> None:
    image = Image.effect_noise((21, 13), 90).convert("RGB")
    picture = as_picture(image)
    padded = np.asarray(open_rgb(picture.png))
    assert (picture.width, picture.height) == (21, 13)
    assert padded.shape == (16, 24, 3)
    assert np.array_equal(padded[:13, :21], np.asarray(image))
    assert np.array_equal(padded[15, :21], padded[12, :21])
    assert np.array_equal(padded[:, 23], padded[:, 20])
    white = np.asarray(open_rgb(as_mask(Image.new("L", (21, 13), 255)).png))
    assert white[:13, :21].min() == 255
    assert white[13:].max() == white[:, 21:].max() == 0


def test_a_part_that_is_pasted_back_is_not_padded() -> None:
    assert open_rgb(as_picture(NOISE.crop((0, 0, 13, 9)), align=False).png).size == (13, 9)
    assert open_rgb(as_mask(Image.new("L", (13, 9), 255), align=False).png).size == (13, 9)


def test_just_resize_stretches() -> None:
    assert np.array_equal(
        levels(fit(NOISE, (64, 64), "just_resize")), levels(NOISE.resize((64, 64), Image.Resampling.LANCZOS))
    )


def test_crop_and_resize_cuts_the_longer_side_from_the_middle() -> None:
    assert np.array_equal(levels(fit(NOISE, (20, 20), "crop_and_resize")), levels(NOISE)[:, 10:30])


def test_fill_repeats_the_edges_around_the_whole_picture() -> None:
    filled = levels(fit(NOISE, (40, 40), "fill"))
    assert np.array_equal(filled[10:30], levels(NOISE))
    assert np.array_equal(filled[0], levels(NOISE)[0])
    assert np.array_equal(filled[39], levels(NOISE)[19])


def test_fill_leaves_a_mask_black_where_there_is_no_picture() -> None:
    filled = levels(fit(Image.new("L", (40, 20), 255), (40, 40), "fill"))
    assert filled[10:30].min() == 255
    assert filled[:10].max() == filled[30:].max() == 0


def test_extending_repeats_edges_and_corners() -> None:
    grown = levels(extend(NOISE, (3, 2, 5, 4)))
    assert grown.shape == (26, 48, 3)
    assert np.array_equal(grown[2:22, 3:43], levels(NOISE))
    assert np.array_equal(grown[0, 0], levels(NOISE)[0, 0])
    assert np.array_equal(grown[25, 47], levels(NOISE)[19, 39])
    assert np.array_equal(grown[2:22, 0], levels(NOISE)[:, 0])


def test_blur_changes_a_mask_only_near_its_edges() -> None:
    mask = Image.new("L", (100, 20))
    ImageDraw.Draw(mask).rectangle((50, 0, 99, 19), fill=255)
    blurred = levels(blur(mask, 8))[10]
    assert 100 < blurred[50] < 155
    assert blurred[:34].max() == 0
    assert blurred[66:].min() == 255
    assert blur(mask, 0) is mask


def test_an_outpaint_mask_is_white_outside_and_fades_inside() -> None:
    mask = levels(outpaint_mask((50, 30), (10, 0, 0, 6), feathering=4))
    assert mask.shape == (36, 60)
    assert mask[:, :10].min() == mask[30:].min() == 255
    assert list(mask[10, 10:16]) == [204, 153, 102, 51, 0, 0]
    assert list(mask[25:30, 40]) == [0, 51, 102, 153, 204]
    assert mask[:26, 14:].max() == 0
    assert levels(outpaint_mask((50, 30), (10, 0, 0, 0), feathering=0))[:, 10:].max() == 0


@pytest.mark.parametrize(
    ("box", "padding", "proportions", "expected"),
    [
        ((40, 40, 59, 59), 10, (1, 1), (30, 30, 70, 70)),
        ((0, 0, 19, 19), 10, (1, 1), (0, 0, 40, 40)),
        ((80, 80, 99, 99), 10, (1, 1), (60, 60, 100, 100)),
        ((40, 40, 59, 59), 10, (2, 1), (10, 30, 90, 70)),
        ((40, 40, 59, 59), 10, (1, 2), (30, 10, 70, 90)),
        ((0, 40, 99, 59), 50, (1, 1), (0, 0, 100, 100)),
    ],
)
def test_the_region_around_a_mask_has_the_proportions(
    box: tuple[int, int, int, int], padding: int, proportions: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    mask = Image.new("L", (100, 100))
    ImageDraw.Draw(mask).rectangle(box, fill=255)
    assert mask_region(mask, padding, proportions) == expected


@pytest.mark.parametrize("position", [(0, 0), (7, 7), (19, 11), (20, 12)])
def test_one_pixel_above_black_repaints_its_whole_cell(position: tuple[int, int]) -> None:
    blend = Image.new("L", (21, 13))
    blend.putpixel(position, 1)
    drawn = as_latent_mask(blend)
    assert drawn.size == (21, 13)
    levels_drawn = np.asarray(open_rgb(drawn.png))[:, :, 0]
    left, top = position[0] // 8 * 8, position[1] // 8 * 8
    assert levels_drawn.shape == (16, 24)
    assert (levels_drawn[top : top + 8, left : left + 8] == 255).all()
    assert levels_drawn.sum() == 255 * 64


def test_colours_spread_below_full_transparency() -> None:
    size = (TILE + 60, 2 * TILE + 20)
    image = Image.new("RGBA", size, (0, 255, 0, 0))
    image.paste((200, 16, 32, 255), (TILE - 20, 40, TILE + 2, 2 * TILE))
    image.putpixel((TILE + 40, 9), (7, 8, 9, 1))
    result = spread_colours(image)
    assert result.getchannel("A").tobytes() == image.getchannel("A").tobytes()
    visible = levels(image.getchannel("A")) > 0
    assert (levels(result.convert("RGB"))[visible] == levels(image.convert("RGB"))[visible]).all()
    # The colour spreads SPREAD pixels to every side, across tile borders. No green remains.
    for position in (
        (TILE - 20 - SPREAD, 90),
        (TILE + 1 + SPREAD, TILE + 5),
        (TILE, 40 - SPREAD),
        (TILE, 2 * TILE + 7),
    ):
        assert np.abs(np.subtract(result.getpixel(position)[:3], (200, 16, 32))).max() <= 9
    assert levels(result.getchannel("G")).max() <= 40


def test_opaque_and_fully_transparent_pictures_stay_unchanged() -> None:
    for alpha in (0, 255):
        image = Image.new("RGBA", (20, 30), (1, 2, 3, alpha))
        assert spread_colours(image).tobytes() == image.tobytes()
    assert as_upscale_source(NOISE).png == as_picture(NOISE, align=False).png
