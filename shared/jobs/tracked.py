"""The jobs that a process follows: what is known of each beyond its row, and which are to be dispatched next."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shared.engine.client import SavedImage
from shared.engine.websocket import ImagesSaved, JobCached, JobProgress, JobStarted, Preview
from shared.errors import InvalidPicture
from shared.images.normalise import read_picture
from shared.jobs.database import JobRow, JobUpdate, PendingEvent
from shared.jobs.estimate import Pace

PREVIEW_SIDE = 256
PREVIEW_QUALITY = 75


@dataclass(eq=False)
class TrackedJob:
    """A job of ours that the engine has, or is to get. One thread follows it; `sending` guards it while another sends.

    `sent` is when it was sent to the engine last, on the monotonic clock, or None; `acknowledged` whether the engine
    said that it took it; `client_id` names the websocket that hears of it; `reported_images` are the pictures that were
    told; `cancel_requested` means that it was cancelled and shall leave the engine, `detached` that it is followed no
    more.
    """

    row: JobRow
    sent: float | None = None
    sending: bool = False
    acknowledged: bool = False
    running: bool = False
    cancel_requested: bool = False
    detached: bool = False
    crashes: int = 0
    client_id: str = ""
    reported_images: set[str] = field(default_factory=set)
    _pending: list[PendingEvent] = field(default_factory=list)
    _started: float | None = None
    _progress: PendingEvent | None = None
    _preview: bytes | None = None
    _cached: frozenset[str] = frozenset()
    _pace: Pace | None = None
    _ends_at: float | None = None

    @property
    def waits(self) -> bool:
        """Whether it is still to be sent."""
        return self.sent is None and not self.sending and not self.cancel_requested

    def observe(self, event: JobStarted | JobCached | JobProgress | Preview | ImagesSaved) -> None:
        """Takes notice of an event of this job."""
        if not isinstance(event, Preview):
            self.start()
        if isinstance(event, JobProgress):
            # Only where it stands now is told: of steps that came and went since the last report, nobody needs to know.
            self._progress = ("progress", self._measured(event))
        elif isinstance(event, JobCached):
            self._cached = event.nodes
        elif isinstance(event, Preview):
            self._preview = event.picture
        elif isinstance(event, ImagesSaved):
            self._show(event.images)

    def start(self) -> None:
        """It is being drawn now."""
        if not self.running:
            self.running = True
            self._started = time.time()
            self._pending.append(("started", {"attempt": self.crashes + 1}))

    def lose(self, crashes: int) -> None:
        """The engine has it no more, and died of it so often; what was not told yet is void."""
        self.crashes, self.row = crashes, replace(self.row, attempts=crashes)
        self.sent, self.acknowledged, self.running = None, False, False
        self._pace, self._ends_at, self._cached = None, None, frozenset()
        self.reported_images.clear()
        self.reported()

    def final_events(self, images: Sequence[SavedImage]) -> list[PendingEvent]:
        """What is to be told before its end, with all of its pictures. Where it stood a moment ago is no news then."""
        self._show(images)
        return list(self._pending)

    def _measured(self, event: JobProgress) -> dict[str, Any]:
        """Where the job stands and, once that can be told, when it will be done, in seconds since 1970."""
        if self._pace is None:
            asked = self.row.spec.parameters
            width, height = asked.get("width"), asked.get("height")
            pixels = float(width * height) if type(width) is int and type(height) is int else None
            self._pace = Pace(self.row.spec.graph, pixels, self._cached)
        self._ends_at = self._pace.step(event.node, event.step, event.steps, time.time()) or self._ends_at
        ends = {} if self._ends_at is None else {"ends_at": round(self._ends_at, 1)}
        return _progress(event) | ends

    def _show(self, images: Sequence[SavedImage]) -> None:
        for image in images:
            if image.filename not in self.reported_images:
                self.reported_images.add(image.filename)
                self._pending.append(("image", saved(image)))

    def report(self) -> JobUpdate | None:
        """What is to be written down; None if there is nothing."""
        notes = list(self._pending)
        if self._progress is not None:
            notes.append(self._progress)
        if self._preview is not None and (url := preview_url(self._preview)) is not None:
            notes.append(("preview", {"image": url}))
        return JobUpdate(self.row.id, self._started, notes) if notes else None

    def reported(self) -> None:
        """What was to be written down is."""
        self._pending, self._started, self._progress, self._preview = [], None, None, None


def saved(image: SavedImage) -> dict[str, str]:
    """A picture as it is written down."""
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


# As many jobs stand in the engine's own queue: enough that it never waits for us, few enough to ask for often.
WINDOW = 64


class ActiveJobs:
    """The jobs that are followed. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: dict[str, TrackedJob] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._active)

    def add(self, each: TrackedJob) -> bool:
        """Follows a job; whether it is the caller's to send at once, which it is never past one that waits."""
        with self._lock:
            room = len(self._active) < WINDOW and not self._closed
            each.sending = room and not any(other.waits for other in self._active.values())
            self._active[each.row.id] = each
            return each.sending

    def close(self, patience: float) -> None:
        """Lets nobody send any more, and waits for those who are at it: at most `patience` seconds."""
        with self._lock:
            self._closed = True
        deadline = time.monotonic() + patience
        while any(each.sending for each in self.in_order()) and time.monotonic() < deadline:
            time.sleep(0.01)

    def reclaim(self, each: TrackedJob) -> None:
        """Follows a job that another process sent."""
        with self._lock:
            self._active[each.row.id] = each

    def leave(self, each: TrackedJob) -> bool:
        """Follows a job no more; whether others may have waited for its place in the window."""
        with self._lock:
            each.detached = True
            self._active.pop(each.row.id, None)
            return len(self._active) >= WINDOW

    def get(self, job_id: str) -> TrackedJob | None:
        """The job of that id, if it is followed."""
        with self._lock:
            return self._active.get(job_id)

    def in_order(self) -> list[TrackedJob]:
        """All jobs, in the order of their arrival."""
        with self._lock:
            return sorted(self._active.values(), key=lambda each: each.row.number)

    def next_to_send(self) -> TrackedJob | None:
        """The first that waits, if the window has room for it: it is the caller's to send."""
        with self._lock:
            waiting = [each for each in self._active.values() if each.waits]
            if not waiting or self._closed or len(self._active) - len(waiting) >= WINDOW:
                return None
            first = min(waiting, key=lambda each: each.row.number)
            first.sending = True
            return first
