"""How applications are served: without waitress too, and with threads to spare for those who do not wait."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import requests

from shared.settings import PREFIX, PROJECT_DIR
from tests.conftest import free_ports, launcher_environment
from tests.house import TIMEOUT, TestHouse, wait_for_health


def test_without_waitress_it_serves_with_a_loud_warning(tmp_path: Path) -> None:
    environ = launcher_environment(tmp_path)
    # None in sys.modules is how Python marks a package as not there.
    code = "import sys; sys.modules['waitress'] = None; sys.argv = ['txt2img_server.py']; import runpy; " + (
        "runpy.run_path('txt2img_server.py', run_name='__main__')"
    )
    service = subprocess.Popen(
        [sys.executable, "-c", code], cwd=PROJECT_DIR, env=environ, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for_health(f"http://127.0.0.1:{environ[f'{PREFIX}TXT2IMG_PORT']}")
    finally:
        service.terminate()
        _, errors = service.communicate(timeout=15)
    assert "waitress is not installed" in errors
    assert "not made for real use" in errors


def test_health_answers_while_every_waiting_place_is_taken(tmp_path: Path, house: TestHouse) -> None:
    (port,) = free_ports(1)
    environ = {
        **house.environ,
        f"{PREFIX}TXT2IMG_PORT": str(port),
        f"{PREFIX}ENGINE_URL": house.engine,
        f"{PREFIX}THREADS": "8",
        f"{PREFIX}WAITERS": "2",
        f"{PREFIX}STREAMS": "2",
    }
    url = f"http://127.0.0.1:{port}"
    service = subprocess.Popen([sys.executable, "txt2img_server.py"], cwd=PROJECT_DIR, env=environ)
    slow = {"prompt": "a red circle", "width": 128, "height": 128, "steps": 40, "seed": 1}
    answers: list[requests.Response] = []
    try:
        wait_for_health(url)
        clients = [
            threading.Thread(
                target=lambda: answers.append(requests.post(f"{url}/api/txt2img", json=slow, timeout=TIMEOUT))
            )
            for _ in range(5)
        ]
        for client in clients:
            client.start()
        deadline = time.monotonic() + TIMEOUT
        while len(answers) < 3:
            assert time.monotonic() < deadline
            assert requests.get(f"{url}/health", timeout=2).ok
        for client in clients:
            client.join()
    finally:
        service.terminate()
        service.wait(timeout=15)
    assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503, 503]
    busy = next(answer for answer in answers if answer.status_code == 503)
    assert busy.headers["Retry-After"] == "10"
    assert busy.json()["error"]["code"] == "busy"


def test_a_request_that_takes_too_long_is_a_504_with_the_jobs_id(house: TestHouse) -> None:
    (port,) = free_ports(1)
    environ = {
        **house.environ,
        f"{PREFIX}TXT2IMG_PORT": str(port),
        f"{PREFIX}ENGINE_URL": house.engine,
        f"{PREFIX}REQUEST_TIMEOUT": "0.5",
    }
    service = subprocess.Popen([sys.executable, "txt2img_server.py"], cwd=PROJECT_DIR, env=environ)
    try:
        wait_for_health(f"http://127.0.0.1:{port}")
        response = requests.post(
            f"http://127.0.0.1:{port}/api/txt2img",
            json={"prompt": "a red circle", "width": 128, "height": 128, "steps": 30},
            timeout=TIMEOUT,
        )
    finally:
        service.terminate()
        service.wait(timeout=15)
    assert response.status_code == 504
    error = response.json()["error"]
    assert error["code"] == "wait_expired"
    # The job goes on, though the service that took it is gone: another adopts it.
    assert error["url"] == f"http://127.0.0.1:{port}/api/jobs/{error['job_id']}"
    assert house.wait_for_job(error["job_id"])["state"] == "completed"
