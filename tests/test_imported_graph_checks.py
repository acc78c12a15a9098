"""The sizes of the pictures that a graph loads, and the memory estimate that uses them."""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shared.engine.graph_memory import check_memory
from shared.settings import Settings
from shared.web.backend import Backend
from shared.web.imported_graph_checks import HUGE, loaded_sizes
from tests.engine_nodes import reviewed
from tests.fake_engine import FakeEngine
from tests.imported_graphs import to_api
from tests.stack import encoded

NODES = reviewed()
SENT, EARLIER = (f"dream_layer/{letter * 64}.png" for letter in "ab")


def graph(name: str, scale: float = 1.0) -> dict[str, Any]:
    """A graph that loads a picture, enlarges it, and inverts its colours."""
    return to_api(
        {
            "load": ("LoadImage", {"image": name}),
            "scale": ("ImageScaleBy", {"image": ["load", 0], "upscale_method": "area", "scale_by": scale}),
            "invert": ("ImageInvert", {"image": ["scale", 0]}),
        }
    )


def animation(frames: int) -> bytes:
    buffer = io.BytesIO()
    first, *more = (Image.new("RGB", (40, 30), (index, 0, 0)) for index in range(frames))
    first.save(buffer, "GIF", save_all=True, append_images=more)
    return buffer.getvalue()


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    instance = Backend(Settings(data_dir=tmp_path))
    instance.settings.input_dir.mkdir()
    yield instance
    instance.stop()


def sizes(backend: Backend, name: str, sent: dict[str, bytes] | None = None) -> dict[str, tuple[int, int, int]]:
    return loaded_sizes(backend, graph(name), NODES, sent or {})


def test_new_uploads_earlier_ones_and_other_files_are_measured(backend: Backend) -> None:
    png = encoded(Image.new("RGB", (48, 32)))
    assert sizes(backend, SENT, {SENT: png}) == {SENT: (1, 48, 32)}
    backend.jobs.files.uploads.write(EARLIER.partition("/")[2], encoded(Image.new("RGB", (24, 16))))
    assert sizes(backend, EARLIER) == {EARLIER: (1, 24, 16)}
    (backend.settings.input_dir / "theirs.png").write_bytes(png)
    assert sizes(backend, "theirs.png") == {"theirs.png": (1, 48, 32)}


def test_all_pictures_of_an_animation_count(backend: Backend) -> None:
    (backend.settings.input_dir / "moving.gif").write_bytes(animation(7))
    assert sizes(backend, "moving.gif") == {"moving.gif": (7, 40, 30)}


def test_a_file_that_cannot_be_measured_is_left_out(backend: Backend) -> None:
    (backend.settings.input_dir / "broken.png").write_bytes(b"no picture")
    assert sizes(backend, "broken.png") == sizes(backend, "missing.png") == {}


def test_a_picture_that_is_too_large_to_open_counts_as_huge(backend: Backend) -> None:
    head = bytearray(encoded(Image.new("1", (8, 8))))
    head[16:24] = struct.pack(">II", 30_000, 30_000)
    head[29:33] = struct.pack(">I", zlib.crc32(head[12:29]))
    (backend.settings.input_dir / "huge.png").write_bytes(bytes(head))
    measured = sizes(backend, "huge.png")
    assert measured["huge.png"] == HUGE
    assert [problem.node for problem in check_memory(graph("huge.png"), NODES, measured)] == ["load"]


def test_pictures_of_an_external_engine_are_measured(tmp_path: Path, engine: FakeEngine) -> None:
    backend = Backend(Settings(data_dir=tmp_path, engine_url=engine.address))
    try:
        assert sizes(backend, "theirs.png") == {"theirs.png": (1, 8, 8)}
    finally:
        backend.stop()


def test_the_memory_estimate_uses_the_actual_size() -> None:
    for size, scale, fits in (
        ((1, 512, 512), 8.0, True),
        ((1, 4000, 4000), 1.0, True),
        ((1, 4000, 4000), 8.0, False),
        ((1, 512, 512), 8.0 * 8.0, False),
        ((500, 1024, 1024), 1.0, False),
    ):
        problems = check_memory(graph(SENT, scale), NODES, {SENT: size})
        assert (problems == []) is fits, (size, scale)


def test_an_unknown_picture_counts_as_the_largest_possible() -> None:
    assert check_memory(graph("unknown.png"), NODES) == []
    [problem] = check_memory(graph("unknown.png", 2.0), NODES)
    assert (problem.node, problem.kind) == ("scale", "too_large")
