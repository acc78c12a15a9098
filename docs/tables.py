"""The tables of the pages in docs/ that are generated from the code: `python -m cogapp -r README.md docs/*.md`.

Each function returns one Markdown table between two blank lines. A page calls it in a comment:

    <!-- [[[cog
    from docs import tables
    cog.out(tables.settings("host", "*_port"))
    ]]] -->
    <!-- [[[end]]] -->

Names are patterns: `*` stands for any characters.
"""

import argparse
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

from launcher.arguments import build_parser
from shared.errors import DreamLayerError, SetupError
from shared.models.detect import MODEL_KINDS
from shared.models.downloadable import DOWNLOADABLE_MODELS
from shared.schema.ranges import MAX_SEED
from shared.schema.replies import EVENTS
from shared.settings import PREFIX, Settings
from shared.web.openapi.operation import HEADERS, Operation
from shared.web.route_table import routes_by_service

TYPES = {"boolean": "true or false", "integer": "whole number", "number": "number", "object": "object"}
FAULT = "A fault of this program. The log of the service has the traceback."


def fields(model: type[BaseModel], *names: str) -> str:
    """The fields of a request's body, or those that the patterns match."""
    properties = model.model_json_schema(by_alias=False)["properties"]
    rows = []
    for name in _select(names or ("*",), model.model_fields):
        field = model.model_fields[name]
        accepted = [name]
        if isinstance(field.validation_alias, AliasChoices):
            accepted += [str(choice) for choice in field.validation_alias.choices if choice != name]
        rows.append((_code(*accepted, joint=" or "), _type(properties[name]), _default(field), field.description or ""))
    return _table(("field", "type and range", "default", "what it does"), rows)


def settings(*names: str) -> str:
    """The settings that the patterns match, without their prefix."""
    rows = []
    for name in _select(names, Settings.model_fields):
        field = Settings.model_fields[name]
        default = "`data`" if name == "data_dir" else _default(field)
        rows.append((f"`{PREFIX}{name.upper()}`", default, field.description or ""))
    return _table(("setting", "default", "what it does"), rows)


def errors() -> str:
    """Every error that a service may answer with, by its status."""
    kinds: list[type[DreamLayerError]] = [DreamLayerError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    rows = [
        (str(kind.status), f"`{kind.code}`", FAULT if kind is DreamLayerError else _first_paragraph(kind))
        for kind in kinds
        if kind.__module__ == DreamLayerError.__module__ and kind is not SetupError
    ]
    return _table(("status", "`error.code`", "meaning"), sorted(rows))


def events() -> str:
    """The events of a job, in the order in which they come."""
    rows = []
    for name, model in EVENTS.items():
        parts = ["everything that the JSON of a waiting request has"] if name == "completed" else _event_fields(model)
        rows.append((f"`{name}`", _first_paragraph(model), "; ".join(parts)))
    return _table(("event", "when", "data"), rows)


def _event_fields(model: type[BaseModel]) -> list[str]:
    described = {name: field.description for name, field in model.model_fields.items() if name != "job_id"}
    return [f"`{name}`" + (f" ({text})" if text else "") for name, text in described.items()]


def routes(*paths: str) -> str:
    """The routes with these paths: the ports that answer them, and what they do."""
    ports: dict[tuple[str, str], list[str]] = {}
    summaries: dict[tuple[str, str], str] = {}
    for service, listed in routes_by_service().items():
        for route in listed:
            ports.setdefault((route.path, route.method), []).append(_port(service))
            summaries[route.path, route.method] = "" if route.operation is None else route.operation.summary
    rows = [
        (f"`{method} {path}`", ", ".join(sorted(ports[path, method])), summaries[path, method])
        for selected in _select(paths, dict.fromkeys(path for path, _ in ports))
        for path, method in ports
        if path == selected
    ]
    return _table(("request", "ports", "what it does"), rows)


def _port(service: str) -> str:
    return str(Settings.model_fields[f"{service}_port"].default)


def request_headers() -> str:
    """The headers that a request may carry."""
    described = {
        parameter.name: parameter.description
        for operation in _operations()
        for parameter in operation.parameters
        if parameter.place == "header"
    }
    return _table(("header", "meaning"), [(f"`{name}`", text) for name, text in described.items()])


def response_headers() -> str:
    """The headers of responses, beyond those that every response has."""
    return _table(("header", "meaning"), [(f"`{name}`", text) for name, text in HEADERS.items()])


def _operations() -> list[Operation]:
    routes = [route for listed in routes_by_service().values() for route in listed]
    return [route.operation for route in routes if route.operation is not None]


def commands() -> str:
    """The commands of dream_layer.py with their arguments, as `--help` shows them."""
    return _table(("command", "what it does"), _command_rows(build_parser(), ""))


def _command_rows(parser: argparse.ArgumentParser, prefix: str) -> list[tuple[str, str]]:
    """A row for each command, followed by a row for each of its options."""
    rows = []
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
        for name, command in action.choices.items():
            nested = _command_rows(command, f"{prefix}{name} ")
            if nested:
                rows += nested
                continue
            own = [argument for argument in command._actions if not isinstance(argument, argparse._HelpAction)]
            values = [argument for argument in own if not argument.option_strings]
            usage = [f"[{value.metavar}]" if value.nargs == "?" else str(value.metavar) for value in values]
            described = "".join(f". {value.metavar}: {value.help}" for value in values)
            rows.append((f"`{' '.join([prefix + name, *usage])}`", _sentence(helps[name]) + described))
            options = [argument for argument in own if argument.option_strings]
            rows += [(f"`{prefix}{name} {_option(option)}`", _sentence(option.help or "")) for option in options]
    return rows


def _option(option: argparse.Action) -> str:
    return option.option_strings[0] + ("" if option.nargs == 0 else f" {option.metavar or option.dest.upper()}")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def downloadable_models() -> str:
    """The models that `models add` knows by name."""
    rows = [
        (
            f"`{name}`",
            f"[{model.title}](https://huggingface.co/{model.repository})",
            f"{model.size / 1e9:.1f} GB" if model.size else "not known",
            model.licence,
            f"`{model.sha256[:10]}...`" if model.sha256 else "not known",
        )
        for name, model in DOWNLOADABLE_MODELS.items()
    ]
    return _table(("name", "model", "size", "licence", "SHA-256"), rows)


def model_folders() -> str:
    """The folders below data/models, in one line of code words."""
    return f"\n{_code(*MODEL_KINDS)}\n\n"


def _select(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """The names that match, in the order of the patterns. Raises ValueError for a pattern that matches none."""
    names = list(names)
    found: dict[str, None] = {}
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            raise ValueError(f"{pattern} matches nothing")
        found |= dict.fromkeys(matches)
    return list(found)


def _first_paragraph(documented: type) -> str:
    return (documented.__doc__ or "").partition("\n\n")[0].replace("\n    ", " ").strip()


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def _code(*words: str, joint: str = ", ") -> str:
    return joint.join(f"`{word}`" for word in words)


def _type(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in schema:
        schema = next(choice for choice in schema["anyOf"] if choice.get("type") != "null")
    if "enum" in schema:
        return _code(*schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return f"list of at most {schema['maxItems']}"
    if kind == "string":
        # The limit on a name's length tells nobody anything.
        return "text"
    words = TYPES.get(str(kind), "object")
    if "minimum" not in schema:
        return words
    highest = "2^64-1" if schema["maximum"] == MAX_SEED else f"{schema['maximum']:g}"
    return f"{words}, {schema['minimum']:g} to {highest}"


def _default(field: FieldInfo) -> str:
    default = field.default
    if field.is_required():
        return "required"
    if default is None or default in ("", ()):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        return f"`{','.join(map(str, default))}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
