"""The jobs that a process tracks: what is known of each beyond its row, and which is sent next."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from shared.engine.client import SavedImage
from shared.engine.websocket import ImagesSaved, JobCached, JobProgress, JobStarted, Preview
from shared.errors import InvalidPicture
from shared.images.decode import read_picture
from shared.jobs.estimate import ProgressEstimator
from shared.jobs.job import JobRow, JobUpdate, PendingEvent

PREVIEW_SIDE = 256
PREVIEW_QUALITY = 75


class JobPhase(Enum):
    """How far a tracked job has come. It returns to WAITING when the engine lost it."""

    WAITING = "waiting"
    SENT = "sent"
    RUNNING = "running"
    UNTRACKED = "untracked"


@dataclass(eq=False)
class TrackedJob:
    """A job of this process that the engine has, or is to get.

    Only the runner's thread changes it, except while another thread has set `sending`. `sent_at` is when it was last
    sent, on the monotonic clock, and 0 if another process sent it; `acknowledged` whether the engine confirmed that;
    `client_id` the websocket whose events report it. A job with `cancel_requested` is cancelled in the database, and
    tracked until the engine has let go of it.
    """

    row: JobRow
    phase: JobPhase = JobPhase.WAITING
    sending: bool = False
    sent_at: float = 0.0
    acknowledged: bool = False
    cancel_requested: bool = False
    crashes: int = 0
    client_id: str = ""
    reported_images: set[str] = field(default_factory=set)
    _pending: list[PendingEvent] = field(default_factory=list)
    _started: float | None = None
    _progress: PendingEvent | None = None
    _preview: bytes | None = None
    _cached: frozenset[str] = frozenset()
    _pace: ProgressEstimator | None = None
    _ends_at: float | None = None

    @property
    def waits(self) -> bool:
        """Whether it is still to be sent."""
        return self.phase is JobPhase.WAITING and not self.sending and not self.cancel_requested

    def observe(self, event: JobStarted | JobCached | JobProgress | Preview | ImagesSaved) -> None:
        """Records an event of this job; one of an attempt that was lost is ignored."""
        if self.phase is JobPhase.WAITING:
            return
        if not isinstance(event, Preview):
            self.start()
        if isinstance(event, JobProgress):
            # Only the newest step is reported: nobody needs those that came and went since the last report.
            self._progress = ("progress", self._measured(event))
        elif isinstance(event, JobCached):
            self._cached = event.nodes
        elif isinstance(event, Preview):
            self._preview = event.picture
        elif isinstance(event, ImagesSaved):
            self._add_images(event.images)

    def start(self) -> None:
        """Records that it is running."""
        if self.phase is JobPhase.SENT:
            self.phase = JobPhase.RUNNING
            self._started = time.time()
            self._pending.append(("started", {"attempt": self.crashes + 1}))

    def reset(self, crashes: int) -> None:
        """Back to waiting, since the engine lost it; what was not reported yet is void."""
        self.crashes, self.row = crashes, replace(self.row, attempts=crashes)
        self.phase, self.sent_at, self.acknowledged = JobPhase.WAITING, 0.0, False
        self._pace, self._ends_at, self._cached = None, None, frozenset()
        self.reported_images.clear()
        self.clear_update()

    def final_events(self, images: Sequence[SavedImage]) -> list[PendingEvent]:
        """The events to report before its end, with all of its pictures, and without progress, which is over."""
        self._add_images(images)
        return list(self._pending)

    def update(self) -> JobUpdate | None:
        """What is to be written down; None if nothing is."""
        events = list(self._pending)
        if self._progress is not None:
            events.append(self._progress)
        if self._preview is not None and (url := preview_url(self._preview)) is not None:
            events.append(("preview", {"image": url}))
        return JobUpdate(self.row.id, self._started, events) if events else None

    def clear_update(self) -> None:
        """Forgets the update, which is written down now."""
        self._pending, self._started, self._progress, self._preview = [], None, None, None

    def _measured(self, event: JobProgress) -> dict[str, Any]:
        """The step and, once that is known, when the job will be done, in seconds since 1970."""
        if self._pace is None:
            width, height = self.row.spec.parameters.get("width"), self.row.spec.parameters.get("height")
            pixels = float(width * height) if type(width) is int and type(height) is int else None
            self._pace = ProgressEstimator(self.row.spec.graph, pixels, self._cached)
        self._ends_at = self._pace.step(event.node, event.step, event.steps, time.time()) or self._ends_at
        ends = {} if self._ends_at is None else {"ends_at": round(self._ends_at, 1)}
        return _progress(event) | ends

    def _add_images(self, images: Sequence[SavedImage]) -> None:
        for image in images:
            if image.filename not in self.reported_images:
                self.reported_images.add(image.filename)
                self._pending.append(("image", stored_image(image)))


def stored_image(image: SavedImage) -> dict[str, str]:
    """A picture as the database holds it."""
    return {"filename": image.filename, "subfolder": image.subfolder, "type": image.type}


def preview_url(picture: bytes) -> str | None:
    """A small JPEG of a preview as a data URL; None if the picture is none."""
    try:
        small = read_picture(picture, "preview")
    except InvalidPicture:
        return None
    small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=PREVIEW_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _progress(event: JobProgress) -> dict[str, Any]:
    if not event.steps:
        return {"stage": event.node}
    fraction = round(event.step / event.steps, 4)
    return {"stage": event.node, "step": event.step, "steps": event.steps, "fraction": fraction}


# As many jobs are in the engine's own queue: enough that it never waits for us, few enough to ask for often.
WINDOW = 64


class ActiveJobs:
    """The jobs that a process tracks. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, TrackedJob] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: TrackedJob) -> bool:
        """Tracks a new job; whether the caller is to send it at once, which is so unless another waits or the window
        is full."""
        with self._lock:
            room = len(self._jobs) < WINDOW and not self._closed
            job.sending = room and not any(other.waits for other in self._jobs.values())
            self._jobs[job.row.id] = job
            return job.sending

    def add_sent(self, job: TrackedJob) -> None:
        """Tracks a job that another process sent."""
        with self._lock:
            self._jobs[job.row.id] = job

    def remove(self, job: TrackedJob) -> bool:
        """Stops tracking a job; whether others may have been waiting for its place in the window."""
        with self._lock:
            job.phase = JobPhase.UNTRACKED
            self._jobs.pop(job.row.id, None)
            return len(self._jobs) >= WINDOW

    def close(self, patience: float) -> None:
        """Lets no thread begin to send, and waits for those that are sending, at most `patience` seconds."""
        with self._lock:
            self._closed = True
        deadline = time.monotonic() + patience
        while any(job.sending for job in self.in_order()) and time.monotonic() < deadline:
            time.sleep(0.01)

    def get(self, job_id: str) -> TrackedJob | None:
        """The job of that id, if it is tracked."""
        with self._lock:
            return self._jobs.get(job_id)

    def in_order(self) -> list[TrackedJob]:
        """All jobs, in the order of their arrival."""
        with self._lock:
            return sorted(self._jobs.values(), key=lambda job: job.row.number)

    def next_to_send(self) -> TrackedJob | None:
        """The first job that waits, if the window has room; the caller is to send it."""
        with self._lock:
            waiting = [job for job in self._jobs.values() if job.waits]
            if not waiting or self._closed or len(self._jobs) - len(waiting) >= WINDOW:
                return None
            first = min(waiting, key=lambda job: job.row.number)
            first.sending = True
            return first
