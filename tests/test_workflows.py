"""Graphs: golden files, checked against the engine's own node definitions; and what must always hold."""

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from shared.engine.check import check_graph
from shared.schema import Img2ImgRequest, Picture, Txt2ImgRequest
from tests.house import TIMEOUT, TestHouse
from workflows.graph import ApiGraph, Graph
from workflows.img2img import img2img
from workflows.txt2img import txt2img

GOLDEN = Path(__file__).parent / "golden"
SNAPSHOT = Path(__file__).parent / "data" / "object_info.json"
PREFIX = "20261122/20261122-143210-3f2a9c1e0b7d"
COMMON: dict[str, Any] = {
    "prompt": "a red circle",
    "negative_prompt": "blue",
    "seed": 42,
    "model_name": "model.safetensors",
    "sampler_name": "dpmpp_2m",
    "scheduler": "karras",
    "steps": 12,
    "cfg_scale": 6.5,
}
SOURCE, MASK = Picture(b"source", 512, 512), Picture(b"mask", 512, 512)


def draw(**fields: Any) -> ApiGraph:
    return txt2img(Txt2ImgRequest(**COMMON, **fields), PREFIX).to_api()


def redraw(**fields: Any) -> ApiGraph:
    return img2img(Img2ImgRequest(**COMMON, input_image=SOURCE, **fields), PREFIX).to_api()


GRAPHS: dict[str, ApiGraph] = {
    "txt2img": draw(),
    "txt2img_batch": draw(batch_size=4),
    "txt2img_odd_size": draw(width=501, height=333),
    "img2img": redraw(denoising_strength=0.4),
    "img2img_batch": redraw(batch_size=2),
    "img2img_odd_size": redraw(width=509, height=512),
    "inpaint": redraw(mask=MASK, denoising_strength=1.0),
    "inpaint_batch": redraw(mask=MASK, denoising_strength=1.0, batch_size=2),
    "inpaint_odd_size_grown": redraw(mask=MASK, denoising_strength=1.0, width=509, height=500, grow_mask_by=16),
}


@pytest.fixture(scope="module")
def snapshot() -> dict[str, Any]:
    schemas: dict[str, Any] = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    schemas["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0] = ["model.safetensors"]
    return schemas


@pytest.mark.parametrize("name", GRAPHS)
def test_the_graph_is_the_golden_one(name: str, update_golden: bool) -> None:
    path = GOLDEN / f"{name}.json"
    if update_golden:
        path.write_text(json.dumps(GRAPHS[name], indent=2) + "\n", encoding="utf-8")
    assert GRAPHS[name] == json.loads(path.read_text(encoding="utf-8"))


def test_there_is_no_golden_graph_that_nothing_checks() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(GRAPHS)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_graph_fits_the_engines_nodes(name: str, snapshot: dict[str, Any]) -> None:
    assert check_graph(GRAPHS[name], snapshot) == []


def test_the_snapshot_is_what_the_live_engine_says(house: TestHouse, update_golden: bool) -> None:
    classes = sorted({node["class_type"] for graph in GRAPHS.values() for node in graph.values()})
    live = {}
    for name in classes:
        schema = requests.get(f"{house.engine}/object_info/{name}", timeout=TIMEOUT).json()[name]
        live[name] = bare(schema)
    if update_golden:
        SNAPSHOT.write_text(json.dumps(live, indent=1) + "\n", encoding="utf-8")
    assert json.loads(SNAPSHOT.read_text(encoding="utf-8")) == live


def bare(schema: dict[str, Any]) -> dict[str, Any]:
    """Of a node's definition only what a graph can be checked by: types, ranges, options; lists of files emptied."""
    kept = ("min", "max", "options", "image_upload", "default")

    def declaration(name: str, value: list[Any]) -> list[Any]:
        kind = [] if name in ("ckpt_name", "image") and isinstance(value[0], list) else value[0]
        extra = value[1] if len(value) > 1 else {}
        return [kind, {key: extra[key] for key in kept if key in extra}]

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
        if node["class_type"] == "KSampler":
            assert "mask" not in node["inputs"]


def test_with_a_mask_ksampler_starts_from_vae_encode_for_inpaint() -> None:
    graph = GRAPHS["inpaint"]
    assert graph["KSampler"]["inputs"]["latent_image"] == ["VAEEncodeForInpaint", 0]
    assert graph["VAEEncodeForInpaint"]["inputs"]["mask"] == ["LoadImageMask", 0]
    assert graph["LoadImageMask"]["inputs"] == {"image": f"dream_layer/{MASK.name}", "channel": "red"}
    assert graph["ImageCompositeMasked"]["inputs"]["destination"] == ["LoadImage", 0]


def test_without_a_mask_nothing_of_inpainting_is_there() -> None:
    classes = {node["class_type"] for node in GRAPHS["img2img"].values()}
    assert not classes & {"VAEEncodeForInpaint", "LoadImageMask", "ImageCompositeMasked"}


def test_ids_of_nodes_are_readable_and_unique() -> None:
    graph = Graph()
    assert [graph.add("KSampler"), graph.add("VAEDecode"), graph.add("KSampler")] == [
        "KSampler",
        "VAEDecode",
        "KSampler_2",
    ]
