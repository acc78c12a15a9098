"""What the web page does with a finished picture: show it in its folder, or send it to another tab."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from flask import Blueprint, Response, jsonify, request

from shared.errors import InvalidValue, NotFound, NotPossible
from shared.images.encode import FORMATS_BY_EXTENSION
from shared.jobs.picture_names import locate
from shared.schema.spellings import sent_instead
from shared.web.backend import Backend
from shared.web.body import json_kind, read_fields
from shared.web.callers import is_local


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


TABS = ("img2img", "extras")
PICTURE_NAME = "send the filename of a picture in a reply"
FILE_NAMES = dict.fromkeys(("file", "name", "image", "picture", "path", "url", "imagename"), ("filename",))


def sending_routes(backend: Backend, show: Callable[[Path], None] = show) -> Blueprint:
    """POST /api/show-in-folder, /api/send-to-img2img and /api/send-to-extras, each of a `filename`."""
    routes = Blueprint("sending", __name__)

    @routes.post("/api/show-in-folder")
    def show_in_folder() -> Response:
        name = _saved(_filename())
        path = backend.jobs.files.pictures.find(name)
        if path is None:
            _check_there(backend, name)
            raise NotPossible("the picture is on another machine, with the engine")
        if not is_local(request):
            raise NotPossible("a file manager would open on the machine of the service, not on yours")
        show(path)
        return jsonify({"status": "success", "message": "the folder is open", "filename": name})

    def send(tab: str) -> Response:
        name = _filename()
        _check_there(backend, name)
        url = backend.urls().image(name)
        return jsonify({"status": "success", "message": f"sent to {tab}", "filename": name, "url": url})

    for tab in TABS:
        routes.add_url_rule(f"/api/send-to-{tab}", f"send-to-{tab}", send, methods=["POST"], defaults={"tab": tab})
    return routes


def _filename() -> str:
    """The picture's name in the body: one of ours, and so never a path."""
    values = read_fields(request).values
    name = values.get("filename")
    if name is not None and not isinstance(name, str):
        raise InvalidValue(f"filename must be text, not {json_kind(name)}", field="filename", hint=PICTURE_NAME)
    if not name:
        instead = sent_instead("filename", values, ["filename"], FILE_NAMES)
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
