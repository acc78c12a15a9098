"""Lookup of model files by name: the strictest matching rule decides, and ambiguous names are refused."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from launcher.models.library import LibraryModel, find_models
from shared.engine.check_graph import check_graph
from shared.errors import InvalidValue
from shared.metadata.sampler_labels import match_sampler, match_scheduler
from shared.models.detect import ModelFile
from shared.models.lookup import EXTENSIONS, match_names, nearest_names
from shared.schema.body import ExtrasBody
from shared.schema.ranges import Picture
from shared.web.imported_graph_checks import check_imported_graph
from shared.web.parsing.extras import parse_extras
from shared.web.parsing.generation import parse_txt2img
from shared.web.parsing.parser import GraphAlpha, Parser, ParsingContext
from shared.web.request_body import Fields
from tests.model_library import NODES, OWN, ModelLibrary
from tests.stack import data_url

TWO_FOLDERS = ("a/ink.safetensors", "b/ink.safetensors")


@pytest.mark.parametrize(
    ("wanted", "available", "matches"),
    [
        # The whole path, exact case first, with either separator on either system.
        ("ink.safetensors", ["a/ink.safetensors", "ink.safetensors"], ["ink.safetensors"]),
        ("Ink.safetensors", ["ink.safetensors", "Ink.safetensors"], ["Ink.safetensors"]),
        ("a\\ink.safetensors", TWO_FOLDERS, ["a/ink.safetensors"]),
        ("a/ink.safetensors", ["a\\ink.safetensors", "b\\ink.safetensors"], ["a\\ink.safetensors"]),
        # Folder and stem.
        ("b/ink", TWO_FOLDERS, ["b/ink.safetensors"]),
        ("b\\INK", TWO_FOLDERS, ["b/ink.safetensors"]),
        ("ink", ["a/ink.safetensors", "ink.safetensors"], ["ink.safetensors"]),
        ("INK", ["a/ink.safetensors", "ink.safetensors"], ["ink.safetensors"]),
        ("model.v1.5", ["model.v1.5.safetensors", "model.v1.safetensors"], ["model.v1.5.safetensors"]),
        ("ink.pt", ["ink.pt.safetensors"], ["ink.pt.safetensors"]),
        ("e\u0301te\u0301", ["\u00e9t\u00e9.safetensors"], ["\u00e9t\u00e9.safetensors"]),
        # The name alone.
        ("ink", ["a/ink.safetensors", "b/pen.safetensors"], ["a/ink.safetensors"]),
        ("INK.SafeTensors", ["a/ink.safetensors"], ["a/ink.safetensors"]),
        # Ambiguous.
        ("ink", TWO_FOLDERS, list(TWO_FOLDERS)),
        ("ink.safetensors", TWO_FOLDERS, list(TWO_FOLDERS)),
        ("ink", ["ink.ckpt", "ink.safetensors"], ["ink.ckpt", "ink.safetensors"]),
        ("INK.ckpt", ["Ink.ckpt", "ink.ckpt"], ["Ink.ckpt", "ink.ckpt"]),
        ("a/ink", ["a/ink.pt", "a\\ink.bin"], ["a/ink.pt", "a\\ink.bin"]),
        # A wrong folder or extension, or a part of a name.
        ("c/ink.safetensors", TWO_FOLDERS, []),
        ("c/ink", ["a/ink.safetensors"], []),
        ("ink/", ["a/ink.safetensors"], []),
        ("/ink", ["ink.safetensors"], []),
        ("sub/a/ink", ["a/ink.safetensors"], []),
        ("../ink", ["ink.safetensors"], []),
        ("ink.ckpt", ["ink.safetensors"], []),
        ("in", ["ink.safetensors"], []),
        ("", ["ink.safetensors", ".safetensors"], []),
    ],
)
def test_the_strictest_rule_decides(wanted: str, available: Sequence[str], matches: list[str]) -> None:
    assert match_names(wanted, available) == matches


def test_the_same_name_in_another_folder_comes_before_similar_names() -> None:
    assert nearest_names("c/ink", ["inks.pt", *TWO_FOLDERS]) == list(TWO_FOLDERS)
    assert nearest_names("ink.ckpt", ["ink.pt", "inky.pt"]) == ["ink.pt"]
    assert nearest_names("imk", ["ink.pt", "sepia.pt"]) == ["ink.pt"]
    assert nearest_names("quite another", ["x.pt", "y.pt"]) == ["x.pt", "y.pt"]


def test_every_extension_of_the_engine_is_known(engine_source: Path) -> None:
    source = (engine_source / "folder_paths.py").read_text(encoding="utf-8")
    line = next(line for line in source.splitlines() if line.startswith("supported_pt_extensions"))
    assert {".safetensors", ".ckpt"} < set(line.split("'")[1::2]) <= set(EXTENSIONS)


UNIT = {"input_image": data_url(Image.new("RGB", (64, 64)))}
# By kind of file: the field that names it, and a request with that field.
REQUESTS: dict[str, tuple[str, Any]] = {
    "checkpoints": ("model_name", lambda name: {"model_name": name}),
    "diffusion_models": ("model_name", lambda name: {"model_name": name}),
    "vae": ("vae_name", lambda name: {"vae_name": name}),
    "text_encoders": ("text_encoders", lambda name: {"text_encoders": [name]}),
    "loras": ("lora.lora_name", lambda name: {"lora": {"lora_name": name}}),
    "controlnet": ("controlnet.units[0].model", lambda name: {"controlnet": {"units": [{**UNIT, "model": name}]}}),
    "upscale_models": ("upscaler", lambda name: {"upscaler": name}),
}
MORE: list[tuple[str, str, Any]] = [
    ("checkpoints", "refiner_model", lambda name: {"refiner_enabled": True, "refiner_model": name}),
    ("loras", "loras[0].lora_name", lambda name: {"loras": [{"lora_name": name}]}),
    ("loras", "prompt", lambda name: {"prompt": f"a <lora:{name}:1>"}),
    ("upscale_models", "hires_fix_upscaler", lambda name: {"hires_fix": True, "hires_fix_upscaler": name}),
]


def refused(library: ModelLibrary, **values: Any) -> InvalidValue:
    with pytest.raises(InvalidValue) as error:
        parse_txt2img(Fields({"prompt": "x", "model_name": OWN, **values}, {}), ParsingContext(OWN, library, {}.get))
    return error.value


@pytest.mark.parametrize(
    ("kind", "field", "request_of"),
    [*((kind, field, request_of) for kind, (field, request_of) in REQUESTS.items()), *MORE],
)
def test_ambiguous_and_wrong_names_are_refused_for_every_kind(kind: str, field: str, request_of: Any) -> None:
    required = (OWN,) if kind == "checkpoints" else ()
    for files, wanted in (
        (TWO_FOLDERS, "ink"),
        (TWO_FOLDERS, "ink.safetensors"),
        (TWO_FOLDERS, "c/ink.safetensors"),
        (("ink.pt", "ink.safetensors"), "ink"),
        (("ink.pt", "a/ink.safetensors"), "b/ink"),
    ):
        error = refused(ModelLibrary(**{kind: (*required, *files)}), **request_of(wanted))
        assert (error.status, error.field) == (422, field)
        assert error.details["nearest"] == list(files)
        assert all(file in str(error.hint) + error.message for file in files)


def test_a_checkpoint_and_a_diffusion_model_with_the_same_name() -> None:
    library = ModelLibrary(
        checkpoints=(OWN, "both.safetensors"), diffusion_models=("both.safetensors", "own/both.safetensors")
    )
    error = refused(library, model_name="both")
    assert error.details["nearest"] == ["checkpoints/both.safetensors", "diffusion_models/both.safetensors"]
    context = ParsingContext(OWN, library, {}.get)
    for kind in ("checkpoints", "diffusion_models"):
        values = {"prompt": "x", "model_name": f"{kind}/both.safetensors", "text_encoders": ["l"], "vae_name": "sd"}
        parsed = parse_txt2img(Fields(values, {}), context)
        models = parsed.request.models
        assert (models.checkpoint or models.diffusion_model) == "both.safetensors"
        assert (models.checkpoint is not None) == (kind == "checkpoints")
        # The parameters in the reply find the same file again.
        assert parse_txt2img(Fields(parsed.parameters, {}), context).request == parsed.request
    # Without model_name, the checkpoint is used.
    library = ModelLibrary(checkpoints=("both.safetensors",), diffusion_models=("both.safetensors",))
    parsed = parse_txt2img(Fields({"prompt": "x"}, {}), ParsingContext(None, library, {}.get))
    assert parsed.request.models.checkpoint == "both.safetensors"
    # In a custom graph, the loader determines which one is meant.
    custom = parse_txt2img(
        Fields({"prompt": "x", "model_name": "both.safetensors"}, {}),
        ParsingContext(None, library, {}.get, custom_graph=GraphAlpha()),
    )
    assert custom.parameters["model_name"] == "both.safetensors"


def test_an_ambiguous_upscaler_of_extras_is_refused() -> None:
    source = Picture(b"", 8, 8)
    body = ExtrasBody(upscaler_model="ink")
    parser = Parser(Fields({}, {}), ParsingContext(None, ModelLibrary(upscale_models=TWO_FOLDERS), {}.get))
    with pytest.raises(InvalidValue) as error:
        parse_extras(parser, body, source, None)
    assert (error.value.field, error.value.details["nearest"]) == ("upscaler_model", list(TWO_FOLDERS))


def test_the_command_line_finds_models_by_the_same_rules() -> None:
    def find(text: str, *paths: str) -> list[str]:
        models = [
            LibraryModel(kind, name, 1, Path(path), ModelFile(name))
            for path in paths
            for kind, _, name in (path.partition("/"),)
        ]
        return [f"{model.kind}/{model.name}" for model in find_models(models, text)]

    assert find("ink", "loras/ink.safetensors", "loras/a/ink.safetensors") == ["loras/ink.safetensors"]
    assert find("loras\\A\\ink", "loras/a/ink.safetensors", "vae/ink.pt") == ["loras/a/ink.safetensors"]
    assert find("loras/b/ink", "loras/a/ink.safetensors") == []
    assert find("b/ink", "loras/a/b/ink.safetensors") == []
    assert find("ink.ckpt", "loras/ink.safetensors") == []
    both = ["loras/ink.pt", "vae/ink.safetensors"]
    assert find("ink", *both) == both


def test_samplers_and_schedulers_of_custom_nodes_are_matched() -> None:
    stock = ["euler", "dpmpp_2m", "ipndm"]
    assert match_sampler("PLMS", stock, ["karras"])[0] == "ipndm"
    # A sampler that the engine has is preferred to a substitute.
    assert match_sampler("PLMS", [*stock, "plms"], ["karras"]) == ("plms", None, None)
    assert match_sampler("res 2s", [*stock, "res_2s", "res-2s"], ["karras"])[0] == "res 2s"
    assert match_sampler("res_2s", [*stock, "res_2s", "res-2s"], ["karras"])[0] == "res_2s"
    assert match_sampler("Euler beta 57", stock, ["beta_57", "beta57"])[:2] == ("Euler beta 57", None)
    assert match_scheduler("Beta 57", ["beta_57", "beta57"]) == "Beta 57"
    assert match_scheduler("uniform", ["normal", "uniform"]) == "uniform"


@pytest.mark.parametrize(
    ("field", "name", "known"),
    [
        ("model_name", "sd15", "sd15"),
        ("model_name", "SD 1.5", "sd15"),
        ("model_name", "v1-5-pruned-emaonly.safetensors", "sd15"),
        ("model_name", "stable-diffusion-v1-5/stable-diffusion-v1-5", "sd15"),
        ("model_name", "SDXL_base", "sdxl"),
        ("model_name", "sd_xl_base_1.0", "sdxl"),
        ("model_name", "flux1-schnell", "flux-schnell"),
        ("vae_name", "sd15-vae", "sd15-vae"),
        ("lora", "sd15", None),
        ("model_name", "sd15-vae", None),
        ("model_name", ".safetensors", None),
    ],
)
def test_a_known_model_that_is_not_installed_can_be_added(field: str, name: str, known: str | None) -> None:
    error = refused(ModelLibrary(), **{field: {"lora_name": name} if field == "lora" else name})
    assert error.status == 422
    assert ("models add" in str(error.hint)) == (known is not None)
    assert known is None or f"python dream_layer.py models add {known} downloads it; or use " in str(error.hint)


def test_known_models_for_controlnet_and_refiner_can_be_added() -> None:
    units = [{"model": "sd15-canny", "input_image": data_url(Image.new("RGB", (8, 8)))}]
    assert "models add sd15-canny" in str(refused(ModelLibrary(), controlnet={"units": units}).hint)
    second = refused(ModelLibrary(), refiner_enabled=True, refiner_model="sdxl-refiner")
    assert (second.field, "models add sdxl-refiner" in str(second.hint)) == ("refiner_model", True)


def test_a_known_model_in_a_custom_graph_can_be_added() -> None:
    loader = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5-pruned-emaonly.safetensors"}}
    stock = {name: {**node, "python_module": "nodes"} for name, node in NODES.items()}
    catalog = SimpleNamespace(definitions=lambda _: stock, check=lambda graph: check_graph(graph, NODES))
    backend: Any = SimpleNamespace(catalog=catalog, settings=SimpleNamespace(allow_nodes=()))
    with pytest.raises(InvalidValue) as error:
        check_imported_graph(backend, {"4": loader}, "custom_workflow", {})
    assert "python dream_layer.py models add sd15 downloads it" in str(error.value.hint)
