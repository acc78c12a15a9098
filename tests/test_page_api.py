"""The requests of each button of the web page, and the replies that it reads, on the running stack."""

import base64
import io
import struct
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from starter import CHECKPOINT_NAME
from tests.payloads import ORIGIN, UNIT, generation
from tests.safetensors_factory import write_safetensors
from tests.stack import TIMEOUT, TestStack, data_url, encoded, open_rgb

PASTEL = "dream-layer-pastel.safetensors"
SMALL = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}
SOURCE = Image.linear_gradient("L").convert("RGB").resize((64, 64))


def readable(response: requests.Response) -> requests.Response:
    """Check that a browser lets the page read this response."""
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Origin" in response.headers["Vary"]
    return response


def get(url: str, **params: str) -> dict[str, Any]:
    response = readable(requests.get(url, params=params, headers={"Origin": ORIGIN}, timeout=TIMEOUT))
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    assert reply["status"] == "success"
    return reply


def fetch(url: str) -> Image.Image:
    """Return a picture, loaded as by the page's script."""
    response = readable(requests.get(url, headers={"Origin": ORIGIN}, timeout=TIMEOUT))
    assert response.status_code == 200, response.text
    return open_rgb(response.content)


def press(url: str, body: Any = None, *, method: str = "POST", **options: Any) -> requests.Response:
    """Send the request of a button; for JSON and DELETE, send the preflight request first, as a browser does."""
    headers = {"Origin": ORIGIN}
    if body is not None or method == "DELETE":
        preflight = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "content-type"}
        allowed = readable(requests.options(url, headers={**headers, **preflight}, timeout=TIMEOUT))
        assert method in allowed.headers["Access-Control-Allow-Methods"]
        assert allowed.headers["Access-Control-Allow-Headers"].lower() == "content-type"
    return readable(requests.request(method, url, json=body, headers=headers, timeout=TIMEOUT, **options))


def generated(response: requests.Response) -> list[dict[str, Any]]:
    """Return the pictures of a reply, after a check of all keys that the page reads."""
    assert response.status_code == 200, response.text
    reply = response.json()
    assert (reply["status"], type(reply["message"]), type(reply["run_id"])) == ("success", str, str)
    assert reply["comfy_response"]["prompt_id"]
    images: list[dict[str, Any]] = reply["comfy_response"]["generated_images"]
    for image in images:
        assert image["url"].startswith("http://")
        assert image["url"].rpartition("/")[2] == image["filename"]
        assert (type(image["type"]), type(image["subfolder"])) == (str, str)
    return images


def test_generate(stack: TestStack) -> None:
    body = generation(prompt="a red circle", model_name=PASTEL, steps=2, width=64, height=64)
    images = generated(press(f"{stack.txt2img}/api/txt2img", body))
    assert len({image["seed"] for image in images}) == 4
    for image in images:
        # The page takes the name from the URL, and requests the picture by name.
        assert fetch(f"{stack.txt2img}/api/images/{image['filename']}").size == (64, 64)


def test_generate_with_cleared_number_boxes(stack: TestStack) -> None:
    fields = {"prompt": "a red circle", "batch_size": 1, "steps": 1, "width": 64, "height": 64}
    numbers = [name for name, value in generation().items() if type(value) in (int, float) and name not in fields]
    (image,) = generated(press(f"{stack.txt2img}/api/txt2img", generation(**dict.fromkeys(numbers), **fields)))
    assert fetch(image["url"]).size == (64, 64)


@pytest.mark.parametrize(("field", "value"), [("steps", 9999), ("width", 10000), ("sampler_name", "plms-fast")])
def test_generate_with_invalid_values_is_refused(stack: TestStack, field: str, value: Any) -> None:
    refused = press(f"{stack.txt2img}/api/txt2img", generation(**{field: value}))
    assert refused.status_code == 422
    assert refused.json()["error"]["field"] == field


def test_generate_with_a_lora(stack: TestStack) -> None:
    plain = generation(prompt="a red circle", model_name=PASTEL, steps=4, width=64, height=64, batch_size=1)
    plain |= {"seed": 4, "random_seed": False}
    lora = {"enabled": True, "lora_name": "dream-layer-outline.safetensors", "strength_model": 1, "strength_clip": 1}
    pictures = [
        fetch(generated(press(f"{stack.txt2img}/api/txt2img", {**plain, "lora": value}))[0]["url"])
        for value in (None, lora, {**lora, "enabled": False})
    ]
    assert pictures[0].tobytes() != pictures[1].tobytes()
    assert pictures[0].tobytes() == pictures[2].tobytes()


def test_generate_with_a_controlnet_picture(stack: TestStack) -> None:
    picture = {"file": ("edges.png", encoded(SOURCE), "image/png")}
    uploaded = press(f"{stack.txt2img}/api/upload-controlnet-image", files=picture, data={"unit_index": "0"}).json()
    assert (uploaded["status"], type(uploaded["message"])) == ("success", str)
    model = "dream-layer-canny.safetensors"
    body = generation(prompt="a red circle", steps=1, width=64, height=64, batch_size=1)
    for source in (uploaded["filename"], data_url(SOURCE)):
        units = [{**UNIT, "model": model, "input_image": source}]
        reply = press(f"{stack.txt2img}/api/txt2img", {**body, "controlnet": {"enabled": True, "units": units}})
        generated(reply)
        graph = reply.json()["workflow"]["prompt"]
        assert "ControlNetApplyAdvanced" in [node["class_type"] for node in graph.values()]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_generate_from_a_picture(stack: TestStack, kind: str) -> None:
    buffer = io.BytesIO()
    SOURCE.save(buffer, kind)
    body = generation(prompt="a red circle", steps=2, width=64, height=64, batch_size=1)
    body["input_image"] = f"data:application/octet-stream;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    (image,) = generated(press(f"{stack.img2img}/api/img2img", body))
    assert fetch(f"{stack.img2img}/images/{image['filename']}").size == (64, 64)


@pytest.mark.parametrize("service", ["txt2img", "img2img"])
def test_interrupt(stack: TestStack, service: str) -> None:
    url = f"{getattr(stack, service)}/api/{service}"
    body = generation(prompt="a red circle", steps=900, width=64, height=64, batch_size=1)
    if service == "img2img":
        body["input_image"] = data_url(SOURCE)
    responses = []
    waiting = threading.Thread(target=lambda: responses.append(press(url, body)))
    waiting.start()
    deadline = time.monotonic() + TIMEOUT
    while not get(f"{stack.control}/api/jobs", state="running", kind=service)["jobs"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert press(f"{url}/interrupt", {}).json()["status"] == "success"
    waiting.join(10)
    (response,) = responses
    assert (response.status_code, response.json()["error"]["code"]) == (409, "cancelled")
    assert "comfy_response" not in response.json()


@pytest.mark.parametrize(
    ("route", "name"),
    [
        ("models", "dream-layer-pastel.safetensors"),
        ("lora-models", "dream-layer-outline.safetensors"),
        ("upscaler-models", "dream-layer-2x.safetensors"),
    ],
)
def test_the_menus_are_filled(stack: TestStack, route: str, name: str) -> None:
    models = get(f"{stack.control}/api/{route}")["models"]
    assert {"id": name, "name": Path(name).stem, "filename": name} in models


def test_the_menu_of_models_begins_with_the_default(stack: TestStack) -> None:
    assert get(f"{stack.control}/api/models")["models"][0]["filename"] == CHECKPOINT_NAME


def test_controlnets_are_strings(stack: TestStack) -> None:
    assert "dream-layer-canny.safetensors" in get(f"{stack.txt2img}/api/controlnet/models")["models"]


@pytest.mark.parametrize(
    ("route", "folder"),
    [
        ("models", "checkpoints"),
        ("lora-models", "loras"),
        ("upscaler-models", "upscale_models"),
        ("controlnet/models", "controlnet"),
    ],
)
def test_a_file_copied_into_a_model_folder_is_listed_at_once(stack: TestStack, route: str, folder: str) -> None:
    file = stack.data_dir / "models" / folder / f"by-hand-{time.time_ns()}.safetensors"
    address = f"{stack.control}/api/{route}"
    before = get(address)["models"]
    write_safetensors(file, {"nothing": ("F16", (1,))})
    try:
        assert len(get(address)["models"]) == len(before) + 1
    finally:
        file.unlink()
    assert get(address)["models"] == before


def test_prompts_are_suggested(stack: TestStack) -> None:
    for kind in ("positive", "negative"):
        assert get(f"{stack.control}/api/fetch-prompt", type=kind)["prompt"]
        assert get(f"{stack.txt2img}/api/fetch-prompt", type=kind)["prompt"]


def test_an_uploaded_model_is_listed_at_once_and_can_be_used(stack: TestStack, tmp_path: Path) -> None:
    # A LoRA without effect is valid.
    content = write_safetensors(tmp_path / "a", {"lora_unet_nothing.alpha": ("F16", (1,))}).read_bytes()
    name = f"sent-{time.time_ns()}.safetensors"
    sent = {"files": {"file": (name, content)}, "data": {"model_type": "loras"}}
    answer = press(f"{stack.control}/api/upload-model", **sent)
    assert answer.status_code == 200, answer.text
    assert answer.json()["listed"] is True
    names = [model["filename"] for model in get(f"{stack.control}/api/lora-models")["models"]]
    assert name in names
    again = press(f"{stack.control}/api/upload-model", **sent)
    assert again.status_code == 409
    reply = stack.draw(**SMALL, lora={"enabled": True, "lora_name": name, "strength_model": 1, "strength_clip": 1})
    assert stack.picture(reply).size == (64, 64)
    # Other tests count the files.
    (stack.data_dir / "models" / "loras" / name).unlink()


def test_a_model_larger_than_the_limit_of_other_bodies_is_accepted(stack: TestStack, tmp_path: Path) -> None:
    # 300 MB of zeros: more than the limit of other bodies, and never in memory as a whole.
    large = write_safetensors(tmp_path / "large", {"w": ("F16", (150_000_000,))})
    name = f"large-{time.time_ns()}.safetensors"
    boundary = "a-line-that-is-nowhere-else"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="model_type"\r\n\r\nvae\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()

    def chunks() -> Any:
        yield head
        with large.open("rb") as file:
            while part := file.read(1 << 20):
                yield part
        yield tail

    answer = requests.post(
        f"{stack.control}/api/upload-model",
        data=chunks(),
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
        timeout=TIMEOUT,
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["size"] == large.stat().st_size
    (stack.data_dir / "models" / "vae" / name).unlink()


def test_a_truncated_model_is_refused(stack: TestStack) -> None:
    sent = {"files": {"file": ("cut.safetensors", struct.pack("<Q", 100) + b"{")}, "data": {"model_type": "loras"}}
    answer = press(f"{stack.control}/api/upload-model", **sent)
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "file"


def test_a_picture_is_sent_to_the_other_tabs(stack: TestStack) -> None:
    name = stack.draw(**SMALL)["comfy_response"]["generated_images"][0]["filename"]
    for tab in ("img2img", "extras"):
        assert press(f"{stack.control}/api/send-to-{tab}", {"filename": name}).json()["status"] == "success"
    for address in (f"{stack.txt2img}/api/images/{name}", f"{stack.img2img}/images/{name}"):
        picture = requests.get(address, headers={"Origin": ORIGIN}, timeout=TIMEOUT)
        assert picture.headers["Content-Type"] == "image/png"
    missing = press(f"{stack.control}/api/send-to-img2img", {"filename": name.replace("00001", "00009")})
    assert missing.status_code == 404


def test_chosen_folders_reach_the_engine_once_it_is_idle(own_stack: TestStack, tmp_path: Path) -> None:
    pictures, loras = tmp_path / "pictures", tmp_path / "loras"
    pictures.mkdir()
    loras.mkdir()
    write_safetensors(loras / "mine.safetensors", {"lora_unet_nothing.alpha": ("F16", (1,))})
    old = own_stack.draw(**SMALL)
    job = own_stack.submit(prompt="a red circle", width=128, height=128, steps=20)
    sent = {
        "outputDirectory": str(pictures),
        "modelsDirectory": "/path/to/models",
        "loraEmbeddingsPath": str(loras),
        "filenameFormat": "[seed]",
        "saveMetadata": False,
    }
    answer = press(f"{own_stack.control}/api/settings/paths", sent)
    assert answer.status_code == 200, answer.text
    assert answer.json()["restart"] is True
    own_stack.wait_for_engine(lambda state: state["restarts"] == 1)
    # The engine completed its job before the restart.
    assert own_stack.wait_for_job(job)["state"] == "completed"
    assert own_stack.job(job)["timings"]["attempts"] == 1
    new = own_stack.draw(**SMALL, seed=7)
    file = new["comfy_response"]["generated_images"][0]
    saved = pictures / file["subfolder"] / file["filename"]
    with Image.open(saved) as image:
        assert not image.info.keys() & {"prompt", "workflow", "parameters", "dream_layer"}
    served = requests.get(file["url"], timeout=TIMEOUT)
    assert served.content == saved.read_bytes()
    assert "7.png" in served.headers["Content-Disposition"]
    assert own_stack.pictures(old)
    names = [model["filename"] for model in get(f"{own_stack.control}/api/lora-models")["models"]]
    assert "mine.safetensors" in names


def test_extras(stack: TestStack) -> None:
    params = (
        '{"upscaler_model": "4x-ultrasharp", "upscaler_visibility": 1, "upscaler_model_2": "4x-ultrasharp", '
        '"upscaler_visibility_2": 0, "gfpgan_visibility": 0, "codeformer_visibility": 0, "codeformer_weight": 0, '
        '"output_format": "png"}'
    )
    files = {"image": ("picture.png", encoded(SOURCE), "image/png")}
    reply = press(f"{stack.extras}/api/extras/upscale", files=files, data={"params": params})
    assert reply.status_code == 200, reply.text
    assert (reply.json()["status"], type(reply.json()["message"])) == ("success", str)
    assert fetch(reply.json()["data"]["output_image"]).size == (256, 256)


def test_img2txt_of_the_newer_page_reports_that_there_is_no_model(stack: TestStack) -> None:
    sent = {"input_image": data_url(SOURCE), "prompt": "describe this image", "model": "blip", "seed": -1}
    answer = press(f"{stack.img2txt}/api/img2txt", sent)
    # The page shows the message of any reply without success.
    assert (answer.status_code, answer.json()["status"]) == (501, "error")
    assert "no model that describes pictures" in answer.json()["message"]


def test_runs_are_listed_and_deleted(stack: TestStack) -> None:
    body = generation(prompt="a red circle", steps=1, width=64, height=64, batch_size=1)
    reply = press(f"{stack.txt2img}/api/txt2img", body).json()
    runs = {run["run_id"]: run for run in get(f"{stack.runs}/api/runs")["runs"]}
    for run in runs.values():
        assert run["generation_type"] in ("txt2img", "img2img")
        assert all(type(name) is str for name in run["generated_images"])
    run = runs[reply["run_id"]]
    assert run["generated_images"] == [reply["comfy_response"]["generated_images"][0]["filename"]]
    assert (run["sampler"], run["steps"], run["width"], run["prompt"]) == ("dpmpp_2m", 1, 64, "a red circle")
    assert press(f"{stack.runs}/api/runs/{run['run_id']}", method="DELETE").json()["status"] == "success"
    assert run["run_id"] not in [other["run_id"] for other in get(f"{stack.runs}/api/runs")["runs"]]


def test_a_report_is_created_and_downloaded(stack: TestStack) -> None:
    stack.draw(**SMALL)
    created = press(f"{stack.report}/api/report-bundle", {"run_ids": []}).json()
    assert (created["status"], type(created["message"])) == ("success", str)
    bundle = readable(
        requests.get(f"{stack.report}/api/report-bundle/download", headers={"Origin": ORIGIN}, timeout=TIMEOUT)
    )
    with zipfile.ZipFile(io.BytesIO(bundle.content)) as archive:
        assert {"README.md", "runs.csv"} < set(archive.namelist())
        assert archive.testzip() is None


def test_an_api_key_is_stored_and_never_shown(stack: TestStack) -> None:
    secret = "a-key-that-nobody-may-see-0815"
    stored = press(f"{stack.control}/api/add-api-key", {"alias": "somewhere", "api-key": secret})
    assert (stored.status_code, stored.json()["status"]) == (200, "success")
    file = stack.data_dir / "api-keys.json"
    assert file.stat().st_mode & 0o077 == 0
    texts = [stored.text, stack.output(), *(log.read_text() for log in (stack.data_dir / "logs").glob("*.log"))]
    assert [text for text in texts if secret in text] == []
    assert secret in file.read_text()


def test_without_a_desktop_show_in_folder_returns_the_path(stack: TestStack) -> None:
    name = stack.draw(**SMALL)["comfy_response"]["generated_images"][0]["filename"]
    shown = press(f"{stack.control}/api/show-in-folder", {"filename": name})
    # The stack is started without a desktop.
    assert (shown.status_code, shown.json()["error"]["code"]) == (409, "not_possible")
    assert Path(shown.json()["error"]["path"]).name == name


@pytest.mark.parametrize("service", ["txt2img", "img2img", "control", "extras", "runs", "report", "img2txt"])
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nowhere"), ("PUT", "/health"), ("POST", "/api/upload-controlnet-image")]
)
def test_errors_can_be_read_by_the_page_on_each_port(stack: TestStack, service: str, method: str, path: str) -> None:
    response = requests.request(method, getattr(stack, service) + path, headers={"Origin": ORIGIN}, timeout=TIMEOUT)
    assert readable(response).status_code >= 400
    assert response.json()["status"] == "error"
