"""What a user chooses on the web page: folders, file names, and keys for other services."""

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
from shared.schema.synonyms import describe_unknown
from shared.schema.units import is_text
from shared.web.backend import current_backend, current_manager
from shared.web.body import read_fields
from shared.web.download_names import LONGEST_FORMAT, TOKENS, UNSAFE, unknown_tokens
from shared.web.openapi.components import BODY_ERRORS
from shared.web.openapi.operation import BodySpec, Example, ReplySpec, describe

# The page's names, and ours. All but the first are only read from.
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
# Held from reading the earlier choice until the next one is written, which has to remember the earlier's folder.
_turn = threading.Lock()


@settings_routes.get("/api/settings/paths")
@describe(
    "Web page",
    ReplySpec("the choice", PathsReply),
    examples=(Example("Ask"),),
)
def get_paths() -> Response:
    """Which folders and habits were chosen."""
    paths, pending = current_backend().paths.read(), current_manager().restart_pending
    return jsonify({"status": "success", "paths": told(paths), "restart_pending": pending})


@settings_routes.post("/api/settings/paths")
@describe(
    "Web page",
    ReplySpec("it is kept", PathsKeptReply),
    examples=(Example("Names for downloads", {"filenameFormat": "[date]-[seed]"}),),
    body=BodySpec(PathsBody),
    errors=(*BODY_ERRORS, NotPossible, StorageFailed),
)
def set_paths() -> Response:
    """Choose folders and habits.

    What is left out gets its default. Other folders take effect when the engine is started again, which happens by
    itself as soon as no job is left.
    """
    file, manager = current_backend().paths, current_manager()
    chosen, warnings = read_paths(read_fields(request).values)
    check_folders(chosen)
    # An engine that was started elsewhere has folders of its own.
    if not manager.is_ours and chosen.engine_paths != ChosenPaths().engine_paths:
        raise NotPossible(
            "the engine was not started here, so its folders and saveMetadata cannot be set here",
            hint="leave the folders empty and saveMetadata true; filenameFormat can be set",
        )
    with _turn:
        earlier = file.read()
        chosen = chosen.after(earlier)
        file.write(chosen)
    restart = manager.is_ours and chosen.engine_paths != earlier.engine_paths
    if restart:
        manager.restart(when_idle=True)
    message = "kept; the engine uses it after a restart, as soon as no job is left" if restart else "kept"
    return jsonify(
        {"status": "success", "message": message, "restart": restart, "paths": told(chosen), "warnings": warnings}
    )


class NewKey(RequestBody):
    """A key for a service of others."""

    alias: str
    api_key: Annotated[str, Field(alias="api-key", description="never shown again; `api-key` is understood too")]


@settings_routes.post("/api/add-api-key")
@describe(
    "Web page",
    ReplySpec("it is kept", KeyReply),
    examples=(Example("A key", {"alias": "example", "api_key": "no real key"}),),
    body=BodySpec(NewKey),
    errors=(*BODY_ERRORS, StorageFailed),
)
def add_key() -> Response:
    """Keep a key for a service of others."""
    values = read_fields(request).values
    known = current_backend().keys.add(values.get("alias"), values.get("api-key", values.get("api_key")))
    message = "the key is kept in place of the earlier one" if known else "the key is kept"
    return jsonify({"status": "success", "message": message, "alias": str(values["alias"]).strip()})


def read_paths(values: Mapping[str, Any]) -> tuple[ChosenPaths, list[str]]:
    """The choice that a request makes, and what of it has no effect. Raises InvalidValue. Pure."""
    warnings = [
        f"ignored, because not known here: {describe_unknown(name, NAMES, {})}" for name in values if name not in NAMES
    ]
    folders = {ours: _folder(theirs, values.get(theirs)) for theirs, ours in FOLDERS.items()}
    chosen_format = _text("filenameFormat", values.get("filenameFormat"), LONGEST_FORMAT)
    if chosen_format is not None:
        unknown = unknown_tokens(chosen_format)
        if unknown:
            warnings.append(f"filenameFormat: {', '.join(unknown)} stands for nothing; there is {', '.join(TOKENS)}")
        if UNSAFE.search(chosen_format):
            warnings.append("filenameFormat: folders and characters that names cannot have become -")
    save = values.get("saveMetadata", True)
    if save not in (True, False, "true", "false"):
        raise InvalidValue("saveMetadata must be true or false", field="saveMetadata")
    return ChosenPaths(**folders, filename_format=chosen_format, save_metadata=save in (True, "true")), warnings


def check_folders(chosen: ChosenPaths) -> None:
    """Raises InvalidValue for a folder that is not there, or cannot be used."""
    for theirs, ours in FOLDERS.items():
        folder: Path | None = getattr(chosen, ours)
        if folder is None:
            continue
        if not is_folder(folder):
            raise InvalidValue(f"{theirs} is not a folder on this machine", field=theirs, hint="make it first")
        rights = os.R_OK | os.X_OK | (os.W_OK if ours == "output" else 0)
        if not os.access(folder, rights):
            verb = "written" if ours == "output" else "read"
            raise InvalidValue(f"{theirs} cannot be {verb} by this program", field=theirs)


def told(chosen: ChosenPaths) -> dict[str, Any]:
    """The choice in the page's words; null stands for the default."""
    folders = {theirs: getattr(chosen, ours) for theirs, ours in FOLDERS.items()}
    return {
        **{name: None if path is None else str(path) for name, path in folders.items()},
        "filenameFormat": chosen.filename_format,
        "saveMetadata": chosen.save_metadata,
    }


def _folder(field: str, value: Any) -> Path | None:
    text = _text(field, value, LONGEST_PATH)
    if text is None:
        return None
    path = Path(text)
    if not path.is_absolute() or ".." in path.parts or not text.isprintable():
        raise InvalidValue(f"{field} must be the whole path of a folder", field=field, hint="such as /home/me/pictures")
    return path


def _text(field: str, value: Any, longest: int) -> str | None:
    """A text field; None if it was left empty, or as the page had it."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > longest or not is_text(value):
        raise InvalidValue(f"{field} must be text of at most {longest} characters", field=field)
    text = value.strip()
    return None if not text or is_placeholder(text) else text
