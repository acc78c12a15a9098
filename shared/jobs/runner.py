"""Runs the jobs of one process: sends them to the engine, tracks them to their end, and recovers from every crash.

One thread tracks all jobs, however many requests wait. The engine's queue and history are authoritative; its websocket
only says where to look first. A job that the engine lost is sent again under the same id. A job that was running when
the engine crashed for the third time fails, so that it cannot take the others with it.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
import uuid
from collections.abc import Mapping, Sequence

from shared.engine.client import EngineClient, Outcome, SavedImage
from shared.engine.websocket import ConnectionChanged, EngineEvent, EventListener, JobEnded
from shared.errors import (
    Cancelled,
    DreamLayerError,
    EngineError,
    EngineRejected,
    EngineUnavailable,
    GenerationFailed,
    QueueFull,
    StorageFailed,
)
from shared.jobs.files import JobFiles, UploadFiles
from shared.jobs.job import JobRow, NewJob, State
from shared.jobs.notify import JobNotifier
from shared.jobs.store import Store
from shared.jobs.tracked import ActiveJobs, JobPhase, TrackedJob, stored_image

log = logging.getLogger(__name__)

# All in seconds. Between two reconciliations with the engine's queue, with and without its websocket.
RECONCILE_CONNECTED = 1.0
RECONCILE_DISCONNECTED = 0.2
# Between two writes of progress.
REPORT_INTERVAL = 0.2
# Between two heartbeats, and how old one may be before its worker counts as dead.
HEARTBEAT_INTERVAL = 1.0
STALE_AFTER = 8.0
# Between two purges of the engine's history.
PURGE_INTERVAL = 1.0
# Between two looks for finished jobs that are past their retention.
EXPIRE_INTERVAL = 30.0
# Of a process's life, before anything is too old for it: a machine may start with a wrong clock, and mends it soon.
SETTLED = 60.0
# That the wall clock goes ahead of the monotonic one, or behind it, before it counts as set.
CLOCK_SET = 2.0
MAX_CRASHES = 3


class JobRunner:
    """The jobs of one process. Safe to share between threads; no job is tracked before `start`."""

    def __init__(self, store: Store, engine: EngineClient, files: JobFiles) -> None:
        self.worker = str(uuid.uuid4())
        self.notifier = JobNotifier()
        self._store = store
        self._engine = engine
        self._files = files
        self._events: queue.SimpleQueue[EngineEvent | None] = queue.SimpleQueue()
        self._listener = EventListener(engine.address, self._events.put, engine.access)
        self._active_jobs = ActiveJobs()
        self._purgeable: list[str] = []
        self._heartbeat_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False
        # When each of these was last done, on the monotonic clock.
        self._reconciled_at = self._reported_at = self._purged_at = self._expired_at = 0.0
        # By the wall clock, which other processes compare with theirs.
        self._heartbeat_at = self._orphans_checked_at = 0.0
        self._reclaim_from = 0.0
        # When the engine last answered what is in its queue, on the monotonic clock.
        self._queue_seen_at = 0.0
        # Whether it was then running something else: another service's job, a foreign prompt, or a cancelled job.
        self._others_ran = False
        self._last_trouble = ""
        self._started, self._started_at = time.monotonic(), time.time()
        # How far the wall clock is ahead of the monotonic one, and when, on that, it was last seen to be set.
        self._clock_offset, self._clock_set_at = self._started_at - self._started, 0.0

    def start(self) -> None:
        """Starts the thread, which also reclaims the jobs of dead workers."""
        self._listener.start()
        self._thread = threading.Thread(target=self._work, name="job-runner", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stops the thread. Unfinished jobs go on in the engine, and other workers reclaim them."""
        self._stopping = True
        self._wake()
        # Ctrl-C may have come before it was started.
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout=5)
        self._listener.stop()
        # Whoever reclaims a job asks the engine for it, so the engine must have all that was sent by then.
        self._active_jobs.close(patience=5)
        # A cancelled job is finished, so nobody reclaims it, and the engine would run it to its end.
        for job in self._active_jobs.in_order():
            if job.cancel_requested and not self._cancel_in_engine(job.row.id):
                break
        try:
            with self._heartbeat_lock:
                self._store.deregister(self.worker)
        except StorageFailed as error:
            log.info("could not deregister this worker: %s", error)

    def submit(self, new_job: NewJob, uploads: Mapping[str, bytes], limit: int) -> tuple[JobRow, bool]:
        """Accepts a job: writes its row first, then sends it. While the engine is away, the job waits for it.

        `uploads` are the contents of the uploads that its spec names. Returns the row, and whether it is new: it is not
        if its idempotency key was used before. Raises QueueFull if `limit` jobs are unfinished. A job that the engine
        rejects has failed when this returns.
        """
        self._beat()
        try:
            self._files.keep(uploads)
            row, is_new = self._store.add(new_job, self.worker, limit)
        except (QueueFull, StorageFailed):
            # No other job may need them, and there may be little room on the disk.
            self._files.drop(uploads)
            raise
        if not is_new:
            return row, False
        # Deleting another job with the same upload may have removed the file before this row was written.
        self._files.keep(uploads)
        job = TrackedJob(row)
        # Tracked before it is sent, so that no event of it is missed.
        if self._active_jobs.add(job):
            try:
                self._send(job)
            except (EngineError, StorageFailed) as error:
                # The job is accepted all the same; the thread finds out what became of it.
                log.warning("sending job %s: %s", row.id, error)
        return row, True

    def cancel(self, job_id: str) -> bool:
        """Cancels this job, queued or running, whoever runs it, and no other; False if it is finished or unknown."""
        if not self._store.cancel(job_id, Cancelled("the job was cancelled", job_id=job_id).as_dict()):
            return False
        self.notifier.notify(job_id)
        job = self._active_jobs.get(job_id)
        if job is not None:
            # The thread cancels it in the engine, again and again until the engine has let go of it.
            self._request_cancel(job)
            self._wake()
            return True
        # The worker that runs it notices within a second; cancelling here saves the engine that second.
        self._cancel_in_engine(job_id)
        return True

    def _cancel_in_engine(self, job_id: str) -> bool:
        """Whether the engine received the cancellation."""
        try:
            self._engine.cancel(job_id)
        except EngineError as error:
            log.info("job %s is still to be cancelled in the engine: %s", job_id, error)
            return False
        return True

    def _wake(self) -> None:
        """Makes the thread go through its loop at once."""
        self._events.put(None)

    def _work(self) -> None:
        while not self._stopping:
            try:
                self._handle_events(self._drain_events())
                self._tick()
                self._last_trouble = ""
            except (EngineError, StorageFailed) as error:
                # Logged once, not in each of the many rounds for which it lasts.
                if error.message != self._last_trouble:
                    self._last_trouble = error.message
                    log.warning("%s; jobs wait until this is fixed", error.message)
                time.sleep(RECONCILE_DISCONNECTED)
            except Exception:
                # A service whose thread is dead would accept jobs and never finish one.
                log.exception("a round of the job runner failed; the next one goes on")
                time.sleep(RECONCILE_CONNECTED)

    def _drain_events(self) -> list[EngineEvent]:
        """All events that have come; waits a moment if there are none."""
        events = []
        try:
            event = self._events.get(timeout=REPORT_INTERVAL if self._active_jobs else HEARTBEAT_INTERVAL)
            while True:
                if event is not None:
                    events.append(event)
                event = self._events.get_nowait()
        except queue.Empty:
            return events

    def _handle_events(self, events: Sequence[EngineEvent]) -> None:
        for event in events:
            if isinstance(event, ConnectionChanged):
                self._reconcile_soon()
                continue
            job = self._active_jobs.get(event.job_id)
            if job is None:
                continue
            if not isinstance(event, JobEnded):
                job.observe(event)
            elif (outcome := self._engine.get_outcome(event.job_id)) is not None:
                self._handle_outcome(job, outcome)
            else:
                self._reconcile_soon()

    def _tick(self) -> None:
        """Does what is due by the clock."""
        now, wall = time.monotonic(), time.time()
        self._check_clock(now, wall)
        if now - self._reported_at >= REPORT_INTERVAL:
            self._reported_at = now
            self._report()
        if self._active_jobs:
            self._beat()
        self._reclaim_orphans(wall)
        if self._active_jobs and now - self._reconciled_at >= self._reconcile_interval():
            self._reconciled_at = now
            self._reconcile()
        self._dispatch()
        if self._purgeable and now - self._purged_at >= PURGE_INTERVAL:
            self._purged_at = now
            self._purge_history()
        if now - self._expired_at >= EXPIRE_INTERVAL:
            self._expired_at = now
            self._store.refill()
            self._files.expire(self._steady_time(now, wall))

    def _check_clock(self, now: float, wall: float) -> None:
        """Notices that the wall clock was set, or that the machine slept."""
        if abs(wall - now - self._clock_offset) > CLOCK_SET:
            self._clock_offset = wall - now
            self._clock_set_at = now

    def _steady_time(self, now: float, wall: float) -> float | None:
        """The time by which jobs expire, which does not jump ahead; None while the clock may still be wrong."""
        if now - self._started < SETTLED:
            return None
        return min(wall, self._started_at + now - self._started)

    def _beat(self) -> None:
        # A second caller waits here: no job may be accepted under a heartbeat that is not written yet.
        with self._heartbeat_lock:
            if abs(time.time() - self._heartbeat_at) >= HEARTBEAT_INTERVAL and not self._stopping:
                self._store.beat(self.worker)
                self._heartbeat_at = time.time()

    def _reclaim_orphans(self, wall: float) -> None:
        """Takes over the unfinished jobs of dead workers, at `wall` in seconds since 1970."""
        since = abs(wall - self._orphans_checked_at)
        if since > STALE_AFTER / 2:
            # This process could not look for so long, so the machine slept, and the other workers are late as well.
            self._reclaim_from = wall + (STALE_AFTER if self._orphans_checked_at else 0.0)
        if since < HEARTBEAT_INTERVAL:
            return
        self._orphans_checked_at = wall
        # A worker that is stopping leaves them to others.
        if wall < self._reclaim_from or self._stopping:
            return
        for row in self._store.reclaim_orphans(self.worker, wall - STALE_AFTER):
            log.info("job %s is reclaimed from a worker that is gone", row.id)
            # The engine may have it: reconciling finds out, and sends it if not.
            job = TrackedJob(row, phase=JobPhase.SENT, crashes=row.attempts)
            if row.state is State.RUNNING:
                job.phase = JobPhase.RUNNING
            for event in self._store.events(row.id, 0):
                if event.name == "queued":
                    job.reported_images.clear()
                elif event.name == "image":
                    job.reported_images.add(event.data["filename"])
            self._active_jobs.add_sent(job)
            self._reconcile_soon()

    def _reconcile_soon(self) -> None:
        self._reconciled_at = 0.0

    def _reconcile_interval(self) -> float:
        """Events report most jobs. Jobs sent over another connection, and cancelled ones, are found by asking only."""
        if not self._listener.connected:
            return RECONCILE_DISCONNECTED
        ours = self._listener.client_id
        unreported = any(
            job.cancel_requested or (job.phase is not JobPhase.WAITING and job.client_id != ours)
            for job in self._active_jobs.in_order()
        )
        return RECONCILE_DISCONNECTED if unreported else RECONCILE_CONNECTED

    def _report(self) -> None:
        """Writes down what events said, and notifies those who wait."""
        jobs = [job for job in self._active_jobs.in_order() if not job.cancel_requested]
        updates = [(job, update) for job in jobs if (update := job.update()) is not None]
        if updates:
            self._store.save(self.worker, [update for _, update in updates])
        for job, _ in updates:
            job.clear_update()
            self.notifier.notify(job.row.id)

    def _reconcile(self) -> None:
        """Compares the active jobs with the engine: each is in its queue, in its history, lost, or still to be sent."""
        active = self._active_jobs.in_order()
        ours = self._store.unfinished([job.row.id for job in active], self.worker)
        for job in active:
            if job.row.id not in ours:
                self._release(job)
        # A job that is being sent may arrive just after the answer: the next reconciliation looks for it.
        sent = [job for job in active if job.phase in (JobPhase.SENT, JobPhase.RUNNING) and not job.sending]
        asked_at = time.monotonic()
        running, pending = self._engine.get_queue()
        lost = []
        for job in sent:
            job_id = job.row.id
            if job_id in running or job_id in pending:
                if job.cancel_requested:
                    self._engine.cancel(job_id)
                elif job_id in running:
                    job.start()
            elif (outcome := self._engine.get_outcome(job_id)) is not None:
                self._handle_outcome(job, outcome)
            elif job.cancel_requested:
                self._untrack(job)
            else:
                lost.append(job)
        self._recover(lost)
        self._queue_seen_at = asked_at
        self._others_ran = bool(running - {job.row.id for job in active if not job.cancel_requested})

    def _recover(self, lost: Sequence[TrackedJob]) -> None:
        """Handles jobs that the engine had and no longer has, in their order: it crashed, or its queue was cleared."""
        suspects = self._suspects(lost)
        crashes = [(job, job.crashes + (job in suspects)) for job in lost]
        again = [(job, count) for job, count in crashes if count < MAX_CRASHES]
        # In one transaction: if it fails, all of them are found lost once more, and the suspects are the same.
        ours = self._store.requeue(self.worker, [(job.row, count) for job, count in again]) if again else set()
        for job, count in again:
            if job.row.id not in ours:
                self._release(job)
                continue
            log.warning("the engine lost job %s, which is sent again", job.row.id)
            job.reset(count)
            # The next attempt saves its pictures again, beside these.
            self._files.remove_pictures(job.row)
            self.notifier.notify(job.row.id)
        for job, count in crashes:
            if count >= MAX_CRASHES:
                self._finish(job, State.FAILED, error=_quarantined(job.row.id))

    def _suspects(self, lost: Sequence[TrackedJob]) -> list[TrackedJob]:
        """The jobs that the engine may have crashed of.

        These are the jobs that were running. If none was seen to run, it is the first in line, unless the engine was
        busy with something else. A reclaimed job is not suspected, since its service died as well; nor is any job if
        somebody stopped the engine.
        """
        # When the clock was set since a job was last seen, nobody knows what else happened at that time.
        known = [job for job in lost if job.acknowledged and max(self._queue_seen_at, job.sent_at) > self._clock_set_at]
        possible = [job for job in known if not self._store.engine_stopped_since(self._last_seen(job))]
        running = [job for job in possible if job.phase is JobPhase.RUNNING]
        if running or self._others_ran:
            return running
        return [job for job in possible[:1] if self._was_first(job)]

    def _was_first(self, job: TrackedJob) -> bool:
        """Whether no job of any service was in front of this one since it was sent or last seen in the queue."""
        return not self._store.stood_in_front(job.row.number, self._last_seen(job))

    def _last_seen(self, job: TrackedJob) -> float:
        """When a job was sent or last seen in the engine's queue, in seconds since 1970."""
        return time.time() - (time.monotonic() - max(self._queue_seen_at, job.sent_at))

    def _dispatch(self) -> None:
        """Sends waiting jobs in order, as far as the window allows; stops when the engine is away."""
        while (job := self._active_jobs.next_to_send()) is not None:
            self._send(job)
            if job.waits:
                return

    def _send(self, job: TrackedJob) -> None:
        """Sends a job to the engine; the job fails if the engine cannot run it."""
        try:
            error = send(job, self._engine, self._files.uploads, self._listener.client_id)
            if error is not None:
                log.warning("job %s could not be sent: %s", job.row.id, error)
                self._finish(job, State.FAILED, error=error)
                self._purgeable.append(job.row.id)
        finally:
            job.sending = False

    def _handle_outcome(self, job: TrackedJob, outcome: Outcome) -> None:
        """Ends a job as the engine's history says."""
        written = True
        if job.cancel_requested:
            self._untrack(job)
        elif outcome.error is None:
            # Pictures of PreviewImage lie elsewhere, and are no result.
            images = [image for image in outcome.images if image.type == "output"]
            # Before the end is notified: the files do not change after that.
            self._files.embed_parameters(job.row, [image.filename for image in images])
            written = self._finish(job, State.COMPLETED, images=images, started=outcome.started)
        else:
            written = self._finish(job, State.FAILED, error=outcome.error, started=outcome.started)
        if written:
            # Only now: the engine's history must have the job until its end is written down.
            self._purgeable.append(job.row.id)

    def _release(self, job: TrackedJob) -> None:
        """Handles a job that another process ended: cancelled it, or reclaimed it because this one seemed dead."""
        if self._store.state(job.row.id) is State.CANCELLED:
            self._request_cancel(job)
        else:
            self._untrack(job)

    def _request_cancel(self, job: TrackedJob) -> None:
        """Marks a job as cancelled; it stays tracked until the engine has let go of it."""
        job.cancel_requested = True
        self._reconcile_soon()
        if job.phase is JobPhase.WAITING and not job.sending:
            self._untrack(job)

    def _finish(
        self,
        job: TrackedJob,
        state: State,
        *,
        images: Sequence[SavedImage] = (),
        error: DreamLayerError | None = None,
        started: float | None = None,
    ) -> bool:
        """Writes the end of a job and stops tracking it; False if another process is to end it."""
        job_id = job.row.id
        body = None
        if error is not None:
            error.details.setdefault("job_id", job_id)
            body = error.as_dict()
        row = self._store.finish(
            job.row,
            self.worker,
            state,
            images=[stored_image(image) for image in images],
            error=body,
            started=started,
            new_events=job.final_events(images),
        )
        if row is not None:
            log.info("job %s %s, %d pictures", job_id, state.value, len(images))
            job.row = row
            self._untrack(job)
            return True
        state_now = self._store.state(job_id)
        job.cancel_requested = state_now is State.CANCELLED
        self._untrack(job)
        return state_now is None or state_now.finished

    def _untrack(self, job: TrackedJob) -> None:
        """Stops tracking a job, and notifies those who wait for it."""
        was_full = self._active_jobs.remove(job)
        if job.cancel_requested:
            self._files.remove_pictures(job.row)
        self.notifier.notify(job.row.id, job.row if job.row.state.finished else None)
        if was_full:
            # Another job may be waiting for the place in the window.
            self._wake()

    def _purge_history(self) -> None:
        """Removes finished jobs from the engine's history, which the engine holds in memory."""
        finished, self._purgeable = self._purgeable, []
        try:
            self._engine.delete_history(finished)
        except EngineError as error:
            log.info("could not remove %d jobs from the engine's history: %s", len(finished), error)


def _quarantined(job_id: str) -> GenerationFailed:
    return GenerationFailed(
        f"the engine died {MAX_CRASHES} times while it had this job",
        hint="a smaller size or batch_size may help; data/logs/engine.log says more",
        job_id=job_id,
    )


def send(job: TrackedJob, engine: EngineClient, uploads: UploadFiles, client_id: str) -> DreamLayerError | None:
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
        job.phase, job.sent_at = JobPhase.SENT, time.monotonic()
        extra = {"preview_method": "auto"} if spec.previews else None
        # Two items of its queue that are equal in number and id end ComfyUI's worker, so none ever are, even if a job
        # should be sent twice: by a process that was thought dead, and by its new worker.
        number = job.row.number + random.random() / 2
        engine.submit(job.row.id, spec.graph, client_id, number, extra)
        job.acknowledged = True
    except EngineUnavailable as error:
        if not error.reached:
            job.phase = JobPhase.WAITING
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
    running, pending = engine.get_queue()
    return job_id in running or job_id in pending or engine.get_outcome(job_id) is not None
