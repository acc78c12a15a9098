"""The OpenAPI documents of the services are valid, complete and generated from the request models; and their page."""

import importlib
import json
import re
from collections.abc import Callable, Iterator
from inspect import isfunction
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
from flask import Flask
from openapi_spec_validator import validate

from shared.engine.manager import EngineManager
from shared.schema.body import Img2ImgBody, Txt2ImgBody
from shared.settings import PROJECT_DIR, Settings
from shared.web import routes
from shared.web.app import control_app, img2img_app, txt2img_app
from shared.web.backend import Backend
from shared.web.openapi.document import openapi_document
from shared.web.openapi.operation import FORM, HEADERS, JSON, Route, list_routes
from shared.web.route_table import routes_by_service
from shared.web.routes import docs
from shared.web.routes.docs import PAGE
from shared.web.routes.models import ModelUploads

PAGE_FILES = sorted(path for path in PAGE.iterdir() if path.is_file())

ROUTES = {(route.method, route.path): route for routes in routes_by_service().values() for route in routes}
SERVICES: dict[str, Callable[[Backend], Flask]] = {
    "txt2img": txt2img_app,
    "img2img": img2img_app,
    "control": lambda backend: control_app(
        backend,
        EngineManager(backend.engine, None, list, backend.jobs.store.count_unfinished),
        ModelUploads(backend.settings, backend.catalog),
    ),
}
MakeBackend = Callable[..., Backend]


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[MakeBackend]:
    """Create backends without an engine: nothing listens on port 9 of this machine."""
    backends: list[Backend] = []

    def make(**settings: Any) -> Backend:
        backends.append(Backend(Settings(engine_url="http://127.0.0.1:9", data_dir=tmp_path, **settings)))
        return backends[-1]

    yield make
    for backend in backends:
        backend.stop()


def document(app: Flask, **headers: str) -> dict[str, Any]:
    answer = app.test_client().get("/openapi.json", headers=headers)
    assert answer.status_code == 200
    reply: dict[str, Any] = answer.json
    return reply


@pytest.mark.slow
@pytest.mark.parametrize("key", [None, "correct horse battery"])
@pytest.mark.parametrize("service", SERVICES)
def test_the_document_is_valid_openapi(backend: MakeBackend, service: str, key: str | None) -> None:
    spec = document(SERVICES[service](backend(api_key=key)), **({"X-API-Key": key} if key else {}))
    validate(spec)
    assert spec["openapi"].startswith("3.1.")
    assert spec["servers"] == [{"url": "http://localhost"}]
    assert ("securitySchemes" in spec["components"]) is (key is not None)


@pytest.mark.parametrize("service", SERVICES)
def test_every_view_has_an_operation(backend: MakeBackend, service: str) -> None:
    routes = list_routes(SERVICES[service](backend()))
    assert [(route.method, route.path) for route in routes if route.operation is None] == []
    assert len(routes) == len({(route.method, route.path) for route in routes}) > 20
    # The route table that hints use matches the service.
    assert {route[:2] for route in routes} == {route[:2] for route in routes_by_service()[service]}


def test_every_operation_belongs_to_a_view_of_a_service(backend: MakeBackend) -> None:
    instance = backend()
    served = {id(view) for build in SERVICES.values() for view in build(instance).view_functions.values()}
    modules = [importlib.import_module(f"{routes.__name__}.{module.name}") for module in iter_modules(routes.__path__)]
    functions = [value for module in modules for value in vars(module).values() if isfunction(value)]
    described = [view for view in functions if hasattr(view, "operation")]
    assert len(described) > 40
    assert [view.__name__ for view in described if id(view) not in served] == []


def test_a_view_without_an_operation_is_listed() -> None:
    app = Flask("test", static_folder=None)
    app.add_url_rule("/bare", view_func=str)
    assert list_routes(app) == [Route("GET", "/bare", None)]


def test_every_route_in_the_docs_exists() -> None:
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for path in sorted((PROJECT_DIR / "docs").glob("*.md"))
        # That file documents ComfyUI's routes.
        if path.name != "comfyui.md"
    )
    named = set(re.findall(r"\b(GET|POST|DELETE) (/[\w/<>.-]+)", text))
    assert len(named) > 30
    existing = {(method, re.sub(r"<\w+>", "<>", path)) for method, path in ROUTES}
    assert {(method, re.sub(r"<\w+>", "<>", path)) for method, path in named} - existing == set()


def test_schemas_come_from_the_request_models(backend: MakeBackend) -> None:
    spec = document(txt2img_app(backend()))
    schemas = spec["components"]["schemas"]
    for model in (Txt2ImgBody, Img2ImgBody):
        assert schemas[model.__name__]["properties"].keys() == model.model_fields.keys()
    content = spec["paths"]["/api/txt2img"]["post"]["requestBody"]["content"]
    assert content[JSON]["schema"] == {"$ref": "#/components/schemas/Txt2ImgBody"}
    assert schemas["Txt2ImgBody"]["properties"]["steps"]["anyOf"][0]["maximum"] == 1000
    form = spec["paths"]["/api/img2img"]["post"]["requestBody"]["content"][FORM]["schema"]["$ref"].rpartition("/")[2]
    assert schemas[form]["required"] == ["prompt"]


def test_models_of_requests_and_replies_have_different_names(backend: MakeBackend) -> None:
    described = document(SERVICES["control"](backend()))
    body = described["paths"]["/api/engine/restart"]["post"]["requestBody"]["content"][JSON]["schema"]["$ref"]
    last = described["components"]["schemas"]["Engine"]["properties"]["last_restart"]["anyOf"][0]["$ref"]
    schemas = {ref: described["components"]["schemas"][ref.rpartition("/")[2]]["properties"] for ref in (body, last)}
    assert (set(schemas[body]), set(schemas[last])) == ({"when_idle"}, {"at", "reason"})


def test_generation_lists_every_reply(backend: MakeBackend) -> None:
    spec = document(txt2img_app(backend()))["paths"]["/api/txt2img"]["post"]["responses"]
    assert {"200", "202", "406", "409", "413", "415", "422", "429", "503", "504", "507"} <= spec.keys()
    assert spec["200"]["content"].keys() == {JSON, "image/png", "image/webp", "image/jpeg", "text/event-stream"}
    assert {"X-Job-Id", "X-Seed", "X-Warnings"} <= spec["200"]["headers"].keys()
    assert "Location" in spec["202"]["headers"]
    assert "Retry-After" in spec["429"]["headers"]
    assert "`queue_full`" in spec["429"]["description"]


@pytest.mark.parametrize("route", ROUTES.values(), ids=lambda route: f"{route.method} {route.path}")
def test_every_operation_is_complete(route: Route) -> None:
    operation = route.operation
    assert operation is not None
    assert operation.summary
    in_path = {parameter.name for parameter in operation.parameters if parameter.place == "path"}
    assert {f"<{name}>" for name in in_path} == {part for part in route.path.split("/") if part.startswith("<")}
    assert operation.examples
    names = {parameter.name for parameter in operation.parameters}
    for example in operation.examples:
        assert example.path.keys() == in_path
        assert {*example.path, *example.query, *example.headers} <= names
        assert (example.body is not None) is (operation.body is not None)
        if operation.body is not None:
            assert (
                example.body.keys() <= operation.body.json.model_fields.keys()
                or operation.body.json.model_config["extra"] == "allow"
            )
    for reply in operation.replies:
        assert set(reply.headers) <= HEADERS.keys()


def test_the_server_url_follows_the_setting(backend: MakeBackend) -> None:
    app = txt2img_app(backend(public_url="https://studio.example/dream/"))
    assert document(app)["servers"] == [{"url": "https://studio.example/dream"}]


def test_a_route_without_an_operation_is_left_out(backend: MakeBackend) -> None:
    app = txt2img_app(backend())
    app.add_url_rule("/more", view_func=str)
    assert "/more" not in openapi_document("txt2img", list_routes(app), "http://x", keyed=False)["paths"]


def test_the_document_needs_the_key_and_the_page_does_not(backend: MakeBackend) -> None:
    client = txt2img_app(backend(api_key="correct horse battery")).test_client()
    assert client.get("/openapi.json").status_code == 401
    page = client.get("/docs")
    assert page.status_code == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    spec = client.get("/openapi.json", headers={"X-API-Key": "correct horse battery"}).json
    assert spec is not None
    assert spec["paths"]["/health"]["get"]["security"] == []
    assert spec["paths"]["/api/jobs"]["get"]["security"] == [{"key": []}, {"bearer": []}]


@pytest.mark.parametrize("file", PAGE_FILES, ids=lambda path: path.name)
def test_the_page_loads_nothing_from_other_hosts(file: Path) -> None:
    page = file.read_text(encoding="utf-8")
    assert "http://" not in page
    assert "https://" not in page
    # Text in the document must never become markup.
    assert not re.search("innerHTML|outerHTML|insertAdjacentHTML|document.write|eval", page)
    assert max(len(line) for line in page.splitlines()) <= 120
    named = re.findall(r'from "\./([\w.]+)"', page) + re.findall(r'(?:href|src)="docs/([\w.]+)"', page)
    assert {PAGE / name for name in named} <= set(PAGE_FILES)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("key", [None, "correct horse battery"])
def test_the_files_of_the_page_need_no_key(backend: MakeBackend, service: str, key: str | None) -> None:
    client = SERVICES[service](backend(api_key=key)).test_client()
    for file in PAGE_FILES:
        answer = client.get(f"/docs/{file.name}")
        assert (answer.status_code, answer.get_data()) == (200, file.read_bytes())
        assert answer.mimetype == {"js": "text/javascript", "css": "text/css", "html": "text/html"}[file.suffix[1:]]
        # Browsers load a newer page at once, and an unchanged page is not sent again.
        assert answer.headers["Cache-Control"] == "no-cache"
        again = client.get(f"/docs/{file.name}", headers={"If-None-Match": answer.headers["ETag"]})
        assert again.status_code == 304


@pytest.mark.parametrize(
    "name", ["more.js", "operation.py", "..%2foperation.py", "..%5coperation.py", "%00.js", ".js", "page"]
)
def test_other_files_are_not_served(backend: MakeBackend, name: str) -> None:
    client = txt2img_app(backend(api_key="correct horse battery")).test_client()
    assert client.get(f"/docs/{name}").status_code == 404


@pytest.mark.parametrize("path", ["/docs/../api/jobs", "/docs//api/jobs", "/docsx", "/docs/%2e%2e/api/jobs"])
def test_paths_near_the_page_need_the_key(backend: MakeBackend, path: str) -> None:
    client = txt2img_app(backend(api_key="correct horse battery")).test_client()
    answer = client.get(path)
    assert answer.status_code in (401, 404)
    assert b'jobs":' not in answer.get_data()


def test_the_document_has_the_limits_of_bodies(backend: MakeBackend) -> None:
    spec = document(SERVICES["control"](backend(max_body_mb=3, max_model_mb=70)))["paths"]
    assert spec["/api/png-info"]["post"]["requestBody"]["x-max-bytes"] == 3 * 1024 * 1024
    assert spec["/api/upload-model"]["post"]["requestBody"]["x-max-bytes"] == 70 * 1024 * 1024


@pytest.mark.parametrize("service", SERVICES)
def test_every_picture_has_its_media_type(backend: MakeBackend, service: str) -> None:
    """The page shows a file input for strings that may be a data URL, and for files in forms."""
    marked = []
    for name, schema in document(SERVICES[service](backend()))["components"]["schemas"].items():
        for field, spec in schema.get("properties", {}).items():
            kind = next((option for option in spec.get("anyOf", [spec]) if option.get("type") != "null"), {})
            picture = kind.get("contentMediaType") == "image/*"
            if picture:
                marked.append(f"{name}.{field}")
            elif kind.get("format") == "binary":
                assert name == "ModelUploadForm", (name, field)
            elif kind.get("type") == "string" and name.endswith(("Body", "Picture")):
                assert "data URL" not in spec.get("description", ""), (name, field)
                assert field not in ("mask", "image", "input_image"), (name, field)
    minimum = {"txt2img": 9, "img2img": 9, "control": 7}
    assert len(marked) >= minimum[service], marked


def test_the_document_is_json(backend: MakeBackend) -> None:
    spec = document(txt2img_app(backend()))
    assert json.loads(json.dumps(spec)) == spec


def test_the_document_is_generated_once(backend: MakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def record_call(*spec: Any, **options: Any) -> dict[str, Any]:
        calls.append(spec)
        return openapi_document(*spec, **options)

    monkeypatch.setattr(docs, "openapi_document", record_call)
    app = SERVICES["txt2img"](backend())
    first, second = document(app), document(app, Host="127.0.0.1:5001")
    assert (first.pop("servers"), second.pop("servers")) == (
        [{"url": "http://localhost"}],
        [{"url": "http://127.0.0.1:5001"}],
    )
    assert first == second
    assert len(calls) == 1
