"""What kind of model a file is, told by its header."""

from pathlib import Path

import pytest

from shared.engine.headers import read_header
from shared.engine.kinds import kind_of
from shared.settings import PROJECT_DIR
from tests import tiny

KINDS_OF: dict[str, tuple[tiny.Shapes, str | None]] = {
    "checkpoint": (tiny.sdxl_checkpoint(), "checkpoints"),
    "unet": (tiny.sd1_unet(), "diffusion_models"),
    "unet with prefix": (tiny.under(tiny.INSIDE, tiny.sd1_unet()), "diffusion_models"),
    "flux": (tiny.flux_transformer(guided=True), "diffusion_models"),
    "sd3": (tiny.sd3_transformer(), "diffusion_models"),
    "clip": (tiny.clip_l(), "text_encoders"),
    "t5": (tiny.t5xxl(), "text_encoders"),
    "vae": (tiny.autoencoder(4), "vae"),
    "controlnet": (tiny.controlnet(tiny.sd1_unet()), "controlnet"),
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
    header = read_header(tiny.write(tmp_path / "x.safetensors", shapes))
    assert header is not None
    assert kind_of(header) == kind


def test_the_kits_own_upscaler_is_known() -> None:
    header = read_header(PROJECT_DIR / "starter" / "weights" / "upscaler.safetensors")
    assert header is not None
    assert kind_of(header) == "upscale_models"
