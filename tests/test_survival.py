"""Jobs survive failures of the engine, its worker thread, the services, the launcher and the disk."""

import shutil
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
import requests
from PIL import Image

from tests.chaos import chaos
from tests.stack import TIMEOUT, TestStack, data_url, launched, read_stream, wait_for_health, wait_until_gone

SMALL = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}
LONG = {**SMALL, "steps": 60}


def find_child(stack: TestStack, script: str) -> psutil.Process:
    """Return the launcher's child process that runs this script."""
    (process,) = [
        child
        for child in psutil.Process(stack.process.pid).children()
        if any(part.endswith(script) for part in child.cmdline())
    ]
    return process


def wait_until_ready(stack: TestStack) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            if requests.get(f"{stack.txt2img}/ready", timeout=5).ok:
                return
        except requests.RequestException:
            pass
        assert time.monotonic() < deadline, stack.output()
        time.sleep(0.1)


def test_an_engine_without_its_worker_thread_is_restarted_and_its_jobs_are_requeued(stack: TestStack) -> None:
    job_id = stack.submit(**LONG)
    stack.wait_for_job(job_id, "running")
    before = find_child(stack, "main.py").pid
    # Sent directly to the engine, because the services refuse it: a node without inputs ends ComfyUI's worker thread,
    # but not its HTTP server. The running job comes first, so it completes before the crash or is run again.
    crashing: dict[str, Any] = {
        "image": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
        "good": {"class_type": "PreviewImage", "inputs": {"images": ["image", 0]}},
        "deadly": {"class_type": "PreviewImage"},
    }
    sent = stack.ask_engine("POST", "/prompt", json={"prompt": crashing, "number": -1})
    assert sent.status_code == 200
    following = stack.submit(**SMALL)
    assert stack.wait_for_job(job_id)["state"] == "completed"
    assert stack.wait_for_job(following)["state"] == "completed"
    assert find_child(stack, "main.py").pid != before
    assert "engine ended with exit code 70" in stack.output()


def test_jobs_are_accepted_and_wait_while_the_engine_does_not_answer(stack: TestStack) -> None:
    stack.draw(**SMALL)
    find_child(stack, "main.py").kill()
    ids = [stack.submit(**SMALL) for _ in range(3)]
    not_ready = requests.get(f"{stack.txt2img}/ready", timeout=TIMEOUT)
    assert not_ready.status_code == 503
    assert "the engine does not answer" in not_ready.json()["reason"]
    jobs = [stack.wait_for_job(job_id) for job_id in ids]
    assert [job["state"] for job in jobs] == ["completed"] * 3
    assert [job["started"] for job in jobs] == sorted(job["started"] for job in jobs)
    # The crash does not count as an attempt, because no job was running.
    assert [job["timings"]["attempts"] for job in jobs] == [1, 1, 1]


def test_the_job_of_a_killed_service_is_completed_and_streamed_by_another(stack: TestStack) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    with ThreadPoolExecutor() as pool:
        broken = pool.submit(requests.post, f"{stack.txt2img}/api/txt2img", json=LONG, headers=headers, timeout=TIMEOUT)
        deadline = time.monotonic() + TIMEOUT
        while not (running := requests.get(f"{stack.control}/api/jobs?state=running", timeout=TIMEOUT).json()["jobs"]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        find_child(stack, "txt2img_server.py").kill()
        with pytest.raises(requests.ConnectionError):
            broken.result()
    (job,) = running
    with requests.get(f"{stack.img2img}/api/jobs/{job['job_id']}/events", stream=True, timeout=TIMEOUT) as response:
        events = list(read_stream(response))
    assert [event.name for event in events if event.name in ("started", "image", "completed")] == [
        "started",
        "image",
        "completed",
    ]
    wait_for_health(stack.txt2img)
    # Repeating the interrupted request returns the result of its job.
    again = requests.post(f"{stack.txt2img}/api/txt2img", json=LONG, headers=headers, timeout=TIMEOUT)
    assert again.json()["job_id"] == job["job_id"]
    assert stack.picture(again.json()).size == (64, 64)


def test_a_job_that_kills_the_engine_three_times_fails_and_the_others_continue(stack: TestStack) -> None:
    killer, innocent = stack.submit(**{**LONG, "steps": 400}), stack.submit(**SMALL)
    # A job of the other service is queued after it, too.
    fields = {**SMALL, "input_image": data_url(Image.new("RGB", (64, 64), "red"))}
    headers = {"Prefer": "respond-async"}
    sent = requests.post(f"{stack.img2img}/api/img2img", json=fields, headers=headers, timeout=TIMEOUT)
    innocents = [innocent, sent.json()["job_id"]]
    for _ in range(3):
        # Simulate a job that crashes the engine each time it runs.
        stack.wait_for_job(killer, "running")
        find_child(stack, "main.py").kill()
        deadline = time.monotonic() + TIMEOUT
        while stack.job(killer)["state"] == "running":
            assert time.monotonic() < deadline
            time.sleep(0.05)
    failed = stack.wait_for_job(killer)
    assert failed["state"] == "failed"
    assert "the engine crashed 3 times while it ran this job" in failed["error"]["message"]
    for job_id in innocents:
        completed = stack.wait_for_job(job_id)
        assert (completed["state"], completed["timings"]["attempts"]) == ("completed", 1)


def test_twenty_queued_jobs_survive_a_power_cut_and_run_once_in_order(own_stack: TestStack) -> None:
    stack = own_stack
    ids = [stack.submit(**{**SMALL, "steps": 3, "seed": seed}) for seed in range(20)]
    processes = [psutil.Process(stack.process.pid), *psutil.Process(stack.process.pid).children(recursive=True)]
    # Children first: if the launcher ended first, they would stop in an orderly way.
    for process in processes[::-1]:
        process.kill()
    stack.process.wait()
    wait_until_gone(processes)
    with launched(stack.log.parent, stack.environ) as again:
        jobs = [again.wait_for_job(job_id) for job_id in ids]
        pictures = list((stack.data_dir / "output").rglob("*.png"))
        assert [job["state"] for job in jobs] == ["completed"] * 20
        assert [job["seed"] for job in jobs] == list(range(20))
        assert [job["started"] for job in jobs] == sorted(job["started"] for job in jobs)
        assert sorted(path.name for path in pictures) == sorted(
            url.rsplit("/", 1)[1] for job in jobs for url in job["images"]
        )
        # Pictures of jobs that were completed before are still served.
        assert all(requests.get(job["images"][0], timeout=TIMEOUT).ok for job in jobs)


def test_random_kills_lose_and_duplicate_nothing(own_stack: TestStack) -> None:
    count = chaos(own_stack, seconds=25, seed=7)
    assert count.wrong == [], count
    assert count.accepted
    assert count.kills
    assert count.pictures == len(count.accepted) == count.states["completed"]


@contextmanager
def file_size_limit(process: psutil.Process, size: int) -> Iterator[None]:
    """Limit the files that a process writes to `size` bytes, which simulates a full disk."""
    if not hasattr(process, "rlimit"):
        pytest.skip("this system does not limit another process's files")
    original = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (size, original[1]))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_FSIZE, original)


def test_a_full_disk_fails_only_that_job(stack: TestStack) -> None:
    with file_size_limit(find_child(stack, "main.py"), 200):
        response = requests.post(f"{stack.txt2img}/api/txt2img", json=SMALL, timeout=TIMEOUT)
    assert response.status_code == 507, response.text
    assert response.json()["error"]["code"] == "storage_failed"
    # The failing node varies, because the engine cannot write to its log either.
    assert response.json()["message"].endswith(" failed: File too large")
    assert stack.picture(stack.draw(**SMALL)).size == (64, 64)


def test_a_job_is_rejected_if_the_disk_has_no_room_for_its_row(stack: TestStack) -> None:
    with file_size_limit(find_child(stack, "txt2img_server.py"), 0):
        refused = requests.post(f"{stack.txt2img}/api/txt2img", json=SMALL, timeout=TIMEOUT)
        health = requests.get(f"{stack.txt2img}/health", timeout=TIMEOUT)
    assert refused.status_code == 507, refused.text
    assert "the disk has room" in refused.json()["error"]["hint"]
    assert health.ok
    assert stack.picture(stack.draw(**SMALL)).size == (64, 64)


def test_a_read_only_output_folder_fails_that_job_with_the_reason(own_stack: TestStack) -> None:
    stack = own_stack
    shutil.rmtree(stack.data_dir / "output")
    (stack.data_dir / "output").write_text("a file where the folder was")
    response = requests.post(f"{stack.txt2img}/api/txt2img", json=SMALL, timeout=TIMEOUT)
    assert response.status_code == 507, response.text
    assert response.json()["error"]["node"] == "SaveImage"
    (stack.data_dir / "output").unlink()
    assert stack.picture(stack.draw(**SMALL)).size == (64, 64)
