"""Values of the web page's menus and boxes, in every accepted spelling."""

import io
import itertools
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import AliasChoices, ValidationError

from shared.errors import InvalidValue
from shared.schema.body import (
    ControlUnitBody,
    ExtrasBody,
    Img2ImgBody,
    LoraBody,
    RequestBody,
    Txt2ImgBody,
    UpscaleBody,
)
from shared.schema.choices import find_choice, is_default_choice, is_no_choice, is_placeholder
from shared.schema.request import Upscale
from shared.web.parsing.unused_fields import disable_parts_without_model
from tests.control import Control, body
from tests.model_library import OWN, REFINER, ModelLibrary
from tests.parsing import URL, read, refused, reread
from tests.payloads import UNIT, generation
from workflows.preprocessors import OTHER_TYPES, PREPROCESSORS, SYNONYMS, UNION_TYPES, preprocessor_name

BODIES = (Txt2ImgBody, Img2ImgBody, UpscaleBody, ExtrasBody, ControlUnitBody, LoraBody)
# Menu entries of several programs that mean that nothing is chosen.
NO_CHOICE = ("none", "None", "NONE", "Select a model...", "-- Select model --", "No models found", "undefined")


def fields_with_choices(model: type[RequestBody]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the fields of a body that accept fixed words, with these words."""
    for name, field in model.model_fields.items():
        for annotation in (field.annotation, *get_args(field.annotation)):
            while get_origin(annotation) not in (Literal, None) and hasattr(annotation, "__origin__"):
                annotation = annotation.__origin__
            if get_origin(annotation) is Literal:
                yield name, get_args(annotation)


FIELDS_WITH_CHOICES = [(model, name, words) for model in BODIES for name, words in fields_with_choices(model)]


def test_fields_with_fixed_choices_are_found() -> None:
    assert {name for _, name, _ in FIELDS_WITH_CHOICES} == {
        *("hires_fix_upscale_method", "resize_mode", "inpaint_mode", "control_mode", "output_format"),
        "large_sizes",
    }


@pytest.mark.parametrize(
    ("model", "name", "words"), FIELDS_WITH_CHOICES, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_choice_is_accepted_in_any_spelling(model: type[RequestBody], name: str, words: tuple[str, ...]) -> None:
    needed = {"prompt": "x", "input_image": "", "image": "", "lora_name": "x"}
    for word in words:
        spellings = {word, word.upper(), word.title(), f" {word} "}
        spellings |= {text.replace("_", gap).replace("-", gap) for text in spellings for gap in (" ", "-", "_", "")}
        for spelling in spellings:
            assert getattr(model(**{**needed, name: spelling}), name) == word
    for wrong in ("something else", "", 7.5, True, 17):
        with pytest.raises(ValidationError):
            model(**{**needed, name: wrong})


@pytest.mark.parametrize(
    ("field", "sent", "meant"),
    [
        ("resize_mode", "crop_resize", "crop_and_resize"),
        ("resize_mode", "resize_fill", "fill"),
        ("resize_mode", "just_resize", "just_resize"),
        ("resize_mode", "Crop and Resize", "crop_and_resize"),
        ("resize_mode", "Crop & Resize", "crop_and_resize"),
        ("resize_mode", "Resize and Fill", "fill"),
        ("resize_mode", 1, "crop_and_resize"),
        ("resize_mode", "Inner Fit (Scale to Fit)", "crop_and_resize"),
        ("resize_mode", "Scale to Fit (Inner Fit)", "crop_and_resize"),
        ("resize_mode", "Outer Fit (Shrink to Fit)", "fill"),
        ("resize_mode", "Envelope (Outer Fit)", "fill"),
        ("resize_mode", "2", "fill"),
        ("control_mode", "Balanced", "balanced"),
        ("control_mode", "My prompt is more important", "prompt"),
        ("control_mode", "ControlNet is more important", "control"),
        ("control_mode", 0, "balanced"),
    ],
)
def test_choices_of_the_web_page_and_other_programs_are_accepted(field: str, sent: Any, meant: str) -> None:
    unit = {**UNIT, "input_image": URL, field: sent}
    parameters = read(controlnet={"enabled": True, "units": [unit]}).parameters
    assert ControlUnitBody(**parameters["controlnet"]["units"][0]).model_dump()[field] == meant
    if field == "resize_mode":
        assert Img2ImgBody(prompt="x", input_image="", resize_mode=sent).resize_mode == meant


@pytest.mark.parametrize("sent", ["PNG", "JPEG", "WEBP", "image/jpeg", "Png"])
def test_output_formats_of_the_web_page_are_accepted(sent: str) -> None:
    assert ExtrasBody(output_format=sent).output_format == sent.lower().removeprefix("image/")


def test_other_routes_accept_choices_in_any_spelling(control: Control) -> None:
    assert control.client.get("/api/jobs?kind=Txt2Img&state=Running,COMPLETED,canceled").status_code == 200
    assert control.client.get("/api/jobs?kind=txt2vid").status_code == 422
    assert control.client.get("/api/jobs?state=lost").status_code == 422
    assert body(control.client.get("/api/fetch-prompt?type=Negative"))["type"] == "negative"
    for sent, meant in (("LoRA", "loras"), ("Checkpoints", "checkpoints"), ("Upscale Models", "upscale_models")):
        form = {"model_type": sent, "file": (io.BytesIO(b"no model"), "a.safetensors")}
        refused = control.client.post("/api/upload-model", data=form, content_type="multipart/form-data")
        # The type is valid, so the error is about the file.
        assert body(refused)["error"]["field"] == "file", (sent, meant)


def test_an_ambiguous_word_matches_no_choice() -> None:
    assert find_choice("a b", ["A-B", "a_b"]) is None
    assert find_choice("a_b", ["A-B", "a_b"]) == "a_b"
    assert find_choice("+", ["-"]) is None


def test_the_pages_default_preprocessor_names_what_to_install() -> None:
    unit = {**UNIT, "input_image": URL, "preprocessor": "dw_openpose_full", "control_type": "openpose"}
    wrong = refused(controlnet={"enabled": True, "units": [unit]})
    assert wrong.field == "controlnet.units[0].preprocessor"
    assert wrong.message == (
        "controlnet.units[0].preprocessor 'dw_openpose_full' needs the node DWPreprocessor, "
        "which this engine does not have"
    )
    assert wrong.hint is not None
    assert "comfyui_controlnet_aux" in wrong.hint
    assert "data/custom_nodes" in wrong.hint
    assert (wrong.details["package"], wrong.details["node"]) == ("comfyui_controlnet_aux", "DWPreprocessor")
    library = ModelLibrary()
    library.nodes = ("DWPreprocessor",)
    (control,) = read(library, controlnet={"units": [unit]}).request.controls
    assert control.preprocessing is not None
    assert control.preprocessing.node == "DWPreprocessor"


def test_preprocessors_have_synonyms() -> None:
    assert set(SYNONYMS.values()) <= {*PREPROCESSORS, *UNION_TYPES, *OTHER_TYPES}
    for sent, meant in (
        ("DWPose", "dwpose"), ("OpenPose", "openpose"), ("Soft Edge", "softedge"), ("softedge_hed", "hed"),
        ("Line-Art", "lineart"), ("Depth Anything", "depth"), ("M-LSD", "mlsd"), ("Canny", "canny"), ("None", "none"),
        ("NormalMap", "normalbae"), ("Scribble/Sketch", "scribble"), ("Segmentation", "seg"),
    ):  # fmt: skip
        assert preprocessor_name(sent) == meant
    near = refused(controlnet={"units": [{**UNIT, "input_image": URL, "preprocessor": "opnpose"}]})
    assert "did you mean openpose?" in str(near.hint)


def test_hires_fix_is_on_if_either_of_its_names_is_true() -> None:
    for values in itertools.product((True, False, "true", "false", None), repeat=2):
        sent = dict(zip(("hires_fix", "hires_fix_enabled"), values, strict=True))
        parsed = read(**{name: value for name, value in sent.items() if value is not None})
        assert (parsed.request.hires is not None) is any(value in (True, "true") for value in values), sent
        assert parsed.warnings == []
    parsed = read(**generation(model_name=OWN, hires_fix=True, hires_fix_enabled=False))
    assert (parsed.request.hires is not None, parsed.warnings) == (True, [])
    assert refused(hires_fix="perhaps", hires_fix_enabled=False).field == "hires_fix"


def test_every_switch_with_two_names_is_on_if_either_is_true() -> None:
    pairs = [
        (model, name, [str(alias) for alias in field.validation_alias.choices])
        for model in BODIES
        for name, field in model.model_fields.items()
        if field.annotation is bool and isinstance(field.validation_alias, AliasChoices)
    ]
    assert pairs
    for model, name, names in pairs:
        for true_name in names:
            sent = {alias: alias == true_name for alias in names}
            assert getattr(model(prompt="x", input_image="", image="", **sent), name) is True


def test_lanczos_replaces_the_web_pages_upscaler_if_it_is_not_installed() -> None:
    sent = generation(model_name=OWN, hires_fix=True, random_seed=False, seed=1)
    bare = ModelLibrary(upscale_models=())
    parsed = read(bare, **sent)
    assert parsed.request.hires is not None
    assert parsed.request.hires.upscale == Upscale((1280, 1280))
    assert parsed.warnings == [
        "hires_fix_upscaler '4x-ultrasharp' does not exist, so Lanczos was used; no upscale model is installed"
    ]
    # The reported parameters, sent again, are the same request.
    repeated = read(bare, **parsed.parameters)
    assert (repeated.request, repeated.warnings) == (parsed.request, [])
    installed = read(**sent)
    assert installed.request.hires is not None
    assert installed.request.hires.upscale == Upscale((1280, 1280), model="4x-UltraSharp.pth")
    assert installed.warnings == []
    # A misspelt name is an error; only a missing upscaler is replaced.
    assert refused(hires_fix=True, hires_fix_upscaler="4x-ultrashrap").field == "hires_fix_upscaler"
    assert refused(hires_fix=True, hires_fix_upscaler="Latnet").field == "hires_fix_upscaler"


@pytest.mark.parametrize("sent", ["Latent (Nearest)", "latent_nearest", "Latent-Bicubic", "automatic"])
def test_upscale_methods_are_accepted_in_any_spelling(sent: str) -> None:
    hires = read(hires_fix=True, hires_fix_upscaler=sent).request.hires
    assert hires is not None
    assert hires.latent_method is not None
    assert read(upscaler="LANCZOS").request.upscale == Upscale((1024, 1024))
    assert read(upscaler="nearest-exact").request.upscale == Upscale((1024, 1024), method="nearest-exact")


def test_a_refiner_without_a_model_is_off() -> None:
    plain = read(**generation(model_name=OWN, seed=1, random_seed=False))
    parsed = read(**generation(model_name=OWN, refiner_enabled=True, seed=1, random_seed=False))
    assert parsed.warnings == ["refiner_enabled has no effect: refiner_model is 'none', so it is off"]
    assert (parsed.request, parsed.parameters) == (plain.request, plain.parameters)
    assert read(refiner_enabled=True, refiner_model=REFINER).request.refiner is not None


@pytest.mark.parametrize("sent", NO_CHOICE)
def test_an_empty_choice_is_not_taken_for_a_name(sent: str) -> None:
    assert is_no_choice(sent)
    plain = read(seed=1)
    for model in (Txt2ImgBody, Img2ImgBody):
        for name, field in model.model_fields.items():
            if field.annotation not in (str, str | None) or name in (
                "prompt",
                "negative_prompt",
                "input_image",
                "mask",
            ):
                continue
            switches = {"hires_fix": True} if name.startswith("hires_fix") else {}
            switches = {"refiner_enabled": True} if name == "refiner_model" else switches
            switches = {"restore_faces": True} if name == "face_restoration_model" else switches
            # An empty choice is never an error. It changes nothing unless it belongs to a part that is on.
            parsed = read(seed=1, **switches, **{name: sent})
            reread(seed=1, **switches, **{name: sent})
            if not switches.get("hires_fix"):
                assert parsed.request == plain.request, name
    assert read(seed=1, lora={"lora_name": sent}, loras=[{"lora_name": sent}]).request == plain.request
    assert read(seed=1, text_encoders=[sent]).request == plain.request
    off = read(seed=1, controlnet={"units": [{**UNIT, "model": sent, "input_image": URL}]})
    assert (off.request, off.parameters["controlnet"]) == (plain.request, {"units": []})
    assert off.warnings == [f"controlnet.units[0] is off, because its model is {sent!r}"]
    for field in ("preprocessor", "control_type"):
        unit = {"model": "canny", "input_image": URL, field: sent}
        assert read(controlnet={"units": [unit]}).request.controls[0].preprocessing is None


def test_automatic_choices_use_the_defaults() -> None:
    for sent in ("Automatic", "auto", "default", "Use same sampler", "Use same scheduler", "None"):
        assert is_default_choice(sent)
        parsed = read(sampler_name=sent, scheduler=sent, model_name=sent, vae_name=sent, hires_fix_sampler_name=sent)
        assert (parsed.request.sampling.sampler, parsed.request.models.checkpoint) == ("euler", OWN)
        assert parsed.warnings == []
        assert parsed.explicit_fields <= {"prompt", "vae_name"}


@pytest.mark.parametrize(
    "name", ["model.safetensors", "Selected Works", "selection", "nonesuch", "No Mans Land v2", "auto-photo", "chooser"]
)
def test_a_name_similar_to_an_empty_choice_is_a_name(name: str) -> None:
    assert not is_default_choice(name)
    assert refused(model_name=name).field == "model_name"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("/path/to/outputs", True),
        ("/path/to", True),
        ("C:\\path\\to\\models", True),
        ("path/to/models/Lora", True),
        ("/your/path/here", True),
        ("paste the path if it is outside project root", True),
        ("Enter a folder name", True),
        ("<path to the models>", True),
        ("none", True),
        ("/home/me/path/to/outputs", False),
        ("/pathology/to", False),
        ("paste-[seed]", False),
        ("paste the [seed] here", False),
        ("my pictures", False),
        ("[date]-[seed]", False),
    ],
)
def test_placeholder_texts_of_forms_are_recognised(text: str, meant: bool) -> None:
    assert is_placeholder(text) is meant


def test_a_warning_is_added_only_for_parts_that_were_on() -> None:
    remaining, warnings = disable_parts_without_model(Txt2ImgBody(prompt="x", refiner_model="none"))
    assert (remaining, warnings) == (Txt2ImgBody(prompt="x", refiner_model="none"), [])
    _, warnings = disable_parts_without_model(UpscaleBody(image="", restore_faces=True, face_restoration_model="None"))
    assert warnings == ["restore_faces has no effect: face_restoration_model is 'None', so it is off"]


def test_defaults_of_the_web_page_add_no_warning() -> None:
    assert read(**generation(model_name=OWN)).warnings == []
    assert read(**generation(model_name=OWN, restore_faces=True, face_restoration_model="gfpgan")).warnings == []
    moved = read(**generation(model_name=OWN, restore_faces=True, face_restoration_model="GFPGAN", gfpgan_weight=0.7))
    assert [warning.split()[0] for warning in moved.warnings] == ["gfpgan_weight"]
    # A client that sends only this field is warned that it has no effect.
    assert "no effect" in read(denoising_strength=0.3).warnings[0]


def test_a_wrong_word_gets_a_suggestion() -> None:
    with pytest.raises(InvalidValue, match="one of just_resize, crop_and_resize, fill, not 'squeeze'"):
        reread(resize_mode="squeeze")
