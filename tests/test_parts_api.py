"""The starter model split into its parts: on the real engine, the parts draw the same picture as the checkpoint."""

from collections.abc import Iterator

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from starter import CHECKPOINT_NAME
from tests.stack import TestStack

INSIDE, TEXT, VAE = "model.diffusion_model.", "cond_stage_model.transformer.", "first_stage_model."
# The prefix of the keys in the starter and in each file. The VAE is the first in the list of all VAEs.
PARTS = {
    "diffusion_models/apart.safetensors": (INSIDE, ""),
    "checkpoints/apart-model.safetensors": (INSIDE, INSIDE),
    "text_encoders/apart-text.safetensors": (TEXT, ""),
    "vae/apart-vae.safetensors": (VAE, ""),
}
QUICK = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 3, "seed": 5, "cfg_scale": 3}


@pytest.fixture(scope="module")
def _split_starter(stack: TestStack) -> Iterator[None]:
    models = stack.data_dir / "models"
    weights = load_file(models / "checkpoints" / CHECKPOINT_NAME)
    try:
        for name, (prefix, new_prefix) in PARTS.items():
            tensors = {
                new_prefix + key.removeprefix(prefix): np.ascontiguousarray(tensor)
                for key, tensor in weights.items()
                if key.startswith(prefix)
            }
            (models / name).parent.mkdir(exist_ok=True)
            save_file(tensors, models / name)
        yield
    finally:
        for name in PARTS:
            (models / name).unlink(missing_ok=True)


@pytest.mark.usefixtures("_split_starter")
@pytest.mark.parametrize("model", ["apart", "apart-model"])
def test_the_parts_draw_the_same_picture_as_the_checkpoint(stack: TestStack, model: str) -> None:
    parts, whole = stack.draw(**QUICK, model_name=model), stack.draw(**QUICK, model_name=CHECKPOINT_NAME)
    classes = {node["class_type"] for node in parts["workflow"]["prompt"].values()}
    assert {"CLIPLoader", "VAELoader"} <= classes
    assert ("UNETLoader" in classes) == (model == "apart")
    assert stack.picture(parts).tobytes() == stack.picture(whole).tobytes()
