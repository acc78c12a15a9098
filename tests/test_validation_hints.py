"""Values of a shape that newcomers send: what is told to send instead."""

from typing import Any

import pytest

from shared.errors import InvalidPicture, InvalidValue
from shared.models.downloadable import download_command
from shared.web.parsing.generation import parse_txt2img
from shared.web.request_body import Fields
from tests.parsing import URL, context, read, refused, reread

GRAPH = {"3": {"class_type": "KSampler", "inputs": {}}}


def refused_body(body: dict[str, Any]) -> InvalidValue:
    with pytest.raises(InvalidValue) as wrong:
        parse_txt2img(Fields(body, {}), context())
    return wrong.value


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        # ComfyUI's POST /prompt, its graph alone, under another name, and the file that its page saves.
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
def test_what_stands_in_place_of_a_prompt(body: dict[str, Any], hint: str) -> None:
    wrong = refused_body(body)
    assert wrong.field == "prompt"
    assert hint in str(wrong.hint)


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
def test_what_stands_in_place_of_a_structure(field: str, value: Any, hint: str) -> None:
    wrong = refused(**{field: value})
    assert str(wrong.field).startswith(field)
    assert hint in f"{wrong.message} {wrong.hint}"


def test_json_text_without_quotes_is_named() -> None:
    assert "cmd and PowerShell" in str(refused(controlnet="{units: []}").hint)


def test_a_unit_without_its_list_is_refused_with_a_hint() -> None:
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
def test_what_stands_in_place_of_a_picture(field: str, sent: str, hint: str) -> None:
    with pytest.raises(InvalidPicture) as wrong:
        reread({} if field == "input_image" else None, **{field: sent})
    assert (wrong.value.field, wrong.value.message) == (field, f"{field} is not base64")
    assert hint in str(wrong.value.hint)


@pytest.mark.parametrize(
    ("sent", "kind"),
    [([URL], "a list"), ({"url": URL}, "an object"), (5, "a number"), (True, "true or false"), (0.5, "a number")],
)
def test_so_is_what_is_no_text(sent: Any, kind: str) -> None:
    with pytest.raises(InvalidPicture, match=f"input_image must be text, not {kind}"):
        reread({}, input_image=sent)


def test_an_empty_file_is_not_a_missing_one() -> None:
    with pytest.raises(InvalidPicture, match="image is an empty file"):
        reread({"image": b""})


@pytest.mark.parametrize(
    ("named", "command"),
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
def test_a_model_that_is_named_by_where_it_is_can_be_added(named: str, command: str) -> None:
    assert command in str(refused(model_name=named).hint)


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
def test_nothing_is_told_that_a_shell_would_run(text: str) -> None:
    assert download_command(text) is None
