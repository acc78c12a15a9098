"""The check of a graph against node definitions, and the errors for its problems."""

from typing import Any

import pytest

from shared.engine.check_graph import check_graph
from shared.errors import EngineRejected, InvalidValue
from shared.web.graph_errors import graph_error
from tests.imported_graphs import to_api

SCHEMAS: dict[str, Any] = {
    "Loader": {"input": {"required": {"name": [["a.safetensors", "b.safetensors"], {}]}}, "output": ["MODEL", "VAE"]},
    "KSampler": {
        "input": {
            "required": {
                "model": ["MODEL", {}],
                "steps": ["INT", {"min": 1, "max": 10}],
                "cfg": ["FLOAT", {"min": 0.0, "max": 10.0}],
                "sampler_name": ["COMBO", {"options": ["euler", "heun"]}],
            },
            "optional": {"label": ["STRING", {}], "tiled": ["BOOLEAN", {}]},
        },
        "output": ["LATENT"],
    },
}
GOOD: dict[str, Any] = {"model": ["Loader", 0], "steps": 3, "cfg": 2, "sampler_name": "euler"}


def check(**inputs: Any) -> list[tuple[str | None, str]]:
    node_inputs = {name: value for name, value in {**GOOD, **inputs}.items() if value is not ...}
    graph = {
        "Loader": {"class_type": "Loader", "inputs": {"name": "a.safetensors"}},
        "KSampler": {"class_type": "KSampler", "inputs": node_inputs},
    }
    return [(problem.input, problem.kind) for problem in check_graph(graph, SCHEMAS)]


def test_a_valid_graph_has_no_problems() -> None:
    assert check() == []
    assert check(label="x", tiled=True) == []


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("mask", ["Loader", 0], "unknown_input"),
        ("upscale_by", 2, "unknown_input"),
        ("steps", ..., "missing_input"),
        ("steps", "3", "wrong_type"),
        ("steps", 2.5, "wrong_type"),
        ("steps", True, "wrong_type"),
        ("steps", 11, "out_of_range"),
        ("cfg", float("nan"), "wrong_type"),
        ("cfg", -0.1, "out_of_range"),
        ("sampler_name", "Euler", "not_in_list"),
        ("label", 5, "wrong_type"),
        ("label", "half \ud800 of a character", "wrong_type"),
        ("tiled", 1, "wrong_type"),
        ("model", "a.safetensors", "wrong_type"),
        ("model", ["Nowhere", 0], "bad_link"),
        ("model", ["Loader", 1], "bad_link"),
        ("model", ["Loader", 2], "bad_link"),
        ("model", ["Loader"], "bad_link"),
    ],
)
def test_each_kind_of_problem_is_found(name: str, value: Any, kind: str) -> None:
    assert check(**{name: value}) == [(name, kind)]


@pytest.mark.parametrize("denoise", [1e-9, ["Little", 0]])
def test_too_little_denoise_for_the_steps_is_found(denoise: Any) -> None:
    numbers = {"steps": ["INT", {"min": 1, "max": 10000}], "denoise": ["FLOAT", {"min": 0, "max": 1}]}
    schemas = {
        "Sampler": {"input": {"required": numbers}, "output": []},
        "Value": {"input": {"required": {"value": ["FLOAT", {}]}}, "output": ["FLOAT"]},
    }

    def problems(value: Any, steps: Any = 20) -> list[str]:
        graph = {
            "Sampler": {"class_type": "Sampler", "inputs": {"steps": steps, "denoise": value}},
            "Little": {"class_type": "Value", "inputs": {"value": 0.0019}},
        }
        return [f"{problem.input} {problem.kind}" for problem in check_graph(graph, schemas)]

    assert problems(denoise) == ["denoise out_of_range"]
    assert problems(0.002) == problems(0.0003, 3) == problems(0) == problems(1.0, 10000) == []


def test_an_unknown_node_is_named() -> None:
    (problem,) = check_graph({"X": {"class_type": "FaceFixer", "inputs": {}}}, SCHEMAS)
    assert (problem.kind, problem.message) == ("unknown_node", "the engine has no node FaceFixer")


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
def test_malformed_nodes_are_reported(node: Any, kind: str) -> None:
    schemas = {"A": {"input": {"required": {"n": ["INT", {"min": 0, "max": 9}]}}, "output": ["INT"]}}
    assert [problem.kind for problem in check_graph({"A": node}, schemas)] == [kind]


def test_inputs_of_dynamic_types_pass_the_check() -> None:
    schemas = {
        "A": {"input": {"required": {"images": ["COMFY_AUTOGROW_V3", {}], "x": ["FLOAT,INT"]}}, "output": ["IMAGE"]},
        "B": {"input": {}, "output": ["INT"]},
    }
    inputs = {"images.image0": ["A2", 0], "images.image1": ["A2", 0], "x": ["B", 0]}
    graph = to_api({"A": ("A", inputs), "A2": ("A", {"x": ["B", 0]}), "B": ("B", {})})
    assert check_graph(graph, schemas) == []


def test_a_wrong_value_becomes_an_error_of_its_field() -> None:
    graph = {
        "KSampler": {"class_type": "KSampler", "inputs": {**GOOD, "model": ["KSampler", 0], "sampler_name": "eulr"}}
    }
    error = graph_error([problem for problem in check_graph(graph, SCHEMAS) if problem.input == "sampler_name"])
    assert isinstance(error, InvalidValue)
    assert error.field == "sampler_name"
    assert error.details["nearest"][0] == "euler"


def test_a_number_out_of_range_is_reported_with_its_field() -> None:
    graph = {
        "Loader": {"class_type": "Loader", "inputs": {"name": "a.safetensors"}},
        "KSampler": {"class_type": "KSampler", "inputs": {**GOOD, "cfg": 99}},
    }
    error = graph_error(check_graph(graph, SCHEMAS))
    assert isinstance(error, InvalidValue)
    assert error.message == "cfg_scale must be from 0.0 to 10.0, not 99"


def test_a_missing_node_is_not_an_error_of_the_client() -> None:
    error = graph_error(check_graph({"X": {"class_type": "KSamplerOld", "inputs": {}}}, SCHEMAS))
    assert isinstance(error, EngineRejected)
    assert "no node KSamplerOld" in error.message
