"""Every example of the OpenAPI document, sent to a service that has its route."""

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from shared.schema.replies import ErrorReply
from shared.web.openapi.operation import JSON, Example, Operation, Route
from tests.safetensors_factory import write_safetensors
from tests.stack import TIMEOUT, TestStack, read_stream
from tests.test_openapi import ROUTES

SMALL = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}
# The first example of an operation is sent as it is; others generate smaller pictures to save time.
SHRUNK = {"width": 64, "height": 64, "steps": 2}
CASES = [
    pytest.param(route, example, id=f"{route.method} {route.path}: {example.summary}")
    for route in ROUTES.values()
    if route.operation is not None
    for example in route.operation.examples
]
PICTURE = "20261122-143210-3f2a9c1e0b7d_00001_.png"


@pytest.fixture
def job(stack: TestStack) -> dict[str, Any]:
    """A finished job, for the ids and names in examples."""
    return stack.draw(**SMALL)


def workflow_file(stack: TestStack, graph: dict[str, Any]) -> Path:
    folder = stack.data_dir / "workflows"
    folder.mkdir(exist_ok=True)
    path = folder / "openapi-example.json"
    path.write_text(json.dumps(graph), encoding="utf-8")
    return path


def service_of(stack: TestStack, route: Route) -> str:
    """The txt2img service, unless only the control service has the route."""
    spec = requests.get(f"{stack.txt2img}/openapi.json", timeout=TIMEOUT).json()["paths"]
    return stack.txt2img if route.path.replace("<", "{").replace(">", "}") in spec else stack.control


def address(route: Route, example: Example, path_values: dict[str, str]) -> str:
    path = route.path
    for name in example.path:
        path = path.replace(f"<{name}>", path_values[name])
    return path


def body(operation: Operation, example: Example, picture: str, tmp_path: Path) -> dict[str, Any]:
    """The body of an example, with real files, and the name of a real picture."""
    values = {name: picture if value == PICTURE else value for name, value in (example.body or {}).items()}
    if "prompt" in values and operation.errors and example is not operation.examples[0]:
        values |= SHRUNK
    if not example.form:
        return {"json": values} if values else {}
    assert operation.body is not None
    fields = (operation.body.form or operation.body.json).model_json_schema()["properties"]
    files = {name for name in values if fields[name].get("format") == "binary"}
    model = write_safetensors(tmp_path / "model", {"lora_unet_nothing.lora_up.weight": ("F16", (1,))}).read_bytes()
    return {"files": {name: (value, model) if name in files else (None, str(value)) for name, value in values.items()}}


def check(operation: Operation, response: requests.Response) -> None:
    """The response matches the operation in status, type, headers and schema."""
    if response.status_code >= 400:
        code = ErrorReply.model_validate_json(response.content).error.code
        assert (code, response.status_code) in [(error.code, error.status) for error in operation.errors]
        return
    declared = [reply for reply in operation.replies if reply.status == response.status_code]
    assert declared, (response.status_code, response.text)
    kind = response.headers.get("Content-Type", "").partition(";")[0]
    if kind == JSON and declared[0].model is not None:
        read = declared[0].model.model_validate_json(response.content)
        # The model dropped nothing, so it declares every field.
        assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == response.json()
        return
    assert kind in declared[0].types
    if kind == "text/event-stream":
        assert [event.name for event in read_stream(response)][-1] == "completed"
    else:
        assert response.content


@pytest.mark.parametrize(("route", "example"), CASES)
def test_the_example_works(
    stack: TestStack, job: dict[str, Any], route: Route, example: Example, tmp_path: Path
) -> None:
    operation = route.operation
    assert operation is not None
    path_values = {**example.path, "job_id": job["job_id"], "run_id": job["run_id"]}
    if route.path.endswith("/download"):
        assert requests.post(f"{stack.control}/api/report-bundle", timeout=TIMEOUT).ok
    picture = job["comfy_response"]["generated_images"][0]["filename"]
    if "/images/" in route.path:
        path_values["name"] = picture
    file = workflow_file(stack, job["workflow"]) if route.path.startswith("/api/workflows") else None
    if file is not None:
        path_values["name"] = file.stem
    try:
        response = requests.request(
            route.method,
            service_of(stack, route) + address(route, example, path_values),
            params=example.query,
            headers=example.headers,
            stream=True,
            timeout=TIMEOUT,
            **body(operation, example, picture, tmp_path),
        )
        assert response.status_code == example.status, response.text
        check(operation, response)
        if "Location" in response.headers:
            stack.wait_for_job(response.json()["job_id"])
    finally:
        clean_up(stack, route, file)


def clean_up(stack: TestStack, route: Route, file: Path | None) -> None:
    """Remove what an example has created, for the tests that follow."""
    if file is not None:
        file.unlink()
    (stack.data_dir / "models" / "loras" / "example.safetensors").unlink(missing_ok=True)
    if route.path == "/api/settings/paths":
        assert requests.post(f"{stack.control}/api/settings/paths", json={}, timeout=TIMEOUT).ok
    if route.path == "/api/engine/restart":
        stack.wait_for_job(stack.submit(**SMALL))
        stack.wait_for_engine(lambda state: state["state"] == "ready" and not state["restart_pending"])


def test_an_error_matches_its_schema(stack: TestStack) -> None:
    response = requests.post(f"{stack.txt2img}/api/txt2img", json={**SMALL, "steps": 0}, timeout=TIMEOUT)
    assert response.status_code == 422
    assert ErrorReply.model_validate_json(response.content).error.field == "steps"


def test_jobs_in_every_state_match_their_schemas(stack: TestStack) -> None:
    operations = {key: operation for key, route in ROUTES.items() if (operation := route.operation) is not None}
    long = stack.submit(**{**SMALL, "steps": 400})
    queued = stack.submit(**SMALL)
    for job_id in (long, queued):
        one = requests.get(f"{stack.txt2img}/api/jobs/{job_id}", timeout=TIMEOUT)
        check(operations["GET", "/api/jobs/<job_id>"], one)
    cancelled = requests.delete(f"{stack.txt2img}/api/jobs/{long}", timeout=TIMEOUT)
    check(operations["DELETE", "/api/jobs/<job_id>"], cancelled)
    check(operations["GET", "/api/jobs"], requests.get(f"{stack.txt2img}/api/jobs", timeout=TIMEOUT))
    stack.wait_for_job(queued)


def test_each_service_has_the_document_and_the_page(stack: TestStack) -> None:
    for url in (stack.txt2img, stack.img2img, stack.control):
        spec = requests.get(f"{url}/openapi.json", timeout=TIMEOUT).json()
        assert spec["servers"] == [{"url": url}]
        assert "<!doctype html>" in requests.get(f"{url}/docs", timeout=TIMEOUT).text
        services = requests.get(f"{url}/api/services", timeout=TIMEOUT).json()["services"]
        assert {service["service"] for service in services if service["running"]} == {"txt2img", "img2img", "control"}
        for service in services:
            assert service["running"]
            assert requests.get(service["docs"], timeout=TIMEOUT).ok
