"""Submits a job, follows it to its end, and survives the engine's death on the way."""

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

from shared.engine.client import EngineClient, Outcome, SavedImage
from shared.engine.listener import Listener
from shared.errors import EngineError, EngineUnavailable, GenerationFailed, WaitExpired

log = logging.getLogger(__name__)

# How often the engine is asked while its websocket is silent, and while there is no websocket, in seconds.
ASK_CONNECTED = 2.0
ASK_UNCONNECTED = 0.2
MAX_ATTEMPTS = 3


@dataclass(frozen=True)
class Upload:
    """A picture that the graph loads: `folder`/`name` in the engine's input folder."""

    folder: str
    name: str
    png: bytes


@dataclass(frozen=True)
class Job:
    """A graph to run under an id of ours, which is also ComfyUI's prompt_id: a canonical lowercase UUID."""

    id: str
    graph: dict[str, Any]
    uploads: tuple[Upload, ...] = ()


@dataclass(frozen=True)
class Result:
    """A finished job: where its pictures lie, and how long it waited and ran, in seconds."""

    images: tuple[SavedImage, ...]
    waited: float
    ran: float
    attempts: int


class Runner:
    """Runs jobs on one engine. Shared between threads; each calls `run` and is blocked until its job has ended."""

    def __init__(self, engine: EngineClient, listener: Listener) -> None:
        self._engine = engine
        self._listener = listener

    def run(self, job: Job, timeout: float) -> Result:
        """Runs `job` to its end, for at most `timeout` seconds.

        Raises EngineUnavailable if the engine does not take the job at first, EngineRejected if it refuses it,
        GenerationFailed if a node fails, or if the engine died `MAX_ATTEMPTS` times while it had the job; WaitExpired
        when the time is over, while the job goes on.
        """
        begun = time.time()
        deadline = time.monotonic() + timeout
        with self._listener.follow(job.id) as wake:
            self._submit(job)
            for attempt in range(1, MAX_ATTEMPTS + 1):
                outcome = self._follow(job, wake, deadline)
                if outcome is not None:
                    return self._conclude(job, outcome, begun, attempt)
                if attempt < MAX_ATTEMPTS:
                    log.warning("the engine lost job %s, submitting it again", job.id)
                    self._resubmit(job, deadline)
        raise GenerationFailed(
            f"the engine died {MAX_ATTEMPTS} times while it had this job",
            hint="a smaller size or batch_size may help; data/logs/engine.log says more",
            job_id=job.id,
        )

    def _submit(self, job: Job) -> None:
        for upload in job.uploads:
            self._engine.upload(upload.name, upload.png, upload.folder)
        self._engine.submit(job.id, job.graph, self._listener.client_id)

    def _resubmit(self, job: Job, deadline: float) -> None:
        """Like `_submit`, but with patience: the launcher is restarting the engine."""
        while True:
            try:
                # A lost answer is not a lost job, and ComfyUI would run a second submission as well.
                if not self._engine.knows(job.id) and self._engine.outcome(job.id) is None:
                    self._submit(job)
                return
            except EngineUnavailable as error:
                self._check_deadline(job, deadline, error)
                time.sleep(ASK_UNCONNECTED)

    def _follow(self, job: Job, wake: threading.Event, deadline: float) -> Outcome | None:
        """The job's outcome, or None when the engine, restarted, no longer knows the job."""
        while True:
            pause = ASK_CONNECTED if self._listener.connected else ASK_UNCONNECTED
            wake.wait(timeout=max(0.0, min(pause, deadline - time.monotonic())))
            wake.clear()
            try:
                outcome = self._engine.outcome(job.id)
                if outcome is not None:
                    return outcome
                # Asked in this order: a job that ends between the two questions is found in the history.
                if not self._engine.knows(job.id):
                    return self._engine.outcome(job.id)
            except EngineUnavailable as error:
                self._check_deadline(job, deadline, error)
                time.sleep(ASK_UNCONNECTED)
            self._check_deadline(job, deadline)

    def _conclude(self, job: Job, outcome: Outcome, begun: float, attempts: int) -> Result:
        try:
            self._engine.forget(job.id)
        except EngineError as error:
            log.info("could not clear job %s from the engine's history: %s", job.id, error)
        if outcome.error is not None:
            outcome.error.details.setdefault("job_id", job.id)
            raise outcome.error
        finished = outcome.finished or time.time()
        started = outcome.started or begun
        return Result(
            images=outcome.images,
            waited=max(0.0, started - begun),
            ran=max(0.0, finished - started),
            attempts=attempts,
        )

    @staticmethod
    def _check_deadline(job: Job, deadline: float, cause: Exception | None = None) -> None:
        if time.monotonic() >= deadline:
            raise WaitExpired(
                "the pictures were not ready in time; the job goes on in the engine",
                hint="ask for fewer steps or a smaller size, or raise DREAM_LAYER_REQUEST_TIMEOUT",
                job_id=job.id,
            ) from cause
