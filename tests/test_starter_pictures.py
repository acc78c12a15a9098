"""Pictures of the starter model through the API, checked with `starter.shape_detection`."""

import json
from collections import Counter

import numpy as np
import pytest
import requests
from PIL import Image

from starter.scenes import COLOURS, SHAPES, Background, Scene, SceneShape, held_out, render
from starter.shape_detection import DetectedScene, detect_shapes
from tests.stack import PNG, TIMEOUT, TestStack


def detect(image: Image.Image) -> DetectedScene:
    return detect_shapes(np.asarray(image))


def rendered(scene: Scene, side: int = 128) -> Image.Image:
    return Image.fromarray((render(scene, side, side) * 255).astype(np.uint8))


RED_CIRCLE = Scene(Background("plain", "blue", "blue"), (SceneShape("circle", "red", 0.28, 0.5, 0.26),))

# One combination for each shape that the training data does not contain.
UNSEEN = [
    next((c, s, b) for c in COLOURS[i:] for b in COLOURS[3:] if c != b and held_out(s, c, b))
    for i, s in enumerate(SHAPES)
]


@pytest.mark.parametrize(("colour", "shape", "background"), UNSEEN)
def test_one_shape_is_drawn(stack: TestStack, colour: str, shape: str, background: str) -> None:
    picture = stack.picture(stack.draw(prompt=f"a {colour} {shape} on a {background} background", seed=1))
    assert detect(picture).background == background
    assert detect(picture).shows(colour, shape)


@pytest.mark.parametrize("word", ["crimson disc", "red ball", "scarlet circle"])
def test_synonyms_are_understood(stack: TestStack, word: str) -> None:
    picture = stack.picture(stack.draw(prompt=f"a {word} on a white background", seed=2))
    assert detect(picture).shows("red", "circle")


def test_unknown_words_do_not_change_the_shape(stack: TestStack) -> None:
    prompt = "masterpiece, a wonderful green triangle on a black background, trending"
    assert detect(stack.picture(stack.draw(prompt=prompt, seed=3))).shows("green", "triangle")


def test_unknown_words_are_one_warning_in_every_reply_format(stack: TestStack) -> None:
    small = {"prompt": "a red LIGHTHOUSE, \U0001f534 lighthouse", "width": 64, "height": 64, "steps": 1}
    (warning,) = stack.draw(**small, batch_size=2)["warnings"]
    assert "does not know 'lighthouse', '\U0001f534' of prompt. It knows" in warning
    reply = requests.post(f"{stack.txt2img}/api/txt2img", json=small, headers=PNG, timeout=TIMEOUT)
    assert json.loads(reply.headers["X-Warnings"]) == [warning]
    redrawn = stack.redraw(prompt="a chaos", steps=1, input_image=Image.new("RGB", (64, 64), "red"))
    assert ["does not know 'chaos'" in warning for warning in redrawn["warnings"]] == [True]


@pytest.mark.parametrize(
    ("colour", "shape", "side"), [("red", "heart", 512), ("yellow", "triangle", 512), ("pink", "star", 256)]
)
def test_a_picture_above_the_native_size_shows_one_shape(stack: TestStack, colour: str, shape: str, side: int) -> None:
    reply = stack.draw(prompt=f"a {colour} {shape} on a blue background", width=side, height=side, seed=9)
    assert any("drawn at 128x128, then enlarged" in warning for warning in reply["warnings"])
    picture = stack.picture(reply)
    assert picture.size == (side, side)
    assert detect(picture).background == "blue"
    assert [(thing.colour, thing.shape) for thing in detect(picture).things] == [(colour, shape)]


def test_two_shapes_keep_their_own_colours(stack: TestStack) -> None:
    prompt = "a yellow circle left of a red square on a blue background"
    things = detect(stack.picture(stack.draw(prompt=prompt, seed=4))).things
    assert [(thing.colour, thing.shape) for thing in sorted(things, key=lambda thing: thing.x)] == [
        ("yellow", "circle"),
        ("red", "square"),
    ]


def test_sizes_and_places_are_understood(stack: TestStack) -> None:
    prompts = ("a small red circle", "a large red circle", "a red circle on the left", "a red circle at the bottom")
    small, large, left, bottom = (
        detect(stack.picture(stack.draw(prompt=f"{prompt} on a white background", seed=5))).things[0]
        for prompt in prompts
    )
    assert small.area < 0.5 * large.area
    assert left.x < 0.4
    assert bottom.y > 0.6


def test_a_negative_prompt_removes_a_colour(stack: TestStack) -> None:
    """A prompt without a colour gives several; the most common one disappears if it is in the negative prompt."""
    fields = {"prompt": "a circle on a white background", "batch_size": 6, "seed": 6}
    colours = Counter(thing.colour for image in stack.pictures(stack.draw(**fields)) for thing in detect(image).things)
    ((colour, _),) = colours.most_common(1)
    images = stack.pictures(stack.draw(**fields, negative_prompt=colour))
    assert colour not in {thing.colour for image in images for thing in detect(image).things}


@pytest.mark.parametrize("strength", [0.4, 0.5, 0.6])
def test_img2img_keeps_the_composition_and_changes_the_colour(stack: TestStack, strength: float) -> None:
    """The prompt gives the position of the circle: without it, the starter centres the circle from strength 0.5 on."""
    source = rendered(RED_CIRCLE)
    fields = {"prompt": "a green circle on the left on a blue background", "denoising_strength": strength}
    scene = detect(stack.picture(stack.redraw(**fields, input_image=source, seed=7)))
    (thing,) = scene.things
    assert scene.background == "blue"
    assert thing.shape == "circle"
    assert abs(thing.x - 0.28) < 0.06
    assert abs(thing.y - 0.5) < 0.06
    if strength >= 0.5:
        assert thing.colour == "green"


def test_only_the_masked_area_is_drawn(stack: TestStack) -> None:
    source = Image.new("RGB", (128, 128), (248, 248, 248))
    mask = Image.new("L", (128, 128))
    mask.paste(255, (24, 24, 104, 104))
    fields = {"prompt": "a red circle on a white background", "input_image": source, "mask": mask}
    scene = detect(stack.picture(stack.redraw(**fields, seed=8)))
    assert scene.background == "white"
    assert [thing.colour for thing in scene.things] == ["red"]
    assert abs(scene.things[0].x - 0.5) < 0.12
