"""Random requests: valid ones become graphs that the real engine accepts, invalid ones a 4xx that names a field."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pydantic import BaseModel

from shared.engine.catalog import EngineCatalog
from shared.errors import DreamLayerError
from shared.graph_walk import ApiGraph
from shared.schema.body import ControlUnitBody, Img2ImgBody, LoraBody, Txt2ImgBody
from shared.web.graph_errors import graph_error
from shared.web.parsing.generation import parse_img2img, parse_txt2img
from shared.web.parsing.parser import ParsingContext
from shared.web.request_body import Fields
from tests.stack import TestStack, data_url
from workflows.img2img import img2img
from workflows.txt2img import txt2img

SOURCE = Image.new("RGB", (72, 56), "red")
MASK = Image.new("L", (72, 56))
ImageDraw.Draw(MASK).rectangle((20, 20, 50, 40), fill=255)
QUIET = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
# Existing names, some in other spellings. Values of all other fields are generated from the schema.
NAMES: Mapping[str, st.SearchStrategy[Any]] = {
    "prompt": st.sampled_from(
        ["a red circle", "", "x <lora:dream-layer-outline:0.5>", "embedding:ruby, (b:1.2)", "ünï 圓"]
    )
    | st.text(max_size=40),
    "negative_prompt": st.text(max_size=20),
    "model_name": st.sampled_from(["dream-layer-starter", "dream-layer-pastel", "dream-layer-inpainting.safetensors"]),
    "vae_name": st.sampled_from(["automatic", "dream-layer-sepia"]),
    "sampler_name": st.sampled_from(["euler", "DPM++ 2M Karras", "dpm-2s-a", "Euler a", "plms", "DDIM"]),
    "scheduler": st.sampled_from(["normal", "Karras", "automatic", "sgm_uniform"]),
    "hires_fix_sampler_name": st.sampled_from(["euler", "dpm-sde-karras"]),
    "hires_fix_scheduler": st.sampled_from(["beta", "karras"]),
    "hires_fix_upscaler": st.sampled_from(["Latent", "Latent (bicubic)", "Lanczos", "dream-layer-2x"]),
    "refiner_model": st.sampled_from(["dream-layer-pastel", "dream-layer-starter"]),
    "upscaler": st.sampled_from(["none", "Nearest", "dream-layer-2x"]),
    "face_restoration_model": st.just("codeformer"),
    "lora_name": st.sampled_from(["dream-layer-outline", "dream-layer-outline.safetensors"]),
    "model": st.just("dream-layer-canny"),
    "preprocessor": st.sampled_from(["none", "canny", None]),
    "control_type": st.sampled_from(["canny", "all", None]),
    "input_image": st.just(data_url(SOURCE)),
    "mask": st.just(data_url(MASK)),
    # Features that this engine lacks, and fields with their own tests.
    "text_encoders": st.none(),
    "restore_faces": st.just(value=False),
    "tiling": st.just(value=False),
    "custom_workflow": st.none(),
    "output_node": st.just("9"),
    "width": st.integers(16, 300),
    "height": st.integers(16, 300),
    "upscale_factor": st.floats(1, 3),
    "hires_fix_upscale_factor": st.floats(1, 3),
}


def values_of(model: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    """Generate requests with any fields of a model, and values within their ranges."""
    schema = model.model_json_schema(by_alias=False)
    fields = {name: field_values(name, declared, schema) for name, declared in schema["properties"].items()}
    required = {name: fields.pop(name) for name in schema.get("required", [])}
    return st.fixed_dictionaries(required, optional=fields)


def field_values(name: str, declared: Mapping[str, Any], schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    if name in NAMES:
        return NAMES[name]
    if name == "lora":
        return st.none() | values_of(LoraBody)
    if name == "loras":
        return st.lists(values_of(LoraBody), max_size=2)
    if name == "controlnet":
        units = st.lists(values_of(ControlUnitBody).filter(lambda unit: _in_order(unit)), max_size=2)
        return st.none() | st.fixed_dictionaries({"units": units}, optional={"enabled": st.booleans()})
    if "anyOf" in declared:
        inner = next(option for option in declared["anyOf"] if option.get("type") != "null")
        return st.none() | field_values(name, inner, schema)
    if "enum" in declared:
        return st.sampled_from(declared["enum"])
    if declared["type"] == "boolean":
        return st.booleans()
    numbers = st.integers if declared["type"] == "integer" else st.floats
    return numbers(declared["minimum"], declared["maximum"])


def _in_order(unit: Mapping[str, Any]) -> bool:
    return bool(unit.get("guidance_start", 0.0) <= unit.get("guidance_end", 1.0))


@pytest.fixture(scope="module")
def context(stack: TestStack) -> ParsingContext:
    return ParsingContext(None, EngineCatalog(stack.engine_client()), lambda _: None)


def graph_or_error(values: Mapping[str, Any], kind: str, context: ParsingContext) -> ApiGraph | DreamLayerError:
    """Return the graph of a request, or the error of the services' reply."""
    try:
        return graph_of(values, kind, context)
    except DreamLayerError as error:
        return error


def graph_of(values: Mapping[str, Any], kind: str, context: ParsingContext) -> ApiGraph:
    """Return the graph of a request, checked as by the services. Raises the error of their reply."""
    fields = Fields({name: value for name, value in values.items() if value is not None}, {})
    if kind == "txt2img":
        graph = txt2img(parse_txt2img(fields, context).request, "20261122/x").to_api()
    else:
        graph = img2img(parse_img2img(fields, context).request, "20261122/x").to_api()
    assert isinstance(context.catalog, EngineCatalog)
    problems = context.catalog.check(graph)
    if problems:
        raise graph_error(problems)
    return graph


@pytest.mark.parametrize("kind", ["txt2img", "img2img"])
def test_a_request_within_the_ranges_becomes_a_valid_graph(context: ParsingContext, kind: str) -> None:
    @QUIET
    @given(values_of(Txt2ImgBody if kind == "txt2img" else Img2ImgBody))
    def check(values: dict[str, Any]) -> None:
        graph = graph_or_error(values, kind, context)
        if isinstance(graph, DreamLayerError):
            # Values that are valid alone can conflict with others.
            assert graph.status == 422
            assert graph.field in CONFLICTING_FIELDS, (graph.field, graph.message)
            return
        assert sum(node["class_type"] == "SaveImage" for node in graph.values()) == (
            values.get("batch_size", 1) * values.get("batch_count", 1)
        )

    check()


# Fields with values that can be valid alone, but not in combination with other fields.
CONFLICTING_FIELDS = {
    *("denoising_strength", "hires_fix_denoising_strength"),
    *("seed", "only_masked", "refiner_model", "hires_fix_upscale_factor"),
    *("hires_fix_resize_width", "hires_fix_resize_height"),
    *("outpaint_left", "outpaint_top", "outpaint_right", "outpaint_bottom"),
    *(f"controlnet.units[{index}].{name}" for index in (0, 1) for name in ("model", "input_image")),
}


@pytest.mark.parametrize("kind", ["txt2img", "img2img"])
def test_random_values_are_a_valid_request_or_a_4xx(context: ParsingContext, kind: str) -> None:
    model = Txt2ImgBody if kind == "txt2img" else Img2ImgBody
    junk = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    )

    @QUIET
    @given(st.dictionaries(st.sampled_from(sorted(model.model_fields)) | st.text(max_size=8), junk, max_size=6))
    def check(values: dict[str, Any]) -> None:
        error = graph_or_error({"prompt": "x", "input_image": data_url(SOURCE), **values}, kind, context)
        if isinstance(error, DreamLayerError):
            assert 400 <= error.status < 500, (error.status, error.message)
            assert error.field, error.message

    check()


def test_the_engine_accepts_generated_graphs(stack: TestStack, context: ParsingContext) -> None:
    """Queue some graphs on the engine and cancel them, to run the engine's own validation."""
    accepted = []

    @settings(QUIET, max_examples=25)
    @given(values_of(Txt2ImgBody))
    def check(values: dict[str, Any]) -> None:
        graph = graph_or_error({**values, "batch_size": 1, "batch_count": 1}, "txt2img", context)
        # The pictures are not uploaded.
        if isinstance(graph, DreamLayerError) or any(node["class_type"] == "LoadImage" for node in graph.values()):
            return
        answer = stack.ask_engine("POST", "/prompt", data=json.dumps({"prompt": graph}))
        assert answer.status_code == 200, answer.text
        assert answer.json()["node_errors"] == {}
        accepted.append(answer.json()["prompt_id"])
        stack.ask_engine("POST", f"/api/jobs/{accepted[-1]}/cancel")

    check()
    assert len(accepted) >= 5
