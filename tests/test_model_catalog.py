"""Files that do not fit together are refused before anything is queued."""

from typing import Any

import pytest

from shared.errors import InvalidValue
from starter import VAE_NAME
from tests.model_library import FLUX, OWN, PLAIN, REFINER, SCHNELL, ModelLibrary
from tests.parsing import URL, read

MADE_FOR = ("for-sd1.safetensors", "for-xl.safetensors", "for-flux.safetensors", "unclear.safetensors")
SHELF = ModelLibrary(loras=MADE_FOR, controlnet=MADE_FOR)


def refused(**values: Any) -> InvalidValue:
    with pytest.raises(InvalidValue) as wrong:
        read(SHELF, **values)
    return wrong.value


def unit(model: str) -> dict[str, Any]:
    return {"units": [{"model": model, "input_image": URL}]}


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"lora": {"lora_name": "for-xl"}}, "lora.lora_name"),
        ({"loras": [{"lora_name": "for-sd1"}, {"lora_name": "for-xl"}]}, "loras[1].lora_name"),
        ({"prompt": "x <lora:for-xl:0.5>"}, "prompt"),
        ({"controlnet": unit("for-xl")}, "controlnet.units[0].model"),
    ],
)
def test_what_was_made_for_another_family_is_refused(values: dict[str, Any], field: str) -> None:
    wrong = refused(**values)
    assert wrong.field == field
    assert wrong.message.endswith(f"for-xl.safetensors is for SDXL, but the model {OWN} is SD 1")
    assert wrong.hint == "use for-sd1.safetensors or unclear.safetensors"


def test_what_fits_or_is_not_known_is_taken() -> None:
    for model, fitting in ((OWN, "for-sd1"), (OWN, "unclear"), (FLUX, "for-flux"), (SCHNELL, "for-flux")):
        request = read(SHELF, model_name=model, lora={"lora_name": fitting}, controlnet=unit(fitting)).request
        assert (request.loras[0].name, request.controls[0].model) == (f"{fitting}.safetensors",) * 2


def test_what_is_off_may_be_for_anything() -> None:
    off = {"enabled": False}
    parsed = read(SHELF, lora={"lora_name": "for-xl", **off}, controlnet={"units": [{"model": "for-xl", **off}]})
    assert (parsed.request.loras, parsed.request.controls) == ((), ())


def test_a_refiner_takes_the_same_latents() -> None:
    with pytest.raises(
        InvalidValue, match=r"flux-all\.safetensors is for Flux dev, but the model dreamshaper"
    ) as wrong:
        read(refiner_enabled=True, refiner_model=FLUX)
    assert wrong.value.field == "refiner_model"
    assert read(model_name=FLUX, refiner_enabled=True, refiner_model=SCHNELL).request.refiner is not None
    assert read(refiner_enabled=True, refiner_model=REFINER).request.refiner is not None


def test_a_vae_for_other_latents_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"ae\.safetensors decodes .* of 16 channels, .* have 4") as wrong:
        read(vae_name="ae")
    assert (wrong.value.field, wrong.value.hint) == ("vae_name", "use sd.safetensors, or leave vae_name out")
    assert read(vae_name="sd").request.models.vae == "sd.safetensors"
    assert read(model_name=FLUX, vae_name="ae").request.models.vae == "ae.safetensors"


def test_what_a_checkpoint_does_not_hold_is_taken_from_files_that_fit() -> None:
    models = read(model_name=PLAIN).request.models
    assert (models.checkpoint, models.text_encoders, models.vae) == (PLAIN, ("l.safetensors",), "sd.safetensors")
    assert models.clip_type == "stable_diffusion"
    whole = read(model_name=OWN).request.models
    assert (whole.text_encoders, whole.vae) == ((), None)
    with pytest.raises(InvalidValue, match="has no VAE, and there is none for latents of 4 channels"):
        read(ModelLibrary(vae=("ae.safetensors",)), model_name=PLAIN)
    with pytest.raises(InvalidValue, match="has no text encoder, and there is no file for clip_l"):
        read(ModelLibrary(text_encoders=()), model_name=PLAIN)


def test_the_vae_of_the_built_in_model_is_for_no_other_and_of_several_one_is_named() -> None:
    kit = ModelLibrary(vae=(VAE_NAME, "ae.safetensors", "sd.safetensors", "sd-finer.safetensors"))
    parsed = read(kit, model_name=PLAIN)
    assert parsed.request.models.vae == "sd.safetensors"
    assert parsed.warnings == [f"{PLAIN} has no VAE, so sd.safetensors is used; vae_name may name sd-finer.safetensors"]
    assert read(model_name=PLAIN).warnings == []
    with pytest.raises(InvalidValue, match="has no VAE, and there is none for latents of 4 channels"):
        read(ModelLibrary(vae=(VAE_NAME,)), model_name=PLAIN)


def test_of_several_text_encoders_of_a_kind_the_first_is_used_and_the_others_are_named() -> None:
    two = ModelLibrary(text_encoders=("l.safetensors", "l-other.safetensors"))
    parsed = read(two, model_name=PLAIN)
    assert parsed.request.models.text_encoders == ("l.safetensors",)
    assert parsed.warnings == [
        f"{PLAIN} has no text encoder, so l.safetensors is used; text_encoders may name l-other.safetensors"
    ]
