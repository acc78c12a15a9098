"""Field names of other programs, the notations of LoRAs, and warnings in replies."""

import json
import uuid
from typing import Any

import pytest

from shared.errors import InvalidPicture, InvalidValue
from shared.jobs.job import JobSpec, NewJob, State
from shared.schema.body import ControlUnitBody, ExtrasBody, Img2ImgBody, Txt2ImgBody, UpscaleBody
from shared.schema.field_names import (
    CONTROL_UNIT_SYNONYMS,
    CONTROLNET_SYNONYMS,
    GENERATION_SYNONYMS,
    LORA_SPELLINGS,
    TXT2IMG_SYNONYMS,
    UPSCALE_SYNONYMS,
    suggest_field,
)
from shared.schema.replies import AcceptedReply
from shared.schema.request import Lora
from shared.web.app import txt2img_app
from shared.web.backend import Backend
from shared.web.parsing.generation import parse_img2img, parse_txt2img
from shared.web.parsing.unused_fields import unknown_fields
from shared.web.parsing.validate_fields import known_names
from shared.web.reply import LONGEST_HEADER, warnings_header
from shared.web.request_body import Fields
from tests.parsing import PICTURE, URL, context, read, refused, reread, words
from tests.test_templates import named
from workflows.templates import read_workflow

GLOW, INK = "glow.safetensors", "style/Ink.safetensors"


def test_every_synonym_means_an_existing_field() -> None:
    known_fields = {
        name for model in (Txt2ImgBody, Img2ImgBody, UpscaleBody, ExtrasBody) for name in known_names(model)
    }
    known_fields |= known_names(ControlUnitBody) | {"units"}
    for table in (GENERATION_SYNONYMS, TXT2IMG_SYNONYMS, UPSCALE_SYNONYMS, CONTROLNET_SYNONYMS, CONTROL_UNIT_SYNONYMS):
        for fields in table.values():
            for field in fields:
                assert field.startswith("the header ") or set(field.split(" and ")) <= known_fields, field
    assert set(LORA_SPELLINGS) == {"lora_name", "strength_model", "strength_clip", "enabled"}


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        # AUTOMATIC1111 and Forge.
        *(("n_iter", "batch_count"), ("sampler_index", "sampler_name"), ("enable_hr", "hires_fix")),
        *(("hr_scale", "hires_fix_upscale_factor"), ("hr_upscaler", "hires_fix_upscaler"), ("sd_vae", "vae_name")),
        *(("hr_second_pass_steps", "hires_fix_hires_steps"), ("alwayson_scripts", "controlnet")),
        *(("distilled_cfg_scale", "guidance"), ("refiner_checkpoint", "refiner_model")),
        # ComfyUI.
        *(("cfg", "cfg_scale"), ("noise_seed", "seed"), ("ckpt_name", "model_name"), ("sampler", "sampler_name")),
        *(("checkpoint", "model_name"), ("positive", "prompt"), ("workflow", "custom_workflow")),
        # OpenAI.
        *(("size", "width and height"), ("n", "batch_size"), ("model", "model_name")),
        *(("response_format", "the header Accept"), ("stream", "the header Accept: text/event-stream")),
        # diffusers.
        *(("num_inference_steps", "steps"), ("guidance_scale", "cfg_scale")),
        *(("num_images_per_prompt", "batch_size"), ("generator", "seed")),
        # SwarmUI, and camel case.
        *(("images", "batch_size"), ("cfgscale", "cfg_scale"), ("negativeprompt", "negative_prompt")),
        *(("CFG Scale", "cfg_scale"), ("negativePrompt", "negative_prompt"), ("clipstopatlayer", "clip_skip")),
        *(("stepz", "steps"), ("seamlesstileable", "tiling")),
    ],
)
def test_field_names_of_other_programs_get_a_suggestion(sent: str, field: str) -> None:
    (warning,) = read(**{sent: "1"}).warnings
    assert warning == f"ignored unknown fields: {sent} (did you mean {field}?)"


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        *(("strength", "denoising_strength"), ("denoise", "denoising_strength"), ("mask_image", "mask")),
        *(("inpainting_fill", "inpaint_mode"), ("inpaint_full_res", "only_masked"), ("init_images", "input_image")),
        *(("inpainting_mask_invert", "invert_mask"), ("initimagecreativity", "denoising_strength")),
        *(("images", "input_image"), ("feathering", "outpaint_feathering")),
    ],
)
def test_img2img_field_names_of_other_programs_get_a_suggestion(sent: str, field: str) -> None:
    (warning,) = reread(**{sent: "1"}).warnings
    assert warning == f"ignored unknown fields: {sent} (did you mean {field}?)"
    (elsewhere,) = read(**{"strength": 0.5}).warnings
    assert elsewhere == "ignored unknown fields: strength (img2img has denoising_strength)"


def test_nested_field_names_of_other_programs_get_a_suggestion() -> None:
    (settings,) = read(override_settings={"sd_model_checkpoint": "x", "CLIP_stop_at_last_layers": 2}).warnings
    assert "override_settings.sd_model_checkpoint (did you mean model_name?)" in settings
    assert "override_settings.CLIP_stop_at_last_layers (did you mean clip_skip?)" in settings
    unit = {"enabled": False, "module": "canny", "image": "x", "processor_res": 512, "strength": 1, "end_percent": 1}
    (units,) = read(controlnet={"units": [unit], "args": []}).warnings
    assert units.removeprefix("ignored unknown fields: ").split(", ") == [
        "controlnet.args (did you mean units?)",
        "controlnet.units[0].module (did you mean preprocessor?)",
        "controlnet.units[0].image (did you mean input_image?)",
        "controlnet.units[0].processor_res (did you mean resolution?)",
        "controlnet.units[0].strength (did you mean weight?)",
        "controlnet.units[0].end_percent (did you mean guidance_end?)",
    ]


def test_upscale_fields_have_their_own_synonyms() -> None:
    (warning,) = unknown_fields({"init_image": "x", "scale": 2, "model": "x", "upscaling_resize": 2}, UpscaleBody)
    suggestions = [
        entry.rpartition("(did you mean ")[2] for entry in warning.removeprefix("ignored unknown fields: ").split(", ")
    ]
    assert suggestions == ["image?)", "upscale_factor?)", "upscaler?)", "upscale_factor?)"]
    (warning,) = unknown_fields({"upscaler": "x", "format": "png"}, ExtrasBody)
    assert "upscaler (did you mean upscaler_model?), format (did you mean output_format?)" in warning


@pytest.mark.parametrize("sent", ["promt", "Prompt", "text", "positive_prompt", "inputs", "positivePrompt"])
def test_an_unknown_field_is_reported_with_a_missing_one(sent: str) -> None:
    with pytest.raises(InvalidValue) as wrong:
        parse_txt2img(Fields({"colour": 1, sent: "a cat"}, {}), context())
    assert (wrong.value.status, wrong.value.field, wrong.value.message) == (422, "prompt", "prompt is missing")
    assert wrong.value.hint == f"unknown fields: {sent} (did you mean prompt?), colour"
    with pytest.raises(InvalidValue) as missing:
        parse_txt2img(Fields({"steps": 1}, {}), context())
    assert missing.value.hint is None


@pytest.mark.parametrize("sent", ["init_images", "init_image", "inputImage", "image_url", "images", "img"])
def test_a_picture_under_another_name_is_reported(sent: str) -> None:
    for fields in (Fields({"prompt": "x", sent: [URL]}, {}), Fields({"prompt": "x"}, {sent: PICTURE})):
        with pytest.raises(InvalidPicture) as wrong:
            parse_img2img(fields, context())
        assert (wrong.value.status, wrong.value.field) == (422, "input_image")
        assert str(wrong.value.hint).startswith(f"unknown fields: {sent} (did you mean input_image?); send input_image")


def test_an_unknown_field_is_reported_inside_objects_and_workflows() -> None:
    missing = refused(loras=[{"adapter": "glow", "wieght": 1}])
    assert (missing.field, missing.hint) == ("loras[0].lora_name", "unknown fields: adapter, wieght")
    parameters = {"prompt": {"type": "string", "required": True, "targets": ["good.text"], "description": "what"}}
    workflow = read_workflow("test", named(**parameters, steps={"type": "integer"}))
    with pytest.raises(InvalidValue) as wrong:
        workflow.read({"promt": "a cat"}, 5)
    assert wrong.value.hint == "unknown fields: promt (did you mean prompt?); what"
    assert workflow.read({"prompt": "x", "num_inference_steps": 4, "cfg": 1}, 5)[1] == [
        "ignored unknown fields: num_inference_steps (did you mean steps?), cfg"
    ]
    assert refused(prompt={"3": {"class_type": "KSampler", "inputs": {}}}).hint == "send a graph as custom_workflow"


@pytest.mark.parametrize(
    ("written", "file", "model", "clip"),
    [
        *(("glow", GLOW, 1, 1), ("glow.safetensors:0.8", GLOW, 0.8, 0.8), ("glow:0.5:-2", GLOW, -2, 0.5)),
        *(("<lora:glow:.8>", GLOW, 0.8, 0.8), (" style/Ink : 0.8 ", INK, 0.8, 0.8), ("glow:1", GLOW, 1, 1)),
        *(({"name": "glow"}, GLOW, 1, 1), ({"name": "glow", "weight": 0.8}, GLOW, 0.8, 0.8)),
        *(({"file": "glow", "strength": "0.8"}, GLOW, 0.8, 0.8), ({"model": "glow", "scale": 2}, GLOW, 2, 2)),
        ({"on": True, "lora": "style\\Ink.safetensors", "strength": 0.8, "strengthTwo": 0.3}, INK, 0.8, 0.3),
        ({"modelName": "glow", "clipWeight": 0.3, "weight": None}, GLOW, 1, 0.3),
        ({"lora_name": "glow", "strength_model": 0.5}, GLOW, 0.5, 0.5),
    ],
)
def test_every_notation_of_a_lora_is_accepted(written: Any, file: str, model: float, clip: float) -> None:
    lora = Lora(file, model, clip)
    notations = [{"lora": written}, {"loras": [written]}, {"loras": [written, "glow:0.1"]}]
    # A form sends text.
    text = written if isinstance(written, str) else json.dumps(written)
    notations += [{"lora": text}, {"loras": json.dumps([written])}, {"lora": json.dumps(written)}]
    if isinstance(written, str):
        notations += [{"loras": written}, {"loras": f"{written}, glow:0.1"}]
    for values in notations:
        parsed = read(**values)
        assert parsed.warnings == []
        assert parsed.request.loras[0] == lora
        assert parsed.request.loras[1:] in ((), (Lora(GLOW, 0.1, 0.1),))
        # The reported parameters mean the same LoRAs.
        assert read(**parsed.parameters).request.loras == parsed.request.loras


def test_loras_that_are_off_or_none_are_ignored() -> None:
    for value in ("", "none", {"name": "glow", "on": False}, {"name": "None"}, None):
        assert words(lora=value).loras == ()
        assert words(loras=[entry for entry in [value] if entry is not None]).loras == ()


def test_a_field_sent_under_two_names_adds_a_warning() -> None:
    parsed = read(lora={"name": "The glow", "filename": GLOW, "weight": 0.5, "strength_model": 0.7})
    assert parsed.request.loras == (Lora(GLOW, 0.7, 0.7),)
    assert "lora.name (did you mean lora_name?), lora.weight (did you mean strength_model?)" in parsed.warnings[0]


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({"lora": 5}, "lora", "the name of a file, or an object with lora_name"),
        ({"lora": ["glow"]}, "lora", "the name of a file, or an object with lora_name"),
        ({"loras": 5}, "loras", "a list of at most 16"),
        ({"loras": [["glow"]]}, "loras[0]", "the name of a file, or an object with lora_name"),
        ({"loras": [None]}, "loras[0]", "the name of a file"),
        ({"loras": ["glow"] * 17}, "loras", "a list of at most 16"),
        ({"loras": '["glow"'}, "loras", "is text that is not valid JSON"),
        ({"lora": '{"name": "glow"'}, "lora", "is text that is not valid JSON"),
        ({"lora": "glow:11"}, "lora.strength_model", "a number from -10 to 10"),
        ({"loras": ["glow", "ink:99"]}, "loras[1].strength_model", "a number from -10 to 10"),
        ({"loras": ["glow:high"]}, "loras[0].lora_name", "does not exist"),
        ({"loras": ["[glow"]}, "loras[0].lora_name", "does not exist"),
        ({"controlnet": []}, "controlnet", "an object with enabled, units"),
    ],
)
def test_other_types_are_refused_with_a_clear_message(values: dict[str, Any], field: str, message: str) -> None:
    error = refused(**values)
    assert (error.status, error.field) == (422, field)
    assert message in error.message


def test_a_warning_names_a_limited_number_of_fields() -> None:
    (warning,) = read(**{f"unknown_{index}": 1 for index in range(900)}, **{"x" * 5000: 1}).warnings
    assert warning.endswith(" and 881 more")
    assert len(warning) < 2000
    # Names beyond the limit are not looked up.
    many = {f"sd_model_{index}": 1 for index in range(100_000)}
    assert read(override_settings=many).warnings[0].endswith(" and 99981 more")
    assert refused(loras=[" " * 100_000 + ":1" * 50_000] * 100_000).field == "loras[0].lora_name"
    assert suggest_field("cfg" * 100_000, ["cfg_scale"], GENERATION_SYNONYMS) is None


@pytest.mark.parametrize(
    "warnings",
    [
        ["plain"],
        ["line\r\nX-Evil: 1", "\x00\x7f\ud800 é 😀"],
        ["w" * 100_000],
        ["😀" * 10_000, "é" * 10_000],
        [f"warning {index} " + "w" * 90 for index in range(500)],
        ["\n" * 5000] * 3,
    ],
)
def test_the_warnings_header_is_short_ascii_json(warnings: list[str]) -> None:
    header = warnings_header(warnings)
    assert header.isascii()
    assert header.isprintable()
    assert len(header) <= LONGEST_HEADER
    reply = json.loads(header)
    if sum(map(len, warnings)) < 100:
        assert reply == warnings
    else:
        assert reply[0].startswith(warnings[0][:90])
        assert reply[-1].endswith((" more", "...")) or reply == warnings


def test_every_kind_of_reply_has_the_warnings(backend: Backend) -> None:
    client = txt2img_app(backend).test_client()
    expected_warnings = ["ignored unknown fields: größe (did you mean width and height?)"]
    sent = {"prompt": "x"}
    spec = JobSpec(parameters=sent, warnings=expected_warnings)
    key = {"Idempotency-Key": "once"}
    digest = Fields(sent, {}).digest("txt2img")
    job_id = str(uuid.uuid4())
    row, _ = backend.jobs.store.add(
        NewJob(job_id, "txt2img", "", "txt2img", spec, idempotency_key="once", body_hash=digest), "me", 9
    )
    accepted = client.post("/api/txt2img", json=sent, headers={**key, "Prefer": "respond-async"})
    assert accepted.status_code == 202
    assert accepted.json is not None
    assert accepted.json["warnings"] == expected_warnings
    AcceptedReply.model_validate(accepted.json)
    backend.jobs.store.finish(row, "me", State.COMPLETED, images=[])
    waited = client.post("/api/txt2img", json=sent, headers=key)
    streamed = client.post("/api/txt2img", json=sent, headers={**key, "Accept": "text/event-stream"})
    retried = client.post(f"/api/jobs/{job_id}/retry")
    assert (waited.status_code, streamed.status_code, retried.status_code) == (200, 200, 202)
    for reply in (accepted, waited, streamed, retried):
        assert json.loads(reply.headers["X-Warnings"]) == expected_warnings
    streamed.close()
