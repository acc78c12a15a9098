"""The body of a request, JSON or form, as plain fields; and the numbers in its address."""

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
from shared.schema.synonyms import suggest_field
from shared.web.json_mistakes import begins_as_json, explain

DEEPEST = 50
DEEP = f"has more than {DEEPEST} levels"
# Names in one object, and fields in one form. The largest object that is taken is a graph, with a node for each.
MOST_FIELDS = 1000
EXAMPLE = "it should be a JSON object or a form; /docs has an example for each route"
OBJECT = 'send one object, such as {"prompt": "a lighthouse"}'
NO_HEADER = "leave the header content-type to the client, which puts the boundary of the parts into it"
MULTIPART, URL_ENCODED = "multipart/form-data", "application/x-www-form-urlencoded"
# What clients say of JSON without being told its type.
OFTEN_FORGOTTEN = ("", URL_ENCODED, "text/json")


# What stands for bytes that could not be read as text.
LOST = "\ufffd"


class StrictRequest(Request):
    """A request whose form is read whole or is an error: by default, what cannot be read is left out in silence."""

    def make_form_data_parser(self) -> FormDataParser:
        """As werkzeug makes it, but not silent."""
        parser = super().make_form_data_parser()
        parser.silent = False
        return parser


@dataclass(frozen=True)
class Fields:
    """What a client sent: values by name (null ones left out, for null means default), and uploaded files by name."""

    values: dict[str, Any]
    files: dict[str, bytes]

    def without(self, name: str) -> "Fields":
        """Returns the fields and files without those of this name."""
        return Fields(
            {field: value for field, value in self.values.items() if field != name},
            {field: content for field, content in self.files.items() if field != name},
        )

    def digest(self, salt: str) -> str:
        """A hash that is the same for the same fields and files, however the body was put together."""
        files = {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}
        told = json.dumps([salt, self.values, files], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def picture(self, *names: str) -> bytes | None:
        """The encoded picture under the first of `names` that is there, uploaded or as base64; else None.

        Raises InvalidPicture that names the field.
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
    """Reads JSON, multipart and URL-encoded bodies; raises RequestError or UnsupportedBody for others."""
    if request.mimetype == MULTIPART:
        _check_form(request)
        files = {name: file.read() for name, file in request.files.items() if file.filename or file.content_length}
        return Fields(values=dict(request.form.items()), files=files)
    body = request.get_data()
    if body.startswith(b"--") and b"form-data" in body[:1000]:
        raise RequestError(
            f"the body is a form in parts, and its content type says {_type_of(request)}", hint=NO_HEADER
        )
    # `curl -d '{...}'` without a header says that its JSON is a form, and other clients say nothing.
    forgotten = request.mimetype in OFTEN_FORGOTTEN and begins_as_json(body)
    if request.is_json or request.mimetype == "text/plain" or forgotten:
        return Fields(values=_read_json(request), files={})
    if not body:
        in_address = "fields belong into the body, not into the address; " if request.args else ""
        raise RequestError("the body is empty", hint=f"{in_address}{EXAMPLE}")
    if request.mimetype == URL_ENCODED:
        _check_form(request)
        return Fields(values=dict(request.form.items()), files={})
    raise UnsupportedBody(
        f"a body of the type {_type_of(request)} is not understood",
        hint="send application/json or multipart/form-data; with curl: -H 'content-type: application/json'",
    )


def _type_of(request: Request) -> str:
    return request.mimetype[:100] or "none"


def _check_form(request: Request) -> None:
    """Raises RequestError for a form that is broken, that has more fields than any request has, or that has a part
    that cannot be told or read."""
    if request.mimetype == URL_ENCODED:
        _check_url_encoded(request.get_data())
    try:
        names = [name for part in (request.form, request.files) for name, _ in part.items(multi=True)]
    except RequestEntityTooLarge:
        length, largest = request.content_length, request.max_content_length
        if length is not None and largest is not None and length > largest:
            raise
        # So werkzeug says that there are more parts than it takes.
        refuse_many(MOST_FIELDS + 1, "the form has at least", "fields")
        raise
    except ValueError as error:
        boundary = "boundary" in request.mimetype_params
        what = "the form cannot be read: its parts do not begin with its boundary, or it was cut off"
        raise RequestError(
            what if boundary else "the form has no boundary",
            hint=f"{NO_HEADER}; JSON is application/json" if boundary else NO_HEADER,
        ) from error
    if not names and request.mimetype == "application/x-www-form-urlencoded" and request.get_data():
        raise RequestError("the form has no field", hint="write name=value, or send no body")
    if None in names:
        raise RequestError("a part of the form has no name", hint='name it: content-disposition: form-data; name="..."')
    refuse_twice(names)
    for name, text in request.form.items():
        if LOST in name or LOST in text:
            raise RequestError(
                f"{name[:100]} has bytes that are no UTF-8", field=name[:100], hint="send text as UTF-8, or as JSON"
            )


def _check_url_encoded(body: bytes) -> None:
    # Of none of them is a field made.
    refuse_many(1 + body.count(b"&"), "the form has", "fields")
    if b"=" not in body:
        begins = body[:40].decode("utf-8", "replace")
        # As curl sends it with --data-raw, and other programs always.
        file = "; the name of a file is not its content" if begins.startswith("@") else ""
        raise RequestError(
            f"the body is neither JSON nor a form: it begins with {begins!r}",
            hint=f'send {{"prompt": "..."}} or prompt=...{file}',
        )
    for pair in body.split(b"&"):
        try:
            unquote_to_bytes(pair).decode()
        except UnicodeDecodeError as error:
            # werkzeug would leave the bytes as they are written: %E9.
            name = pair.partition(b"=")[0].decode("utf-8", "replace")[:100]
            raise RequestError(f"{name} has bytes that are no UTF-8", field=name, hint="send UTF-8, or JSON") from error


def read_optional_fields(request: Request, *known: str) -> Fields:
    """The fields of a body that may be left out as a whole, as `read_fields` reads them.

    Raises InvalidValue for a field that is not `known`: ignored, it would make a narrow order a sweeping one.
    """
    fields = read_fields(request) if request.get_data() else Fields({}, {})
    # Here alone, fields in the address count as well: without them, too, the order would be another.
    fields = Fields({**request.args, **fields.values}, fields.files)
    for name in (*fields.values, *fields.files):
        if name not in known:
            near = difflib.get_close_matches(name[:100].lower(), known, n=1, cutoff=0.5)
            there = f"it may have {', '.join(known)}, or no body" if known else "it takes none"
            meant = f"did you mean {near[0]}?" if near else there
            raise InvalidValue(f"{name[:100]} is not a field here", field=name[:100], hint=meant)
    # Also a file without a name, which is left out elsewhere: an empty choice in a page's form.
    for name in request.files:
        raise InvalidValue(f"{name[:100]} must be text, not a file", field=name[:100])
    return fields


def parse_json(text: str | bytes) -> Any:
    """The value in a client's JSON. Raises ValueError, whose text ends a sentence that begins with its name, if it is
    none, has more levels than any request needs, so that whoever walks through it may recurse, or more values
    (JsonTooLarge); RequestError for an object with a name that is there twice, or with too many."""
    try:
        value = load_json(_without_mark(text), object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError(DEEP) from error
    except JsonTooLarge:
        raise
    except ValueError as error:
        raise explain(error) from error
    if _is_deep(value):
        raise ValueError(DEEP)
    return value


def _without_mark(text: str | bytes) -> str | bytes:
    """The text without the byte order mark that Windows puts at its start; of bytes, json sees to that."""
    return text.removeprefix("\ufeff") if isinstance(text, str) else text


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return bool(level)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    refuse_many(len(pairs), "an object has", "names")
    refuse_twice(name for name, _ in pairs)
    return dict(pairs)


def refuse_many(count: int, what_has: str, fields: str) -> None:
    """Raises RequestError for more fields than any request has: each may cost a comparison with all that are known."""
    if count > MOST_FIELDS:
        raise RequestError(
            f"{what_has} {count:,} {fields}, and at most {MOST_FIELDS:,} are taken",
            hint="no route has more than 100 fields, and no graph more than 1,000 nodes",
        )


def refuse_twice(names: Iterable[str]) -> None:
    """Raises RequestError for a name that is there twice, for one of its values would be lost."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise RequestError(f"{name[:100]!r} is there twice", field=name[:100], hint="send it once")
        seen.add(name)


def _read_json(request: Request) -> dict[str, Any]:
    try:
        body = parse_json(request.get_data())
    except JsonTooLarge as error:
        raise BodyTooLarge(f"the body {error}", hint="send less at once") from error
    except ValueError as error:
        raise RequestError(f"the body {error}", hint=getattr(error, "hint", None) or EXAMPLE) from error
    if not isinstance(body, dict):
        raise _no_object(body)
    return {name: value for name, value in body.items() if value is not None}


def _no_object(body: Any) -> RequestError:
    """The error for JSON that is something else: what it is, and what to send."""
    if isinstance(body, str) and begins_as_json(body.encode("utf-8", "replace")):
        hint = "it was encoded twice: send the object itself (JSON.stringify, json.dumps or ConvertTo-Json once)"
        return RequestError("the body must be a JSON object, not a text with JSON in it", hint=hint)
    return RequestError(f"the body must be a JSON object, not {json_kind(body)}", hint=OBJECT)


def json_kind(value: Any) -> str:
    """What a value of JSON is, in its own words."""
    kinds = {list: "a list", dict: "an object", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


# Arguments that have no meaning: against caches, and the signature of an address, which was looked at before.
PASSED_OVER = frozenset(("_", "t", "ts", "time", "timestamp", "v", "cb", "nocache", "expires", "signature"))
OTHER_NAMES = {
    **dict.fromkeys(("status", "states", "filter"), ("state",)),
    **dict.fromkeys(("type", "route", "service"), ("kind", "type")),
    **dict.fromkeys(("n", "count", "size", "pagesize", "perpage", "max", "take", "first"), ("limit",)),
    **dict.fromkeys(("page", "offset", "skip", "cursor", "after", "start", "from"), ("before",)),
}


def check_arguments(*known: str) -> None:
    """Raises InvalidValue for an argument in the request's address that is not `known`: left out in silence, it would
    make a longer list look like the one that was asked for."""
    for name in request.args:
        if name in known or name.lower() in PASSED_OVER:
            continue
        near = suggest_field(name, known, OTHER_NAMES)
        hint = f"did you mean {near}?" if near else f"there is {', '.join(known)}"
        raise InvalidValue(f"{name[:100]} is not an argument here", field=name[:100], hint=hint)


def number_argument(name: str, largest: int) -> int | None:
    """The whole number, from 1 on, in that argument of the request's address; None without. Raises InvalidValue."""
    text = request.args.get(name)
    return None if text is None else whole_number(name, text, 1, largest)


def whole_number(name: str, text: str, least: int, largest: int) -> int:
    """The whole number that `text` is, which came under that name. Raises InvalidValue."""
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= largest):
        raise InvalidValue(f"{name} must be a whole number from {least} to {largest}, not {text[:100]!r}", field=name)
    return int(text)
