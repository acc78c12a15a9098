"""The port of the real engine: no access without the token, and the services survive its restart."""

import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import requests
import websocket

from shared.engine.client import TOKEN_FILE
from shared.settings import PREFIX, PROJECT_DIR
from tests.http import SMALL, post
from tests.ports import free_ports
from tests.stack import TIMEOUT, TestStack, wait_for_health

# Every kind of handler in ComfyUI: with a body, with the prefix /api, below /internal, static files, no handler.
ROUTES = (
    *("GET /", "POST /prompt", "POST /api/prompt", "POST /queue", "POST /interrupt", "POST /free", "POST /history"),
    *("GET /userdata?dir=.", "POST /userdata/evil.json", "GET /ws", "GET /api/ws", "GET /view?filename=a.png"),
    *(
        "POST /upload/image",
        "GET /object_info",
        "GET /system_stats",
        "GET /internal/logs",
        "GET /internal/folder_paths",
    ),
    *("GET /extensions", "GET /not-there", "OPTIONS /prompt", "DELETE /userdata/a.json", "GET /models/checkpoints"),
)


def status_of(stack: TestStack, route: str, *heads: str) -> int:
    """Send a request with these header lines and return the status of the response."""
    port = int(stack.engine.rpartition(":")[2])
    lines = [f"{route} HTTP/1.1", *(text.replace("{port}", str(port)) for text in heads), "Connection: close"]
    body = '{"clear": true, "prompt": {}}' if route.startswith("POST") else ""
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as sock:
        sock.sendall("".join(f"{text}\r\n" for text in [*lines, ""]).encode() + body.encode())
        return int(sock.recv(65536).split()[1])


def test_requests_without_the_token_or_from_other_hosts_are_refused(stack: TestStack) -> None:
    bearer = f"Authorization: Bearer {stack.engine_access.token}"
    for route in ROUTES:
        own = "Host: 127.0.0.1:{port}"
        assert status_of(stack, route, own) == 401, route
        assert status_of(stack, route, own, "Authorization: Bearer wrong") == 401, route
        assert status_of(stack, route, "Host: evil.example:{port}", "Origin: http://evil.example:{port}") == 403, route
        assert status_of(stack, route, own, "Origin: http://localhost:8080", bearer) == 403, route
        assert status_of(stack, route, "Host: evil.example:{port}", bearer) == 403, route
        # Some versions of aiohttp themselves refuse two Host headers with 400.
        assert status_of(stack, route, own, own, bearer) in (400, 403), route
        method, path = route.split(" ")
        assert status_of(stack, f"{method} http://evil.example{path}", own, bearer) == 403, route
    assert not (stack.data_dir / "user" / "default" / "evil.json").exists()


def test_the_web_page_is_refused_the_websocket(stack: TestStack) -> None:
    """The newer version of the page opens this websocket."""
    url = stack.engine.replace("http", "ws", 1).replace("127.0.0.1", "localhost")
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        websocket.create_connection(f"{url}/ws", origin="http://localhost:8080", timeout=TIMEOUT)
    assert refused.value.status_code == 403


def test_requests_with_the_token_reach_the_engine(stack: TestStack) -> None:
    token = stack.engine_access.token
    assert stack.ask_engine("GET", "/queue").json().keys() == {"queue_running", "queue_pending"}
    connection = websocket.create_connection(
        f"{stack.engine.replace('http', 'ws', 1)}/ws", header={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT
    )
    assert '"status"' in connection.recv()
    connection.close()


def test_a_browser_needs_the_token_only_once(stack: TestStack) -> None:
    (stack.data_dir / "engine" / "no-page" / "index.html").write_text("<p>a page</p>")
    browser = requests.Session()
    assert browser.get(stack.engine, timeout=TIMEOUT).status_code == 401
    opened = browser.get(stack.engine_access.page_url(stack.engine), timeout=TIMEOUT)
    assert (opened.url, opened.text) == (f"{stack.engine}/", "<p>a page</p>")
    assert browser.get(f"{stack.engine}/api/queue", timeout=TIMEOUT).status_code == 200


@pytest.mark.parametrize("place", ["../run/engine.token", "../run/engine.token [output]", "run/engine.token [temp]"])
def test_a_graph_cannot_read_the_token(stack: TestStack, place: str) -> None:
    graph = {
        "load": {"class_type": "LoadImage", "inputs": {"image": place}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["load", 0], "filename_prefix": "token"}},
    }
    refused = post(stack, "/api/txt2img", {**SMALL, "custom_workflow": {"prompt": graph}})
    assert refused.status_code == 422, refused.text


def test_no_route_of_the_engine_shows_the_token(stack: TestStack) -> None:
    token = stack.engine_access.token
    assert token
    name = TOKEN_FILE.name
    folder = str(Path("..") / TOKEN_FILE.parent)
    for kind in ("input", "output", "temp"):
        for query in ({"filename": name, "subfolder": folder}, {"filename": f"{folder}/{name}"}):
            reply = stack.ask_engine("GET", "/view", params={**query, "type": kind})
            assert reply.status_code in (400, 403, 404)
    for path in (f"/userdata/..%2F..%2F{TOKEN_FILE.parent}%2F{name}", f"/../../run/{name}", f"/..%2F..%2Frun%2F{name}"):
        assert token not in stack.ask_engine("GET", path).text
    engine = psutil.Process(stack.engine_state()["pid"])
    assert token not in f"{engine.cmdline()} {engine.environ()}"
    assert token not in (stack.data_dir / "logs" / "engine.log").read_text(encoding="utf-8", errors="replace")
    assert token not in stack.output()


def test_jobs_continue_after_a_restart_with_a_new_token(stack: TestStack) -> None:
    stack.draw(**SMALL)
    before = stack.engine_access.token
    job = stack.submit(**{**SMALL, "steps": 30})
    stack.wait_for_job(job, "running")
    psutil.Process(stack.engine_state()["pid"]).kill()
    assert stack.wait_for_job(job)["state"] == "completed"
    after = stack.engine_access.token
    assert after not in (None, before)
    assert stack.ask_engine("GET", "/queue").status_code == 200
    old = {"Authorization": f"Bearer {before}"}
    assert requests.get(f"{stack.engine}/queue", headers=old, timeout=TIMEOUT).status_code == 401
    stack.redraw(prompt="a red circle", input_image=stack.picture(stack.draw(**SMALL)), steps=2)


def test_a_service_started_by_hand_finds_the_token_in_the_data_folder(tmp_path: Path, stack: TestStack) -> None:
    (port,) = free_ports(1)
    environ = {**stack.environ, f"{PREFIX}TXT2IMG_PORT": str(port)}
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "service.log").open("wb") as log:
        service = subprocess.Popen([sys.executable, "txt2img_server.py"], cwd=PROJECT_DIR, env=environ, stderr=log)
    try:
        wait_for_health(url)
        drawn = requests.post(f"{url}/api/txt2img", json=SMALL, timeout=TIMEOUT)
        assert (drawn.status_code, drawn.json()["comfy_response"]["generated_images"][0]["type"]) == (200, "output")
    finally:
        service.terminate()
        service.wait(timeout=30)
