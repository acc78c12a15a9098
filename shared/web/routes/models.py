"""Models: what the engine has, and uploads of model files.

A file is streamed to the disk, checked, and put where the engine finds it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import IO, Annotated

from flask import Blueprint, Response, current_app, jsonify, request
from pydantic import Field
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from shared.engine.catalog import EngineCatalog
from shared.errors import (
    AlreadyThere,
    BodyTooLarge,
    EngineError,
    EngineUnavailable,
    InvalidValue,
    RequestError,
    StorageFailed,
    UnsupportedBody,
)
from shared.files import write_error
from shared.models.detect import MODEL_KINDS
from shared.models.storage import (
    check_content,
    check_space,
    move_into_place,
    parse_file_name,
    parse_kind,
    temporary_path,
)
from shared.schema.body import RequestBody
from shared.schema.control_replies import ControlNetsReply, ModelsReply, ModelUploadReply
from shared.settings import Settings
from shared.web.backend import current_backend
from shared.web.body import refuse_twice
from shared.web.openapi.components import BODY_ERRORS, File
from shared.web.openapi.operation import BodySpec, Example, ReplySpec, View, describe
from shared.web.parsing.models import default_first

ROUTE = "/api/upload-model"
MB = 1024 * 1024
# What a form takes beside its file.
FORM = MB
MOST_PARTS = 10
# The key of the uploads in an application's extensions.
UPLOADS = "model_uploads"

model_routes = Blueprint("models", __name__)
controlnet_routes = Blueprint("controlnet-models", __name__)


def _describe_list(reply: type[ModelsReply | ControlNetsReply]) -> Callable[[View], View]:
    return describe(
        "Models",
        ReplySpec("the models", reply),
        examples=(Example("Ask"),),
        errors=(EngineUnavailable,),
    )


@model_routes.get("/api/models")
@_describe_list(ModelsReply)
def list_checkpoints() -> Response:
    """What the engine has in checkpoints."""
    backend = current_backend()
    # The page preselects the first.
    names = backend.catalog.names("checkpoints", 0.0)
    return _model_list(default_first(names, backend.settings.checkpoint, backend.catalog, str))


@model_routes.get("/api/lora-models")
@_describe_list(ModelsReply)
def list_loras() -> Response:
    """What the engine has in loras."""
    return _model_list(current_backend().catalog.names("loras", 0.0))


@model_routes.get("/api/upscaler-models")
@_describe_list(ModelsReply)
def list_upscalers() -> Response:
    """What the engine has in upscale_models."""
    return _model_list(current_backend().catalog.names("upscale_models", 0.0))


def _model_list(names: list[str]) -> Response:
    models = [{"id": name, "name": PurePath(name).stem, "filename": name} for name in names]
    return jsonify({"status": "success", "models": models})


@controlnet_routes.get("/api/controlnet/models")
@_describe_list(ControlNetsReply)
def list_controlnets() -> Response:
    """What the engine has in controlnet."""
    # Plain names, for the page cannot show objects here.
    return jsonify({"status": "success", "models": current_backend().catalog.names("controlnet", 0.0)})


class ModelUploadForm(RequestBody):
    """A model file."""

    file: Annotated[File, Field(description="a safetensors file")]
    model_type: Annotated[
        str, Field(description="the folder it belongs in", json_schema_extra={"enum": list(MODEL_KINDS)})
    ]


@model_routes.post(ROUTE)
@describe(
    "Models",
    ReplySpec("it is there", ModelUploadReply),
    examples=(Example("A LoRA", {"file": "example.safetensors", "model_type": "loras"}, form=True),),
    body=BodySpec(ModelUploadForm, only_form=True),
    errors=(*BODY_ERRORS, AlreadyThere, StorageFailed),
)
def upload_model() -> Response:
    """Put a model file where the engine finds it."""
    uploads: ModelUploads = current_app.extensions[UPLOADS]
    return uploads.take()


class ModelUploads:
    """Takes model files into the models folder; `catalog` tells what the engine has already, and sees what is new."""

    def __init__(self, settings: Settings, catalog: EngineCatalog) -> None:
        self._settings = settings
        self._catalog = catalog
        # On the same disk as the models, so that a file is moved there in one step.
        self._incoming = settings.models_dir / ".incoming"

    @property
    def largest(self) -> int:
        """Bytes of the largest body."""
        return self._settings.max_model_mb * MB + FORM

    def large_body(self, path: str, headers: Mapping[str, str]) -> tuple[int, Path] | None:
        """For the server, before it takes in a body that the guard lets in: how large it may be, and where it is put.

        None, which means as small as all others, when there is no room for it.
        """
        if path != ROUTE:
            return None
        try:
            check_space(self._incoming, 2 * _length(headers.get("CONTENT_LENGTH")))
        except StorageFailed:
            return None
        # The server takes its limit for the first size that is too large.
        return self.largest + 1, self._incoming

    def sweep(self) -> None:
        """Removes what an interrupted upload left. Call it when no upload can be on its way."""
        for path in self._incoming.glob(".*.part"):
            path.unlink(missing_ok=True)

    def take(self) -> Response:
        """Answers the request at hand."""
        size = request.content_length or 0
        if size > self.largest:
            raise BodyTooLarge(
                f"the file has more than {self._settings.max_model_mb} MB",
                hint="copy it into data/models yourself, or raise DREAM_LAYER_MAX_MODEL_MB",
            )
        if request.mimetype != "multipart/form-data":
            raise UnsupportedBody("a model comes as a form", hint="send multipart/form-data with file and model_type")
        check_space(self._incoming, size)
        written: list[tuple[Path, IO[bytes]]] = []

        def write_aside(
            total_content_length: int | None,  # noqa: ARG001 - werkzeug calls it with these names
            content_type: str | None,  # noqa: ARG001
            filename: str | None,  # noqa: ARG001
            content_length: int | None = None,  # noqa: ARG001
        ) -> IO[bytes]:
            path = temporary_path(self._incoming)
            written.append((path, path.open("w+b")))
            return written[-1][1]

        try:
            self._incoming.mkdir(parents=True, exist_ok=True)
            request.max_content_length = self.largest
            parser = FormDataParser(
                stream_factory=write_aside, max_form_memory_size=FORM, max_form_parts=MOST_PARTS, silent=False
            )
            _, form, sent = parser.parse(
                request.stream, request.mimetype, request.content_length, request.mimetype_params
            )
            refuse_twice(name for part in (form, sent) for name, _ in part.items(multi=True))
            file = sent.get("file")
            path = next((path for path, stream in written if file is not None and stream is file.stream), None)
            if file is None or path is None or not file.filename:
                raise InvalidValue("file is missing", field="file", hint="send a form with a file named file")
            return self._keep(path, file, form.get("model_type"))
        except RequestEntityTooLarge as error:
            raise RequestError("the form has more than a model", hint="send only file and model_type") from error
        except ValueError as error:
            # The server takes in no large body that has not room twice, and there is nothing to be read then.
            check_space(self._incoming, 2 * size)
            raise RequestError("the form cannot be read", hint="send it with file and model_type") from error
        except OSError as error:
            raise write_error("the model", error, self._incoming, size) from error
        finally:
            for path, stream in written:
                stream.close()
                path.unlink(missing_ok=True)

    def _keep(self, path: Path, file: FileStorage, model_type: str | None) -> Response:
        kind = parse_kind(model_type)
        name = parse_file_name(file.filename or "", self._settings.model_suffixes)
        if name in self._listed(kind):
            raise AlreadyThere(
                f"the engine has a {name} already", field="file", hint="rename yours, or remove the one that is there"
            )
        file.stream.flush()
        os.fsync(file.stream.fileno())
        file.close()
        warnings = check_content(path, name, kind)
        kept = move_into_place(path, self._settings.models_dir / kind, name)
        listed = name in self._listed(kind)
        return jsonify(
            {
                "status": "success",
                "message": f"{name} {'can be used now' if listed else 'is kept, but the engine does not list it yet'}",
                "filename": name,
                "original_filename": file.filename,
                "display_name": PurePath(name).stem,
                "model_type": kind,
                "filepath": f"{kind}/{name}",
                "size": kept.stat().st_size,
                "listed": listed,
                "warnings": warnings,
            }
        )

    def _listed(self, kind: str) -> list[str]:
        """What the engine has of a kind now; nothing while it is away."""
        try:
            return self._catalog.names(kind, 0.0)
        except EngineError:
            return []


def _length(header: str | None) -> int:
    return int(header) if header is not None and header.isascii() and header.isdecimal() and len(header) < 18 else 0
