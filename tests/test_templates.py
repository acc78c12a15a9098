"""Named workflows: the header and its parameters."""

import io
from typing import Any

import pytest
from PIL import Image

from shared.errors import InvalidValue
from shared.web.routes.workflows import prepare_pictures
from tests.imported_graphs import default_graph
from workflows.templates import read_workflow


def named(**parameters: Any) -> dict[str, Any]:
    return {"dream_layer": {"title": "Test", "parameters": parameters}, "prompt": default_graph()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"dream_layer": {}}, "must be a graph"),
        ({"dream_layer": {"parameter": {}}, "prompt": default_graph()}, "dream_layer.parameter: Extra inputs"),
        (named(words={"type": "text"}), "dream_layer.parameters.words.type"),
        (named(words={"type": "string", "minimum": 2}), "a string has no minimum"),
        (named(words={"type": "string"}), "words has no targets"),
        (named(words={"type": "string", "targets": ["nowhere.text"]}), "no such node"),
        (named(words={"type": "string", "targets": ["good"]}), "no such node"),
        (named(steps={"type": "integer", "minimum": 5, "default": 1}), "steps must be a whole number of at least 5"),
        (named(denoising_strength={"type": "number"}), "starts from an empty latent"),
    ],
)
def test_an_invalid_workflow_is_refused_with_the_reason(content: Any, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        read_workflow("test", content)


def test_parameters_are_described_and_read() -> None:
    workflow = read_workflow(
        "test",
        named(
            words={"type": "string", "required": True, "description": "what to draw", "targets": ["good.text"]},
            steps={"type": "integer", "minimum": 1, "maximum": 9, "default": 4},
            seed={"type": "integer"},
            look={"type": "string", "choices": ["karras", "normal"], "targets": ["sampler.scheduler"]},
        ),
    )
    schema = workflow.schema()
    assert schema["required"] == ["words"]
    assert schema["properties"]["words"] == {"description": "what to draw", "type": "string"}
    assert schema["properties"]["steps"] == {"type": "integer", "minimum": 1, "maximum": 9, "default": 4}
    assert schema["properties"]["look"] == {"type": "string", "enum": ["karras", "normal"]}
    assert workflow.targets["steps"] == (("sampler", "steps"),)
    # Form values are text.
    values, warnings = workflow.read({"words": "x", "steps": "9", "seed": -1, "stepz": 1}, random_seed=5)
    assert values == {"words": "x", "steps": 9, "seed": 5}
    assert warnings == ["ignored unknown fields: stepz (did you mean steps?)"]
    assert workflow.read({"words": "x", "seed": 3, "steps": None}, 5)[0] == {"words": "x", "steps": 4, "seed": 3}


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({"minimum": 3, "maximum": 10}, 3 + 5000 % 8), ({"choices": [11, 12, 13]}, 13), ({"minimum": 7}, 5007)],
)
def test_a_random_seed_is_within_the_limits_of_its_parameter(limits: dict[str, Any], expected: int) -> None:
    workflow = read_workflow("test", named(seed={"type": "integer", **limits}))
    assert workflow.read({}, random_seed=5000)[0] == {"seed": expected}
    assert workflow.read({"seed": -1}, random_seed=5000)[0] == {"seed": expected}


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({}, "words", "words is missing"),
        ({"words": 5}, "words", "must be text"),
        ({"words": "x", "steps": 10}, "steps", "must be a whole number from 1 to 9, not 10"),
        ({"words": "x", "steps": True}, "steps", "not True"),
        ({"words": "x", "steps": 1.5}, "steps", "whole number"),
        ({"words": "x", "cfg": float("nan")}, "cfg", "must be a number"),
        ({"words": "x", "seed": -2}, "seed", "whole number from 0 to 18446744073709551615"),
        ({"words": "x", "look": "karas"}, "look", "'karas' does not exist"),
    ],
)
def test_an_invalid_value_is_refused_with_its_parameter(values: dict[str, Any], field: str, message: str) -> None:
    workflow = read_workflow(
        "test",
        named(
            words={"type": "string", "required": True, "targets": ["good.text"]},
            steps={"type": "integer", "minimum": 1, "maximum": 9},
            cfg={"type": "number", "targets": ["sampler.cfg"]},
            seed={"type": "integer"},
            look={"type": "string", "choices": ["karras", "normal"], "targets": ["sampler.scheduler"]},
        ),
    )
    with pytest.raises(InvalidValue, match=message) as error:
        workflow.read(values, 5)
    assert error.value.field == field


def test_without_a_header_the_parameters_are_the_bound_fields() -> None:
    workflow = read_workflow("test", default_graph())
    properties = workflow.schema()["properties"]
    assert set(properties) == {
        *("prompt", "negative_prompt", "seed", "steps", "cfg_scale", "sampler_name", "scheduler"),
        *("width", "height", "batch_size", "model_name"),
    }
    assert properties["steps"] == {"type": "integer", "default": 20}
    assert properties["prompt"] == {"type": "string", "default": "old"}
    assert workflow.read({}, random_seed=5)[0]["seed"] == 5


@pytest.mark.parametrize("channel", ["red", "alpha"])
def test_a_mask_loader_of_the_same_file_gets_the_mask_if_one_is_sent(channel: str) -> None:
    graph = {
        "ckpt": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "m.safetensors"}},
        "text": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["ckpt", 1], "text": "a"}},
        "picture": {"class_type": "LoadImage", "inputs": {"image": "own.png"}},
        "mask_loader": {"class_type": "LoadImageMask", "inputs": {"image": "own.png", "channel": channel}},
        "latent": {
            "class_type": "VAEEncodeForInpaint",
            "inputs": {"pixels": ["picture", 0], "vae": ["ckpt", 2], "mask": ["mask_loader", 0], "grow_mask_by": 6},
        },
        "sampler": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["ckpt", 0], "positive": ["text", 0], "negative": ["text", 0], "latent_image": ["latent", 0],
                "seed": 1, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
            },
        },
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sampler", 0], "vae": ["ckpt", 2]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "x"}},
    }  # fmt: skip
    workflow = read_workflow("mine", graph)
    photo, mask = Image.new("RGBA", (64, 48), (200, 16, 32, 255)), Image.new("L", (64, 48), 90)
    warnings: list[str] = []
    pictures = prepare_pictures(workflow, workflow.graph, {"input_image": photo, "mask": mask}, warnings)
    assert warnings == []
    with Image.open(io.BytesIO(pictures["mask_loader", "image"].png)) as sent:
        read = sent.getchannel("A" if channel == "alpha" else "R").getpixel((3, 3))
    # The engine inverts alpha.
    assert read == (255 - 90 if channel == "alpha" else 90)
    with Image.open(io.BytesIO(pictures["picture", "image"].png)) as sent:
        assert sent.convert("RGB").getpixel((3, 3)) == (200, 16, 32)
    photo.putalpha(77)
    unmasked = prepare_pictures(workflow, workflow.graph, {"input_image": photo}, [])
    with Image.open(io.BytesIO(unmasked["mask_loader", "image"].png)) as sent:
        assert sent.mode == ("RGBA" if channel == "alpha" else "RGB")
