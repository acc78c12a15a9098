"""Wrong API keys: a few are accepted as mistakes, more must wait, and each source counts separately."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.settings import Settings
from shared.web.api_key_throttle import BURST, PROXY_BURST, REFILL_SECONDS, KeyThrottle, throttle_sources
from shared.web.app import txt2img_app
from shared.web.backend import Backend

KEY = "correct horse battery"
GOOD, BAD = {"X-API-Key": KEY}, {"X-API-Key": "wrong horse battery"}
Make = Callable[..., FlaskClient]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Return a function that creates the txt2img service, without an engine and with an API key."""
    backends: list[Backend] = []

    def make(**settings: Any) -> FlaskClient:
        backends.append(Backend(Settings(engine_url="http://127.0.0.1:9", data_dir=tmp_path, api_key=KEY, **settings)))
        return txt2img_app(backends[-1]).test_client()

    yield make
    for backend in backends:
        backend.stop()


def send_request(client: FlaskClient, headers: dict[str, str], peer: str = "192.0.2.1", path: str = "/api/jobs") -> Any:
    return client.get(path, headers=headers, environ_overrides={"REMOTE_ADDR": peer})


@pytest.mark.parametrize("bad", [BAD, {"Authorization": "Bearer wrong horse battery"}])
def test_an_address_must_wait_after_ten_wrong_keys(make: Make, bad: dict[str, str]) -> None:
    client = make()
    assert [send_request(client, bad).status_code for _ in range(BURST)] == [401] * 10
    refused = send_request(client, bad)
    assert (refused.status_code, refused.json["error"]["code"]) == (429, "too_many_tries")
    assert 0 < int(refused.headers["Retry-After"]) <= REFILL_SECONDS
    # Otherwise the status would reveal a correct guess.
    assert send_request(client, GOOD).status_code == 429
    assert (
        client.post("/api/txt2img", json={}, headers=bad, environ_overrides={"REMOTE_ADDR": "192.0.2.1"}).status_code
        == 429
    )
    # Requests that need no key or have none are not affected.
    assert send_request(client, bad, path="/health").status_code == 200
    assert send_request(client, {}).status_code == 401
    assert send_request(client, GOOD, "192.0.2.2").status_code == 200


def test_valid_and_absent_keys_are_not_counted(make: Make) -> None:
    client = make()
    for headers in (GOOD, {}):
        codes = {send_request(client, headers).status_code for _ in range(3 * BURST)}
        assert len(codes) == 1
    assert send_request(client, BAD).status_code == 401


def test_clients_behind_a_trusted_proxy_count_separately(make: Make) -> None:
    client = make(trusted_proxies="10.0.0.1")
    ann, bob = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}
    for _ in range(BURST):
        send_request(client, {**BAD, **ann}, "10.0.0.1")
    assert send_request(client, {**GOOD, **ann}, "10.0.0.1").status_code == 429
    assert send_request(client, {**GOOD, **bob}, "10.0.0.1").status_code == 200


def test_clients_behind_an_unknown_proxy_count_separately_up_to_a_limit(make: Make) -> None:
    client = make()
    ann, bob = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}
    for _ in range(BURST):
        send_request(client, {**BAD, **ann}, "127.0.0.1")
    assert send_request(client, {**GOOD, **ann}, "127.0.0.1").status_code == 429
    assert send_request(client, {**GOOD, **bob}, "127.0.0.1").status_code == 200
    codes = [
        send_request(client, {**BAD, "X-Forwarded-For": f"198.51.100.{number}"}, "127.0.0.1").status_code
        for number in range(PROXY_BURST)
    ]
    assert codes[:80] == [401] * 80
    assert codes[-1] == 429


def test_allowed_tries_refill_with_time() -> None:
    now = [0.0]
    throttle, sources = KeyThrottle(lambda: now[0]), {"a": 2}
    throttle.count_failure(sources)
    assert throttle.seconds_to_wait(sources) == 0
    throttle.count_failure(sources)
    assert throttle.seconds_to_wait(sources) == REFILL_SECONDS
    now[0] += REFILL_SECONDS
    assert throttle.seconds_to_wait(sources) == 0
    throttle.count_failure(sources)
    assert throttle.seconds_to_wait(sources) == REFILL_SECONDS
    now[0] += 100 * REFILL_SECONDS
    throttle.count_failure(sources)
    assert throttle.seconds_to_wait(sources) == 0


def test_the_number_of_recorded_sources_is_limited() -> None:
    throttle = KeyThrottle(lambda: 0.0, max_sources=100)
    for number in range(1000):
        throttle.count_failure({f"10.0.{number // 256}.{number % 256}": BURST})
    assert len(throttle) == 100
    longest = max(len(name) for name in throttle_sources("192.0.2.1", ["x" * 100_000]))
    assert longest < 100


def test_ipv6_addresses_of_one_network_count_as_one_source() -> None:
    assert throttle_sources("2001:db8::1", []) == throttle_sources("2001:db8::ffff:2", [])
    assert throttle_sources("2001:db8:0:1::1", []) != throttle_sources("2001:db8:0:2::1", [])
    assert throttle_sources("::ffff:192.0.2.1", []) == throttle_sources("192.0.2.1", [])
