"""Running a service: with and without waitress, and with threads for short requests."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from shared.settings import PREFIX, PROJECT_DIR
from tests.ports import free_ports
from tests.stack import TIMEOUT, TestStack, launcher_environment, wait_for_health

# Seconds for a reply that waits for nothing, while the engine uses all cores.
PATIENCE = 15


@pytest.mark.slow
def test_without_waitress_a_service_runs_with_a_warning(tmp_path: Path) -> None:
    environ = launcher_environment(tmp_path)
    # None in sys.modules makes an import fail.
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
    assert "not meant for production" in errors


def test_health_is_ok_while_all_waiters_are_in_use(tmp_path: Path, stack: TestStack) -> None:
    (port,) = free_ports(1)
    environ = {
        **stack.environ,
        f"{PREFIX}TXT2IMG_PORT": str(port),
        **stack.settings_to_share_the_engine(),
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
            time.sleep(0.02)
        for _ in range(10):
            assert requests.get(f"{url}/health", timeout=PATIENCE).ok
        assert len(answers) == 3, "a waiter became free"
        for client in clients:
            client.join()
    finally:
        service.terminate()
        service.wait(timeout=15)
    assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503, 503]
    busy = next(answer for answer in answers if answer.status_code == 503)
    assert busy.headers["Retry-After"] == "10"
    assert busy.json()["error"]["code"] == "busy"


def test_at_its_limits_a_service_answers_requests_that_do_not_wait(tmp_path: Path, stack: TestStack) -> None:
    """With all waiters and streams in use and a full queue, requests that do not wait are still answered."""
    (port,) = free_ports(1)
    environ = {
        **stack.environ,
        f"{PREFIX}TXT2IMG_PORT": str(port),
        **stack.settings_to_share_the_engine(),
        f"{PREFIX}DATABASE_URL": f"sqlite:///{tmp_path / 'jobs.sqlite'}",
        f"{PREFIX}THREADS": "8",
        f"{PREFIX}WAITERS": "2",
        f"{PREFIX}STREAMS": "2",
        f"{PREFIX}QUEUE_LIMIT": "5",
    }
    url = f"http://127.0.0.1:{port}"
    service = subprocess.Popen([sys.executable, "txt2img_server.py"], cwd=PROJECT_DIR, env=environ)
    slow = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1000}
    later = {"Prefer": "respond-async"}

    def post(headers: dict[str, str]) -> requests.Response:
        return requests.post(f"{url}/api/txt2img", json=slow, headers=headers, timeout=TIMEOUT)

    def jobs() -> list[str]:
        return [job["job_id"] for job in requests.get(f"{url}/api/jobs", timeout=PATIENCE).json()["jobs"]]

    try:
        wait_for_health(url)
        with ThreadPoolExecutor() as pool, ExitStack() as streams:
            waiting = [pool.submit(post, {}) for _ in range(2)]
            deadline = time.monotonic() + TIMEOUT
            while len(jobs()) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            for job_id in jobs():
                stream = requests.get(f"{url}/api/jobs/{job_id}/events", stream=True, timeout=TIMEOUT)
                streams.enter_context(stream)
                assert stream.status_code == 200
            for busy in (post({}), post({"Accept": "text/event-stream"})):
                assert busy.status_code == 503
                assert busy.headers["Retry-After"] == "10"
                assert "Prefer: respond-async" in busy.json()["error"]["hint"]
            # The refused requests created no jobs.
            assert len(jobs()) == 2
            assert [post(later).status_code for _ in range(4)] == [202, 202, 202, 429]
            full = post(later)
            assert full.headers["Retry-After"] == "30"
            assert "DREAM_LAYER_QUEUE_LIMIT" in full.json()["error"]["hint"]
            not_ready = requests.get(f"{url}/ready", timeout=PATIENCE)
            assert not_ready.status_code == 503
            assert "the queue is full" in not_ready.json()["reason"]
            assert requests.get(f"{url}/health", timeout=PATIENCE).ok
            for job_id in jobs():
                assert requests.get(f"{url}/api/jobs/{job_id}", timeout=PATIENCE).json()["job_id"] == job_id
                assert requests.delete(f"{url}/api/jobs/{job_id}", timeout=PATIENCE).json()["done"] == "cancelled"
            assert [request.result(timeout=PATIENCE).status_code for request in waiting] == [409, 409]
            assert post(later).status_code == 202
            requests.delete(f"{url}/api/jobs/{jobs()[0]}", timeout=PATIENCE)
    finally:
        service.terminate()
        service.wait(timeout=15)


def test_finished_jobs_are_retained_as_set(tmp_path: Path, stack: TestStack) -> None:
    (port,) = free_ports(1)
    environ = {
        **stack.environ,
        f"{PREFIX}TXT2IMG_PORT": str(port),
        **stack.settings_to_share_the_engine(),
        f"{PREFIX}DATABASE_URL": f"sqlite:///{tmp_path / 'jobs.sqlite'}",
    }
    url = f"http://127.0.0.1:{port}"
    fields = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}

    def service(**more: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen([sys.executable, "txt2img_server.py"], cwd=PROJECT_DIR, env={**environ, **more})
        wait_for_health(url)
        return process

    first = service()
    try:
        replies = [requests.post(f"{url}/api/txt2img", json=fields, timeout=TIMEOUT).json() for _ in range(3)]
    finally:
        first.terminate()
        first.wait(timeout=15)
    second = service(**{f"{PREFIX}KEEP_JOBS": "1"})
    try:
        deadline = time.monotonic() + TIMEOUT
        while len(jobs := requests.get(f"{url}/api/jobs", timeout=TIMEOUT).json()["jobs"]) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert [job["job_id"] for job in jobs] == [replies[-1]["job_id"]]
        urls = [reply["comfy_response"]["generated_images"][0]["url"] for reply in replies]
        pictures = [requests.get(url, timeout=TIMEOUT) for url in urls]
        assert [picture.status_code for picture in pictures] == [404, 404, 200]
    finally:
        second.terminate()
        second.wait(timeout=15)


def test_a_request_timeout_is_a_504_with_the_job_id(stack: TestStack) -> None:
    (port,) = free_ports(1)
    environ = {
        **stack.environ,
        f"{PREFIX}TXT2IMG_PORT": str(port),
        **stack.settings_to_share_the_engine(),
        f"{PREFIX}REQUEST_TIMEOUT": "0.2",
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
    # The service that accepted the job has ended; another one reclaims the job.
    assert error["url"] == f"http://127.0.0.1:{port}/api/jobs/{error['job_id']}"
    assert stack.wait_for_job(error["job_id"])["state"] == "completed"
