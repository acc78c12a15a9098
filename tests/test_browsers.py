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
Made = tuple[FlaskClient, Backend]
Make = Callable[..., Made]


@pytest.fixture(params=SERVICES)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes each service, without an engine."""
    made: list[Backend] = []

    def make(**settings: Any) -> Made:
        made.append(Backend(Settings(engine_url="http://127.0.0.1:9", data_dir=tmp_path, **settings)))
        return SERVICES[request.param](made[-1]).test_client(), made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.mark.parametrize("key", [None, KEY])
def test_a_browser_is_shown_the_page(make: Make, key: str | None) -> None:
    client, _ = make(api_key=key)
    shown = client.get("/", headers=HTML)
    assert (shown.status_code, shown.headers["Location"]) == (302, "/docs")
    assert client.get(shown.headers["Location"], headers=HTML).mimetype == "text/html"


def test_a_program_gets_a_description_of_the_service(make: Make) -> None:
    client, _ = make()
    for accept in ("*/*", "application/json"):
        reply = client.get("/", headers={"Accept": accept}).json
        assert reply is not None
        assert reply["service"] in SERVICES
        assert reply["docs"] == "http://localhost/docs"
        assert reply["openapi"] == "http://localhost/openapi.json"


def test_behind_a_prefix_the_page_is_there(make: Make) -> None:
    client, _ = make(public_url="https://dream.example/a/")
    assert client.get("/", headers=HTML).headers["Location"] == "https://dream.example/a/docs"
    assert client.get("/").json["docs"] == "https://dream.example/a/docs"
    client, _ = make(trusted_proxies="127.0.0.1")
    assert client.get("/", headers={**HTML, "X-Forwarded-Prefix": "/a"}).headers["Location"] == "/a/docs"


@pytest.mark.parametrize("path", ["/", "/docs", "/health", "/api/jobs", "/nowhere", "/openapi.json", "/api/jobs/x"])
def test_no_page_of_another_shows_ours_in_a_frame(make: Make, path: str) -> None:
    client, _ = make()
    headers = client.get(path, headers=HTML).headers
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize("key", [None, KEY])
def test_pictures_alone_are_shown_by_pages_elsewhere(make: Make, key: str | None) -> None:
    client, backend = make(api_key=key)
    row = finish(backend)
    shown = client.get(f"/api/images/{row.images[0]['filename']}", headers={"X-API-Key": KEY})
    assert shown.status_code == 200
    assert shown.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    # What a key was needed for is not kept by caches that others use.
    assert bool(shown.cache_control.public) is (key is None)
    assert bool(shown.cache_control.private) is (key is not None)


@pytest.mark.parametrize("key", ["0" * 16, "abab" * 6, "abcdefghijklmnop", "password" * 2, "1234567890" * 2])
def test_a_key_that_repeats_itself_is_guessable(key: str) -> None:
    assert is_guessable(key)


@pytest.mark.parametrize("key", [KEY, "2f1c9a7be04d5683", "Zm9vYmFyYmF6cXV4", "00000000-1111-4222-8333-abcdef012345"])
def test_a_key_as_programs_make_them_is_not(key: str) -> None:
    assert not is_guessable(key)


@pytest.mark.parametrize("date", ["1" * 5000, "Mon, 01 Jan 2024 00:00:00 " + "1" * 4000, "\x80", "Mon, 32 Jan 99999"])
@pytest.mark.parametrize("header", ["If-Modified-Since", "If-Unmodified-Since", "If-Range"])
def test_dates_that_are_none_do_no_harm(make: Make, header: str, date: str) -> None:
    client, backend = make()
    address = f"/api/images/{finish(backend).images[0]['filename']}"
    shown = client.get(address, headers={header: date, "Range": "bytes=0-1"})
    assert shown.status_code == (200 if header == "If-Range" else 206)
