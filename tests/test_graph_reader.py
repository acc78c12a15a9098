"""The parameters that are read from the graph in a picture."""

from typing import Any

import pytest

from shared.metadata.graph_reader import read_parameters


def graph(**changes: Any) -> dict[str, Any]:
    """The default graph of ComfyUI's editor, with a LoRA."""

    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    return {
        "3": node(
            "KSampler", seed=9, steps=20, cfg=8.0, sampler_name="euler", scheduler="normal", denoise=1.0,
            model=["10", 0], positive=["6", 0], negative=["7", 0], latent_image=["5", 0],
        ),
        "4": node("CheckpointLoaderSimple", ckpt_name="v1.safetensors"),
        "5": node("EmptyLatentImage", width=512, height=768, batch_size=1),
        "6": node("CLIPTextEncode", text="a bottle", clip=["10", 1]),
        "7": node("CLIPTextEncode", text="text", clip=["10", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", images=["8", 0], filename_prefix="ComfyUI"),
        "10": node("LoraLoader", model=["4", 0], clip=["4", 1], lora_name="l", strength_model=0.5, strength_clip=1.0),
        **changes,
    }  # fmt: skip


def test_the_parameters_of_the_default_graph_are_read() -> None:
    recipe = read_parameters(graph())
    assert recipe is not None
    assert recipe.kind == "txt2img"
    assert recipe.parameters == {
        "prompt": "a bottle", "negative_prompt": "text", "seed": 9, "steps": 20, "cfg_scale": 8.0,
        "sampler_name": "euler", "scheduler": "normal", "model_name": "v1.safetensors", "width": 512, "height": 768,
        "loras": [{"lora_name": "l", "strength_model": 0.5, "strength_clip": 1.0}],
    }  # fmt: skip


def test_a_flux_graph_has_guidance_and_no_negative_prompt() -> None:
    recipe = read_parameters(
        graph(
            **{
                "3": {
                    "class_type": "KSampler",
                    "inputs": {**graph()["3"]["inputs"], "cfg": 1.0, "positive": ["30", 0]},
                },
                "7": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["6", 0]}},
                "10": {"class_type": "LoraLoaderModelOnly", "inputs": {"model": ["4", 0], "lora_name": "l"}},
                "30": {"class_type": "FluxGuidance", "inputs": {"conditioning": ["6", 0], "guidance": 3.5}},
            }
        )
    )
    assert recipe is not None
    assert (recipe.parameters["prompt"], recipe.parameters["negative_prompt"]) == ("a bottle", "")
    assert (recipe.parameters["cfg_scale"], recipe.parameters["guidance"]) == (1.0, 3.5)
    assert recipe.parameters["loras"] == [{"lora_name": "l", "strength_clip": 0}]


def test_a_prompt_is_read_from_other_encoders_or_reported_as_unknown() -> None:
    other = {"class_type": "TextEncodeQwenImageEdit", "inputs": {"prompt": "a cup", "clip": ["10", 1]}}
    recipe = read_parameters(graph(**{"6": other}))
    assert recipe is not None
    assert (recipe.parameters["prompt"], len(recipe.warnings)) == ("a cup", 1)
    computed = {"class_type": "CLIPTextEncode", "inputs": {"text": ["40", 0], "clip": ["10", 1]}}
    recipe = read_parameters(graph(**{"6": computed, "40": {"class_type": "Wildcards", "inputs": {"seed_of_it": 3}}}))
    assert recipe is not None
    assert recipe.warnings[-1] == "the prompt could not be read from the graph"


def test_a_graph_with_source_control_and_second_pass_is_read() -> None:
    first = graph()["3"]["inputs"]
    changes = {
        "3": {"class_type": "KSampler", "inputs": {**first, "seed": ["20", 0], "positive": ["21", 0]}},
        "5": {"class_type": "VAEEncode", "inputs": {"pixels": ["22", 0], "vae": ["4", 2]}},
        "20": {"class_type": "PrimitiveInt", "inputs": {"value": 77}},
        "21": {"class_type": "ControlNetApplyAdvanced", "inputs": {"positive": ["6", 0], "negative": ["7", 0]}},
        "22": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
        "0": {"class_type": "KSampler", "inputs": {**first, "seed": 1, "latent_image": ["3", 0]}},
    }
    recipe = read_parameters(dict(sorted(graph(**changes).items())))
    assert recipe is not None
    assert (recipe.kind, recipe.parameters["seed"], recipe.parameters["prompt"]) == ("img2img", 77, "a bottle")
    assert recipe.parameters["denoising_strength"] == 1.0
    assert "2 samplers" in recipe.warnings[-1]


@pytest.mark.parametrize(
    "graph_without_sampler",
    [
        {},
        {"1": None, "2": {"class_type": "KSampler"}},
        {"1": {"class_type": "SaveImage", "inputs": {}}},
    ],
)
def test_a_graph_without_a_sampler_has_no_parameters(graph_without_sampler: dict[str, Any]) -> None:
    assert read_parameters(graph_without_sampler) is None


def test_a_cycle_of_nodes_is_read_once() -> None:
    ring = {"class_type": "KSampler", "inputs": {"latent_image": ["1", 0], "model": ["1", 0], "positive": ["1", 0]}}
    recipe = read_parameters({"1": ring})
    assert recipe is not None
    assert recipe.parameters == {"prompt": "", "negative_prompt": ""}
