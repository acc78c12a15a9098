"""Gives jobs to the engine."""

from __future__ import annotations

import logging
import random
import time

from shared.engine.client import EngineClient
from shared.errors import DreamLayerError, EngineError, EngineRejected, EngineUnavailable, StorageFailed
from shared.jobs.tracked import Phase, TrackedJob
from shared.jobs.uploads import Uploads

log = logging.getLogger(__name__)


def send(job: TrackedJob, engine: EngineClient, uploads: Uploads, client_id: str) -> DreamLayerError | None:
    """Gives a job and its uploads to the engine, whose websocket `client_id` is to hear of it.

    Returns the error if it cannot be drawn, whatever the reason. If the engine is away the job stays unsent, or, when
    that is not sure, counts as sent. Raises EngineError if it could not be found out whether the engine has it.
    """
    spec = job.row.spec
    try:
        for name, folder in spec.uploads.items():
            # Without a folder it is only kept, as it was sent.
            if folder is not None:
                engine.upload(name, uploads.read(name), folder)
        job.client_id = client_id
        # From here on it counts as sent: an answer that is lost is no job that is lost.
        job.phase, job.sent_at = Phase.SENT, time.monotonic()
        extra = {"preview_method": "auto"} if spec.previews else None
        # Two items of its queue that are equal in number and id end ComfyUI's worker, so none ever are, even if a job
        # should be sent twice: by a process that was thought dead, and by its new worker.
        number = job.row.number + random.random() / 2
        engine.submit(job.row.id, spec.graph, client_id, number, extra)
        job.acknowledged = True
    except EngineUnavailable as error:
        if not error.reached:
            job.phase = Phase.WAITING
        log.info("the engine is away; job %s waits for it", job.row.id)
    except (EngineError, StorageFailed) as error:
        if not _taken(engine, job.row.id, error):
            return error
    except Exception:
        # Whatever it is, it will not go better another time, and the others would wait behind it for ever.
        log.exception("job %s cannot be sent", job.row.id)
        return DreamLayerError("the job could not be handed to the engine", hint="the log of the service says why")
    return None


def _taken(engine: EngineClient, job_id: str, error: DreamLayerError) -> bool:
    """Whether the engine has the job although it said otherwise: ComfyUI can answer 500 and run it all the same."""
    if isinstance(error, (EngineRejected, StorageFailed)):
        return False
    running, pending = engine.queue()
    return job_id in running or job_id in pending or engine.outcome(job_id) is not None
