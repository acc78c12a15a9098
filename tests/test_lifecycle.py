"""The launcher and the processes that it supervises: start, crash, restart, and stop."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from PIL import Image

from shared.jobs.store import Store
from shared.settings import PREFIX, PROJECT_DIR
from tests.harness import new_job
from tests.stack import TIMEOUT, TestStack, data_url, launcher_environment, wait_for_health, wait_until_gone

SMALL = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}

pytestmark = pytest.mark.usefixtures("engine_source")


def wait_for_restart(stack: TestStack, restarts: int) -> dict[str, Any]:
    return stack.wait_for_engine(lambda state: (state["state"], state["restarts"]) == ("ready", restarts))


def test_an_engine_killed_while_idle_is_restarted(stack: TestStack) -> None:
    before = stack.engine_state()
    os.kill(before["pid"], signal.SIGKILL)
    after = wait_for_restart(stack, before["restarts"] + 1)
    assert after["pid"] != before["pid"]
    assert stack.picture(stack.draw(**SMALL)).size == (64, 64)


def test_a_request_survives_a_crash_of_the_engine(stack: TestStack) -> None:
    before = stack.engine_state()
    replies: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: replies.append(stack.draw(**{**SMALL, "width": 128, "steps": 40})))
    waiting.start()
    deadline = time.monotonic() + TIMEOUT
    while not stack.ask_engine("GET", "/queue").json()["queue_running"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(before["pid"], signal.SIGKILL)
    waiting.join(timeout=TIMEOUT)
    assert replies, "the open request returned no picture"
    assert replies[0]["timings"]["attempts"] == 2
    assert stack.picture(replies[0]).size == (128, 64)
    assert stack.engine_state()["restarts"] == before["restarts"] + 1


def test_results_are_purged_from_the_engines_history(stack: TestStack) -> None:
    job_id = stack.draw(**SMALL)["job_id"]
    deadline = time.monotonic() + TIMEOUT
    while stack.ask_engine("GET", f"/history/{job_id}").json():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_launcher_prints_all_urls(stack: TestStack) -> None:
    output = stack.output()
    for name in ("TXT2IMG", "IMG2IMG", "CONTROL", "ENGINE"):
        assert f":{stack.environ[f'{PREFIX}{name}_PORT']}" in output
    assert "curl -sS --fail-with-body localhost:" in output
    assert f"Open {stack.txt2img.replace('127.0.0.1', 'localhost')}/" in output


def test_the_services_use_little_memory(stack: TestStack) -> None:
    large = data_url(Image.effect_noise((1600, 1200), 100))
    invalid = {"prompt": "x", "input_image": large, "width": 1024, "height": 768, "sampler_name": "none such"}

    def refused(_number: int) -> int:
        return requests.post(f"{stack.img2img}/api/img2img", json=invalid, timeout=TIMEOUT).status_code

    with ThreadPoolExecutor(16) as clients:
        assert set(clients.map(refused, range(48))) == {422}
    services = [
        child
        for child in psutil.Process(stack.process.pid).children()
        if any(argument.endswith("_server.py") for argument in child.cmdline())
    ]
    assert len(services) == 2
    # Freed memory returns to the system with a delay.
    deadline = time.monotonic() + 20
    while max(service.memory_info().rss for service in services) >= 100e6:
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize("name", ["TXT2IMG", "IMG2IMG", "CONTROL", "ENGINE"])
def test_a_busy_port_is_reported_with_its_setting(tmp_path: Path, name: str) -> None:
    environ = launcher_environment(tmp_path / "data")
    port = int(environ[f"{PREFIX}{name}_PORT"])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        result = run_launcher(environ, "up", "--no-install")
    assert result.returncode == 1
    assert f"port {port} failed: another program is using it" in result.stderr
    assert f"set {PREFIX}{name}_PORT to a free port" in result.stderr


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("COMFYUI_DIR", "/nonexistent", "is not a ComfyUI folder"),
        ("HOST", "0.0.0.0", "API_KEY must be set"),
        ("PROT", "1", "is not a setting"),
        ("ENGINE_ARGS", "--no-such-argument", "unrecognized arguments: --no-such-argument"),
        ("ENGINE_URL", "http://127.0.0.1:9", "does not answer at http://127.0.0.1:9"),
        ("DATA_DIR", f"{PROJECT_DIR}/README.md", "README.md"),
        ("DATABASE_URL", "sqlite:////nonexistent/jobs.sqlite", "unable to open database file"),
        ("DATABASE_URL", "nosuchdatabase://here", "DREAM_LAYER_DATABASE_URL cannot be used"),
    ],
)
def test_a_failed_step_is_reported_with_its_reason(tmp_path: Path, setting: str, value: str, message: str) -> None:
    environ = {**launcher_environment(tmp_path / "data"), PREFIX + setting: value}
    if setting == "ENGINE_URL":
        del environ[f"{PREFIX}COMFYUI_DIR"]
    result = run_launcher(environ, "up", "--no-install", "--no-starter")
    assert result.returncode == 1
    assert " failed: " in result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("folder", ["own", "own/below"])
def test_no_starter_is_made_next_to_another_checkpoint(tmp_path: Path, folder: str) -> None:
    """An invalid engine argument ends the start early, but after the step that makes the starter."""
    own = tmp_path / "data" / "models" / "checkpoints" / folder / "mine.safetensors"
    own.parent.mkdir(parents=True)
    own.touch()
    environ = {**launcher_environment(tmp_path / "data"), f"{PREFIX}ENGINE_ARGS": "--no-such-argument"}
    result = run_launcher(environ, "up", "--no-install")
    assert "not needed, using mine.safetensors" in result.stdout
    assert [path for path in (tmp_path / "data" / "models").rglob("*") if path.is_file()] == [own]


def test_another_server_does_not_count_as_an_engine(tmp_path: Path, stack: TestStack) -> None:
    environ = {**launcher_environment(tmp_path / "data"), f"{PREFIX}ENGINE_URL": stack.txt2img}
    result = run_launcher(environ, "run")
    assert result.returncode == 1
    assert "engine failed: the engine answered POST /prompt with status 404" in result.stderr


def test_without_a_command_the_launcher_monitors_an_external_engine(tmp_path: Path, stack: TestStack) -> None:
    """The first of the three terminals, with an engine that another program started."""
    environ = {**launcher_environment(tmp_path / "data"), **stack.settings_to_share_the_engine()}
    launcher = subprocess.Popen(
        [sys.executable, "dream_layer.py"], cwd=PROJECT_DIR, env=environ, stdout=subprocess.PIPE, text=True
    )
    try:
        assert launcher.stdout is not None
        lines = iter(launcher.stdout.readline, "")
        assert any("generated its first picture" in line for line in lines)
        control = f"http://127.0.0.1:{environ[f'{PREFIX}CONTROL_PORT']}"
        state = requests.get(f"{control}/api/engine", timeout=TIMEOUT).json()["engine"]
        assert (state["state"], state["answers"], state["address"]) == ("external", True, stack.engine)
        assert "pid" not in state
        refused = requests.post(f"{control}/api/engine/restart", timeout=TIMEOUT)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "not_possible")
        assert not (tmp_path / "data" / "engine").exists()
    finally:
        launcher.terminate()
        launcher.communicate(timeout=20)
    assert launcher.returncode == 0
    assert stack.ask_engine("GET", "/system_stats").ok


def test_a_killed_launcher_leaves_no_orphans(tmp_path: Path) -> None:
    environ = launcher_environment(tmp_path / "data")
    command = [sys.executable, "dream_layer.py", "up", "--no-install", "--no-starter"]
    launcher = subprocess.Popen(command, cwd=PROJECT_DIR, env=environ, stdout=subprocess.DEVNULL)
    children: list[psutil.Process] = []
    deadline = time.monotonic() + TIMEOUT
    while len(children) < 3:
        assert time.monotonic() < deadline
        children = psutil.Process(launcher.pid).children()
        time.sleep(0.05)
    launcher.kill()
    launcher.wait()
    wait_until_gone(children)


def test_status_reports_running_processes_and_up_starts_none_twice(stack: TestStack) -> None:
    status = run_launcher(stack.environ, "status")
    assert status.returncode == 0, status.stdout + status.stderr
    assert f"is running: process {stack.process.pid}, `up`, since " in status.stdout
    for address in (stack.txt2img, stack.img2img, stack.control):
        assert re.search(rf"{address} +answers", status.stdout)
    assert re.search(
        rf"{stack.engine} +ready, ComfyUI 0.30.0, cpu, .*, process {stack.engine_state()['pid']}\n", status.stdout
    )
    services = {child.pid for child in psutil.Process(stack.process.pid).children()}
    assert {int(pid) for pid in re.findall(r"answers, process (\d+)", status.stdout)} <= services
    for command in (["up", "--no-install"], ["run"]):
        again = run_launcher(stack.environ, *command)
        assert (again.returncode, again.stderr) == (0, "")
        assert f"already (process {stack.process.pid})" in again.stdout
        assert f"Open {stack.txt2img.replace('127.0.0.1', 'localhost')}/" in again.stdout
    opened = run_launcher(stack.environ, "open")
    assert (opened.returncode, opened.stdout.split()[-1]) == (0, f"{stack.txt2img.replace('127.0.0.1', 'localhost')}/")
    assert stack.process.poll() is None


def test_stop_works_from_another_terminal_and_keeps_unfinished_jobs(tmp_path: Path, stack: TestStack) -> None:
    environ = {**launcher_environment(tmp_path / "data"), **stack.settings_to_share_the_engine()}
    command = [sys.executable, "dream_layer.py", "up", "--no-install"]
    launcher = subprocess.Popen(command, cwd=PROJECT_DIR, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        assert launcher.stdout is not None
        assert any("Dream Layer is ready" in line for line in iter(launcher.stdout.readline, ""))
        second_start = run_launcher(environ, "run")
        assert (second_start.returncode, second_start.stderr) == (0, "")
        children = psutil.Process(launcher.pid).children()
        assert len(children) == 2
        txt2img = f"http://127.0.0.1:{environ[f'{PREFIX}TXT2IMG_PORT']}"
        for _ in range(2):
            stack.submit(txt2img, **{**SMALL, "steps": 900})
        stopped = run_launcher(environ, "stop")
        assert (stopped.returncode, stopped.stderr) == (0, "")
        assert f"everything that process {launcher.pid} had started" in stopped.stdout
        assert launcher.wait(20) == 0
        wait_until_gone(children)
        output = launcher.stdout.read()
        assert output.index("stopping     ...") < output.index("stopped      everything")
        assert run_launcher(environ, "status").returncode == 3
        assert "nothing was running" in run_launcher(environ, "stop").stdout
        assert "2 jobs unfinished" in run_launcher(environ, "jobs", "list").stdout
        assert "2 jobs cancelled" in run_launcher(environ, "jobs", "cancel", "all").stdout
        # No service was running that could cancel the engine's jobs.
        stack.ask_engine("POST", "/interrupt")
        stack.ask_engine("POST", "/queue", json={"clear": True})
    finally:
        launcher.kill()
        launcher.communicate()


def test_unfinished_jobs_are_reported_at_startup(tmp_path: Path) -> None:
    environ = {**launcher_environment(tmp_path), f"{PREFIX}ENGINE_ARGS": "--no-such-argument"}
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite")
    store.add(new_job(), "somebody who is gone", 10)
    store.close()
    result = run_launcher(environ, "run", "--no-starter")
    assert "1 unfinished job from before" in result.stdout
    assert "`jobs cancel all` cancels them" in result.stdout


def test_services_started_by_hand_run_until_ctrl_c(tmp_path: Path, stack: TestStack) -> None:
    """Services started by hand, next to an engine that already runs."""
    environ = {**launcher_environment(tmp_path), **stack.settings_to_share_the_engine()}
    for script, name in (("txt2img_server.py", "TXT2IMG"), ("img2img_server.py", "IMG2IMG")):
        service = subprocess.Popen([sys.executable, script], cwd=PROJECT_DIR, env=environ, stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{environ[f'{PREFIX}{name}_PORT']}"
        try:
            wait_for_health(url)
            if name == "TXT2IMG":
                reply = requests.post(f"{url}/api/txt2img", json=SMALL, timeout=TIMEOUT).json()
                image_url = reply["comfy_response"]["generated_images"][0]["url"]
                # Its own data folder is empty, so the picture comes through the engine.
                assert requests.get(image_url, timeout=TIMEOUT).content.startswith(b"\x89PNG")
            service.send_signal(signal.SIGINT)
            assert service.wait(timeout=15) == 0
        finally:
            service.kill()
            service.wait()


def test_a_service_on_a_busy_port_reports_it(stack: TestStack) -> None:
    result = subprocess.run(
        [sys.executable, "txt2img_server.py"], cwd=PROJECT_DIR, env=stack.environ, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert f"set {PREFIX}TXT2IMG_PORT to a free port" in result.stderr


def run_launcher(environ: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "dream_layer.py", *arguments],
        cwd=PROJECT_DIR,
        env=environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
