"""Hints for wrong paths, ports, methods and query parameters."""

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from shared.settings import Settings
from shared.web.backend import Backend
from shared.web.openapi.operation import list_routes
from shared.web.route_hints import FOREIGN_PATHS, NO_MATCH, hint_for_path, services_of
from tests.test_openapi import ROUTES, SERVICES

Clients = dict[str, FlaskClient]


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    folder = tmp_path_factory.mktemp("services")
    backends = {
        name: Backend(Settings(engine_url="http://127.0.0.1:9", data_dir=folder, txt2img_port=6001))
        for name in SERVICES
    }
    yield {name: SERVICES[name](backend).test_client() for name, backend in backends.items()}
    for backend in backends.values():
        backend.stop()


@pytest.mark.parametrize(
    ("service", "path", "hint"),
    [
        # Another port.
        ("img2img", "/api/txt2img", "POST /api/txt2img on port 6001 (txt2img)"),
        ("control", "/api/txt2img", "POST /api/txt2img on port 6001 (txt2img)"),
        ("control", "/api/img2img/interrupt", "on port 6001 (txt2img)"),
        ("txt2img", "/api/models", "GET /api/models on port 5002 (control)"),
        ("img2img", "/api/runs/an-id", "GET or DELETE /api/runs/<run_id> on port 5002 (control)"),
        # A slash at the end, or another case.
        ("txt2img", "/api/txt2img/", "POST /api/txt2img, without a slash at the end"),
        ("txt2img", "/api/jobs/", "GET /api/jobs, without a slash"),
        ("txt2img", "/health/", "GET /health"),
        ("txt2img", "/docs/", "GET /docs"),
        ("img2img", "/api/txt2img/", "on port 6001"),
        ("txt2img", "/API/Txt2Img", "POST /api/txt2img"),
        # The nearest path.
        ("txt2img", "/txt2img", "did you mean POST /api/txt2img?"),
        ("txt2img", "/img2img", "did you mean POST /api/img2img?"),
        ("txt2img", "/api/txt2image", "did you mean POST /api/txt2img?"),
        ("txt2img", "/api/text2img", "did you mean POST /api/txt2img?"),
        ("txt2img", "/api/job", "did you mean GET /api/jobs?"),
        ("txt2img", "/api/option", "did you mean GET /api/options?"),
        ("txt2img", "/jobs", "did you mean GET /api/jobs?"),
        # Other programs.
        ("txt2img", "/sdapi/v1/txt2img", "POST /api/txt2img"),
        ("img2img", "/sdapi/v1/txt2img", "on port 6001"),
        ("txt2img", "/sdapi/v1/samplers", "GET /api/options"),
        ("txt2img", "/v1/images/generations", "size is width and height"),
        ("txt2img", "/v1/images/edits", "POST /api/img2img"),
        ("txt2img", "/prompt", "custom_workflow"),
        ("txt2img", "/api/prompt", "custom_workflow"),
        ("txt2img", "/history/an-id", "GET /api/jobs"),
        ("txt2img", "/view", "GET /api/images/<name>"),
        ("txt2img", "/object_info/KSampler", "GET /api/options"),
        ("txt2img", "/v2beta/stable-image/generate/core", "POST /api/txt2img"),
        ("txt2img", "/healthz", "GET /health"),
        ("txt2img", "/api//txt2img", "POST /api/txt2img, with single slashes"),
        ("txt2img", "/API/jobs", "GET /api/jobs, in lower case"),
        ("txt2img", "/api/v1/txt2img", "did you mean POST /api/txt2img?"),
        ("txt2img", "/api/predictions", "POST /api/txt2img"),
        ("txt2img", "/gradio_api/call/predict", "POST /api/txt2img"),
        ("txt2img", "/API/GenerateText2Image", "POST /api/txt2img"),
        ("txt2img", "/api/inpaint", "POST /api/img2img"),
        ("txt2img", "/api/cancel", "POST /api/txt2img/interrupt"),
        ("txt2img", "/api/samplers", "GET /api/options"),
        ("txt2img", "/api/loras", "GET /api/lora-models on port 5002"),
        ("txt2img", "/openapi.yaml", "GET /openapi.json"),
        ("txt2img", "/api", "GET /docs"),
        ("txt2img", "/api/", "GET /docs"),
        # No similar path.
        ("txt2img", "/user", NO_MATCH),
        ("txt2img", "/api/login", NO_MATCH),
        ("txt2img", "/metrics", NO_MATCH),
        ("txt2img", "/wp-login.php", NO_MATCH),
        ("txt2img", "/" + "x" * 5000, NO_MATCH),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_wrong_path_gets_a_hint(clients: Clients, service: str, path: str, hint: str, method: str) -> None:
    refused = clients[service].open(path, method=method)
    assert (refused.status_code, refused.json["error"]["code"]) == (404, "not_found")
    assert hint in refused.json["error"]["hint"], refused.json
    assert len(refused.text) < 600


def test_services_of_every_route_are_known(clients: Clients) -> None:
    routes = {name: {route.path for route in list_routes(client.application)} for name, client in clients.items()}
    for path in set().union(*routes.values()):
        services = {name for name in routes if path in routes[name]}
        assert services == set(services_of(path)), path


def test_every_path_of_other_programs_leads_to_a_route() -> None:
    for path, route in FOREIGN_PATHS.items():
        assert tuple(route.split(" ")) in ROUTES, path
        assert route in hint_for_path(path, "txt2img", Settings())


@pytest.mark.parametrize(
    ("method", "path", "allowed", "hint"),
    [
        ("GET", "/api/txt2img", "OPTIONS, POST", "curl -sS http://localhost/api/txt2img -H 'content-type"),
        ("PUT", "/api/img2img", "OPTIONS, POST", "docs"),
        ("GET", "/api/png-info", "OPTIONS, POST", "docs"),
        ("GET", "/api/txt2img/interrupt", "OPTIONS, POST", "-d '{}'"),
        ("POST", "/api/jobs", "GET, HEAD, OPTIONS", "use GET"),
        ("PATCH", "/api/jobs/an-id", "DELETE, GET, HEAD, OPTIONS", "use GET or DELETE"),
        ("POST", "/health", "GET, HEAD, OPTIONS", "use GET"),
    ],
)
def test_a_wrong_method_gets_a_hint(clients: Clients, method: str, path: str, allowed: str, hint: str) -> None:
    refused = clients["txt2img"].open(path, method=method)
    assert refused.status_code == 405
    assert refused.headers["Allow"] == allowed
    assert refused.json is not None
    assert hint in refused.json["error"]["hint"], refused.json


def test_the_call_in_the_hint_works(clients: Clients) -> None:
    reply = clients["txt2img"].get("/api/txt2img").json
    assert reply is not None
    body = reply["error"]["hint"].partition("-d '")[2].removesuffix("'")
    # Without an engine, a valid request is a 503.
    assert clients["txt2img"].post("/api/txt2img", data=body, content_type="application/json").status_code == 503


@pytest.mark.parametrize(
    ("service", "path", "name", "hint"),
    [
        ("txt2img", "/api/jobs", "status", "did you mean state?"),
        ("txt2img", "/api/jobs", "State", "did you mean state?"),
        ("txt2img", "/api/jobs", "page", "did you mean before?"),
        ("txt2img", "/api/jobs", "per_page", "did you mean limit?"),
        ("txt2img", "/api/jobs", "type", "did you mean kind?"),
        ("txt2img", "/api/jobs", "model", "use state, kind, limit, before"),
        ("control", "/api/runs", "offset", "did you mean before?"),
        ("control", "/api/fetch-prompt", "kind", "use type, seed"),
        ("control", "/api/fetch-prompt", "Type", "did you mean type?"),
    ],
)
def test_unknown_query_parameters_are_refused(clients: Clients, service: str, path: str, name: str, hint: str) -> None:
    refused = clients[service].get(path, query_string={name: "completed"})
    assert refused.status_code == 422
    assert (refused.json["error"]["field"], refused.json["error"]["hint"]) == (name, hint)


def test_cache_busting_parameters_are_ignored(clients: Clients) -> None:
    for name in ("_", "t", "v", "nocache", "signature"):
        assert clients["txt2img"].get("/api/jobs", query_string={name: "1"}).status_code == 200


@pytest.mark.parametrize("path", ["/api/engine/free", "/api/jobs/an-id/retry"])
def test_an_operation_without_fields_refuses_fields(clients: Clients, path: str) -> None:
    refused = clients["control"].post(path, json={"seed": 5})
    assert (refused.status_code, refused.json["error"]["hint"]) == (422, "send no fields")


@pytest.mark.parametrize("sent", ["file", "name", "imageName"])
def test_synonyms_of_filename_get_a_hint(clients: Clients, sent: str) -> None:
    refused = clients["control"].post("/api/send-to-img2img", json={sent: "x.png"})
    assert refused.status_code == 422
    assert f"{sent} (did you mean filename?)" in refused.json["error"]["hint"]
