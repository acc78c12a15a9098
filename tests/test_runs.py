"""Runs as the web page reads them: every run has all keys, and deletion removes a run with its pictures."""

from typing import Any

import pytest
import requests
from flask.testing import FlaskClient

from shared.jobs.job import State
from shared.web.app import create_app
from shared.web.backend import Backend
from shared.web.routes.pictures import picture_routes
from shared.web.routes.runs import measure, run_body, run_routes
from shared.web.urls import ReplyUrls
from tests.golden_graphs import LORAS, UNIT, draw
from tests.job_factory import REQUEST, finish
from tests.stack import TIMEOUT, TestStack

BASE = "http://localhost:5005"
# The keys that the page reads, with their types.
KEYS: dict[str, type | tuple[type, ...]] = {
    "run_id": str, "timestamp": str, "model": str, "vae": str, "loras": list, "controlnets": list, "prompt": str,
    "negative_prompt": str, "seed": int, "sampler": str, "steps": int, "cfg_scale": (int, float), "width": int,
    "height": int, "batch_size": int, "batch_count": int, "workflow": dict, "version": str, "generated_images": list,
    "generation_type": str,
}  # fmt: skip
UNKNOWN_GRAPH: dict[str, Any] = {
    "1": {"class_type": "SomeLoader", "inputs": {}},
    "2": {"class_type": "ControlNetApply", "inputs": {"control_net": ["1", 0], "strength": ["1", 1]}},
    "3": {"class_type": "LoraLoader", "inputs": {"lora_name": ["1", 2]}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["1", 3], "filename_prefix": "x"}},
}


@pytest.fixture
def client(backend: Backend) -> FlaskClient:
    return create_app("control", backend.settings, [run_routes, picture_routes], backend).test_client()


def assert_all_keys(run: dict[str, Any]) -> None:
    for key, kind in KEYS.items():
        assert isinstance(run[key], kind), key
    assert run["generation_type"] in ("txt2img", "img2img")


def test_a_run_has_the_parameters_of_its_request(backend: Backend) -> None:
    graph = draw(loras=LORAS, controls=(UNIT,))
    units = [{"model": "canny", "weight": 0.9}, {"model": "depth", "enabled": False}]
    row = finish(backend, {**REQUEST, "vae_name": "v", "controlnet": {"units": units}}, graph, pictures=2)
    run = run_body(row, ReplyUrls(BASE))
    assert_all_keys(run)
    assert (run["run_id"], run["generation_type"], run["model"], run["vae"]) == (
        row.id,
        "txt2img",
        "model.safetensors",
        "v",
    )
    assert (run["prompt"], run["seed"], run["sampler"], run["batch_count"]) == ("a red circle", 42, "dpmpp_2m", 2)
    assert run["loras"] == [{"name": "one.safetensors", "strength": 0.8}, {"name": "two.safetensors", "strength": -0.5}]
    assert run["controlnets"] == [
        {"model": "canny", "strength": 0.9, "enabled": True},
        {"model": "depth", "strength": 1.0, "enabled": False},
    ]
    assert run["generated_images"] == [image["filename"] for image in row.images]
    assert run["image_urls"][1] == f"{BASE}/api/images/{row.images[1]['filename']}"
    assert run["workflow"] == {"prompt": graph}
    assert run["timestamp"].endswith("+00:00")


def test_parameters_that_the_request_lacks_come_from_the_graph(backend: Backend) -> None:
    row = finish(backend, {"steps": 3}, draw(controls=(UNIT,)), kind="workflow")
    # The size is that of the file.
    run = run_body(row, ReplyUrls(BASE), measure(row, backend.jobs))
    assert_all_keys(run)
    assert (run["prompt"], run["negative_prompt"], run["seed"], run["steps"]) == ("a red circle", "blue", 42, 3)
    assert (run["width"], run["cfg_scale"], run["model"]) == (8, 6.5, "model.safetensors")
    assert run["controlnets"][0] == {"model": "canny.safetensors", "strength": 0.9, "enabled": True}


def test_values_of_an_unexpected_type_in_a_graph_are_not_returned(backend: Backend) -> None:
    graph = draw()
    graph["KSampler"]["inputs"] |= {"steps": 12.0, "seed": True, "sampler_name": 5}
    graph["EmptyLatentImage"]["inputs"]["width"] = "512"
    run = run_body(finish(backend, {}, graph, kind="workflow"), ReplyUrls(BASE))
    assert_all_keys(run)
    assert (run["steps"], run["seed"], run["sampler"], run["width"]) == (12, 0, "", 0)


@pytest.mark.parametrize("kind", ["txt2img", "img2img", "workflow", "upscale", "extras"])
@pytest.mark.parametrize("uploads", [{}, {"a.png": "dream_layer"}])
def test_runs_of_all_kinds_of_jobs_have_all_keys(backend: Backend, kind: str, uploads: dict[str, str]) -> None:
    row = finish(backend, {}, UNKNOWN_GRAPH, kind=kind, uploads=uploads, size=(64, 32), pictures=0)
    run = run_body(row, ReplyUrls(BASE))
    assert_all_keys(run)
    assert (run["kind"], run["width"], run["height"], run["generated_images"]) == (kind, 64, 32, [])
    assert run["controlnets"] == [{"model": "", "strength": 1.0, "enabled": True}]
    assert run["loras"] == [{"name": "", "strength": 1.0}]
    if kind not in ("txt2img", "img2img"):
        assert run["generation_type"] == ("img2img" if uploads else "txt2img")


def test_completed_jobs_are_listed_newest_first(backend: Backend, client: FlaskClient) -> None:
    rows = [finish(backend) for _ in range(3)]
    finish(backend, state=State.FAILED, pictures=0)
    finish(backend, state=State.CANCELLED)
    listed = client.get("/api/runs").get_json()
    assert listed["status"] == "success"
    assert [run["run_id"] for run in listed["runs"]] == [row.id for row in reversed(rows)]
    first = client.get("/api/runs?limit=2").get_json()
    rest = client.get(f"/api/runs?limit=2&before={first['before']}").get_json()
    assert [run["run_id"] for run in rest["runs"]] == [rows[0].id]
    assert rest["before"] is None
    assert client.get("/api/runs?limit=0").status_code == 422
    assert client.get(f"/api/runs?limit={'9' * 5000}").status_code == 422


def test_deleting_a_run_deletes_its_pictures(backend: Backend, client: FlaskClient) -> None:
    graph = draw()
    row, other = finish(backend, graph=graph), finish(backend)
    # The files are found by the filename prefix in the graph.
    prefix = f"{row.images[0]['subfolder']}/{row.images[0]['filename'].removesuffix('_00001_.png')}"
    graph["SaveImage"]["inputs"]["filename_prefix"] = prefix
    row = finish(backend, graph=graph)
    picture = backend.settings.output_dir / f"{prefix}_00001_.png"
    assert picture.is_file()
    removed = client.delete(f"/api/runs/{row.id}")
    assert removed.get_json()["status"] == "success"
    assert not picture.exists()
    assert client.get(f"/api/runs/{row.id}").status_code == 404
    assert client.delete(f"/api/runs/{row.id}").status_code == 404
    assert client.get(f"/api/runs/{other.id}").get_json()["run"]["run_id"] == other.id


def test_a_picture_is_converted_to_the_format_of_its_suffix(backend: Backend, client: FlaskClient) -> None:
    name = finish(backend).images[0]["filename"].removesuffix(".png")
    starts = {"png": b"\x89PNG", "jpg": b"\xff\xd8", "jpeg": b"\xff\xd8", "webp": b"RIFF"}
    for suffix, start in starts.items():
        reply = client.get(f"/api/images/{name}.{suffix}", buffered=True)
        assert (reply.status_code, reply.data[: len(start)]) == (200, start)
        assert reply.mimetype == f"image/{'jpeg' if suffix == 'jpg' else suffix}"
    assert client.get(f"/api/images/{name}.gif").status_code == 404


def test_a_generated_picture_is_a_run_until_it_is_deleted(stack: TestStack) -> None:
    reply = stack.draw(prompt="a red circle", width=64, height=64, steps=1, seed=5)
    runs = requests.get(f"{stack.runs}/api/runs", headers={"Origin": "http://localhost:8080"}, timeout=TIMEOUT)
    assert runs.headers["Access-Control-Allow-Origin"] == "http://localhost:8080"
    for run in runs.json()["runs"]:
        assert_all_keys(run)
    (run,) = [run for run in runs.json()["runs"] if run["run_id"] == reply["run_id"]]
    assert (run["prompt"], run["seed"], run["width"]) == ("a red circle", 5, 64)
    url = f"{stack.txt2img}/api/images/{run['generated_images'][0]}"
    assert requests.get(url, timeout=TIMEOUT).status_code == 200
    assert requests.delete(f"{stack.runs}/api/runs/{run['run_id']}", timeout=TIMEOUT).json()["status"] == "success"
    assert requests.get(url, timeout=TIMEOUT).status_code == 404
    listed = requests.get(f"{stack.runs}/api/runs", timeout=TIMEOUT).json()["runs"]
    assert reply["run_id"] not in [run["run_id"] for run in listed]


def test_an_unfinished_run_cannot_be_deleted(stack: TestStack) -> None:
    job_id = stack.submit(prompt="a red circle", width=64, height=64, steps=400)
    refused = requests.delete(f"{stack.runs}/api/runs/{job_id}", timeout=TIMEOUT)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "not_finished")
    requests.delete(f"{stack.txt2img}/api/jobs/{job_id}", timeout=TIMEOUT)
