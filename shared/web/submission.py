"""The steps around every request that draws: a slot, the fields, the idempotency key, a job, and its answer.

with submission(backend, "upscale") as job:
    if job.row is None:
        request = parse(job.fields)
        graph = upscale(request, job.prefix)
        job.submit(JobSpec(request.parameters, graph), loaded=..., kept=...)
    return job.answer()
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from flask import Response, jsonify, request

from shared.engine.client import SavedImage
from shared.errors import Busy, GenerationFailed, InvalidValue, NotAcceptable
from shared.images.encode import OutputFormat, check_size
from shared.jobs.files import PictureFiles
from shared.jobs.job import JobRow, JobSpec, NewJob
from shared.jobs.picture_names import filename_prefix
from shared.web.backend import Backend
from shared.web.body import Fields, read_fields
from shared.web.callers import caller_of
from shared.web.picture_files import picture_file
from shared.web.reply import picture_facts, result_body, shown_picture, tell_picture, tell_warnings, wanted_format
from shared.web.urls import ReplyUrls
from shared.web.waiting import accepted_reply, stream_reply, wait_for, wants_response_later, wants_stream
from workflows.loading import UPLOAD_FOLDER

LONGEST_KEY = 255
WriteBody = Callable[[JobRow, ReplyUrls, PictureFiles], dict[str, Any]]


class Submission:
    """A request that draws, on its way to a job.

    `fields` are those of its body; the graph saves pictures under `prefix`. `row` is the job: None until it is
    submitted, unless the request's idempotency key was used for the same request before.
    """

    def __init__(self, backend: Backend, kind: str, scope: str, held: ExitStack) -> None:
        self._backend = backend
        self._kind = kind
        self._held = held
        # The format of the picture that is the whole answer; None for JSON, a stream, or 202.
        later = wants_stream(request) or wants_response_later(request)
        self._output = None if later else wanted_format(request)
        self._id = str(uuid.uuid4())
        self._key = _checked_key(request.headers.get("Idempotency-Key"))
        self.prefix = filename_prefix(self._id, datetime.now())
        self.fields: Fields = read_fields(request)
        self._body_hash = None if self._key is None else self.fields.digest(scope)
        earlier = None if self._key is None else backend.jobs.with_key(self._key)
        self.row: JobRow | None = None if earlier is None else self._same(earlier)

    def submit(
        self,
        spec: JobSpec,
        *,
        loaded: Mapping[str, bytes],
        kept: Mapping[str, bytes],
        model: str = "",
        work: float = 1.0,
    ) -> None:
        """Accepts the job. Raises QueueFull, and NotAcceptable if the answer cannot hold its picture.

        `loaded` are the pictures that its graph loads, `kept` those that the client sent, by name; `model` and `work`
        serve the estimate of how long it will take (see NewJob).
        """
        if self._output is not None and spec.size is not None and not _takes_png():
            # Before anything is drawn for nothing.
            check_size(spec.size, self._output, self._backend.picture_memory)
        job = NewJob(
            id=self._id,
            kind=self._kind,
            client=caller_of(request).mark,
            service=self._kind,
            spec=replace(
                spec,
                warnings=[*spec.warnings, *_fields_in_the_address()],
                uploads={**dict.fromkeys(kept), **dict.fromkeys(loaded, UPLOAD_FOLDER)},
                embeds_parameters=self._backend.paths.read().save_metadata,
            ),
            model=model,
            work=work,
            idempotency_key=self._key,
            body_hash=self._body_hash,
        )
        row, new = self._backend.jobs.submit(job, {**kept, **loaded})
        # Another request with the same key may have been quicker.
        self.row = row if new else self._same(row)

    def answer(self, write: WriteBody = result_body) -> Response:
        """The reply that the client asked for: the result, a stream, or 202. `write` makes the JSON of a result."""
        if self.row is None:
            raise ValueError("nothing was submitted")
        if wants_stream(request):
            # The stream goes on after this function, and gives the slot back at its end.
            return stream_reply(self._backend, self.row, self._held.pop_all())
        if wants_response_later(request):
            return accepted_reply(self._backend, self.row)
        return _result(self._backend, wait_for(self._backend, self.row), write, self._output)

    def _same(self, earlier: JobRow) -> JobRow:
        """The job that was made under the same key, if for the same body."""
        if earlier.body_hash != self._body_hash:
            raise InvalidValue(
                "this Idempotency-Key was used for another request",
                field="Idempotency-Key",
                hint="use a new key for each request, and the same one only to repeat it",
                job_id=earlier.id,
            )
        return earlier


@contextmanager
def submission(backend: Backend, kind: str, scope: str | None = None) -> Iterator[Submission]:
    """The request at hand, with a slot for the way in which it waits. Raises Busy, InvalidValue.

    The slot is taken first: a request that is turned away has left nothing behind. `scope` tells apart routes of one
    kind, so that an idempotency key used for one is not taken for the other's.
    """
    with ExitStack() as held:
        if wants_stream(request):
            held.enter_context(backend.streams.slot())
        elif not wants_response_later(request):
            held.enter_context(backend.waiters.slot())
        yield Submission(backend, kind, scope or kind, held)


def _fields_in_the_address() -> list[str]:
    """A warning about fields that stand where none is read."""
    return [f"ignored, because fields belong into the body: {', '.join(request.args)}"] if request.args else []


def _checked_key(key: str | None) -> str | None:
    if key is not None and not 1 <= len(key) <= LONGEST_KEY:
        raise InvalidValue(f"Idempotency-Key must have 1 to {LONGEST_KEY} characters", field="Idempotency-Key")
    return key


def _takes_png() -> bool:
    """Whether the client takes a PNG too, where the format that it likes best cannot be had."""
    return request.accept_mimetypes["image/png"] > 0


def _result(backend: Backend, row: JobRow, write: WriteBody, output: OutputFormat | None) -> Response:
    pictures = backend.jobs.files.pictures
    if output is None:
        return tell_warnings(jsonify(write(row, backend.urls(), pictures)), row)
    image = shown_picture(row)
    response = None if image is None else _picture(backend, row, SavedImage(**image), output)
    if image is None or response is None:
        raise GenerationFailed("the engine saved no picture", hint="data/logs/engine.log says more", job_id=row.id)
    name = image["filename"]
    return tell_picture(response, row, backend.urls(), name, picture_facts(row, name, pictures))


def _picture(backend: Backend, row: JobRow, image: SavedImage, output: OutputFormat) -> Response | None:
    """The picture in that format, or as PNG where the client takes that too; None if it is gone.

    Raises NotAcceptable and Busy, which say where the picture is: the job is done, and nothing of it is lost.
    """
    warnings = row.spec.warnings
    try:
        return picture_file(backend, image, output, row, warnings=warnings)
    except NotAcceptable as error:
        if _takes_png():
            return picture_file(backend, image, "png", row, warnings=[*warnings, f"{error.message}: it is PNG"])
        error.details |= _where(backend, row)
        raise
    except Busy as error:
        error.hint = f"the job is done, and its picture is at {backend.urls().image(image.filename)}"
        error.details |= _where(backend, row)
        raise


def _where(backend: Backend, row: JobRow) -> dict[str, Any]:
    """Where a job and its pictures are, for an error."""
    urls = backend.urls()
    images = [urls.image(image["filename"]) for image in row.images]
    return {"job_id": row.id, "url": urls.job(row.id), "images": images}
