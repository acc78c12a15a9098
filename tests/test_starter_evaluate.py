"""`starter.evaluate`: prompts are held-out combinations, and only correct pictures are scored as correct."""

import numpy as np
import pytest

from starter.evaluate import ExpectedShapes, contact_sheet, make_prompt, score
from starter.scenes import Background, Scene, SceneShape, held_out, render
from starter.shape_detection import detect_shapes
from starter.vocabulary import TOKEN_IDS

RED_STAR = SceneShape("star", "red", 0.3, 0.5, 0.2)
BLUE_RING = SceneShape("ring", "blue", 0.72, 0.5, 0.2)


def test_prompts_are_seeded_known_words_and_held_out() -> None:
    for count in (1, 2):
        asked = [make_prompt(np.random.default_rng(seed), count) for seed in range(50)]
        assert asked == [make_prompt(np.random.default_rng(seed), count) for seed in range(50)]
        for prompt, background, things in asked:
            assert len(things) == count
            assert held_out(things[0][1], things[0][0], background)
            assert set(prompt.split()) <= set(TOKEN_IDS)


@pytest.mark.parametrize(
    ("asked", "background", "verdict"),
    [
        ((("red", "star"),), "white", (True, True, True)),
        ((("red", "star"), ("blue", "ring")), "white", (True, True, True)),
        ((("red", "star"), ("blue", "circle")), "white", (True, True, False)),
        ((("red", "star"), ("green", "ring")), "white", (True, False, False)),
        # The right colours and shapes, but each on the other.
        ((("blue", "star"), ("red", "ring")), "white", (True, True, False)),
        ((("red", "star"),), "black", (False, True, False)),
    ],
)
def test_only_what_was_asked_is_right(asked: ExpectedShapes, background: str, verdict: tuple[bool, ...]) -> None:
    scene = Scene(Background("plain", "white", "white"), (RED_STAR, BLUE_RING)[: len(asked)])
    seen = detect_shapes((render(scene, 128, 128) * 255).astype(np.uint8))
    assert score(seen, background, asked) == verdict


def test_a_sheet_fills_its_last_row_with_black() -> None:
    white = np.full((4, 4, 3), 255, np.uint8)
    whole = contact_sheet([white] * 3, columns=2)
    assert whole.shape == (8, 8, 3)
    assert whole[:4].all()
    assert not whole[4:, 4:].any()
