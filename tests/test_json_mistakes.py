"""Errors for malformed JSON: position, cause and hint, for mistakes that real clients make."""

import json
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from shared.settings import Settings
from shared.web.app import txt2img_app
from shared.web.backend import Backend
from shared.web.request_body import parse_json

FORM = "application/x-www-form-urlencoded"
GOOD = '{"prompt": "a café", "steps": 2}'


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    backend = Backend(Settings(engine_url="http://127.0.0.1:9", data_dir=tmp_path_factory.mktemp("data")))
    yield txt2img_app(backend).test_client()
    backend.stop()


@pytest.mark.parametrize("content_type", ["application/json", FORM, "text/plain"])
@pytest.mark.parametrize(
    ("body", "message", "hint"),
    [
        # curl -d '{"prompt": "a red circle"}' in cmd, and in PowerShell 5.
        ("'{prompt:", "begins with a single quote (line 1, column 1, at '{prompt:)", r'-d "{\"prompt\"'),
        ('\'{"prompt": "x"}\'', "begins with a single quote", "-d @body.json"),
        ("{prompt: a", "a name has no quotes (line 1, column 2, at {prompt: a)", "-d @body.json"),
        ('{"prompt": a red circle}', "a string has no quotes (line 1, column 12", "PowerShell"),
        ("{'prompt': 'x'}", "not single quotes (line 1, column 2", 'write "..."'),
        ("{\"prompt\": 'x'}", "not single quotes (line 1, column 12", 'write "..."'),
        ("{\u201cprompt\u201d: \u201cx\u201d}", "\u201c is a typographic quote (line 1, column 2", "straight"),
        ('{"prompt": \u00abx\u00bb}', "\u00ab is a typographic quote (line 1, column 12", "straight"),
        ('{"prompt": "x",}', "a trailing comma (line 1, column 16", "before }"),
        ('{"loras": [1,\n ]}', "a trailing comma (line 2, column 2", "]"),
        ('{"a": True}', "True is not a JSON word", "write true"),
        ('{"a": None}', "None is not a JSON word", "write null"),
        ('{"a": nan}', "nan is not a JSON word", "write null"),
        ('{"a": undefined}', "undefined is not a JSON word", "write null"),
        ('{"prompt": "x"', "it ends too early (line 1, column 15", "missing bracket or quote"),
        ('{"prompt": "x', "no closing quote (line 1, column 12", "end it"),
        ('{"prompt": ', "it ends too early", "bracket"),
        ('{"prompt": "a\nb"}', 'a raw line break or tab (line 1, column 14, at {"prompt": "a\\x0ab"})', r"\n"),
        (r'{"model": "C:\models"}', "an invalid escape", r"\\"),
        ('{"prompt": "a" "steps": 2}', "a comma is expected", r"\""),
        ('{"prompt" "x"}', "a colon is expected", None),
        ('{"prompt": "x"}{"prompt": "y"}', "it continues after its end (line 1, column 16", "one JSON object"),
        ('{"prompt": "x" // mine\n}', "JSON has no comments", "remove"),
        ("{\n  # mine\n}", "JSON has no comments (line 2, column 3", "remove"),
        # Quotes and numbers as other languages write them.
        ('{"prompt": `x`}', "not backticks (line 1, column 12", 'write "..."'),
        (r"{\"prompt\": \"x\"}", "its quotes have backslashes (line 1, column 2", "remove the backslashes"),
        ("{'prompt': 'x', 'tiling': False}", "not single quotes", "json.dumps"),
        ('{"steps": 0x10}', "0x10 is not a JSON number (line 1, column 12", "decimal digits"),
        ('{"steps": 007}', "007 is not a JSON number", "decimal digits"),
        ('{"steps": +5}', "+5 is not a JSON number", "without leading zeros or +"),
        ('{"cfg_scale": .5}', ".5 is not a JSON number", "0.5"),
        ('{"cfg_scale": 7.}', "7. is not a JSON number", "0.5"),
        ('{"width": 1_024}', "1_024 is not a JSON number", "decimal digits"),
        ('{"cfg_scale": 7,5}', "a number has a decimal comma (line 1, column 17", "7.5"),
        # Invisible characters in copied text.
        ('{\xa0"prompt": "x"}', "an invisible character (U+00A0) (line 1, column 2", "delete it"),
        ('\u200b{"prompt": "x"}', "an invisible character (U+200B)", "delete it"),
        ('{"prompt": "a\x00b"}', "the raw control character U+0000", r"\u0000"),
        (
            '{"a": "' + "y" * 1000 + '", b' + "x" * 1000,
            'column 1011, at ...yyyyyyyyyyyyyyyyy", bxxxxxxxxxxxxxxxxxxx...)',
            None,
        ),
    ],
)
def test_a_mistake_is_reported_with_its_position(
    client: FlaskClient, body: str, message: str, hint: str | None, content_type: str
) -> None:
    refused = client.post("/api/txt2img", data=body.encode(), content_type=content_type)
    assert refused.status_code == 400
    assert refused.json is not None
    assert "the body is not valid JSON: " in refused.json["message"]
    assert message in refused.json["message"], refused.json
    assert (hint or "") in refused.json["error"]["hint"]
    assert len(refused.json["message"]) < 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"prompt=a+red+circle&steps=2", "begins with a word"),
        (b'{"prompt": "caf\xe9"}', "byte 15 (0xe9) is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "looks like a binary file"),
        (b"<html>", "a value is expected"),
        (b"9" * 5000, "a number with too many digits"),
    ],
)
def test_bodies_of_other_formats_are_recognised(client: FlaskClient, body: bytes, message: str) -> None:
    refused = client.post("/api/txt2img", data=body, content_type="application/json")
    assert refused.status_code == 400
    assert refused.json is not None
    assert message in refused.json["message"]
    assert refused.json["error"]["hint"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("content_type", ["application/json", FORM])
def test_json_is_read_in_every_encoding_that_editors_save(
    client: FlaskClient, encoding: str, content_type: str
) -> None:
    # Without an engine, a body that can be read results in a 503.
    accepted = client.post("/api/txt2img", data=GOOD.encode(encoding), content_type=content_type)
    assert accepted.status_code == 503, accepted.text
    broken = client.post("/api/txt2img", data=GOOD[:-1].encode(encoding), content_type=content_type)
    assert "it ends too early (line 1, column 32" in broken.text


def test_text_with_a_byte_order_mark_is_read() -> None:
    assert parse_json("\ufeff" + GOOD) == json.loads(GOOD)


def test_malformed_json_in_a_form_field_is_reported(client: FlaskClient) -> None:
    refused = client.post("/api/txt2img", data={"prompt": "x", "loras": "[{name: a}]"})
    assert refused.status_code == 422
    assert refused.json is not None
    assert "loras is text that is not valid JSON: a name has no quotes (line 1, column 3" in refused.json["message"]


@pytest.mark.parametrize("content_type", ["application/json", FORM, "text/plain"])
@pytest.mark.parametrize(
    ("body", "message", "hint"),
    [
        (json.dumps(GOOD), "a text with JSON in it", "encoded twice"),
        ('"a red circle"', "must be a JSON object, not a text", '{"prompt": "a lighthouse"}'),
        (f"[{GOOD}]", "must be a JSON object, not a list", "send one object"),
    ],
)
def test_json_that_is_not_an_object_is_refused_with_its_type(
    client: FlaskClient, body: str, message: str, hint: str, content_type: str
) -> None:
    refused = client.post("/api/txt2img", data=body, content_type=content_type)
    assert refused.status_code == 400
    assert refused.json is not None
    assert message in refused.json["message"]
    assert hint in refused.json["error"]["hint"]


@pytest.mark.parametrize("body", ["5", "null", "true", "1e400", "NaN"])
def test_a_single_json_value_is_refused(client: FlaskClient, body: str) -> None:
    refused = client.post("/api/txt2img", data=body, content_type="application/json")
    assert refused.status_code == 400
    assert refused.json is not None
    assert "the body must be a JSON object, not " in refused.json["message"]


@pytest.mark.parametrize("content_type", [None, "text/json", "application/ld+json"])
def test_json_is_read_without_a_json_content_type(client: FlaskClient, content_type: str | None) -> None:
    assert client.post("/api/txt2img", data=GOOD.encode(), content_type=content_type).status_code == 503


PARTS = b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na cat\r\n--x--\r\n'


@pytest.mark.parametrize(
    ("body", "content_type", "message", "hint"),
    [
        # fetch() with a content type set by hand.
        (PARTS, "multipart/form-data", "the form has no boundary", "leave the header content-type"),
        (PARTS, FORM, f"its content type is {FORM}", "leave the header content-type"),
        (PARTS, "application/json", "its content type is application/json", "leave the header content-type"),
        (PARTS, None, "its content type is none", "leave the header content-type"),
        (
            GOOD.encode(),
            "multipart/form-data; boundary=y",
            "do not begin with its boundary",
            "JSON is application/json",
        ),
        (b"prompt=a+cat", "application/json", "it begins with a word", "to send a form, leave the content-type header"),
        (b"a red circle", FORM, "it begins with 'a red circle'", "prompt=..."),
        (b"@body.json", FORM, "it begins with '@body.json'", "send the content of the file"),
        (b"prompt=caf%E9", FORM, "prompt has bytes that are not UTF-8", "send UTF-8"),
        (b"steps=2&prompt=caf\xe9", FORM, "prompt has bytes that are not UTF-8", "send UTF-8"),
        (b"", FORM, "the body is empty", "an example"),
        (b"", None, "the body is empty", "an example"),
    ],
)
def test_a_body_that_contradicts_its_content_type_is_refused(
    client: FlaskClient, body: bytes, content_type: str | None, message: str, hint: str
) -> None:
    refused = client.post("/api/txt2img", data=body, content_type=content_type)
    assert refused.status_code == 400
    assert refused.json is not None
    assert message in refused.json["message"]
    assert hint in refused.json["error"]["hint"]


def test_fields_only_in_the_query_are_refused_with_a_hint(client: FlaskClient) -> None:
    refused = client.post("/api/txt2img?prompt=a+cat")
    assert refused.json is not None
    assert "not into the URL" in refused.json["error"]["hint"]
    empty = client.post("/api/txt2img", json={})
    assert empty.json is not None
    assert 'send {"prompt"' in empty.json["error"]["hint"]
