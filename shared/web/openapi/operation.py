"""The OpenAPI operation of a view: what it takes, what it returns, and examples of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import cleandoc
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from flask import Flask
from pydantic import BaseModel

from shared.errors import DreamLayerError

JSON = "application/json"
REF = "#/components/schemas/{model}"
FORM = "multipart/form-data"

# The groups of operations, in the order of the document and of its page.
Tag = Literal["Generate", "Pictures", "Jobs", "Workflows", "Models", "Web page", "Engine", "System"]
TAGS: tuple[Tag, ...] = get_args(Tag)
# The headers of replies, with their descriptions.
HEADERS: Mapping[str, str] = {
    "X-Job-Id": "the id of the job",
    "X-Seed": "the seed of the picture",
    "X-Warnings": "the warnings of the job as a JSON list, cut to 3500 characters",
    "Content-Location": "the URL of the picture",
    "Link": 'the URLs of the other pictures, with `rel="alternate"`',
    "Location": "the URL of the job, or of the page",
    "Retry-After": "seconds to wait before the next try",
}
View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True)
class Example:
    """A valid request, which a test sends.

    `path` and `query` are values of parameters. `body` is sent as a form if `form` is set, with names in place of
    files. `status` is that of the reply on a machine without a desktop.
    """

    summary: str
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    form: bool = False
    status: int = 200


@dataclass(frozen=True)
class ParameterSpec:
    """A parameter in the path or the query, or a header of the request."""

    name: str
    place: Literal["path", "query", "header"]
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True)
class ReplySpec:
    """A reply that is not an error: JSON of `model`, other types with their schemas in `types`, or no content.

    `parts` are the models that the schemas of `types` refer to.
    """

    description: str
    model: type[BaseModel] | None = None
    types: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    status: int = 200
    parts: tuple[type[BaseModel], ...] = ()


@dataclass(frozen=True)
class BodySpec:
    """The body of a request: the model of its JSON, and that of its form if it differs because it may have files."""

    json: type[BaseModel]
    form: type[BaseModel] | None = None
    required: bool = True
    only_form: bool = False


@dataclass(frozen=True)
class Operation:
    """The description of a view, without its method and path. `errors` leaves out those that every view may return."""

    tag: Tag
    summary: str
    description: str
    replies: tuple[ReplySpec, ...]
    examples: tuple[Example, ...]
    body: BodySpec | None
    parameters: tuple[ParameterSpec, ...]
    errors: tuple[type[DreamLayerError], ...]
    is_open: bool
    """Whether it needs no API key."""


class Route(NamedTuple):
    """A method and a path in Flask's syntax, with the operation of its view, or None if the view has none."""

    method: str
    path: str
    operation: Operation | None


def describe(
    tag: Tag,
    *replies: ReplySpec,
    examples: tuple[Example, ...],
    body: BodySpec | None = None,
    parameters: tuple[ParameterSpec, ...] = (),
    errors: tuple[type[DreamLayerError], ...] = (),
    is_open: bool = False,
) -> Callable[[View], View]:
    """Attach an operation to a view, whose docstring is the summary (its first line) and the description.

    Use it below the decorator that gives the view its method and path.
    """

    def attach(view: View) -> View:
        summary, _, description = cleandoc(view.__doc__ or "").partition("\n\n")
        view.operation = Operation(  # type: ignore[attr-defined]
            tag=tag,
            summary=summary.removesuffix("."),
            description=" ".join(description.split()),
            replies=replies,
            examples=examples,
            body=body,
            parameters=parameters,
            errors=errors,
            is_open=is_open,
        )
        return view

    return attach


def list_routes(app: Flask) -> list[Route]:
    """List the routes of an application in the order of their registration."""
    return [
        Route(method, rule.rule, getattr(app.view_functions[rule.endpoint], "operation", None))
        for rule in app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
    ]
