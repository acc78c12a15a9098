"""The inputs of imported graphs that the fields of a request set."""

import json
from typing import Any

import pytest

from shared.jobs.picture_names import locate, node_prefixes, with_prefix
from shared.settings import PROJECT_DIR
from tests.imported_graphs import ShortGraph, default_graph, sampling, to_api
from workflows.bindings import bind, find_bindings, reads_alpha
from workflows.imported_graph import read_graph


def bound(graph: dict[str, Any], **values: Any) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Bind `values` and return the inputs of each node and the warnings."""
    result, warnings = bind(read_graph(graph), values)
    return {name: node["inputs"] for name, node in result.items()}, warnings


def test_every_field_sets_its_input() -> None:
    inputs, warnings = bound(
        default_graph(),
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


def test_fields_that_were_not_sent_change_nothing() -> None:
    assert bound(default_graph(), prompt="new")[0]["sampler"] == sampling("empty")


def test_a_size_is_raised_to_a_multiple_of_8() -> None:
    inputs, warnings = bound(default_graph(), width=60)
    assert inputs["empty"]["width"] == 64
    assert warnings == ["width 60 was raised to 64, a multiple of 8"]


@pytest.mark.parametrize(
    ("values", "expected_warning"),
    [
        ({"input_image": "a.png"}, "input_image was not set: the graph has no LoadImage node"),
        ({"mask": "a.png"}, "mask was not set: the graph has no LoadImageMask node"),
        ({"denoising_strength": 0.5}, "denoising_strength was not set: sampler starts from an empty latent"),
    ],
)
def test_a_field_without_an_input_is_a_warning(values: dict[str, Any], expected_warning: str) -> None:
    inputs, warnings = bound(default_graph(), **values)
    assert warnings == [expected_warning]
    assert inputs == {name: node["inputs"] for name, node in default_graph().items()}


def test_without_a_sampler_nothing_is_set() -> None:
    graph = to_api({"a": ("EmptyImage", {"width": 8}), "b": ("SaveImage", {"images": ["a", 0]})})
    inputs, warnings = bound(graph, prompt="new", width=16)
    assert inputs["a"] == {"width": 8}
    assert [warning.split(":")[0] for warning in warnings] == ["prompt was not set", "width was not set"]
    # The engine requires a prefix.
    assert inputs["b"]["filename_prefix"] == ""


def test_a_text_that_serves_both_prompts_takes_the_positive_one() -> None:
    graph = default_graph(sampler=("KSampler", sampling("empty", negative=["good", 0])))
    for values in ({"negative_prompt": "bad"}, {"negative_prompt": "bad", "prompt": "new"}):
        inputs, warnings = bound(graph, **values)
        assert inputs["good"]["text"] == values.get("prompt", "old")
        assert warnings == ["negative_prompt was not set: good.text already takes prompt"]


def test_a_zeroed_negative_takes_no_text() -> None:
    graph = default_graph(
        zero=("ConditioningZeroOut", {"conditioning": ["bad", 0]}),
        sampler=("KSampler", sampling("empty", negative=["zero", 0])),
    )
    inputs, (warning,) = bound(graph, negative_prompt="new")
    assert inputs["bad"]["text"] == "old bad"
    assert "no text feeds the negative" in warning


def test_prompts_are_found_through_conditioning_nodes() -> None:
    pair = {"positive": ["good", 0], "negative": ["bad", 0], "image": ["picture", 0]}
    graph = default_graph(
        picture=("LoadImage", {"image": "edges.png"}),
        control=("ControlNetApplyAdvanced", pair),
        guidance=("FluxGuidance", {"conditioning": ["control", 0], "guidance": 3.5}),
        sampler=("KSampler", sampling("empty", positive=["guidance", 0], negative=["control", 1])),
    )
    inputs, warnings = bound(graph, prompt="new", negative_prompt="new bad", input_image="mine.png")
    assert warnings == []
    assert (inputs["good"]["text"], inputs["bad"]["text"]) == ("new", "new bad")
    # The only picture that the graph loads.
    assert inputs["picture"]["image"] == "mine.png"


def test_an_encoder_with_several_texts_gets_the_prompt_in_each() -> None:
    graph = default_graph(good=("CLIPTextEncodeSDXL", {"text_g": "a", "text_l": "b", "width": 8, "clip": ["ckpt", 1]}))
    inputs, _ = bound(graph, prompt="new")
    assert (inputs["good"]["text_g"], inputs["good"]["text_l"]) == ("new", "new")


def test_the_first_of_combined_texts_is_the_prompt() -> None:
    graph = default_graph(
        style=("CLIPTextEncode", {"text": "oil", "clip": ["ckpt", 1]}),
        both=("ConditioningCombine", {"conditioning_1": ["good", 0], "conditioning_2": ["style", 0]}),
        sampler=("KSampler", sampling("empty", positive=["both", 0])),
    )
    inputs, warnings = bound(graph, prompt="new")
    assert (inputs["good"]["text"], inputs["style"]["text"]) == ("new", "oil")
    assert warnings == ["prompt: both combines several texts; style keeps its own"]


def test_a_text_that_is_combined_many_times_is_read_once() -> None:
    more: ShortGraph = {"c0": ("ConditioningCombine", {"conditioning_1": ["good", 0], "conditioning_2": ["good", 0]})}
    for i in range(1, 60):
        link = [f"c{i - 1}", 0]
        more[f"c{i}"] = ("ConditioningCombine", {"conditioning_1": link, "conditioning_2": link})
    graph = default_graph(**more, sampler=("KSampler", sampling("empty", positive=["c59", 0])))
    assert bound(graph, prompt="new")[0]["good"]["text"] == "new"


def test_a_value_is_set_in_the_constant_that_holds_it() -> None:
    graph = default_graph(
        words=("PrimitiveStringMultiline", {"value": "old"}),
        number=("PrimitiveInt", {"value": 3}),
        good=("CLIPTextEncode", {"text": ["words", 0], "clip": ["ckpt", 1]}),
        sampler=("KSampler", sampling("empty", seed=["number", 0])),
    )
    inputs, warnings = bound(graph, prompt="new", seed=7)
    assert warnings == []
    assert (inputs["words"], inputs["number"]) == ({"value": "new"}, {"value": 7})
    assert inputs["good"]["text"] == ["words", 0]


def test_a_computed_value_is_not_replaced() -> None:
    graph = default_graph(
        words=("StringConcatenate", {"string_a": "a", "string_b": "b", "delimiter": ""}),
        good=("CLIPTextEncode", {"text": ["words", 0], "clip": ["ckpt", 1]}),
    )
    assert bound(graph, prompt="new")[1] == ["prompt was not set: good.text is computed by words"]


def test_a_second_pass_keeps_its_steps_and_shares_the_seed() -> None:
    graph = default_graph(
        larger=("LatentUpscale", {"samples": ["sampler", 0], "width": 16, "height": 16}),
        second=("KSampler", sampling("larger", steps=10, denoise=0.5, seed=2)),
        decode=("VAEDecode", {"samples": ["second", 0], "vae": ["ckpt", 2]}),
    )
    # The order of the nodes in the graph does not matter.
    graph = dict(reversed(graph.items()))
    inputs, warnings = bound(graph, seed=7, steps=5, cfg_scale=3.0, width=64)
    assert warnings == []
    assert (inputs["sampler"]["steps"], inputs["second"]["steps"]) == (5, 10)
    assert (inputs["sampler"]["cfg"], inputs["second"]["cfg"]) == (3.0, 3.0)
    assert (inputs["sampler"]["seed"], inputs["second"]["seed"]) == (7, 7)
    assert (inputs["empty"]["width"], inputs["larger"]["width"]) == (64, 16)


def test_a_refiner_gets_the_steps_and_keeps_its_range() -> None:
    base = sampling("empty", noise_seed=1, start_at_step=0, end_at_step=16)
    refiner = sampling("sampler", noise_seed=1, start_at_step=16, end_at_step=10000, model=["other", 0])
    del base["seed"], refiner["seed"]
    graph = default_graph(
        other=("CheckpointLoaderSimple", {"ckpt_name": "refiner.safetensors"}),
        sampler=("KSamplerAdvanced", base),
        refine=("KSamplerAdvanced", refiner),
        decode=("VAEDecode", {"samples": ["refine", 0], "vae": ["ckpt", 2]}),
    )
    inputs, warnings = bound(graph, steps=30, seed=7, model_name="new.safetensors")
    assert [inputs[name]["steps"] for name in ("sampler", "refine")] == [30, 30]
    assert [inputs[name]["noise_seed"] for name in ("sampler", "refine")] == [7, 7]
    assert (inputs["ckpt"]["ckpt_name"], inputs["other"]["ckpt_name"]) == ("new.safetensors", "refiner.safetensors")
    assert [warning.split(" does")[0].split(" still")[0] for warning in warnings] == ["steps: sampler", "steps: refine"]


@pytest.mark.parametrize(("start", "end"), [(0, "16"), (None, 16), (["other", 0], 10000), (True, 16), (0.5, 20)])
def test_a_step_range_without_integers_adds_no_warning(start: Any, end: Any) -> None:
    advanced = sampling("empty", noise_seed=1, start_at_step=start, end_at_step=end)
    del advanced["seed"]
    graph = default_graph(other=("PrimitiveInt", {"value": 3}), sampler=("KSamplerAdvanced", advanced))
    assert bound(graph, steps=30)[1] == []


def test_a_dual_guider_keeps_the_text_of_the_negative() -> None:
    """The OmniGen2 template has such a guider. Its second conditioning has the negative prompt and the references."""
    guided = {"model": ["ckpt", 0], "cond1": ["good", 0], "cond2": ["bad", 0], "negative": ["bad", 0]}
    parts = {"noise": ["noise", 0], "guider": ["guider", 0], "sampler": ["which", 0], "sigmas": ["sigmas", 0]}
    graph = default_graph(
        noise=("RandomNoise", {"noise_seed": 1}),
        guider=("DualCFGGuider", {**guided, "cfg_conds": 5.0, "cfg_cond2_negative": 2.0}),
        which=("KSamplerSelect", {"sampler_name": "euler"}),
        sigmas=("BasicScheduler", {"model": ["ckpt", 0], "scheduler": "simple", "steps": 20, "denoise": 1.0}),
        sampler=("SamplerCustomAdvanced", {**parts, "latent_image": ["empty", 0]}),
    )
    inputs, warnings = bound(graph, prompt="new", negative_prompt="new bad")
    assert (inputs["good"]["text"], inputs["bad"]["text"], warnings) == ("new", "new bad", [])


@pytest.mark.parametrize(
    ("kind", "further"), [("StringSubstring", {"start": 0, "end": 5}), ("StringReplace", {"find": "a", "replace": "b"})]
)
def test_a_node_that_changes_its_text_is_not_a_constant(kind: str, further: dict[str, Any]) -> None:
    graph = default_graph(
        words=(kind, {"string": "a", **further}), good=("CLIPTextEncode", {"text": ["words", 0], "clip": ["ckpt", 1]})
    )
    assert bound(graph, prompt="new")[1] == ["prompt was not set: good.text is computed by words"]


def test_the_picture_of_a_controlnet_is_not_the_source() -> None:
    path = PROJECT_DIR / "tests" / "golden" / "control_inpaint_model.json"
    graph = json.loads(path.read_text(encoding="utf-8"))
    inputs, warnings = bound(graph, input_image="new.png")
    assert warnings == []
    (loader,) = (name for name, node_inputs in inputs.items() if node_inputs.get("image") == "new.png")
    (inpaint,) = (node for node in graph.values() if node["class_type"] == "InpaintModelConditioning")
    assert inpaint["inputs"]["pixels"] == [loader, 0]


def test_settings_are_found_in_the_nodes_of_a_custom_sampler() -> None:
    parts = {
        "noise": ["noise", 0],
        "guider": ["guider", 0],
        "sampler": ["which", 0],
        "sigmas": ["sigmas", 0],
        "latent_image": ["empty", 0],
    }
    graph = default_graph(
        unet=("UNETLoader", {"unet_name": "old.safetensors", "weight_dtype": "default"}),
        shift=("ModelSamplingFlux", {"model": ["unet", 0], "width": 8, "height": 8}),
        noise=("RandomNoise", {"noise_seed": 1}),
        guider=("BasicGuider", {"model": ["shift", 0], "conditioning": ["good", 0]}),
        which=("KSamplerSelect", {"sampler_name": "euler"}),
        sigmas=("BasicScheduler", {"model": ["shift", 0], "scheduler": "simple", "steps": 20, "denoise": 1.0}),
        sampler=("SamplerCustomAdvanced", parts),
    )
    inputs, warnings = bound(
        graph, prompt="new", seed=7, steps=4, sampler_name="heun", scheduler="beta", width=64, model_name="new"
    )
    assert warnings == []
    assert inputs["good"]["text"] == "new"
    assert inputs["noise"]["noise_seed"] == 7
    assert inputs["which"]["sampler_name"] == "heun"
    assert (inputs["sigmas"]["steps"], inputs["sigmas"]["scheduler"]) == (4, "beta")
    assert (inputs["empty"]["width"], inputs["shift"]["width"]) == (64, 64)
    assert inputs["unet"]["unet_name"] == "new"
    assert bound(graph, negative_prompt="x", cfg_scale=3)[1] == [
        "negative_prompt was not set: no text feeds the negative input of sampler",
        "cfg_scale was not set: the graph has no input for it",
    ]


def picture_graph(**more: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    encode = {"pixels": ["source", 0], "vae": ["ckpt", 2], "mask": ["mask_loader", 0], "grow_mask_by": 6}
    return default_graph(
        **{
            "style": ("LoadImage", {"image": "style.png"}),
            "source": ("LoadImage", {"image": "old.png"}),
            "mask_loader": ("LoadImageMask", {"image": "mask.png", "channel": "alpha"}),
            "empty": ("VAEEncodeForInpaint", encode),
            "show": ("PreviewImage", {"images": ["style", 0]}),
            **more,
        }
    )


def test_picture_and_mask_are_set_in_the_loaders_of_the_samplers_source() -> None:
    inputs, warnings = bound(picture_graph(), input_image="a.png", mask="b.png", denoising_strength=0.5, width=64)
    assert warnings == []
    assert inputs["style"]["image"] == "style.png"
    assert inputs["source"]["image"] == "a.png"
    # The mask is encoded for the channel that this node reads.
    assert inputs["mask_loader"] == {"image": "b.png", "channel": "alpha"}
    assert reads_alpha(read_graph(picture_graph()), ("mask_loader", "image"))
    assert inputs["sampler"]["denoise"] == 0.5


def test_no_picture_is_replaced_if_several_match() -> None:
    graph = picture_graph(
        mix=("ImageBlend", {"image1": ["style", 0], "image2": ["source", 0]}),
        empty=("VAEEncode", {"pixels": ["mix", 0], "vae": ["ckpt", 2]}),
    )
    inputs, (warning,) = bound(graph, input_image="a.png")
    assert "several LoadImage nodes" in warning
    assert (inputs["style"]["image"], inputs["source"]["image"]) == ("style.png", "old.png")


def test_each_saving_node_has_its_own_prefix() -> None:
    graph = read_graph(default_graph(also=("SaveImage", {"images": ["decode", 0]})))
    prefix = "20261122/20261122-143210-3f2a9c1e0b7d"
    saved = with_prefix(graph, prefix)
    assert saved["save"]["inputs"]["filename_prefix"] == f"{prefix}-001"
    assert saved["also"]["inputs"]["filename_prefix"] == f"{prefix}-002"
    assert node_prefixes(prefix, 1) == [prefix]
    image = locate("20261122-143210-3f2a9c1e0b7d-002_00001_.png")
    assert image is not None
    assert image.subfolder == "20261122"


def test_our_own_graphs_have_an_input_for_every_field() -> None:
    graph = read_graph(json.loads((PROJECT_DIR / "tests/golden/inpaint_batch.json").read_text(encoding="utf-8")))
    bindings = find_bindings(graph)
    assert set(bindings.reasons) == {"width", "height", "batch_size"}


def alpha_graph(**more: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """A graph that repaints the transparent part of its picture, as in ComfyUI's own example."""
    encode = {"pixels": ["source", 0], "vae": ["ckpt", 2], "mask": ["source", 1], "grow_mask_by": 6}
    return default_graph(
        **{"source": ("LoadImage", {"image": "old.png"}), "empty": ("VAEEncodeForInpaint", encode), **more}
    )


def test_without_a_mask_loader_the_mask_is_the_transparency_of_the_picture() -> None:
    graph = read_graph(alpha_graph())
    bindings = find_bindings(graph)
    assert bindings.targets["mask"] == bindings.targets["input_image"] == [("source", "image")]
    assert reads_alpha(graph, ("source", "image"))
    inputs, warnings = bound(alpha_graph(), input_image="a.png", mask="a.png")
    assert (inputs["source"], warnings) == ({"image": "a.png"}, [])


def test_a_picture_loaded_for_its_transparency_alone_takes_the_mask() -> None:
    encode = {"pixels": ["source", 0], "vae": ["ckpt", 2], "mask": ["mask_loader", 1], "grow_mask_by": 6}
    graph = alpha_graph(mask_loader=("LoadImage", {"image": "mask.png"}), empty=("VAEEncodeForInpaint", encode))
    inputs, warnings = bound(graph, input_image="a.png", mask="b.png")
    assert (inputs["source"]["image"], inputs["mask_loader"]["image"], warnings) == ("a.png", "b.png", [])
    assert not reads_alpha(read_graph(graph), ("source", "image"))


def test_a_mask_loader_comes_before_transparency() -> None:
    graph = alpha_graph(
        mask_loader=("LoadImageMask", {"image": "mask.png", "channel": "red"}),
        show=("MaskToImage", {"mask": ["mask_loader", 0]}),
    )
    inputs, _ = bound(graph, input_image="a.png", mask="b.png")
    assert (inputs["source"]["image"], inputs["mask_loader"]["image"]) == ("a.png", "b.png")


@pytest.mark.parametrize(
    ("channel", "alpha"), [("alpha", True), ("red", False), ("green", False), ("blue", False), (["source", 0], True)]
)
def test_a_mask_loader_keeps_its_channel(channel: Any, alpha: bool) -> None:
    graph = picture_graph(mask_loader=("LoadImageMask", {"image": "mask.png", "channel": channel}))
    assert reads_alpha(read_graph(graph), ("mask_loader", "image")) == alpha
    inputs, _ = bound(graph, input_image="a.png", mask="b.png")
    assert inputs["mask_loader"] == {"image": "b.png", "channel": channel}


def test_a_mask_loader_of_the_same_file_gets_the_picture_unless_a_mask_is_sent() -> None:
    same = picture_graph(mask_loader=("LoadImageMask", {"image": "old.png", "channel": "alpha"}))
    inputs, warnings = bound(same, input_image="a.png")
    assert (inputs["source"]["image"], inputs["mask_loader"]["image"], warnings) == ("a.png", "a.png", [])
    inputs, _ = bound(same, input_image="a.png", mask="b.png")
    assert (inputs["source"]["image"], inputs["mask_loader"]["image"]) == ("a.png", "b.png")
    inputs, _ = bound(picture_graph(), input_image="a.png")
    assert inputs["mask_loader"]["image"] == "mask.png"


def test_the_second_output_of_every_loader_is_the_transparency() -> None:
    encode = {"pixels": ["source", 0], "vae": ["ckpt", 2], "mask": ["source", 1], "grow_mask_by": 6}
    for kind in ("LoadImage", "LoadImageOutput", "LoadImageFromElsewhere"):
        graph = read_graph(default_graph(source=(kind, {"image": "old.png"}), empty=("VAEEncodeForInpaint", encode)))
        assert reads_alpha(graph, ("source", "image"))
    inputs, _ = bound(
        default_graph(source=("LoadImageOutput", {"image": "old.png"}), empty=("VAEEncodeForInpaint", encode)),
        input_image="a.png",
        mask="a.png",
    )
    assert inputs["source"]["image"] == "a.png"
