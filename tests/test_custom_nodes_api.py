"""Features that need custom nodes, on an engine with test nodes of the same names and inputs."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from PIL import Image, ImageDraw

from shared.settings import PREFIX
from tests.imported_graphs import to_api
from tests.stack import PLANTED, TIMEOUT, TestStack, data_url, launched, launcher_environment

NODES = [Path(__file__).parent / "data" / name for name in ("known_nodes.py", "probing_nodes.py")]
# Secrets in the environment of the user. No custom node may read them.
CANARIES = {
    name: f"canary-{number}"
    for number, name in enumerate(
        (
            *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "OPENAI_API_KEY"),
            *("CIVITAI_TOKEN", "GITHUB_TOKEN", "DATABASE_PASSWORD", "SSH_AUTH_SOCK", "DB_PASSWORD"),
            *("NVIDIA_API_KEY", "CUDA_SECRET", "COMFYUI_API_KEY", "PYTHON_KEYRING_PASSWORD"),
        )
    )
}
QUICK = {"prompt": "a red circle on a blue background", "seed": 5, "steps": 2, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def rich_stack(stack: TestStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestStack]:
    """A stack with custom nodes in its data folder."""
    folder = tmp_path_factory.mktemp("rich")
    (folder / "data" / "custom_nodes").mkdir(parents=True)
    for nodes in NODES:
        shutil.copy(nodes, folder / "data" / "custom_nodes")
    (folder / "data" / "models").symlink_to(stack.data_dir / "models", target_is_directory=True)
    environ = {
        **launcher_environment(folder / "data"),
        **CANARIES,
        f"{PREFIX}ALLOW_NODES": "ShowEnviron,HoldOn",
        f"{PREFIX}CANCEL_TIMEOUT": "2",
    }
    with launched(folder, environ) as running:
        yield running


def test_the_options_report_that_the_nodes_are_installed(rich_stack: TestStack) -> None:
    options = requests.get(f"{rich_stack.txt2img}/api/options", timeout=TIMEOUT).json()
    assert "lineart" in options["preprocessors"]
    assert options["face_restoration"] == {"available": True, "models": ["codeformer.pth"]}
    assert options["seamless_tiling"] == {"available": True}


def test_seamless_tiling_and_face_restoration_are_applied(rich_stack: TestStack) -> None:
    reply = rich_stack.draw(**QUICK, tiling=True, restore_faces=True, codeformer_weight=0.8)
    picture = rich_stack.picture(reply)
    assert picture.getpixel((10, 0)) == (255, 0, 0)
    assert picture.getpixel((10, 63)) == (204, 204, 204)
    assert reply["warnings"] == []


def test_a_preprocessor_of_custom_nodes_is_applied(rich_stack: TestStack) -> None:
    lines = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(lines).rectangle((8, 22, 40, 56), outline="black", width=3)
    inverted = lines.point(lambda level: 255 - level)
    unit = {"model": "dream-layer-canny", "input_image": data_url(lines), "preprocessor": "lineart"}
    preprocessed = {**unit, "input_image": data_url(inverted), "preprocessor": "none"}
    pictures = [
        rich_stack.picture(rich_stack.draw(**QUICK, controlnet={"units": [entry]})) for entry in (unit, preprocessed)
    ]
    assert pictures[0].tobytes() == pictures[1].tobytes()


def test_a_missing_face_model_is_a_422(rich_stack: TestStack) -> None:
    response = requests.post(
        f"{rich_stack.txt2img}/api/txt2img",
        json={**QUICK, "restore_faces": True, "face_restoration_model": "other.pth"},
        timeout=TIMEOUT,
    )
    assert response.status_code == 422
    assert response.json()["error"]["field"] == "face_restoration_model"
    assert response.json()["error"]["nearest"] == ["codeformer.pth"]


def graph_of(node: str, **inputs: Any) -> dict[str, Any]:
    """Return a graph of one test node that saves its picture."""
    return to_api({"node": (node, inputs), "save": ("SaveImage", {"images": ["node", 0], "filename_prefix": "x"})})


def test_a_node_that_reads_the_environment_finds_no_secret(rich_stack: TestStack) -> None:
    reply = rich_stack.draw(custom_workflow=graph_of("ShowEnviron"))
    environ = json.loads(rich_stack.picture(reply).tobytes())
    assert "PATH" in environ
    secrets = {*CANARIES.values(), *PLANTED.values()}
    assert not [name for name, value in environ.items() if value in secrets or name.upper().startswith(PREFIX)]
    # Nor are they in the initial environment of the process, which os.environ may not show.
    pid = rich_stack.engine_state()["pid"]
    assert not [name for name, value in psutil.Process(pid).environ().items() if value in secrets]
    if sys.platform == "linux":
        started_with = Path(f"/proc/{pid}/environ").read_bytes()
        assert not [secret for secret in secrets if secret.encode() in started_with]
        # The launcher has them, so the check above can fail.
        launcher = Path(f"/proc/{rich_stack.process.pid}/environ").read_bytes()
        assert all(secret.encode() in launcher for secret in secrets)


@pytest.mark.parametrize("node", ["StringFormat", "RegexExtract", "GLSLShader", "LoadImageOutput", "SaveText"])
def test_unsafe_nodes_are_refused_with_a_hint_to_the_setting(rich_stack: TestStack, node: str) -> None:
    graph = {**graph_of("ShowEnviron"), "other": {"class_type": node, "inputs": {}}}
    response = requests.post(f"{rich_stack.txt2img}/api/txt2img", json={"custom_workflow": graph}, timeout=TIMEOUT)
    assert response.status_code == 422
    error = response.json()["error"]
    assert (error["field"], error["class_type"]) == ("custom_workflow", node)
    assert f"{PREFIX}ALLOW_NODES={node}" in error["hint"]


def test_a_stuck_node_restarts_the_engine_and_other_jobs_continue(rich_stack: TestStack) -> None:
    before = rich_stack.engine_state()
    stuck = rich_stack.submit(custom_workflow=graph_of("HoldOn", seconds=600))
    rich_stack.wait_for_job(stuck, "running")
    waiting = rich_stack.submit(**QUICK)
    assert requests.delete(f"{rich_stack.txt2img}/api/jobs/{stuck}", timeout=TIMEOUT).json()["done"] == "cancelled"
    job = rich_stack.wait_for_job(waiting)
    assert (job["state"], job["result"]["timings"]["attempts"]) == ("completed", 1)
    state = rich_stack.engine_state()
    assert (state["restarts"], state["pid"] != before["pid"]) == (before["restarts"] + 1, True)
    assert stuck in state["last_restart"]["reason"]
    assert f"the engine still runs job {stuck}, " in rich_stack.output()
    assert requests.get(f"{rich_stack.txt2img}/ready", timeout=TIMEOUT).status_code == 200


def test_a_requested_restart_counts_no_attempt(rich_stack: TestStack) -> None:
    running = rich_stack.submit(custom_workflow=graph_of("HoldOn", seconds=5))
    rich_stack.wait_for_job(running, "running")
    restarts = rich_stack.engine_state()["restarts"]
    assert requests.post(f"{rich_stack.control}/api/engine/restart", timeout=TIMEOUT).status_code == 202
    job = rich_stack.wait_for_job(running)
    assert (job["state"], job["result"]["timings"]["attempts"]) == ("completed", 1)
    assert rich_stack.engine_state()["restarts"] == restarts + 1
