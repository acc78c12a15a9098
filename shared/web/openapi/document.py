"""Writes the OpenAPI 3.1 document of a service from the operations of its views.

The document is plain dictionaries: pydantic writes the schemas, and a test validates the whole. Models of the document
itself (openapi-pydantic) would add 0.15 s to each start.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from shared import __version__
from shared.errors import (
    DreamLayerError,
    EngineDenied,
    EngineUnavailable,
    OriginNotAllowed,
    TooManyTries,
    Unauthorized,
)
from shared.schema.replies import ErrorReply
from shared.web.openapi.operation import (
    FORM,
    HEADERS,
    JSON,
    REF,
    TAGS,
    BodySpec,
    Example,
    Operation,
    ParameterSpec,
    ReplySpec,
    Route,
)

# Errors of every route.
COMMON_ERRORS = (DreamLayerError, OriginNotAllowed)
KEYS = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
Document = dict[str, Any]


def openapi_document(
    service: str, routes: Iterable[Route], base_url: str, *, keyed: bool, limits: Mapping[str, int] | None = None
) -> Document:
    """Write the document of a service at `base_url`; `keyed` is whether an API key is set.

    `limits` are the largest bodies in bytes, by path; the one of "" is for all other paths. Views without an operation
    are left out.
    """
    described = [(route, route.operation) for route in routes if route.operation is not None]
    described.sort(key=lambda pair: TAGS.index(pair[1].tag))
    paths: dict[str, Document] = defaultdict(dict)
    for route, operation in described:
        path = re.sub(r"<(\w+)>", r"{\1}", route.path)
        paths[path][route.method.lower()] = _operation(route, operation, keyed, limits or {})
    operations = [operation for _, operation in described]
    components: Document = {"schemas": _schemas(operations)}
    if keyed:
        components["securitySchemes"] = KEYS
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Dream Layer: {service}",
            "version": __version__,
            "summary": "ComfyUI as a plain REST API",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": base_url}],
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in operations)],
        "paths": dict(paths),
        "components": components,
    }


def _operation(route: Route, operation: Operation, keyed: bool, limits: Mapping[str, int]) -> Document:
    errors = (
        *operation.errors,
        *COMMON_ERRORS,
        *((Unauthorized, TooManyTries) if keyed and not operation.is_open else ()),
    )
    document: Document = {
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{route.path}").strip("_"),
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": [_parameter(parameter, operation.examples) for parameter in operation.parameters],
        "responses": _responses(operation.replies, errors),
    }
    if operation.description:
        document["description"] = operation.description
    if operation.body is not None:
        document["requestBody"] = _body(operation.body, operation.examples)
        if most := limits.get(route.path, limits.get("")):
            document["requestBody"]["x-max-bytes"] = most
    if keyed:
        # Either key is enough.
        document["security"] = [] if operation.is_open else [{name: []} for name in KEYS]
    return document


def _parameter(parameter: ParameterSpec, examples: Sequence[Example]) -> Document:
    document: Document = {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }
    values = {
        value: {"summary": example.summary, "value": value}
        for example in examples
        for name, value in {**example.headers, **example.query, **example.path}.items()
        if name == parameter.name
    }
    if values:
        document["examples"] = {str(number): value for number, value in enumerate(values.values(), 1)}
    return document


def _body(body: BodySpec, examples: Sequence[Example]) -> Document:
    def content(model: type[BaseModel], form: bool) -> Document:
        return {
            "schema": _ref(model),
            "examples": {
                # OpenAPI has no field for the headers of an example.
                str(number): {
                    "summary": example.summary,
                    "value": dict(example.body),
                    **({"x-headers": dict(example.headers)} if example.headers else {}),
                }
                for number, example in enumerate(examples, 1)
                if example.body is not None and example.form is form
            },
        }

    types = {FORM: content(body.form or body.json, form=True)}
    return {
        "required": body.required,
        "content": types if body.only_form else {JSON: content(body.json, False), **types},
    }


def _responses(replies: Iterable[ReplySpec], errors: Iterable[type[DreamLayerError]]) -> Document:
    responses: Document = {}
    for reply in replies:
        content: Document = {} if reply.model is None else {JSON: {"schema": _ref(reply.model)}}
        content |= {name: {"schema": dict(schema)} for name, schema in reply.types.items()}
        responses[str(reply.status)] = {"description": reply.description}
        if content:
            responses[str(reply.status)]["content"] = content
        if reply.headers:
            responses[str(reply.status)]["headers"] = {name: _header(name) for name in reply.headers}
    by_status: dict[int, dict[str, str]] = defaultdict(dict)
    listed = list(errors)
    if EngineUnavailable in listed:
        # A route that calls the engine may also find that it refuses our token.
        listed.append(EngineDenied)
    for error in listed:
        by_status[error.status][error.code] = (error.__doc__ or "").split("\n")[0]
    for status, meanings in sorted(by_status.items()):
        error_response = _error(meanings, retry=status in (429, 503))
        if str(status) in responses:
            # The route has a reply with this status, too.
            error_response["content"][JSON]["schema"] = {
                "anyOf": [responses[str(status)]["content"][JSON]["schema"], _ref(ErrorReply)]
            }
            error_response["description"] = f"{responses[str(status)]['description']}; {error_response['description']}"
        responses[str(status)] = error_response
    return responses


def _error(meanings: Mapping[str, str], *, retry: bool) -> Document:
    document: Document = {
        "description": "  \n".join(f"`{code}`: {meaning}" for code, meaning in meanings.items()),
        "content": {JSON: {"schema": _ref(ErrorReply)}},
    }
    if retry:
        document["headers"] = {"Retry-After": _header("Retry-After")}
    return document


def _header(name: str) -> Document:
    return {"description": HEADERS[name], "schema": {"type": "string"}}


def _ref(model: type[BaseModel]) -> Document:
    return {"$ref": REF.format(model=model.__name__)}


def _schemas(operations: Iterable[Operation]) -> Document:
    """The schemas of all models that the operations refer to, and of the models inside those."""
    bodies: dict[type[BaseModel], None] = {}
    replies: dict[type[BaseModel], None] = {ErrorReply: None}
    for operation in operations:
        if operation.body is not None:
            bodies |= dict.fromkeys((operation.body.json, operation.body.form or operation.body.json))
        replies |= dict.fromkeys(reply.model for reply in operation.replies if reply.model is not None)
        replies |= dict.fromkeys(part for reply in operation.replies for part in reply.parts)
    # The names of a body's fields; their aliases are other accepted names.
    return {**_json_schemas(bodies, by_alias=False), **_json_schemas(replies, by_alias=True)}


def _json_schemas(models: Iterable[type[BaseModel]], *, by_alias: bool) -> Document:
    named = [(model, "validation") for model in models]
    schemas: Document = models_json_schema(named, by_alias=by_alias, ref_template=REF)[1].get("$defs", {})  # type: ignore[arg-type]
    return schemas
