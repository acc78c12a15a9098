"""A finished picture as a response: encoded in a format, with its parameters and its download name.

A picture that a format cannot hold, such as a WebP of more than 16,383 pixels a side, is answered in one of two ways:

- `accepted_picture`: the Accept header chose the format. 406 with the job's URLs, or a PNG if the header allows that.
- `named_picture`: the URL chose the format. 422 for the name.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flask import Request, Response, send_file

from shared.engine.client import SavedImage
from shared.errors import Busy, InvalidValue, NotAcceptable
from shared.images.encode import OutputFormat, convert_png
from shared.jobs.job import JobRow
from shared.jobs.picture_metadata import infotext
from shared.jobs.picture_names import NAME, picture_number
from shared.web.backend import Backend
from shared.web.reply import warnings_header


def accepted_picture(
    backend: Backend, asked: Request, row: JobRow, image: SavedImage, output: OutputFormat
) -> Response | None:
    """The picture of a completed job in the format that the Accept header prefers; None if it was deleted.

    X-Warnings has the job's warnings, and what the format cannot hold. Raises NotAcceptable and Busy with the URLs of
    the job and its pictures, since the job is done.
    """
    try:
        return _response(backend, image, output, row, warnings=row.spec.warnings)
    except NotAcceptable as error:
        if accepts_png(asked):
            warnings = [*row.spec.warnings, f"{error.message}: sent as PNG"]
            return _response(backend, image, "png", row, warnings=warnings)
        error.details |= _job_urls(backend, row)
        raise
    except Busy as error:
        error.hint = f"the job is done; its picture is at {backend.urls().image(image.filename)}"
        error.details |= _job_urls(backend, row)
        raise


def named_picture(
    backend: Backend, image: SavedImage, output: OutputFormat, row: JobRow | None, *, max_age: int
) -> Response | None:
    """The picture in the format of its URL, for `max_age` seconds in caches; None if it was deleted.

    `row` is its job, if that still exists. Raises InvalidValue if the format cannot hold the picture, and Busy.
    """
    try:
        return _response(backend, image, output, row, max_age=max_age)
    except NotAcceptable as error:
        raise InvalidValue(error.message, field="name", hint=f"use {image.filename}") from error


def accepts_png(asked: Request) -> bool:
    """Whether the Accept header allows PNG, preferred or not."""
    return asked.accept_mimetypes["image/png"] > 0


def encode_picture(
    backend: Backend, row: JobRow | None, image: SavedImage, output: OutputFormat
) -> tuple[Path | bytes, Sequence[str]] | None:
    """The picture of a job in a format, with its parameters, and warnings of what was lost; None if it was deleted.

    Raises NotAcceptable if the format cannot hold it, and Busy if there is not enough memory for too long.
    """
    try:
        if output == "png":
            png = backend.jobs.picture_with_parameters(image, row)
            return None if png is None else (png, ())
        source = backend.jobs.picture(image)
        if source is None:
            return None
        comment = None if row is None else infotext(row, image.filename)
        encoded = convert_png(source, output, comment, budget=backend.picture_memory)
        return encoded.content, encoded.warnings
    except FileNotFoundError:
        # Deleted since it was found.
        return None


def _response(
    backend: Backend,
    image: SavedImage,
    output: OutputFormat,
    row: JobRow | None,
    *,
    max_age: int | None = None,
    warnings: Sequence[str] = (),
) -> Response | None:
    encoded = encode_picture(backend, row, image, output)
    if encoded is None:
        return None
    content, lost = encoded
    cached = max_age is not None
    try:
        response = send_file(
            io.BytesIO(content) if isinstance(content, bytes) else content,
            mimetype=f"image/{output}",
            max_age=max_age,
            conditional=cached,
            etag=cached,
        )
    except FileNotFoundError:
        return None
    # The route decides on a download name.
    response.headers.pop("Content-Disposition", None)
    if warnings or lost:
        response.headers["X-Warnings"] = warnings_header([*warnings, *lost])
    return response


def _job_urls(backend: Backend, row: JobRow) -> dict[str, Any]:
    """The URLs of a job and its pictures, for an error's details."""
    urls = backend.urls()
    images = [urls.image(image["filename"]) for image in row.images]
    return {"job_id": row.id, "url": urls.job(row.id), "images": images}


# -- Download names: the format that a user chose, with its tokens replaced. The file keeps its name, for its folder and
# its job follow from it (see `shared.jobs.picture_names`).

TOKEN = re.compile(r"\[([a-z_]+)\]|\{([a-z_]+)\}|%([a-z_]+)%")
# Characters that some system forbids in names, and separators of folders.
UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]+')
LONGEST_NAME = 150
LONGEST_NAME_FORMAT = 200
# Tokens for parts of the file's name.
NAME_TOKENS = ("date", "time", "datetime", "number", "job")
# Tokens for parameters of the job.
PARAMETER_TOKENS = {
    "seed": "seed",
    "model": "model_name",
    "model_name": "model_name",
    "prompt": "prompt",
    "width": "width",
    "height": "height",
    "steps": "steps",
    "cfg": "cfg_scale",
    "sampler": "sampler_name",
    "scheduler": "scheduler",
}
TOKENS = (*NAME_TOKENS, *PARAMETER_TOKENS)


def unknown_tokens(name_format: str) -> list[str]:
    """The unknown tokens in a format, which stay as they are."""
    return [token for match in TOKEN.finditer(name_format) if (token := _token(match)) not in TOKENS]


def download_name(name_format: str, filename: str, parameters: Mapping[str, Any]) -> str:
    """The name, without extension, under which a browser saves the picture. Pure.

    `parameters` are those of its job, with its own seed and size.
    """
    stem = filename.removesuffix(".png")
    if not NAME.fullmatch(filename):
        return stem
    date, time, job = filename.split("_")[0].split("-")[:3]
    facts = {"date": date, "time": time, "datetime": f"{date}-{time}", "job": job, "number": picture_number(filename)}

    def replacement(match: re.Match[str]) -> str:
        token = _token(match)
        value = facts.get(token, parameters.get(PARAMETER_TOKENS.get(token, "")))
        if token not in TOKENS:
            return match[0]
        text = "" if value is None else str(value)
        return text.rpartition(".")[0] or text if token.startswith("model") else text

    name = UNSAFE.sub("-", TOKEN.sub(replacement, name_format)).strip(" .-_")[:LONGEST_NAME].strip(" .-_")
    return name or stem


def _token(match: re.Match[str]) -> str:
    return match[1] or match[2] or match[3]
