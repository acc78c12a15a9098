"""Settings of the web page: folders, file names, and keys for other services."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from flask import Blueprint, Response, jsonify, request
from pydantic import Field

from shared.errors import InvalidValue, NotPossible, StorageFailed
from shared.files import is_folder
from shared.paths import ChosenPaths
from shared.schema.body import RequestBody
from shared.schema.choices import is_placeholder
from shared.schema.control_replies import KeyReply, PathsBody, PathsKeptReply, PathsReply
from shared.schema.field_names import describe_unknown
from shared.schema.ranges import is_text
from shared.web.backend import current_backend, current_manager
from shared.web.openapi.components import BODY_ERRORS
from shared.web.openapi.operation import BodySpec, Example, ReplySpec, describe
from shared.web.picture_reply import LONGEST_NAME_FORMAT, TOKENS, UNSAFE, unknown_tokens
from shared.web.request_body import read_fields

# Our names of the folders, by the names of the web page. All but the first are only read.
FOLDERS = {
    "outputDirectory": "output",
    "modelsDirectory": "models",
    "controlNetModelsPath": "controlnet",
    "upscalerModelsPath": "upscale_models",
    "vaeModelsPath": "vae",
    "loraEmbeddingsPath": "loras",
}
NAMES = (*FOLDERS, "filenameFormat", "saveMetadata")
LONGEST_PATH = 1000


settings_routes = Blueprint("settings", __name__)
# Serialises changes: each has to remember the output folder of the one before.
_lock = threading.Lock()


@settings_routes.get("/api/settings/paths")
@describe(
    "Web page",
    ReplySpec("the settings", PathsReply),
    examples=(Example("The settings"),),
)
def get_paths() -> Response:
    """Get the folders and other settings of the web page."""
    paths, pending = current_backend().paths.read(), current_manager().restart_pending
    return jsonify({"status": "success", "paths": describe_paths(paths), "restart_pending": pending})


@settings_routes.post("/api/settings/paths")
@describe(
    "Web page",
    ReplySpec("the settings are stored", PathsKeptReply),
    examples=(Example("Names of downloads", {"filenameFormat": "[date]-[seed]"}),),
    body=BodySpec(PathsBody),
    errors=(*BODY_ERRORS, NotPossible, StorageFailed),
)
def set_paths() -> Response:
    """Set the folders and other settings of the web page.

    Fields that are left out get their defaults. New folders take effect when the engine restarts, which it does by
    itself as soon as all jobs are finished.
    """
    file, manager = current_backend().paths, current_manager()
    chosen, warnings = read_paths(read_fields(request).values)
    check_folders(chosen)
    # The launcher cannot set the folders of an engine that it did not start.
    if not manager.is_ours and chosen.engine_paths != ChosenPaths().engine_paths:
        raise NotPossible(
            "folders and saveMetadata cannot be set, because the launcher did not start the engine",
            hint="leave the folders empty and saveMetadata true",
        )
    with _lock:
        earlier = file.read()
        chosen = chosen.after(earlier)
        file.write(chosen)
    restart = manager.is_ours and chosen.engine_paths != earlier.engine_paths
    if restart:
        manager.restart(when_idle=True)
    message = "stored; the engine restarts to use it as soon as all jobs are finished" if restart else "stored"
    return jsonify(
        {
            "status": "success",
            "message": message,
            "restart": restart,
            "paths": describe_paths(chosen),
            "warnings": warnings,
        }
    )


class NewKey(RequestBody):
    """A key for another service."""

    alias: str
    api_key: Annotated[str, Field(alias="api-key", description="never shown again; `api-key` is accepted too")]


@settings_routes.post("/api/add-api-key")
@describe(
    "Web page",
    ReplySpec("the key is stored", KeyReply),
    examples=(Example("A key", {"alias": "example", "api_key": "no real key"}),),
    body=BodySpec(NewKey),
    errors=(*BODY_ERRORS, StorageFailed),
)
def add_key() -> Response:
    """Store a key for another service."""
    values = read_fields(request).values
    replaced = current_backend().keys.add(values.get("alias"), values.get("api-key", values.get("api_key")))
    message = "the key is stored and replaces the earlier one" if replaced else "the key is stored"
    return jsonify({"status": "success", "message": message, "alias": str(values["alias"]).strip()})


def read_paths(values: Mapping[str, Any]) -> tuple[ChosenPaths, list[str]]:
    """Read the settings in a request, with warnings about fields that have no effect. Raises InvalidValue."""
    warnings = [f"ignored unknown fields: {describe_unknown(name, NAMES, {})}" for name in values if name not in NAMES]
    folders = {name: _read_folder(field, values.get(field)) for field, name in FOLDERS.items()}
    chosen_format = _read_text("filenameFormat", values.get("filenameFormat"), LONGEST_NAME_FORMAT)
    if chosen_format is not None:
        unknown = unknown_tokens(chosen_format)
        if unknown:
            warnings.append(f"filenameFormat: {', '.join(unknown)} is unknown; use {', '.join(TOKENS)}")
        if UNSAFE.search(chosen_format):
            warnings.append("filenameFormat: slashes and characters that file names cannot have become -")
    save = values.get("saveMetadata", True)
    if save not in (True, False, "true", "false"):
        raise InvalidValue("saveMetadata must be true or false", field="saveMetadata")
    return ChosenPaths(**folders, filename_format=chosen_format, save_metadata=save in (True, "true")), warnings


def check_folders(chosen: ChosenPaths) -> None:
    """Raise InvalidValue for a folder that does not exist or cannot be used."""
    for field, name in FOLDERS.items():
        folder: Path | None = getattr(chosen, name)
        if folder is None:
            continue
        if not is_folder(folder):
            raise InvalidValue(f"{field} is not a folder on this machine", field=field, hint="create it first")
        rights = os.R_OK | os.X_OK | (os.W_OK if name == "output" else 0)
        if not os.access(folder, rights):
            verb = "written" if name == "output" else "read"
            raise InvalidValue(f"{field} cannot be {verb} by this service", field=field)


def describe_paths(chosen: ChosenPaths) -> dict[str, Any]:
    """The settings by the names of the web page; None stands for the default."""
    folders = {field: getattr(chosen, name) for field, name in FOLDERS.items()}
    return {
        **{name: None if path is None else str(path) for name, path in folders.items()},
        "filenameFormat": chosen.filename_format,
        "saveMetadata": chosen.save_metadata,
    }


def _read_folder(field: str, value: Any) -> Path | None:
    text = _read_text(field, value, LONGEST_PATH)
    if text is None:
        return None
    path = Path(text)
    if not path.is_absolute() or ".." in path.parts or not text.isprintable():
        raise InvalidValue(
            f"{field} must be the absolute path of a folder", field=field, hint="for example /home/me/pictures"
        )
    return path


def _read_text(field: str, value: Any, max_length: int) -> str | None:
    """Read a text field; None if it is empty or still has the web page's placeholder."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > max_length or not is_text(value):
        raise InvalidValue(f"{field} must be text of at most {max_length} characters", field=field)
    text = value.strip()
    return None if not text or is_placeholder(text) else text
