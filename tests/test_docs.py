"""The commands in README.md and docs/ work, and the files and headings that the pages name exist."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from PIL import Image, ImageChops

from shared.schema.replies import EVENTS
from shared.settings import PREFIX, PROJECT_DIR
from tests.stack import TIMEOUT, TestStack, open_rgb, read_stream

PAGES = {
    path.relative_to(PROJECT_DIR).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted((*PROJECT_DIR.glob("*.md"), *(PROJECT_DIR / "docs").glob("*.md")))
}
# Event fields that appear only after a crash of the engine, and only for custom graphs.
NOT_SEEN = {"queued": {"attempt"}, "image": {"node", "title", "index"}}
PORTS = {"5001": "TXT2IMG", "5002": "CONTROL", "5004": "IMG2IMG"}


def block(page: str, heading: str | None = None, language: str = "sh") -> str:
    """Return the first code block of a language in a page, or below one of its headings."""
    after_heading = "" if heading is None else rf"^## {heading}$.*?"
    match = re.search(rf"{after_heading}^```{language}\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)
    assert match is not None, (page, heading)
    return match[1]


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl")
def test_the_first_pictures_of_the_readme_are_drawn(stack: TestStack, tmp_path: Path) -> None:
    script = block("README.md", "The first pictures").replace("docs/mask.png", str(PROJECT_DIR / "docs/mask.png"))
    for port, name in PORTS.items():
        script = script.replace(f"localhost:{port}", f"localhost:{stack.environ[f'{PREFIX}{name}_PORT']}")
    subprocess.run(["bash", "-euxc", script], cwd=tmp_path, check=True, timeout=TIMEOUT)
    red, green, half = (Image.open(tmp_path / f"{name}.png").convert("RGB") for name in ("red", "green", "half"))
    assert red.size == green.size == half.size == (128, 128)
    assert ImageChops.difference(red, green).getbbox() is not None
    # The mask is white on the right: only that half was repainted.
    changed = ImageChops.difference(red, half).getbbox()
    assert changed is not None
    assert changed[0] == 64


def test_every_curl_command_shows_errors() -> None:
    for name, text in PAGES.items():
        for command in re.findall(r"^curl(?:\.exe)? .*|`curl -.*", text, re.MULTILINE):
            assert re.match(r"`?curl(\.exe)? -sSN? --fail-with-body\b", command), (name, command)
    # The page /docs builds its commands in this file. tests/test_docs_page.py runs them.
    page = (PROJECT_DIR / "shared/web/openapi/page/curl.js").read_text(encoding="utf-8")
    assert "${curl} -sS --fail-with-body " in page


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl")
def test_the_windows_commands_of_the_quickstart_work(stack: TestStack, tmp_path: Path) -> None:
    commands = block("docs/quickstart.md", "The first pictures", "bat").replace("curl.exe", "curl").splitlines()
    (tmp_path / "request.json").write_text('{"prompt": "a blue star on a white background"}', encoding="utf-8")
    for command in commands:
        # cmd reads single quotes, backslashes and carets differently, PowerShell also $, ` and a bare @.
        assert not re.search(r"['\\^$`%]| @", command), command
        for port, name in PORTS.items():
            command = command.replace(f"localhost:{port}", f"localhost:{stack.environ[f'{PREFIX}{name}_PORT']}")
        subprocess.run(["bash", "-euc", command], cwd=tmp_path, check=True, timeout=TIMEOUT)
    for color in ("red", "green", "blue"):
        assert open_rgb((tmp_path / f"{color}.png").read_bytes()).size == (128, 128)
    refused = commands[0].replace("localhost:5001", stack.txt2img.removeprefix("http://")).replace("prompt=", "promt=")
    finished = subprocess.run(["bash", "-euc", refused], cwd=tmp_path, timeout=TIMEOUT, capture_output=True, text=True)
    assert (finished.returncode, "422" in finished.stderr) == (22, True), finished.stderr
    assert json.loads((tmp_path / "red.png").read_bytes())["status"] == "error"


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl")
def test_the_examples_of_waiting_work(stack: TestStack, tmp_path: Path) -> None:
    script = block("docs/jobs.md")
    script = script.replace("localhost:5001", stack.txt2img.removeprefix("http://"))
    output = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, check=True, timeout=TIMEOUT, capture_output=True, text=True
    ).stdout
    assert json.loads((tmp_path / "answer.json").read_text(encoding="utf-8"))["status"] == "success"
    for event in ("queued", "started", "progress", "image", "completed"):
        assert f"\nevent: {event}\ndata: " in output
    accepted, listed = output.splitlines()[-2:]
    assert json.loads(accepted)["status"] == "accepted"
    assert len(json.loads(listed)["jobs"]) == 3


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl")
def test_the_examples_of_the_api_work(stack: TestStack, tmp_path: Path) -> None:
    stack.picture(stack.draw(prompt="a red circle on a blue background")).save(tmp_path / "red.png")
    script = block("docs/api.md", "Examples")
    for port, name in PORTS.items():
        script = script.replace(f"localhost:{port}", f"localhost:{stack.environ[f'{PREFIX}{name}_PORT']}")
    subprocess.run(["bash", "-euxc", script], cwd=tmp_path, check=True, timeout=TIMEOUT)
    batch = json.loads((tmp_path / "batch.json").read_text(encoding="utf-8"))
    assert [image["seed"] for image in batch["comfy_response"]["generated_images"]] == [7, 8]
    assert batch["parameters"]["scheduler"] == "karras"
    sizes = {"outline": (384, 384), "yellow": (128, 128), "wider": (168, 152), "large": (384, 384)}
    for name, size in sizes.items():
        assert open_rgb((tmp_path / f"{name}.png").read_bytes()).size == size


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl")
def test_the_examples_of_workflows_work(stack: TestStack, tmp_path: Path) -> None:
    script = block("docs/workflows.md").replace(".venv/bin/python", sys.executable)
    script = script.replace("localhost:5001", stack.txt2img.removeprefix("http://"))
    script = script.replace("data/workflows", str(stack.data_dir / "workflows"))
    output = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, check=True, timeout=TIMEOUT, capture_output=True, text=True
    ).stdout
    assert open_rgb((tmp_path / "star.png").read_bytes()).size == (128, 128)
    (listed,) = [workflow for workflow in json.loads(output)["workflows"] if workflow["name"] == "shape"]
    assert listed["schema"]["properties"]["prompt"]["default"] == "a red circle on a blue background"


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl")
def test_the_example_of_metadata_works(stack: TestStack, tmp_path: Path) -> None:
    script = block("docs/api.md", "Metadata in pictures").replace(
        "localhost:5001", stack.txt2img.removeprefix("http://")
    )
    output = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, check=True, timeout=TIMEOUT, capture_output=True, text=True
    ).stdout
    metadata = json.loads(output)
    assert metadata["kind"] == "txt2img"
    repeated = stack.picture(stack.draw(**metadata["parameters"]))
    assert repeated.tobytes() == open_rgb((tmp_path / "red.png").read_bytes()).tobytes()


def test_events_have_the_documented_fields(stack: TestStack) -> None:
    documented = {name: model.model_fields.keys() - {"job_id"} for name, model in EVENTS.items()}
    fields = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 40, "preview": True}
    event_fields: dict[str, set[str]] = {}

    def watch(response: requests.Response) -> None:
        with response:
            for event in read_stream(response):
                event_fields.setdefault(event.name, set()).update(event.data.keys() - {"job_id"})

    stream = {"headers": {"Accept": "text/event-stream"}, "stream": True, "timeout": TIMEOUT}
    # A service that has just started may receive no events of its first job.
    for _ in range(2):
        watch(requests.post(f"{stack.txt2img}/api/txt2img", json=fields, **stream))
    job_id = stack.submit(**{**fields, "steps": 400})
    requests.delete(f"{stack.txt2img}/api/jobs/{job_id}", timeout=TIMEOUT)
    watch(requests.get(f"{stack.txt2img}/api/jobs/{job_id}/events", **stream))
    assert {"queued", "started", "progress", "preview", "image", "completed", "cancelled"} == event_fields.keys()
    for name, keys in event_fields.items():
        if name != "completed":
            assert keys == documented[name] - NOT_SEEN.get(name, set()), name


@pytest.mark.parametrize("name", PAGES)
def test_every_path_and_link_exists(name: str) -> None:
    text = PAGES[name]
    for path in re.findall(r"(?<![\w/])((?:shared|workflows|launcher|starter|tests|bench|docs)/[\w./-]*\w)", text):
        assert (PROJECT_DIR / path).exists(), path
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
        if re.match(r"\w+:", target):
            continue
        path, _, heading = target.partition("#")
        linked = (PROJECT_DIR / name).parent / path if path else PROJECT_DIR / name
        assert linked.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, target


def test_troubleshooting_quotes_real_messages_and_codes() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8")
        for part in ("shared", "launcher")
        for path in (PROJECT_DIR / part).rglob("*.py")
    )
    symptoms = re.findall(r"^\| (.+?) \|", PAGES["docs/troubleshooting.md"], re.MULTILINE)
    messages = [message for symptom in symptoms for message in re.findall(r"`[^`]*port \d+[^`:]*: ([^`]+)`", symptom)]
    codes = [code for symptom in symptoms for code in re.findall(r"\d{3} `(\w+)`", symptom)]
    assert len(messages) == 2
    assert len(codes) == 4
    for message in messages:
        assert f'"{message}"' in sources
    for code in codes:
        assert f'code = "{code}"' in sources
