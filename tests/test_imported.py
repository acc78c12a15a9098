"""Imported graphs: their shape, and the nodes and files that they may use."""

import json
from typing import Any

import pytest

from shared.engine.node_policy import check_files, why_refused
from shared.engine.validate import check_graph
from shared.errors import InvalidValue
from tests.imported_graphs import api, plain
from workflows.bindings import bind
from workflows.imported import MAX_DEPTH, MAX_NODES, read_graph


def test_the_graph_may_be_wrapped_in_prompt_and_is_not_changed() -> None:
    graph = plain()
    before = json.dumps(graph)
    assert read_graph({"prompt": graph}) == read_graph(graph) == graph
    bind(read_graph(graph), {"prompt": "new", "seed": 5})
    assert json.dumps(graph) == before


def test_texts_of_the_longest_prompt_are_allowed() -> None:
    graph = plain(**{f"n{i}": ("CLIPTextEncode", {"text": "a" * 20_000}) for i in range(40)})
    assert read_graph(graph) == graph


def test_only_class_inputs_and_title_are_copied() -> None:
    graph = plain()
    graph["good"] |= {"_meta": {"title": "Prompt", "more": {}}, "is_changed": {"a": 1}}
    graph["bad"] |= {"_meta": 5}
    read = read_graph(graph)
    assert read["good"] == {**plain()["good"], "_meta": {"title": "Prompt"}}
    assert read["bad"] == plain()["bad"]


CHAIN = {f"n{i}": ("ImageInvert", {"image": [f"n{i - 1}", 0]} if i else {}) for i in range(MAX_DEPTH + 1)}


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        ("{", "must be a graph"),
        ([], "must be a graph"),
        ({}, "1 to 1000 nodes"),
        ({"nodes": [], "links": []}, "editor"),
        (plain(x=("PreviewImage", {})) | {"y": "text"}, "no class_type"),
        (plain() | {"y": {"inputs": {}}}, "no class_type"),
        (plain() | {"y": {"class_type": "PreviewImage"}}, "no inputs"),
        (plain() | {"y": {"class_type": "PreviewImage", "inputs": []}}, "no inputs"),
        (plain() | {"y": {"class_type": ["PreviewImage"], "inputs": {}}}, "no class_type"),
        *((plain(y=(name, {})), "no class_type") for name in ("", "..", "a\ud800", "a\n", "a" * 201)),
        (plain(y=("A", {"x": ["nowhere", 0]})), "'nowhere', which does not exist"),
        (plain(y=("A", {"x": ["save", "0"]})), "not a link"),
        (plain(y=("A", {"x": ["save", True]})), "not a link"),
        (plain(y=("A", {"x": ["save", -1]})), "not a link"),
        (plain(y=("A", {"x": [["save"], 0]})), "not a link"),
        (plain(y=("A", {"x": [1, 2, 3]})), "not a link"),
        (plain(y=("A", {"x": float("nan")})), "not a finite number"),
        (plain(y=("A", {"x": {"a": 1}})), "not an object"),
        (plain(y=("A", {"x\ud800": 1})), "is not valid text"),
        (plain(**{"y\ud800": ("A", {})}), "is not valid text"),
        (plain(y=("A", {"x": ["z", 0]}), z=("A", {"x": ["y", 0]})), "cycle: y <- z <- y"),
        (plain(y=("A", {"x": ["y", 0]})), "cycle: y <- y"),
        (plain(save=("PreviewImage", {"images": ["decode", 0]})), "saves no picture"),
        (plain(**{f"n{i}": ("A", {}) for i in range(MAX_NODES)}), "1 to 1000 nodes"),
        (plain(y=("A", {"x": "a" * 20_001})), r"x of node y \(A\) of custom_workflow has 20001 characters; 20000 are"),
        (plain() | {"y": {"class_type": "A", "inputs": {}, "_meta": {"title": "a" * 20_001}}}, "title of node y"),
        (plain(**{f"n{i}": ("A", {"x": "a" * 20_000}) for i in range(50)}), "the texts of custom_workflow have 1000"),
        (plain(y=("A", {"a" * 1_000_000: 1})), "the texts of custom_workflow have 1000"),
        (plain(**CHAIN), "chain of more than"),
        (plain(**dict(reversed(CHAIN.items()))), "chain of more than"),
    ],
)
def test_a_malformed_graph_is_refused(graph: Any, says: str) -> None:
    with pytest.raises(InvalidValue, match=says) as refused:
        read_graph(graph)
    assert refused.value.field == "custom_workflow"


DEFINITION = {"python_module": "nodes", "output_node": False}


@pytest.mark.parametrize(
    ("name", "definition", "says"),
    [
        ("KSampler", DEFINITION, None),
        ("SaveImage", {"python_module": "nodes", "output_node": True}, None),
        ("FluxGuidance", {"python_module": "comfy_extras.nodes_flux"}, None),
        ("CheckpointSave", {"python_module": "comfy_extras.nodes_model_merging", "output_node": True}, "writes"),
        ("RegexMatch", {"python_module": "comfy_extras.nodes_string"}, "never end"),
        ("LoadImageOutput", DEFINITION, "of other clients"),
        ("Shell", {"python_module": "custom_nodes.shell"}, "custom node"),
        ("Shell", {"python_module": "nodes_evil"}, "custom node"),
        ("OpenAIDalle3", {"python_module": "comfy_api_nodes.nodes_openai"}, "custom node"),
        ("Shell", {}, "custom node"),
    ],
)
def test_only_harmless_nodes_are_allowed(name: str, definition: dict[str, Any], says: str | None) -> None:
    reason = why_refused(name, definition, ())
    assert (reason is None) == (says is None)
    assert says is None or says in str(reason)
    assert why_refused(name, definition, ("*",)) is None
    assert why_refused(name, definition, (name,)) is None


@pytest.mark.parametrize("value", ["x.png [output]", "dream_layer/../x.png", "../x.png", "/etc/passwd", "b.png", 5])
def test_pictures_are_loaded_from_the_input_folder_only(value: Any) -> None:
    definitions = {"LoadImage": {"input": {"required": {"image": [["a.png"], {"image_upload": True}]}}}}
    assert [each.kind for each in check_files(api({"a": ("LoadImage", {"image": value})}), definitions)] == [
        "not_in_list"
    ]
    for known in ("a.png", f"dream_layer/{'0' * 64}.png"):
        assert check_files(api({"a": ("LoadImage", {"image": known})}), definitions) == []


@pytest.mark.parametrize(
    ("node", "kind"),
    [
        ({"class_type": "A"}, "bad_node"),
        ({"class_type": "A", "inputs": None}, "bad_node"),
        ({"class_type": {}, "inputs": {}}, "bad_node"),
        ("text", "bad_node"),
        ({"class_type": "A", "inputs": {"n": 10**400}}, "out_of_range"),
        ({"class_type": "A", "inputs": {"n": {"a": 1}}}, "wrong_type"),
        ({"class_type": "A", "inputs": {"n": None}}, "wrong_type"),
        ({"class_type": "A", "inputs": {"n": [{}, 0]}}, "bad_link"),
        ({"class_type": "A", "inputs": {"n": ["A", "0"]}}, "bad_link"),
        ({"class_type": "A", "inputs": {"n": ["A", 7]}}, "bad_link"),
        ({"class_type": "A", "inputs": {"n": []}}, "bad_link"),
    ],
)
def test_the_check_survives_any_graph(node: Any, kind: str) -> None:
    schemas = {"A": {"input": {"required": {"n": ["INT", {"min": 0, "max": 9}]}}, "output": ["INT"]}}
    assert [problem.kind for problem in check_graph({"A": node}, schemas)] == [kind]


def test_inputs_of_dynamic_types_pass_the_check() -> None:
    schemas = {
        "A": {"input": {"required": {"images": ["COMFY_AUTOGROW_V3", {}], "x": ["FLOAT,INT"]}}, "output": ["IMAGE"]},
        "B": {"input": {}, "output": ["INT"]},
    }
    inputs = {"images.image0": ["A2", 0], "images.image1": ["A2", 0], "x": ["B", 0]}
    graph = api({"A": ("A", inputs), "A2": ("A", {"x": ["B", 0]}), "B": ("B", {})})
    assert check_graph(graph, schemas) == []
