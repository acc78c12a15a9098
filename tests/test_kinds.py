"""What kind of model a file is, told by its header."""

from pathlib import Path

import pytest

from shared.models.detect import kind_of
from shared.models.safetensors import read_header
from shared.settings import PROJECT_DIR
from tests import safetensors_factory as factory

KINDS_OF: dict[str, tuple[factory.Shapes, str | None]] = {
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


@pytest.mark.parametrize("name", KINDS_OF)
def test_a_kind_is_told_by_the_header(tmp_path: Path, name: str) -> None:
    shapes, kind = KINDS_OF[name]
    header = read_header(factory.write(tmp_path / "x.safetensors", shapes))
    assert header is not None
    assert kind_of(header) == kind


def test_the_kits_own_upscaler_is_known() -> None:
    header = read_header(PROJECT_DIR / "starter" / "weights" / "upscaler.safetensors")
    assert header is not None
    assert kind_of(header) == "upscale_models"
