"""Signed URLs, which <img> and EventSource fetch without an API key."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from flask.testing import FlaskClient

from shared.jobs.job import JobRow
from shared.settings import Settings
from shared.web.backend import Backend
from shared.web.urls import ReplyUrls, UrlSigner, url_signer
from tests.job_factory import finish
from tests.test_openapi import SERVICES

KEY = "correct horse battery"
WITH_KEY = {"X-API-Key": KEY}


@dataclass
class Keyed:
    """All services with an API key, and a completed job."""

    clients: dict[str, FlaskClient]
    row: JobRow

    def urls(self) -> dict[str, str]:
        """The URLs of the picture and the stream, from a reply to a request with the key."""
        reply = self.clients["txt2img"].get(f"/api/jobs/{self.row.id}", headers=WITH_KEY).json
        assert reply is not None
        return {"picture": reply["images"][0], "stream": reply["events_url"]}


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[Keyed]:
    settings = Settings(engine_url="http://127.0.0.1:9", data_dir=tmp_path, api_key=KEY)
    backends = {name: Backend(settings) for name in SERVICES}
    row = finish(backends["txt2img"])
    yield Keyed({name: SERVICES[name](backend).test_client() for name, backend in backends.items()}, row)
    for backend in backends.values():
        backend.stop()


def signed_long_ago(path: str) -> str:
    """A URL of the path that expired an hour ago."""
    return ReplyUrls("", UrlSigner(KEY, 600, lambda: time.time() - 4200))._signed(path)


def test_every_service_accepts_the_signed_urls_of_the_others(keyed: Keyed) -> None:
    for kind, address in keyed.urls().items():
        for name, client in keyed.clients.items():
            fetched = client.get(address)
            assert fetched.status_code == 200, (kind, name, fetched.text)
            assert client.head(address).status_code == 200
            assert fetched.mimetype == {"picture": "image/png", "stream": "text/event-stream"}[kind]


def test_a_stream_fetched_by_signature_has_signed_picture_urls(keyed: Keyed) -> None:
    client = keyed.clients["img2img"]
    stream = client.get(keyed.urls()["stream"]).text
    address = stream.partition('"url": "')[2].partition('"')[0]
    assert client.get(address).status_code == 200


def test_additional_arguments_keep_a_signature_valid(keyed: Keyed) -> None:
    links = keyed.urls()
    client = keyed.clients["control"]
    assert client.get(f"{links['picture']}&download=1").status_code == 200
    assert client.get(f"{links['stream']}&after=0").status_code == 200


def test_every_url_in_a_result_is_signed(keyed: Keyed) -> None:
    client = keyed.clients["txt2img"]
    listed = client.get("/api/jobs", headers=WITH_KEY).json
    whole = client.get(f"/api/jobs/{keyed.row.id}", headers=WITH_KEY).json
    assert listed is not None
    assert whole is not None
    urls = [listed["jobs"][0]["events_url"], *listed["jobs"][0]["images"]]
    urls += [image["url"] for image in whole["result"]["comfy_response"]["generated_images"]]
    again = client.post(f"/api/jobs/{keyed.row.id}/retry", headers=WITH_KEY).json
    assert again is not None
    for address in (*urls, again["events_url"]):
        assert {"expires", "signature"} <= set(parse_qs(urlsplit(address).query)), address
    assert client.get(urls[1]).status_code == 200


@pytest.mark.parametrize("service", SERVICES)
def test_other_signatures_and_paths_are_rejected(keyed: Keyed, service: str) -> None:
    client, links = keyed.clients[service], keyed.urls()
    picture, stream = (urlsplit(address) for address in links.values())
    late = str(int(parse_qs(picture.query)["expires"][0]) + 1)
    wrong = {
        "unsigned": picture.path,
        "another path": f"/api/jobs?{picture.query}",
        "the stream's signature": f"{picture.path}?{stream.query}",
        "the job itself": f"/api/jobs/{keyed.row.id}?{stream.query}",
        "longer": f"{picture.path}?{picture.query.replace(parse_qs(picture.query)['expires'][0], late)}",
        "no time": f"{picture.path}?signature={parse_qs(picture.query)['signature'][0]}",
        "no signature": f"{picture.path}?expires={late}&signature=",
        "no base64": f"{picture.path}?expires={late}&signature=%ff%00+é",
        "no number": f"{picture.path}?expires=x&signature=x",
        "covered": f"{links['picture']}&bundle=x",
        "twice": f"{picture.path}?expires={late}&{picture.query}",
    }
    for kind, address in wrong.items():
        refused = client.get(address)
        assert (refused.status_code, refused.json["error"]["code"]) == (401, "unauthorized"), kind
    for method in ("POST", "DELETE", "PUT"):
        path = f"/api/jobs/{keyed.row.id}"
        assert client.open(f"{path}?{UrlSigner(KEY, 600).sign(path, {})}", method=method).status_code == 401
        signed = ReplyUrls("", UrlSigner(KEY, 600))._signed(path)
        assert client.open(signed, method=method).status_code == 401
    assert client.get(links["picture"]).status_code == 200


def test_an_expired_url_is_rejected_with_the_reason(keyed: Keyed) -> None:
    path = urlsplit(keyed.urls()["picture"]).path
    client = keyed.clients["txt2img"]
    refused = client.get(signed_long_ago(path))
    assert (refused.status_code, refused.json["message"]) == (401, "this signed URL has expired")
    # With the API key, no signature is needed.
    assert client.get(signed_long_ago(path), headers=WITH_KEY).status_code == 200


def test_a_signature_by_another_key_is_invalid(keyed: Keyed) -> None:
    path = urlsplit(keyed.urls()["picture"]).path
    other = ReplyUrls("", UrlSigner("another horse battery", 600))._signed(path)
    assert keyed.clients["txt2img"].get(other).status_code == 401


def test_a_signature_does_not_allow_other_origins(keyed: Keyed) -> None:
    address = urlsplit(keyed.urls()["picture"])
    client, url = keyed.clients["txt2img"], f"{address.path}?{address.query}"
    assert client.get(url, headers={"Origin": "https://evil.example"}).status_code == 403
    assert client.get(url, headers={"Host": "evil.example"}).status_code == 403


def test_a_report_is_signed_with_its_name() -> None:
    signer = UrlSigner(KEY, 600)
    query = parse_qs(urlsplit(ReplyUrls("", signer).report("a b.zip")).query)
    arguments = {name: values[0] for name, values in query.items()}
    path = "/api/report-bundle/download"
    assert signer.signature_error(path, arguments) is None
    assert signer.signature_error(path, {**arguments, "bundle": "other.zip"}) is not None
    assert (
        signer.signature_error(path, {name: value for name, value in arguments.items() if name != "bundle"}) is not None
    )


def test_a_signed_url_repeats_for_a_tenth_of_its_lifetime() -> None:
    now = [1_000_000.0]
    signer = UrlSigner(KEY, 3600, lambda: now[0])
    first = signer.sign("/a", {})
    now[0] += 5
    assert signer.sign("/a", {}) == first
    # Rounding takes at most a tenth of the lifetime.
    now[0] = 1_000_000.0 + 3600 * 0.9 - 1
    assert signer.signature_error("/a", first) is None
    assert signer.sign("/a", {}) != first
    now[0] = 1_000_000.0 + 3601
    assert signer.signature_error("/a", first) == "this signed URL has expired"


def test_without_a_key_nothing_is_signed() -> None:
    assert url_signer(Settings()) is None
    assert ReplyUrls("http://localhost").image("a.png") == "http://localhost/api/images/a.png"
