"""Models: the lists of the engine's files, and the upload of new ones."""

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
    parse_model_type,
    temporary_path,
)
from shared.schema.body import RequestBody
from shared.schema.control_replies import ControlNetsReply, ModelsReply, ModelUploadReply
from shared.settings import Settings
from shared.web.backend import current_backend
from shared.web.openapi.components import BODY_ERRORS, File
from shared.web.openapi.operation import BodySpec, Example, ReplySpec, View, describe
from shared.web.parsing.models import default_first
from shared.web.request_body import refuse_duplicates

ROUTE = "/api/upload-model"
MB = 1024 * 1024
# The largest size of a form without its file.
FORM_OVERHEAD = MB
MOST_PARTS = 10
# The key of the model uploads in an application's extensions.
UPLOADS = "model_uploads"

model_routes = Blueprint("models", __name__)
controlnet_routes = Blueprint("controlnet-models", __name__)


def _describe_list(reply: type[ModelsReply | ControlNetsReply]) -> Callable[[View], View]:
    return describe(
        "Models",
        ReplySpec("the models", reply),
        examples=(Example("The list"),),
        errors=(EngineUnavailable,),
    )


@model_routes.get("/api/models")
@_describe_list(ModelsReply)
def list_checkpoints() -> Response:
    """List the checkpoints of the engine."""
    backend = current_backend()
    # The web page preselects the first.
    names = backend.catalog.names("checkpoints", 0.0)
    return _model_list(default_first(names, backend.settings.checkpoint, backend.catalog, str))


@model_routes.get("/api/lora-models")
@_describe_list(ModelsReply)
def list_loras() -> Response:
    """List the LoRAs of the engine."""
    return _model_list(current_backend().catalog.names("loras", 0.0))


@model_routes.get("/api/upscaler-models")
@_describe_list(ModelsReply)
def list_upscalers() -> Response:
    """List the upscale models of the engine."""
    return _model_list(current_backend().catalog.names("upscale_models", 0.0))


def _model_list(names: list[str]) -> Response:
    models = [{"id": name, "name": PurePath(name).stem, "filename": name} for name in names]
    return jsonify({"status": "success", "models": models})


@controlnet_routes.get("/api/controlnet/models")
@_describe_list(ControlNetsReply)
def list_controlnets() -> Response:
    """List the ControlNet models of the engine."""
    # Plain names: the web page cannot show objects here.
    return jsonify({"status": "success", "models": current_backend().catalog.names("controlnet", 0.0)})


class ModelUploadForm(RequestBody):
    """A model file."""

    file: Annotated[File, Field(description="a safetensors file")]
    model_type: Annotated[str, Field(description="the model folder", json_schema_extra={"enum": list(MODEL_KINDS)})]


@model_routes.post(ROUTE)
@describe(
    "Models",
    ReplySpec("the model is stored", ModelUploadReply),
    examples=(Example("A LoRA", {"file": "example.safetensors", "model_type": "loras"}, form=True),),
    body=BodySpec(ModelUploadForm, only_form=True),
    errors=(*BODY_ERRORS, AlreadyThere, StorageFailed),
)
def upload_model() -> Response:
    """Upload a model file."""
    uploads: ModelUploads = current_app.extensions[UPLOADS]
    return uploads.store()


class ModelUploads:
    """Stores uploaded model files in the models folder, after it has checked them on disk."""

    def __init__(self, settings: Settings, catalog: EngineCatalog) -> None:
        self._settings = settings
        self._catalog = catalog
        # On the same disk as the models, so that a file can be renamed into place.
        self._incoming = settings.models_dir / ".incoming"

    @property
    def largest(self) -> int:
        """The largest body in bytes."""
        return self._settings.max_model_mb * MB + FORM_OVERHEAD

    def large_body(self, path: str, headers: Mapping[str, str]) -> tuple[int, Path] | None:
        """For the server: the limit and the folder of a large body, before it reads the body of an allowed request.

        None means the common limit, also if the disk has no room.
        """
        if path != ROUTE:
            return None
        try:
            check_space(self._incoming, 2 * _parse_length(headers.get("CONTENT_LENGTH")))
        except StorageFailed:
            return None
        # The server refuses bodies of this size and larger.
        return self.largest + 1, self._incoming

    def sweep(self) -> None:
        """Remove the files of interrupted uploads. Call it while no upload can be running."""
        for path in self._incoming.glob(".*.part"):
            path.unlink(missing_ok=True)

    def store(self) -> Response:
        """Store the file of the current request, and reply."""
        size = request.content_length or 0
        if size > self.largest:
            raise BodyTooLarge(
                f"the file is larger than {self._settings.max_model_mb} MB",
                hint="copy it into data/models, or raise DREAM_LAYER_MAX_MODEL_MB",
            )
        if request.mimetype != "multipart/form-data":
            raise UnsupportedBody("the body is not a form", hint="send multipart/form-data with file and model_type")
        check_space(self._incoming, size)
        written: list[tuple[Path, IO[bytes]]] = []

        def open_part(
            total_content_length: int | None,  # noqa: ARG001 - werkzeug passes them by name
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
                stream_factory=open_part, max_form_memory_size=FORM_OVERHEAD, max_form_parts=MOST_PARTS, silent=False
            )
            _, form, sent = parser.parse(
                request.stream, request.mimetype, request.content_length, request.mimetype_params
            )
            refuse_duplicates(name for part in (form, sent) for name, _ in part.items(multi=True))
            file = sent.get("file")
            path = next((path for path, stream in written if file is not None and stream is file.stream), None)
            if file is None or path is None or not file.filename:
                raise InvalidValue("file is missing", field="file", hint="send a form with a file named file")
            return self._store(path, file, form.get("model_type"))
        except RequestEntityTooLarge as error:
            raise RequestError(
                "the form has more than a model file and its type", hint="send only file and model_type"
            ) from error
        except ValueError as error:
            # The server does not read a large body unless twice its size is free; then the form is empty.
            check_space(self._incoming, 2 * size)
            raise RequestError(
                "the form cannot be parsed", hint="send multipart/form-data with file and model_type"
            ) from error
        except OSError as error:
            raise write_error("the model", error, self._incoming, size) from error
        finally:
            for path, stream in written:
                stream.close()
                path.unlink(missing_ok=True)

    def _store(self, path: Path, file: FileStorage, model_type: str | None) -> Response:
        kind = parse_model_type(model_type)
        name = parse_file_name(file.filename or "", self._settings.model_suffixes)
        if name in self._listed(kind):
            raise AlreadyThere(
                f"the engine already has {name}", field="file", hint="rename your file, or remove the existing one"
            )
        file.stream.flush()
        os.fsync(file.stream.fileno())
        file.close()
        warnings = check_content(path, name, kind)
        stored = move_into_place(path, self._settings.models_dir / kind, name)
        listed = name in self._listed(kind)
        return jsonify(
            {
                "status": "success",
                "message": f"{name} {'is ready' if listed else 'is stored, but the engine does not list it yet'}",
                "filename": name,
                "original_filename": file.filename,
                "display_name": PurePath(name).stem,
                "model_type": kind,
                "filepath": f"{kind}/{name}",
                "size": stored.stat().st_size,
                "listed": listed,
                "warnings": warnings,
            }
        )

    def _listed(self, kind: str) -> list[str]:
        """The names of this kind that the engine lists now; none while it is unavailable."""
        try:
            return self._catalog.names(kind, 0.0)
        except EngineError:
            return []


def _parse_length(header: str | None) -> int:
    return int(header) if header is not None and header.isascii() and header.isdecimal() and len(header) < 18 else 0
