"""Pictures: read and uploaded, shown in their folder, and sent to another tab of the web page."""

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
    NotAcceptable,
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
from shared.schema.replies import UploadReply
from shared.schema.synonyms import hint_unknown_names
from shared.schema.units import PictureText
from shared.web.backend import Backend, current_backend
from shared.web.body import json_kind, read_fields
from shared.web.callers import is_local
from shared.web.download_names import title
from shared.web.openapi.components import BINARY, BODY_ERRORS, PICTURE, PictureFile
from shared.web.openapi.operation import BodySpec, Example, ParameterSpec, ReplySpec, describe
from shared.web.parsing.pictures import upload_name
from shared.web.picture_files import picture_file
from shared.web.reply import FORMATS, picture_facts

ONE_YEAR = 365 * 24 * 3600
# The words of `?download=`.
DOWNLOAD = {"": True, "1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
PICTURE_NAME = "send the filename of a picture in a reply"
FILE_NAMES = dict.fromkeys(("file", "name", "image", "picture", "path", "url", "imagename"), ("filename",))
SAMPLE = "20261122-143210-3f2a9c1e0b7d_00001_.png"

picture_routes = Blueprint("pictures", __name__)
picture_page_routes = Blueprint("picture-page", __name__)


_describe_image = describe(
    "Pictures",
    ReplySpec("the picture", types=dict.fromkeys(FORMATS, BINARY)),
    examples=(Example("A picture of a reply", path={"name": SAMPLE}),),
    parameters=(
        ParameterSpec("name", "path", "`filename` of a picture in a reply; it may end in .webp or .jpg"),
        ParameterSpec("download", "query", "1: a file to save, in place of a picture to show", {"enum": ["1", "0"]}),
    ),
    errors=(NotFound, InvalidValue, Busy, EngineUnavailable),
)


@picture_routes.get("/api/images/<name>")
@_describe_image
def get_image(name: str) -> Response:
    """A picture."""
    backend = current_backend()
    stem, _, ending = name.rpartition(".")
    output = FORMATS_BY_EXTENSION.get(ending.lower())
    image = None if output is None else locate(f"{stem}.png")
    if image is None or output is None:
        raise NotFound(f"{name} is not the name of a picture", hint="use the url of a reply")
    row, download = backend.jobs.of_picture(image.filename), wants_download()
    try:
        # A picture never changes under its name, so browsers may keep it.
        response = picture_file(backend, image, output, row, max_age=ONE_YEAR)
    except NotAcceptable as error:
        # Here it is the name that asks for a format.
        raise InvalidValue(error.message, field="name", hint=f"ask for {stem}.png") from error
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
    """The same, where the web page looks for it."""
    return get_image(name)


def wants_download() -> bool:
    """Whether the query asks for a file to save (`?download=1`) in place of a picture to show. Raises InvalidValue."""
    asked = request.args.get("download")
    if asked is None:
        return False
    wants = DOWNLOAD.get(find_choice(asked, DOWNLOAD) or asked)
    if wants is None:
        raise InvalidValue(f"download {asked!r} is neither 1 nor 0", field="download", hint="?download=1")
    return wants


def _offered_name(backend: Backend, filename: str, row: JobRow | None, *, download: bool) -> str | None:
    """The name to save a picture under, without its extension; None if it is shown under its own."""
    chosen = backend.paths.read().filename_format
    if chosen is not None:
        facts = {} if row is None else _title_facts(row, picture_facts(row, filename, backend.jobs.files.pictures))
        return title(chosen, filename, facts)
    return filename.removesuffix(".png") if download else None


def _title_facts(row: JobRow, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The request's parameters and the picture's own facts, which alone count for a graph of the client's own."""
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
    ReplySpec("its name", UploadReply),
    examples=(Example("A picture", {"file": PICTURE}),),
    body=BodySpec(UploadBody, UploadForm),
    errors=(*BODY_ERRORS, StorageFailed),
)
def upload_picture() -> Response:
    """Keep a picture that later requests may name."""
    backend = current_backend()
    content = read_fields(request).picture("file", "image")
    if content is None:
        raise InvalidPicture("file is missing", field="file", hint="send a form with a file named file")
    # Decoded whole, so that what cannot be used is refused now and not when it is named.
    picture = read_picture(content, "file", budget=backend.picture_memory)
    name = upload_name(content)
    backend.jobs.files.keep_alone(name, content)
    reply = {"status": "success", "message": "the picture is uploaded", "filename": name}
    return jsonify({**reply, "width": picture.width, "height": picture.height})


class PictureName(RequestBody):
    """A picture of ours."""

    filename: Annotated[str, Field(description="`filename` of a picture in a reply")]


@picture_page_routes.post("/api/show-in-folder")
@describe(
    "Web page",
    ReplySpec("it is open", ShownReply),
    examples=(Example("A picture of a reply", {"filename": SAMPLE}, status=409),),
    body=BodySpec(PictureName),
    errors=(*BODY_ERRORS, NotFound, NotPossible),
)
def show_in_folder() -> Response:
    """Open the file manager at a picture, on the machine of the service."""
    backend = current_backend()
    name = _saved(_filename())
    path = backend.jobs.files.pictures.find(name)
    if path is None:
        _check_there(backend, name)
        raise NotPossible("the picture is on another machine, with the engine")
    if not is_local(request):
        raise NotPossible("a file manager would open on the machine of the service, not on yours")
    show(path)
    return jsonify({"status": "success", "message": "the folder is open", "filename": name})


_describe_sending = describe(
    "Web page",
    ReplySpec("it is there", SentReply),
    examples=(Example("A picture of a reply", {"filename": SAMPLE}),),
    body=BodySpec(PictureName),
    errors=(*BODY_ERRORS, NotFound),
)


@picture_page_routes.post("/api/send-to-img2img")
@_describe_sending
def send_to_img2img() -> Response:
    """Ask for a picture to go on with in img2img."""
    return _send("img2img")


@picture_page_routes.post("/api/send-to-extras")
@_describe_sending
def send_to_extras() -> Response:
    """Ask for a picture to go on with in extras."""
    return _send("extras")


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
    """Describe a picture: there is no model for that."""
    raise NotSupported(
        "Img2Txt is not available: this backend has no model that describes pictures",
        hint="POST /api/png-info reads the prompt of a picture that was generated",
    )


def _send(tab: str) -> Response:
    backend = current_backend()
    name = _filename()
    _check_there(backend, name)
    url = backend.urls().image(name)
    return jsonify({"status": "success", "message": f"sent to {tab}", "filename": name, "url": url})


def file_manager(path: Path, platform: str, environ: Mapping[str, str]) -> list[str] | None:
    """The command that shows the file in its folder; None where there is no desktop to show it on."""
    if platform == "darwin":
        return ["open", "-R", str(path)]
    if platform == "win32":
        return ["explorer", f"/select,{path}"]
    if environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"):
        opener = shutil.which("xdg-open", path=environ.get("PATH"))
        # It knows of no way to select a file.
        return None if opener is None else [opener, str(path.parent)]
    return None


def show(path: Path) -> None:
    """Opens the file manager at a file of ours. Raises NotPossible, with the file's place, where that cannot be."""
    command = file_manager(path, sys.platform, os.environ)
    try:
        if command is None:
            raise NotPossible("there is no desktop on this machine", hint=f"the picture is {path}", path=str(path))
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # It may stay open for as long as it likes; somebody has to hear of its end all the same.
        threading.Thread(target=process.wait, name="file-manager", daemon=True).start()
    except OSError as error:
        raise NotPossible(
            f"the file manager could not be opened: {error.strerror}", hint=f"the picture is {path}", path=str(path)
        ) from error


def _filename() -> str:
    """The picture's name in the body: one of ours, and so never a path."""
    values = read_fields(request).values
    name = values.get("filename")
    if name is not None and not isinstance(name, str):
        raise InvalidValue(f"filename must be text, not {json_kind(name)}", field="filename", hint=PICTURE_NAME)
    if not name:
        instead = hint_unknown_names("filename", values, ["filename"], FILE_NAMES)
        hint = PICTURE_NAME if instead is None else f"{instead}; {PICTURE_NAME}"
        raise InvalidValue("filename is missing", field="filename", hint=hint)
    if locate(_saved(name)) is None:
        raise NotFound("filename is not the name of a picture of ours", field="filename", hint=PICTURE_NAME)
    return name


def _saved(name: str) -> str:
    """The name that a picture is saved under; the one that the page has of it may end in the format that it chose."""
    stem, _, ending = name.rpartition(".")
    return f"{stem}.png" if ending in FORMATS_BY_EXTENSION else name


def _check_there(backend: Backend, name: str) -> None:
    """Raises NotFound for a picture that is gone."""
    image = locate(_saved(name))
    if image is None or (
        backend.jobs.files.pictures.find(image.filename) is None and backend.jobs.picture(image) is None
    ):
        raise NotFound(f"there is no picture {name}", field="filename", hint="it may have been deleted")
