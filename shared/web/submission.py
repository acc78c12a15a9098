"""The steps of every request that submits a job: a slot, the fields, the idempotency key, the job, and its reply.

with submission(backend, "upscale") as job:
    if job.row is None:
        request = parse(job.fields)
        graph = upscale(request, job.prefix)
        job.submit(JobSpec(request.parameters, graph), engine_uploads=..., stored_uploads=...)
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
from shared.errors import GenerationFailed, InvalidValue
from shared.images.encode import OutputFormat, check_size
from shared.jobs.job import JobRow, JobSpec, NewJob
from shared.jobs.picture_names import filename_prefix
from shared.jobs.service import Jobs
from shared.web.backend import Backend
from shared.web.callers import caller_of
from shared.web.picture_reply import accepted_picture, accepts_png
from shared.web.reply import (
    main_picture,
    picture_facts,
    result_body,
    wanted_format,
    with_picture_headers,
    with_warnings,
)
from shared.web.request_body import Fields, read_fields
from shared.web.urls import ReplyUrls
from shared.web.waiting import accepted_reply, prefers_async, stream_reply, wait_for, wants_stream
from workflows.loading import UPLOAD_FOLDER

LONGEST_KEY = 255
WriteBody = Callable[[JobRow, ReplyUrls, Jobs], dict[str, Any]]


class Submission:
    """A request that submits a job.

    `fields` are those of its body, and `prefix` is the file name prefix for the graph. `row` is the job; it is None
    before `submit`, unless the same request was sent earlier with the same idempotency key.
    """

    def __init__(self, backend: Backend, kind: str, scope: str, slot: ExitStack) -> None:
        self._backend = backend
        self._kind = kind
        self._slot = slot
        # The format of the picture that is the reply; None if that is JSON, a stream, or 202.
        self._output = None if wants_stream(request) or prefers_async(request) else wanted_format(request)
        self._id = str(uuid.uuid4())
        self._key = _idempotency_key()
        self.prefix = filename_prefix(self._id, datetime.now())
        self.fields: Fields = read_fields(request)
        self._body_hash = None if self._key is None else self.fields.digest(scope)
        earlier = None if self._key is None else backend.jobs.find_by_key(self._key)
        self.row: JobRow | None = None if earlier is None else self._same_request(earlier)

    def submit(
        self,
        spec: JobSpec,
        *,
        engine_uploads: Mapping[str, bytes],
        stored_uploads: Mapping[str, bytes],
        model: str = "",
        work: float = 1.0,
    ) -> None:
        """Submit the job. Raises QueueFull, and NotAcceptable if the requested format cannot hold its picture.

        `engine_uploads` are the pictures that its graph loads, `stored_uploads` those that the client sent; both map
        names to content. `model` and `work` are for estimates (see NewJob).
        """
        if self._output is not None and spec.size is not None and not accepts_png(request):
            check_size(spec.size, self._output, self._backend.picture_memory)
        job = NewJob(
            id=self._id,
            kind=self._kind,
            client=caller_of(request).mark,
            service=self._kind,
            spec=replace(
                spec,
                warnings=[*spec.warnings, *_query_warnings()],
                uploads={**dict.fromkeys(stored_uploads), **dict.fromkeys(engine_uploads, UPLOAD_FOLDER)},
                embeds_parameters=self._backend.paths.read().save_metadata,
            ),
            model=model,
            work=work,
            idempotency_key=self._key,
            body_hash=self._body_hash,
        )
        row, is_new = self._backend.jobs.submit(job, {**stored_uploads, **engine_uploads})
        # A concurrent request with the same key may have been first.
        self.row = row if is_new else self._same_request(row)

    def answer(self, write_body: WriteBody = result_body) -> Response:
        """The reply that the client asked for: a result, a stream, or 202. `write_body` makes the JSON of a result."""
        if self.row is None:
            raise ValueError("no job was submitted")
        if wants_stream(request):
            # The stream outlives this request's context, and frees the slot at its end.
            return stream_reply(self._backend, self.row, self._slot.pop_all())
        if prefers_async(request):
            return accepted_reply(self._backend, self.row)
        row = wait_for(self._backend, self.row)
        if self._output is None:
            return with_warnings(jsonify(write_body(row, self._backend.urls(), self._backend.jobs)), row)
        return _picture_reply(self._backend, row, self._output)

    def _same_request(self, earlier: JobRow) -> JobRow:
        """The earlier job with the same key. Raises InvalidValue if its request had another body."""
        if earlier.body_hash != self._body_hash:
            raise InvalidValue(
                "this Idempotency-Key was used for a different request",
                field="Idempotency-Key",
                hint="use a new key for each request; send a key again only to repeat its request",
                job_id=earlier.id,
            )
        return earlier


@contextmanager
def submission(backend: Backend, kind: str, scope: str | None = None) -> Iterator[Submission]:
    """A context manager for the current request, which holds a slot while it waits. Raises Busy and InvalidValue.

    The slot comes first, so that a rejected request has no effect. `scope` (default: `kind`) keeps the idempotency keys
    of routes with the same kind apart.
    """
    with ExitStack() as slot:
        if wants_stream(request):
            slot.enter_context(backend.streams.slot())
        elif not prefers_async(request):
            slot.enter_context(backend.waiters.slot())
        yield Submission(backend, kind, scope or kind, slot)


def _idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 1 <= len(key) <= LONGEST_KEY:
        raise InvalidValue(f"Idempotency-Key must have 1 to {LONGEST_KEY} characters", field="Idempotency-Key")
    return key


def _query_warnings() -> list[str]:
    return [f"ignored in the query: {', '.join(request.args)}; send fields in the body"] if request.args else []


def _picture_reply(backend: Backend, row: JobRow, output: OutputFormat) -> Response:
    image = main_picture(row)
    response = None if image is None else accepted_picture(backend, request, row, SavedImage(**image), output)
    if image is None or response is None:
        raise GenerationFailed("the engine saved no picture", hint="see data/logs/engine.log", job_id=row.id)
    filename = image["filename"]
    facts = picture_facts(row, filename, backend.jobs)
    return with_picture_headers(response, row, backend.urls(), filename, facts)
