"""Tracked jobs: their updates, their final events, and previews."""

import dataclasses
import io
import struct
import zlib
from typing import Any

from PIL import Image

from shared.engine.client import SavedImage
from shared.engine.websocket import ImagesSaved, JobProgress, JobStarted, Preview
from shared.jobs.active_jobs import JobPhase, TrackedJob, preview_url
from shared.jobs.job import JobRow, JobSpec


def row(**known: Any) -> JobRow:
    return JobRow(
        **{**{field.name: None for field in dataclasses.fields(JobRow)}, "id": "j", "spec": JobSpec(), **known}
    )


def encoded(output: str, size: tuple[int, int] = (600, 300)) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 50).save(buffer, output)
    return buffer.getvalue()


def test_an_update_is_reported_once_with_only_the_latest_step() -> None:
    job = TrackedJob(row(), phase=JobPhase.SENT)
    assert job.update() is None
    job.observe(JobStarted("j"))
    for step in (1, 2):
        job.observe(JobProgress("j", "K", step, 3))
    job.observe(ImagesSaved("j", (SavedImage("a.png", "d", "output"),)))
    update = job.update()
    assert update is not None
    assert update.started is not None
    assert update.events == [
        ("started", {"attempt": 1}),
        ("image", {"filename": "a.png", "subfolder": "d", "type": "output"}),
        ("progress", {"stage": "K", "step": 2, "steps": 3, "fraction": 0.6667}),
    ]
    # It stays until it is recorded.
    assert job.update() == update
    job.clear_update()
    assert job.update() is None
    job.observe(JobProgress("j", "Decode"))
    update = job.update()
    assert update is not None
    assert (update.started, update.events) == (None, [("progress", {"stage": "Decode"})])


def test_the_final_events_have_all_pictures_and_no_progress() -> None:
    job = TrackedJob(row(), phase=JobPhase.SENT, crashes=1)
    images = [SavedImage(name, "d", "output") for name in ("a.png", "b.png")]
    job.observe(ImagesSaved("j", (images[0],)))
    job.observe(JobProgress("j", "K", 1, 3))
    job.observe(Preview("j", encoded("PNG")))
    events = job.final_events(images)
    assert [name for name, _ in events] == ["started", "image", "image"]
    assert events[0][1] == {"attempt": 2}
    assert [data["filename"] for _, data in events[1:]] == ["a.png", "b.png"]


def test_a_lost_job_has_no_update() -> None:
    job = TrackedJob(row(), phase=JobPhase.SENT)
    job.observe(JobStarted("j"))
    job.reset(1)
    assert job.update() is None
    assert job.is_waiting


def test_a_preview_is_scaled_down_and_anything_else_ignored() -> None:
    for output in ("PNG", "JPEG", "WEBP"):
        url = preview_url(encoded(output))
        assert url is not None
        assert url.startswith("data:image/jpeg;base64,")
    png = encoded("PNG")
    huge = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    broken = {
        "empty": b"",
        "no picture": b"no picture",
        "half a PNG": png[: len(png) // 2],
        "half a JPEG": encoded("JPEG")[:2000],
        "a chunk that ends early": png[:33] + struct.pack(">I", 100) + png[37:],
        "a header that ends early": png[:8] + struct.pack(">I", 7) + png[12:],
        "claims to be huge": png[:8] + struct.pack(">I", 13) + huge + struct.pack(">I", zlib.crc32(huge)) + png[33:],
    }
    assert {name: preview_url(content) for name, content in broken.items()} == dict.fromkeys(broken)
