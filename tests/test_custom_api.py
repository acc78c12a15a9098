"""Custom graphs on the real engine."""

import json
from typing import Any

import pytest
import requests
from PIL import Image, ImageChops, ImageDraw, ImageOps

from tests.http import SMALL, SOURCE, alike, post, same
from tests.stack import PNG, TIMEOUT, TestStack, open_rgb

MASK = Image.new("L", SOURCE.size)
ImageDraw.Draw(MASK).rectangle((20, 20, 40, 40), 255)


def refused(stack: TestStack, graph: Any, **fields: Any) -> dict[str, Any]:
    """Send a custom graph that is refused and return the error in the response."""
    reply = post(stack, "/api/txt2img", {**fields, "custom_workflow": graph})
    assert reply.status_code == 422, reply.text
    body: dict[str, Any] = reply.json()
    return {"message": body["message"], **body["error"]}


@pytest.fixture(scope="module")
def drawn(stack: TestStack) -> dict[str, Any]:
    """The reply with a picture. The tests send its graph as a client would."""
    return stack.draw(**SMALL)


@pytest.fixture(scope="module")
def graph(drawn: dict[str, Any]) -> dict[str, Any]:
    return dict(drawn["workflow"]["prompt"])


def add(graph: dict[str, Any], name: str, class_type: Any, **inputs: Any) -> dict[str, Any]:
    return {**graph, name: {"class_type": class_type, "inputs": inputs}}


def put(graph: dict[str, Any], name: str, **inputs: Any) -> dict[str, Any]:
    return {**graph, name: {**graph[name], "inputs": {**graph[name]["inputs"], **inputs}}}


def test_a_graph_from_a_reply_draws_the_same_picture(stack: TestStack, drawn: dict[str, Any]) -> None:
    repeated = stack.draw(custom_workflow=drawn["workflow"])
    assert same(stack.picture(repeated), stack.picture(drawn))
    assert repeated["warnings"] == []
    # Without a seed in the request, none is chosen. The picture reports the seed of the graph.
    assert "seed" not in repeated
    facts = ("seed", "width", "height")
    one, other = (reply["comfy_response"]["generated_images"][0] for reply in (repeated, drawn))
    assert [one[name] for name in facts] == [other[name] for name in facts]
    assert repeated["comfy_response"]["generated_images"] != drawn["comfy_response"]["generated_images"]


def test_fields_are_set_in_the_graph(stack: TestStack, graph: dict[str, Any]) -> None:
    fields = {"prompt": "a blue square", "negative_prompt": "red", "steps": 3, "seed": 11, "width": 72, "height": 64}
    fields |= {"cfg_scale": 4, "sampler_name": "heun", "scheduler": "karras"}
    reply = stack.draw(custom_workflow=graph, **fields)
    assert same(stack.picture(reply), stack.picture(stack.draw(**fields)))
    assert reply["seed"] == 11
    assert reply["parameters"] == fields


def test_a_form_sends_a_graph_as_text_and_gets_a_picture(stack: TestStack, graph: dict[str, Any]) -> None:
    form = {"custom_workflow": json.dumps(graph), "seed": "12"}
    reply = requests.post(f"{stack.txt2img}/api/txt2img", data=form, headers=PNG, timeout=TIMEOUT)
    assert reply.status_code == 200, reply.text
    assert reply.headers["X-Seed"] == "12"
    expected = stack.picture(stack.draw(**{**SMALL, "seed": 12}))
    assert same(open_rgb(reply.content), expected)
    file = {"custom_workflow": ("graph.json", json.dumps(graph), "application/json")}
    reply = requests.post(f"{stack.txt2img}/api/txt2img", data={"seed": "12"}, files=file, headers=PNG, timeout=TIMEOUT)
    assert same(open_rgb(reply.content), expected)


def test_picture_and_mask_are_set(stack: TestStack) -> None:
    source, mask = Image.new("RGB", (64, 64), "green"), Image.new("L", (64, 64))
    ImageDraw.Draw(mask).rectangle((32, 0, 63, 63), 255)
    other = Image.new("RGB", (64, 64), "white")
    fields = {"prompt": "a red circle", "steps": 2, "seed": 7}
    first = stack.redraw(**fields, input_image=source, mask=mask)
    repeated = stack.redraw(input_image=other, mask=mask, custom_workflow=first["workflow"])
    assert repeated["warnings"] == []
    assert same(stack.picture(repeated), stack.picture(stack.redraw(**fields, input_image=other, mask=mask)))


def test_a_custom_graph_gets_picture_and_mask_unchanged(stack: TestStack) -> None:
    """Even with more pixels than the model can draw."""
    source = Image.effect_noise((328, 200), 90).convert("RGB")
    mask = Image.new("L", source.size)
    mask.paste(255, (0, 0, 101, 200))
    graph = {
        "picture": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "mask": {"class_type": "LoadImageMask", "inputs": {"image": "a.png", "channel": "red"}},
        "inverted": {"class_type": "ImageInvert", "inputs": {"image": ["picture", 0]}},
        "grey": {"class_type": "MaskToImage", "inputs": {"mask": ["mask", 0]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["inverted", 0]}},
        "save mask": {"class_type": "SaveImage", "inputs": {"images": ["grey", 0]}},
    }
    reply = stack.redraw(prompt="x", input_image=source, mask=mask, custom_workflow=graph)
    pictures = [picture.convert("RGB") for picture in stack.pictures(reply)]
    assert {picture.size for picture in pictures} == {source.size}
    # The engine computes with fractions and rounds down.
    for expected in (ImageOps.invert(source), mask.convert("RGB")):
        assert any(alike(picture, expected) for picture in pictures)
    assert "input_image" not in " ".join(reply["warnings"])
    # A size in the request changes both.
    small = {"width": 61, "height": 48}
    reply = stack.redraw(prompt="x", input_image=source, mask=mask, custom_workflow=graph, **small)
    assert {picture.size for picture in stack.pictures(reply)} == {(64, 48)}
    assert "the edges of input_image, with 61x48, are repeated" in " ".join(reply["warnings"])


def test_a_graph_with_a_controlnet_uses_the_source(stack: TestStack, graph: dict[str, Any]) -> None:
    edges = add(graph, "load", "LoadImage", image="none.png")
    edges = add(edges, "net", "ControlNetLoader", control_net_name="dream-layer-canny.safetensors")
    edges = add(edges, "canny", "Canny", image=["load", 0], low_threshold=0.1, high_threshold=0.3)
    control = {"positive": ["CLIPTextEncode", 0], "negative": ["CLIPTextEncode_2", 0], "control_net": ["net", 0]}
    control |= {"image": ["canny", 0], "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    edges = put(add(edges, "control", "ControlNetApplyAdvanced", **control), "KSampler", positive=["control", 0])
    edges = put(edges, "KSampler", negative=["control", 1])
    source = Image.new("RGB", (64, 64), "white")
    first = stack.redraw(custom_workflow=edges, prompt="a blue square", input_image=source)
    ImageDraw.Draw(source).ellipse((16, 16, 48, 48), "black")
    second = stack.redraw(custom_workflow=edges, prompt="a blue square", input_image=source)
    assert first["warnings"] == second["warnings"] == []
    assert second["workflow"]["prompt"]["CLIPTextEncode"]["inputs"]["text"] == "a blue square"
    assert not same(stack.picture(first), stack.picture(second))


def test_a_graph_that_reads_transparency_receives_it(stack: TestStack) -> None:
    """The MASK output of LoadImage is the transparent part of the picture, or the mask of the request."""
    graph = {
        "picture": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "grey": {"class_type": "MaskToImage", "inputs": {"mask": ["picture", 1]}},
        "black": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
        "shown": {
            "class_type": "ImageCompositeMasked",
            "inputs": {"destination": ["black", 0], "source": ["picture", 0], "x": 0, "y": 0, "resize_source": False},
        },
        "save mask": {"class_type": "SaveImage", "inputs": {"images": ["grey", 0]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["shown", 0]}},
    }
    plain, mask = Image.new("RGB", (64, 64), (200, 10, 30)), Image.linear_gradient("L").resize((64, 64))
    erased = plain.copy()
    erased.putalpha(ImageOps.invert(mask))
    for fields in ({"input_image": erased}, {"input_image": plain, "mask": mask}):
        reply = stack.redraw(prompt="x", custom_workflow=graph, **fields)
        pictures = [picture.convert("RGB") for picture in stack.pictures(reply)]
        for expected in (mask.convert("RGB"), plain):
            assert any(alike(picture, expected) for picture in pictures)
        assert not any("mask" in warning or "transparent" in warning for warning in reply["warnings"])


def test_each_saving_node_returns_its_picture(stack: TestStack, graph: dict[str, Any]) -> None:
    several = add(graph, "invert", "ImageInvert", image=["VAEDecode", 0])
    several = add(several, "also", "SaveImage", images=["invert", 0], filename_prefix="../outside")
    several = add(several, "show", "PreviewImage", images=["invert", 0])
    reply = stack.draw(custom_workflow=several)
    one, other = stack.pictures(reply)
    # The engine rounds levels down when it saves.
    assert alike(one, ImageChops.invert(other))
    # A repeated job saves under its own names.
    retried = requests.post(f"{stack.txt2img}/api/jobs/{reply['job_id']}/retry", timeout=TIMEOUT).json()["job_id"]
    assert len(stack.wait_for_job(retried)["images"]) == 2
    output_dir = stack.data_dir / "output"
    assert len(list(output_dir.rglob(f"*{reply['job_id'].replace('-', '')[:12]}*"))) == 2
    requests.delete(f"{stack.txt2img}/api/jobs/{reply['job_id']}", timeout=TIMEOUT)
    assert list(output_dir.rglob(f"*{reply['job_id'].replace('-', '')[:12]}*")) == []


def test_graphs_that_would_crash_the_engine_are_refused(stack: TestStack, graph: dict[str, Any]) -> None:
    before = stack.engine_state()
    crashing_graphs = [
        {**graph, "x": {"class_type": "PreviewImage"}},
        {**graph, "x": {"class_type": "PreviewImage", "inputs": None}},
        {**graph, "x": {"class_type": {"a": 1}, "inputs": {}}},
        put(graph, "VAEDecode", samples=["KSampler", 5]),
        put(graph, "VAEDecode", samples=["KSampler", "0"]),
        put(graph, "VAEDecode", samples=[["KSampler"], 0]),
        put(graph, "VAEDecode", samples=["nowhere", 0]),
        put(graph, "VAEDecode", samples=["CheckpointLoaderSimple", 2]),
        put(graph, "KSampler", steps={"a": 1}),
        put(graph, "KSampler", steps=None),
        put(graph, "KSampler", steps=10**100),
        put(graph, "KSampler", mask=["CheckpointLoaderSimple", 0]),
        put(graph, "EmptyLatentImage", batch_size=["KSampler", 0]),
        add(graph, "x", "NoSuchNode"),
        add(graph, "x", "../queue?x=#/"),
        add(graph, "x", "SaveImage"),
    ]
    for crashing_graph in crashing_graphs:
        refused(stack, crashing_graph)
    assert stack.draw(**SMALL)["status"] == "success"
    after = stack.engine_state()
    assert (after["pid"], after["restarts"]) == (before["pid"], before["restarts"])


def test_a_wrong_value_is_an_error_of_the_field_that_set_it(stack: TestStack, graph: dict[str, Any]) -> None:
    wrong = refused(stack, graph, sampler_name="eular")
    assert wrong["field"] == "sampler_name"
    assert "euler" in wrong["nearest"]
    wrong = refused(stack, put(graph, "KSampler", sampler_name="eular"), prompt="x")
    assert wrong["field"] == "custom_workflow"
    assert wrong["node"] == "KSampler"
    assert "euler" in wrong["nearest"]


def test_values_that_no_node_reads_add_warnings(stack: TestStack, graph: dict[str, Any]) -> None:
    reply = stack.draw(custom_workflow=put(graph, "KSampler", upload="image"))
    assert reply["warnings"] == ["ignored: KSampler has no input upload (node KSampler)"]


def test_harmful_nodes_are_refused(stack: TestStack, graph: dict[str, Any]) -> None:
    saving = add(graph, "x", "CheckpointSave", model=["CheckpointLoaderSimple", 0], filename_prefix="x")
    wrong = refused(stack, saving)
    assert wrong["class_type"] == "CheckpointSave"
    assert wrong["field"] == "custom_workflow"
    assert "DREAM_LAYER_ALLOW_NODES=CheckpointSave" in wrong["hint"]
    pattern = add(graph, "x", "RegexMatch", string="a", regex_pattern="(a+)+$", case_insensitive=True)
    assert "never end" in refused(stack, pattern)["message"]


def test_a_client_cannot_load_the_pictures_of_others(
    stack: TestStack, drawn: dict[str, Any], graph: dict[str, Any]
) -> None:
    name = drawn["comfy_response"]["generated_images"][0]["filename"]
    for path in (f"{name[:8]}/{name} [output]", "../jobs.sqlite", "/etc/hostname"):
        loading = add(graph, "x", "LoadImage", image=path)
        loading = add(loading, "y", "SaveImage", images=["x", 0], filename_prefix="")
        assert refused(stack, loading)["node"] == "x"


def test_the_editors_format_is_refused_with_a_hint(stack: TestStack) -> None:
    wrong = refused(stack, {"nodes": [], "links": [], "version": 0.4})
    assert "Export (API)" in wrong["hint"]


def test_fields_that_a_custom_graph_does_not_use_add_warnings(stack: TestStack) -> None:
    graph = stack.redraw(steps=1, prompt="a red circle", input_image=SOURCE)["workflow"]
    reply = stack.redraw(
        custom_workflow=graph,
        steps=1,
        input_image=SOURCE,
        mask=MASK,
        only_masked=True,
        mask_blur=4,
        inpaint_mode="refine",
    )
    assert reply["warnings"][0] == (
        "mask_blur, only_masked, inpaint_mode: not used with custom_workflow, whose own nodes decide this"
    )
    # The reply has the whole picture, not only the region around the mask.
    assert stack.picture(reply).size == SOURCE.size
