"""Graphs that others made: their shape, and where the fields of a request go in them."""

import json
from typing import Any

import pytest

from shared.engine.check import check_graph
from shared.engine.trust import check_files, why_refused
from shared.errors import InvalidValue
from shared.jobs.names import job_prefixes, locate, with_prefix
from shared.settings import PROJECT_DIR
from workflows.foreign import MAX_DEPTH, MAX_NODES, read_graph
from workflows.named import read_workflow
from workflows.placing import find_places, place

Short = dict[str, tuple[str, dict[str, Any]]]


def api(nodes: Short) -> dict[str, Any]:
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def plain(**more: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """What everybody's first graph looks like, with nodes added or replaced."""
    nodes: Short = {
        "ckpt": ("CheckpointLoaderSimple", {"ckpt_name": "old.safetensors"}),
        "good": ("CLIPTextEncode", {"text": "old", "clip": ["ckpt", 1]}),
        "bad": ("CLIPTextEncode", {"text": "old bad", "clip": ["ckpt", 1]}),
        "empty": ("EmptyLatentImage", {"width": 8, "height": 8, "batch_size": 1}),
        "sampler": ("KSampler", sampling("empty")),
        "decode": ("VAEDecode", {"samples": ["sampler", 0], "vae": ["ckpt", 2]}),
        "save": ("SaveImage", {"images": ["decode", 0], "filename_prefix": "theirs"}),
    }
    return api({**nodes, **more})


def sampling(latent: str, **more: Any) -> dict[str, Any]:
    return {
        "model": ["ckpt", 0],
        "positive": ["good", 0],
        "negative": ["bad", 0],
        "latent_image": [latent, 0],
        "seed": 1,
        "steps": 20,
        "cfg": 8.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
        **more,
    }


def placed(graph: dict[str, Any], **values: Any) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The inputs of each node after `values` were placed, and the warnings."""
    result, warnings = place(read_graph(graph), values)
    return {name: node["inputs"] for name, node in result.items()}, warnings


def test_the_graph_may_come_as_the_page_sends_it_and_is_not_changed() -> None:
    graph = plain()
    before = json.dumps(graph)
    assert read_graph({"prompt": graph}) == read_graph(graph) == graph
    place(read_graph(graph), {"prompt": "new", "seed": 5})
    assert json.dumps(graph) == before


def test_only_what_a_graph_needs_is_handed_on() -> None:
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
        (plain(y=("A", {"x": ["nowhere", 0]})), "'nowhere', which is not there"),
        (plain(y=("A", {"x": ["save", "0"]})), "no link"),
        (plain(y=("A", {"x": ["save", True]})), "no link"),
        (plain(y=("A", {"x": ["save", -1]})), "no link"),
        (plain(y=("A", {"x": [["save"], 0]})), "no link"),
        (plain(y=("A", {"x": [1, 2, 3]})), "no link"),
        (plain(y=("A", {"x": float("nan")})), "no finite number"),
        (plain(y=("A", {"x": {"a": 1}})), "not an object"),
        (plain(y=("A", {"x": ["z", 0]}), z=("A", {"x": ["y", 0]})), "circle: y <- z <- y"),
        (plain(y=("A", {"x": ["y", 0]})), "circle: y <- y"),
        (plain(save=("PreviewImage", {"images": ["decode", 0]})), "saves no picture"),
        (plain(**{f"n{i}": ("A", {}) for i in range(MAX_NODES)}), "1 to 1000 nodes"),
        (plain(**CHAIN), "chain of more than"),
        (plain(**dict(reversed(CHAIN.items()))), "chain of more than"),
    ],
)
def test_what_is_no_graph_is_refused(graph: Any, says: str) -> None:
    with pytest.raises(InvalidValue, match=says) as refused:
        read_graph(graph)
    assert refused.value.field == "custom_workflow"


def test_the_fields_find_their_places() -> None:
    inputs, warnings = placed(
        plain(),
        prompt="new",
        negative_prompt="new bad",
        seed=7,
        steps=5,
        cfg_scale=2.5,
        sampler_name="heun",
        scheduler="karras",
        width=64,
        height=128,
        batch_size=2,
        model_name="new.safetensors",
    )
    assert warnings == []
    assert inputs["good"]["text"] == "new"
    assert inputs["bad"]["text"] == "new bad"
    assert inputs["empty"] == {"width": 64, "height": 128, "batch_size": 2}
    assert inputs["ckpt"] == {"ckpt_name": "new.safetensors"}
    changed = {"seed": 7, "steps": 5, "cfg": 2.5, "sampler_name": "heun", "scheduler": "karras"}
    assert inputs["sampler"] == {**sampling("empty"), **changed}


def test_what_was_not_sent_stays() -> None:
    assert placed(plain(), prompt="new")[0]["sampler"] == sampling("empty")


def test_a_size_is_raised_to_what_a_latent_can_have() -> None:
    inputs, warnings = placed(plain(), width=60)
    assert inputs["empty"]["width"] == 64
    assert warnings == ["width 60 was raised to 64, a multiple of 8"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"input_image": "a.png"}, "input_image was not placed: the graph has no LoadImage node"),
        ({"mask": "a.png"}, "mask was not placed: the graph has no LoadImageMask node"),
        ({"denoising_strength": 0.5}, "denoising_strength was not placed: sampler starts from an empty latent"),
    ],
)
def test_what_has_no_place_is_told(values: dict[str, Any], says: str) -> None:
    inputs, warnings = placed(plain(), **values)
    assert warnings == [says]
    assert inputs == {name: node["inputs"] for name, node in plain().items()}


def test_without_a_sampler_nothing_is_placed() -> None:
    graph = api({"a": ("EmptyImage", {"width": 8}), "b": ("SaveImage", {"images": ["a", 0]})})
    inputs, warnings = placed(graph, prompt="new", width=16)
    assert inputs["a"] == {"width": 8}
    assert [warning.split(":")[0] for warning in warnings] == ["prompt was not placed", "width was not placed"]
    # The engine wants one, whatever the graph says.
    assert inputs["b"]["filename_prefix"] == ""


def test_one_text_for_both_never_gets_the_negative() -> None:
    graph = plain(sampler=("KSampler", sampling("empty", negative=["good", 0])))
    for values in ({"negative_prompt": "bad"}, {"negative_prompt": "bad", "prompt": "new"}):
        inputs, warnings = placed(graph, **values)
        assert inputs["good"]["text"] == values.get("prompt", "old")
        assert warnings == ["negative_prompt was not placed: good.text is also where prompt comes from"]


def test_a_negative_that_is_zeroed_takes_no_text() -> None:
    graph = plain(
        zero=("ConditioningZeroOut", {"conditioning": ["bad", 0]}),
        sampler=("KSampler", sampling("empty", negative=["zero", 0])),
    )
    inputs, (warning,) = placed(graph, negative_prompt="new")
    assert inputs["bad"]["text"] == "old bad"
    assert "no text leads to the negative" in warning


def test_prompts_are_found_behind_nodes_that_hand_them_on() -> None:
    pair = {"positive": ["good", 0], "negative": ["bad", 0], "image": ["picture", 0]}
    graph = plain(
        picture=("LoadImage", {"image": "edges.png"}),
        control=("ControlNetApplyAdvanced", pair),
        guidance=("FluxGuidance", {"conditioning": ["control", 0], "guidance": 3.5}),
        sampler=("KSampler", sampling("empty", positive=["guidance", 0], negative=["control", 1])),
    )
    inputs, warnings = placed(graph, prompt="new", negative_prompt="new bad", input_image="mine.png")
    assert warnings == []
    assert (inputs["good"]["text"], inputs["bad"]["text"]) == ("new", "new bad")
    # The only picture that the graph loads.
    assert inputs["picture"]["image"] == "mine.png"


def test_encoders_with_several_texts_get_it_in_each() -> None:
    graph = plain(good=("CLIPTextEncodeSDXL", {"text_g": "a", "text_l": "b", "width": 8, "clip": ["ckpt", 1]}))
    inputs, _ = placed(graph, prompt="new")
    assert (inputs["good"]["text_g"], inputs["good"]["text_l"]) == ("new", "new")


def test_of_texts_that_are_combined_the_first_is_the_prompt() -> None:
    graph = plain(
        style=("CLIPTextEncode", {"text": "oil", "clip": ["ckpt", 1]}),
        both=("ConditioningCombine", {"conditioning_1": ["good", 0], "conditioning_2": ["style", 0]}),
        sampler=("KSampler", sampling("empty", positive=["both", 0])),
    )
    inputs, warnings = placed(graph, prompt="new")
    assert (inputs["good"]["text"], inputs["style"]["text"]) == ("new", "oil")
    assert warnings == ["prompt: both combines several texts; style keeps its own"]


def test_texts_combined_over_and_over_cost_no_time() -> None:
    more: Short = {"c0": ("ConditioningCombine", {"conditioning_1": ["good", 0], "conditioning_2": ["good", 0]})}
    for i in range(1, 60):
        link = [f"c{i - 1}", 0]
        more[f"c{i}"] = ("ConditioningCombine", {"conditioning_1": link, "conditioning_2": link})
    graph = plain(**more, sampler=("KSampler", sampling("empty", positive=["c59", 0])))
    assert placed(graph, prompt="new")[0]["good"]["text"] == "new"


def test_a_value_may_stand_in_a_node_of_its_own() -> None:
    graph = plain(
        words=("PrimitiveStringMultiline", {"value": "old"}),
        number=("PrimitiveInt", {"value": 3}),
        good=("CLIPTextEncode", {"text": ["words", 0], "clip": ["ckpt", 1]}),
        sampler=("KSampler", sampling("empty", seed=["number", 0])),
    )
    inputs, warnings = placed(graph, prompt="new", seed=7)
    assert warnings == []
    assert (inputs["words"], inputs["number"]) == ({"value": "new"}, {"value": 7})
    assert inputs["good"]["text"] == ["words", 0]


def test_what_is_computed_is_left_alone() -> None:
    graph = plain(
        words=("StringConcatenate", {"string_a": "a", "string_b": "b", "delimiter": ""}),
        good=("CLIPTextEncode", {"text": ["words", 0], "clip": ["ckpt", 1]}),
    )
    assert placed(graph, prompt="new")[1] == ["prompt was not placed: good.text is computed by words"]


def test_a_second_pass_keeps_its_own_numbers_but_shares_prompt_and_seed() -> None:
    graph = plain(
        larger=("LatentUpscale", {"samples": ["sampler", 0], "width": 16, "height": 16}),
        second=("KSampler", sampling("larger", steps=10, denoise=0.5, seed=2)),
        decode=("VAEDecode", {"samples": ["second", 0], "vae": ["ckpt", 2]}),
    )
    # Whatever the order in which they were written down.
    graph = dict(reversed(graph.items()))
    inputs, warnings = placed(graph, seed=7, steps=5, cfg_scale=3.0, width=64)
    assert warnings == []
    assert (inputs["sampler"]["steps"], inputs["second"]["steps"]) == (5, 10)
    assert (inputs["sampler"]["cfg"], inputs["second"]["cfg"]) == (3.0, 3.0)
    assert (inputs["sampler"]["seed"], inputs["second"]["seed"]) == (7, 7)
    assert (inputs["empty"]["width"], inputs["larger"]["width"]) == (64, 16)


def test_a_refiner_is_told_the_steps_and_that_its_part_stays() -> None:
    base = sampling("empty", noise_seed=1, start_at_step=0, end_at_step=16)
    refiner = sampling("sampler", noise_seed=1, start_at_step=16, end_at_step=10000, model=["other", 0])
    del base["seed"], refiner["seed"]
    graph = plain(
        other=("CheckpointLoaderSimple", {"ckpt_name": "refiner.safetensors"}),
        sampler=("KSamplerAdvanced", base),
        refine=("KSamplerAdvanced", refiner),
        decode=("VAEDecode", {"samples": ["refine", 0], "vae": ["ckpt", 2]}),
    )
    inputs, warnings = placed(graph, steps=30, seed=7, model_name="new.safetensors")
    assert [inputs[name]["steps"] for name in ("sampler", "refine")] == [30, 30]
    assert [inputs[name]["noise_seed"] for name in ("sampler", "refine")] == [7, 7]
    assert (inputs["ckpt"]["ckpt_name"], inputs["other"]["ckpt_name"]) == ("new.safetensors", "refiner.safetensors")
    assert [warning.split(" does")[0].split(" still")[0] for warning in warnings] == ["steps: sampler", "steps: refine"]


def test_a_sampler_in_parts() -> None:
    parts = {
        "noise": ["noise", 0],
        "guider": ["guider", 0],
        "sampler": ["which", 0],
        "sigmas": ["sigmas", 0],
        "latent_image": ["empty", 0],
    }
    graph = plain(
        unet=("UNETLoader", {"unet_name": "old.safetensors", "weight_dtype": "default"}),
        shift=("ModelSamplingFlux", {"model": ["unet", 0], "width": 8, "height": 8}),
        noise=("RandomNoise", {"noise_seed": 1}),
        guider=("BasicGuider", {"model": ["shift", 0], "conditioning": ["good", 0]}),
        which=("KSamplerSelect", {"sampler_name": "euler"}),
        sigmas=("BasicScheduler", {"model": ["shift", 0], "scheduler": "simple", "steps": 20, "denoise": 1.0}),
        sampler=("SamplerCustomAdvanced", parts),
    )
    inputs, warnings = placed(
        graph, prompt="new", seed=7, steps=4, sampler_name="heun", scheduler="beta", width=64, model_name="new"
    )
    assert warnings == []
    assert inputs["good"]["text"] == "new"
    assert inputs["noise"]["noise_seed"] == 7
    assert inputs["which"]["sampler_name"] == "heun"
    assert (inputs["sigmas"]["steps"], inputs["sigmas"]["scheduler"]) == (4, "beta")
    assert (inputs["empty"]["width"], inputs["shift"]["width"]) == (64, 64)
    assert inputs["unet"]["unet_name"] == "new"
    assert placed(graph, negative_prompt="x", cfg_scale=3)[1] == [
        "negative_prompt was not placed: no text leads to the negative input of sampler",
        "cfg_scale was not placed: the graph has no place for it",
    ]


def picture_graph(**more: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    encode = {"pixels": ["source", 0], "vae": ["ckpt", 2], "mask": ["hole", 0], "grow_mask_by": 6}
    return plain(
        **{
            "style": ("LoadImage", {"image": "style.png"}),
            "source": ("LoadImage", {"image": "old.png"}),
            "hole": ("LoadImageMask", {"image": "hole.png", "channel": "alpha"}),
            "empty": ("VAEEncodeForInpaint", encode),
            "show": ("PreviewImage", {"images": ["style", 0]}),
            **more,
        }
    )


def test_picture_and_mask_go_to_what_the_sampler_starts_from() -> None:
    inputs, warnings = placed(picture_graph(), input_image="a.png", mask="b.png", denoising_strength=0.5, width=64)
    assert warnings == []
    assert inputs["style"]["image"] == "style.png"
    assert inputs["source"]["image"] == "a.png"
    # Ours is grey, and its alpha would be read upside down.
    assert inputs["hole"] == {"image": "b.png", "channel": "red"}
    assert inputs["sampler"]["denoise"] == 0.5


def test_where_several_pictures_could_be_meant_none_is_replaced() -> None:
    graph = picture_graph(
        mix=("ImageBlend", {"image1": ["style", 0], "image2": ["source", 0]}),
        empty=("VAEEncode", {"pixels": ["mix", 0], "vae": ["ckpt", 2]}),
    )
    inputs, (warning,) = placed(graph, input_image="a.png")
    assert "several LoadImage nodes" in warning
    assert (inputs["style"]["image"], inputs["source"]["image"]) == ("style.png", "old.png")


def test_each_saving_node_has_a_prefix_of_its_own() -> None:
    graph = read_graph(plain(also=("SaveImage", {"images": ["decode", 0]})))
    prefix = "20261122/20261122-143210-3f2a9c1e0b7d"
    saved = with_prefix(graph, prefix)
    assert saved["save"]["inputs"]["filename_prefix"] == f"{prefix}-001"
    assert saved["also"]["inputs"]["filename_prefix"] == f"{prefix}-002"
    assert job_prefixes(prefix, 1) == [prefix]
    image = locate("20261122-143210-3f2a9c1e0b7d-002_00001_.png")
    assert image is not None
    assert image.subfolder == "20261122"


DEFINITION = {"python_module": "nodes", "output_node": False}


@pytest.mark.parametrize(
    ("name", "definition", "says"),
    [
        ("KSampler", DEFINITION, None),
        ("SaveImage", {"python_module": "nodes", "output_node": True}, None),
        ("FluxGuidance", {"python_module": "comfy_extras.nodes_flux"}, None),
        ("CheckpointSave", {"python_module": "comfy_extras.nodes_model_merging", "output_node": True}, "writes"),
        ("RegexMatch", {"python_module": "comfy_extras.nodes_string"}, "never end"),
        ("LoadImageOutput", DEFINITION, "of others"),
        ("Shell", {"python_module": "custom_nodes.shell"}, "custom node"),
        ("Shell", {"python_module": "nodes_evil"}, "custom node"),
        ("OpenAIDalle3", {"python_module": "comfy_api_nodes.nodes_openai"}, "custom node"),
        ("Shell", {}, "custom node"),
    ],
)
def test_only_harmless_nodes_are_let_in(name: str, definition: dict[str, Any], says: str | None) -> None:
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


def test_inputs_that_the_engine_makes_up_pass_the_check() -> None:
    schemas = {
        "A": {"input": {"required": {"images": ["COMFY_AUTOGROW_V3", {}], "x": ["FLOAT,INT"]}}, "output": ["IMAGE"]},
        "B": {"input": {}, "output": ["INT"]},
    }
    inputs = {"images.image0": ["A2", 0], "images.image1": ["A2", 0], "x": ["B", 0]}
    graph = api({"A": ("A", inputs), "A2": ("A", {"x": ["B", 0]}), "B": ("B", {})})
    assert check_graph(graph, schemas) == []


def test_our_own_graphs_have_a_place_for_every_field() -> None:
    graph = read_graph(json.loads((PROJECT_DIR / "tests/golden/inpaint_batch.json").read_text(encoding="utf-8")))
    places = find_places(graph)
    assert set(places.reasons) == {"width", "height", "batch_size"}


def named(**parameters: Any) -> dict[str, Any]:
    return {"dream_layer": {"title": "Test", "parameters": parameters}, "prompt": plain()}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"dream_layer": {}}, "must be a graph"),
        ({"dream_layer": {"parameter": {}}, "prompt": plain()}, "dream_layer.parameter: Extra inputs"),
        (named(words={"type": "text"}), "dream_layer.parameters.words.type"),
        (named(words={"type": "string", "minimum": 2}), "a string has no minimum"),
        (named(words={"type": "string"}), "words has no targets"),
        (named(words={"type": "string", "targets": ["nowhere.text"]}), "no such node"),
        (named(words={"type": "string", "targets": ["good"]}), "no such node"),
        (named(steps={"type": "integer", "minimum": 5, "default": 1}), "steps must be a whole number of at least 5"),
        (named(denoising_strength={"type": "number"}), "starts from an empty latent"),
    ],
)
def test_a_broken_workflow_says_what_is_wrong(content: Any, says: str) -> None:
    with pytest.raises(InvalidValue, match=says):
        read_workflow("test", content)


def test_parameters_are_described_and_read() -> None:
    workflow = read_workflow(
        "test",
        named(
            words={"type": "string", "required": True, "description": "what to draw", "targets": ["good.text"]},
            steps={"type": "integer", "minimum": 1, "maximum": 9, "default": 4},
            seed={"type": "integer"},
            look={"type": "string", "choices": ["karras", "normal"], "targets": ["sampler.scheduler"]},
        ),
    )
    schema = workflow.schema()
    assert schema["required"] == ["words"]
    assert schema["properties"]["words"] == {"description": "what to draw", "type": "string"}
    assert schema["properties"]["steps"] == {"type": "integer", "minimum": 1, "maximum": 9, "default": 4}
    assert schema["properties"]["look"] == {"type": "string", "enum": ["karras", "normal"]}
    assert workflow.targets["steps"] == (("sampler", "steps"),)
    # A form has only text.
    values, warnings = workflow.read({"words": "x", "steps": "9", "seed": -1, "stepz": 1}, random_seed=5)
    assert values == {"words": "x", "steps": 9, "seed": 5}
    assert warnings == ["ignored, because not known here: stepz (did you mean steps?)"]
    assert workflow.read({"words": "x", "seed": 3, "steps": None}, 5)[0] == {"words": "x", "steps": 4, "seed": 3}


@pytest.mark.parametrize(
    ("values", "field", "says"),
    [
        ({}, "words", "words is missing"),
        ({"words": 5}, "words", "must be text"),
        ({"words": "x", "steps": 10}, "steps", "must be a whole number from 1 to 9, not 10"),
        ({"words": "x", "steps": True}, "steps", "not True"),
        ({"words": "x", "steps": 1.5}, "steps", "whole number"),
        ({"words": "x", "cfg": float("nan")}, "cfg", "must be a number"),
        ({"words": "x", "seed": -2}, "seed", "whole number from 0 to 18446744073709551615"),
        ({"words": "x", "look": "karas"}, "look", "'karas' does not exist"),
    ],
)
def test_wrong_parameters_are_named(values: dict[str, Any], field: str, says: str) -> None:
    workflow = read_workflow(
        "test",
        named(
            words={"type": "string", "required": True, "targets": ["good.text"]},
            steps={"type": "integer", "minimum": 1, "maximum": 9},
            cfg={"type": "number", "targets": ["sampler.cfg"]},
            seed={"type": "integer"},
            look={"type": "string", "choices": ["karras", "normal"], "targets": ["sampler.scheduler"]},
        ),
    )
    with pytest.raises(InvalidValue, match=says) as wrong:
        workflow.read(values, 5)
    assert wrong.value.field == field


def test_without_a_header_the_parameters_are_those_that_have_a_place() -> None:
    workflow = read_workflow("test", plain())
    properties = workflow.schema()["properties"]
    assert set(properties) == {
        *("prompt", "negative_prompt", "seed", "steps", "cfg_scale", "sampler_name", "scheduler"),
        *("width", "height", "batch_size", "model_name"),
    }
    assert properties["steps"] == {"type": "integer", "default": 20}
    assert properties["prompt"] == {"type": "string", "default": "old"}
    assert workflow.read({}, random_seed=5)[0]["seed"] == 5
