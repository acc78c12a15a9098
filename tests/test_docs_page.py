"""The /docs page in a real browser, with services on a fake engine."""

import base64
import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from shared.settings import Settings
from shared.web.backend import Backend
from shared.web.server.run import make_server
from tests.browser import Page, find_browser, open_browser
from tests.docs_page import (
    CONTRAST,
    IMG2IMG,
    TXT2IMG,
    answer,
    box,
    choices,
    execute,
    label,
    line,
    open_all,
    opened,
    photo,
    press,
    put,
    select,
    send,
    sent_bodies,
    shown_json,
    write_json,
)
from tests.fake_engine import BLOCKED, FakeEngine
from tests.ports import free_ports
from tests.test_openapi import SERVICES

KEY = "correct horse battery"
MAGIC = {"PNG": b"\x89PNG", "WEBP": b"RIFF", "JPG": b"\xff\xd8"}
PORTS = ("txt2img", "img2img", "control", "extras", "runs", "report", "img2txt")
Serve = Callable[..., str]

pytestmark = pytest.mark.skipif(find_browser() is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """The tab. A test fails if a script of the page raised an error."""
    for file in browser.downloads.iterdir():
        file.unlink()
    browser.errors.clear()
    browser.resize(1280, 1000)
    yield browser
    assert browser.errors == []


@pytest.fixture
def serve(tmp_path: Path, engine: FakeEngine) -> Iterator[Serve]:
    """Starts a service on the real server, on its port of the settings. Returns its URL."""
    with ExitStack() as stack:

        def start(service: str = "txt2img", prefix: str = "", **overrides: Any) -> str:
            ports = zip(PORTS, free_ports(len(PORTS)), strict=True)
            values = {f"{name}_port": port for name, port in ports} | overrides
            values |= {"engine_url": engine.address, "data_dir": tmp_path, "threads": 16, "waiters": 4, "streams": 4}
            settings = Settings(**values)
            backend = Backend(settings)
            app = SERVICES[service](backend)
            if prefix:
                app.wsgi_app = DispatcherMiddleware(_nothing, {prefix: app.wsgi_app})  # type: ignore[method-assign]
            port = getattr(settings, f"{service}_port")
            server = make_server(app, settings, port)
            thread = threading.Thread(target=server.run)
            backend.start()
            thread.start()
            for end in (backend.stop, lambda: thread.join(30), server.stop):
                stack.callback(end)
            return f"http://localhost:{port}{prefix}"

        yield start


def _nothing(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("404 NOT FOUND", [])
    return []


# Every operation.

# These fail because of an engine that is not ours, a machine without a desktop, or a form without its file.
EXPECTED_ERRORS: Mapping[str, str] = {
    "post_api_upload_model": "422",
    "post_api_show_in_folder": "409",
    "post_api_img2txt": "501",
    "post_api_engine_restart": "409",
    "post_api_engine_free": "502",
}


@pytest.mark.parametrize("service", SERVICES)
def test_every_example_of_every_operation_works(page: Page, serve: Serve, engine: FakeEngine, service: str) -> None:
    """Each example of the page, sent as it is, gets a documented reply, and pictures are shown."""
    page.open(f"{serve(service)}/docs")
    page.wait("document.querySelector('#menu-samplers option')")
    operations = page.run("[...document.querySelectorAll('details.operation')].map((node) => node.id)")
    assert len(operations) > 20
    # Operations on pictures and jobs come after one that generates a picture.
    last = ("get_api_images", "get_images", "get_api_jobs_", "post_api_jobs", "post_api_show", "post_api_send")
    drawn = False
    for name in sorted(operations, key=lambda name: (name.startswith("delete"), name.startswith(last))):
        operation = f"#{name}"
        page.run(f"document.querySelector('{operation}').open = true")
        page.wait(f"document.querySelector('{operation} .request-form')")
        examples = page.run(
            f"[...{label('Example', operation)}?.querySelectorAll('option') || [{{}}]].map((node) => node.text)"
        )
        for example in examples:
            if len(examples) > 1:
                select(page, "Example", example, operation)
            if name.startswith("delete"):
                # The page fills in no id to delete.
                field, menu = ("run_id", "runs") if "run" in name else ("job_id", "jobs")
                removed = choices(page, menu)[0]
                put(page, field, removed, operation)
            send(page, operation)
            reply = answer(page, operation)
            if name.endswith("workflows_name"):
                continue
            expected = EXPECTED_ERRORS.get(name, ("200", "202"))
            assert reply.startswith(expected), (name, example, reply)
            if name.startswith("delete"):
                page.wait(f"!document.querySelector('#menu-{menu} option[value=\"{removed}\"]')")
            drawn = drawn or page.run(f"document.querySelector('{operation} .response figure img') !== null")
        page.run(f"document.querySelector('{operation}').open = false")
    assert drawn


# Fields.


def test_inputs_and_json_stay_in_sync(page: Page, serve: Serve) -> None:
    opened(page, serve())
    put(page, "prompt", 'a "green" star, 50 % & more')
    put(page, "steps", "4")
    assert shown_json(page) == {"prompt": 'a "green" star, 50 % & more', "seed": 7, "steps": 4}
    put(page, "steps", "many")
    assert shown_json(page)["steps"] == "many"
    page.run(f"{box('seed')}.value = ''; {box('seed')}.dispatchEvent(new Event('input', {{ bubbles: true }}))")
    assert "seed" not in shown_json(page)
    write_json(page, '{"prompt": "a heart", "loras": [{"lora_name": "x"}]}')
    assert page.run(f"{box('prompt')}.value") == "a heart"
    open_all(page, TXT2IMG)
    assert page.run(f"document.querySelector('{TXT2IMG} legend').textContent") == "loras[0]"
    write_json(page, "{'prompt': 'a heart'}")
    assert "not JSON" in page.run(f"document.querySelector('{TXT2IMG}').innerText")
    send(page)
    # It is sent anyway, because the service reports the error best.
    assert answer(page).startswith("400")


def test_integers_stay_exact(page: Page, serve: Serve) -> None:
    seed = 2**64 - 1
    opened(page, serve())
    write_json(page, json.dumps({"prompt": "a heart", "seed": seed}))
    put(page, "steps", "3")
    assert shown_json(page)["seed"] == seed
    assert page.run(f"{box('seed')}.value") == str(seed)
    put(page, "seed", str(seed - 1))
    assert shown_json(page)["seed"] == seed - 1
    send(page)
    assert f"seed {seed - 1}" in answer(page)


def test_menus_list_the_current_choices(page: Page, serve: Serve) -> None:
    address = serve()
    opened(page, address)
    assert choices(page, "models") == ["model.safetensors"]
    assert {"euler", "dpmpp_2m"} <= set(choices(page, "samplers"))
    assert "karras" in choices(page, "schedulers")
    assert "Lanczos" in choices(page, "upscalers")
    for name, menu in (("model_name", "models"), ("sampler_name", "samplers"), ("vae_name", "vaes")):
        assert page.run(f"{box(name)}.getAttribute('list')") == f"menu-{menu}"
    assert page.run(f"{box('model_name')}.placeholder") == "default: model.safetensors"
    assert page.run(f"{box('width')}.placeholder") == "default: 512"
    # The page reloads the lists of jobs and pictures when it gets the focus.
    assert choices(page, "jobs") == []
    form = "{ method: 'POST', body: new URLSearchParams({ prompt: 'x' }) }"
    reply = page.run(f"fetch('api/txt2img', {form}).then((answer) => answer.json())")
    page.run("window.dispatchEvent(new Event('focus'))")
    page.wait("document.querySelector('#menu-jobs option')")
    assert choices(page, "jobs") == [reply["job_id"]]
    assert choices(page, "pictures") == [reply["comfy_response"]["generated_images"][0]["filename"]]


def test_a_named_workflow_shows_its_parameters(page: Page, serve: Serve, tmp_path: Path) -> None:
    graph = json.loads((Path(__file__).parent / "golden" / "txt2img.json").read_text("utf-8"))
    text = next(name for name, node in graph.items() if node["class_type"] == "CLIPTextEncode")
    parameters = {"words": {"type": "string", "targets": [f"{text}.text"]}}
    file = {"dream_layer": {"title": "A shape", "parameters": parameters}, "prompt": graph}
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "shape.json").write_text(json.dumps(file), "utf-8")
    operation = "#post_api_workflows_name"
    opened(page, serve(), operation)
    page.wait(label("words", operation))
    assert page.run(f"{box('name', operation)}.value") == "shape"


# Pictures.


def test_a_selected_picture_is_sent_as_a_data_url(page: Page, serve: Serve, tmp_path: Path) -> None:
    file = photo(tmp_path)
    opened(page, serve(), IMG2IMG)
    sent_bodies(page)
    page.choose(f"{IMG2IMG} input[aria-label='Picture for input_image']", file)
    page.wait(f"document.querySelector('{IMG2IMG} img[alt=\"Selected for input_image\"]').naturalWidth === 96")
    # The JSON box shows only the start of the data URL.
    assert len(shown_json(page, IMG2IMG)["input_image"]) < 200
    put(page, "prompt", "a ring", IMG2IMG)
    send(page, IMG2IMG)
    assert answer(page, IMG2IMG).startswith("200")
    sent = json.loads(page.run("window.sent[0]"))
    assert sent["prompt"] == "a ring"
    assert base64.b64decode(sent["input_image"].removeprefix("data:image/png;base64,")) == file.read_bytes()
    page.run(f"document.querySelector('{IMG2IMG} .chooser button').click()")
    assert "input_image" not in shown_json(page, IMG2IMG)
    assert page.run(f"document.querySelector('{IMG2IMG} .thumbnail').hidden")


# The operations with pictures in their JSON, by service, and the paths of these pictures.
PICTURES = {
    "txt2img": {"post_api_txt2img": ["controlnet.units.0.input_image"]},
    "img2img": {
        "post_api_img2img": ["input_image", "mask", "controlnet.units.0.input_image"],
        "post_api_upscale": ["image"],
        "post_api_upload_controlnet_image": ["file"],
        "post_api_png_info": ["image"],
    },
    "control": {"post_api_extras_upscale": ["image"], "post_api_img2txt": ["input_image"]},
}


@pytest.mark.parametrize("service", SERVICES)
def test_every_picture_in_json_has_a_file_input(page: Page, serve: Serve, tmp_path: Path, service: str) -> None:
    address, file = serve(service), photo(tmp_path)
    for name, paths in PICTURES[service].items():
        opened(page, address, f"#{name}")
        if any("units" in path for path in paths):
            write_json(page, '{"prompt": "a ring", "controlnet": {"units": [{}]}}', f"#{name}")
            open_all(page, f"#{name}")
        for path in paths:
            chooser = f"#{name} input[aria-label='Picture for {path}']"
            page.wait(f'document.querySelector("{chooser}")')
            page.choose(chooser, file)
            page.wait(f"document.querySelector('#{name} img[alt=\"Selected for {path}\"]')?.naturalWidth === 96")
            value = shown_json(page, f"#{name}")
            for step in path.split("."):
                value = value[int(step) if step.isdigit() else step]
            assert value.startswith("data:image/png;base64,")
        marked = page.run(
            f"document.querySelectorAll('#{name} .request-form input[type=file][accept=\"image/*\"]').length"
        )
        assert marked == len(paths)


def test_a_form_has_its_own_file_inputs(page: Page, serve: Serve, tmp_path: Path) -> None:
    opened(page, serve(), IMG2IMG)
    select(page, "Send as", "form", IMG2IMG)
    page.choose(f"{IMG2IMG} input[aria-label=image]", photo(tmp_path))
    page.wait(f"document.querySelector('{IMG2IMG} img[alt=\"Selected for image\"]').naturalWidth === 96")
    put(page, "prompt", "a ring", IMG2IMG)
    assert "-F 'image=@photo.png'" in line(page, "sh", IMG2IMG)
    send(page, IMG2IMG)
    assert answer(page, IMG2IMG).startswith("200")


def test_a_body_that_is_too_large_is_not_sent(page: Page, serve: Serve, tmp_path: Path) -> None:
    opened(page, serve(max_body_mb=1), IMG2IMG)
    large = tmp_path / "large.png"
    # Under the limit as a file, over it in base64.
    large.write_bytes(photo(tmp_path).read_bytes() + bytes(900_000))
    sent_bodies(page)
    page.choose(f"{IMG2IMG} input[aria-label='Picture for mask']", large)
    message = "1.2 MB is too large: the service accepts bodies up to 1.0 MB"
    page.wait(f"document.querySelector('{IMG2IMG}').innerText.includes('{message}')")
    assert "mask" not in shown_json(page, IMG2IMG)
    # Each picture fits, but both together are too large.
    half = tmp_path / "half.png"
    half.write_bytes(photo(tmp_path).read_bytes() + bytes(500_000))
    for field in ("input_image", "mask"):
        page.choose(f"{IMG2IMG} input[aria-label='Picture for {field}']", half)
        page.wait(f"document.querySelector('{IMG2IMG} img[alt=\"Selected for {field}\"]').naturalWidth === 96")
    send(page, IMG2IMG)
    assert answer(page, IMG2IMG).startswith("Not sent: 1.4 MB is too large")
    assert page.run("window.sent") == []


def test_an_example_replaces_a_selected_picture(page: Page, serve: Serve, tmp_path: Path) -> None:
    opened(page, serve(), IMG2IMG)
    chooser = f"{IMG2IMG} input[aria-label='Picture for input_image']"
    page.choose(chooser, photo(tmp_path))
    page.wait(f"document.querySelector('{IMG2IMG} .thumbnail').naturalWidth === 96")
    assert page.run(f'document.querySelector("{chooser}").files.length') == 1
    select(page, "Example", "Repaint the middle", IMG2IMG)
    page.wait(f"document.querySelector('{IMG2IMG} .thumbnail').naturalWidth === 256")
    assert page.run(f'document.querySelector("{chooser}").files.length') == 0


def test_the_form_takes_over_the_fields_of_the_json(page: Page, serve: Serve) -> None:
    opened(page, serve())
    put(page, "prompt", "a ring")
    put(page, "steps", "3")
    select(page, "Send as", "form")
    command = line(page)
    assert "--form-string 'prompt=a ring'" in command
    assert "--form-string 'steps=3'" in command


# Replies.


def test_pictures_and_replies_are_saved_under_good_names(page: Page, serve: Serve) -> None:
    opened(page, serve())
    send(page)
    answer(page)
    for ending in ("PNG", "WEBP", "JPG"):
        press(page, f"Save as {ending}")
        saved = page.downloaded(lambda path, ending=ending: path.suffix == f".{ending.lower()}")
        assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{12}_00001_", saved.stem), saved
        assert saved.read_bytes().startswith(MAGIC[ending])
    page.run(f"document.querySelector('{TXT2IMG} .response details').open = true")
    page.wait(f"document.querySelector('{TXT2IMG} .response details button')")
    page.run(f"document.querySelector('{TXT2IMG} .response details button').click()")
    reply = json.loads(page.downloaded(lambda path: path.suffix == ".json").read_text("utf-8"))
    assert reply["comfy_response"]["generated_images"][0]["filename"] == f"{saved.stem}.png"


def test_a_report_is_saved_under_its_name(page: Page, serve: Serve) -> None:
    operation = "#get_api_report_bundle_download"
    opened(page, serve("control"), "#post_api_extras_upscale")
    send(page, "#post_api_extras_upscale")
    assert answer(page, "#post_api_extras_upscale").startswith("200")
    for report_operation in ("#post_api_report_bundle", operation):
        page.run(f"document.querySelector('{report_operation}').open = true")
        page.wait(f"document.querySelector('{report_operation} .request-form')")
        send(page, report_operation)
        assert answer(page, report_operation).startswith("200")
    assert page.downloaded().name == "dream-layer-report.zip"


def test_a_job_is_watched_and_cancelled(page: Page, serve: Serve, engine: FakeEngine) -> None:
    engine.seconds = BLOCKED
    opened(page, serve())
    write_json(page, '{"prompt": "a heart", "steps": 5, "preview": true}')
    send(page)
    page.wait(f"document.querySelector('{TXT2IMG} .progress')?.innerText.match(/KSampler|started/)")
    page.run(f"document.querySelector('{TXT2IMG} .progress button').click()")
    reply = answer(page)
    assert "cancelled" in reply
    assert len(engine.cancelled) == 1
    # A request for a picture has no progress. Closing the connection cancels it.
    select(page, "Accept", "image/png")
    send(page)
    page.wait(f"document.querySelector('{TXT2IMG} .progress button')")
    page.run(f"document.querySelector('{TXT2IMG} .progress button').click()")
    assert "Cancelled." in answer(page)


def test_progress_and_previews_are_shown(page: Page, serve: Serve, engine: FakeEngine) -> None:
    engine.seconds = 1.0
    opened(page, serve())
    write_json(page, '{"prompt": "a heart", "steps": 4, "preview": true}')
    send(page)
    page.wait(f"document.querySelector('{TXT2IMG} progress')?.value > 0")
    assert "of 4" in page.run(f"document.querySelector('{TXT2IMG} .progress').innerText")
    page.wait(f"document.querySelector('{TXT2IMG} .preview')?.naturalWidth > 0")
    assert answer(page).startswith("200")


def test_errors_mark_their_field_and_warnings_are_shown(page: Page, serve: Serve) -> None:
    opened(page, serve())
    put(page, "steps", "0")
    send(page)
    reply = answer(page)
    assert reply.startswith("422")
    assert "Field: steps" in reply
    assert page.run(f"{box('steps')}.getAttribute('aria-invalid')") == "true"
    write_json(page, '{"prompt": "a heart", "controlnet": {"units": [{"weight": 99, "model": "x"}]}}')
    send(page)
    assert "controlnet.units" in answer(page)
    assert page.run(f"document.querySelector('{TXT2IMG} [aria-invalid]').checkVisibility()")
    write_json(page, '{"prompt": "a heart", "promt": "x"}')
    send(page)
    reply = answer(page)
    assert reply.startswith("200")
    assert "promt" in page.run(f"document.querySelector('{TXT2IMG} .warnings').innerText")
    select(page, "Accept", "image/png")
    send(page)
    answer(page)
    assert "promt" in page.run(f"document.querySelector('{TXT2IMG} .warnings').innerText")


def test_errors_mark_fields_of_forms(page: Page, serve: Serve) -> None:
    opened(page, serve())
    select(page, "Send as", "form")
    put(page, "controlnet", '{"units": [{"model": "x", "weight": 99}]}')
    send(page)
    assert "Field: controlnet.units[0].weight" in answer(page)
    assert page.run(f"{box('controlnet')}.getAttribute('aria-invalid')") == "true"


def test_without_an_engine_a_note_says_that_menus_may_be_out_of_date(
    page: Page, serve: Serve, engine: FakeEngine
) -> None:
    engine.stop()
    page.open(f"{serve()}/docs{TXT2IMG}")
    page.wait("document.querySelector('#menus-note').textContent.startsWith('The menus may be out of date')")
    engine.start()
    page.run("window.dispatchEvent(new Event('focus'))")
    page.wait("document.querySelector('#menus-note').textContent === ''")


# The command line.


def test_the_command_line_sends_the_same_request(page: Page, serve: Serve, tmp_path: Path) -> None:
    opened(page, serve())
    prompt = 'it\'s a "heart" \\ 100 % & <b> \u00e9'
    write_json(page, json.dumps({"prompt": prompt, "seed": 2**63 + 1}))
    command = line(page, "sh")
    assert command.startswith("curl -sS --fail-with-body 'http://localhost:")
    reply = json.loads(execute(command, tmp_path))
    assert (reply["parameters"]["prompt"], reply["seed"]) == (prompt, 2**63 + 1)
    select(page, "Accept", "image/webp")
    execute(line(page), tmp_path)
    assert (tmp_path / "picture.webp").read_bytes()[8:12] == b"WEBP"
    select(page, "Send as", "form")
    put(page, "prompt", "@it's ; a <form>")
    put(page, "width", "64")
    select(page, "Accept", "default: application/json")
    assert json.loads(execute(line(page), tmp_path))["parameters"]["prompt"] == "@it's ; a <form>"


def test_the_command_lines_for_windows_keep_the_json_intact(page: Page, serve: Serve) -> None:
    opened(page, serve())
    body = {"prompt": 'it\'s a "heart" \\ 100 % & | <b> ^ ! \u00e9 \U0001f600', "seed": 2**63 + 1}
    write_json(page, json.dumps(body))
    piped = line(page, "powershell")
    text = re.match(r"'((?:[^']|'')*)' \| curl\.exe -sS --fail-with-body ", piped)
    assert text
    assert json.loads(text[1].replace("''", "'")) == body
    assert piped.endswith("-d '@-'")
    argument = re.search(r' -d ("(?:[^"\\]|\\.)*")$', line(page, "cmd"))
    assert argument
    # The C library parses the argument like this. It has no characters that are special in cmd.
    assert json.loads(argument[1][1:-1].replace('\\"', '"')) == body
    assert not set(argument[1]) & set("&|<>^%!")
    assert argument[1].isascii()


def test_the_command_line_for_windows_keeps_a_form_intact(page: Page, serve: Serve) -> None:
    opened(page, serve())
    select(page, "Send as", "form")
    for prompt in ("a \"heart\" & a 'ring' | <b> ^", "a heart & a ring", "C:\\a heart\\"):
        put(page, "prompt", prompt)
        argument = re.search(r' --form-string (\^?".*?prompt=.*?") --form', line(page, "cmd"))
        assert argument
        read = re.sub(r"\^(.)", r"\1", argument[1]) if argument[1][0] == "^" else argument[1]
        assert read == subprocess.list2cmdline([f"prompt={prompt}"])


def test_a_long_body_goes_into_a_file(page: Page, serve: Serve, tmp_path: Path) -> None:
    opened(page, serve(), IMG2IMG)
    page.choose(f"{IMG2IMG} input[aria-label='Picture for input_image']", photo(tmp_path, size=200))
    page.wait(f"document.querySelector('{IMG2IMG} .thumbnail').naturalWidth === 200")
    command = line(page, "sh", IMG2IMG)
    assert "--data-binary '@body.json'" in command
    press(page, "Save body.json", IMG2IMG)
    assert json.loads(execute(command, page.downloaded().parent))["status"] == "success"


# Keys, other services, proxies.


def test_the_page_works_with_an_api_key(page: Page, serve: Serve, tmp_path: Path) -> None:
    address = serve(api_key=KEY)
    page.open(f"{address}/docs")
    page.wait("!document.querySelector('#key-form').hidden")
    wrong = "This key is wrong"
    for key, message in (("no such key at all", f"{wrong}."), ("clé", f"{wrong}:"), (KEY, "The key is right")):
        page.run("document.querySelector('#key-form input').focus()")
        page.send("Input.insertText", text=key)
        page.key("Enter")
        page.wait(f"document.querySelector('#key-note').textContent.startsWith({json.dumps(message)})")
    assert page.run("[localStorage.length, document.cookie, sessionStorage.length]") == [0, "", 1]
    # The tab remembers the key.
    opened(page, address)
    send(page)
    answer(page)
    # <img> sends no key, so its address is signed.
    page.wait(f"document.querySelector('{TXT2IMG} figure img').naturalWidth === 8")
    assert "signature=" in page.run(f"document.querySelector('{TXT2IMG} figure img').src")
    for ending in MAGIC:
        press(page, f"Save as {ending}")
        saved = page.downloaded(lambda path, ending=ending: path.suffix == f".{ending.lower()}")
        assert saved.read_bytes().startswith(MAGIC[ending])
    # EventSource sends no key, either.
    put(page, "Prefer", "respond-async")
    send(page)
    reply = answer(page)
    assert reply.startswith("202")
    page.wait(f"document.querySelector('{TXT2IMG} figure img').naturalWidth === 8")
    # No command line contains the key.
    assert KEY not in line(page, "sh")
    assert json.loads(execute(line(page), tmp_path, DREAM_LAYER_API_KEY=KEY))["status"] == "accepted"
    page.run("document.querySelector('#forget').click()")
    page.wait("document.querySelector('#about')?.textContent.includes('API key')")
    # The 401 is expected.
    page.errors.clear()


def test_the_other_services_are_linked(page: Page, serve: Serve) -> None:
    first, second, third, *others = free_ports(7)
    overrides = {f"{name}_port": port for name, port in zip(PORTS, (first, second, third, *others), strict=True)}
    address = serve(**overrides)
    serve("img2img", **overrides)
    opened(page, address)
    page.wait("document.querySelector('#services li')")
    links = page.run("[...document.querySelectorAll('#services a')].map((node) => node.href)")
    assert links == [f"http://localhost:{first}/docs", f"http://localhost:{second}/docs"]
    assert page.run("document.querySelector('#services [aria-current=page]').href") == links[0]
    assert f"control {third}not running" in page.run("document.querySelector('#services').textContent")
    serve("control", **overrides)
    page.run("window.dispatchEvent(new Event('focus'))")
    page.wait("document.querySelectorAll('#services a').length === 3")
    page.run("document.querySelectorAll('#services a')[1].click()")
    page.wait("document.querySelector('#post_api_img2img') && document.title.includes('img2img')")


def test_the_page_works_below_a_path_prefix(page: Page, serve: Serve) -> None:
    address = serve(prefix="/dream/layer")
    opened(page, address)
    send(page)
    assert answer(page).startswith("200")
    page.wait(f"document.querySelector('{TXT2IMG} figure img').naturalWidth === 8")
    assert f"'{address}/api/txt2img'" in line(page, "sh")
    # The page does not know the addresses of the other services behind the proxy.
    assert page.run("document.querySelectorAll('#services a').length") == 0
    assert page.run("document.querySelectorAll('#services li').length") == 7


# Accessibility and screen sizes.


def test_keyboard_use_and_accessible_names(page: Page, serve: Serve) -> None:
    opened(page, serve())
    open_all(page, TXT2IMG)
    nameless = page.run("""[...document.querySelectorAll("input, select, textarea, button")].filter((node) =>
        !node.closest("label")?.textContent.trim() && !node.getAttribute("aria-label") && !node.textContent.trim())
        .map((node) => node.outerHTML)""")
    assert nameless == []
    page.run(f"{box('prompt')}.focus()")
    page.key("Enter", modifiers=2)
    assert answer(page).startswith("200")
    page.run("document.querySelector('#post_api_upscale summary').focus()")
    page.key("Enter")
    page.wait("document.querySelector('#post_api_upscale').open")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_fits_a_narrow_screen(page: Page, serve: Serve, dark: bool) -> None:
    address = serve()
    page.resize(360, 740)
    page.dark(dark)
    try:
        opened(page, address)
        page.run("[...document.querySelectorAll('details.operation')].forEach((node) => { node.open = true; })")
        page.wait("[...document.querySelectorAll('details.operation')].every((node) => node.children.length > 1)")
        send(page)
        answer(page)
        assert page.run("document.documentElement.scrollWidth") <= 360
        # WCAG requires a contrast of 4.5 between text and background.
        assert page.run(CONTRAST) >= 4.5
    finally:
        page.dark(False)
