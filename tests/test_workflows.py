"""Golden graphs, checked against the engine's node definitions, and rules for all graphs."""

import json
from pathlib import Path
from typing import Any

import pytest

from shared.engine.check_graph import check_graph
from shared.graph_walk import ApiGraph
from tests.golden_graphs import CUSTOM_GRAPHS, GRAPHS, MASK, draw
from tests.stack import TestStack
from workflows.graph_builder import Graph

GOLDEN = Path(__file__).parent / "golden"
SNAPSHOT = Path(__file__).parent / "data" / "object_info.json"
# Inputs whose options are files of the user.
FILE_INPUTS = (
    *("ckpt_name", "lora_name", "vae_name", "control_net_name", "model_name", "image"),
    *("unet_name", "clip_name", "clip_name1", "clip_name2", "clip_name3"),
)


@pytest.fixture(scope="module")
def snapshot() -> dict[str, Any]:
    """Return the engine's node definitions, with the files of the golden graphs as options."""
    schemas: dict[str, Any] = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    for node in (node for graph in GRAPHS.values() for node in graph.values()):
        for name, value in node["inputs"].items():
            if name in FILE_INPUTS and node["class_type"] in schemas:
                kind, extra = schemas[node["class_type"]]["input"]["required"][name]
                choices = extra["options"] if kind == "COMBO" else kind
                if isinstance(choices, list):
                    choices.append(value)
    return schemas


@pytest.mark.parametrize("name", [*GRAPHS, *CUSTOM_GRAPHS])
def test_the_graph_equals_the_golden_one(name: str, update_golden: bool) -> None:
    path, graph = GOLDEN / f"{name}.json", {**GRAPHS, **CUSTOM_GRAPHS}[name]
    if update_golden:
        path.write_text(json.dumps(graph, indent=2) + "\n", encoding="utf-8")
    assert graph == json.loads(path.read_text(encoding="utf-8"))


def test_every_golden_graph_is_used() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == {*GRAPHS, *CUSTOM_GRAPHS}


@pytest.mark.parametrize("name", GRAPHS)
def test_the_graph_matches_the_engines_nodes(name: str, snapshot: dict[str, Any]) -> None:
    assert check_graph(GRAPHS[name], snapshot) == []


def test_the_snapshot_matches_the_running_engine(stack: TestStack, update_golden: bool) -> None:
    classes = sorted({node["class_type"] for graph in GRAPHS.values() for node in graph.values()})
    live = {}
    for name in classes:
        schema = stack.ask_engine("GET", f"/object_info/{name}").json()[name]
        live[name] = reduce_definition(schema)
    if update_golden:
        SNAPSHOT.write_text(json.dumps(live, indent=1) + "\n", encoding="utf-8")
    assert json.loads(SNAPSHOT.read_text(encoding="utf-8")) == live


def reduce_definition(schema: dict[str, Any]) -> dict[str, Any]:
    """Reduce a node definition to the types, ranges and options that are checked; lists of files become empty."""
    checked = ("min", "max", "options", "image_upload", "default")

    def declaration(name: str, value: list[Any]) -> list[Any]:
        kind, extra = value[0], dict(value[1]) if len(value) > 1 else {}
        if name in FILE_INPUTS and (isinstance(kind, list) or kind == "COMBO"):
            kind, extra = ([] if isinstance(kind, list) else kind), {**extra, "options": [], "default": None}
        return [kind, {key: extra[key] for key in checked if extra.get(key) is not None}]

    return {
        "input": {
            group: {name: declaration(name, value) for name, value in schema["input"][group].items()}
            for group in ("required", "optional")
            if group in schema["input"]
        },
        "output": schema["output"],
    }


@pytest.mark.parametrize("name", GRAPHS)
def test_ksampler_never_gets_a_mask(name: str) -> None:
    for node in GRAPHS[name].values():
        if "Sampler" in node["class_type"]:
            assert "mask" not in node["inputs"]


def test_with_a_mask_ksampler_starts_from_vae_encode_for_inpaint() -> None:
    graph = GRAPHS["inpaint"]
    assert graph["KSampler"]["inputs"]["latent_image"] == ["VAEEncodeForInpaint", 0]
    assert graph["VAEEncodeForInpaint"]["inputs"]["mask"] == ["LoadImageMask", 0]
    assert graph["LoadImageMask"]["inputs"] == {"image": f"dream_layer/{MASK.name}", "channel": "red"}
    assert graph["ImageCompositeMasked"]["inputs"]["destination"] == ["LoadImage", 0]


def test_without_a_mask_there_are_no_inpainting_nodes() -> None:
    classes = {node["class_type"] for node in GRAPHS["img2img"].values()}
    assert not classes & {"VAEEncodeForInpaint", "LoadImageMask", "ImageCompositeMasked"}


def test_node_ids_are_readable_and_unique() -> None:
    graph = Graph()
    assert [graph.add("KSampler", seed=1), graph.add("VAEDecode"), graph.add("KSampler", seed=2)] == [
        "KSampler",
        "VAEDecode",
        "KSampler_2",
    ]


def test_pictures_of_a_batch_share_common_nodes() -> None:
    graph = GRAPHS["hires_batch"]
    assert [name for name in graph if name.startswith("KSampler")] == [f"KSampler{n}" for n in ("", "_2", "_3", "_4")]
    assert [name for name in graph if name.startswith("CheckpointLoader")] == ["CheckpointLoaderSimple"]
    assert sorted(node["inputs"]["filename_prefix"][-4:] for node in graph.values() if "images" in node["inputs"]) == [
        "-001",
        "-002",
    ]


def test_a_picture_of_a_batch_has_the_graph_of_a_single_picture() -> None:
    batch, single = GRAPHS["txt2img_batch"], draw(seeds=(44,))

    def upstream(graph: ApiGraph, name: str) -> Any:
        """Return a node with all nodes upstream of it, without ids."""
        node = graph[name]
        inputs = {
            key: [upstream(graph, value[0]), value[1]] if isinstance(value, list) else value
            for key, value in node["inputs"].items()
            if key != "filename_prefix"
        }
        return [node["class_type"], inputs]

    assert upstream(batch, "SaveImage_3") == upstream(single, "SaveImage")
