"""Pictures: downloads, uploads, and the actions of the web page on a picture."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from flask import Blueprint, Response, jsonify, request
from pydantic import Field

from shared.errors import (
    Busy,
    EngineUnavailable,
    InvalidPicture,
    InvalidValue,
    NotFound,
    NotPossible,
    NotSupported,
    StorageFailed,
)
from shared.images.decode import read_picture
from shared.images.encode import FORMATS_BY_EXTENSION
from shared.jobs.job import JobRow
from shared.jobs.picture_names import locate
from shared.schema.body import RequestBody
from shared.schema.choices import find_choice
from shared.schema.control_replies import SentReply, ShownReply
from shared.schema.field_names import hint_unknown_names
from shared.schema.ranges import PictureText
from shared.schema.replies import UploadReply
from shared.web.backend import Backend, current_backend
from shared.web.callers import is_local
from shared.web.openapi.components import BINARY, BODY_ERRORS, PICTURE, PictureFile
from shared.web.openapi.operation import BodySpec, Example, ParameterSpec, ReplySpec, describe
from shared.web.parsing.pictures import upload_name
from shared.web.picture_reply import download_name, named_picture
from shared.web.reply import FORMATS, picture_facts
from shared.web.request_body import json_kind, read_fields

ONE_YEAR = 365 * 24 * 3600
# Values of `?download=`.
DOWNLOAD = {"": True, "1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
FILENAME_HINT = "send the filename of a picture in a reply"
FILENAME_SYNONYMS = dict.fromkeys(("file", "name", "image", "picture", "path", "url", "imagename"), ("filename",))
SAMPLE = "20261122-143210-3f2a9c1e0b7d_00001_.png"

picture_routes = Blueprint("pictures", __name__)
picture_page_routes = Blueprint("picture-page", __name__)


_describe_image = describe(
    "Pictures",
    ReplySpec("the picture", types=dict.fromkeys(FORMATS, BINARY)),
    examples=(Example("A generated picture", path={"name": SAMPLE}),),
    parameters=(
        ParameterSpec(
            "name", "path", "the `filename` of a picture in a reply; its extension may be .webp or .jpg instead"
        ),
        ParameterSpec(
            "download", "query", "1: reply with a file to save, not with a picture to show", {"enum": ["1", "0"]}
        ),
    ),
    errors=(NotFound, InvalidValue, Busy, EngineUnavailable),
)


@picture_routes.get("/api/images/<name>")
@_describe_image
def get_image(name: str) -> Response:
    """Get a picture."""
    backend = current_backend()
    stem, _, ending = name.rpartition(".")
    output = FORMATS_BY_EXTENSION.get(ending.lower())
    image = None if output is None else locate(f"{stem}.png")
    if image is None or output is None:
        raise NotFound(f"{name} is not the name of a picture", hint="use the URL in a reply")
    row, download = backend.jobs.find_by_picture(image.filename), wants_download()
    # A picture of this name never changes, so browsers may cache it.
    response = named_picture(backend, image, output, row, max_age=ONE_YEAR)
    if response is None:
        raise NotFound(f"there is no picture {name}", hint="it may have been deleted")
    offered = _offered_name(backend, image.filename, row, download=download)
    if offered is not None:
        kind = "attachment" if download else "inline"
        response.headers["Content-Disposition"] = f"{kind}; filename*=UTF-8''{quote(f'{offered}.{ending}', safe='')}"
    return response


@picture_routes.get("/images/<name>")
@_describe_image
def get_page_image(name: str) -> Response:
    """Get a picture, at the path that the web page uses."""
    return get_image(name)


def wants_download() -> bool:
    """Whether the query asks for a file to save (`?download=1`) in place of a picture to show. Raises InvalidValue."""
    sent = request.args.get("download")
    if sent is None:
        return False
    wants = DOWNLOAD.get(find_choice(sent, DOWNLOAD) or sent)
    if wants is None:
        raise InvalidValue(f"download {sent!r} is neither 1 nor 0", field="download", hint="use ?download=1")
    return wants


def _offered_name(backend: Backend, filename: str, row: JobRow | None, *, download: bool) -> str | None:
    """The name for saving a picture, without its extension; None to leave it to the browser."""
    name_format = backend.paths.read().filename_format
    if name_format is not None:
        facts = {} if row is None else _name_facts(row, picture_facts(row, filename, backend.jobs))
        return download_name(name_format, filename, facts)
    return filename.removesuffix(".png") if download else None


def _name_facts(row: JobRow, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters and the facts of a picture; the facts alone decide the seed and size of an imported graph."""
    measured = ("seed", "width", "height") if row.has_imported_graph else ()
    return {**{name: value for name, value in row.spec.parameters.items() if name not in measured}, **facts}


class UploadBody(RequestBody):
    """A picture."""

    file: Annotated[PictureText, Field(description="data URL or base64")]


class UploadForm(RequestBody):
    """A picture as a file."""

    file: Annotated[PictureFile, Field(description="the picture")]


@picture_routes.post("/api/upload-controlnet-image")
@describe(
    "Pictures",
    ReplySpec("the name of the upload", UploadReply),
    examples=(Example("A picture", {"file": PICTURE}),),
    body=BodySpec(UploadBody, UploadForm),
    errors=(*BODY_ERRORS, StorageFailed),
)
def upload_picture() -> Response:
    """Upload a picture, which later requests can use by name."""
    backend = current_backend()
    content = read_fields(request).picture("file", "image")
    if content is None:
        raise InvalidPicture("file is missing", field="file", hint="send a form with a file named file")
    # It is decoded now, so that an unusable picture is refused here and not when a request uses it.
    picture = read_picture(content, "file", budget=backend.picture_memory)
    name = upload_name(content)
    backend.jobs.store_upload(name, content)
    reply = {"status": "success", "message": "the picture is uploaded", "filename": name}
    return jsonify({**reply, "width": picture.width, "height": picture.height})


class PictureName(RequestBody):
    """A generated picture."""

    filename: Annotated[str, Field(description="the `filename` of a picture in a reply")]


@picture_page_routes.post("/api/show-in-folder")
@describe(
    "Web page",
    ReplySpec("the folder is open", ShownReply),
    examples=(Example("A generated picture", {"filename": SAMPLE}, status=409),),
    body=BodySpec(PictureName),
    errors=(*BODY_ERRORS, NotFound, NotPossible),
)
def show_in_folder() -> Response:
    """Open the folder of a picture in the file manager of the service's machine."""
    backend = current_backend()
    name = _saved_name(_read_filename())
    path = backend.jobs.picture_path(name)
    if path is None:
        _check_exists(backend, name)
        raise NotPossible("the picture is on the machine of the engine")
    if not is_local(request):
        raise NotPossible("the file manager would open on the machine of the service, not on yours")
    show_in_file_manager(path)
    return jsonify({"status": "success", "message": "the folder is open", "filename": name})


_describe_sending = describe(
    "Web page",
    ReplySpec("the picture exists", SentReply),
    examples=(Example("A generated picture", {"filename": SAMPLE}),),
    body=BodySpec(PictureName),
    errors=(*BODY_ERRORS, NotFound),
)


@picture_page_routes.post("/api/send-to-img2img")
@_describe_sending
def send_to_img2img() -> Response:
    """Get the URL of a picture for the img2img tab."""
    return _send_to_tab("img2img")


@picture_page_routes.post("/api/send-to-extras")
@_describe_sending
def send_to_extras() -> Response:
    """Get the URL of a picture for the extras tab."""
    return _send_to_tab("extras")


class Img2TxtBody(RequestBody):
    """A picture to describe, as the web page sends it."""

    input_image: Annotated[PictureText, Field(description="data URL")] = ""
    prompt: str = ""
    model: str = ""
    seed: int = -1


@picture_page_routes.post("/api/img2txt")
@describe(
    "Web page",
    examples=(Example("A picture", {"input_image": PICTURE, "prompt": "what is this?"}, status=501),),
    body=BodySpec(Img2TxtBody, required=False),
    errors=(NotSupported,),
)
def describe_picture() -> Response:
    """Describe a picture; always fails, because there is no model for it."""
    raise NotSupported(
        "img2txt is not available: there is no model that describes pictures",
        hint="use POST /api/png-info to read the prompt of a generated picture",
    )


def _send_to_tab(tab: str) -> Response:
    backend = current_backend()
    name = _read_filename()
    _check_exists(backend, name)
    url = backend.urls().image(name)
    return jsonify({"status": "success", "message": f"sent to {tab}", "filename": name, "url": url})


def file_manager_command(path: Path, platform: str, environ: Mapping[str, str]) -> list[str] | None:
    """The command that shows a file in its folder; None without a desktop."""
    if platform == "darwin":
        return ["open", "-R", str(path)]
    if platform == "win32":
        return ["explorer", f"/select,{path}"]
    if environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"):
        opener = shutil.which("xdg-open", path=environ.get("PATH"))
        # It cannot select a file.
        return None if opener is None else [opener, str(path.parent)]
    return None


def show_in_file_manager(path: Path) -> None:
    """Show a file in the file manager. Raises NotPossible, with the path of the file, if there is none."""
    command = file_manager_command(path, sys.platform, os.environ)
    try:
        if command is None:
            raise NotPossible("the machine of the service has no desktop", hint=f"open {path}", path=str(path))
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # It may stay open; the thread reaps the process when it ends.
        threading.Thread(target=process.wait, name="file-manager", daemon=True).start()
    except OSError as error:
        raise NotPossible(
            f"the file manager could not be opened: {error.strerror}", hint=f"open {path}", path=str(path)
        ) from error


def _read_filename() -> str:
    """Read the name of a picture from the body. It has our format, so it is not a path."""
    values = read_fields(request).values
    name = values.get("filename")
    if name is not None and not isinstance(name, str):
        raise InvalidValue(f"filename must be text, not {json_kind(name)}", field="filename", hint=FILENAME_HINT)
    if not name:
        instead = hint_unknown_names("filename", values, ["filename"], FILENAME_SYNONYMS)
        hint = FILENAME_HINT if instead is None else f"{instead}; {FILENAME_HINT}"
        raise InvalidValue("filename is missing", field="filename", hint=hint)
    if locate(_saved_name(name)) is None:
        raise NotFound("filename is not the name of a generated picture", field="filename", hint=FILENAME_HINT)
    return name


def _saved_name(name: str) -> str:
    """The name of the saved file: the web page may use the extension of another format."""
    stem, _, ending = name.rpartition(".")
    return f"{stem}.png" if ending in FORMATS_BY_EXTENSION else name


def _check_exists(backend: Backend, name: str) -> None:
    """Raise NotFound if there is no such picture."""
    image = locate(_saved_name(name))
    if image is None or backend.jobs.picture(image) is None:
        raise NotFound(f"there is no picture {name}", field="filename", hint="it may have been deleted")
