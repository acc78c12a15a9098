"""The prompts in imported graphs, and the warnings about syntax that the engine does not know."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.settings import Settings
from shared.web.app import txt2img_app
from shared.web.backend import Backend
from tests.fake_engine import BLOCKED, CHECKPOINTS, FakeEngine
from tests.imported_graphs import default_graph
from workflows.bindings import prompt_texts

CKPT = ("CheckpointLoaderSimple", {"ckpt_name": CHECKPOINTS[0]})


@pytest.fixture
def client(tmp_path: Path, engine: FakeEngine) -> Iterator[FlaskClient]:
    engine.seconds = 0
    backend = Backend(Settings(engine_url=engine.address, data_dir=tmp_path, allow_nodes=("*",)))
    backend.start()
    yield txt2img_app(backend).test_client()
    backend.stop()


def graph(text: str, **more: Any) -> dict[str, Any]:
    return default_graph(ckpt=CKPT, good=("CLIPTextEncode", {"text": text, "clip": ["ckpt", 1]}), **more)


def test_texts_are_found_in_encoders_and_in_constants() -> None:
    nodes = default_graph(
        held=("PrimitiveString", {"value": "held"}),
        good=("CLIPTextEncode", {"text": ["held", 0], "clip": ["ckpt", 1]}),
        flux=("CLIPTextEncodeFlux", {"clip_l": "one", "t5xxl": "two", "guidance": 3.5, "clip": ["ckpt", 1]}),
        joined=("StringConcatenate", {"string_a": "a", "string_b": "b", "delimiter": ""}),
        other=("CLIPTextEncode", {"text": ["joined", 0], "clip": ["ckpt", 1]}),
    )
    assert dict(prompt_texts(nodes)) == {
        ("held", "value"): "held",
        ("bad", "text"): "old bad",
        ("flux", "clip_l"): "one",
        ("flux", "t5xxl"): "two",
    }


def test_unsupported_prompt_syntax_adds_warnings(client: FlaskClient) -> None:
    reply = client.post("/api/txt2img", json={"custom_workflow": graph("a {red|blue} <lora:ink:1> embedding:none (x")})
    assert reply.status_code == 200, reply.text
    warnings = reply.json["warnings"]
    where = "custom_workflow (good.text)"
    assert f"{where} has {{red|blue}}, which is read as words" in warnings
    assert f"{where} has <lora:ink:1>, which is read as words" in warnings
    assert any(f"{where} names the embedding 'none'" in warning for warning in warnings)
    assert any(f"{where} has a ( that is never closed" in warning for warning in warnings)


def test_a_text_that_would_fail_the_job_is_refused_with_its_node(client: FlaskClient) -> None:
    reply = client.post("/api/txt2img", json={"custom_workflow": graph("an embedding: ")})
    assert reply.status_code == 422
    assert (reply.json["error"]["field"], reply.json["error"]["node"]) == ("custom_workflow", "good")


def test_a_prompt_field_adds_its_warning_once(client: FlaskClient) -> None:
    fields = {"prompt": "a {red|blue} circle", "custom_workflow": graph("old {x|y}")}
    reply = client.post("/api/txt2img", json=fields)
    assert reply.json["workflow"]["prompt"]["good"]["inputs"]["text"] == "a {red|blue} circle"
    assert reply.json["warnings"] == ["prompt has {red|blue}, which is read as words"]


def test_prompts_of_named_workflows_are_checked(client: FlaskClient, tmp_path: Path) -> None:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "mine.json").write_text(json.dumps(graph("old")), encoding="utf-8")
    reply = client.post("/api/workflows/mine", json={"prompt": "a [red|blue] circle"})
    assert reply.status_code == 200, reply.text
    assert reply.json["warnings"] == ["prompt has [red|blue], which is read as words"]
    reply = client.post("/api/workflows/mine", json={"prompt": "(year: inf)"})
    assert (reply.status_code, reply.json["error"]["field"]) == (422, "prompt")


def test_a_parameter_for_a_filename_prefix_adds_a_warning(client: FlaskClient, tmp_path: Path) -> None:
    header = {
        "parameters": {
            "words": {"type": "string", "targets": ["good.text"]},
            "name": {"type": "string", "default": "mine", "targets": ["save.filename_prefix", "bad.text"]},
        }
    }
    (tmp_path / "workflows").mkdir()
    named = {"dream_layer": header, "prompt": graph("old")}
    (tmp_path / "workflows" / "mine.json").write_text(json.dumps(named), encoding="utf-8")
    reply = client.post("/api/workflows/mine", json={"words": "a circle", "name": "holiday"})
    assert reply.status_code == 200, reply.text
    [warning] = reply.json["warnings"]
    assert warning.startswith("name: not used as save.filename_prefix, because file names identify their job")
    nodes = reply.json["workflow"]["prompt"]
    assert "holiday" not in nodes["save"]["inputs"]["filename_prefix"]
    assert nodes["bad"]["inputs"]["text"] == "holiday"
    assert client.post("/api/workflows/mine", json={"words": "a circle"}).json["warnings"] == []


def test_an_unfinished_job_reports_its_warnings(client: FlaskClient, engine: FakeEngine) -> None:
    engine.seconds = BLOCKED
    fields = {"prompt": "a {red|blue} circle", "custom_workflow": graph("old")}
    job = client.post("/api/txt2img", json=fields, headers={"Prefer": "respond-async"}).json["job_id"]
    reply = client.get(f"/api/jobs/{job}").json
    assert (reply["state"] in ("queued", "running"), reply["warnings"]) == (
        True,
        ["prompt has {red|blue}, which is read as words"],
    )
    client.delete(f"/api/jobs/{job}")
    assert client.get(f"/api/jobs/{job}").json["warnings"] == reply["warnings"]
    engine.seconds = 0


def test_a_retried_graph_is_checked_again(client: FlaskClient, engine: FakeEngine, tmp_path: Path) -> None:
    """Earlier settings or an earlier version may have allowed the graph."""
    job = client.post("/api/txt2img", json={"custom_workflow": graph("old")}).json["job_id"]
    assert client.post(f"/api/jobs/{job}/retry").status_code == 202
    strict = Backend(Settings(engine_url=engine.address, data_dir=tmp_path))
    try:
        retried = txt2img_app(strict).test_client().post(f"/api/jobs/{job}/retry")
        assert retried.status_code == 422
        assert retried.json["error"]["field"] == "custom_workflow"
        assert "is not allowed" in retried.json["message"]
    finally:
        strict.stop()
