"""Families other than the starter's: model files with valid headers but no weights, and their graphs.

No picture is generated, because that would need gigabytes of weights; the real engine validates the graphs.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from shared.engine.catalog import EngineCatalog
from shared.graph_walk import ApiGraph
from shared.web.parsing.generation import parse_img2img, parse_txt2img
from shared.web.parsing.parser import ParsingContext
from shared.web.request_body import Fields
from tests import safetensors_factory as factory
from tests.stack import TestStack, data_url
from workflows.img2img import img2img
from workflows.txt2img import txt2img

FILES = {
    "checkpoints/tiny-sd2.safetensors": factory.checkpoint(factory.sd2_unet()),
    "checkpoints/tiny-xl.safetensors": factory.checkpoint(factory.sdxl_unet()),
    "checkpoints/tiny-refiner.safetensors": factory.checkpoint(factory.refiner_unet()),
    "checkpoints/tiny-flux-all.safetensors": factory.checkpoint(factory.flux_transformer(guided=True), vae="vae."),
    "diffusion_models/tiny-sd3.safetensors": factory.sd3_transformer(),
    "diffusion_models/tiny-dev.safetensors": factory.flux_transformer(guided=True),
    "diffusion_models/tiny-schnell.safetensors": factory.flux_transformer(guided=False),
    "text_encoders/tiny-l.safetensors": factory.clip_l(),
    "text_encoders/tiny-g.safetensors": factory.clip_g(),
    "text_encoders/tiny-t5.safetensors": factory.t5xxl(),
    "vae/tiny-ae.safetensors": factory.autoencoder(16),
}


@pytest.fixture(scope="module")
def context(stack: TestStack) -> Iterator[ParsingContext]:
    paths = {stack.data_dir / "models" / name: shapes for name, shapes in FILES.items()}
    try:
        for path, shapes in paths.items():
            factory.write(path, shapes)
        yield ParsingContext(None, EngineCatalog(stack.engine_client()), lambda _: None)
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def assert_accepted(stack: TestStack, graph: ApiGraph) -> None:
    """Check that the engine accepts the graph; cancel the job before it fails for lack of weights."""
    blocker = {
        "image": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "save": {"class_type": "PreviewImage", "inputs": {"images": ["image", 0]}},
    }
    stack.ask_engine("POST", "/prompt", json={"prompt": blocker})
    answer = stack.ask_engine("POST", "/prompt", data=json.dumps({"prompt": graph}))
    assert answer.status_code == 200, answer.text
    assert answer.json()["node_errors"] == {}
    stack.ask_engine("POST", f"/api/jobs/{answer.json()['prompt_id']}/cancel")


def nodes(graph: ApiGraph) -> dict[str, dict[str, Any]]:
    return {node["class_type"]: node["inputs"] for node in graph.values()}


def graph_for(context: ParsingContext, **values: Any) -> ApiGraph:
    graph = txt2img(parse_txt2img(Fields({"prompt": "x", "seed": 1, **values}, {}), context).request, "x/x").to_api()
    assert isinstance(context.catalog, EngineCatalog)
    assert context.catalog.check(graph) == []
    return graph


@pytest.mark.parametrize(
    ("model", "size", "steps", "cfg", "loaders"),
    [
        ("tiny-sd2", 768, 20, 7.0, {"CheckpointLoaderSimple"}),
        ("tiny-xl", 1024, 25, 7.0, {"CheckpointLoaderSimple"}),
        ("tiny-flux-all", 1024, 20, 1.0, {"CheckpointLoaderSimple", "FluxGuidance"}),
        ("tiny-sd3", 1024, 28, 4.5, {"UNETLoader", "TripleCLIPLoader", "VAELoader"}),
        ("tiny-dev", 1024, 20, 1.0, {"UNETLoader", "DualCLIPLoader", "VAELoader", "FluxGuidance"}),
        ("tiny-schnell", 1024, 4, 1.0, {"UNETLoader", "DualCLIPLoader", "VAELoader"}),
    ],
)
def test_a_family_has_its_own_nodes_and_defaults(
    stack: TestStack, context: ParsingContext, model: str, size: int, steps: int, cfg: float, loaders: set[str]
) -> None:
    graph = graph_for(context, model_name=model)
    inputs = nodes(graph)
    assert loaders <= inputs.keys()
    assert {"FluxGuidance", "UNETLoader"} & inputs.keys() == {"FluxGuidance", "UNETLoader"} & loaders
    latent = inputs.get("EmptySD3LatentImage") or inputs["EmptyLatentImage"]
    assert ("EmptySD3LatentImage" in inputs) == (model not in ("tiny-sd2", "tiny-xl"))
    assert (latent["width"], latent["height"]) == (size, size)
    assert (inputs["KSampler"]["steps"], inputs["KSampler"]["cfg"]) == (steps, cfg)
    assert_accepted(stack, graph)


def test_text_encoders_and_vae_are_chosen_by_their_contents(context: ParsingContext) -> None:
    dual = nodes(graph_for(context, model_name="tiny-dev"))
    assert dual["DualCLIPLoader"] == {
        "clip_name1": "tiny-l.safetensors",
        "clip_name2": "tiny-t5.safetensors",
        "type": "flux",
    }
    assert dual["VAELoader"] == {"vae_name": "tiny-ae.safetensors"}
    assert dual["FluxGuidance"]["guidance"] == 3.5


def test_sdxl_switches_to_its_refiner(stack: TestStack, context: ParsingContext) -> None:
    graph = graph_for(context, model_name="tiny-xl", refiner_enabled=True, refiner_model="tiny-refiner")
    first, second = (node["inputs"] for node in graph.values() if node["class_type"] == "KSamplerAdvanced")
    assert (first["steps"], first["start_at_step"], first["end_at_step"]) == (25, 0, 20)
    # 10,000 means up to the last step.
    assert (second["steps"], second["start_at_step"], second["end_at_step"]) == (25, 20, 10_000)
    assert_accepted(stack, graph)


def test_flux_supports_img2img(context: ParsingContext) -> None:
    fields = Fields({"prompt": "x", "model_name": "tiny-dev", "input_image": data_url(Image.new("RGB", (64, 64)))}, {})
    graph = img2img(parse_img2img(fields, context).request, "x/x").to_api()
    assert isinstance(context.catalog, EngineCatalog)
    # The picture was not uploaded; all other inputs are valid.
    assert {problem.input for problem in context.catalog.check(graph)} <= {"image"}
    assert nodes(graph)["VAEEncode"]["vae"] == ["VAELoader", 0]
