"""The default checkpoint: used by requests without a model and first in the lists."""

from pathlib import Path

import pytest

from launcher.stack import own_checkpoint
from shared.models.detect import Family, ModelFile
from shared.web.parsing.generation import parse_txt2img
from shared.web.parsing.models import default_checkpoint, default_first
from shared.web.parsing.parser import ParsingContext
from shared.web.request_body import Fields
from starter import CHECKPOINT_NAME, INPAINTING_NAME, PASTEL_NAME
from tests import safetensors_factory as factory
from tests.control import Control, body
from tests.model_library import OWN, PAINTER, ModelLibrary

PAINT, REFINE, DRAW = "a-paint.safetensors", "b-refine.safetensors", "z/draw.safetensors"
EDIT = "c-edit.safetensors"
KNOWN = {
    PAINT: ModelFile(PAINT, Family.SD1, inpainting=True, known=True),
    REFINE: ModelFile(REFINE, Family.SDXL_REFINER, known=True),
    EDIT: ModelFile(EDIT, Family.SDXL, text_to_image=False, known=True),
    DRAW: ModelFile(DRAW, Family.SDXL, known=True),
    INPAINTING_NAME: ModelFile(INPAINTING_NAME, Family.SD1, inpainting=True, known=True),
}


class DetectedLibrary(ModelLibrary):
    """A library whose files are detected as in KNOWN."""

    def model_file(self, _folder: str, name: str) -> ModelFile:
        return KNOWN.get(name, ModelFile(name))


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        ((PAINT, REFINE, DRAW), DRAW),
        ((PAINT, REFINE, CHECKPOINT_NAME), CHECKPOINT_NAME),
        ((PAINT, REFINE), PAINT),
        ((INPAINTING_NAME, PASTEL_NAME, CHECKPOINT_NAME), CHECKPOINT_NAME),
        # Without a readable header, the name decides.
        (("sd-Inpainting.ckpt", "sd_xl_refiner_1.0.ckpt", "v1-5.ckpt"), "v1-5.ckpt"),
        (("sd-inpainting.ckpt",), "sd-inpainting.ckpt"),
        (("instruct-pix2pix-00-22000.ckpt", "svd_xt.ckpt", "x4-upscaler-ema.ckpt", "z.ckpt"), "z.ckpt"),
        (("cosxl_edit.ckpt", "stable-audio-open-1.0.ckpt", "wan2.1_t2v_1.3B.ckpt", "z.ckpt"), "z.ckpt"),
        (("svdq-flux.ckpt", "z.ckpt"), "svdq-flux.ckpt"),
        ((EDIT, DRAW), DRAW),
        ((EDIT, CHECKPOINT_NAME), CHECKPOINT_NAME),
        ((), None),
    ],
)
def test_special_checkpoints_are_the_last_choice(files: tuple[str, ...], chosen: str | None) -> None:
    library = DetectedLibrary(checkpoints=files)
    assert default_checkpoint(None, library) == chosen
    if chosen is not None:
        others = [file for file in files if file != chosen]
        assert default_first(files, None, library, str) == [chosen, *others]


def test_only_a_text_to_image_checkpoint_replaces_the_starter(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    factory.write(folder / "a-painter.safetensors", factory.checkpoint(factory.sd1_unet(9)))
    factory.write(folder / "b-editor.safetensors", factory.checkpoint(factory.sd1_unet(8)))
    factory.write(folder / "c-vae.safetensors", factory.under("first_stage_model.", factory.autoencoder(4)))
    assert own_checkpoint([tmp_path], frozenset()) is None
    own = factory.write(folder / "z-own.SAFETENSORS", factory.checkpoint(factory.sd1_unet()))
    assert own_checkpoint([tmp_path], frozenset()) == own
    assert own_checkpoint([tmp_path], frozenset({own.name})) is None


def test_a_request_uses_the_first_checkpoint_of_the_lists() -> None:
    parsed = parse_txt2img(
        Fields({"prompt": "x"}, {}),
        ParsingContext(None, ModelLibrary(checkpoints=(PAINTER, "x.safetensors")), {}.get),
    )
    assert parsed.request.models.checkpoint == "x.safetensors"
    library = ModelLibrary(checkpoints=(PAINTER, OWN))
    # The checkpoint of the settings is used even if it is for inpainting.
    assert default_checkpoint(PAINTER, library) == PAINTER
    assert default_first([OWN, PAINTER], "painter", library, str) == [PAINTER, OWN]
    assert default_first([PAINTER, OWN], "not there", library, str)[0] == OWN


@pytest.mark.parametrize(
    ("named", "ready"), [(DRAW, True), ("z/draw", True), ("draw", True), ("flux-alone", True), ("lost", False)]
)
def test_the_checkpoint_of_the_settings_is_found_by_any_of_its_names(
    control: Control, monkeypatch: pytest.MonkeyPatch, named: str, ready: bool
) -> None:
    control.files |= {"checkpoints": [PAINT, DRAW], "diffusion_models": ["flux-alone.safetensors"]}
    monkeypatch.setattr(control.backend.engine, "get_system_stats", lambda _timeout: {})
    monkeypatch.setattr(control.backend.engine, "get_queue", lambda _timeout: (set(), set()))
    monkeypatch.setattr(control.backend, "settings", control.backend.settings.model_copy(update={"checkpoint": named}))
    response = control.client.get("/ready")
    assert body(response)["ready"] is ready
    assert response.status_code == (200 if ready else 503)


def test_lists_start_with_the_default_checkpoint(control: Control) -> None:
    control.files["checkpoints"] = [PAINT, REFINE, DRAW]
    control.known = KNOWN
    models = body(control.client.get("/api/models"))["models"]
    assert [model["filename"] for model in models] == [DRAW, PAINT, REFINE]
    control.files["loras"] = ["b.safetensors", "a.safetensors"]
    loras = body(control.client.get("/api/lora-models"))["models"]
    assert [model["id"] for model in loras] == ["b.safetensors", "a.safetensors"]
