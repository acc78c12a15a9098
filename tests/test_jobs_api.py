"""Jobs over HTTP on the real engine: lists, streams, cancellation, retries."""

import base64
import io
import socket
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.stack import TIMEOUT, TestStack, open_rgb, read_stream

SMALL = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}
# Some seconds of work, in short steps.
LONG = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 200}
STREAM = {"Accept": "text/event-stream"}
ASYNC = {"Prefer": "respond-async"}


def session_from(address: str) -> requests.Session:
    """A client with another loopback address, as if on another machine."""
    session = requests.Session()
    adapter = requests.adapters.HTTPAdapter()
    adapter.init_poolmanager(1, 4, source_address=(address, 0))
    session.mount("http://", adapter)
    return session


def saved_pictures(stack: TestStack, job_id: str) -> list[Path]:
    """The files of a job's pictures."""
    return sorted((stack.data_dir / "output").rglob(f"*-{job_id.replace('-', '')[:12]}_*.png"))


def test_respond_async_answers_202_with_the_jobs_urls(stack: TestStack) -> None:
    accepted = requests.post(f"{stack.txt2img}/api/txt2img", json=SMALL, headers=ASYNC, timeout=TIMEOUT)
    assert accepted.status_code == 202
    reply = accepted.json()
    assert reply["status"] == "accepted"
    assert accepted.headers["Location"] == reply["url"] == f"{stack.txt2img}/api/jobs/{reply['job_id']}"
    job = stack.wait_for_job(reply["job_id"])
    assert job["state"] == "completed"
    assert stack.picture(job["result"]).size == (64, 64)
    assert requests.get(reply["url"], timeout=TIMEOUT).json()["images"] == job["images"]


def test_a_job_reports_its_position_progress_and_eta(stack: TestStack) -> None:
    stack.draw(**SMALL)
    first, second = stack.submit(**LONG), stack.submit(**SMALL)
    waiting = stack.job(second)
    assert (waiting["state"], waiting["position"]) == ("queued", 1)
    assert waiting["eta_s"] > 0
    stack.wait_for_job(first, "running")
    deadline = time.monotonic() + TIMEOUT
    while not ((running := stack.job(first))["progress"] or {}).get("step"):
        assert time.monotonic() < deadline, running
        time.sleep(0.05)
    assert running["position"] == 0
    assert running["progress"]["stage"] == "KSampler"
    assert running["progress"]["steps"] == 200
    for job_id in (first, second):
        requests.delete(f"{stack.txt2img}/api/jobs/{job_id}", timeout=TIMEOUT)


def test_jobs_are_listed_by_state_and_kind_and_in_pages(stack: TestStack) -> None:
    ids = [stack.draw(**SMALL)["job_id"] for _ in range(3)]
    url = f"{stack.img2img}/api/jobs"
    first = requests.get(url, params={"limit": 2, "state": "completed"}, timeout=TIMEOUT).json()
    rest = requests.get(url, params={"limit": 1, "before": first["before"]}, timeout=TIMEOUT).json()
    assert [job["job_id"] for job in [*first["jobs"], *rest["jobs"]]] == ids[::-1]
    assert "graph" not in str(first["jobs"][0])
    queued = requests.get(url, params={"state": "queued,running"}, timeout=TIMEOUT).json()
    assert queued == {"status": "success", "jobs": [], "before": None}
    kinds = requests.get(url, params={"kind": "img2img", "limit": 500}, timeout=TIMEOUT).json()["jobs"]
    assert {job["kind"] for job in kinds} <= {"img2img"}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("state=done", "one of queued, running, completed, failed, cancelled"),
        ("kind=foo", "one of txt2img, img2img, workflow, upscale, extras"),
        ("limit=0", "limit must be a whole number from 1 to 500"),
        ("before=x", "before must be a whole number"),
    ],
)
def test_an_invalid_query_of_jobs_is_a_422(stack: TestStack, query: str, message: str) -> None:
    response = requests.get(f"{stack.txt2img}/api/jobs?{query}", timeout=TIMEOUT)
    assert response.status_code == 422
    assert message in response.text


@pytest.mark.parametrize(("method", "tail"), [("GET", ""), ("GET", "/events"), ("DELETE", ""), ("POST", "/retry")])
def test_an_unknown_job_is_a_404(stack: TestStack, method: str, tail: str) -> None:
    response = requests.request(method, f"{stack.txt2img}/api/jobs/{uuid.uuid4()}{tail}", timeout=TIMEOUT)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


def test_a_stream_has_all_events_from_the_queue_to_the_picture(stack: TestStack) -> None:
    fields = {**SMALL, "steps": 30, "batch_size": 2}
    with requests.post(
        f"{stack.txt2img}/api/txt2img", json=fields, headers=STREAM, stream=True, timeout=TIMEOUT
    ) as response:
        events = list(read_stream(response))
    names = [event.name for event in events]
    assert (names[0], names[1], names[-1]) == ("queued", "started", "completed")
    assert names.count("image") == 2
    assert {"position", "eta_s"} <= events[0].data.keys()
    steps = [event.data for event in events if event.name == "progress" and "step" in event.data]
    assert {(data["stage"], data["steps"]) for data in steps} == {("KSampler", 30), ("KSampler_2", 30)}
    for stage in ("KSampler", "KSampler_2"):
        stage_steps = [data["step"] for data in steps if data["stage"] == stage]
        assert stage_steps == sorted(stage_steps)
    assert all(data["fraction"] == round(data["step"] / 30, 4) for data in steps)
    assert all(event.data["job_id"] == response.headers["X-Job-Id"] for event in events)
    last = events[-1].data
    # ComfyUI may save pictures in any order; the result lists them in order.
    assert sorted(event.data["url"] for event in events if event.name == "image") == [
        image["url"] for image in last["comfy_response"]["generated_images"]
    ]
    assert len(stack.pictures(last)) == 2


def test_a_stream_has_previews_on_request(stack: TestStack) -> None:
    fields = {**LONG, "steps": 60, "preview": True}
    with requests.post(
        f"{stack.txt2img}/api/txt2img", json=fields, headers=STREAM, stream=True, timeout=TIMEOUT
    ) as response:
        previews = [event.data["image"] for event in read_stream(response) if event.name == "preview"]
    assert previews
    for preview in previews:
        kind, _, content = preview.partition(",")
        assert kind == "data:image/jpeg;base64"
        picture = Image.open(io.BytesIO(base64.b64decode(content)))
        assert max(picture.size) <= 256
        assert len(content) < 40_000


def test_a_stream_resumes_at_another_service(stack: TestStack) -> None:
    job_id = stack.submit(**{**LONG, "steps": 40})
    with requests.get(f"{stack.txt2img}/api/jobs/{job_id}/events", stream=True, timeout=TIMEOUT) as response:
        stream = read_stream(response)
        first_events = [next(stream) for _ in range(3)]
    for url in (stack.img2img, stack.control):
        headers = {"Last-Event-ID": str(first_events[-1].number)}
        with requests.get(f"{url}/api/jobs/{job_id}/events", headers=headers, stream=True, timeout=TIMEOUT) as response:
            rest = [event for event in read_stream(response) if event.number is not None]
        assert rest[0].number is not None
        assert first_events[-1].number is not None
        assert rest[0].number > first_events[-1].number
        assert rest[-1].name == "completed"
    with requests.get(f"{stack.txt2img}/api/jobs/{job_id}/events", stream=True, timeout=TIMEOUT) as response:
        replayed = [event.number for event in read_stream(response)]
    assert replayed == [event.number for event in [*first_events, *rest]]


def test_only_the_given_job_is_cancelled_and_its_request_ends_at_once(stack: TestStack) -> None:
    before = stack.submit(**LONG)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(requests.post, f"{stack.txt2img}/api/txt2img", json=LONG, timeout=TIMEOUT)
        deadline = time.monotonic() + TIMEOUT
        while len(unfinished(stack)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        mine = unfinished(stack)[0]["job_id"]
        after = stack.submit(**SMALL)
        stack.wait_for_job(before, "running")
        # Cancel the queued job, then the running one, through a service that owns neither.
        assert requests.delete(f"{stack.img2img}/api/jobs/{mine}", timeout=TIMEOUT).json()["done"] == "cancelled"
        answer = running.result(timeout=5)
    assert answer.status_code == 409
    assert answer.json()["error"] == {"code": "cancelled", "job_id": mine}
    assert stack.job(before)["state"] == "running"
    requests.delete(f"{stack.img2img}/api/jobs/{before}", timeout=TIMEOUT)
    assert stack.job(before)["state"] == "cancelled"
    assert stack.wait_for_job(after)["state"] == "completed"
    assert saved_pictures(stack, before) == saved_pictures(stack, mine) == []


def unfinished(stack: TestStack) -> list[dict[str, Any]]:
    """Unfinished jobs, newest first."""
    jobs: list[dict[str, Any]] = requests.get(
        f"{stack.txt2img}/api/jobs", params={"state": "queued,running"}, timeout=TIMEOUT
    ).json()["jobs"]
    return jobs


def test_interrupt_cancels_only_the_newest_job_of_its_client(stack: TestStack) -> None:
    mine, theirs = session_from("127.0.0.2"), session_from("127.0.0.3")
    url = f"{stack.txt2img}/api/txt2img"
    older = mine.post(url, json=LONG, headers=ASYNC, timeout=TIMEOUT).json()["job_id"]
    other = theirs.post(url, json=SMALL, headers=ASYNC, timeout=TIMEOUT).json()["job_id"]
    with ThreadPoolExecutor() as pool:
        open_request = pool.submit(mine.post, url, json=LONG, timeout=TIMEOUT)
        deadline = time.monotonic() + TIMEOUT
        while len(unfinished(stack)) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        interrupted = mine.post(f"{url}/interrupt", json={}, timeout=TIMEOUT).json()
        answer = open_request.result(timeout=5)
    assert interrupted["cancelled"] is True
    assert answer.status_code == 409
    assert answer.json()["error"]["job_id"] == interrupted["job_id"]
    assert mine.post(f"{stack.img2img}/api/img2img/interrupt", json={}, timeout=TIMEOUT).json()["cancelled"] is False
    assert stack.job(older)["state"] in ("queued", "running")
    # Without a body, as from curl; the older job is now the newest.
    assert mine.post(f"{url}/interrupt", timeout=TIMEOUT).json()["job_id"] == older
    assert mine.post(f"{url}/interrupt", json={}, timeout=TIMEOUT).json()["cancelled"] is False
    assert stack.wait_for_job(other)["state"] == "completed"


def test_any_job_can_be_interrupted_by_its_id(stack: TestStack) -> None:
    job_id = stack.submit(**LONG)
    url = f"{stack.txt2img}/api/txt2img/interrupt"
    reply = session_from("127.0.0.9").post(url, json={"job_id": job_id}, timeout=TIMEOUT).json()
    assert (reply["cancelled"], reply["job_id"]) == (True, job_id)
    assert stack.job(job_id)["state"] == "cancelled"


def test_the_stream_of_a_cancelled_job_ends_with_a_cancelled_event(stack: TestStack) -> None:
    job_id = stack.submit(**LONG)
    with requests.get(f"{stack.txt2img}/api/jobs/{job_id}/events", stream=True, timeout=TIMEOUT) as response:
        threading.Timer(0.5, requests.delete, [f"{stack.txt2img}/api/jobs/{job_id}"], {"timeout": TIMEOUT}).start()
        last = list(read_stream(response))[-1]
    assert last.name == "cancelled"
    assert last.data["error"]["code"] == "cancelled"


def test_requests_with_the_same_idempotency_key_share_one_job(stack: TestStack) -> None:
    headers = {"Idempotency-Key": f"key-{uuid.uuid4()}"}
    url = f"{stack.txt2img}/api/txt2img"
    with ThreadPoolExecutor() as pool:
        answers = list(
            pool.map(lambda _: requests.post(url, json=SMALL, headers=headers, timeout=TIMEOUT).json(), range(3))
        )
    answers.append(requests.post(url, json=SMALL, headers=headers, timeout=TIMEOUT).json())
    assert [answer == answers[0] for answer in answers] == [True] * 4
    assert len(saved_pictures(stack, answers[0]["job_id"])) == 1
    # The job itself has the same seed, and another body with the same key is refused.
    assert stack.job(answers[0]["job_id"])["result"]["seed"] == answers[0]["seed"]
    other = requests.post(url, json={**SMALL, "steps": 2}, headers=headers, timeout=TIMEOUT)
    assert other.status_code == 422
    assert other.json()["error"]["field"] == "Idempotency-Key"


def test_a_finished_job_can_be_retried(stack: TestStack) -> None:
    first = stack.draw(**SMALL)
    again = requests.post(f"{stack.img2img}/api/jobs/{first['job_id']}/retry", timeout=TIMEOUT)
    assert again.status_code == 202
    second = stack.wait_for_job(again.json()["job_id"])
    assert second["seed"] == first["seed"]
    assert stack.picture(second["result"]).tobytes() == stack.picture(first).tobytes()
    assert second["images"] != [image["url"] for image in first["comfy_response"]["generated_images"]]


def test_an_unfinished_job_cannot_be_retried(stack: TestStack) -> None:
    job_id = stack.submit(**LONG)
    response = requests.post(f"{stack.txt2img}/api/jobs/{job_id}/retry", timeout=TIMEOUT)
    assert (response.status_code, response.json()["error"]["code"]) == (409, "not_finished")
    requests.delete(f"{stack.txt2img}/api/jobs/{job_id}", timeout=TIMEOUT)


def test_a_deleted_job_removes_its_pictures_and_uploads(stack: TestStack) -> None:
    source = Image.new("RGB", (64, 64), "orange")
    other, deleted = stack.draw(**SMALL), stack.redraw(prompt="a red circle", input_image=source, steps=2)
    uploads = set((stack.data_dir / "uploads").iterdir())
    assert len(saved_pictures(stack, deleted["job_id"])) == 1
    removed = requests.delete(f"{stack.txt2img}/api/jobs/{deleted['job_id']}", timeout=TIMEOUT)
    assert removed.json()["done"] == "removed"
    assert saved_pictures(stack, deleted["job_id"]) == []
    # The picture as it was uploaded, and as the engine reads it.
    assert len(uploads - set((stack.data_dir / "uploads").iterdir())) == 2
    url = deleted["comfy_response"]["generated_images"][0]["url"]
    assert requests.get(url, timeout=TIMEOUT).status_code == 404
    assert requests.get(f"{stack.txt2img}/api/jobs/{deleted['job_id']}", timeout=TIMEOUT).status_code == 404
    assert len(saved_pictures(stack, other["job_id"])) == 1


@pytest.mark.parametrize(("prefer", "state"), [("", "completed"), ("Prefer: cancel-on-disconnect\r\n", "cancelled")])
@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
def test_a_job_is_cancelled_on_disconnect_only_if_requested(
    stack: TestStack, prefer: str, state: str, accept: str
) -> None:
    body = b'{"prompt": "a red circle", "width": 64, "height": 64, "steps": 40}'
    host, port = stack.txt2img.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        head = (
            f"POST /api/txt2img HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
            f"Accept: {accept}\r\nContent-Length: {len(body)}\r\n{prefer}\r\n"
        )
        client.sendall(head.encode() + body)
        deadline = time.monotonic() + TIMEOUT
        while not (jobs := unfinished(stack)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert stack.wait_for_job(jobs[0]["job_id"])["state"] == state


def test_pictures_are_served_by_every_service(stack: TestStack) -> None:
    name = stack.draw(**SMALL)["comfy_response"]["generated_images"][0]["filename"]
    for url in (stack.txt2img, stack.img2img, stack.control):
        picture = requests.get(f"{url}/api/images/{name}", timeout=TIMEOUT)
        assert open_rgb(picture.content).size == (64, 64)


def test_ready_reports_the_engine(stack: TestStack) -> None:
    for url in (stack.txt2img, stack.img2img, stack.control):
        response = requests.get(f"{url}/ready", timeout=TIMEOUT)
        assert response.status_code == 200
        assert response.json()["ready"] is True
