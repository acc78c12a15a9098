"""Imported graphs that save several pictures: the facts about each picture, and which one is the response."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image

from shared.errors import InvalidValue
from shared.images.embedded_text import read_size, read_texts
from shared.jobs.job import JobRow
from shared.jobs.picture_metadata import with_parameters
from shared.metadata.graph_reader import read_parameters
from shared.settings import Settings
from shared.web.app import txt2img_app
from shared.web.backend import Backend
from shared.web.reply import job_body, main_picture, picture_facts, result_body
from shared.web.routes.runs import measure, run_body
from shared.web.urls import ReplyUrls
from tests.fake_engine import CHECKPOINTS, FakeEngine, tiny_png
from tests.imported_graphs import ShortGraph, default_graph, sampling, to_api
from tests.job_factory import finish
from workflows.outputs import find_output, last_output, seed_of

CKPT = ("CheckpointLoaderSimple", {"ckpt_name": CHECKPOINTS[0]})
BATCH = ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 2})
# The later stage comes first, so that the order of the nodes does not decide.
STAGES: ShortGraph = {
    "late": ("SaveImage", {"images": ["larger", 0], "filename_prefix": "late"}),
    "larger": (
        "ImageScale",
        {"image": ["decode", 0], "upscale_method": "lanczos", "width": 32, "height": 32, "crop": "disabled"},
    ),
    "ckpt": CKPT,
}  # fmt: skip


def stages() -> dict[str, Any]:
    graph = {**to_api(STAGES), **default_graph(ckpt=CKPT)}
    graph["late"]["_meta"] = {"title": "The large one"}
    return graph


@pytest.fixture
def backend(tmp_path: Path, engine: FakeEngine) -> Iterator[Backend]:
    engine.seconds = 0
    backend = Backend(
        Settings(engine_url=engine.address, data_dir=tmp_path, output_dir=engine.output_dir, allow_nodes=("*",))
    )
    backend.start()
    yield backend
    backend.stop()


@pytest.fixture
def client(backend: Backend) -> FlaskClient:
    return txt2img_app(backend).test_client()


def finish_custom_job(backend: Backend, graph: dict[str, Any], names: list[str], **spec: Any) -> JobRow:
    """Finish a job of a custom graph; `names` are the endings of its pictures' file names."""
    row = finish(backend, spec.pop("request", {}), graph, repeatable=False, pictures=0, **spec)
    prefix = f"20261122-143210-{row.id.replace('-', '')[:12]}"
    for index, name in enumerate(names):
        path = backend.settings.output_dir / "20261122" / f"{prefix}{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.new("RGB", (40 + index, 24)).save(buffer, "PNG")
        path.write_bytes(buffer.getvalue())
        row.images.append({"filename": path.name, "subfolder": "20261122", "type": "output"})
    return row


def test_each_picture_names_its_node_title_index_and_measured_size(client: FlaskClient, backend: Backend) -> None:
    reply = client.post("/api/txt2img", json={"custom_workflow": stages()}).json
    entries = {entry["node"]: entry for entry in reply["comfy_response"]["generated_images"]}
    assert set(entries) == {"late", "save"}
    assert (entries["late"]["title"], entries["late"]["index"]) == ("The large one", 0)
    assert "title" not in entries["save"]
    # The graph says 32 and 64 pixels; the files of the fake engine have 8.
    assert {(entry["width"], entry["height"], entry["seed"]) for entry in entries.values()} == {(8, 8, 1)}
    events = client.get(f"/api/jobs/{reply['job_id']}/events").text
    result = [json.loads(block.split("data: ", 1)[1]) for block in events.split("\n\n") if "event: image" in block]
    facts = ("node", "title", "index", "batch_index", "seed", "width", "height")
    assert len(result) == 2
    for event in result:
        entry = entries[event["node"]]
        assert {name: event.get(name) for name in facts} == {name: entry.get(name) for name in facts}


def test_the_response_is_the_picture_of_the_last_stage_or_of_output_node(client: FlaskClient) -> None:
    def answer(**more: Any) -> Any:
        fields = {"custom_workflow": stages(), **more}
        return client.post("/api/txt2img", json=fields, headers={"Accept": "image/png"}, buffered=True)

    last, by_id, by_title = answer(), answer(output_node="save"), answer(output_node="The large one")
    assert [response.status_code for response in (last, by_id, by_title)] == [200] * 3
    # Nodes that save are numbered in the graph's order: late is the first, save the second.
    assert ["-001_" in response.headers["Content-Location"] for response in (last, by_id, by_title)] == [
        True,
        False,
        True,
    ]
    assert "-002_" in last.headers["Link"]
    assert "-001_" in by_id.headers["Link"]
    assert last.headers["X-Seed"] == "1"
    unknown = answer(output_node="none")
    assert (unknown.status_code, unknown.json["error"]["field"]) == (422, "output_node")
    assert unknown.json["error"]["candidates"] == ["late", "save"]
    assert "late (The large one)" in unknown.json["error"]["hint"]


def test_named_workflows_accept_output_node(client: FlaskClient, tmp_path: Path) -> None:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "mine.json").write_text(json.dumps(stages()), encoding="utf-8")
    png = {"Accept": "image/png"}
    reply = client.post("/api/workflows/mine", json={"output_node": "save", "seed": 5}, headers=png, buffered=True)
    assert "-002_" in reply.headers["Content-Location"]
    assert "X-Warnings" not in reply.headers
    assert reply.headers["X-Seed"] == "5"
    reply = client.post("/api/workflows/mine", data={"seed": "5"}, headers=png, buffered=True)
    assert "-001_" in reply.headers["Content-Location"]
    for value in ("sampler", True, ["save"]):
        reply = client.post("/api/workflows/mine", json={"output_node": value})
        assert (reply.status_code, reply.json["error"]["field"]) == (422, "output_node")


def test_without_a_custom_graph_output_node_is_unused(client: FlaskClient) -> None:
    reply = client.post("/api/txt2img", json={"prompt": "a", "width": 64, "height": 64, "output_node": "9"})
    assert any("output_node has no effect" in warning for warning in reply.json["warnings"])
    assert "output_node" not in reply.json["parameters"]


def test_the_seed_of_a_batch_belongs_to_its_first_picture(backend: Backend) -> None:
    row = finish_custom_job(backend, default_graph(empty=BATCH), ["_00001_.png", "_00002_.png"], request={"seed": 1})
    first, second = result_body(row, ReplyUrls(""), backend.jobs)["comfy_response"]["generated_images"]
    assert (first["seed"], first["index"], first["width"]) == (1, 0, 40)
    assert ("seed" not in second, second["index"], second["width"]) == (True, 1, 41)


def test_a_seed_that_could_not_be_set_is_not_reported(backend: Backend) -> None:
    row = finish_custom_job(backend, default_graph(), ["_00001_.png"], request={"seed": 77})
    body = result_body(row, ReplyUrls(""), backend.jobs)
    assert "seed" not in body
    assert "seed" not in job_body(row, ReplyUrls(""))
    assert body["comfy_response"]["generated_images"][0]["seed"] == 1


def test_missing_files_have_no_size(backend: Backend) -> None:
    row = finish_custom_job(backend, default_graph(), ["_00001_.png"], request={"width": 512, "height": 512})
    name = row.images[0]["filename"]
    assert run_body(row, ReplyUrls(""), measure(row, backend.jobs))["width"] == 40
    (backend.settings.output_dir / "20261122" / name).unlink()
    assert "width" not in picture_facts(row, name, backend.jobs)
    assert run_body(row, ReplyUrls(""), measure(row, backend.jobs))["width"] == 0


def test_a_run_has_the_seed_that_its_pictures_share(backend: Backend) -> None:
    second = {
        "other": ("KSampler", sampling("empty", seed=2)),
        "decode2": ("VAEDecode", {"samples": ["other", 0], "vae": ["ckpt", 2]}),
        "save2": ("SaveImage", {"images": ["decode2", 0], "filename_prefix": "b"}),
    }
    row = finish_custom_job(backend, default_graph(**second), ["-001_00001_.png", "-002_00001_.png"])
    assert run_body(row, ReplyUrls(""))["seed"] == 0
    facts = [picture_facts(row, image["filename"], backend.jobs) for image in row.images]
    assert [(picture["node"], picture["seed"]) for picture in facts] == [("save", 1), ("save2", 2)]
    assert run_body(finish_custom_job(backend, default_graph(), ["_00001_.png"]), ReplyUrls(""))["seed"] == 1


def test_later_pictures_of_a_workflow_do_not_get_the_parameters_of_the_first(backend: Backend) -> None:
    row = finish(backend, {"workflow": "mine", "seed": 1}, default_graph(empty=BATCH), kind="workflow", pictures=2)
    first, second = (read_texts(with_parameters(tiny_png(), row, image["filename"])) for image in row.images)
    assert "dream_layer" in first
    assert not {"dream_layer", "parameters"} & set(second)


@pytest.mark.parametrize(
    ("nodes", "seed"),
    [
        ({}, 1),
        (
            {
                "sampler": ("KSampler", sampling("empty", seed=["held", 0])),
                "held": ("PrimitiveInt", {"value": 9}),
            },
            9,
        ),
        ({"sampler": ("KSampler", sampling("empty", seed=["sum", 0])), "sum": ("Add", {"a": 1, "b": 2})}, None),
        (
            {
                "sampler": ("KSampler", sampling("one", seed=2)),
                "one": ("KSampler", sampling("empty", seed=1)),
            },
            None,
        ),
        (
            {
                "sampler": ("KSampler", sampling("one", seed=1)),
                "one": ("KSampler", sampling("empty", seed=1)),
            },
            1,
        ),
        (
            {
                "sampler": ("KSamplerAdvanced", sampling("one", noise_seed=0, seed=0, add_noise="disable")),
                "one": ("KSampler", sampling("empty", seed=1)),
            },
            1,
        ),
        # The second picture of a batch, saved as the first of its node.
        ({"save": ("SaveImage", {"images": ["pick", 0]}), "pick": ("ImageFromBatch", {"image": ["decode", 0]})}, None),
        ({"save": ("SaveImage", {"images": ["two", 0]}), "two": ("RepeatImageBatch", {"image": ["decode", 0]})}, 1),
        ({"save": ("SaveImage", {"images": ["load", 0]}), "load": ("LoadImage", {"image": "a.png"})}, None),
    ],
)
def test_the_seed_is_known_if_all_noise_uses_the_same_seed(nodes: ShortGraph, seed: int | None) -> None:
    assert seed_of(default_graph(**nodes), "save") == seed


def test_the_last_stage_depends_on_the_most_nodes_and_is_the_later_of_equals() -> None:
    graph = stages()
    assert last_output(graph, ["late", "save"]) == "late"
    twins = default_graph(again=("SaveImage", {"images": ["decode", 0], "filename_prefix": "b"}))
    assert last_output(twins, ["save", "again"]) == "again"
    assert last_output(twins, ["save"]) == "save"
    assert last_output(twins, []) is None


def test_an_id_comes_before_a_title_and_an_ambiguous_title_is_refused() -> None:
    graph = stages()
    graph["save"]["_meta"] = {"title": "late"}
    assert find_output(graph, "late") == "late"
    graph["save"]["_meta"] = {"title": "The large one"}
    with pytest.raises(InvalidValue, match="several nodes"):
        find_output(graph, "The large one")
    numbered = {("9" if name == "save" else name): node for name, node in default_graph().items()}
    assert find_output(numbered, 9) == "9"


def test_an_output_node_without_pictures_has_no_main_picture(backend: Backend) -> None:
    row = finish_custom_job(backend, stages(), ["-001_00001_.png"], output_node="save")
    assert main_picture(row) is None


@pytest.mark.parametrize(
    "nodes",
    [
        {"empty": BATCH},
        {
            "empty": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": ["sum", 0]}),
            "sum": ("Add", {"a": 1}),
        },
        {
            "sampler": ("KSampler", sampling("two")),
            "two": ("RepeatLatentBatch", {"samples": ["empty", 0], "amount": 2}),
        },
        {"other": ("KSampler", sampling("empty", seed=2))},
    ],
)
def test_the_seed_of_a_graph_with_several_pictures_is_left_out_with_a_warning(nodes: ShortGraph) -> None:
    result = read_parameters(default_graph(**nodes))
    assert result is not None
    assert "seed" not in result.parameters
    assert any(warning.startswith("seed is left out") for warning in result.warnings)


def test_a_second_pass_does_not_hide_the_seed_of_a_single_picture() -> None:
    second = {
        "sampler": ("KSampler", sampling("one", seed=2)),
        "one": ("KSampler", sampling("empty", seed=1)),
    }
    once = {
        "two": ("RepeatLatentBatch", {"samples": ["empty", 0], "amount": 1}),
        "sampler": ("KSampler", sampling("two")),
    }
    for nodes in ({}, second, once):
        result = read_parameters(default_graph(**nodes))
        assert result is not None
        assert result.parameters["seed"] == 1
        assert not any("seed" in warning for warning in result.warnings)


def test_a_size_is_read_from_the_first_bytes() -> None:
    assert read_size(tiny_png()[:24]) == (8, 8)
    assert read_size(tiny_png()[:23]) is None
    assert read_size(b"GIF89a" + bytes(30)) is None
