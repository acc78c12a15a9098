"""Graphs of clients' own, and workflows that are routes, on the real engine."""

import json
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image, ImageChops, ImageDraw, ImageOps

from tests.house import PNG, TIMEOUT, TestHouse, data_url, open_rgb

SMALL = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 2, "seed": 7}


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and ImageChops.difference(one, other).getbbox() is None


def alike(one: Image.Image, other: Image.Image) -> bool:
    """Whether no channel differs by more than one level."""
    return max(high for _, high in ImageChops.difference(one, other).getextrema()) <= 1


def post(house: TestHouse, path: str, body: Any, **headers: str) -> requests.Response:
    return requests.post(f"{house.txt2img}{path}", json=body, headers=headers, timeout=TIMEOUT)


def refused(house: TestHouse, graph: Any, **fields: Any) -> dict[str, Any]:
    """The error that a custom workflow is answered with."""
    reply = post(house, "/api/txt2img", {**fields, "custom_workflow": graph})
    assert reply.status_code == 422, reply.text
    body: dict[str, Any] = reply.json()
    return {"message": body["message"], **body["error"]}


@pytest.fixture(scope="module")
def drawn(house: TestHouse) -> dict[str, Any]:
    """A picture of ours; its graph is what others send."""
    return house.draw(**SMALL)


@pytest.fixture(scope="module")
def graph(drawn: dict[str, Any]) -> dict[str, Any]:
    return dict(drawn["workflow"]["prompt"])


def add(graph: dict[str, Any], name: str, class_type: Any, **inputs: Any) -> dict[str, Any]:
    return {**graph, name: {"class_type": class_type, "inputs": inputs}}


def put(graph: dict[str, Any], name: str, **inputs: Any) -> dict[str, Any]:
    return {**graph, name: {**graph[name], "inputs": {**graph[name]["inputs"], **inputs}}}


def test_our_own_graph_sent_back_draws_the_same_picture(house: TestHouse, drawn: dict[str, Any]) -> None:
    again = house.draw(custom_workflow=drawn["workflow"])
    assert same(house.picture(again), house.picture(drawn))
    assert again["warnings"] == []
    # Nothing was said of a seed or a size, and nothing is made up.
    assert "seed" not in again
    assert "width" not in again["comfy_response"]["generated_images"][0]
    assert again["comfy_response"]["generated_images"] != drawn["comfy_response"]["generated_images"]


def test_fields_are_placed_in_the_graph(house: TestHouse, graph: dict[str, Any]) -> None:
    fields = {"prompt": "a blue square", "negative_prompt": "red", "steps": 3, "seed": 11, "width": 72, "height": 64}
    fields |= {"cfg_scale": 4, "sampler_name": "heun", "scheduler": "karras"}
    reply = house.draw(custom_workflow=graph, **fields)
    assert same(house.picture(reply), house.picture(house.draw(**fields)))
    assert reply["seed"] == 11
    assert reply["parameters"] == fields


def test_a_form_sends_it_as_text_and_gets_the_picture_itself(house: TestHouse, graph: dict[str, Any]) -> None:
    form = {"custom_workflow": json.dumps(graph), "seed": "12"}
    reply = requests.post(f"{house.txt2img}/api/txt2img", data=form, headers=PNG, timeout=TIMEOUT)
    assert reply.status_code == 200, reply.text
    assert reply.headers["X-Seed"] == "12"
    expected = house.picture(house.draw(**{**SMALL, "seed": 12}))
    assert same(open_rgb(reply.content), expected)
    file = {"custom_workflow": ("graph.json", json.dumps(graph), "application/json")}
    reply = requests.post(f"{house.txt2img}/api/txt2img", data={"seed": "12"}, files=file, headers=PNG, timeout=TIMEOUT)
    assert same(open_rgb(reply.content), expected)


def test_picture_and_mask_are_placed(house: TestHouse) -> None:
    source, mask = Image.new("RGB", (64, 64), "green"), Image.new("L", (64, 64))
    ImageDraw.Draw(mask).rectangle((32, 0, 63, 63), 255)
    other = Image.new("RGB", (64, 64), "white")
    fields = {"prompt": "a red circle", "steps": 2, "seed": 7}
    first = house.redraw(**fields, input_image=source, mask=mask)
    again = house.redraw(input_image=other, mask=mask, custom_workflow=first["workflow"])
    assert again["warnings"] == []
    assert same(house.picture(again), house.picture(house.redraw(**fields, input_image=other, mask=mask)))


def test_a_graph_of_ones_own_gets_picture_and_mask_as_they_are(house: TestHouse) -> None:
    """With more pixels than the model draws."""
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
    reply = house.redraw(prompt="x", input_image=source, mask=mask, custom_workflow=graph)
    found = [picture.convert("RGB") for picture in house.pictures(reply)]
    assert {picture.size for picture in found} == {source.size}
    # The engine computes with fractions, and cuts off what is behind the comma.
    for wanted in (ImageOps.invert(source), mask.convert("RGB")):
        assert any(alike(picture, wanted) for picture in found)
    assert "input_image" not in " ".join(reply["warnings"])
    # Unless another size is asked for.
    small = {"width": 61, "height": 48}
    reply = house.redraw(prompt="x", input_image=source, mask=mask, custom_workflow=graph, **small)
    assert {picture.size for picture in house.pictures(reply)} == {(64, 48)}
    assert "with 61x48, the edges are repeated" in " ".join(reply["warnings"])


def test_a_graph_with_a_controlnet(house: TestHouse, graph: dict[str, Any]) -> None:
    edges = add(graph, "load", "LoadImage", image="none.png")
    edges = add(edges, "net", "ControlNetLoader", control_net_name="dream-layer-canny.safetensors")
    edges = add(edges, "canny", "Canny", image=["load", 0], low_threshold=0.1, high_threshold=0.3)
    control = {"positive": ["CLIPTextEncode", 0], "negative": ["CLIPTextEncode_2", 0], "control_net": ["net", 0]}
    control |= {"image": ["canny", 0], "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    edges = put(add(edges, "control", "ControlNetApplyAdvanced", **control), "KSampler", positive=["control", 0])
    edges = put(edges, "KSampler", negative=["control", 1])
    source = Image.new("RGB", (64, 64), "white")
    first = house.redraw(custom_workflow=edges, prompt="a blue square", input_image=source)
    ImageDraw.Draw(source).ellipse((16, 16, 48, 48), "black")
    second = house.redraw(custom_workflow=edges, prompt="a blue square", input_image=source)
    assert first["warnings"] == second["warnings"] == []
    assert second["workflow"]["prompt"]["CLIPTextEncode"]["inputs"]["text"] == "a blue square"
    assert not same(house.picture(first), house.picture(second))


def test_several_saving_nodes_each_give_their_picture(house: TestHouse, graph: dict[str, Any]) -> None:
    several = add(graph, "invert", "ImageInvert", image=["VAEDecode", 0])
    several = add(several, "also", "SaveImage", images=["invert", 0], filename_prefix="../outside")
    several = add(several, "show", "PreviewImage", images=["invert", 0])
    reply = house.draw(custom_workflow=several)
    one, other = house.pictures(reply)
    # The engine rounds down what it saves.
    assert alike(one, ImageChops.invert(other))
    # A repeated job saves under names of its own.
    retried = requests.post(f"{house.txt2img}/api/jobs/{reply['job_id']}/retry", timeout=TIMEOUT).json()["job_id"]
    assert len(house.wait_for_job(retried)["images"]) == 2
    gone = house.data_dir / "output"
    assert len(list(gone.rglob(f"*{reply['job_id'].replace('-', '')[:12]}*"))) == 2
    requests.delete(f"{house.txt2img}/api/jobs/{reply['job_id']}", timeout=TIMEOUT)
    assert list(gone.rglob(f"*{reply['job_id'].replace('-', '')[:12]}*")) == []


def test_what_kills_an_engine_is_refused_and_the_engine_goes_on(house: TestHouse, graph: dict[str, Any]) -> None:
    before = house.engine_state()
    deadly = [
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
    for each in deadly:
        refused(house, each)
    assert house.draw(**SMALL)["status"] == "success"
    after = house.engine_state()
    assert (after["pid"], after["restarts"]) == (before["pid"], before["restarts"])


def test_a_wrong_value_is_blamed_on_who_sent_it(house: TestHouse, graph: dict[str, Any]) -> None:
    wrong = refused(house, graph, sampler_name="eular")
    assert wrong["field"] == "sampler_name"
    assert "euler" in wrong["nearest"]
    wrong = refused(house, put(graph, "KSampler", sampler_name="eular"), prompt="x")
    assert wrong["field"] == "custom_workflow"
    assert wrong["node"] == "KSampler"
    assert "euler" in wrong["nearest"]


def test_values_that_no_node_reads_are_told(house: TestHouse, graph: dict[str, Any]) -> None:
    reply = house.draw(custom_workflow=put(graph, "KSampler", upload="image"))
    assert reply["warnings"] == ["ignored: KSampler has no input upload (node KSampler)"]


def test_nodes_that_do_harm_stay_out(house: TestHouse, graph: dict[str, Any]) -> None:
    saving = add(graph, "x", "CheckpointSave", model=["CheckpointLoaderSimple", 0], filename_prefix="x")
    wrong = refused(house, saving)
    assert wrong["class_type"] == "CheckpointSave"
    assert wrong["field"] == "custom_workflow"
    assert "DREAM_LAYER_ALLOW_NODES=CheckpointSave" in wrong["hint"]
    pattern = add(graph, "x", "RegexMatch", string="a", regex_pattern="(a+)+$", case_insensitive=True)
    assert "never end" in refused(house, pattern)["message"]


def test_pictures_of_others_are_not_loaded(house: TestHouse, drawn: dict[str, Any], graph: dict[str, Any]) -> None:
    name = drawn["comfy_response"]["generated_images"][0]["filename"]
    for path in (f"{name[:8]}/{name} [output]", "../jobs.sqlite", "/etc/hostname"):
        loading = add(graph, "x", "LoadImage", image=path)
        loading = add(loading, "y", "SaveImage", images=["x", 0], filename_prefix="")
        assert refused(house, loading)["node"] == "x"


def test_what_the_editor_saves_is_answered_with_the_way_out(house: TestHouse) -> None:
    wrong = refused(house, {"nodes": [], "links": [], "version": 0.4})
    assert "Export (API)" in wrong["hint"]


@pytest.fixture(scope="module")
def shelf(house: TestHouse) -> Path:
    folder = house.data_dir / "workflows"
    folder.mkdir(exist_ok=True)
    return folder


def test_a_file_becomes_a_route(house: TestHouse, shelf: Path, graph: dict[str, Any]) -> None:
    header = {
        "title": "A badge",
        "description": "One word in a colour.",
        "parameters": {
            "words": {"type": "string", "required": True, "targets": ["CLIPTextEncode.text"]},
            "steps": {"type": "integer", "minimum": 1, "maximum": 5, "default": 3},
            "seed": {"type": "integer"},
        },
    }
    (shelf / "badge.json").write_text(json.dumps({"dream_layer": header, "prompt": graph}), encoding="utf-8")
    listed = requests.get(f"{house.img2img}/api/workflows", timeout=TIMEOUT).json()["workflows"]
    (badge,) = [each for each in listed if each["name"] == "badge"]
    assert (badge["title"], badge["description"]) == ("A badge", "One word in a colour.")
    assert badge["schema"]["required"] == ["words"]
    assert badge["schema"]["properties"]["steps"] == {"type": "integer", "minimum": 1, "maximum": 5, "default": 3}
    told = requests.get(f"{house.txt2img}/api/workflows/badge", timeout=TIMEOUT).json()
    assert told["schema"] == badge["schema"]

    reply = post(house, "/api/workflows/badge", {"words": "a red circle", "seed": 7, "colour": 1}).json()
    assert reply["status"] == "success", reply
    assert reply["parameters"] == {"workflow": "badge", "words": "a red circle", "steps": 3, "seed": 7}
    assert reply["warnings"] == ["ignored, because not known here: colour"]
    assert same(house.picture(reply), house.picture(house.draw(**{**SMALL, "steps": 3})))
    assert house.job(reply["job_id"])["kind"] == "workflow"

    seeds = {post(house, "/api/workflows/badge", {"words": "x", "seed": -1}).json()["seed"] for _ in range(2)}
    assert len(seeds) == 2


def test_parameters_are_checked(house: TestHouse, shelf: Path, graph: dict[str, Any]) -> None:
    parameters = {
        "words": {"type": "string", "required": True, "targets": ["CLIPTextEncode.text"]},
        "steps": {"type": "integer", "minimum": 1, "maximum": 5},
        "sampler": {"type": "string", "targets": ["KSampler.sampler_name"]},
    }
    content = {"dream_layer": {"parameters": parameters}, "prompt": graph}
    (shelf / "checked.json").write_text(json.dumps(content), encoding="utf-8")
    for body, field, says in (
        ({}, "words", "missing"),
        ({"words": "x", "steps": 6}, "steps", "a whole number from 1 to 5, not 6"),
        # The engine knows its samplers better than any header.
        ({"words": "x", "sampler": "eular"}, "sampler", "eular"),
    ):
        reply = post(house, "/api/workflows/checked", body)
        assert reply.status_code == 422, reply.text
        assert reply.json()["error"]["field"] == field
        assert says in reply.json()["message"]


def test_a_workflow_runs_like_any_job(house: TestHouse, shelf: Path, graph: dict[str, Any]) -> None:
    (shelf / "plain.json").write_text(json.dumps(graph), encoding="utf-8")
    (shelf / "other.json").write_text(json.dumps(graph), encoding="utf-8")
    body = {"prompt": "a red circle", "steps": 1}
    accepted = post(house, "/api/workflows/plain", body, **{"Prefer": "respond-async", "Idempotency-Key": "w1"})
    assert accepted.status_code == 202, accepted.text
    assert (
        post(house, "/api/workflows/plain", body, **{"Idempotency-Key": "w1"}).json()["job_id"]
        == (accepted.json()["job_id"])
    )
    assert post(house, "/api/workflows/other", body, **{"Idempotency-Key": "w1"}).status_code == 422
    streamed = post(house, "/api/workflows/plain", body, Accept="text/event-stream")
    assert "event: completed" in streamed.text
    picture = post(house, "/api/workflows/plain", body, **PNG)
    assert open_rgb(picture.content).size == (64, 64)
    assert picture.headers["X-Seed"].isdecimal()


def test_a_workflow_takes_pictures(house: TestHouse, shelf: Path) -> None:
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
    (shelf / "negative.json").write_text(json.dumps(content), encoding="utf-8")
    photo, where = Image.new("RGB", (50, 40), (200, 10, 0)), Image.new("L", (50, 40))
    ImageDraw.Draw(where).rectangle((25, 0, 49, 39), 255)
    reply = post(house, "/api/workflows/negative", {"photo": data_url(photo), "where": data_url(where)}, **PNG)
    assert reply.status_code == 200, reply.text
    drawn = open_rgb(reply.content)
    assert drawn.size == (50, 40)
    assert drawn.getpixel((0, 0)) == (200, 10, 0)
    assert alike(drawn.crop((26, 0, 50, 40)), Image.new("RGB", (24, 40), (55, 245, 255)))
    assert post(house, "/api/workflows/negative", {"photo": data_url(photo)}).json()["error"]["field"] == "where"


def test_a_broken_file_is_listed_with_what_is_wrong(house: TestHouse, shelf: Path, graph: dict[str, Any]) -> None:
    broken = shelf / "broken.json"
    broken.write_text("{", encoding="utf-8")
    (shelf / "Bad Name.json").write_text("{}", encoding="utf-8")

    def listed(name: str) -> Any:
        reply = requests.get(f"{house.txt2img}/api/workflows", timeout=TIMEOUT).json()
        return next((each for each in reply["workflows"] if each["name"] == name), None)

    assert "not valid JSON" in listed("broken")["error"]["message"]
    assert "small letters" in listed("Bad Name")["error"]["message"]
    assert post(house, "/api/workflows/broken", {"prompt": "x"}).status_code == 422
    # Mended, it is there at once; deleted, it is gone.
    broken.write_text(json.dumps(graph), encoding="utf-8")
    assert "schema" in listed("broken")
    broken.unlink()
    assert listed("broken") is None
    assert post(house, "/api/workflows/broken", {"prompt": "x"}).status_code == 404


@pytest.mark.parametrize("name", ["none", "Bad%20Name", "..%2Fjobs", "%2e%2e", "a.json"])
def test_no_name_leads_out_of_the_folder(house: TestHouse, shelf: Path, name: str) -> None:
    assert requests.get(f"{house.txt2img}/api/workflows/{name}", timeout=TIMEOUT).status_code == 404
