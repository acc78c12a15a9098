"""Responses for browsers: redirects to the page, and security headers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.settings import Settings, is_guessable
from shared.web.backend import Backend
from tests.job_factory import finish
from tests.test_openapi import SERVICES

HTML = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
KEY = "correct horse battery"
Served = tuple[FlaskClient, Backend]
Make = Callable[..., Served]


@pytest.fixture(params=SERVICES)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Return a function that creates a service without an engine."""
    backends: list[Backend] = []

    def make(**settings: Any) -> Served:
        backends.append(Backend(Settings(engine_url="http://127.0.0.1:9", data_dir=tmp_path, **settings)))
        return SERVICES[request.param](backends[-1]).test_client(), backends[-1]

    yield make
    for backend in backends:
        backend.stop()


@pytest.mark.parametrize("key", [None, KEY])
def test_a_browser_is_redirected_to_the_page(make: Make, key: str | None) -> None:
    client, _ = make(api_key=key)
    response = client.get("/", headers=HTML)
    assert (response.status_code, response.headers["Location"]) == (302, "/docs")
    assert client.get(response.headers["Location"], headers=HTML).mimetype == "text/html"


def test_a_program_gets_a_description_of_the_service(make: Make) -> None:
    client, _ = make()
    for accept in ("*/*", "application/json"):
        reply = client.get("/", headers={"Accept": accept}).json
        assert reply is not None
        assert reply["service"] in SERVICES
        assert reply["docs"] == "http://localhost/docs"
        assert reply["openapi"] == "http://localhost/openapi.json"


def test_the_page_address_includes_the_prefix(make: Make) -> None:
    client, _ = make(public_url="https://dream.example/a/")
    assert client.get("/", headers=HTML).headers["Location"] == "https://dream.example/a/docs"
    assert client.get("/").json["docs"] == "https://dream.example/a/docs"
    client, _ = make(trusted_proxies="127.0.0.1")
    assert client.get("/", headers={**HTML, "X-Forwarded-Prefix": "/a"}).headers["Location"] == "/a/docs"


@pytest.mark.parametrize("path", ["/", "/docs", "/health", "/api/jobs", "/nowhere", "/openapi.json", "/api/jobs/x"])
def test_responses_forbid_frames_and_sniffing(make: Make, path: str) -> None:
    client, _ = make()
    headers = client.get(path, headers=HTML).headers
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize("key", [None, KEY])
def test_only_pictures_may_be_embedded_by_other_pages(make: Make, key: str | None) -> None:
    client, backend = make(api_key=key)
    row = finish(backend)
    response = client.get(f"/api/images/{row.images[0]['filename']}", headers={"X-API-Key": KEY})
    assert response.status_code == 200
    assert response.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    # A picture that needs a key is not stored in shared caches.
    assert bool(response.cache_control.public) is (key is None)
    assert bool(response.cache_control.private) is (key is not None)


@pytest.mark.parametrize("key", ["0" * 16, "abab" * 6, "abcdefghijklmnop", "password" * 2, "1234567890" * 2])
def test_a_repetitive_or_common_key_is_guessable(key: str) -> None:
    assert is_guessable(key)


@pytest.mark.parametrize("key", [KEY, "2f1c9a7be04d5683", "Zm9vYmFyYmF6cXV4", "00000000-1111-4222-8333-abcdef012345"])
def test_a_random_key_is_not_guessable(key: str) -> None:
    assert not is_guessable(key)


@pytest.mark.parametrize("date", ["1" * 5000, "Mon, 01 Jan 2024 00:00:00 " + "1" * 4000, "\x80", "Mon, 32 Jan 99999"])
@pytest.mark.parametrize("header", ["If-Modified-Since", "If-Unmodified-Since", "If-Range"])
def test_invalid_dates_are_ignored(make: Make, header: str, date: str) -> None:
    client, backend = make()
    address = f"/api/images/{finish(backend).images[0]['filename']}"
    response = client.get(address, headers={header: date, "Range": "bytes=0-1"})
    assert response.status_code == (200 if header == "If-Range" else 206)
