"""What is told of a route."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from shared.errors import DreamLayerError

JSON = "application/json"
REF = "#/components/schemas/{model}"
FORM = "multipart/form-data"


@dataclass(frozen=True)
class Example:
    """A request that works; a test sends it. `path` and `query` fill parameters, `body` is sent as a form if `form`.

    Of a file, `body` has the name. A `status` of an error is what it gets on a machine without a desktop.
    """

    summary: str
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    form: bool = False
    status: int = 200


@dataclass(frozen=True)
class Parameter:
    """A part of the address, or a header of the request."""

    name: str
    place: Literal["path", "query", "header"]
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True)
class Reply:
    """An answer that is no error: JSON of that model, or `types` with the schema of each, or nothing at all."""

    description: str
    model: type[BaseModel] | None = None
    types: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    status: int = 200
    parts: tuple[type[BaseModel], ...] = ()
    """Models that the schemas of `types` refer to."""


@dataclass(frozen=True)
class Body:
    """The body of a request: as JSON, and as a form (where that differs, for it may hold files); or `only_form`."""

    json: type[BaseModel]
    form: type[BaseModel] | None = None
    required: bool = True
    only_form: bool = False


@dataclass(frozen=True)
class Operation:
    """A route. `path` is as Flask writes it; `errors` are those that it may answer with, beside the usual ones."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    tag: str
    summary: str
    replies: tuple[Reply, ...]
    examples: tuple[Example, ...]
    description: str = ""
    body: Body | None = None
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[type[DreamLayerError], ...] = ()
    open: bool = False
    """Whether it answers without the API key."""


# Headers of replies, by name.
HEADERS: Mapping[str, str] = {
    "X-Job-Id": "the job's id",
    "X-Seed": "the picture's seed",
    "X-Warnings": "what was ignored, rounded or unusual, as a JSON list, cut to 3500 characters",
    "Content-Location": "the picture's address",
    "Link": 'the other pictures\' addresses, with `rel="alternate"`',
    "Location": "the job's address, or the page's",
    "Retry-After": "seconds after which it is worth another try",
}
