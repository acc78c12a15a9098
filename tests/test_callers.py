"""Callers: Interrupt cancels only the caller's own jobs, and none if the caller is unclear."""

import uuid
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from shared.jobs.job import JobSpec, NewJob, State
from shared.settings import Settings
from shared.web.app import txt2img_app
from shared.web.backend import Backend
from shared.web.callers import Caller, caller_of, is_local
from shared.web.proxies import ProxyMiddleware
from tests.job_factory import finish

PAGE, DOCS = {"Origin": "http://localhost:8080"}, {"Origin": "http://localhost"}
PROXY, ANN, BOB = "10.0.0.1", {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}
FORM = "multipart/form-data; boundary=b"


def received_request(settings: Settings, headers: dict[str, str], peer: str = PROXY) -> Request:
    """Return a request as the application receives it."""
    headers = {"User-Agent": "a browser", **headers}
    environ = EnvironBuilder(headers=headers, environ_overrides={"REMOTE_ADDR": peer}).get_environ()
    ProxyMiddleware(lambda *_: [], settings)(environ, None)
    return Request(environ)


class Service:
    """The txt2img service without an engine, so that jobs wait."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.backend = Backend(Settings(engine_url="http://127.0.0.1:9", data_dir=folder, **settings))
        self.client: FlaskClient = txt2img_app(self.backend).test_client()

    def job_of(self, headers: dict[str, str], service: str = "txt2img", peer: str = PROXY) -> str:
        """Submit a job with such a request, and return its id."""
        mark = caller_of(received_request(self.backend.settings, headers, peer)).mark
        job = NewJob(str(uuid.uuid4()), service, mark, service, JobSpec())
        return self.backend.jobs.store.add(job, "me", 100)[0].id

    def interrupt(self, headers: dict[str, str], peer: str = PROXY, **sent: Any) -> Any:
        """Send an Interrupt and return the response."""
        sent, headers = sent or {"json": {}}, {"User-Agent": "a browser", **headers}
        return self.client.post(
            "/api/txt2img/interrupt", headers=headers, environ_overrides={"REMOTE_ADDR": peer}, **sent
        )

    def state(self, job_id: str) -> State | None:
        return self.backend.jobs.store.state(job_id)


@pytest.fixture
def service(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    created = Service(tmp_path, **getattr(request, "param", {}))
    yield created
    created.backend.stop()


TRUSTED = pytest.mark.parametrize("service", [{"trusted_proxies": "10.0.0.0/24"}], indirect=True)
UNTRUSTED = pytest.mark.parametrize("service", [{}], indirect=True)


@TRUSTED
def test_two_clients_behind_a_trusted_proxy_are_two_callers(service: Service) -> None:
    anns, bobs = service.job_of({**PAGE, **ANN}), service.job_of({**PAGE, **BOB})
    reply = service.interrupt({**PAGE, **ANN}).json
    assert (reply["cancelled"], reply["job_id"]) == (True, anns)
    assert service.state(bobs) is State.QUEUED
    reply = service.interrupt({**PAGE, **ANN}).json
    assert reply["cancelled"] is False
    assert "other clients have 1: send a job_id" in reply["message"]


@UNTRUSTED
def test_behind_an_unknown_proxy_the_caller_is_unclear(service: Service) -> None:
    anns = service.job_of({**PAGE, **ANN})
    refused = service.interrupt({**PAGE, **BOB})
    assert refused.status_code == 409
    assert refused.json["error"]["code"] == "caller_unclear"
    assert refused.json["error"]["job_ids"] == [anns]
    assert "DREAM_LAYER_TRUSTED_PROXIES" in refused.json["error"]["hint"]
    assert service.state(anns) is State.QUEUED
    assert service.interrupt({**PAGE, **BOB}, json={"job_id": anns}).json["cancelled"] is True


@UNTRUSTED
def test_two_browsers_at_one_address_are_two_callers(service: Service) -> None:
    job = service.job_of({**PAGE, "User-Agent": "one"})
    assert service.interrupt({**PAGE, "User-Agent": "other"}).status_code == 409
    assert service.interrupt({**PAGE, "User-Agent": "one"}).json["job_id"] == job


@UNTRUSTED
@pytest.mark.parametrize(
    "other",
    [DOCS, {}, {**PAGE, "X-API-Key": "another's"}, {**PAGE, "Authorization": "Bearer another's"}],
    ids=["docs", "script", "key", "bearer"],
)
def test_another_page_or_key_is_another_caller(service: Service, other: dict[str, str]) -> None:
    job = service.job_of(PAGE)
    assert service.interrupt(other).json["cancelled"] is False
    assert service.interrupt(PAGE, peer="10.0.0.2").json["cancelled"] is False
    assert service.state(job) is State.QUEUED
    assert service.interrupt(PAGE).json["cancelled"] is True


@UNTRUSTED
def test_interrupt_cancels_the_callers_newest_job(service: Service) -> None:
    older, newer = service.job_of(PAGE), service.job_of(PAGE)
    service.job_of(PAGE, "img2img")
    assert [service.interrupt(PAGE).json.get("job_id") for _ in range(3)] == [newer, older, None]


@UNTRUSTED
def test_a_retried_job_belongs_to_the_caller_of_the_retry(service: Service) -> None:
    finished = finish(service.backend)
    retried = service.client.post(
        f"/api/jobs/{finished.id}/retry",
        headers={"User-Agent": "a browser", **PAGE},
        environ_overrides={"REMOTE_ADDR": PROXY},
    )
    assert retried.status_code == 202
    assert service.interrupt(DOCS).json["cancelled"] is False
    assert service.interrupt(PAGE).json["job_id"] == retried.json["job_id"]


@UNTRUSTED
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"content_type": FORM, "data": b'--b\r\ncontent-disposition: form-data; name="j'}, 400),
        ({"content_type": "multipart/form-data", "data": b"x"}, 400),
        ({"content_type": FORM, "data": b"job_id=1"}, 400),
        ({"content_type": FORM, "data": b"--b\r\n\r\n1\r\n--b--\r\n"}, 400),
        (
            {
                "content_type": FORM,
                "data": b"--b\r\ncontent-disposition: form-data\r\n\r\n1\r\n--b--\r\n",
            },
            400,
        ),
        ({"content_type": "application/x-www-form-urlencoded", "data": b"x"}, 400),
        ({"content_type": "application/x-www-form-urlencoded", "data": b"job_id=%ff"}, 400),
        ({"content_type": "application/x-www-form-urlencoded", "data": b"&&"}, 400),
        ({"content_type": "application/json", "data": b'{"job_id": "\\ud800"}'}, 404),
        ({"content_type": "application/json", "data": b'{"job_id": "\\u0000"}'}, 404),
        ({"data": {"job_id": (BytesIO(b"x"), "job.txt")}}, 422),
        ({"data": {"job_id": (BytesIO(b"x"), "")}}, 422),
        ({"data": {"other": (BytesIO(b""), "")}}, 422),
        (
            {
                "content_type": FORM,
                "data": b"--b\r\ncontent-disposition: form-data; name=job_id; filename*=utf-8''%ff\r\n\r\n1\r\n--b--",
            },
            422,
        ),
        ({"content_type": "application/json", "data": b" "}, 400),
        ({"content_type": "application/json", "data": b"{"}, 400),
        ({"content_type": "application/json", "data": b"null"}, 400),
        ({"content_type": "application/octet-stream", "data": b"{}"}, 415),
        ({"json": {"jobid": "x"}}, 422),
        ({"json": {"job_id": 7}}, 422),
        ({"json": {"job_id": ""}}, 404),
        ({"query_string": "jobid=x"}, 422),
        ({"query_string": "job_id=x"}, 404),
    ],
)
def test_an_invalid_body_cancels_nothing(service: Service, sent: dict[str, Any], status: int) -> None:
    job = service.job_of(PAGE)
    refused = service.interrupt(PAGE, **sent)
    assert (refused.status_code, service.state(job)) == (status, State.QUEUED), refused.text


@UNTRUSTED
def test_a_misspelt_field_is_reported(service: Service) -> None:
    assert service.interrupt(PAGE, json={"jobId": "x"}).json["error"]["hint"] == "did you mean job_id?"


@pytest.mark.parametrize(
    ("peer", "headers", "local"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("127.0.0.1", ANN, False),
        ("127.0.0.1", {"Forwarded": "for=192.0.2.1"}, False),
        ("192.0.2.1", {}, False),
    ],
)
def test_a_caller_is_local_only_without_a_proxy(peer: str, headers: dict[str, str], local: bool) -> None:
    assert is_local(received_request(Settings(), headers, peer)) is local
    if headers is ANN:
        assert is_local(received_request(Settings(trusted_proxies="127.0.0.1"), headers, peer)) is False


def test_a_mark_fits_its_column_and_contains_no_address() -> None:
    caller = caller_of(received_request(Settings(), {**PAGE, **ANN, "X-API-Key": "a secret"}))
    assert len(caller.mark) <= 64
    assert not {PROXY, "192.0.2.1", "a secret"} & set(caller.mark.split(":"))
    assert Caller("a", "b").mark == "a:b"
