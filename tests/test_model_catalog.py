"""Model files that do not match each other are refused before anything is queued."""

from typing import Any

import pytest

from shared.errors import InvalidValue
from starter import VAE_NAME
from tests.model_library import FLUX, OWN, PLAIN, REFINER, SCHNELL, ModelLibrary
from tests.parsing import URL, read

FAMILY_FILES = ("for-sd1.safetensors", "for-xl.safetensors", "for-flux.safetensors", "unclear.safetensors")
LIBRARY = ModelLibrary(loras=FAMILY_FILES, controlnet=FAMILY_FILES)


def refused(**values: Any) -> InvalidValue:
    with pytest.raises(InvalidValue) as error:
        read(LIBRARY, **values)
    return error.value


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
def test_a_file_for_another_family_is_refused(values: dict[str, Any], field: str) -> None:
    error = refused(**values)
    assert error.field == field
    assert error.message.endswith(f"for-xl.safetensors is for SDXL, but the model {OWN} is SD 1")
    assert error.hint == "use for-sd1.safetensors or unclear.safetensors"


def test_files_of_the_same_or_an_unknown_family_are_accepted() -> None:
    for model, fitting in ((OWN, "for-sd1"), (OWN, "unclear"), (FLUX, "for-flux"), (SCHNELL, "for-flux")):
        request = read(LIBRARY, model_name=model, lora={"lora_name": fitting}, controlnet=unit(fitting)).request
        assert (request.loras[0].name, request.controls[0].model) == (f"{fitting}.safetensors",) * 2


def test_disabled_loras_and_units_may_be_for_any_family() -> None:
    off = {"enabled": False}
    parsed = read(LIBRARY, lora={"lora_name": "for-xl", **off}, controlnet={"units": [{"model": "for-xl", **off}]})
    assert (parsed.request.loras, parsed.request.controls) == ((), ())


def test_a_refiner_must_use_the_same_latents() -> None:
    with pytest.raises(
        InvalidValue, match=r"flux-all\.safetensors is for Flux dev, but the model dreamshaper"
    ) as error:
        read(refiner_enabled=True, refiner_model=FLUX)
    assert error.value.field == "refiner_model"
    assert read(model_name=FLUX, refiner_enabled=True, refiner_model=SCHNELL).request.refiner is not None
    assert read(refiner_enabled=True, refiner_model=REFINER).request.refiner is not None


def test_a_vae_for_other_latents_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"ae\.safetensors decodes .* of 16 channels, .* have 4") as error:
        read(vae_name="ae")
    assert (error.value.field, error.value.hint) == ("vae_name", "use sd.safetensors, or leave vae_name out")
    assert read(vae_name="sd").request.models.vae == "sd.safetensors"
    assert read(model_name=FLUX, vae_name="ae").request.models.vae == "ae.safetensors"


def test_missing_parts_of_a_checkpoint_are_loaded_from_matching_files() -> None:
    models = read(model_name=PLAIN).request.models
    assert (models.checkpoint, models.text_encoders, models.vae) == (PLAIN, ("l.safetensors",), "sd.safetensors")
    assert models.clip_type == "stable_diffusion"
    whole = read(model_name=OWN).request.models
    assert (whole.text_encoders, whole.vae) == ((), None)
    with pytest.raises(InvalidValue, match="has no VAE, and there is none for latents of 4 channels"):
        read(ModelLibrary(vae=("ae.safetensors",)), model_name=PLAIN)
    with pytest.raises(InvalidValue, match="has no text encoder, and there is no file for clip_l"):
        read(ModelLibrary(text_encoders=()), model_name=PLAIN)


def test_the_built_in_vae_is_used_for_no_other_model_and_alternatives_are_named() -> None:
    library = ModelLibrary(vae=(VAE_NAME, "ae.safetensors", "sd.safetensors", "sd-finer.safetensors"))
    parsed = read(library, model_name=PLAIN)
    assert parsed.request.models.vae == "sd.safetensors"
    assert parsed.warnings == [f"{PLAIN} has no VAE, so sd.safetensors is used; vae_name may name sd-finer.safetensors"]
    assert read(model_name=PLAIN).warnings == []
    with pytest.raises(InvalidValue, match="has no VAE, and there is none for latents of 4 channels"):
        read(ModelLibrary(vae=(VAE_NAME,)), model_name=PLAIN)


def test_the_first_of_several_text_encoders_is_used_and_the_others_are_named() -> None:
    two = ModelLibrary(text_encoders=("l.safetensors", "l-other.safetensors"))
    parsed = read(two, model_name=PLAIN)
    assert parsed.request.models.text_encoders == ("l.safetensors",)
    assert parsed.warnings == [
        f"{PLAIN} has no text encoder, so l.safetensors is used; text_encoders may name l-other.safetensors"
    ]
