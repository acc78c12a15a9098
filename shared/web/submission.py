"""From a request to its reply, the same for every route that draws: a place, a key, a job, and a way to wait for it."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flask import Response, jsonify, request

from shared.engine.client import SavedImage
from shared.errors import Busy, GenerationFailed, InvalidValue, NotAcceptable
from shared.images.encode import OutputFormat, check_size
from shared.jobs.database import JobRow, NewJob
from shared.jobs.names import filename_prefix
from shared.jobs.pictures import Pictures
from shared.web.addresses import Addresses
from shared.web.backend import Backend
from shared.web.body import Fields, read_fields
from shared.web.callers import caller_of
from shared.web.picture_files import picture_file
from shared.web.reply import (
    picture_facts,
    result_body,
    shown_picture,
    tell_picture,
    tell_warnings,
    wanted_format,
)
from shared.web.waiting import accepted_reply, stream_reply, take_slot, wait_for, wants_stream
from workflows.loading import UPLOAD_FOLDER

LONGEST_KEY = 255
Write = Callable[[JobRow, Addresses, Pictures], dict[str, Any]]


@dataclass(frozen=True)
class Draft:
    """What a request asks to be drawn: checked, and ready to become a job.

    `request` is what the reply repeats as parameters; `uploads` are the pictures that the graph loads, `kept` those
    that the client sent, by name; `spelled_out` replaces some of `request` for programs that lack our fields; `seeds`
    and `size` (in pixels) are those of the pictures to come, as far as they are known; `model` and `work` serve the
    estimate of how long it will take. Only what is `repeatable` is told by its parameters alone. `output_node` is the
    node whose picture is the answer, where that is one picture.
    """

    request: Mapping[str, Any]
    graph: Mapping[str, Any]
    warnings: Sequence[str] = ()
    uploads: Mapping[str, bytes] = field(default_factory=dict)
    kept: Mapping[str, bytes] = field(default_factory=dict)
    spelled_out: Mapping[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] = ()
    size: tuple[int, int] | None = None
    model: str = ""
    work: float = 1.0
    previews: bool = False
    repeatable: bool = True
    output_node: str | None = None


def draw(
    backend: Backend,
    kind: str,
    draft: Callable[[Fields, str], Draft],
    salt: str | None = None,
    write: Write = result_body,
) -> Response:
    """Answers the request at hand: `draft` makes of its fields what is drawn, saving under the prefix that it is given.

    `salt` tells apart routes of one kind, so that an idempotency key used for one is not taken for the other's.
    `write` makes of a completed job the JSON for who waited.
    """
    place = take_slot(backend, request)
    output = None if place is None or wants_stream(request) else wanted_format(request)
    try:
        row = _accept(backend, kind, draft, salt or kind, output)
        if wants_stream(request) and place is not None:
            streamed = stream_reply(backend, row, place)
            place = None
            return streamed
        return (
            accepted_reply(backend, row) if place is None else _result(backend, wait_for(backend, row), write, output)
        )
    finally:
        if place is not None:
            place.release()


def _accept(
    backend: Backend, kind: str, draft: Callable[[Fields, str], Draft], salt: str, output: OutputFormat | None
) -> JobRow:
    key, body_hash = request.headers.get("Idempotency-Key"), None
    fields = read_fields(request)
    if key is not None:
        body_hash = fields.digest(salt)
        earlier = backend.store.by_key(_checked(key))
        if earlier is not None:
            return _same(earlier, body_hash)
    job_id = str(uuid.uuid4())
    drafted = draft(fields, filename_prefix(job_id, datetime.now()))
    if output is not None and drafted.size is not None and not _takes_png():
        # Before anything is drawn for nothing.
        check_size(drafted.size, output, backend.picture_memory)
    job = NewJob(
        id=job_id,
        kind=kind,
        client=caller_of(request).mark,
        service=kind,
        spec={
            "request": dict(drafted.request),
            "graph": dict(drafted.graph),
            "warnings": [*drafted.warnings, *_in_the_address()],
            "uploads": [*([name, UPLOAD_FOLDER] for name in drafted.uploads), *([name, None] for name in drafted.kept)],
            "seeds": list(drafted.seeds),
            "size": drafted.size,
            "previews": drafted.previews,
            "repeatable": drafted.repeatable,
            "output_node": drafted.output_node,
            "spelled_out": dict(drafted.spelled_out),
            "recipe": backend.paths.read().save_metadata,
        },
        model=drafted.model,
        work=drafted.work,
        idempotency_key=key,
        body_hash=body_hash,
    )
    row, new = backend.accept(job, {**drafted.kept, **drafted.uploads})
    # Another request with the same key may have been quicker.
    return row if new else _same(row, body_hash)


def _in_the_address() -> list[str]:
    """A warning about fields that stand where none is read."""
    return [f"ignored, because fields belong into the body: {', '.join(request.args)}"] if request.args else []


def _checked(key: str) -> str:
    if not 1 <= len(key) <= LONGEST_KEY:
        raise InvalidValue(f"Idempotency-Key must have 1 to {LONGEST_KEY} characters", field="Idempotency-Key")
    return key


def _same(earlier: JobRow, body_hash: str | None) -> JobRow:
    """The job that was made under the same key, if for the same body."""
    if earlier.body_hash != body_hash:
        raise InvalidValue(
            "this Idempotency-Key was used for another request",
            field="Idempotency-Key",
            hint="use a new key for each request, and the same one only to repeat it",
            job_id=earlier.id,
        )
    return earlier


def _takes_png() -> bool:
    """Whether the client takes a PNG too, where the format that it likes best cannot be had."""
    return request.accept_mimetypes["image/png"] > 0


def _result(backend: Backend, row: JobRow, write: Write, output: OutputFormat | None) -> Response:
    if output is None:
        return tell_warnings(jsonify(write(row, backend.addresses(), backend.archive.pictures)), row)
    image = shown_picture(row)
    response = None if image is None else _picture(backend, row, SavedImage(**image), output)
    if image is None or response is None:
        raise GenerationFailed("the engine saved no picture", hint="data/logs/engine.log says more", job_id=row.id)
    name = image["filename"]
    facts = picture_facts(row, name, backend.archive.pictures)
    return tell_picture(response, row, backend.addresses(), name, facts)


def _picture(backend: Backend, row: JobRow, image: SavedImage, output: OutputFormat) -> Response | None:
    """The picture in that format, or as PNG where the client takes that too; None if it is gone.

    Raises NotAcceptable and Busy, which say where the picture is: the job is done, and nothing of it is lost.
    """
    warnings = row.spec["warnings"]
    try:
        return picture_file(backend, image, output, row, warnings=warnings)
    except NotAcceptable as error:
        if _takes_png():
            return picture_file(backend, image, "png", row, warnings=[*warnings, f"{error.message}: it is PNG"])
        error.details |= _where(backend, row)
        raise
    except Busy as error:
        error.hint = f"the job is done, and its picture is at {backend.addresses().image(image.filename)}"
        error.details |= _where(backend, row)
        raise


def _where(backend: Backend, row: JobRow) -> dict[str, Any]:
    """Where a job and its pictures are, for an error."""
    addresses = backend.addresses()
    images = [addresses.image(image["filename"]) for image in row.images]
    return {"job_id": row.id, "url": addresses.job(row.id), "images": images}
