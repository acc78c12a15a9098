"""A job that is being followed: what is known of it beyond its row, and what was not written down yet."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shared.engine.client import SavedImage
from shared.engine.events import ImagesSaved, JobCached, JobProgress, JobStarted, Preview
from shared.errors import InvalidPicture
from shared.images import read_picture
from shared.jobs.pace import Pace
from shared.jobs.tables import JobRow, Note, Report

PREVIEW_SIDE = 256
PREVIEW_QUALITY = 75


@dataclass(eq=False)
class Active:
    """A job of ours that the engine has, or is to get. One thread follows it; `sending` guards it while another sends.

    `sent` is when it was sent to the engine last, on the monotonic clock, or None; `taken` whether the engine said that
    it took it; `client_id` names the websocket that hears of it; `shown` are the pictures that were told; `doomed`
    means that it was cancelled and shall leave the engine, `gone` that it is followed no more.
    """

    row: JobRow
    sent: float | None = None
    sending: bool = False
    taken: bool = False
    running: bool = False
    doomed: bool = False
    gone: bool = False
    deaths: int = 0
    client_id: str = ""
    shown: set[str] = field(default_factory=set)
    _notes: list[Note] = field(default_factory=list)
    _started: float | None = None
    _progress: Note | None = None
    _preview: bytes | None = None
    _cached: frozenset[str] = frozenset()
    _pace: Pace | None = None
    _ends_at: float | None = None

    @property
    def waits(self) -> bool:
        """Whether it is still to be sent."""
        return self.sent is None and not self.sending and not self.doomed

    def heed(self, event: JobStarted | JobCached | JobProgress | Preview | ImagesSaved) -> None:
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
            self._notes.append(("started", {"attempt": self.deaths + 1}))

    def lose(self, deaths: int) -> None:
        """The engine has it no more, and died of it so often; what was not told yet is void."""
        self.deaths, self.row = deaths, replace(self.row, attempts=deaths)
        self.sent, self.taken, self.running = None, False, False
        self._pace, self._ends_at, self._cached = None, None, frozenset()
        self.shown.clear()
        self.reported()

    def last_notes(self, images: Sequence[SavedImage]) -> list[Note]:
        """What is to be told before its end, with all of its pictures. Where it stood a moment ago is no news then."""
        self._show(images)
        return list(self._notes)

    def _measured(self, event: JobProgress) -> dict[str, Any]:
        """Where the job stands and, once that can be told, when it will be done, in seconds since 1970."""
        if self._pace is None:
            asked = self.row.spec.get("request", {})
            width, height = asked.get("width"), asked.get("height")
            pixels = float(width * height) if type(width) is int and type(height) is int else None
            self._pace = Pace(self.row.spec.get("graph", {}), pixels, self._cached)
        self._ends_at = self._pace.step(event.node, event.step, event.steps, time.time()) or self._ends_at
        ends = {} if self._ends_at is None else {"ends_at": round(self._ends_at, 1)}
        return _progress(event) | ends

    def _show(self, images: Sequence[SavedImage]) -> None:
        for image in images:
            if image.filename not in self.shown:
                self.shown.add(image.filename)
                self._notes.append(("image", saved(image)))

    def report(self) -> Report | None:
        """What is to be written down; None if there is nothing."""
        notes = list(self._notes)
        if self._progress is not None:
            notes.append(self._progress)
        if self._preview is not None and (url := preview_url(self._preview)) is not None:
            notes.append(("preview", {"image": url}))
        return Report(self.row.id, self._started, notes) if notes else None

    def reported(self) -> None:
        """What was to be written down is."""
        self._notes, self._started, self._progress, self._preview = [], None, None, None


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
