"""Named workflows: graphs with declared parameters, each of which is a route. Pure.

    {"dream_layer": {"title": "A badge", "description": "...",
                     "parameters": {"words": {"type": "string", "required": true, "targets": ["6.text"]}}},
     "prompt": <a graph in ComfyUI's API format>}

Without the header `dream_layer`, the parameters are the fields of a request that can be bound to the graph (see
`workflows.bindings`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from shared.errors import InvalidValue
from shared.graph_walk import ApiGraph, Target
from shared.schema.choices import find_choice
from shared.schema.field_names import GENERATION_SYNONYMS, MAX_NAMES, describe_unknown, hint_unknown_names, join_names
from shared.schema.ranges import MAX_SEED
from workflows.bindings import BINDABLE, PICTURES, Bindings, find_bindings
from workflows.imported_graph import read_graph

HEADER = "dream_layer"
WORKFLOW_FIELD = "workflow"
SEED = "seed"
PICTURE_TYPES = {"image": "input_image", "mask": "mask"}
PYTHON_TYPES: dict[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool}


class WorkflowParameter(BaseModel):
    """A parameter as declared in the header."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    type: Literal["string", "integer", "number", "boolean", "image", "mask"]
    description: str = ""
    default: str | bool | int | float | None = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    choices: tuple[str | int | float, ...] = ()
    required: bool = False
    targets: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_together(self) -> WorkflowParameter:
        if self.type not in ("integer", "number") and (self.minimum is not None or self.maximum is not None):
            raise ValueError(f"a {self.type} has no minimum or maximum")
        if self.type in PICTURE_TYPES and (self.default is not None or self.choices):
            raise ValueError("a picture has no default and no choices")
        return self


class WorkflowHeader(BaseModel):
    """The header of a workflow file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = ""
    description: str = ""
    parameters: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], WorkflowParameter] = {}


@dataclass(frozen=True)
class NamedWorkflow:
    """A named workflow with the inputs that each parameter sets."""

    name: str
    header: WorkflowHeader
    graph: ApiGraph
    targets: Mapping[str, tuple[Target, ...]]

    def schema(self) -> dict[str, Any]:
        """The JSON Schema (2020-12) of the parameters."""
        parameters = self.header.parameters
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {name: _schema(parameter) for name, parameter in parameters.items()},
            "required": [name for name, parameter in parameters.items() if parameter.required],
        }

    def read(self, values: Mapping[str, Any], random_seed: int) -> tuple[dict[str, Any], list[str]]:
        """Reads the values of all parameters but pictures. Returns them with warnings about unknown names.

        Raises InvalidValue.
        """
        valid: dict[str, Any] = {}
        for name, parameter in self.header.parameters.items():
            if parameter.type in PICTURE_TYPES:
                continue
            value = values.get(name)
            if value is None or (value == "" and parameter.type != "string"):
                if parameter.required:
                    raise InvalidValue(f"{name} is missing", field=name, hint=self.hint(name, values))
                value = parameter.default
            if _is_seed(name, parameter) and (value is None or str(value) == "-1"):
                value = _choose_seed(parameter, random_seed)
            if value is not None:
                valid[name] = _validate(name, parameter, value)
        unknown = [name for name in values if name not in self.header.parameters]
        return valid, [_unknown_names(unknown, list(self.header.parameters))] if unknown else []

    def hint(self, name: str, sent: Iterable[str]) -> str | None:
        """The hint for a missing parameter: similar names in `sent`, and the description of the parameter."""
        instead = hint_unknown_names(name, sent, self.header.parameters.keys(), GENERATION_SYNONYMS)
        return "; ".join(filter(None, [instead, self.header.parameters[name].description])) or None


def read_workflow(name: str, content: Any) -> NamedWorkflow:
    """The workflow in the content of a file. Raises InvalidValue if it is not valid."""
    graph = read_graph(content.get("prompt") if _has_header(content) else content, WORKFLOW_FIELD)
    bindings = find_bindings(graph)
    if not _has_header(content):
        header = WorkflowHeader(title=name, parameters=_bound_parameters(graph, bindings))
    else:
        try:
            header = WorkflowHeader.model_validate(content[HEADER])
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in (HEADER, *first["loc"]))
            raise InvalidValue(
                f"{where}: {first['msg'].removeprefix('Value error, ')}", field=WORKFLOW_FIELD
            ) from error
    targets = {key: _targets(graph, key, parameter, bindings) for key, parameter in header.parameters.items()}
    for key, parameter in header.parameters.items():
        if parameter.default is not None and not (_is_seed(key, parameter) and parameter.default == -1):
            _validate(key, parameter, parameter.default)
    return NamedWorkflow(name, header, graph, targets)


def _has_header(content: Any) -> bool:
    return isinstance(content, dict) and HEADER in content


def _targets(graph: ApiGraph, name: str, parameter: WorkflowParameter, bindings: Bindings) -> tuple[Target, ...]:
    """The inputs that a parameter sets: those that it names, or those of the field with its name."""
    if not parameter.targets:
        if name in bindings.targets:
            return tuple(bindings.targets[name])
        reason = bindings.reasons.get(name, "it is not a field of a request, which would be bound by its name")
        raise InvalidValue(
            f"parameter {name} has no targets: {reason}",
            field=WORKFLOW_FIELD,
            hint='add "targets": ["<node id>.<input>"]',
        )
    found = []
    for target in parameter.targets:
        # Node ids and input names may contain dots.
        cuts = [at for at, letter in enumerate(target) if letter == "." and target[:at] in graph]
        node, key = (target[: cuts[0]], target[cuts[0] + 1 :]) if cuts else (target, "")
        if not cuts or not key:
            raise InvalidValue(
                f"parameter {name} has the target {target!r}, but the graph has no such node",
                field=WORKFLOW_FIELD,
                hint=f"use <node id>.<input>; the graph has the nodes {', '.join(list(graph)[:10])}",
            )
        found.append((node, key))
    return tuple(found)


def _bound_parameters(graph: ApiGraph, bindings: Bindings) -> dict[str, WorkflowParameter]:
    """The parameters of a graph without a header. Their defaults are the values in the graph."""
    parameters = {}
    for name, targets in bindings.targets.items():
        if name in PICTURES:
            # A mask that becomes the transparency of input_image is optional, because that picture may have its own.
            optional = name == "mask" and targets == bindings.targets.get("input_image")
            parameters[name] = WorkflowParameter(type="mask" if name == "mask" else "image", required=not optional)
        elif name in BINDABLE:
            value = graph[targets[0][0]]["inputs"].get(targets[0][1])
            has_default = name != SEED and isinstance(value, str | int | float)
            parameters[name] = WorkflowParameter(type=_type_of(name), default=value if has_default else None)
    return parameters


def _type_of(name: str) -> Literal["string", "integer", "number"]:
    if name in ("cfg_scale", "denoising_strength"):
        return "number"
    return "integer" if name in (SEED, "steps", "width", "height", "batch_size") else "string"


def _is_seed(name: str, parameter: WorkflowParameter) -> bool:
    return name == SEED and parameter.type == "integer"


def _choose_seed(parameter: WorkflowParameter, random_seed: int) -> Any:
    """A random seed among those that the parameter allows."""
    if parameter.choices:
        return parameter.choices[random_seed % len(parameter.choices)]
    low = int(parameter.minimum or 0)
    high = MAX_SEED if parameter.maximum is None else int(parameter.maximum)
    return low + random_seed % max(1, high - low + 1)


def _schema(parameter: WorkflowParameter) -> dict[str, Any]:
    described: dict[str, Any] = {"description": parameter.description} if parameter.description else {}
    if parameter.type in PICTURE_TYPES:
        return {**described, "type": "string", "contentEncoding": "base64", "contentMediaType": "image/*"}
    limits = {"minimum": parameter.minimum, "maximum": parameter.maximum, "default": parameter.default}
    declared = {key: value for key, value in limits.items() if value is not None}
    choices = {"enum": list(parameter.choices)} if parameter.choices else {}
    return {**described, "type": parameter.type, **declared, **choices}


def _validate(name: str, parameter: WorkflowParameter, value: Any) -> Any:
    """The value, converted to the type of the parameter. Raises InvalidValue with the range or the choices."""
    is_number = parameter.type in ("integer", "number")
    low, high = parameter.minimum, parameter.maximum
    if _is_seed(name, parameter):
        low, high = 0 if low is None else low, MAX_SEED if high is None else high
    kind: Any = PYTHON_TYPES[parameter.type]
    if is_number:
        kind = Annotated[kind, Field(ge=low, le=high, allow_inf_nan=False) if kind is float else Field(ge=low, le=high)]
    try:
        if is_number and isinstance(value, bool):
            raise ValueError("true and false are not numbers")
        valid = TypeAdapter(kind).validate_python(value)
    except ValueError as error:
        shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
        raise InvalidValue(
            f"{name} must be {_describe_type(parameter.type, low, high)}, not {shown}",
            field=name,
            hint="leave it out or send null to use the default" if not parameter.required else None,
        ) from error
    if parameter.type == "string" and parameter.choices:
        valid = find_choice(valid, map(str, parameter.choices)) or valid
    if parameter.choices and valid not in parameter.choices:
        options = [str(choice) for choice in parameter.choices]
        nearest = difflib.get_close_matches(str(valid), options, n=3, cutoff=0.4)
        raise InvalidValue(
            f"{name} {valid!r} does not exist",
            field=name,
            hint=f"use one of: {', '.join(nearest or options[:10])}",
            nearest=nearest or None,
        )
    return valid


def _describe_type(kind: str, low: float | None, high: float | None) -> str:
    noun = {"string": "text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}[kind]
    if low is not None and high is not None:
        return f"{noun} from {low} to {high}"
    return noun + (f" of at least {low}" if low is not None else f" of at most {high}" if high is not None else "")


def _unknown_names(names: list[str], known: list[str]) -> str:
    described = [describe_unknown(name, known, GENERATION_SYNONYMS) for name in names[:MAX_NAMES]] + names[MAX_NAMES:]
    return f"ignored unknown fields: {join_names(described)}"
