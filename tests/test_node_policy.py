"""What graphs of others may use of ComfyUI's own nodes, and what the engine can tell them of its surroundings."""

import json
from typing import Any

import psutil
import pytest
import requests

from shared.engine.check import check_graph
from shared.engine.environment import engine_environ
from shared.engine.node_policy import FORMULAS, LIMITS, REFUSED, TEXT_LIMITS
from shared.engine.reviewed import REVIEWED
from shared.engine.trust import why_refused
from shared.settings import PREFIX
from tests.conftest import PLANTED
from tests.foreign_graphs import Short, api
from tests.house import TIMEOUT, TestHouse
from tests.nodes import SNAPSHOT, in_short, reviewed

NODES = reviewed()


def test_every_class_of_the_engine_was_looked_through(house: TestHouse, update_golden: bool) -> None:
    """A new ComfyUI brings nodes, and gives inputs to old ones: read those before `--update-golden` takes them in, and
    add the classes to shared/engine/reviewed.py."""
    told = requests.get(f"{house.engine}/object_info", timeout=TIMEOUT).json()
    found = in_short(told)
    if update_golden:
        lines = (f"{json.dumps(name)}:{json.dumps(each, separators=(',', ':'))}" for name, each in found.items())
        SNAPSHOT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    assert sorted(found.keys() - NODES.keys()) == []
    assert [name for name in found if found[name] != NODES[name]] == []


def test_the_list_of_what_was_looked_through_is_that_of_the_snapshot() -> None:
    assert NODES.keys() == REVIEWED
    assert set(REFUSED) <= REVIEWED
    for name, key in [*LIMITS, *TEXT_LIMITS, *FORMULAS]:
        groups = NODES[name]["input"]
        assert key in {**groups.get("required", {}), **groups.get("optional", {})}, (name, key)


def test_a_class_that_nobody_has_looked_at_stays_out() -> None:
    definition = {"python_module": "comfy_extras.nodes_string", "output_node": False}
    assert "newer than this program" in str(why_refused("StringEvaluate", definition, ()))
    assert why_refused("StringEvaluate", definition, ("StringEvaluate",)) is None


@pytest.mark.parametrize("name", ["StringFormat", "RegexMatch", "GLSLShader", "LoadImageOutput", "SplatToMesh"])
def test_what_runs_or_formats_or_reads_for_a_client_stays_out(name: str) -> None:
    assert why_refused(name, NODES[name], ()) == REFUSED[name]


@pytest.mark.parametrize(
    "name", ["KSampler", "StringConcatenate", "GrowMask", "ComfyMathExpression", "ImageScaleBy", "TextOverlay"]
)
def test_what_graphs_use_is_let_in(name: str) -> None:
    assert why_refused(name, NODES[name], ()) is None


def problems(nodes: Short) -> list[tuple[str | None, str]]:
    return [(each.input, each.kind) for each in check_graph(api(nodes), NODES)]


EMPTY = ("EmptyImage", {"width": 8, "height": 8, "batch_size": 1, "color": 0})


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"resize_type": "scale width", "resize_type.width": 64}, []),
        ({"resize_type": "scale width", "resize_type.width": 10**9}, [("resize_type.width", "out_of_range")]),
        ({"resize_type": "scale width", "resize_type.width": ["e", 3]}, [("resize_type.width", "bad_link")]),
        ({"resize_type": "scale width", "resize_type.depth": 1}, [("resize_type.depth", "unknown_input")]),
        ({"resize_type": "scale everything"}, [("resize_type", "not_in_list")]),
        ({"resize_type": ["e", 0]}, [("resize_type", "bad_link")]),
        ({}, [("resize_type", "missing_input")]),
    ],
)
def test_inputs_of_a_choice_are_checked_like_all_others(more: dict[str, Any], expected: list[Any]) -> None:
    found = problems({"e": EMPTY, "r": ("ResizeImageMaskNode", {"input": ["e", 0], "scale_method": "area", **more})})
    # The snapshot has no lists of choices, so each combo objects to its value.
    assert [each for each in found if each[0] != "scale_method"] == expected


def test_inputs_of_a_growing_list_are_checked_like_all_others() -> None:
    def found(**inputs: Any) -> list[tuple[str | None, str]]:
        return problems({"e": EMPTY, "b": ("BatchImagesNode", {f"images.{key}": each for key, each in inputs.items()})})

    assert found(image0=["e", 0], image1=["e", 0]) == []
    assert found(image0=["e", 1]) == [("images.image0", "bad_link")]
    assert found(image0=5) == [("images.image0", "wrong_type")]
    assert found(image50=["e", 0]) == [("images.image50", "unknown_input")]


@pytest.mark.parametrize("source", ["string", "switch", "list", "preview"])
def test_a_file_is_never_named_by_a_text_that_the_graph_puts_together(source: str) -> None:
    """The engine compares values with its lists of files, but links with nothing."""
    graph: Short = {
        "string": ("PrimitiveString", {"value": "/etc/passwd"}),
        "switch": ("ComfySwitchNode", {"switch": True, "on_true": ["string", 0], "on_false": ["string", 0]}),
        "list": ("CreateList", {"inputs.input0": ["string", 0]}),
        "preview": ("PreviewAny", {"source": ["string", 0]}),
        "load": ("LoadVideo", {"file": [source, 0]}),
    }
    assert problems(graph) == [("file", "bad_link")]


def test_a_number_may_be_one_of_several_types() -> None:
    for value in (5, 0.5, "5", True):
        assert problems({"n": ("ComfyNumberConvert", {"value": value})}) == []
    assert problems({"n": ("ComfyNumberConvert", {"value": {}})}) == [("value", "wrong_type")]


def test_the_engine_gets_what_it_needs_of_the_environment_and_no_secret() -> None:
    needed = {"PATH": "/bin", "HOME": "/home", "CUDA_VISIBLE_DEVICES": "0", "SystemRoot": "C:\\Windows", "LC_ALL": "C"}
    secret = {
        f"{PREFIX}API_KEY": "key",
        "HF_TOKEN": "token",
        "AWS_SECRET_ACCESS_KEY": "key",
        "HTTPS_PROXY": "http://user:password@proxy",
        "PYTHON_KEYRING_PASSWORD": "word",
        "COMFYUI_API_KEY": "key",
        "DATABASE_URL": "postgres://user:word@host",
    }
    assert engine_environ({**needed, **secret}) == needed
    assert engine_environ({**needed, **secret}, ("hf_token",)) == {**needed, "HF_TOKEN": "token"}


def test_the_running_engine_has_no_variable_that_is_not_for_it(house: TestHouse) -> None:
    environ = psutil.Process(house.engine_state()["pid"]).environ()
    assert "PATH" in environ
    assert not [name for name in environ if name.upper().startswith(PREFIX)]
    assert not PLANTED.keys() & environ.keys()
    assert not [value for value in environ.values() if value in PLANTED.values()]
