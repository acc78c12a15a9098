"""The small parts that jobs are made of: notifier, estimates, prefixes, what is told meanwhile, places, errors."""

import dataclasses
import io
import struct
import threading
import zlib
from typing import Any

import pytest
from PIL import Image

from shared.engine.client import SavedImage
from shared.engine.websocket import ImagesSaved, JobProgress, JobStarted, Preview
from shared.errors import Busy, DreamLayerError, SetupError
from shared.jobs.estimate import seconds_left
from shared.jobs.job import JobRow, JobSpec, UnfinishedWork
from shared.jobs.notify import JobNotifier
from shared.jobs.picture_names import save_prefixes, with_prefix
from shared.jobs.tracked import JobPhase, TrackedJob, preview_url
from shared.web.backend import ConcurrencyLimit


def row(**known: Any) -> JobRow:
    return JobRow(
        **{**{field.name: None for field in dataclasses.fields(JobRow)}, "id": "j", "spec": JobSpec(), **known}
    )


def encoded(output: str, size: tuple[int, int] = (600, 300)) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 50).save(buffer, output)
    return buffer.getvalue()


def test_a_bell_wakes_all_who_hear_it_and_nobody_else() -> None:
    notifier = JobNotifier()
    notifier.notify("nobody hears this")
    with notifier.subscribe("a") as one, notifier.subscribe("a") as two, notifier.subscribe("b") as other:
        notifier.notify("a")
        assert (one.wait(0), two.wait(0), other.wait(0)) == (True, True, False)
        assert not one.wait(0)
        notifier.notify("a")
        assert one.wait(0)
    notifier.notify("a")
    assert not one.wait(0)
    assert not notifier._subscriptions


def test_a_bell_brings_the_job_that_has_ended() -> None:
    notifier, ended = JobNotifier(), row()
    with notifier.subscribe("a") as subscription:
        notifier.notify("a")
        assert subscription.row is None
        notifier.notify("a", ended)
        notifier.notify("a")
        assert subscription.row is ended


def test_a_bell_wakes_across_threads() -> None:
    notifier = JobNotifier()
    with notifier.subscribe("a") as subscription:
        threading.Timer(0.05, notifier.notify, ["a"]).start()
        assert subscription.wait(5)


def test_an_estimate_needs_something_to_go_by() -> None:
    assert seconds_left([], UnfinishedWork("m", 1.0, None), [], now=0.0) is None


def test_an_estimate_is_work_times_the_median_of_what_its_model_took() -> None:
    measured = [("m", 1.0, 2.0), ("m", 2.0, 2.0), ("m", 1.0, 90.0), ("other", 1.0, 7.0)]
    assert seconds_left([], UnfinishedWork("m", 10.0, None), measured, now=0.0) == 20.0
    assert seconds_left([], UnfinishedWork("other", 10.0, None), measured, now=0.0) == 70.0
    assert seconds_left([], UnfinishedWork("new", 10.0, None), measured, now=0.0) == 45.0
    ahead = [UnfinishedWork("m", 10.0, 95.0), UnfinishedWork("m", 1.0, 5.0)]
    # The first has 15 of its 20 seconds to go; the second should have ended long ago.
    assert seconds_left(ahead, UnfinishedWork("m", 10.0, None), measured, now=100.0) == 35.0
    assert seconds_left([], UnfinishedWork("m", 1.0, None), [("m", 0.0, 5.0)], now=0.0) == 0.0


def test_a_graph_can_save_elsewhere() -> None:
    graph = {
        "Save": {"class_type": "SaveImage", "inputs": {"filename_prefix": "a/b", "images": ["Decode", 0]}},
        "Decode": {"class_type": "VAEDecode", "inputs": {}},
    }
    assert save_prefixes(graph) == ["a/b"]
    moved = with_prefix(graph, "c/d")
    assert save_prefixes(moved) == ["c/d"]
    assert moved["Save"]["inputs"]["images"] == ["Decode", 0]
    assert moved["Decode"] == graph["Decode"]
    assert save_prefixes(graph) == ["a/b"]


def test_news_of_a_job_is_told_once_and_of_its_steps_only_the_last() -> None:
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
    # Until it is written down, it is still to be told.
    assert job.update() == update
    job.clear_update()
    assert job.update() is None
    job.observe(JobProgress("j", "Decode"))
    update = job.update()
    assert update is not None
    assert (update.started, update.events) == (None, [("progress", {"stage": "Decode"})])


def test_at_the_end_all_pictures_are_told_and_no_progress() -> None:
    job = TrackedJob(row(), phase=JobPhase.SENT, crashes=1)
    images = [SavedImage(name, "d", "output") for name in ("a.png", "b.png")]
    job.observe(ImagesSaved("j", (images[0],)))
    job.observe(JobProgress("j", "K", 1, 3))
    job.observe(Preview("j", encoded("PNG")))
    events = job.final_events(images)
    assert [name for name, _ in events] == ["started", "image", "image"]
    assert events[0][1] == {"attempt": 2}
    assert [data["filename"] for _, data in events[1:]] == ["a.png", "b.png"]


def test_a_lost_job_has_no_news() -> None:
    job = TrackedJob(row(), phase=JobPhase.SENT)
    job.observe(JobStarted("j"))
    job.reset(1)
    assert job.update() is None
    assert job.is_waiting


def test_a_preview_becomes_small_and_anything_else_nothing() -> None:
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


def test_slots_are_limited_and_come_back() -> None:
    slots = ConcurrencyLimit(2, "requests are waiting", "SETTING")
    with slots.slot():
        with slots.slot(), pytest.raises(Busy, match="2 requests are waiting already") as busy, slots.slot():
            pass
        assert busy.value.retry_after == 10
        assert "SETTING" in str(busy.value.hint)
        with slots.slot(), pytest.raises(Busy), slots.slot():
            pass


def kinds(of: type[DreamLayerError]) -> list[type[DreamLayerError]]:
    return [of, *(kind for child in of.__subclasses__() for kind in kinds(child))]


@pytest.mark.parametrize("kind", [kind for kind in kinds(DreamLayerError) if not issubclass(kind, SetupError)])
def test_an_error_that_was_written_down_is_raised_as_it_was(kind: type[DreamLayerError]) -> None:
    error = kind("what", field="f", hint="h", job_id="j", problems=[{"node": "n"}]).as_dict()
    again = DreamLayerError.from_dict(error)
    assert type(again) is kind
    assert again.as_dict() == error
    assert (again.message, again.field, again.hint) == ("what", "f", "h")
    assert again.details == {"job_id": "j", "problems": [{"node": "n"}]}


def test_an_error_that_nobody_knows_is_still_an_error() -> None:
    error = DreamLayerError.from_dict({"status": "error", "message": "what", "error": {"code": "new_code"}})
    assert (type(error), error.message) == (DreamLayerError, "what")
