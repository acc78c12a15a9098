"""Runs the jobs of one process: sends them to the engine, follows them to their end, survives every death on the way.

One thread follows all of them, however many requests wait. The engine's queue and history decide; its websocket only
says where to look first. A job that the engine lost is sent again under the same id; one that was being drawn when the
engine died, for the third time, is given up, so that it cannot take the others with it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from collections.abc import Mapping, Sequence

from shared.engine.client import EngineClient, Outcome, SavedImage
from shared.engine.websocket import Connection, EngineEvent, JobEnded, Listener
from shared.errors import Cancelled, DreamLayerError, EngineError, GenerationFailed, QueueFull, StorageFailed
from shared.jobs.database import JobRow, NewJob, State
from shared.jobs.dispatch import send
from shared.jobs.files import JobFiles
from shared.jobs.notify import JobNotifier
from shared.jobs.store import Store
from shared.jobs.tracked import ActiveJobs, TrackedJob, saved

log = logging.getLogger(__name__)

# All in seconds. Between two looks at the engine's queue: while its websocket says when to look, and while it does not.
RECONCILE_CONNECTED = 1.0
RECONCILE_DISCONNECTED = 0.2
# Between two reports of progress.
REPORT_INTERVAL = 0.2
# Between two heartbeats, and of a silence after which a process counts as dead.
HEARTBEAT_INTERVAL = 1.0
STALE_AFTER = 8.0
# Between two looks at what finished jobs leave in the engine's memory.
PURGE_INTERVAL = 1.0
# Between two looks for what is past its time.
EXPIRE_INTERVAL = 30.0
# Of a process's life, before anything is too old for it: a machine may start with a wrong clock, and mends it soon.
SETTLED = 60.0
# That the wall clock goes ahead of the monotonic one, or behind it, before it counts as set.
CLOCK_SET = 2.0
MAX_CRASHES = 3


class JobRunner:
    """The jobs of one process. Safe to share between threads; nothing is followed before `start`."""

    def __init__(self, store: Store, engine: EngineClient, files: JobFiles) -> None:
        self.worker = str(uuid.uuid4())
        self.notifier = JobNotifier()
        self._store = store
        self._engine = engine
        self._files = files
        self._events: queue.SimpleQueue[EngineEvent | None] = queue.SimpleQueue()
        self._listener = Listener(engine.address, self._events.put, engine.access)
        self._active_jobs = ActiveJobs()
        self._purgeable: list[str] = []
        self._beating = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._reconciled = self._reported = self._tidied = self._expired = 0.0
        # By the wall clock, for other processes compare it with theirs.
        self._beaten = self._looked = 0.0
        self._adopt_from = 0.0
        # When the engine last told its queue, on the monotonic clock.
        self._told = 0.0
        # Whether it then ran what is no job of ours: another service's, a stranger's, or one that was cancelled.
        self._others_ran = False
        self._trouble = ""
        self._begun, self._begun_at = time.monotonic(), time.time()
        # How far the wall clock is ahead of the monotonic one, and when on that it was seen to be set.
        self._ahead, self._clock_set = self._begun_at - self._begun, 0.0

    def start(self) -> None:
        """Starts following, and reclaims what dead processes left behind."""
        self._listener.start()
        self._thread = threading.Thread(target=self._work, name="runner", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stops following. What is unfinished goes on in the engine, and is for others to reclaim."""
        self._stopping = True
        self._events.put(None)
        # Ctrl-C may have come before it was started.
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout=5)
        self._listener.stop()
        # Whoever reclaims what is left asks the engine for it: by then it must have all that was sent.
        self._active_jobs.close(patience=5)
        # A cancelled job is finished, so nobody reclaims it: the engine would draw it to its end.
        for each in self._active_jobs.in_order():
            if each.cancel_requested and not self._cancel_in_engine(each.row.id):
                break
        try:
            with self._beating:
                self._store.leave(self.worker)
        except StorageFailed as error:
            log.info("could not sign off: %s", error)

    def submit(self, job: NewJob, uploads: Mapping[str, bytes], limit: int) -> tuple[JobRow, bool]:
        """Accepts a job: a row first, then the engine. An engine that is away gets it when it is back.

        `uploads` are the pictures that its `spec` names. Returns the row, and whether it is new: it is not if its
        idempotency key was used before. Raises QueueFull if `limit` jobs are unfinished. A job that the engine refuses
        has failed when this returns.
        """
        self._beat()
        try:
            self._files.keep(uploads)
            row, new = self._store.add(job, self.worker, limit)
        except (QueueFull, StorageFailed):
            # There may be none to whom they are of use, and little room.
            self._files.drop(uploads)
            raise
        if not new:
            return row, False
        # A job with the same picture may have been removed, with its files, before this one was written down.
        self._files.keep(uploads)
        each = TrackedJob(row)
        # Known before the engine can tell of it.
        if self._active_jobs.add(each):
            try:
                self._send(each)
            except (EngineError, StorageFailed) as error:
                # It is accepted all the same: the thread finds out what became of it.
                log.warning("sending job %s: %s", row.id, error)
        return row, True

    def cancel(self, job_id: str) -> bool:
        """Cancels this job, queued or running, whoever runs it, and no other; False if it is finished or unknown."""
        if not self._store.cancel(job_id, Cancelled("the job was cancelled", job_id=job_id).as_dict()):
            return False
        self.notifier.notify(job_id)
        each = self._active_jobs.get(job_id)
        if each is not None:
            # The thread tells the engine, at once, and until it has let go.
            self._request_cancel(each)
            self._events.put(None)
            return True
        # Another process will find out within a second; the engine need not go on for so long.
        self._cancel_in_engine(job_id)
        return True

    def _cancel_in_engine(self, job_id: str) -> bool:
        """Whether the engine could be told."""
        try:
            self._engine.cancel(job_id)
        except EngineError as error:
            log.info("job %s is still to be cancelled in the engine: %s", job_id, error)
            return False
        return True

    def _work(self) -> None:
        while not self._stopping:
            try:
                self._handle_events(self._drain_events())
                self._tick()
                self._trouble = ""
            except (EngineError, StorageFailed) as error:
                # Said once, not in each of the many rounds that a trouble lasts.
                if error.message != self._trouble:
                    self._trouble = error.message
                    log.warning("%s; jobs wait until this is mended", error.message)
                time.sleep(RECONCILE_DISCONNECTED)
            except Exception:
                # Whatever it is, a thread that died would be a service that takes jobs and never ends one.
                log.exception("a round of following jobs failed; the next one goes on")
                time.sleep(RECONCILE_CONNECTED)

    def _drain_events(self) -> list[EngineEvent]:
        """All events that came; waits a moment if there are none."""
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
            if isinstance(event, Connection):
                self._reconciled = 0.0
                continue
            each = self._active_jobs.get(event.job_id)
            if each is None:
                continue
            if not isinstance(event, JobEnded):
                each.observe(event)
            elif (outcome := self._engine.outcome(event.job_id)) is not None:
                self._handle_outcome(each, outcome)
            else:
                self._reconciled = 0.0

    def _tick(self) -> None:
        """What is due by the clock: news for the table, the heartbeat, orphans, a look at the engine's queue."""
        now, wall = time.monotonic(), time.time()
        self._look_at_clock(now, wall)
        if now - self._reported >= REPORT_INTERVAL:
            self._reported = now
            self._report()
        if self._active_jobs:
            self._beat()
        if abs(wall - self._looked) > STALE_AFTER / 2:
            # If this process did not get to look for so long, the machine slept, and the others are as late.
            self._adopt_from = wall + (STALE_AFTER if self._looked else 0.0)
        if abs(wall - self._looked) >= HEARTBEAT_INTERVAL:
            self._looked = wall
            # Who is about to end leaves them to whoever comes next.
            if wall >= self._adopt_from and not self._stopping:
                self._adopt(wall - STALE_AFTER)
        if self._active_jobs and now - self._reconciled >= self._pause():
            self._reconciled = now
            self._reconcile()
        self._dispatch()
        if self._purgeable and now - self._tidied >= PURGE_INTERVAL:
            self._tidied = now
            self._purge_history()
        if now - self._expired >= EXPIRE_INTERVAL:
            self._expired = now
            self._store.refill()
            self._files.expire(self._trusted(now, wall))

    def _look_at_clock(self, now: float, wall: float) -> None:
        """Finds out whether the wall clock was set, or the machine slept."""
        if abs(wall - now - self._ahead) > CLOCK_SET:
            self._ahead = wall - now
            self._clock_set = now

    def _trusted(self, now: float, wall: float) -> float | None:
        """The time by which things become old: it does not jump ahead. None while the clock may still be wrong."""
        if now - self._begun < SETTLED:
            return None
        return min(wall, self._begun_at + now - self._begun)

    def _beat(self) -> None:
        # Who comes second waits: a job must not be accepted under a heartbeat that is not written yet.
        with self._beating:
            if abs(time.time() - self._beaten) >= HEARTBEAT_INTERVAL and not self._stopping:
                self._store.beat(self.worker)
                self._beaten = time.time()

    def _pause(self) -> float:
        """Events tell of most jobs; of those sent under another connection, or cancel_requested, only asking does."""
        if not self._listener.connected:
            return RECONCILE_DISCONNECTED
        heard = self._listener.client_id
        unheard = any(
            each.cancel_requested or (each.sent is not None and each.client_id != heard)
            for each in self._active_jobs.in_order()
        )
        return RECONCILE_DISCONNECTED if unheard else RECONCILE_CONNECTED

    def _report(self) -> None:
        active = self._active_jobs.in_order()
        news = [
            (each, report) for each in active if not each.cancel_requested and (report := each.report()) is not None
        ]
        if news:
            self._store.save(self.worker, [report for _, report in news])
        for each, _ in news:
            each.reported()
            self.notifier.notify(each.row.id)

    def _adopt(self, stale_before: float) -> None:
        for row in self._store.reclaim(self.worker, stale_before):
            log.info("job %s is reclaimed from a service that is detached", row.id)
            # It may stand in the engine's queue: the survey finds out, and sends it if not.
            each = TrackedJob(row, sent=0.0, crashes=row.attempts)
            each.running = row.state is State.RUNNING
            for event in self._store.events(row.id, 0):
                if event.name == "queued":
                    each.reported_images.clear()
                elif event.name == "image":
                    each.reported_images.add(event.data["filename"])
            self._active_jobs.reclaim(each)
            self._reconciled = 0.0

    def _reconcile(self) -> None:
        """Every active job is in the engine's queue, or in its history, or lost, or still to be sent."""
        active = self._active_jobs.in_order()
        ours = self._store.unfinished([each.row.id for each in active], self.worker)
        for each in active:
            if each.row.id not in ours:
                self._release(each)
        # What is still being sent may get there just after the answer: it is looked for next time.
        sent = [each for each in active if not (each.detached or each.sending or each.sent is None)]
        asked = time.monotonic()
        running, pending = self._engine.queue()
        lost = []
        for each in sent:
            job_id = each.row.id
            if job_id in running or job_id in pending:
                if each.cancel_requested:
                    self._engine.cancel(job_id)
                elif job_id in running:
                    each.start()
            elif (outcome := self._engine.outcome(job_id)) is not None:
                self._handle_outcome(each, outcome)
            elif each.cancel_requested:
                self._untrack(each)
            else:
                lost.append(each)
        self._recover(lost)
        self._told = asked
        self._others_ran = bool(running - {each.row.id for each in active if not each.cancel_requested})

    def _recover(self, lost: Sequence[TrackedJob]) -> None:
        """The engine knows nothing of these jobs that it had, in their order: it died, or was emptied by hand."""
        suspects = self._suspects(lost)
        crashes = [(each, each.crashes + (each in suspects)) for each in lost]
        again = [(each, count) for each, count in crashes if count < MAX_CRASHES]
        # All in one transaction: if it fails, all of them are found lost once more, and nobody new is suspected.
        ours = self._store.requeue(self.worker, [(each.row, count) for each, count in again]) if again else set()
        for each, count in again:
            if each.row.id not in ours:
                self._release(each)
                continue
            log.warning("the engine lost job %s, it is sent again", each.row.id)
            each.lose(count)
            # What it saved before would lie beside what it saves again.
            self._files.remove_pictures(each.row)
            self.notifier.notify(each.row.id)
        for each, count in crashes:
            if count >= MAX_CRASHES:
                self._finish(each, State.FAILED, error=_quarantined(each.row.id))

    def _suspects(self, lost: Sequence[TrackedJob]) -> list[TrackedJob]:
        """Of which of these jobs the engine may have died.

        Whoever was being drawn is under suspicion; if nobody was seen to be, the first in line was about to, unless the
        engine was busy with something else. What was reclaimed is not: then its service died too, and that is not a
        job's doing. Nor is it that somebody ended the engine.
        """
        # By a clock that was set since, it is not known what else happened at that time.
        seen = [each for each in lost if each.acknowledged and max(self._told, each.sent or 0.0) > self._clock_set]
        acknowledged = [each for each in seen if not self._store.engine_stopped_since(self._last_seen(each))]
        drawn = [each for each in acknowledged if each.running]
        if drawn or self._others_ran:
            return drawn
        return [each for each in acknowledged[:1] if self._was_first(each)]

    def _was_first(self, each: TrackedJob) -> bool:
        """Whether no job of any service stood in front of this one, since it was sent or last seen in the queue."""
        return not self._store.stood_in_front(each.row.number, self._last_seen(each))

    def _last_seen(self, each: TrackedJob) -> float:
        """When a job was sent or last seen in the engine's queue, in seconds since 1970."""
        return time.time() - (time.monotonic() - max(self._told, each.sent or 0.0))

    def _dispatch(self) -> None:
        """Sends what waits, in order, as far as the window allows; no more of it if the engine is away."""
        while (each := self._active_jobs.next_to_send()) is not None:
            self._send(each)
            if each.waits:
                return

    def _send(self, each: TrackedJob) -> None:
        """Gives a job to the engine; it has failed if that cannot draw it."""
        try:
            error = send(each, self._engine, self._files.uploads, self._listener.client_id)
            if error is not None:
                log.warning("job %s could not be sent: %s", each.row.id, error)
                self._finish(each, State.FAILED, error=error)
                self._purgeable.append(each.row.id)
        finally:
            each.sending = False

    def _handle_outcome(self, each: TrackedJob, outcome: Outcome) -> None:
        """The engine is done with a job, and its history says how."""
        told = True
        if each.cancel_requested:
            self._untrack(each)
        elif outcome.error is None:
            # What PreviewImage shows lies elsewhere, and is no result.
            images = [image for image in outcome.images if image.type == "output"]
            # Before the end is told: who then comes for a file finds it as it stays.
            self._files.write_recipes(each.row, [image.filename for image in images])
            told = self._finish(each, State.COMPLETED, images=images, started=outcome.started)
        else:
            told = self._finish(each, State.FAILED, error=outcome.error, started=outcome.started)
        if told:
            # Only now: until its end is written down, the engine is to remember it.
            self._purgeable.append(each.row.id)

    def _release(self, each: TrackedJob) -> None:
        """The job was ended by another process: cancelled, or reclaimed while this one was thought dead."""
        if self._store.state(each.row.id) is State.CANCELLED:
            self._request_cancel(each)
        else:
            self._untrack(each)

    def _request_cancel(self, each: TrackedJob) -> None:
        """It is cancelled, and kept in mind until it has left the engine."""
        each.cancel_requested = True
        self._reconciled = 0.0
        if each.sent is None and not each.sending:
            self._untrack(each)

    def _finish(
        self,
        each: TrackedJob,
        state: State,
        *,
        images: Sequence[SavedImage] = (),
        error: DreamLayerError | None = None,
        started: float | None = None,
    ) -> bool:
        """Writes the end down and follows the job no more; False if it is another process's to end."""
        job_id = each.row.id
        told = None
        if error is not None:
            error.details.setdefault("job_id", job_id)
            told = error.as_dict()
        notes, kept = each.final_events(images), [saved(image) for image in images]
        row = self._store.finish(each.row, self.worker, state, images=kept, error=told, started=started, notes=notes)
        if row is not None:
            log.info("job %s %s, %d pictures", job_id, state.value, len(kept))
            each.row = row
            self._untrack(each)
            return True
        state_now = self._store.state(job_id)
        each.cancel_requested = state_now is State.CANCELLED
        self._untrack(each)
        return state_now is None or state_now.finished

    def _untrack(self, each: TrackedJob) -> None:
        """It is followed no more."""
        room = self._active_jobs.leave(each)
        if each.cancel_requested:
            self._files.remove_pictures(each.row)
        self.notifier.notify(each.row.id, each.row if each.row.state.finished else None)
        if room:
            # The thread shall look at once.
            self._events.put(None)

    def _purge_history(self) -> None:
        """Takes finished jobs out of the engine's history, which is held in memory."""
        spent, self._purgeable = self._purgeable, []
        try:
            self._engine.forget(spent)
        except EngineError as error:
            log.info("could not clear %d jobs from the engine's history: %s", len(spent), error)


def _quarantined(job_id: str) -> GenerationFailed:
    return GenerationFailed(
        f"the engine died {MAX_CRASHES} times while it had this job",
        hint="a smaller size or batch_size may help; data/logs/engine.log says more",
        job_id=job_id,
    )
