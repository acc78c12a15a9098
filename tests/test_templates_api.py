"""Named workflows on the real engine."""

import json
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image, ImageDraw, ImageOps

from tests.http import SMALL, SOURCE, alike, post, same
from tests.stack import PNG, TIMEOUT, TestStack, data_url, encoded, open_rgb


@pytest.fixture(scope="module")
def graph(stack: TestStack) -> dict[str, Any]:
    """Return a graph of this version, as a client sends it."""
    return dict(stack.draw(**SMALL)["workflow"]["prompt"])


@pytest.fixture(scope="module")
def workflow_folder(stack: TestStack) -> Path:
    folder = stack.data_dir / "workflows"
    folder.mkdir(exist_ok=True)
    return folder


def test_a_file_becomes_a_route(stack: TestStack, workflow_folder: Path, graph: dict[str, Any]) -> None:
    header = {
        "title": "A badge",
        "description": "One word in a colour.",
        "parameters": {
            "words": {"type": "string", "required": True, "targets": ["CLIPTextEncode.text"]},
            "steps": {"type": "integer", "minimum": 1, "maximum": 5, "default": 3},
            "seed": {"type": "integer"},
        },
    }
    (workflow_folder / "badge.json").write_text(json.dumps({"dream_layer": header, "prompt": graph}), encoding="utf-8")
    listed = requests.get(f"{stack.img2img}/api/workflows", timeout=TIMEOUT).json()["workflows"]
    (badge,) = [workflow for workflow in listed if workflow["name"] == "badge"]
    assert (badge["title"], badge["description"]) == ("A badge", "One word in a colour.")
    assert badge["schema"]["required"] == ["words"]
    assert badge["schema"]["properties"]["steps"] == {"type": "integer", "minimum": 1, "maximum": 5, "default": 3}
    result = requests.get(f"{stack.txt2img}/api/workflows/badge", timeout=TIMEOUT).json()
    assert result["schema"] == badge["schema"]

    reply = post(stack, "/api/workflows/badge", {"words": "a red circle", "seed": 7, "colour": 1}).json()
    assert reply["status"] == "success", reply
    assert reply["parameters"] == {"workflow": "badge", "words": "a red circle", "steps": 3, "seed": 7}
    assert reply["warnings"] == ["ignored unknown fields: colour"]
    assert same(stack.picture(reply), stack.picture(stack.draw(**{**SMALL, "steps": 3})))
    assert stack.job(reply["job_id"])["kind"] == "workflow"

    seeds = {post(stack, "/api/workflows/badge", {"words": "x", "seed": -1}).json()["seed"] for _ in range(2)}
    assert len(seeds) == 2


def test_parameters_are_checked(stack: TestStack, workflow_folder: Path, graph: dict[str, Any]) -> None:
    parameters = {
        "words": {"type": "string", "required": True, "targets": ["CLIPTextEncode.text"]},
        "steps": {"type": "integer", "minimum": 1, "maximum": 5},
        "sampler": {"type": "string", "targets": ["KSampler.sampler_name"]},
    }
    content = {"dream_layer": {"parameters": parameters}, "prompt": graph}
    (workflow_folder / "checked.json").write_text(json.dumps(content), encoding="utf-8")
    for body, field, message in (
        ({}, "words", "missing"),
        ({"words": "x", "steps": 6}, "steps", "a whole number from 1 to 5, not 6"),
        # The header does not list samplers, but the engine does.
        ({"words": "x", "sampler": "eular"}, "sampler", "eular"),
    ):
        reply = post(stack, "/api/workflows/checked", body)
        assert reply.status_code == 422, reply.text
        assert reply.json()["error"]["field"] == field
        assert message in reply.json()["message"]


def test_a_workflow_runs_like_any_job(stack: TestStack, workflow_folder: Path, graph: dict[str, Any]) -> None:
    (workflow_folder / "plain.json").write_text(json.dumps(graph), encoding="utf-8")
    (workflow_folder / "other.json").write_text(json.dumps(graph), encoding="utf-8")
    body = {"prompt": "a red circle", "steps": 1}
    accepted = post(stack, "/api/workflows/plain", body, **{"Prefer": "respond-async", "Idempotency-Key": "w1"})
    assert accepted.status_code == 202, accepted.text
    assert (
        post(stack, "/api/workflows/plain", body, **{"Idempotency-Key": "w1"}).json()["job_id"]
        == (accepted.json()["job_id"])
    )
    assert post(stack, "/api/workflows/other", body, **{"Idempotency-Key": "w1"}).status_code == 422
    streamed = post(stack, "/api/workflows/plain", body, Accept="text/event-stream")
    assert "event: completed" in streamed.text
    picture = post(stack, "/api/workflows/plain", body, **PNG)
    assert open_rgb(picture.content).size == (64, 64)
    assert picture.headers["X-Seed"].isdecimal()


def test_a_workflow_gets_the_transparency_of_a_picture_or_its_mask(stack: TestStack, workflow_folder: Path) -> None:
    graph = {
        "load": {"class_type": "LoadImage", "inputs": {"image": "none.png"}},
        "grey": {"class_type": "MaskToImage", "inputs": {"mask": ["load", 1]}},
        "mix": {
            "class_type": "ImageBlend",
            "inputs": {"image1": ["grey", 0], "image2": ["load", 0], "blend_factor": 0.0, "blend_mode": "normal"},
        },
        "save": {"class_type": "SaveImage", "inputs": {"images": ["mix", 0], "filename_prefix": "x"}},
    }
    (workflow_folder / "inpaint.json").write_text(json.dumps(graph), encoding="utf-8")
    plain, mask = Image.new("RGB", (64, 48), (200, 10, 30)), Image.linear_gradient("L").resize((64, 48))
    erased = plain.copy()
    erased.putalpha(ImageOps.invert(mask))
    for sent in ({"input_image": data_url(erased)}, {"input_image": data_url(plain), "mask": data_url(mask)}):
        reply = post(stack, "/api/workflows/inpaint", sent, **PNG)
        assert reply.status_code == 200, reply.text
        assert alike(open_rgb(reply.content), mask.convert("RGB"))


def test_a_workflow_accepts_pictures(stack: TestStack, workflow_folder: Path) -> None:
    nodes = {
        "load": ("LoadImage", {"image": "none.png"}),
        "mask": ("LoadImageMask", {"image": "none.png", "channel": "alpha"}),
        "invert": ("ImageInvert", {"image": ["load", 0]}),
        "paste": (
            "ImageCompositeMasked",
            {"destination": ["load", 0], "source": ["invert", 0], "x": 0, "y": 0, "resize_source": False},
        ),
        "save": ("SaveImage", {"images": ["paste", 0], "filename_prefix": "x"}),
    }
    nodes["paste"][1]["mask"] = ["mask", 0]
    graph = {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}
    parameters = {
        "photo": {"type": "image", "required": True, "targets": ["load.image"]},
        "where": {"type": "mask", "required": True, "targets": ["mask.image"]},
    }
    content = {"dream_layer": {"parameters": parameters}, "prompt": graph}
    (workflow_folder / "negative.json").write_text(json.dumps(content), encoding="utf-8")
    photo, where = Image.new("RGB", (50, 40), (200, 10, 0)), Image.new("L", (50, 40))
    ImageDraw.Draw(where).rectangle((25, 0, 49, 39), 255)
    reply = post(stack, "/api/workflows/negative", {"photo": data_url(photo), "where": data_url(where)}, **PNG)
    assert reply.status_code == 200, reply.text
    drawn = open_rgb(reply.content)
    assert drawn.size == (50, 40)
    assert drawn.getpixel((0, 0)) == (200, 10, 0)
    assert alike(drawn.crop((26, 0, 50, 40)), Image.new("RGB", (24, 40), (55, 245, 255)))
    assert post(stack, "/api/workflows/negative", {"photo": data_url(photo)}).json()["error"]["field"] == "where"


def test_a_workflow_accepts_pictures_and_sizes_like_any_request(stack: TestStack, workflow_folder: Path) -> None:
    """A picture of any size is sent as `image` or as the name of an upload; sizes need not be multiples of 8."""
    small = {"steps": 1, "width": 64, "height": 64, "prompt": "a red circle"}
    (workflow_folder / "again.json").write_text(
        json.dumps(stack.redraw(**small, input_image=SOURCE)["workflow"]), encoding="utf-8"
    )
    (workflow_folder / "new.json").write_text(json.dumps(stack.draw(**small)["workflow"]), encoding="utf-8")
    picture = encoded(Image.new("RGB", (60, 61), (200, 10, 0)))
    upload = requests.post(
        f"{stack.txt2img}/api/upload-controlnet-image", files={"file": ("a.png", picture)}, timeout=TIMEOUT
    ).json()["filename"]
    for sent in (
        {"files": {"image": ("a.png", picture)}},
        {"json": {"image": upload}},
        {"json": {"input_image": upload}},
    ):
        reply = requests.post(f"{stack.txt2img}/api/workflows/again", **sent, timeout=TIMEOUT)
        assert reply.status_code == 200, reply.text
        assert reply.json()["warnings"] == []
        assert stack.picture(reply.json()).size == (64, 64)

    wide = requests.post(
        f"{stack.txt2img}/api/workflows/new", data={"width": "70", "preview": "True"}, timeout=TIMEOUT
    ).json()
    assert wide["warnings"] == ["width 70 was raised to 72, a multiple of 8"]
    assert stack.picture(wide).size == (72, 64)
    wrong = post(stack, "/api/workflows/new", {"preview": "perhaps"})
    assert (wrong.status_code, wrong.json()["error"]["field"]) == (422, "preview")


def test_a_broken_file_is_listed_with_its_error(stack: TestStack, workflow_folder: Path, graph: dict[str, Any]) -> None:
    broken = workflow_folder / "broken.json"
    broken.write_text("{", encoding="utf-8")
    (workflow_folder / "Bad Name.json").write_text("{}", encoding="utf-8")

    def listed(name: str) -> Any:
        reply = requests.get(f"{stack.txt2img}/api/workflows", timeout=TIMEOUT).json()
        return next((workflow for workflow in reply["workflows"] if workflow["name"] == name), None)

    assert "not valid JSON" in listed("broken")["error"]["message"]
    assert "lower-case letters" in listed("Bad Name")["error"]["message"]
    assert post(stack, "/api/workflows/broken", {"prompt": "x"}).status_code == 422
    # Corrections and deletions take effect at once.
    broken.write_text(json.dumps(graph), encoding="utf-8")
    assert "schema" in listed("broken")
    broken.unlink()
    assert listed("broken") is None
    assert post(stack, "/api/workflows/broken", {"prompt": "x"}).status_code == 404


@pytest.mark.parametrize("name", ["none", "Bad%20Name", "..%2Fjobs", "%2e%2e", "a.json"])
def test_a_name_cannot_leave_the_folder(stack: TestStack, workflow_folder: Path, name: str) -> None:
    assert requests.get(f"{stack.txt2img}/api/workflows/{name}", timeout=TIMEOUT).status_code == 404


@pytest.mark.parametrize("channel", ["alpha", "red", "green", "blue"])
def test_a_mask_loader_reads_its_channel_of_a_picture(stack: TestStack, workflow_folder: Path, channel: str) -> None:
    graph = {
        "load": {"class_type": "LoadImageMask", "inputs": {"image": "none.png", "channel": channel}},
        "grey": {"class_type": "MaskToImage", "inputs": {"mask": ["load", 0]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["grey", 0], "filename_prefix": "x"}},
    }
    parameters = {"photo": {"type": "image", "targets": ["load.image"]}}
    content = {"dream_layer": {"parameters": parameters}, "prompt": graph}
    (workflow_folder / f"read-{channel}.json").write_text(json.dumps(content), encoding="utf-8")
    ramp = Image.linear_gradient("L").resize((64, 48))
    photo = Image.merge("RGBA", [ramp, ImageOps.invert(ramp), Image.new("L", ramp.size, 70), ramp.rotate(180)])
    if channel != "alpha":
        photo.putalpha(255)
    reply = post(stack, f"/api/workflows/read-{channel}", {"photo": data_url(photo)})
    assert reply.status_code == 200, reply.text
    assert reply.json()["warnings"] == []
    # As in LoadImage, a mask is 1 where the picture is transparent.
    read = photo.getchannel(channel[0].upper())
    expected = ImageOps.invert(read) if channel == "alpha" else read
    assert alike(stack.picture(reply.json()), expected.convert("RGB"))


def test_a_missing_transparency_that_a_node_reads_is_a_warning(stack: TestStack, workflow_folder: Path) -> None:
    graph = {
        "load": {"class_type": "LoadImage", "inputs": {"image": "none.png"}},
        "grey": {"class_type": "MaskToImage", "inputs": {"mask": ["load", 1]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["grey", 0], "filename_prefix": "x"}},
    }
    parameters = {"photo": {"type": "image", "targets": ["load.image"]}}
    content = {"dream_layer": {"parameters": parameters}, "prompt": graph}
    (workflow_folder / "opaque.json").write_text(json.dumps(content), encoding="utf-8")
    reply = post(stack, "/api/workflows/opaque", {"photo": data_url(Image.new("RGB", (64, 48), "red"))}).json()
    assert reply["warnings"] == ["photo has no transparency, which load reads as a mask: nothing is repainted"]
