"""`starter.evaluate`: prompts are held-out combinations, and only correct pictures are scored as correct."""

import numpy as np
import pytest

from starter.evaluate import ExpectedShapes, contact_sheet, make_prompt, score
from starter.scenes import Background, Scene, SceneShape, held_out, render
from starter.shape_detection import detect_shapes
from starter.vocabulary import TOKEN_IDS

RED_STAR = SceneShape("star", "red", 0.3, 0.5, 0.2)
BLUE_RING = SceneShape("ring", "blue", 0.72, 0.5, 0.2)


def test_prompts_are_seeded_and_held_out_and_have_only_known_words() -> None:
    for count in (1, 2):
        prompts = [make_prompt(np.random.default_rng(seed), count) for seed in range(50)]
        assert prompts == [make_prompt(np.random.default_rng(seed), count) for seed in range(50)]
        for prompt, background, things in prompts:
            assert len(things) == count
            assert held_out(things[0][1], things[0][0], background)
            assert set(prompt.split()) <= set(TOKEN_IDS)


@pytest.mark.parametrize(
    ("expected", "background", "scores"),
    [
        ((("red", "star"),), "white", (True, True, True)),
        ((("red", "star"), ("blue", "ring")), "white", (True, True, True)),
        ((("red", "star"), ("blue", "circle")), "white", (True, True, False)),
        ((("red", "star"), ("green", "ring")), "white", (True, False, False)),
        # The right colours and shapes, but combined wrongly.
        ((("blue", "star"), ("red", "ring")), "white", (True, True, False)),
        ((("red", "star"),), "black", (False, True, False)),
    ],
)
def test_only_the_expected_shapes_score_as_correct(
    expected: ExpectedShapes, background: str, scores: tuple[bool, ...]
) -> None:
    scene = Scene(Background("plain", "white", "white"), (RED_STAR, BLUE_RING)[: len(expected)])
    detected = detect_shapes((render(scene, 128, 128) * 255).astype(np.uint8))
    assert score(detected, background, expected) == scores


def test_the_last_row_of_a_contact_sheet_is_filled_with_black() -> None:
    white = np.full((4, 4, 3), 255, np.uint8)
    sheet = contact_sheet([white] * 3, columns=2)
    assert sheet.shape == (8, 8, 3)
    assert sheet[:4].all()
    assert not sheet[4:, 4:].any()
