"""Hints for values of the wrong type or shape, as newcomers send them."""

from typing import Any

import pytest

from shared.errors import InvalidPicture, InvalidValue
from shared.models.downloadable import download_command
from shared.web.parsing.generation import parse_txt2img
from shared.web.request_body import Fields
from tests.parsing import URL, context, read, refused, reread

GRAPH = {"3": {"class_type": "KSampler", "inputs": {}}}


def refused_body(body: dict[str, Any]) -> InvalidValue:
    with pytest.raises(InvalidValue) as error:
        parse_txt2img(Fields(body, {}), context())
    return error.value


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        # A body of ComfyUI's POST /prompt, a graph alone or under another name, and a file saved by ComfyUI's page.
        ({"prompt": GRAPH, "client_id": "x"}, "send a graph as custom_workflow"),
        (GRAPH, "send a graph as custom_workflow"),
        ({"workflow": GRAPH}, "send a graph as custom_workflow"),
        ({"nodes": [], "links": [], "last_node_id": 1}, "Export (API)"),
        ({"prompt": {"text": "x"}}, "send the text itself"),
        ({"prompt": ["a", "b"]}, "batch_size"),
        ({"prompt": "x" * 20_001}, "it has 20,001 characters"),
        ({}, 'send {"prompt": "a lighthouse"}'),
    ],
)
def test_other_values_in_place_of_a_prompt_get_a_hint(body: dict[str, Any], hint: str) -> None:
    error = refused_body(body)
    assert error.field == "prompt"
    assert hint in str(error.hint)


@pytest.mark.parametrize(
    ("field", "value", "hint"),
    [
        ("controlnet", [{"model": "canny"}], '{"units": [{"model"'),
        ("controlnet", "canny", '{"units": [{"model"'),
        ("loras", {"glow": {"weight": 1}}, 'send a list, such as [{"lora_name"'),
        ("lora", ["glow", "ink"], "send several as loras"),
        ("loras", [["glow", 0.5]], "ink:0.8"),
    ],
)
def test_other_values_in_place_of_a_structure_get_a_hint(field: str, value: Any, hint: str) -> None:
    error = refused(**{field: value})
    assert str(error.field).startswith(field)
    assert hint in f"{error.message} {error.hint}"


def test_json_that_lost_its_quotes_gets_a_hint_about_the_shell() -> None:
    assert "cmd and PowerShell" in str(refused(controlnet="{units: []}").hint)


def test_a_unit_outside_its_list_gets_a_suggestion() -> None:
    (warning,) = read(controlnet={"model": "canny", "input_image": URL}).warnings
    assert "controlnet.model (did you mean units?), controlnet.input_image (did you mean units?)" in warning


ADDRESSES = (
    *("https://example.com/cat.png", "HTTP://example.com/a", "file:///home/me/cat.png", "/home/me/cat.png", "./cat"),
    *(r"C:\Users\me\cat.png", r"\\server\share\cat", "cat.png", "~/cat.png", "~/cat", "blob:http://localhost:8080/abc"),
    *("s3://bucket/cat", "ipfs://x", "gs://a", "ftp://x/y.png", "www.example.com/cat", "../cat.webp"),
)


@pytest.mark.parametrize("field", ["input_image", "mask"])
@pytest.mark.parametrize(
    ("sent", "hint"),
    [
        *((address, "addresses and file names are not fetched; send the picture itself") for address in ADDRESSES),
        ("@cat.png", "curl sends files with -F image=@"),
        *(
            (text, "what JavaScript makes of a missing value")
            for text in ("undefined", "[object Object]", "[object File]")
        ),
        ("<img src='x'>", "send a data URL"),
    ],
)
def test_other_text_in_place_of_a_picture_gets_a_hint(field: str, sent: str, hint: str) -> None:
    with pytest.raises(InvalidPicture) as error:
        reread({} if field == "input_image" else None, **{field: sent})
    assert (error.value.field, error.value.message) == (field, f"{field} is not base64")
    assert hint in str(error.value.hint)


@pytest.mark.parametrize(
    ("sent", "kind"),
    [([URL], "a list"), ({"url": URL}, "an object"), (5, "a number"), (True, "true or false"), (0.5, "a number")],
)
def test_a_picture_that_is_not_text_is_refused(sent: Any, kind: str) -> None:
    with pytest.raises(InvalidPicture, match=f"input_image must be text, not {kind}"):
        reread({}, input_image=sent)


def test_an_empty_file_differs_from_a_missing_one() -> None:
    with pytest.raises(InvalidPicture, match="image is an empty file"):
        reread({"image": b""})


@pytest.mark.parametrize(
    ("model_name", "command"),
    [
        ("runwayml/stable-diffusion-v1-5", "models add sd15"),
        ("https://huggingface.co/stabilityai/sdxl-turbo", "models add sdxl-turbo"),
        ("https://huggingface.co/stabilityai/sdxl-turbo/", "models add sdxl-turbo"),
        (
            "https://huggingface.co/a/b/resolve/main/c.safetensors?download=true",
            'models add "https://huggingface.co/a/b/resolve/main/c.safetensors?download=true"',
        ),
        ("https://example.com/a.safetensors", 'models add "https://example.com/a.safetensors"'),
    ],
)
def test_a_model_given_by_its_url_gets_the_command_to_add_it(model_name: str, command: str) -> None:
    assert command in str(refused(model_name=model_name).hint)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "https://x/$(rm -rf ~).safetensors",
            "https://x/`id`.safetensors",
            'https://x/".safetensors',
            "http://x/a.ckpt",
        ),
        *(
            "https://x/a b.safetensors",
            "https://x/a\n.safetensors",
            "file:///a.safetensors",
            "",
            "/",
            "https://x/!a.safetensors",
        ),
    ],
)
def test_no_command_contains_shell_syntax_from_a_url(text: str) -> None:
    assert download_command(text) is None
