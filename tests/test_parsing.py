"""The parser of request fields: defaults, names, seeds, sizes, warnings and errors."""

import json
from typing import Any

import pytest

from shared.errors import EngineUnavailable, InvalidPicture, InvalidValue
from shared.models.defaults import choose_checkpoint
from shared.models.detect import ModelFile
from shared.schema.body import Txt2ImgBody
from shared.schema.request import Lora, Upscale
from shared.web.parsing.generation import parse_img2img, parse_txt2img
from shared.web.parsing.parser import ParsingContext
from shared.web.parsing.pictures import upload_name
from shared.web.parsing.validate_fields import MAX_PROBLEMS, validate
from shared.web.request_body import Fields
from starter import CHECKPOINT_NAME
from tests.model_library import FLUX, OWN, REFINER, SCHNELL, ModelLibrary
from tests.parsing import HALF_MASK, IMAGE, PICTURE, URL, WHITE, context, picture, read, refused, reread, words
from tests.payloads import UNIT, generation
from tests.stack import data_url, encoded


def test_omitted_fields_have_the_usual_defaults() -> None:
    parsed = read()
    request = parsed.request
    assert (request.size, request.sampling.steps, request.sampling.cfg) == ((512, 512), 20, 7.0)
    assert (request.sampling.sampler, request.sampling.scheduler, len(request.seeds)) == ("euler", "normal", 1)
    assert request.models.checkpoint == OWN
    assert parsed.warnings == []


def test_null_and_empty_form_fields_mean_the_default() -> None:
    parsed = reread(width="", seed="", steps="", model_name="", negative_prompt="", mask=None, hires_fix=None)
    assert (parsed.request.size, parsed.request.sampling.steps) == ((64, 32), 20)
    assert parsed.request.models.checkpoint == OWN
    assert parsed.warnings == []
    assert words(controlnet={"units": [{"enabled": False, "input_image": None}], "enabled": None}).controls == ()


def test_lists_and_objects_in_a_form_are_json() -> None:
    loras = json.dumps([{"lora_name": "glow"}])
    assert words(loras=loras).loras == (Lora("glow.safetensors", 1.0, 1.0),)
    assert refused(loras='["glow"').field == "loras"
    assert refused(controlnet="units").field == "controlnet"


def test_seeds() -> None:
    assert words(seed=5).seeds == (5,)
    assert words(seed="5", batch_size=2, batch_count=3).seeds == (5, 6, 7, 8, 9, 10)
    assert words(seed=2**64 - 1).seeds == (2**64 - 1,)
    assert refused(seed=2**64 - 1, batch_size=2).field == "seed"
    for random in (
        {},
        {"seed": -1},
        {"seed": "-1"},
        {"seed": None},
        {"seed": 5, "random_seed": True},
        {"seed": 5, "random_seed": "true"},
    ):
        drawn = {words(**random).seeds[0] for _ in range(3)}
        assert len(drawn) == 3
        assert all(0 <= seed < 2**32 for seed in drawn)
    assert words(seed=5, random_seed=False).seeds == (5,)


def test_the_parameters_of_a_reply_parse_to_the_same_request() -> None:
    values = {
        "prompt": "a cat <lora:glow:0.5>",
        "seed": 5,
        "batch_count": 2,
        "sampler_name": "DPM++ 2M Karras",
        "hires_fix": True,
        "hires_fix_upscaler": "4x-ultrasharp",
        "refiner_enabled": True,
        "refiner_model": "refiner",
        "clip_skip": 2,
        "controlnet": {"units": [{"model": "canny", "input_image": URL, "preprocessor": "canny"}]},
    }
    first = read(**values)
    again = parse_txt2img(Fields(first.parameters, {}), context(**{f"n{k}": v for k, v in first.raw_uploads.items()}))
    assert again.request == first.request
    assert again.parameters == first.parameters
    assert json.loads(json.dumps(first.parameters)) == first.parameters


def test_units_that_are_off_are_left_out_of_the_parameters() -> None:
    unit = {"model": "canny", "input_image": URL}
    parameters = read(controlnet={"units": [{**unit, "enabled": False}, unit]}).parameters
    assert parameters["controlnet"] == {"units": [{"model": "canny", "input_image": upload_name(encoded(IMAGE))}]}


def test_requests_of_the_web_page_have_no_warnings() -> None:
    values = generation(model_name=OWN)
    parsed = read(**values, controlnet={"enabled": True, "units": [{**UNIT, "input_image": URL}]})
    assert len(parsed.request.seeds) == 4
    assert (parsed.request.sampling.sampler, parsed.request.sampling.scheduler) == ("dpmpp_2m", "karras")
    assert parsed.warnings == []
    cleared = {name: None for name in values if name not in ("prompt", "denoising_strength")}
    assert read(prompt="a cat", **cleared).warnings == []
    square = data_url(IMAGE.resize((64, 64)), "application/octet-stream")
    assert parse_img2img(Fields({**values, "input_image": square}, {}), context()).warnings == []


def test_the_parameters_of_an_img2img_reply_parse_to_the_same_request() -> None:
    first = reread({"image": PICTURE, "mask": HALF_MASK}, seed=1, mask_blur=4, outpaint_left=24, width=100, height=77)
    again = parse_img2img(Fields(first.parameters, {}), context(**{f"n{k}": v for k, v in first.raw_uploads.items()}))
    assert again.request == first.request
    assert first.parameters["input_image"] == upload_name(PICTURE)


def test_the_default_checkpoint() -> None:
    assert choose_checkpoint("set.safetensors", [OWN]) == "set.safetensors"
    assert choose_checkpoint(None, [CHECKPOINT_NAME, "z.safetensors", "b.safetensors"]) == "b.safetensors"
    assert choose_checkpoint(None, [CHECKPOINT_NAME]) == CHECKPOINT_NAME
    assert choose_checkpoint(None, []) is None
    with pytest.raises(EngineUnavailable, match="no checkpoint"):
        parse_txt2img(Fields({"prompt": "x"}, {}), ParsingContext(None, ModelLibrary(checkpoints=()), {}.get))


def test_a_recently_deleted_checkpoint_is_not_chosen() -> None:
    class CachedLibrary(ModelLibrary):
        """Lists a deleted file, unless the caller requires a fresh list."""

        def names(self, folder: str, max_age: float = 1.0) -> list[str]:
            return [*(["a-deleted.safetensors"] if max_age else []), *super().names(folder)]

        def model_file(self, folder: str, name: str) -> ModelFile:
            return ModelFile(name) if name == "a-deleted.safetensors" else super().model_file(folder, name)

    parsed = parse_txt2img(Fields({"prompt": "x"}, {}), ParsingContext(None, CachedLibrary(checkpoints=(OWN,)), {}.get))
    assert parsed.request.models.checkpoint == OWN


def test_fields_in_the_request_are_distinguished_from_defaults() -> None:
    assert read().explicit_fields == {"prompt"}
    assert read(sampler_name="dpm-2m-karras", random_seed=True).explicit_fields == {
        "prompt",
        "sampler_name",
        "scheduler",
        "seed",
    }
    assert read(sampler_name="dpmpp_2m", karras_sigmas=True).explicit_fields == {"prompt", "sampler_name", "scheduler"}


@pytest.mark.parametrize("name", [REFINER, "refiner", "REFINER.safetensors", "sdxl\\refiner.safetensors"])
def test_a_file_is_found_by_its_name_without_the_folder(name: str) -> None:
    assert words(model_name=name).models.checkpoint == REFINER


def test_the_error_of_a_missing_file_suggests_the_nearest_names() -> None:
    error = refused(model_name="dreamshapr")
    assert (error.field, error.details["nearest"]) == ("model_name", [OWN])
    assert refused(vae_name="none such").field == "vae_name"
    assert refused(lora={"lora_name": "glew"}).details["nearest"] == ["glow.safetensors"]
    wrong = refused(hires_fix=True, hires_fix_upscaler="2x")
    assert (wrong.field, wrong.hint is not None) == ("hires_fix_upscaler", True)
    assert {"4x-UltraSharp.pth", "Latent (bicubic)", "Lanczos"} <= set(
        str(wrong.hint).removeprefix("use ").split(" or ")
    )
    assert refused(upscaler="2x").field == "upscaler"
    assert refused(refiner_enabled=True, refiner_model="x").field == "refiner_model"
    assert refused(refiner_enabled=True).field == "refiner_model"
    unit = {"model": "depth", "input_image": URL}
    assert refused(controlnet={"units": [{"enabled": False}, unit]}).field == "controlnet.units[1].model"


def test_fields_of_disabled_features_are_not_validated() -> None:
    parsed = read(
        refiner_enabled=False,
        refiner_model="none",
        hires_fix=False,
        hires_fix_upscaler="none such",
        lora={"enabled": False, "lora_name": "none such"},
        controlnet={"enabled": False, "units": [{"model": "none such"}]},
        upscaler="none",
    )
    assert (parsed.request, parsed.warnings) == (words(seed=parsed.request.seeds[0]), [])


def test_loras_in_prompt_and_fields_are_combined() -> None:
    request = words(
        prompt="a cat, <lora:ink:0.8>, <LORA:glow:0.5:0.25> <lora:glow> asleep",
        lora={"lora_name": "glow", "strength_model": 0.3},
        loras=[{"lora_name": "ink.safetensors", "strength_clip": 0}, {"lora_name": "ink", "enabled": False}],
    )
    assert request.prompt == "a cat, asleep"
    assert request.loras == (
        Lora("glow.safetensors", 0.3, 0.3),
        Lora("style/Ink.safetensors", 1.0, 0.0),
        Lora("style/Ink.safetensors", 0.8, 0.8),
        Lora("glow.safetensors", 0.25, 0.5),
        Lora("glow.safetensors", 1.0, 1.0),
    )
    assert refused(prompt="<lora:glow:strong>").field == "prompt"
    assert refused(prompt="<lora:glow:nan>").field == "prompt"
    assert refused(prompt="<lora:none such>").field == "prompt"


def test_names_of_embeddings_become_file_names() -> None:
    parsed = read(prompt="a cat,embedding:RUBY, b", negative_prompt="(Embedding:easynegative:1.2), embedding:ugly")
    assert parsed.request.prompt == "a cat, embedding:ruby.safetensors, b"
    assert parsed.request.negative_prompt == "(embedding:EasyNegative.pt:1.2), embedding:ugly"
    assert parsed.warnings == [
        "negative_prompt names the embedding 'ugly', which does not exist and has no effect; use ruby.safetensors"
    ]


def test_sampler_and_scheduler() -> None:
    def names(**values: Any) -> tuple[str, str]:
        sampling = words(**values).sampling
        return sampling.sampler, sampling.scheduler

    assert names(sampler_name="dpm-2m-karras", scheduler="normal") == ("dpmpp_2m", "karras")
    assert names(sampler_name="Euler a", scheduler="SGM Uniform") == ("euler_ancestral", "sgm_uniform")
    assert names(sampler_name="euler", karras_sigmas=True, scheduler="normal") == ("euler", "karras")
    assert names(scheduler="automatic") == ("euler", "normal")
    wrong = refused(sampler_name="eular", hires_fix=True)
    assert (wrong.field, wrong.details["nearest"][0]) == ("sampler_name", "euler")
    assert refused(hires_fix=True, hires_fix_sampler_name="Restart").field == "hires_fix_sampler_name"
    assert refused(scheduler="karas").details["nearest"][0] == "karras"
    assert "ipndm" in read(sampler_name="plms").warnings[0]
    assert "equal steps" in read(sampler_name="dpm_adaptive").warnings[0]
    assert refused(sampler_name="dpm_adaptive", refiner_enabled=True, refiner_model="refiner").field == "sampler_name"


def test_flux_uses_cfg_scale_as_guidance() -> None:
    omitted = read(model_name=FLUX)
    assert (omitted.request.sampling.cfg, omitted.request.guidance, omitted.warnings) == (1.0, 3.5, [])
    sent = read(model_name=FLUX, cfg_scale=7)
    assert (sent.request.sampling.cfg, sent.request.guidance) == (1.0, 7.0)
    assert "guidance" in sent.warnings[0]
    both = read(model_name=FLUX, cfg_scale=2, guidance=4)
    assert (both.request.sampling.cfg, both.request.guidance, both.warnings) == (2.0, 4.0, [])
    schnell = read(model_name=SCHNELL, cfg_scale=7)
    assert (schnell.request.sampling.cfg, schnell.request.sampling.steps) == (1.0, 4)
    assert "cfg 1" in schnell.warnings[0]
    assert "no effect" in read(guidance=3).warnings[0]
    assert words(model_name=FLUX).models.latent_channels


def test_parts_of_a_split_model_are_found_by_their_type() -> None:
    models = words(model_name="flux-alone").models
    assert (models.checkpoint, models.diffusion_model) == (None, "flux-alone.safetensors")
    assert (models.text_encoders, models.clip_type) == (("l.safetensors", "t5.safetensors"), "flux")
    assert (models.vae, models.latent_channels) == ("ae.safetensors", 16)
    assert words(model_name="flux-alone", text_encoders=["t5"], vae_name="ae").models.text_encoders == (
        "t5.safetensors",
    )
    with pytest.raises(InvalidValue, match="t5xxl") as wrong:
        read(ModelLibrary(text_encoders=("l.safetensors",)), model_name="flux-alone")
    assert wrong.value.field == "text_encoders"
    with pytest.raises(InvalidValue, match="16 channels"):
        read(ModelLibrary(vae=("sd.safetensors",)), model_name="flux-alone")


def test_hires_fix() -> None:
    assert words().hires is None
    latent = words(hires_fix_enabled=True, steps=12, hires_fix_upscale_factor=1.5).hires
    assert latent is not None
    assert (latent.size, latent.latent_method, latent.sampling.steps) == ((768, 768), "bilinear", 12)
    assert (latent.sampling.denoise, latent.sampling.sampler) == (0.5, "euler")
    model = words(
        hires_fix=True,
        hires_fix_upscaler="4x-ultrasharp",
        hires_fix_upscale_method="resize-to",
        hires_fix_resize_width=1001,
        hires_fix_hires_steps=3,
        hires_fix_sampler_name="DPM++ 2M Karras",
        hires_fix_cfg_scale=3,
    ).hires
    assert model is not None
    assert (model.size, model.latent_method) == ((1001, 1001), None)
    assert model.upscale == Upscale((1008, 1008), model="4x-UltraSharp.pth")
    assert (model.sampling.steps, model.sampling.sampler, model.sampling.scheduler) == (3, "dpmpp_2m", "karras")
    assert refused(hires_fix=True, width=2048, hires_fix_upscale_factor=4).field == "hires_fix_upscale_factor"
    assert refused(hires_fix=True, hires_fix_upscale_method="resize-to").field == "hires_fix_resize_width"


def test_upscaling_of_finished_pictures() -> None:
    assert words(upscaler="4x-ultrasharp", upscale_factor=1.3, width=100).final_size == (130, 666)
    assert words(upscaler="Lanczos").upscale == Upscale((1024, 1024))
    assert refused(upscaler="Lanczos", width=4096, upscale_factor=8).field == "upscale_factor"


def test_controlnet_units() -> None:
    unit = {"model": "canny", "input_image": URL, "preprocessor": "canny", "threshold_a": 200, "threshold_b": 100}
    (control,) = words(controlnet={"units": [{**unit, "weight": 0.5, "guidance_end": 0.7, "resolution": 256}]}).controls
    assert (control.model, control.weight, control.end) == ("canny.safetensors", 0.5, 0.7)
    assert control.picture.size == (512, 512)
    assert control.preprocessing is not None
    assert control.preprocessing.inputs == (("low_threshold", 0.3922), ("high_threshold", 0.7843))
    assert control.preprocessing.resolution == 256
    perfect = words(controlnet={"units": [{**unit, "pixel_perfect": True, "resolution": 256}]}).controls[0]
    assert perfect.preprocessing is not None
    assert perfect.preprocessing.resolution is None
    by_type = words(controlnet={"units": [{"model": "canny", "input_image": URL, "control_type": "canny"}]}).controls[0]
    assert by_type.preprocessing is not None
    assert words(controlnet={"units": [{**unit, "preprocessor": "none"}]}).controls[0].preprocessing is None
    assert (control.union_type, by_type.union_type) == (None, None)
    assert words(controlnet={"units": [{**unit, "model": "union"}]}).controls[0].union_type is not None
    for change, field in (
        ({"preprocessor": "magic"}, "preprocessor"),
        ({"model": None}, "model"),
        ({"guidance_start": 0.9, "guidance_end": 0.1}, "guidance_start"),
        ({"weight": 11}, "weight"),
        ({"control_mode": "loud"}, "control_mode"),
    ):
        assert refused(controlnet={"units": [{**unit, **change}]}).field == f"controlnet.units[0].{field}"
    with pytest.raises(InvalidPicture) as wrong:
        read(controlnet={"units": [{"model": "canny"}]})
    assert wrong.value.field == "controlnet.units[0].input_image"
    # In img2img, units without a picture use the source.
    assert picture(controlnet={"units": [{"model": "canny"}]}).controls[0].picture.size == (64, 32)


def test_preprocessors_of_custom_nodes_work_only_if_installed() -> None:
    def unit(**fields: Any) -> dict[str, Any]:
        return {"units": [{"enabled": False}, {"model": "canny", "input_image": URL, **fields}]}

    for preprocessor, message in (("openpose", "needs the node OpenposePreprocessor"), ("nonsense", "is unknown")):
        wrong = refused(controlnet=unit(preprocessor=preprocessor))
        assert wrong.field == "controlnet.units[1].preprocessor"
        assert message in wrong.message
        assert wrong.hint is not None
        assert wrong.hint.startswith("use one of none, canny; ")
    library = ModelLibrary()
    library.nodes = ("OpenposePreprocessor",)
    # By default, the resolution is the short side of the picture.
    perfect = {"resolution": 256, "pixel_perfect": True}
    for values, resolution in (({}, 384), ({"resolution": 256}, 256), (perfect, 384)):
        request = read(library, controlnet=unit(preprocessor="openpose", **values), width=640, height=384).request
        preprocessing = request.controls[0].preprocessing
        assert preprocessing is not None
        assert (preprocessing.node, preprocessing.inputs) == ("OpenposePreprocessor", (("resolution", resolution),))


def test_unknown_fields_at_any_depth_are_a_warning() -> None:
    warnings = read(
        hires_fixx=False,
        Prompt="x",
        controlnet={"units": [{"enabled": False, "unit_index": 0, "low_vram": True, "wieght": 1}], "mode": "x"},
        lora={"lora_name": "glow", "trigger": "y"},
        loras=[{"lora_name": "glow"}, {"lora_name": "glow", "rank": 1}],
    ).warnings
    assert warnings == [
        "ignored unknown fields: hires_fixx (did you mean hires_fix?), Prompt (did you mean prompt?), "
        "controlnet.mode, controlnet.units[0].wieght (did you mean weight?), lora.trigger, loras[1].rank"
    ]
    assert reread({"image": PICTURE, "photo": b""}).warnings == ["ignored unknown fields: photo"]


def test_fields_without_effect_are_a_warning() -> None:
    fields = {"mask_blur": 4, "invert_mask": True, "inpaint_mode": "refine", "grow_mask_by": 9}
    more = {"only_masked_padding": 8, "outpaint_feathering": 3, "upscale_factor": 3}
    warnings = reread(**fields, **more).warnings
    assert {warning.split()[0] for warning in warnings} == {*fields, *more}
    assert all("has no effect" in warning for warning in warnings)
    both = {"image": PICTURE, "mask": HALF_MASK}
    assert reread(both, mask_blur=4, invert_mask=True, grow_mask_by=9).warnings == []
    assert "grow_mask_by" in reread(both, inpaint_mode="refine", grow_mask_by=9).warnings[0]
    masked = reread(both, only_masked=True, resize_mode="fill", only_masked_padding=8, width=64, height=64)
    assert masked.warnings == ["resize_mode has no effect: only_masked stretches the region around the mask"]


def test_txt2img_warns_that_it_ignores_a_picture() -> None:
    parsed = parse_txt2img(Fields({"prompt": "x"}, {"image": PICTURE, "mask": WHITE}), context())
    assert parsed.warnings == ["ignored unknown fields: image (img2img has input_image), mask (img2img has mask)"]
    assert "no effect" in read(denoising_strength=0.75).warnings[0]


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({"width": 5}, "width", "a whole number from 16 to 4096, not 5"),
        ({"width": 64.5}, "width", "a whole number from 16 to 4096"),
        ({"steps": True}, "steps", "a whole number from 1 to 1000, not True"),
        ({"cfg_scale": float("nan")}, "cfg_scale", "a number from 0 to 100"),
        ({"seed": -2}, "seed", "or -1 for a random one"),
        ({"prompt": 5}, "prompt", "text of at most 20000 characters"),
        ({"prompt": None}, "prompt", "prompt is missing"),
        ({"batch_size": 17}, "batch_size", "from 1 to 16"),
        ({"hires_fix": "perhaps"}, "hires_fix", "true or false"),
        ({"hires_fix_upscale_method": "more"}, "hires_fix_upscale_method", "one of upscale-by, resize-to"),
        ({"loras": [{"lora_name": "glow", "strength_model": 11}]}, "loras[0].strength_model", "from -10 to 10"),
        ({"loras": 5}, "loras", "a list of at most 16"),
        ({"lora": 5}, "lora", "an object"),
        ({"lora": {}}, "lora.lora_name", "is missing"),
        ({"controlnet": {"units": [{"guidance_start": 2}]}}, "controlnet.units[0].guidance_start", "from 0 to 1"),
    ],
)
def test_a_wrong_value_is_reported_with_its_range(values: dict[str, Any], field: str, message: str) -> None:
    fields = {name: value for name, value in {"prompt": "x", **values}.items() if value is not None}
    with pytest.raises(InvalidValue) as wrong:
        parse_txt2img(Fields(fields, {}), context())
    assert wrong.value.field == field
    assert message in wrong.value.message


def test_all_wrong_fields_are_reported_at_once() -> None:
    assert [problem["field"] for problem in refused(width=5, steps="x").details["problems"]] == ["width", "steps"]


@pytest.mark.parametrize("wrong", [{"text_encoders": [1] * 500}, {"controlnet": {"units": ["a"] * 500}}])
def test_the_number_of_reported_wrong_values_is_limited(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue) as caught:
        validate(Txt2ImgBody, {"prompt": "x", **wrong})
    assert len(caught.value.details["problems"]) == MAX_PROBLEMS
