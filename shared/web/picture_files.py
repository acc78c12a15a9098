"""A finished picture as the body of a response, in any format: streamed from its file, or encoded within the budget."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from flask import Response, send_file

from shared.engine.client import SavedImage
from shared.images.encode import OutputFormat, encode_picture
from shared.jobs.job import JobRow
from shared.jobs.picture_metadata import infotext, picture_parameters, with_parameters
from shared.web.backend import Backend
from shared.web.reply import warnings_header


def picture_file(
    backend: Backend,
    image: SavedImage,
    output: OutputFormat,
    row: JobRow | None,
    *,
    max_age: int | None = None,
    warnings: Sequence[str] = (),
) -> Response | None:
    """The picture with its recipe; None if it is gone. `row` is its job, if that is still known.

    With `max_age` (in seconds) it is good for caches and in parts. `warnings`, and what the format cannot hold, stand
    in X-Warnings. Raises NotAcceptable where the format cannot hold it, and Busy.
    """
    try:
        return _response(backend, image, output, row, max_age, warnings)
    except FileNotFoundError:
        # Removed in the meantime.
        return None


def _response(
    backend: Backend,
    image: SavedImage,
    output: OutputFormat,
    row: JobRow | None,
    max_age: int | None,
    warnings: Sequence[str],
) -> Response | None:
    path = backend.jobs.files.pictures.find(image.filename)
    source = path or backend.jobs.picture(image)
    if source is None:
        return None
    content: Path | bytes
    if output != "png":
        comment = None if row is None else infotext(row, image.filename)
        encoded = encode_picture(source, output, comment, budget=backend.picture_memory)
        content, warnings = encoded.content, [*warnings, *encoded.warnings]
    elif row is None or picture_parameters(row, image.filename) is None:
        content = source
    elif path is not None and backend.jobs.files.pictures.finished(image.filename) is not None:
        content = path
    else:
        # It was told of before its job's end, or the engine runs elsewhere.
        content = with_parameters(source if isinstance(source, bytes) else source.read_bytes(), row, image.filename)
    cached = max_age is not None
    response = send_file(
        io.BytesIO(content) if isinstance(content, bytes) else content,
        mimetype=f"image/{output}",
        max_age=max_age,
        conditional=cached,
        etag=cached,
    )
    # Under which name it is saved is not for the file to say (see `native.image_routes`).
    response.headers.pop("Content-Disposition", None)
    if warnings:
        response.headers["X-Warnings"] = warnings_header(warnings)
    return response
