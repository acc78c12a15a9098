"""Services behind a reverse proxy: headers of trusted proxies apply, and all URLs in a reply work for the browser."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.settings import Settings
from shared.web.app import txt2img_app
from shared.web.backend import Backend
from shared.web.proxies import nearest_untrusted, parse_address
from tests.job_factory import finish

Service = tuple[FlaskClient, Backend]
PROXY = {"REMOTE_ADDR": "10.0.0.1"}
FORWARDED = {
    "X-Forwarded-For": "192.0.2.1",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "dream.example",
    "X-Forwarded-Prefix": "/dream/",
}
NETWORKS = Settings(trusted_proxies="10.0.0.0/24, ::1").trusted_proxies


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """A function that creates the txt2img service without an engine."""
    backends: list[Backend] = []

    def make(**settings: Any) -> Service:
        backends.append(Backend(Settings(engine_url="http://127.0.0.1:9", data_dir=tmp_path, **settings)))
        return txt2img_app(backends[-1]).test_client(), backends[-1]

    yield make
    for backend in backends:
        backend.stop()


def addresses(client: FlaskClient, backend: Backend, headers: dict[str, str]) -> dict[str, str]:
    """Return one URL of each kind that replies contain."""
    row = finish(backend, pictures=1)

    def send(path: str, method: str = "GET", **more: str) -> Any:
        return client.open(path, method=method, headers={**headers, **more}, environ_overrides=PROXY)

    job, retried = send(f"/api/jobs/{row.id}").json, send(f"/api/jobs/{row.id}/retry", "POST")
    stream = send(f"/api/jobs/{row.id}/events").text
    reply = {
        "job": job["url"],
        "events": job["events_url"],
        "picture": job["result"]["comfy_response"]["generated_images"][0]["url"],
        "list": send("/api/jobs?state=completed").json["jobs"][0]["images"][0],
        "Location": retried.headers["Location"],
        "accepted": retried.json["events_url"],
        "openapi": send("/openapi.json").json["servers"][0]["url"],
        "stream": stream.partition('"url": "')[2].partition('"')[0],
    }
    assert all(reply.values()), reply
    return reply


def test_urls_follow_the_headers_of_a_trusted_proxy(make: Callable[..., Service]) -> None:
    for name, address in addresses(*make(trusted_proxies="10.0.0.1"), FORWARDED).items():
        assert address.startswith("https://dream.example/dream"), (name, address)


def test_urls_ignore_the_headers_of_an_untrusted_peer(make: Callable[..., Service]) -> None:
    for name, address in addresses(*make(trusted_proxies="10.0.0.2"), FORWARDED).items():
        assert address.startswith("http://localhost/") or name == "openapi", (name, address)


def test_the_public_url_overrides_the_headers_of_a_proxy(make: Callable[..., Service]) -> None:
    settings = {"public_url": "https://studio.example/a/b/", "trusted_proxies": "10.0.0.1"}
    for name, address in addresses(*make(**settings), FORWARDED).items():
        assert address.startswith("https://studio.example/a/b"), (name, address)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Proto": "javascript", "X-Forwarded-Host": "a b", "X-Forwarded-Prefix": "//evil.example"},
        {"X-Forwarded-Host": "evil.example/x?", "X-Forwarded-Prefix": "/a/../b?"},
        {"X-Forwarded-For": "unknown", "X-Forwarded-Prefix": "dream"},
    ],
)
def test_invalid_forwarded_headers_are_ignored(make: Callable[..., Service], headers: dict[str, str]) -> None:
    links = addresses(*make(trusted_proxies="10.0.0.1"), headers)
    assert links["job"].startswith("http://localhost/api/jobs/")


def test_a_forwarded_port_is_part_of_the_url(make: Callable[..., Service]) -> None:
    links = addresses(*make(trusted_proxies="10.0.0.1"), {**FORWARDED, "X-Forwarded-Port": "8443"})
    assert links["job"].startswith("https://dream.example:8443/dream/api/jobs/")
    usual = addresses(*make(trusted_proxies="10.0.0.1"), {**FORWARDED, "X-Forwarded-Port": "443"})
    assert usual["job"].startswith("https://dream.example/dream/api/jobs/")


def test_a_page_at_the_proxys_address_has_our_own_origin(make: Callable[..., Service]) -> None:
    client, _ = make(trusted_proxies="10.0.0.1")
    own = {**FORWARDED, "Origin": "https://dream.example"}
    assert client.get("/health", headers=own, environ_overrides=PROXY).status_code == 200
    assert client.get("/health", headers=own, environ_overrides={"REMOTE_ADDR": "10.0.0.9"}).status_code == 403
    foreign = {**FORWARDED, "Origin": "https://evil.example"}
    assert client.get("/health", headers=foreign, environ_overrides=PROXY).status_code == 403


def test_a_rebound_name_is_refused_despite_forwarded_headers(make: Callable[..., Service]) -> None:
    client, _ = make(trusted_proxies="127.0.0.1")
    rebound = {"Host": "evil.example:5001", "X-Forwarded-Host": "localhost", "X-Forwarded-For": "127.0.0.1"}
    assert client.get("/health", headers=rebound).status_code == 403


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.9", ["198.51.100.1"], "192.0.2.9"),
        ("10.0.0.1", ["198.51.100.1", "192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["192.0.2.1", "10.0.0.7"], "192.0.2.1"),
        ("10.0.0.1", ["10.0.0.8", "10.0.0.7"], "10.0.0.8"),
        ("10.0.0.1", ["192.0.2.1", "unknown"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["[2001:db8::1]:443"], "2001:db8::1"),
        ("::1", ["192.0.2.1:5555"], "192.0.2.1"),
    ],
)
def test_the_client_is_the_nearest_untrusted_address(peer: str, forwarded: list[str], client: str) -> None:
    assert nearest_untrusted(peer, forwarded, NETWORKS) == client


@pytest.mark.parametrize("text", ["", "unknown", "localhost", "1.2.3", "[::1", "_hidden", "1.2.3.4:x"])
def test_invalid_addresses_are_not_parsed(text: str) -> None:
    assert parse_address(text) is None


@pytest.mark.parametrize("encoding", ["gzip", "br, gzip;q=0.5", "identity;q=0, gzip", "*;q=0"])
def test_replies_are_never_compressed(make: Callable[..., Service], encoding: str) -> None:
    answer = make()[0].get("/api/jobs", headers={"Accept-Encoding": encoding})
    assert answer.status_code == 200
    assert "Content-Encoding" not in answer.headers
    assert answer.json["jobs"] == []
