"""Reads the body of a request (JSON or a form) as fields, and checks the arguments of its URL."""

import difflib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from flask import Request, request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from shared.errors import BodyTooLarge, InvalidPicture, InvalidValue, RequestError, UnsupportedBody
from shared.images.decode import decode_base64
from shared.json_limits import JsonTooLarge, load_json
from shared.schema.field_names import suggest_field
from shared.web.json_mistakes import begins_as_json, explain

MAX_DEPTH = 50
TOO_DEEP = f"has more than {MAX_DEPTH} levels"
# The most names in one object, and fields in one form. The largest object is a graph, with a name for every node.
MAX_FIELDS = 1000
BODY_HINT = "send a JSON object or a form; /docs has an example for each route"
OBJECT_HINT = 'send one object, such as {"prompt": "a lighthouse"}'
HEADER_HINT = "leave the header content-type to the client, which adds the boundary to it"
MULTIPART, URL_ENCODED = "multipart/form-data", "application/x-www-form-urlencoded"
# Content types that clients send with JSON by default.
DEFAULT_TYPES = ("", URL_ENCODED, "text/json")


# The character that replaces bytes that are not UTF-8.
REPLACEMENT = "\ufffd"


class StrictRequest(Request):
    """A request that refuses an unreadable form. By default, werkzeug silently drops the unreadable parts."""

    def make_form_data_parser(self) -> FormDataParser:
        """Make werkzeug's parser, set to raise errors."""
        parser = super().make_form_data_parser()
        parser.silent = False
        return parser


@dataclass(frozen=True)
class Fields:
    """The fields of a request: values by name, without nulls (null means default), and uploaded files by name."""

    values: dict[str, Any]
    files: dict[str, bytes]

    def without(self, name: str) -> "Fields":
        """Return the fields and files without those of this name."""
        return Fields(
            {field: value for field, value in self.values.items() if field != name},
            {field: content for field, content in self.files.items() if field != name},
        )

    def digest(self, salt: str) -> str:
        """Return a hash that depends only on the fields and files, not on the format of the body."""
        files = {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}
        text = json.dumps([salt, self.values, files], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def picture(self, *names: str) -> bytes | None:
        """Return the bytes of the picture in the first of `names` that was sent, as a file or base64; else None.

        Raises InvalidPicture.
        """
        for name in names:
            if name in self.files:
                return self.files[name]
            value = self.values.get(name)
            if value is None or value == "":
                continue
            if not isinstance(value, str):
                raise InvalidPicture(
                    f"{name} must be text, not {json_kind(value)}",
                    field=name,
                    hint="send a data URL, base64, or a file of a form",
                )
            return decode_base64(value, name)
        return None


def read_fields(request: Request) -> Fields:
    """Read JSON, multipart and URL-encoded bodies. Raises RequestError or UnsupportedBody for others."""
    if request.mimetype == MULTIPART:
        _check_form(request)
        files = {name: file.read() for name, file in request.files.items() if file.filename or file.content_length}
        return Fields(values=dict(request.form.items()), files=files)
    body = request.get_data()
    if body.startswith(b"--") and b"form-data" in body[:1000]:
        raise RequestError(
            f"the body is a multipart form, but its content type is {_content_type(request)}", hint=HEADER_HINT
        )
    # `curl -d '{...}'` without a header sends JSON with the type of a form; other clients send no type.
    is_untyped_json = request.mimetype in DEFAULT_TYPES and begins_as_json(body)
    if request.is_json or request.mimetype == "text/plain" or is_untyped_json:
        return Fields(values=_read_json(request), files={})
    if not body:
        url_hint = "put the fields into the body, not into the URL; " if request.args else ""
        raise RequestError("the body is empty", hint=f"{url_hint}{BODY_HINT}")
    if request.mimetype == URL_ENCODED:
        _check_form(request)
        return Fields(values=dict(request.form.items()), files={})
    raise UnsupportedBody(
        f"the content type {_content_type(request)} is not supported",
        hint="send application/json or multipart/form-data; with curl: -H 'content-type: application/json'",
    )


def _content_type(request: Request) -> str:
    return request.mimetype[:100] or "none"


def _check_form(request: Request) -> None:
    """Raise RequestError for a form that is broken, not UTF-8, or has too many, duplicate or nameless fields."""
    if request.mimetype == URL_ENCODED:
        _check_url_encoded(request.get_data())
    try:
        names = [name for part in (request.form, request.files) for name, _ in part.items(multi=True)]
    except RequestEntityTooLarge:
        length, largest = request.content_length, request.max_content_length
        if length is not None and largest is not None and length > largest:
            raise
        # The length is within the limit, so werkzeug means the number of parts.
        refuse_many(MAX_FIELDS + 1, "the form has at least", "fields")
        raise
    except ValueError as error:
        has_boundary = "boundary" in request.mimetype_params
        message = "the form cannot be read: its parts do not begin with its boundary, or it was cut off"
        raise RequestError(
            message if has_boundary else "the form has no boundary",
            hint=f"{HEADER_HINT}; JSON is application/json" if has_boundary else HEADER_HINT,
        ) from error
    if not names and request.mimetype == URL_ENCODED and request.get_data():
        raise RequestError("the form has no field", hint="send name=value, or no body")
    if None in names:
        raise RequestError(
            "a part of the form has no name", hint='send its name: content-disposition: form-data; name="..."'
        )
    refuse_duplicates(names)
    for name, text in request.form.items():
        if REPLACEMENT in name or REPLACEMENT in text:
            raise RequestError(
                f"{name[:100]} has bytes that are not UTF-8", field=name[:100], hint="send text as UTF-8, or as JSON"
            )


def _check_url_encoded(body: bytes) -> None:
    refuse_many(1 + body.count(b"&"), "the form has", "fields")
    if b"=" not in body:
        begins = body[:40].decode("utf-8", "replace")
        # Only curl -d replaces @name by the content of the file.
        file = "; send the content of the file, not its name" if begins.startswith("@") else ""
        raise RequestError(
            f"the body is neither JSON nor a form: it begins with {begins!r}",
            hint=f'send {{"prompt": "..."}} or prompt=...{file}',
        )
    for pair in body.split(b"&"):
        try:
            unquote_to_bytes(pair).decode()
        except UnicodeDecodeError as error:
            # werkzeug would keep the escape: %E9.
            name = pair.partition(b"=")[0].decode("utf-8", "replace")[:100]
            raise RequestError(
                f"{name} has bytes that are not UTF-8", field=name, hint="send UTF-8, or JSON"
            ) from error


def read_optional_fields(request: Request, *known: str) -> Fields:
    """Read the fields of a body that may be missing, and of the URL's arguments.

    Raises InvalidValue for a field that is not `known`: to ignore it could make the request affect more than intended.
    """
    fields = read_fields(request) if request.get_data() else Fields({}, {})
    # Only here the URL's arguments count too: to ignore them would have the same effect.
    fields = Fields({**request.args, **fields.values}, fields.files)
    for name in (*fields.values, *fields.files):
        if name not in known:
            near = difflib.get_close_matches(name[:100].lower(), known, n=1, cutoff=0.5)
            accepted = f"send {', '.join(known)}, or no body" if known else "send no fields"
            hint = f"did you mean {near[0]}?" if near else accepted
            raise InvalidValue(f"{name[:100]} is not a field of this route", field=name[:100], hint=hint)
    # Includes a file without a name, the empty choice in a page's form, which is ignored elsewhere.
    for name in request.files:
        raise InvalidValue(f"{name[:100]} must be text, not a file", field=name[:100])
    return fields


def parse_json(text: str | bytes) -> Any:
    """Parse a client's JSON.

    Raises ValueError if it is invalid, too deep for recursive functions, or too large (JsonTooLarge): the message
    continues a sentence that begins with the name of the text. Raises RequestError for an object with too many or
    duplicate names.
    """
    try:
        value = load_json(_without_mark(text), object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error
    except JsonTooLarge:
        raise
    except ValueError as error:
        raise explain(error) from error
    if _is_deep(value):
        raise ValueError(TOO_DEEP)
    return value


def _without_mark(text: str | bytes) -> str | bytes:
    """Remove the byte order mark that Windows puts in front of text; `json` removes it from bytes."""
    return text.removeprefix("\ufeff") if isinstance(text, str) else text


def _is_deep(root: Any) -> bool:
    level = [root]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    return bool(level)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    refuse_many(len(pairs), "an object has", "names")
    refuse_duplicates(name for name, _ in pairs)
    return dict(pairs)


def refuse_many(count: int, what_has: str, fields: str) -> None:
    """Raise RequestError for too many fields: each unknown one is compared with all known ones."""
    if count > MAX_FIELDS:
        raise RequestError(
            f"{what_has} {count:,} {fields}, more than {MAX_FIELDS:,}",
            hint="send fewer: no route has more than 100 fields, and no graph more than 1,000 nodes",
        )


def refuse_duplicates(names: Iterable[str]) -> None:
    """Raise RequestError for a duplicate name, because one of its values would be lost."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise RequestError(f"{name[:100]!r} was sent twice", field=name[:100], hint="send it once")
        seen.add(name)


def _read_json(request: Request) -> dict[str, Any]:
    try:
        body = parse_json(request.get_data())
    except JsonTooLarge as error:
        raise BodyTooLarge(f"the body {error}", hint="send less at once") from error
    except ValueError as error:
        raise RequestError(f"the body {error}", hint=getattr(error, "hint", None) or BODY_HINT) from error
    if not isinstance(body, dict):
        raise _not_an_object(body)
    return {name: value for name, value in body.items() if value is not None}


def _not_an_object(body: Any) -> RequestError:
    """Return the error for JSON that is not an object."""
    if isinstance(body, str) and begins_as_json(body.encode("utf-8", "replace")):
        hint = "send the object itself, it was encoded twice (JSON.stringify, json.dumps or ConvertTo-Json once)"
        return RequestError("the body must be a JSON object, not a text with JSON in it", hint=hint)
    return RequestError(f"the body must be a JSON object, not {json_kind(body)}", hint=OBJECT_HINT)


def json_kind(value: Any) -> str:
    """Return the type of a JSON value in words."""
    kinds = {list: "a list", dict: "an object", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


# Arguments that are ignored: those against caches, and the signature of a URL, which was verified before.
IGNORED_ARGUMENTS = frozenset(("_", "t", "ts", "time", "timestamp", "v", "cb", "nocache", "expires", "signature"))
ARGUMENT_SYNONYMS = {
    **dict.fromkeys(("status", "states", "filter"), ("state",)),
    **dict.fromkeys(("type", "route", "service"), ("kind", "type")),
    **dict.fromkeys(("n", "count", "size", "pagesize", "perpage", "max", "take", "first"), ("limit",)),
    **dict.fromkeys(("page", "offset", "skip", "cursor", "after", "start", "from"), ("before",)),
}


def check_arguments(*known: str) -> None:
    """Raise InvalidValue for an argument of the URL that is not `known`.

    To ignore it would return a longer list than the one that was asked for.
    """
    for name in request.args:
        if name in known or name.lower() in IGNORED_ARGUMENTS:
            continue
        near = suggest_field(name, known, ARGUMENT_SYNONYMS)
        hint = f"did you mean {near}?" if near else f"use {', '.join(known)}"
        raise InvalidValue(f"{name[:100]} is not an argument of this route", field=name[:100], hint=hint)


def number_argument(name: str, largest: int) -> int | None:
    """Return an argument of the URL as a whole number from 1; None if it is missing. Raises InvalidValue."""
    text = request.args.get(name)
    return None if text is None else whole_number(name, text, 1, largest)


def whole_number(name: str, text: str, least: int, largest: int) -> int:
    """Parse a whole number from `least` to `largest`; `name` is its field. Raises InvalidValue."""
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= largest):
        raise InvalidValue(f"{name} must be a whole number from {least} to {largest}, not {text[:100]!r}", field=name)
    return int(text)
