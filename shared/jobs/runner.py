"""Runs the jobs of one process: sends them to the engine, tracks them until they are finished, and survives crashes.

One thread tracks all jobs. It works in rounds: it drains the events of the engine's websocket, handles them, and does
what is due by the clock. The engine's queue and history are authoritative; an event only makes the thread look there
at once. A job that the engine lost is sent again under the same id. A job that was running at the engine's third crash
fails, so that it cannot block the others.
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
from shared.jobs.active_jobs import ActiveJobs, JobPhase, TrackedJob, stored_image
from shared.jobs.files import JobFiles, UploadFiles
from shared.jobs.job import JobRow, NewJob, State
from shared.jobs.notify import JobNotifier
from shared.jobs.retention import Retention
from shared.jobs.store import Store

log = logging.getLogger(__name__)

# Intervals in seconds. Between two comparisons with the engine's queue, with and without its websocket:
RECONCILE_CONNECTED = 1.0
RECONCILE_DISCONNECTED = 0.2
# Between two reports of progress:
REPORT_INTERVAL = 0.2
# Between two heartbeats, and the age at which a heartbeat means that its worker no longer runs:
HEARTBEAT_INTERVAL = 1.0
STALE_AFTER = 8.0
# Between two purges of the engine's history:
PURGE_INTERVAL = 1.0
# Between two searches for jobs beyond their retention:
EXPIRE_INTERVAL = 30.0
# After the start, before any job expires by age: a machine may boot with a wrong clock, and correct it soon.
SETTLED_AFTER = 60.0
# By which the wall clock must deviate from the monotonic one to count as set:
CLOCK_SET = 2.0

MAX_CRASHES = 3


class JobRunner:
    """The jobs of one process. Thread-safe. Jobs are tracked only after `start`."""

    def __init__(self, store: Store, engine: EngineClient, files: JobFiles, retention: Retention) -> None:
        self.worker = str(uuid.uuid4())
        self.notifier = JobNotifier()
        self._store = store
        self._engine = engine
        self._files = files
        self._retention = retention
        self._events: queue.SimpleQueue[EngineEvent | None] = queue.SimpleQueue()
        self._listener = EventListener(engine.address, self._events.put, engine.access)
        self._active_jobs = ActiveJobs()
        # Finished jobs that are still in the engine's history.
        self._purgeable: list[str] = []
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._last_error = ""
        # When each periodic task last ran, on the monotonic clock.
        self._last_runs: dict[str, float] = {}
        # By the wall clock, since other processes compare heartbeats with theirs.
        self._heartbeat_lock = threading.Lock()
        self._heartbeat_at = self._orphans_checked_at = self._reclaim_from = 0.0
        # When the engine last returned its queue, on the monotonic clock, and whether it was then running something
        # that is not tracked here: a job of another service, a prompt of another program, or a cancelled job.
        self._queue_seen_at = 0.0
        self._others_ran = False
        self._started, self._started_at = time.monotonic(), time.time()
        # How far the wall clock is ahead of the monotonic one, and when, on the monotonic clock, that last changed.
        self._clock_offset, self._clock_set_at = self._started_at - self._started, 0.0

    def start(self) -> None:
        """Start the thread, which also reclaims the jobs of workers that no longer run."""
        self._listener.start()
        self._thread = threading.Thread(target=self._run, name="job-runner", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread. The engine keeps running unfinished jobs, and other workers reclaim them."""
        self._stopping = True
        self._wake()
        # It may not have started yet if Ctrl-C interrupted `start`.
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout=5)
        self._listener.stop()
        # The worker that reclaims a job asks the engine for it, so a job that is being sent must arrive first.
        self._active_jobs.close(timeout=5)
        # No worker reclaims a cancelled job, as it is finished. Without this, the engine would run it to its end.
        for job in self._active_jobs.in_order():
            if job.cancel_requested and not self._cancel_in_engine(job.row.id):
                break
        try:
            with self._heartbeat_lock:
                self._store.deregister(self.worker)
        except StorageFailed as error:
            log.info("could not deregister this worker: %s", error)

    def submit(self, new_job: NewJob, uploads: Mapping[str, bytes], limit: int) -> tuple[JobRow, bool]:
        """Accept a job: add its row, then send it. If the engine does not answer, the job waits for it.

        `uploads` has the content of the uploads that its spec names. Returns the row, and whether it is new; it is not
        if its idempotency key was used before. Raises QueueFull if `limit` jobs are unfinished. If the engine rejects
        the job, it has failed when this returns.
        """
        self._beat()
        try:
            self._files.write_uploads(uploads)
            row, is_new = self._store.add(new_job, self.worker, limit)
        except (QueueFull, StorageFailed):
            # The disk may be almost full.
            self._files.discard_uploads(uploads)
            raise
        if not is_new:
            return row, False
        # Another job with the same upload may have been deleted, with the file, before this row was added.
        self._files.write_uploads(uploads)
        job = TrackedJob(row)
        # Track it before it is sent, so that no event is missed.
        if self._active_jobs.add(job):
            try:
                self._send(job)
            except (EngineError, StorageFailed) as error:
                # The job is accepted; the thread checks later whether the engine has it.
                log.warning("sending job %s: %s", row.id, error)
        return row, True

    def cancel(self, job_id: str) -> bool:
        """Cancel this job, queued or running, whichever worker runs it; False if it is finished or unknown."""
        if not self._store.cancel(job_id, Cancelled("the job was cancelled", job_id=job_id).as_dict()):
            return False
        self.notifier.notify(job_id)
        job = self._active_jobs.get(job_id)
        if job is not None:
            # The thread repeats the cancellation until the engine has dropped the job.
            self._request_cancel(job)
            self._wake()
            return True
        # The worker of the job notices within a second; this saves that second.
        self._cancel_in_engine(job_id)
        return True

    def _cancel_in_engine(self, job_id: str) -> bool:
        """Returns whether the engine received the cancellation."""
        try:
            self._engine.cancel(job_id)
        except EngineError as error:
            log.info("job %s is not cancelled in the engine yet: %s", job_id, error)
            return False
        return True

    def _wake(self) -> None:
        """Start the thread's next round now."""
        self._events.put(None)

    def _run(self) -> None:
        """The thread: one round after the other."""
        while not self._stopping:
            try:
                self._handle_events(self._drain_events())
                self._tick()
                self._last_error = ""
            except (EngineError, StorageFailed) as error:
                # Log it once, not in every round.
                if error.message != self._last_error:
                    self._last_error = error.message
                    log.warning("%s; jobs wait until this is fixed", error.message)
                time.sleep(RECONCILE_DISCONNECTED)
            except Exception:
                # Without its thread, a service would accept jobs and never finish one.
                log.exception("a round of the job runner failed; continuing with the next one")
                time.sleep(RECONCILE_CONNECTED)

    def _drain_events(self) -> list[EngineEvent]:
        """Wait for an event until the next tick is due, and return all events that have arrived."""
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
        """Do what is due by the clock."""
        now, wall_time = time.monotonic(), time.time()
        self._check_clock(now, wall_time)
        if self._is_due("report", now, REPORT_INTERVAL):
            self._report()
        if self._active_jobs:
            self._beat()
        self._reclaim_orphans(wall_time)
        if self._active_jobs and self._is_due("reconcile", now, self._reconcile_interval()):
            self._reconcile()
        self._dispatch()
        if self._purgeable and self._is_due("purge", now, PURGE_INTERVAL):
            self._purge_history()
        if self._is_due("expire", now, EXPIRE_INTERVAL):
            self._store.refill_reserve()
            self._retention.apply(self._steady_time(now, wall_time))

    def _is_due(self, task: str, now: float, interval: float) -> bool:
        """Whether this last returned True for the task at least `interval` seconds ago."""
        if now - self._last_runs.get(task, 0.0) < interval:
            return False
        self._last_runs[task] = now
        return True

    def _reconcile_soon(self) -> None:
        """Reconcile in the current or next tick."""
        self._last_runs["reconcile"] = 0.0

    def _reconcile_interval(self) -> float:
        """Events report most jobs. Jobs sent over another connection, and cancelled ones, must be polled."""
        if not self._listener.connected:
            return RECONCILE_DISCONNECTED
        client_id = self._listener.client_id
        must_poll = any(
            job.cancel_requested or (job.phase is not JobPhase.WAITING and job.client_id != client_id)
            for job in self._active_jobs.in_order()
        )
        return RECONCILE_DISCONNECTED if must_poll else RECONCILE_CONNECTED

    def _check_clock(self, now: float, wall_time: float) -> None:
        """Detect that the wall clock was set, or that the machine slept."""
        if abs(wall_time - now - self._clock_offset) > CLOCK_SET:
            self._clock_offset = wall_time - now
            self._clock_set_at = now

    def _steady_time(self, now: float, wall_time: float) -> float | None:
        """The wall clock without forward jumps, for retention; None while it may not have been corrected yet."""
        if now - self._started < SETTLED_AFTER:
            return None
        return min(wall_time, self._started_at + now - self._started)

    def _beat(self) -> None:
        """Renew the heartbeat, if that is due."""
        # The lock makes a second caller wait: no job may be accepted before the heartbeat is written.
        with self._heartbeat_lock:
            if abs(time.time() - self._heartbeat_at) >= HEARTBEAT_INTERVAL and not self._stopping:
                self._store.beat(self.worker)
                self._heartbeat_at = time.time()

    def _reclaim_orphans(self, wall_time: float) -> None:
        """Take over the unfinished jobs of workers that no longer run."""
        since_check = abs(wall_time - self._orphans_checked_at)
        if since_check > STALE_AFTER / 2:
            # The first check, or the machine slept. After a sleep, the heartbeats of other workers are late too.
            self._reclaim_from = wall_time + (STALE_AFTER if self._orphans_checked_at else 0.0)
        if since_check < HEARTBEAT_INTERVAL:
            return
        self._orphans_checked_at = wall_time
        if wall_time < self._reclaim_from or self._stopping:
            return
        for row in self._store.reclaim_orphans(self.worker, wall_time - STALE_AFTER):
            log.info("reclaimed job %s from a worker that no longer runs", row.id)
            # The engine may have it: reconciling finds out, and requeues it if not.
            self._active_jobs.add_sent(TrackedJob.reclaimed(row, self._store.events(row.id, 0)))
            self._reconcile_soon()

    def _report(self) -> None:
        """Record the updates of all jobs, and notify their subscribers."""
        jobs = [job for job in self._active_jobs.in_order() if not job.cancel_requested]
        updates = [(job, update) for job in jobs if (update := job.update()) is not None]
        if updates:
            self._store.save(self.worker, [update for _, update in updates])
        for job, _ in updates:
            job.clear_update()
            self.notifier.notify(job.row.id)

    def _reconcile(self) -> None:
        """Compare the active jobs with the engine: each is in its queue, in its history, lost, or not sent yet."""
        active = self._active_jobs.in_order()
        owned = self._store.still_owned([job.row.id for job in active], self.worker)
        for job in active:
            if job.row.id not in owned:
                self._release(job)
        # A job that is being sent may reach the engine just after its answer; the next reconciliation includes it.
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
        self._requeue_lost(lost)
        self._queue_seen_at = asked_at
        self._others_ran = bool(running - {job.row.id for job in active if not job.cancel_requested})

    def _requeue_lost(self, lost: Sequence[TrackedJob]) -> None:
        """Requeue the jobs that the engine lost by a crash or a cleared queue, in order. They fail at MAX_CRASHES."""
        suspects = self._suspects(lost)
        crashes = [(job, job.crashes + (job in suspects)) for job in lost]
        retried = [(job, count) for job, count in crashes if count < MAX_CRASHES]
        # One transaction: if it fails, the next reconciliation finds the same jobs lost, and the same suspects.
        requeued = self._store.requeue(self.worker, [(job.row, count) for job, count in retried]) if retried else set()
        for job, count in retried:
            if job.row.id not in requeued:
                self._release(job)
                continue
            log.warning("the engine lost job %s; sending it again", job.row.id)
            job.reset(count)
            # The next attempt saves its pictures under new names.
            self._files.remove_pictures(job.row)
            self.notifier.notify(job.row.id)
        for job, count in crashes:
            if count >= MAX_CRASHES:
                self._finish(job, State.FAILED, error=_too_many_crashes(job.row.id))

    def _suspects(self, lost: Sequence[TrackedJob]) -> list[TrackedJob]:
        """The lost jobs that may have crashed the engine.

        These are the jobs that were running. If none was seen running, it is the first in the queue, unless the engine
        was running something else. A reclaimed job is no suspect, as its worker crashed too; nor is any job if the
        engine was stopped on purpose.
        """
        # If the clock was set after a job was last seen, the recorded times cannot be compared.
        known = [job for job in lost if job.acknowledged and max(self._queue_seen_at, job.sent_at) > self._clock_set_at]
        possible = [job for job in known if not self._store.engine_stopped_since(self._last_seen(job))]
        running = [job for job in possible if job.phase is JobPhase.RUNNING]
        if running or self._others_ran:
            return running
        return [job for job in possible[:1] if not self._store.was_any_ahead(job.row.number, self._last_seen(job))]

    def _last_seen(self, job: TrackedJob) -> float:
        """When a job was sent or last seen in the engine's queue, in seconds since 1970."""
        return time.time() - (time.monotonic() - max(self._queue_seen_at, job.sent_at))

    def _dispatch(self) -> None:
        """Send waiting jobs in order, until the window is full or the engine does not answer."""
        while (job := self._active_jobs.next_to_send()) is not None:
            self._send(job)
            if job.is_waiting:
                return

    def _send(self, job: TrackedJob) -> None:
        """Send a job to the engine; the job fails if the engine cannot run it."""
        try:
            error = send_to_engine(job, self._engine, self._files.uploads, self._listener.client_id)
            if error is not None:
                log.warning("job %s could not be sent: %s", job.row.id, error)
                self._finish(job, State.FAILED, error=error)
                self._purgeable.append(job.row.id)
        finally:
            job.sending = False

    def _handle_outcome(self, job: TrackedJob, outcome: Outcome) -> None:
        """Finish a job according to the engine's history."""
        is_recorded = True
        if job.cancel_requested:
            self._untrack(job)
        elif outcome.error is None:
            # Pictures of PreviewImage are of another type, and not part of the result.
            images = [image for image in outcome.images if image.type == "output"]
            # Before the end is recorded, since files do not change afterwards.
            self._files.embed_parameters(job.row, [image.filename for image in images])
            is_recorded = self._finish(job, State.COMPLETED, images=images, started=outcome.started)
        else:
            is_recorded = self._finish(job, State.FAILED, error=outcome.error, started=outcome.started)
        if is_recorded:
            # Not earlier: until its end is recorded, the engine's history is the only trace of it.
            self._purgeable.append(job.row.id)

    def _release(self, job: TrackedJob) -> None:
        """Stop running a job that another process cancelled, or reclaimed because this worker seemed to be dead."""
        if self._store.state(job.row.id) is State.CANCELLED:
            self._request_cancel(job)
        else:
            self._untrack(job)

    def _request_cancel(self, job: TrackedJob) -> None:
        """Mark a job as cancelled; it stays tracked until the engine has dropped it."""
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
        """Record the end of a job, and stop tracking it; False if another worker owns it, and is to finish it."""
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
        recorded_state = self._store.state(job_id)
        job.cancel_requested = recorded_state is State.CANCELLED
        self._untrack(job)
        return recorded_state is None or recorded_state.finished

    def _untrack(self, job: TrackedJob) -> None:
        """Stop tracking a job, and notify its subscribers."""
        was_full = self._active_jobs.remove(job)
        if job.cancel_requested:
            self._files.remove_pictures(job.row)
        self.notifier.notify(job.row.id, job.row if job.row.state.finished else None)
        if was_full:
            # Another job may be waiting for room in the window.
            self._wake()

    def _purge_history(self) -> None:
        """Delete finished jobs from the engine's history, which it keeps in memory."""
        finished, self._purgeable = self._purgeable, []
        try:
            self._engine.delete_history(finished)
        except EngineError as error:
            log.info("could not delete %d jobs from the engine's history: %s", len(finished), error)


def send_to_engine(
    job: TrackedJob, engine: EngineClient, uploads: UploadFiles, client_id: str
) -> DreamLayerError | None:
    """Send a job with its uploads; the engine reports it to its websocket `client_id`.

    Returns the error if the job cannot run. If the engine does not answer, the job keeps waiting or, if it may have
    arrived, counts as sent. Raises EngineError if it cannot be determined whether the engine has the job.
    """
    spec = job.row.spec
    try:
        for name, folder in spec.uploads.items():
            # An upload without a folder is stored here, but not needed by the engine.
            if folder is not None:
                engine.upload(name, uploads.read(name), folder)
        job.client_id = client_id
        # It counts as sent from here on, since the engine may have it even if its answer is lost.
        job.phase, job.sent_at = JobPhase.SENT, time.monotonic()
        extra = {"preview_method": "auto"} if spec.previews else None
        # Two prompts with the same number and id would end ComfyUI's worker thread. A job can be sent twice: by a
        # worker that seemed to be dead, and by the one that reclaimed it. So the number has a random fraction.
        number = job.row.number + random.random() / 2
        engine.submit(job.row.id, spec.graph, client_id, number, extra)
        job.acknowledged = True
    except EngineUnavailable as error:
        if not error.reached:
            job.phase = JobPhase.WAITING
        log.info("the engine does not answer; job %s waits for it", job.row.id)
    except (EngineError, StorageFailed) as error:
        if not _has_arrived(engine, job.row.id, error):
            return error
    except Exception:
        # A retry would fail in the same way, and block the jobs behind this one.
        log.exception("job %s cannot be sent", job.row.id)
        return DreamLayerError("the job could not be sent to the engine", hint="see the service's log for the reason")
    return None


def _has_arrived(engine: EngineClient, job_id: str, error: DreamLayerError) -> bool:
    """Whether the engine has the job despite the error: ComfyUI can answer 500 and still run a prompt."""
    if isinstance(error, (EngineRejected, StorageFailed)):
        return False
    running, pending = engine.get_queue()
    return job_id in running or job_id in pending or engine.get_outcome(job_id) is not None


def _too_many_crashes(job_id: str) -> GenerationFailed:
    return GenerationFailed(
        f"the engine crashed {MAX_CRASHES} times while it ran this job",
        hint="try a smaller size or batch_size; see data/logs/engine.log for details",
        job_id=job_id,
    )
