"""Workflows of the user's own as routes: GET /api/workflows, GET and POST /api/workflows/<name>."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, jsonify
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from shared.errors import DreamLayerError, InvalidPicture, InvalidValue, NotFound
from shared.images.decode import flatten, is_transparent, transparency_warnings
from shared.images.fit import as_cutout, as_mask, as_picture, fit
from shared.jobs.job import JobSpec
from shared.jobs.picture_names import PREFIX_INPUT, with_prefix
from shared.json_limits import JsonTooLarge, load_json
from shared.schema.units import Picture, align
from shared.web.backend import Backend
from shared.web.custom import check, misread_prompts, unknown_to_starter
from shared.web.parsing.pictures import SentPictures
from shared.web.submission import Submission, submission
from workflows.bindings import MASK_LOADER, SIDES, fill, reads_alpha
from workflows.graph import ApiGraph
from workflows.loading import input_name
from workflows.outputs import FIELD as OUTPUT
from workflows.outputs import find_output
from workflows.templates import FIELD, PICTURE_TYPES, Workflow, read_workflow

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}", re.ASCII)
LARGEST_FILE = 10_000_000
KIND = "workflow"


class WorkflowFolder:
    """The folder of workflows. A file is read again when it was changed, and stays a route as long as it is there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._read: dict[str, tuple[tuple[int, int], Workflow | DreamLayerError]] = {}

    def all(self) -> Iterable[tuple[str, Workflow | DreamLayerError]]:
        """The name of every file, and its workflow, or what is wrong with it."""
        names = sorted(path.stem for path in self._folder.glob("*.json")) if self._folder.is_dir() else []
        for name in names:
            found = self.find(name)
            if found is not None:
                yield name, found

    def find(self, name: str) -> Workflow | DreamLayerError | None:
        """The workflow of that name, or what is wrong with it; None if there is none."""
        path = self._folder / f"{name}.json"
        if not NAME.fullmatch(name):
            # Only names that the folder listed come here; what a client asked for was refused before.
            return InvalidValue("the file's name must be of small letters, digits, - and _", field=FIELD)
        try:
            about = path.stat()
            mark = (about.st_mtime_ns, about.st_size)
            with self._lock:
                known = self._read.get(name)
            if known is None or known[0] != mark:
                known = (mark, _load(name, path, about.st_size))
                with self._lock:
                    self._read[name] = known
            return known[1]
        except FileNotFoundError:
            return None
        except OSError as error:
            return InvalidValue(f"the file cannot be read: {error.strerror}", field=FIELD)


def workflow_routes(backend: Backend) -> Blueprint:
    """Every file of the folder is a route."""
    routes = Blueprint("workflows", __name__)
    shelf = WorkflowFolder(backend.settings.workflows_dir)

    @routes.get("/api/workflows")
    def list_workflows() -> Response:
        listed = [_about(name, found) for name, found in shelf.all()]
        return jsonify({"status": "success", "workflows": listed})

    @routes.get("/api/workflows/<name>")
    def get_workflow(name: str) -> Response:
        workflow = _ask(shelf, name)
        return jsonify({"status": "success", **_about(name, workflow), "graph": workflow.graph})

    @routes.post("/api/workflows/<name>")
    def run_workflow(name: str) -> Response:
        workflow = _ask(shelf, name)
        with submission(backend, KIND, f"{KIND} {name}") as job:
            if job.row is None:
                _submit(backend, workflow, job)
            return job.answer()

    return routes


def _load(name: str, path: Path, size: int) -> Workflow | DreamLayerError:
    if size > LARGEST_FILE:
        return InvalidValue(f"the file is larger than {LARGEST_FILE // 1_000_000} MB", field=FIELD)
    try:
        return read_workflow(name, load_json(path.read_bytes()))
    except JsonTooLarge as error:
        return InvalidValue(f"the file {error}", field=FIELD)
    except (ValueError, RecursionError) as error:
        return InvalidValue(f"the file is not valid JSON: {error}", field=FIELD)
    except DreamLayerError as error:
        return error


def _about(name: str, found: Workflow | DreamLayerError) -> dict[str, Any]:
    if isinstance(found, DreamLayerError):
        return {"name": name, "error": {"message": found.message, "hint": found.hint}}
    header = found.header
    return {"name": name, "title": header.title or name, "description": header.description, "schema": found.schema()}


def _ask(shelf: WorkflowFolder, name: str) -> Workflow:
    found = shelf.find(name) if NAME.fullmatch(name) else None
    if found is None:
        raise NotFound(f"there is no workflow {name}", hint="GET /api/workflows lists them")
    if isinstance(found, DreamLayerError):
        raise InvalidValue(f"the workflow {name} is broken: {found.message}", field=FIELD, hint=found.hint)
    return found


def _submit(backend: Backend, workflow: Workflow, job: Submission) -> None:
    fields, parameters = job.fields, workflow.header.parameters
    sent = {**dict.fromkeys(fields.files), **fields.values}
    # As with every request, unless the workflow gives these names another meaning.
    further = {name for name in ("preview", "image", OUTPUT) if name not in parameters}
    if "input_image" not in parameters:
        further.discard("image")
    own = {key: value for key, value in sent.items() if key not in further}
    values, warnings = workflow.read(own, secrets.randbelow(2**32))
    for side in SIDES:
        asked = values.get(side)
        if type(asked) is int and not parameters[side].targets and align(asked) != asked:
            warnings.append(f"{side} {asked} was raised to {align(asked)}, a multiple of 8")
            values[side] = align(asked)
    reader = SentPictures(fields, backend.jobs.files.uploads.find, backend.picture_memory)
    images = {
        key: image
        for key, parameter in parameters.items()
        if parameter.type in PICTURE_TYPES
        and (image := _image(workflow, key, reader, also="image" in further)) is not None
    }
    settings = {target: value for key, value in values.items() for target in workflow.targets[key]}
    pictures = place_pictures(workflow, fill(workflow.graph, settings), images, reader.warnings)
    settings |= {target: input_name(picture) for target, picture in pictures.items()}
    sent_by = {target: key for key in [*values, *images] for target in workflow.targets[key]}
    warnings += _prefixes_not_used(workflow, own)
    graph, ignored = check(backend, fill(workflow.graph, settings), FIELD, sent_by, pictures.values())
    asked = sent.get(OUTPUT) if OUTPUT in further else None
    job.submit(
        JobSpec(
            parameters={"workflow": workflow.name, **values},
            graph=with_prefix(graph, job.prefix),
            warnings=[
                *(*warnings, *reader.warnings, *ignored),
                *misread_prompts(backend, graph, FIELD, sent_by),
                *unknown_to_starter(backend, graph),
            ],
            output_node=None if asked in (None, "") else find_output(graph, asked),
            previews="preview" in further and _preview(fields.values.get("preview", False)),
        ),
        loaded={picture.name: picture.png for picture in pictures.values()},
        kept=reader.kept,
        # Its own earlier jobs tell how long it takes.
        model=f"{KIND} {workflow.name}",
    )


def _prefixes_not_used(workflow: Workflow, sent: Mapping[str, Any]) -> list[str]:
    """Warnings of parameters that were to name the files: those get names from which their job follows."""
    return [
        f"{key}: not used as {node}.{PREFIX_INPUT}, for pictures are saved under names that lead to their job; "
        "the page's file name format names downloads"
        for key, targets in workflow.targets.items()
        if sent.get(key) is not None
        for node, name in targets
        if name == PREFIX_INPUT
    ]


def _preview(value: Any) -> bool:
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError as error:
        raise InvalidValue(f"preview must be true or false, not {value!r}", field="preview") from error


def _image(workflow: Workflow, name: str, sent: SentPictures, *, also: bool) -> Image.Image | None:
    """The picture of a parameter, as it was sent; `also`: that of `input_image` may be called `image`."""
    parameter = workflow.header.parameters[name]
    names = (name, "image") if also and name == "input_image" else (name,)
    found = sent.mask(name, invert=False) if parameter.type == "mask" else sent.with_alpha(*names)
    if found is None:
        if parameter.required:
            how = f"send a data URL, base64, or a file of a form named {name}"
            hint = workflow.hint(name, sent.names)
            raise InvalidPicture(f"{name} is missing", field=name, hint=how if hint is None else f"{hint}; {how}")
        return None
    return found[0]


def place_pictures(
    workflow: Workflow, graph: ApiGraph, images: Mapping[str, Image.Image], warnings: list[str]
) -> Mapping[tuple[str, str], Picture]:
    """The pictures as the node of each target in `graph` reads them: a mask may be the transparency of a picture."""
    placed: dict[tuple[str, str], Picture] = {}
    parameters = workflow.header.parameters
    # Pictures go first, so that a mask finds the one that it belongs to.
    for key in sorted(images, key=lambda key: parameters[key].type == "mask"):
        image = images[key]
        # What a picture of the workflow's own is for, and whether it may be padded for it, only its graph knows.
        align = not parameters[key].targets
        masks = [other for other in images if parameters[other].type == "mask"]
        for target in workflow.targets[key]:
            if parameters[key].type == "mask":
                if target in placed:
                    continue
                in_alpha = reads_alpha(graph, target)
                placed[target] = (
                    as_cutout(image.convert("RGB"), image, align=align) if in_alpha else as_mask(image, align=align)
                )
                continue
            mask = next((images[other] for other in masks if target in workflow.targets[other]), None)
            if mask is not None and graph[target[0]]["class_type"] == MASK_LOADER:
                # A node for masks has the mask alone; it comes later.
                continue
            if mask is not None:
                mask = fit(mask, image.size, "just_resize")
                placed[target] = as_cutout(flatten(image, "white"), mask, align=align)
            elif reads_alpha(graph, target):
                if not is_transparent(image):
                    warnings.append(f"{key} has no transparency, which {target[0]} reads: it repaints nothing then")
                placed[target] = as_picture(image, align=align)
            else:
                warnings += [note for note in transparency_warnings(image, key, "white") if note not in warnings]
                placed[target] = as_picture(flatten(image, "white"), align=align)
    return placed
