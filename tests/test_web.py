"""Behaviour that all services share: health, errors, CORS, access control and limits."""

import gc
import json
import weakref
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Blueprint
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import EnvironBuilder, run_wsgi_app

from shared.errors import InvalidValue
from shared.settings import Settings
from shared.web.app import create_app, txt2img_app
from shared.web.backend import Backend
from shared.web.custom_graph import read_custom_graph
from tests.stack import TIMEOUT, TestStack

PAGE = "http://localhost:8080"
MakeClient = Callable[..., FlaskClient]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[MakeClient]:
    """Create test clients of the txt2img service without an engine (nothing listens on port 9)."""
    backends: list[Backend] = []

    def make(**settings: Any) -> FlaskClient:
        backend = Backend(Settings(engine_url="http://127.0.0.1:9", data_dir=tmp_path, **settings))
        backends.append(backend)
        return txt2img_app(backend).test_client()

    yield make
    for backend in backends:
        backend.stop()


def test_health_answers_on_each_service(stack: TestStack) -> None:
    for url, name in ((stack.txt2img, "txt2img"), (stack.img2img, "img2img"), (stack.control, "control")):
        body = requests.get(f"{url}/health", timeout=TIMEOUT).json()
        assert body["status"] == "ok"
        assert body["service"] == name


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/api/txt2img", 415), ("GET", "/nowhere", 404), ("GET", "/api/txt2img", 405), ("GET", "/health", 200)],
)
def test_the_web_page_may_read_responses_and_errors(stack: TestStack, method: str, path: str, status: int) -> None:
    response = requests.request(
        method, stack.txt2img + path, data=b"x", headers={"Origin": PAGE, "Content-Type": "text/html"}, timeout=TIMEOUT
    )
    assert response.status_code == status
    assert response.headers["Access-Control-Allow-Origin"] == PAGE
    assert response.headers["Content-Type"] == "application/json"


def test_a_preflight_request_of_the_web_page_is_allowed(client: MakeClient) -> None:
    headers = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    response = client().options("/api/txt2img", headers=headers)
    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == PAGE
    assert "content-type" in response.headers["Access-Control-Allow-Headers"].lower()
    assert "POST" in response.headers["Access-Control-Allow-Methods"]


@pytest.mark.parametrize(
    ("method", "path", "header"),
    [
        ("POST", "/api/txt2img", "prefer"),
        ("POST", "/api/txt2img", "idempotency-key"),
        ("POST", "/api/txt2img/interrupt", "content-type"),
        ("GET", "/api/jobs/1/events", "last-event-id"),
        ("DELETE", "/api/jobs/1", "x-api-key"),
    ],
)
def test_the_web_page_may_send_the_methods_and_headers_of_the_jobs_api(
    client: MakeClient, method: str, path: str, header: str
) -> None:
    headers = {"Origin": PAGE, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": header}
    response = client().options(path, headers=headers)
    assert response.headers["Access-Control-Allow-Origin"] == PAGE
    assert header in response.headers["Access-Control-Allow-Headers"].lower()
    assert method in response.headers["Access-Control-Allow-Methods"]


def test_unknown_origins_are_refused(client: MakeClient) -> None:
    refused = client().post("/api/txt2img", json={"prompt": "x"}, headers={"Origin": "http://evil.example"})
    assert refused.status_code == 403
    assert refused.json is not None
    assert refused.json["error"]["code"] == "origin_not_allowed"
    assert "Access-Control-Allow-Origin" not in refused.headers


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("DELETE", {"Sec-Fetch-Site": "Cross-Site"}, 403),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Origin": PAGE}, 422),
        ("POST", {"Sec-Fetch-Site": "none"}, 422),
        ("POST", {"Sec-Fetch-Site": "same-origin"}, 422),
        # A page of any origin may show pictures.
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"}, 404),
        ("POST", {"Origin": "null"}, 403),
        ("POST", {"Origin": "http://localhost:5999"}, 403),
        ("POST", {"Origin": f"{PAGE}, {PAGE}"}, 403),
        ("POST", {"Origin": PAGE.upper()}, 403),
        ("POST", {"Origin": ""}, 403),
    ],
)
def test_pages_without_an_allowed_origin_change_nothing(
    client: MakeClient, method: str, headers: dict[str, str], status: int
) -> None:
    paths = {"POST": "/api/txt2img", "DELETE": "/api/jobs/x", "GET": "/api/images/x.png"}
    sent = {"json": {}} if method == "POST" else {}
    assert client().open(paths[method], method=method, headers=headers, **sent).status_code == status


def test_a_null_origin_is_refused_if_the_host_is_invalid(client: MakeClient) -> None:
    key = "correct horse battery"
    headers = {"Origin": "null", "X-API-Key": key}
    for host in ("", "a b"):
        service = client(host="0.0.0.0", api_key=key)
        assert service.get("/api/jobs", headers=headers, environ_overrides={"HTTP_HOST": host}).status_code == 403


def test_allowed_origins_are_a_setting(client: MakeClient) -> None:
    headers = {"Origin": "https://studio.example"}
    allowed = client(allowed_origins=("https://studio.example",)).get("/health", headers=headers)
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://studio.example"


def test_an_unknown_host_is_refused(client: MakeClient) -> None:
    assert client().get("/health", headers={"Host": "rebound.example:5001"}).status_code == 403
    assert (
        client(public_url="https://rebound.example").get("/health", headers={"Host": "rebound.example"}).status_code
        == 200
    )


@pytest.mark.parametrize("origin", ["http://[", "null", "https://dream.example.evil"])
def test_invalid_origins_and_hosts_are_refused(client: MakeClient, origin: str) -> None:
    service = client(public_url="https://dream.example/pictures")
    assert service.get("/health", headers={"Origin": origin}).status_code == 403
    assert service.get("/health", headers={"Host": "["}).status_code == 403
    # A page of the service itself, through a proxy that sends the service's own address as Host.
    assert service.get("/health", headers={"Origin": "https://dream.example"}).status_code == 200


def test_with_an_api_key_only_health_is_public(client: MakeClient) -> None:
    service = client(api_key="correct horse battery")
    assert service.get("/health").status_code == 200
    assert service.get("/nowhere").status_code == 401
    assert service.get("/nowhere", headers={"X-API-Key": "wrong horse!"}).status_code == 401
    assert service.get("/nowhere", headers={"X-API-Key": "correct horse battery"}).status_code == 404
    for scheme in ("Bearer", "bearer"):
        assert service.get("/nowhere", headers={"Authorization": f"{scheme} correct horse battery"}).status_code == 404
    assert service.get("/nowhere", headers={"Authorization": "Basic correct horse battery"}).status_code == 401


def test_without_an_engine_a_request_is_a_503_with_a_hint(client: MakeClient) -> None:
    response = client().post("/api/txt2img", json={"prompt": "x"})
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert response.json is not None
    assert response.json["error"]["code"] == "engine_unavailable"
    assert "dream_layer.py" in response.json["error"]["hint"]


def test_without_an_engine_a_service_is_healthy_but_not_ready(client: MakeClient) -> None:
    service = client()
    assert service.get("/health").status_code == 200
    answer = service.get("/ready")
    assert answer.status_code == 503
    assert answer.json is not None
    assert answer.json["ready"] is False
    assert answer.json["reason"].startswith("the engine does not answer at http://127.0.0.1:9")


def test_without_an_engine_jobs_are_still_listed(client: MakeClient) -> None:
    answer = client().get("/api/jobs")
    assert answer.json == {"status": "success", "jobs": [], "before": None}


def test_a_body_over_the_limit_is_a_413_in_json(client: MakeClient) -> None:
    response = client(max_body_mb=1).post("/api/txt2img", json={"prompt": "x" * 2_000_000})
    assert response.status_code == 413
    assert response.json is not None
    assert "DREAM_LAYER_MAX_BODY_MB" in response.json["error"]["hint"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[" * 200_000, "has more than 50 levels"),
        (b'{"a":' * 100_000, "has more than 50 levels"),
        (b'{"seed":' + b"9" * 5000 + b"}", "is not valid JSON"),
        (b"\xff\xfe{", "is not valid JSON"),
        (b'{"prompt": NaN', "is not valid JSON"),
    ],
)
def test_hostile_json_is_a_400(client: MakeClient, body: bytes, reason: str) -> None:
    response = client().post("/api/txt2img", data=body, content_type="application/json")
    assert response.status_code == 400
    assert response.json is not None
    assert response.json["message"].startswith(f"the body {reason}")


@pytest.mark.parametrize(
    ("body", "content_type", "field"),
    [
        (b'{"prompt": "x", "steps": 3, "steps": 4}', "application/json", "steps"),
        (b'{"prompt": "x", "lora": {"lora_name": "a", "lora_name": "b"}}', "application/json", "lora_name"),
        (b"prompt=x&prompt=y", "application/x-www-form-urlencoded", "prompt"),
    ],
)
def test_a_field_that_is_sent_twice_is_refused(client: MakeClient, body: bytes, content_type: str, field: str) -> None:
    response = client().post("/api/txt2img", data=body, content_type=content_type)
    assert response.status_code == 400
    assert response.json is not None
    assert response.json["error"]["field"] == field


def test_a_file_and_a_field_of_the_same_name_are_refused(client: MakeClient) -> None:
    picture = (BytesIO(b"x"), "a.png")
    response = client().post("/api/img2img", data={"prompt": "x", "image": [picture, "data:image/png;base64,eA=="]})
    assert response.status_code == 400
    assert response.json is not None
    assert response.json["error"]["field"] == "image"


@pytest.mark.parametrize(
    ("body", "shown"),
    [(b' {"prompt": "x", "model_name": "m", "steps": 0}', "0"), (b"prompt=x&model_name=m&steps=0", "'0'")],
)
def test_curl_without_a_content_type_is_understood(client: MakeClient, body: bytes, shown: str) -> None:
    response = client().post("/api/txt2img", data=body, content_type="application/x-www-form-urlencoded")
    assert response.status_code == 422
    assert response.json is not None
    assert response.json["message"] == f"steps must be a whole number from 1 to 1000, not {shown}"


def test_an_unexpected_error_reveals_no_internals(client: MakeClient) -> None:
    service = client()

    def broken() -> str:
        raise RuntimeError("/secret/path")

    service.application.add_url_rule("/broken", view_func=broken)
    response = service.get("/broken")
    assert response.status_code == 500
    assert response.json is not None
    assert response.json["error"]["code"] == "internal_error"
    assert "secret" not in response.text


@pytest.mark.slow
def test_json_with_too_many_values_is_refused(client: MakeClient) -> None:
    many = "[" + "[]," * 200_000 + "[]]"
    service = client()
    whole = service.post("/api/txt2img", data=f'{{"prompt": {many}}}', content_type="application/json")
    assert (whole.status_code, whole.json["error"]["code"]) == (413, "body_too_large")  # type: ignore[index]
    for name in ("lora", "loras", "controlnet"):
        form = service.post(
            "/api/txt2img", data={"prompt": "x", name: many}, content_type="application/x-www-form-urlencoded"
        )
        assert form.status_code == 422, form.text
        assert form.json["error"]["field"] == name  # type: ignore[index]
        assert "200,000 values" in form.json["message"]  # type: ignore[index]
    for graph in (many, many.encode()):
        with pytest.raises(InvalidValue, match="custom_workflow has more than 200,000 values"):
            read_custom_graph(graph)


@pytest.mark.parametrize("count", [1001, 3000])
def test_too_many_fields_are_refused(client: MakeClient, count: int) -> None:
    names = {f"name{number}": "1" for number in range(count)}
    service = client()
    bodies: list[dict[str, Any]] = [
        {"json": names},
        {"json": {"prompt": "x", "loras": [names]}},
        {"data": names, "content_type": "application/x-www-form-urlencoded"},
        {"data": names, "content_type": "multipart/form-data"},
        {"data": {"prompt": "x", "lora": json.dumps(names)}, "content_type": "multipart/form-data"},
    ]
    for body in bodies:
        refused = service.post("/api/txt2img", **body)
        assert refused.status_code == 400, (body.keys(), refused.text)
        assert "more than 1,000" in refused.json["message"]  # type: ignore[index]


@pytest.mark.parametrize(
    "host", ["xn--a", "xn--\xe4.example", f"{'a' * 64}.example", "a..example", "..", "a b", "[", ""]
)
@pytest.mark.parametrize("path", ["/", "/api/jobs", "/openapi.json", "/health", "/nowhere"])
def test_an_invalid_host_is_not_a_server_error(client: MakeClient, host: str, path: str) -> None:
    service = client(host="0.0.0.0", api_key="correct horse battery")
    environ = EnvironBuilder(path, headers={"X-API-Key": "correct horse battery"}).get_environ()
    # The environ bypasses the test client, which fails on such a host itself.
    _, status, headers = run_wsgi_app(service.application, {**environ, "HTTP_HOST": host})
    assert int(status.split()[0]) < 500
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("kind", [InvalidValue, ZeroDivisionError])
def test_objects_of_a_failed_request_are_freed_at_once(kind: type[Exception], tmp_path: Path) -> None:
    """A local variable that holds the raised error creates a reference cycle, which Python collects late."""
    routes = Blueprint("held", __name__)
    references: list[weakref.ref[Image.Image]] = []

    @routes.get("/api/held")
    def refuse() -> None:
        picture = Image.new("L", (8, 8))
        references.append(weakref.ref(picture))
        error = kind("no")
        raise error from OSError("why")

    client = create_app("test", Settings(data_dir=tmp_path), [routes]).test_client()
    gc.disable()
    try:
        assert client.get("/api/held").status_code in (422, 500)
        assert [reference() for reference in references] == [None]
    finally:
        gc.enable()
