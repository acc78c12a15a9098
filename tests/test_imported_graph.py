"""Imported graphs: which are accepted and which are refused."""

import json
from typing import Any

import pytest

from shared.errors import InvalidValue
from tests.imported_graphs import default_graph
from workflows.bindings import bind
from workflows.imported_graph import MAX_DEPTH, MAX_NODES, read_graph


def test_the_graph_may_be_wrapped_in_prompt_and_is_not_changed() -> None:
    graph = default_graph()
    before = json.dumps(graph)
    assert read_graph({"prompt": graph}) == read_graph(graph) == graph
    bind(read_graph(graph), {"prompt": "new", "seed": 5})
    assert json.dumps(graph) == before


def test_texts_of_the_longest_prompt_are_allowed() -> None:
    graph = default_graph(**{f"n{i}": ("CLIPTextEncode", {"text": "a" * 20_000}) for i in range(40)})
    assert read_graph(graph) == graph


def test_only_class_inputs_and_title_are_copied() -> None:
    graph = default_graph()
    graph["good"] |= {"_meta": {"title": "Prompt", "more": {}}, "is_changed": {"a": 1}}
    graph["bad"] |= {"_meta": 5}
    read = read_graph(graph)
    assert read["good"] == {**default_graph()["good"], "_meta": {"title": "Prompt"}}
    assert read["bad"] == default_graph()["bad"]


CHAIN = {f"n{i}": ("ImageInvert", {"image": [f"n{i - 1}", 0]} if i else {}) for i in range(MAX_DEPTH + 1)}


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("{", "must be a graph"),
        ([], "must be a graph"),
        ({}, "1 to 1000 nodes"),
        ({"nodes": [], "links": []}, "editor"),
        (default_graph(x=("PreviewImage", {})) | {"y": "text"}, "no class_type"),
        (default_graph() | {"y": {"inputs": {}}}, "no class_type"),
        (default_graph() | {"y": {"class_type": "PreviewImage"}}, "no inputs"),
        (default_graph() | {"y": {"class_type": "PreviewImage", "inputs": []}}, "no inputs"),
        (default_graph() | {"y": {"class_type": ["PreviewImage"], "inputs": {}}}, "no class_type"),
        *((default_graph(y=(name, {})), "no class_type") for name in ("", "..", "a\ud800", "a\n", "a" * 201)),
        (default_graph(y=("A", {"x": ["nowhere", 0]})), "'nowhere', which does not exist"),
        (default_graph(y=("A", {"x": ["save", "0"]})), "not a link"),
        (default_graph(y=("A", {"x": ["save", True]})), "not a link"),
        (default_graph(y=("A", {"x": ["save", -1]})), "not a link"),
        (default_graph(y=("A", {"x": [["save"], 0]})), "not a link"),
        (default_graph(y=("A", {"x": [1, 2, 3]})), "not a link"),
        (default_graph(y=("A", {"x": float("nan")})), "not a finite number"),
        (default_graph(y=("A", {"x": {"a": 1}})), "not an object"),
        (default_graph(y=("A", {"x\ud800": 1})), "is not valid text"),
        (default_graph(**{"y\ud800": ("A", {})}), "is not valid text"),
        (default_graph(y=("A", {"x": ["z", 0]}), z=("A", {"x": ["y", 0]})), "cycle: y <- z <- y"),
        (default_graph(y=("A", {"x": ["y", 0]})), "cycle: y <- y"),
        (default_graph(save=("PreviewImage", {"images": ["decode", 0]})), "saves no picture"),
        (default_graph(**{f"n{i}": ("A", {}) for i in range(MAX_NODES)}), "1 to 1000 nodes"),
        (
            default_graph(y=("A", {"x": "a" * 20_001})),
            r"x of node y \(A\) of custom_workflow has 20001 characters; 20000 are",
        ),
        (
            default_graph() | {"y": {"class_type": "A", "inputs": {}, "_meta": {"title": "a" * 20_001}}},
            "title of node y",
        ),
        (
            default_graph(**{f"n{i}": ("A", {"x": "a" * 20_000}) for i in range(50)}),
            "the texts of custom_workflow have 1000",
        ),
        (default_graph(y=("A", {"a" * 1_000_000: 1})), "the texts of custom_workflow have 1000"),
        (default_graph(**CHAIN), "chain of more than"),
        (default_graph(**dict(reversed(CHAIN.items()))), "chain of more than"),
    ],
)
def test_a_malformed_graph_is_refused(graph: Any, message: str) -> None:
    with pytest.raises(InvalidValue, match=message) as refused:
        read_graph(graph)
    assert refused.value.field == "custom_workflow"
