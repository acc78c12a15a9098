"""The jobs that a process tracks: their progress in the engine, and the order in which they are sent."""

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
from shared.jobs.job import Event, JobRow, JobUpdate, PendingEvent, State

# Pixels of a preview's longer side, and its JPEG quality.
PREVIEW_SIDE = 256
PREVIEW_QUALITY = 75
# The number of jobs in the engine's own queue: enough to keep it busy, and few enough to query often.
WINDOW = 64


class JobPhase(Enum):
    """The phase of a tracked job. A job that the engine lost returns to WAITING."""

    WAITING = "waiting"
    SENT = "sent"
    RUNNING = "running"
    UNTRACKED = "untracked"


@dataclass(eq=False)
class TrackedJob:
    """A job that this process runs.

    `sent_at` is when it was last sent, on the monotonic clock; 0 if another process sent it. It is `acknowledged` once
    the engine has confirmed that. `client_id` is the websocket whose events report it. A job with `cancel_requested` is
    cancelled in the database, and tracked until the engine has dropped it. `crashes` counts the crashes of the engine
    that it may have caused.

    Only the runner's thread changes a job, except while another thread has set `sending`.
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
    _estimator: ProgressEstimator | None = None
    _ends_at: float | None = None

    @classmethod
    def reclaimed(cls, row: JobRow, events: Sequence[Event]) -> TrackedJob:
        """A job of another worker, with its recorded events. It counts as sent; the engine may or may not have it."""
        phase = JobPhase.RUNNING if row.state is State.RUNNING else JobPhase.SENT
        job = cls(row, phase=phase, crashes=row.attempts)
        for event in events:
            if event.name == "queued":
                job.reported_images.clear()
            elif event.name == "image":
                job.reported_images.add(event.data["filename"])
        return job

    @property
    def is_waiting(self) -> bool:
        """Whether it is still to be sent."""
        return self.phase is JobPhase.WAITING and not self.sending and not self.cancel_requested

    def observe(self, event: JobStarted | JobCached | JobProgress | Preview | ImagesSaved) -> None:
        """Process an event of the engine. Events of a lost attempt are ignored."""
        if self.phase is JobPhase.WAITING:
            return
        if not isinstance(event, Preview):
            self.start()
        if isinstance(event, JobProgress):
            # Replaces a step that is not reported yet.
            self._progress = ("progress", self._progress_data(event))
        elif isinstance(event, JobCached):
            self._cached = event.nodes
        elif isinstance(event, Preview):
            self._preview = event.picture
        elif isinstance(event, ImagesSaved):
            self._add_images(event.images)

    def start(self) -> None:
        """Mark the job as running."""
        if self.phase is JobPhase.SENT:
            self.phase = JobPhase.RUNNING
            self._started = time.time()
            self._pending.append(("started", {"attempt": self.crashes + 1}))

    def reset(self, crashes: int) -> None:
        """Return a job that the engine lost to WAITING, and discard what is not reported yet."""
        self.crashes, self.row = crashes, replace(self.row, attempts=crashes)
        self.phase, self.sent_at, self.acknowledged = JobPhase.WAITING, 0.0, False
        self._estimator, self._ends_at, self._cached = None, None, frozenset()
        self.reported_images.clear()
        self.clear_update()

    def final_events(self, images: Sequence[SavedImage]) -> list[PendingEvent]:
        """The events to record before its end, including all of its pictures, but no more progress."""
        self._add_images(images)
        return list(self._pending)

    def update(self) -> JobUpdate | None:
        """The changes to record; None if there are none."""
        events = list(self._pending)
        if self._progress is not None:
            events.append(self._progress)
        if self._preview is not None and (url := preview_url(self._preview)) is not None:
            events.append(("preview", {"image": url}))
        return JobUpdate(self.row.id, self._started, events) if events else None

    def clear_update(self) -> None:
        """Discard the changes, for they are recorded."""
        self._pending, self._started, self._progress, self._preview = [], None, None, None

    def _progress_data(self, event: JobProgress) -> dict[str, Any]:
        """The data of a progress event: the step and, once it can be estimated, the end in seconds since 1970."""
        if self._estimator is None:
            width, height = self.row.spec.parameters.get("width"), self.row.spec.parameters.get("height")
            pixels = float(width * height) if type(width) is int and type(height) is int else None
            self._estimator = ProgressEstimator(self.row.spec.graph, pixels, self._cached)
        self._ends_at = self._estimator.step(event.node, event.step, event.steps, time.time()) or self._ends_at
        data: dict[str, Any] = {"stage": event.node}
        if event.steps:
            data |= {"step": event.step, "steps": event.steps, "fraction": round(event.step / event.steps, 4)}
        if self._ends_at is not None:
            data["ends_at"] = round(self._ends_at, 1)
        return data

    def _add_images(self, images: Sequence[SavedImage]) -> None:
        for image in images:
            if image.filename not in self.reported_images:
                self.reported_images.add(image.filename)
                self._pending.append(("image", stored_image(image)))


def stored_image(image: SavedImage) -> dict[str, str]:
    """A picture as the database stores it."""
    return {"filename": image.filename, "subfolder": image.subfolder, "type": image.type}


def preview_url(picture: bytes) -> str | None:
    """A preview as a small JPEG in a data URL; None if it cannot be decoded."""
    try:
        small = read_picture(picture, "preview")
    except InvalidPicture:
        return None
    small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=PREVIEW_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


class ActiveJobs:
    """The tracked jobs of a process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, TrackedJob] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: TrackedJob) -> bool:
        """Track a new job. Returns whether the caller must send it now: if no other waits and the window has room."""
        with self._lock:
            has_room = len(self._jobs) < WINDOW and not self._closed
            job.sending = has_room and not any(other.is_waiting for other in self._jobs.values())
            self._jobs[job.row.id] = job
            return job.sending

    def add_sent(self, job: TrackedJob) -> None:
        """Track a job that another process sent."""
        with self._lock:
            self._jobs[job.row.id] = job

    def remove(self, job: TrackedJob) -> bool:
        """Stop tracking a job. Returns whether the window was full, so that another job may be waiting."""
        with self._lock:
            job.phase = JobPhase.UNTRACKED
            self._jobs.pop(job.row.id, None)
            return len(self._jobs) >= WINDOW

    def close(self, timeout: float) -> None:
        """Let no thread start to send, and wait for those that are sending, at most `timeout` seconds."""
        with self._lock:
            self._closed = True
        deadline = time.monotonic() + timeout
        while any(job.sending for job in self.in_order()) and time.monotonic() < deadline:
            time.sleep(0.01)

    def get(self, job_id: str) -> TrackedJob | None:
        """The job with this id, if it is tracked."""
        with self._lock:
            return self._jobs.get(job_id)

    def in_order(self) -> list[TrackedJob]:
        """All jobs, in the order in which they were submitted."""
        with self._lock:
            return sorted(self._jobs.values(), key=lambda job: job.row.number)

    def next_to_send(self) -> TrackedJob | None:
        """The first waiting job, which the caller must send; None if there is none, or if the window is full."""
        with self._lock:
            waiting = [job for job in self._jobs.values() if job.is_waiting]
            if not waiting or self._closed or len(self._jobs) - len(waiting) >= WINDOW:
                return None
            first = min(waiting, key=lambda job: job.row.number)
            first.sending = True
            return first
