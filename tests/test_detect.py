"""Model detection from file headers: family and kind. The families are compared with the engine's detection."""

import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from shared.models.defaults import defaults_for, is_text_to_image, recommended_pixels
from shared.models.detect import Family, ModelFile, ModelPart, TextEncoder, classify, detect_kind
from shared.models.safetensors import LARGEST, MAX_PROBED_VALUES, PROBED_TENSORS, read_header
from shared.settings import PROJECT_DIR
from tests import safetensors_factory as factory

ALL = frozenset(ModelPart)
ALONE = frozenset({ModelPart.DIFFUSION_MODEL})
XL = "conditioner.embedders.0.transformer."
# Tensors, the engine's name of the model, our family, whether it is for inpainting, and its parts.
MODELS: dict[str, tuple[factory.Shapes, str, Family, bool, frozenset[ModelPart]]] = {
    "sd1": (factory.checkpoint(factory.sd1_unet()), "SD15", Family.SD1, False, ALL),
    "sd1-inpainting": (factory.checkpoint(factory.sd1_unet(9)), "SD15", Family.SD1, True, ALL),
    "sd1-ip2p": (factory.checkpoint(factory.sd1_unet(8)), "SD15_instructpix2pix", Family.SD1, False, ALL),
    "sdxl-ip2p": (factory.sdxl_unet(8), "SDXL_instructpix2pix", Family.SDXL, False, ALONE),
    "sd1-alone": (factory.sd1_unet(), "SD15", Family.SD1, False, ALONE),
    "sd2": (factory.checkpoint(factory.sd2_unet()), "SD20", Family.SD2, False, ALL),
    "sdxl": (factory.checkpoint(factory.sdxl_unet(), XL), "SDXL", Family.SDXL, False, ALL),
    "sdxl-alone": (factory.sdxl_unet(), "SDXL", Family.SDXL, False, ALONE),
    "sdxl-inpainting": (factory.sdxl_unet(9), "SDXL", Family.SDXL, True, ALONE),
    "refiner": (factory.checkpoint(factory.refiner_unet(), XL), "SDXLRefiner", Family.SDXL_REFINER, False, ALL),
    "sd3": (factory.checkpoint(factory.sd3_transformer(), "text_encoders.clip_l."), "SD3", Family.SD3, False, ALL),
    "sd3-alone": (factory.sd3_transformer(), "SD3", Family.SD3, False, ALONE),
    "flux-dev": (factory.flux_transformer(guided=True), "Flux", Family.FLUX_DEV, False, ALONE),
    "flux-fill": (factory.flux_transformer(guided=True, inputs=384), "FluxInpaint", Family.FLUX_DEV, True, ALONE),
    "flux-schnell": (factory.flux_transformer(guided=False), "FluxSchnell", Family.FLUX_SCHNELL, False, ALONE),
    "flux-checkpoint": (
        factory.checkpoint(factory.flux_transformer(guided=True), "text_encoders.clip_l.", "vae."),
        "Flux",
        Family.FLUX_DEV,
        False,
        ALL,
    ),
}
ENCODERS = {
    "clip_l": (factory.clip_l(), "CLIP_L", TextEncoder.CLIP_L),
    "clip_g": (factory.clip_g(), "CLIP_G", TextEncoder.CLIP_G),
    "clip_h": (factory.clip_h(), "CLIP_H", TextEncoder.CLIP_H),
    "t5xxl": (factory.t5xxl(), "T5_XXL", TextEncoder.T5XXL),
}
# The prediction of a Stable Diffusion 2 model, and values of the bias that it is read from.
SPREADS = {"v": (-0.1, 0.1), "epsilon": (-0.08, 0.08)}
# Reads {name: {key: shape}} and writes {name: the engine's name of the model}, and {path: prediction} for each file.
DETECTION = """
import json, sys
sys.path.insert(0, sys.argv[1])
from comfy.cli_args import args
args.cpu = True
import torch
import comfy.model_detection, comfy.sd
known = {}
for name, shapes in json.load(sys.stdin).items():
    weights = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    encoder = comfy.sd.detect_te_model(weights)
    if encoder is not None:
        known[name] = encoder.name
        continue
    prefix = comfy.model_detection.unet_prefix_from_state_dict(weights)
    prefix = prefix if any(key.startswith(prefix) for key in weights) else ""
    known[name] = type(comfy.model_detection.model_config_from_unet(weights, prefix)).__name__
for path in sys.argv[2:]:
    weights = comfy.utils.load_torch_file(path)
    prefix = comfy.model_detection.unet_prefix_from_state_dict(weights)
    known[path] = comfy.model_detection.model_config_from_unet(weights, prefix).model_type(weights, prefix).name
print(json.dumps(known))
"""


def classify_shapes(tmp_path: Path, shapes: factory.Shapes, **metadata: str) -> ModelFile:
    named = {name.replace("__", "."): value for name, value in metadata.items()}
    path = factory.write(tmp_path / "file.safetensors", shapes, named)
    return classify("any name", read_header(path))


@pytest.mark.parametrize("name", MODELS)
def test_a_diffusion_model_is_detected(tmp_path: Path, name: str) -> None:
    shapes, _, family, inpainting, parts = MODELS[name]
    file = classify_shapes(tmp_path, shapes)
    assert (file.family, file.inpainting, file.parts, file.known) == (family, inpainting, parts, True)


@pytest.mark.parametrize("name", MODELS)
def test_models_with_further_inputs_are_not_for_text_to_image(tmp_path: Path, name: str) -> None:
    file = classify_shapes(tmp_path, MODELS[name][0])
    assert file.text_to_image == (not file.inpainting and not name.endswith("-ip2p"))
    assert is_text_to_image(file) == (file.text_to_image and name != "refiner")


VIDEO = {"patch_embedding.weight": (1536, 16, 1, 2, 2)}
OTHER_PURPOSES: dict[str, factory.Shapes] = {
    "upscale": factory.sd2_unet(7),
    "stable video": {**factory.unet(channels=320, context=1024, depths=(1, 1, 1, 0), inputs=8, conditions=768)},
    "video unet": {**factory.sd2_unet(), "input_blocks.1.1.time_stack.0.attn2.to_k.weight": (320, 1024)},
    "flux with a control map": factory.flux_transformer(guided=True, inputs=128),
    "wan": {**VIDEO, "head.modulation": (1, 2, 1536)},
    "hunyuan video": {"img_in.proj.weight": (3072, 16, 1, 2, 2), "double_blocks.0.img_attn.qkv.weight": (9216, 3072)},
    "ltx": {"adaln_single.emb.timestep_embedder.linear_1.bias": (2048,), "patchify_proj.weight": (2048, 128)},
    "stable audio": {"transformer.rotary_pos_emb.inv_freq": (16,)},
    "ace-step": {"genre_embedder.weight": (2560, 512)},
}


@pytest.mark.parametrize("name", OTHER_PURPOSES)
@pytest.mark.parametrize("prefix", ["", factory.INSIDE])
def test_models_for_other_purposes_are_not_for_text_to_image(tmp_path: Path, name: str, prefix: str) -> None:
    file = classify_shapes(tmp_path, factory.under(prefix, OTHER_PURPOSES[name]))
    assert (file.text_to_image, is_text_to_image(file)) == (False, False)


def test_unknown_models_may_be_for_text_to_image_but_parts_are_not(tmp_path: Path) -> None:
    assert not is_text_to_image(classify_shapes(tmp_path, factory.under("first_stage_model.", factory.autoencoder(4))))
    assert is_text_to_image(classify_shapes(tmp_path, {"double_layers.0.attn.w1q.weight": (3072, 3072)}))
    assert is_text_to_image(classify_shapes(tmp_path, {"img_in.proj.weight": (3584, 64, 1, 1)}))
    assert not is_text_to_image(classify_shapes(tmp_path, {"model.model.transformer.rotary_pos_emb.inv_freq": (16,)}))


@pytest.mark.parametrize("name", ENCODERS)
def test_a_text_encoder_is_detected(tmp_path: Path, name: str) -> None:
    file = classify_shapes(tmp_path, ENCODERS[name][0])
    assert (file.text_encoder, file.family) == (ENCODERS[name][2], Family.UNKNOWN)
    assert file.parts == {ModelPart.TEXT_ENCODERS}


def test_the_multilingual_t5_is_not_taken_for_t5xxl(tmp_path: Path) -> None:
    shapes = factory.t5xxl() | {"shared.weight": (256384, 4096)}
    assert classify_shapes(tmp_path, shapes).text_encoder is TextEncoder.UNKNOWN


def sd2(path: Path, dtype: str, values: Sequence[float], inputs: int = 4) -> Path:
    """Write a Stable Diffusion 2 checkpoint with these values in the bias that detection reads."""
    name = factory.INSIDE + PROBED_TENSORS[0]
    shapes = factory.checkpoint(factory.sd2_unet(inputs))
    tensors = {key: ("F16", shape) for key, shape in shapes.items()} | {name: (dtype, (len(values),))}
    whole = b"".join(struct.pack("<f", value) for value in values)
    # A bfloat16 is the upper half of a float32.
    upper = b"".join(whole[i + 2 : i + 4] for i in range(0, len(whole), 4))
    content = {"F32": whole, "BF16": upper, "F16": struct.pack(f"<{len(values)}e", *values)}
    return factory.write_safetensors(path, tensors, content={name: content[dtype]})


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
@pytest.mark.parametrize("prediction", SPREADS)
def test_the_prediction_of_stable_diffusion_2_is_read_from_a_bias(tmp_path: Path, dtype: str, prediction: str) -> None:
    path = sd2(tmp_path / "x.safetensors", dtype, SPREADS[prediction] * 160)
    file = classify("x", read_header(path))
    assert (file.family, file.prediction) == (Family.SD2, prediction)
    assert defaults_for(file).width == {"v": 768, "epsilon": 512}[prediction]


def test_stable_diffusion_2_for_inpainting_predicts_the_noise(tmp_path: Path) -> None:
    file = classify("x", read_header(sd2(tmp_path / "x.safetensors", "F16", SPREADS["v"], inputs=9)))
    assert (file.prediction, defaults_for(file).width) == ("epsilon", 512)


@pytest.mark.parametrize("values", [(), (math.nan, 0.1), (math.inf, 0.1)])
def test_a_bias_without_finite_values_is_ignored(tmp_path: Path, values: tuple[float, ...]) -> None:
    assert classify("x", read_header(sd2(tmp_path / "x.safetensors", "F32", values))).prediction is None


def test_only_a_few_values_of_supported_types_are_read(tmp_path: Path) -> None:
    name = PROBED_TENSORS[0]
    fp8 = factory.write_safetensors(tmp_path / "8.safetensors", {name: ("F8_E4M3", (320,))})
    large = factory.write_safetensors(tmp_path / "large.safetensors", {name: ("F32", (10**9,))})
    values = [header.values for path in (fp8, large) if (header := read_header(path)) is not None]
    assert values == [(), (0.0,) * MAX_PROBED_VALUES]


def test_detection_agrees_with_the_engine(tmp_path: Path, engine_source: Path) -> None:
    shapes = {name: entry[0] for name, entry in {**MODELS, **ENCODERS}.items()}
    files = {
        **{name: sd2(tmp_path / f"{name}.safetensors", "F32", values * 160) for name, values in SPREADS.items()},
        "inpainting": sd2(tmp_path / "inpainting.safetensors", "F32", SPREADS["v"] * 160, inputs=9),
    }
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DETECTION, str(engine_source), *map(str, files.values())],
        input=json.dumps(shapes), capture_output=True, text=True, cwd=engine_source, timeout=300,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    known = json.loads(finished.stdout.splitlines()[-1])
    predicts = {name: known.pop(str(path)) for name, path in files.items()}
    assert predicts == {"v": "V_PREDICTION", "epsilon": "EPS", "inpainting": "EPS"}
    assert known == {name: entry[1] for name, entry in {**MODELS, **ENCODERS}.items()}


@pytest.mark.parametrize("channels", [4, 16])
def test_the_channels_of_a_vae_are_read(tmp_path: Path, channels: int) -> None:
    file = classify_shapes(tmp_path, factory.autoencoder(channels))
    assert (file.latent_channels, file.parts) == (channels, {ModelPart.VAE})


def test_the_family_of_a_controlnet_is_detected(tmp_path: Path) -> None:
    file = classify_shapes(tmp_path, factory.controlnet(factory.sd1_unet()))
    assert (file.family, file.union, file.parts) == (Family.SD1, False, frozenset())
    file = classify_shapes(tmp_path, factory.union_controlnet())
    assert (file.family, file.union, file.parts) == (Family.SDXL, True, frozenset())


@pytest.mark.parametrize(
    ("key", "family"),
    [
        ("double_blocks.0.img_attn.norm.key_norm.scale", Family.FLUX_DEV),
        ("controlnet_x_embedder.weight", Family.FLUX_DEV),
        ("pos_embed_input.proj.weight", Family.SD3),
    ],
)
def test_the_family_of_a_transformer_controlnet_is_detected(tmp_path: Path, key: str, family: Family) -> None:
    shapes: factory.Shapes = {"controlnet_blocks.0.weight": (8, 8), key: (8, 8)}
    assert classify_shapes(tmp_path, shapes).family is family
    # ControlNets of another family contain the same keys.
    like_flux: factory.Shapes = {**shapes, "transformer_blocks.0.img_mlp.net.0.proj.weight": (8, 8)}
    assert (classify_shapes(tmp_path, like_flux).family is Family.UNKNOWN) == (family is Family.FLUX_DEV)


@pytest.mark.parametrize(
    ("key", "width", "family"),
    [
        ("lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_k.lora_down.weight", 768, Family.SD1),
        ("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_v.lora_down.weight", 1024, Family.SD2),
        ("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight", 2048, Family.SDXL),
        ("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.default.weight", 2048, Family.SDXL),
        ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora.down.weight", 768, Family.SD1),
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight", 768, Family.SD1),
        ("lora_unet_output_blocks_3_1_transformer_blocks_0_attn2_to_k.hada_w1_b", 2048, Family.SDXL),
        ("lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_k.lora_down.weight", 99, Family.UNKNOWN),
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", 3072, Family.FLUX_DEV),
        ("lora_unet_single_blocks_0_linear1.lora_down.weight", 3072, Family.FLUX_DEV),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", 3072, Family.FLUX_DEV),
        ("lora_unet_joint_blocks_0_context_block_attn_qkv.lora_down.weight", 1536, Family.SD3),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", 768, Family.UNKNOWN),
    ],
)
def test_the_family_of_a_lora_is_detected(tmp_path: Path, key: str, width: int, family: Family) -> None:
    up = {".hada_w1_b": ".hada_w1_a", "lora_A": "lora_B", "down": "up"}
    other = next(key.replace(mine, theirs) for mine, theirs in up.items() if mine in key)
    file = classify_shapes(tmp_path, {other: (320, 8), key: (8, width)})
    assert (file.family, file.parts) == (family, frozenset())


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"lora_unet_mid_block.lora_up.weight": (320, 4)},
        {**factory.flux_transformer(guided=True), "txt_in.weight": (3072, 3584)},
        {"input_blocks.0.0.weight": (320, 4, 3, 3)},
        {**factory.sd2_unet(), "input_blocks.1.1.time_stack.0.attn1.to_q.weight": (320, 320)},
        {**factory.sd1_unet(), "input_blocks.0.0.weight": ()},
    ],
    ids=["nothing", "lora", "like-flux", "no-attention", "video", "no-shape"],
)
def test_the_family_of_other_files_is_unknown(tmp_path: Path, shapes: factory.Shapes) -> None:
    assert classify_shapes(tmp_path, shapes).family is Family.UNKNOWN


def test_metadata_takes_precedence_over_the_family(tmp_path: Path) -> None:
    metadata: dict[str, Any] = {"modelspec__resolution": "640x384", "modelspec__prediction_type": "v"}
    file = classify_shapes(tmp_path, factory.sd1_unet(), **metadata, dream_layer__steps="8", dream_layer__cfg_scale="0")
    defaults = defaults_for(file)
    assert (defaults.width, defaults.height, defaults.steps, defaults.cfg_scale) == (640, 384, 8, 0.0)
    assert (file.prediction, recommended_pixels(file)) == ("v", 1024 * 1024)
    assert recommended_pixels(classify_shapes(tmp_path, factory.sd1_unet(), dream_layer__pixels="65536")) == 65536


@pytest.mark.parametrize("nonsense", ["", "nan", "-1", "1e400", "x", "999999", "0x0", "9" * 5000 + "x1"])
def test_invalid_metadata_is_ignored(tmp_path: Path, nonsense: str) -> None:
    named = ("modelspec__resolution", "dream_layer__steps", "dream_layer__cfg_scale", "dream_layer__pixels")
    file = classify_shapes(tmp_path, factory.sdxl_unet(), **dict.fromkeys(named, nonsense))
    assert (file.size, file.steps, file.cfg_scale) == (None, None, None)
    assert defaults_for(file).width == 1024


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (Family.SD1, (512, 20, 7.0, None, "normal")),
        (Family.SD2, (768, 20, 7.0, None, "normal")),
        (Family.SDXL, (1024, 25, 7.0, None, "normal")),
        (Family.SD3, (1024, 28, 4.5, None, "sgm_uniform")),
        (Family.FLUX_DEV, (1024, 20, 1.0, 3.5, "simple")),
        (Family.FLUX_SCHNELL, (1024, 4, 1.0, None, "simple")),
        (Family.UNKNOWN, (512, 20, 7.0, None, "normal")),
    ],
)
def test_each_family_has_its_defaults(family: Family, expected: tuple[object, ...]) -> None:
    defaults = defaults_for(ModelFile("x", family))
    assert (defaults.width, defaults.steps, defaults.cfg_scale, defaults.guidance, defaults.scheduler) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        struct.pack("<Q", 100) + b"{}",
        struct.pack("<Q", LARGEST + 1) + b"{}",
        struct.pack("<Q", 2**64 - 1),
        *(
            struct.pack("<Q", len(text)) + text
            for text in (
                b"[]",
                b"null",
                b"\xff\xfe",
                b'{"x": 1}',
                b'{"x": {"dtype": "F16", "shape": 5, "data_offsets": [0, 0]}}',
                b'{"x": {"dtype": "F16", "shape": [1], "data_offsets": [0]}}',
                b'{"x": {"dtype": "F16", "shape": [Infinity], "data_offsets": [0, 0]}}',
                b'{"x": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}}',
                b'{"__metadata__": []}' + b"[" * 100_000,
                b"[" * 100_000,
            )
        ),
    ],
)
def test_an_invalid_safetensors_file_has_no_header(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    assert read_header(path) is None
    assert classify("x", None) == ModelFile("x")


def test_a_header_of_many_tensors_is_read(tmp_path: Path) -> None:
    """Real models have thousands of tensors, so the limits of other JSON do not apply to headers."""
    shapes = {f"model.diffusion_model.layer.{number}.weight": (1, 2) for number in range(5000)}
    header = read_header(factory.write(tmp_path / "x.safetensors", shapes))
    assert header is not None
    assert len(header.tensors) == 5000


def test_other_than_regular_files_have_no_header(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "link", tmp_path / "pipe"):
        assert read_header(path) is None


KINDS: dict[str, tuple[factory.Shapes, str | None]] = {
    "checkpoint": (factory.sdxl_checkpoint(), "checkpoints"),
    "unet": (factory.sd1_unet(), "diffusion_models"),
    "unet with prefix": (factory.under(factory.INSIDE, factory.sd1_unet()), "diffusion_models"),
    "flux": (factory.flux_transformer(guided=True), "diffusion_models"),
    "sd3": (factory.sd3_transformer(), "diffusion_models"),
    "clip": (factory.clip_l(), "text_encoders"),
    "t5": (factory.t5xxl(), "text_encoders"),
    "vae": (factory.autoencoder(4), "vae"),
    "controlnet": (factory.controlnet(factory.sd1_unet()), "controlnet"),
    "lora": ({"lora_unet_x.lora_up.weight": (4, 4), "lora_unet_x.alpha": ()}, "loras"),
    "lora of diffusers": ({"unet.down_blocks.0.attn.to_k.lora_A.weight": (4, 4)}, "loras"),
    "flux lora": ({"double_blocks.0.img_attn.qkv.lora_A.weight": (4, 4)}, "loras"),
    "embedding": ({"emb_params": (2, 768)}, "embeddings"),
    "embedding for sdxl": ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "embeddings"),
    "vision": ({"vision_model.encoder.layers.0.mlp.fc1.weight": (4, 4)}, "clip_vision"),
    "esrgan": ({"model.0.weight": (64, 3, 3, 3), "model.1.sub.0.RDB1.conv1.0.weight": (4, 4, 3, 3)}, "upscale_models"),
    "anything": ({"weight": (4, 4)}, None),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_kind_is_detected_from_the_header(tmp_path: Path, name: str) -> None:
    shapes, kind = KINDS[name]
    header = read_header(factory.write(tmp_path / "x.safetensors", shapes))
    assert header is not None
    assert detect_kind(header) == kind


def test_the_upscaler_of_the_starter_is_detected() -> None:
    header = read_header(PROJECT_DIR / "starter" / "weights" / "upscaler.safetensors")
    assert header is not None
    assert detect_kind(header) == "upscale_models"
