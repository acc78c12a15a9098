"""POST /api/png-info: the texts that it reads, and pictures reproduced from its parameters on the real engine."""

import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient
from PIL import Image, ImageDraw, PngImagePlugin

from shared.images.embedded_text import read_texts, with_texts
from shared.settings import Settings
from shared.web.app import create_app
from shared.web.backend import Backend
from shared.web.parsing.pictures import upload_name
from shared.web.routes.png_info import png_info_routes
from tests.stack import PNG, TIMEOUT, TestStack, data_url, encoded, read_stream

PICTURE = Image.new("RGB", (16, 16), "red")
TEXT = "a red circle\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 64x64"
GRAPH = {
    "1": {"class_type": "KSampler", "inputs": {"seed": 3, "steps": 4, "positive": ["2", 0]}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a blue star"}},
}
UPLOAD = b"a picture"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[FlaskClient]:
    """A service with this route only, and without an engine: nothing listens on port 9."""
    settings = Settings(engine_url="http://127.0.0.1:9", data_dir=tmp_path)
    backend = Backend(settings)
    backend.jobs.files.uploads.write(upload_name(UPLOAD), UPLOAD)
    yield create_app("test", settings, [png_info_routes], backend).test_client()
    backend.stop()


def picture(**texts: str) -> bytes:
    return with_texts(encoded(PICTURE), texts)


def ask(client: FlaskClient, content: bytes) -> dict[str, Any]:
    response = client.post("/api/png-info", data=content, content_type="image/png")
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.get_json()
    assert reply["status"] == "success"
    assert reply["message"]
    return reply


def our_text(kind: str, **parameters: Any) -> str:
    return json.dumps({"version": "1", "kind": kind, "parameters": parameters})


def test_the_picture_can_be_sent_in_any_form(client: FlaskClient) -> None:
    content = picture(parameters=TEXT)
    bodies: list[dict[str, Any]] = [
        {"data": content, "content_type": "image/png"},
        {"data": content, "content_type": "application/octet-stream"},
        {"data": content, "content_type": "application/x-www-form-urlencoded"},
        {"data": {"image": (io.BytesIO(content), "x.png")}},
        {"data": {"file": (io.BytesIO(content), "x.png")}},
        {"json": {"image": _url(content)}},
        {"json": {"image": _url(content).partition(",")[2]}},
    ]
    for body in bodies:
        response = client.post("/api/png-info", **body)
        assert response.status_code == 200, response.text
        assert response.get_json()["parameters"]["seed"] == 42


def _url(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize("piece", ["a,", "{", "A: [", 'A: {"x":1, '])
def test_the_text_of_a_decompression_bomb_is_not_read(client: FlaskClient, piece: str) -> None:
    text = f"a\nSteps: 20, A: b, {piece * (4_000_000 // len(piece))}"
    png = encoded(PICTURE)
    packed = b"parameters\0\0" + zlib.compress(text.encode())
    chunk = struct.pack(">I", len(packed)) + b"zTXt" + packed + struct.pack(">I", zlib.crc32(b"zTXt" + packed))
    reply = ask(client, png[:33] + chunk + png[33:])
    assert reply["infotext"] is None
    assert reply["parameters"] == {}
    assert reply["warnings"] == ["the text parameters was not read: it has more than 100,000 characters"]


def test_a_graph_with_too_many_values_is_not_read(client: FlaskClient) -> None:
    many = f'{{"1": {{"class_type": "A", "inputs": [{"[]," * 200_000}[]]}}}}'
    assert ask(client, picture(parameters=TEXT, prompt=many))["workflow"] is None


def test_the_infotext_of_other_programs_is_read(client: FlaskClient) -> None:
    reply = ask(client, picture(parameters=TEXT))
    assert reply["kind"] == "txt2img"
    assert reply["infotext"] == TEXT
    assert reply["workflow"] is None
    assert reply["warnings"] == []
    assert reply["parameters"]["sampler_name"] == "euler_ancestral"


def test_our_own_text_is_preferred_and_the_graph_is_returned(client: FlaskClient) -> None:
    reply = ask(client, picture(dream_layer=our_text("txt2img", prompt="x"), parameters=TEXT, prompt=json.dumps(GRAPH)))
    assert reply["parameters"] == {"prompt": "x"}
    assert reply["infotext"] == TEXT
    assert reply["workflow"] == {"prompt": GRAPH}


def test_a_graph_without_other_texts_is_read(client: FlaskClient) -> None:
    reply = ask(client, picture(prompt=json.dumps({**GRAPH, "3": {"is_changed": [float("nan")], "inputs": {}}})))
    assert reply["kind"] == "txt2img"
    assert (reply["parameters"]["prompt"], reply["parameters"]["seed"]) == ("a blue star", 3)
    assert reply["workflow"]["prompt"]["3"]["is_changed"] == [None]


def test_a_text_that_cannot_be_parsed_is_returned_as_infotext(client: FlaskClient) -> None:
    reply = ask(client, picture(parameters="just words", dream_layer="{", prompt="[1]"))
    assert (reply["kind"], reply["parameters"], reply["infotext"]) == (None, {}, "just words")


@pytest.mark.parametrize("output", ["JPEG", "WEBP"])
def test_other_formats_are_read(client: FlaskClient, output: str) -> None:
    exif = Image.Exif()
    exif[0x8769] = {0x9286: b"UNICODE\0" + TEXT.encode("utf-16-be")}
    assert ask(client, encoded(PICTURE, output, exif=exif))["parameters"]["seed"] == 42


def test_missing_pictures_are_a_warning(client: FlaskClient) -> None:
    reply = ask(client, picture(parameters=f'{TEXT}, Denoising strength: 0.5, ControlNet 0: "Module: canny, Model: c"'))
    assert reply["kind"] == "img2img"
    assert ["input_image" in warning for warning in reply["warnings"]] == [True]
    reply = ask(client, picture(parameters=f'{TEXT}, ControlNet 0: "Module: canny, Model: c"'))
    assert ["controlnet.units[0].input_image" in warning for warning in reply["warnings"]] == [True]
    stored, missing = upload_name(UPLOAD), upload_name(b"another")
    assert ask(client, picture(dream_layer=our_text("img2img", input_image=stored, mask=stored)))["warnings"] == []
    reply = ask(client, picture(dream_layer=our_text("img2img", input_image=stored, mask=missing)))
    assert [warning.split()[0] for warning in reply["warnings"]] == ["mask"]
    reply = ask(client, picture(dream_layer=our_text("upscale", image=missing)))
    assert [warning.split()[0] for warning in reply["warnings"]] == ["image"]


@pytest.mark.parametrize("controlnet", [[], None, {"units": 3}, {"units": [None, 1]}, "x"])
def test_a_malformed_text_under_our_key_is_no_error(client: FlaskClient, controlnet: Any) -> None:
    content = picture(dream_layer=our_text("img2img", input_image=3, controlnet=controlnet))
    assert ask(client, content)["kind"] == "img2img"


@pytest.mark.parametrize("content", [encoded(PICTURE), encoded(PICTURE, "JPEG"), b"nonsense", b""])
def test_a_picture_without_parameters_is_refused(client: FlaskClient, content: bytes) -> None:
    response = client.post("/api/png-info", data=content, content_type="image/png")
    assert response.status_code == 422
    error = response.get_json()["error"]
    assert (error["code"], error["field"]) == ("invalid_picture", "image")
    assert error["hint"]


def test_a_body_without_a_picture_is_refused(client: FlaskClient) -> None:
    assert client.post("/api/png-info", json={"picture": "x"}).status_code == 422
    assert client.post("/api/png-info", json={"image": 3}).status_code == 422
    assert client.post("/api/png-info", data=b"x", content_type="text/html").status_code == 415


PROMPT = "a red circle on a blue background"


def fetch(reply: dict[str, Any], index: int) -> bytes:
    entry = reply["comfy_response"]["generated_images"][index]
    response = requests.get(entry["url"], timeout=TIMEOUT)
    assert response.status_code == 200, response.text
    return response.content


def info(url: str, content: bytes) -> dict[str, Any]:
    response = requests.post(f"{url}/api/png-info", files={"image": ("x.png", content)}, timeout=TIMEOUT)
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


def pixels(content: bytes) -> bytes:
    return Image.open(io.BytesIO(content)).convert("RGB").tobytes()


def test_a_picture_of_a_batch_can_be_reproduced_from_its_texts(stack: TestStack) -> None:
    reply = stack.draw(prompt=PROMPT, negative_prompt="green", batch_size=3, seed=50, steps=4, sampler_name="dpmpp_2m")
    third = fetch(reply, 2)
    image = Image.open(io.BytesIO(third))
    assert isinstance(image, PngImagePlugin.PngImageFile)
    assert image.text["parameters"].startswith(f"{PROMPT}\nNegative prompt: green\nSteps: 4, Sampler: DPM++ 2M, ")
    assert "Seed: 52" in image.text["parameters"]
    for url in (stack.txt2img, stack.img2img, stack.control):
        result = info(url, third)
        assert (result["kind"], result["warnings"]) == ("txt2img", [])
        assert result["workflow"] == reply["workflow"]
    again = stack.draw(**result["parameters"])
    assert again["warnings"] == []
    assert len(again["comfy_response"]["generated_images"]) == 1
    assert pixels(fetch(again, 0)) == pixels(third)
    # The infotext for other programs reproduces it, too.
    texts = read_texts(third)
    result = info(stack.txt2img, with_texts(encoded(image), {"parameters": texts["parameters"]}))
    assert pixels(fetch(stack.draw(**result["parameters"]), 0)) == pixels(third)


def test_an_inpainted_picture_can_be_reproduced_from_its_texts(stack: TestStack) -> None:
    source = Image.linear_gradient("L").resize((128, 128)).convert("RGB")
    mask = Image.new("L", (128, 128))
    ImageDraw.Draw(mask).rectangle((32, 32, 95, 95), fill=255)
    reply = stack.redraw(prompt=PROMPT, input_image=source, mask=data_url(mask), steps=4, mask_blur=4, batch_size=2)
    second = fetch(reply, 1)
    result = info(stack.img2img, second)
    assert (result["kind"], result["warnings"]) == ("img2img", [])
    assert pixels(fetch(stack.redraw(**result["parameters"]), 0)) == pixels(second)


def test_pictures_have_their_parameters_in_all_kinds_of_replies(stack: TestStack) -> None:
    fields = {"prompt": PROMPT, "steps": 2, "seed": 9}
    png = requests.post(f"{stack.txt2img}/api/txt2img", json=fields, headers=PNG, timeout=TIMEOUT)
    assert read_texts(png.content).keys() >= {"dream_layer", "parameters", "prompt"}
    for kind in ("webp", "jpeg"):
        headers = {"Accept": f"image/{kind}"}
        other = requests.post(f"{stack.txt2img}/api/txt2img", json=fields, headers=headers, timeout=TIMEOUT)
        assert info(stack.txt2img, other.content)["parameters"]["seed"] == 9
    # A picture has its parameters as soon as its event arrives, before the job ends.
    headers = {"Accept": "text/event-stream"}
    with requests.post(
        f"{stack.txt2img}/api/txt2img", json=fields, headers=headers, stream=True, timeout=TIMEOUT
    ) as response:
        event = next(event for event in read_stream(response) if event.name == "image")
        early = requests.get(event.data["url"], timeout=TIMEOUT).content
        response.close()
    stack.wait_for_job(event.data["job_id"])
    late = requests.get(event.data["url"], timeout=TIMEOUT).content
    assert early == late
    assert "parameters" in read_texts(late)


def test_parameters_are_added_when_a_file_without_them_is_served(stack: TestStack) -> None:
    reply = stack.draw(prompt=PROMPT, steps=2)
    name = reply["comfy_response"]["generated_images"][0]["filename"]
    (path,) = stack.data_dir.rglob(name)
    original = path.read_bytes()
    assert "dream_layer" in read_texts(original)
    path.write_bytes(encoded(Image.open(path)))
    assert read_texts(path.read_bytes()) == {}
    served = fetch(reply, 0)
    assert read_texts(served)["dream_layer"] == read_texts(original)["dream_layer"]
    assert pixels(served) == pixels(original)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
@pytest.mark.parametrize(
    "texts",
    [
        {"prompt": '{"1": {"class_type": "KSampler", "inputs": {"seed": 3, "cfg": NUMBER, "list": [[NUMBER]]}}}'},
        {"dream_layer": '{"kind": "txt2img", "parameters": {"cfg_scale": NUMBER, "lora": {"strength": NUMBER}}}'},
    ],
)
def test_non_finite_numbers_become_null(client: FlaskClient, texts: dict[str, str], number: str) -> None:
    content = with_texts(encoded(PICTURE), {key: text.replace("NUMBER", number) for key, text in texts.items()})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    reply = json.loads(client.post("/api/png-info", data=content, content_type="image/png").data, parse_constant=refuse)
    assert reply["parameters"].get("cfg_scale") is None
    assert reply["status"] == "success"
