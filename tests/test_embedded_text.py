"""Text in PNG files and in EXIF, and the metadata of jobs in pictures."""

import io
import json
import logging
import random
import struct
import zlib
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from shared.images.embedded_text import (
    MAX_TEXT,
    SIGNATURE,
    BrokenPng,
    comment_exif,
    has_text,
    read_exif,
    read_texts,
    with_texts,
)
from shared.images.encode import convert_png
from shared.jobs.files import JobFiles, PictureFiles, UploadFiles
from shared.jobs.job import JobRow, JobSpec
from shared.jobs.picture_metadata import OURS, with_parameters
from shared.jobs.picture_names import filename_prefix, job_id_prefix
from shared.jobs.store import Store
from tests.harness import new_job
from tests.stack import encoded

PICTURE = Image.linear_gradient("L").resize((40, 30)).convert("RGB")
PARAMETERS = {"prompt": "a red circle", "negative_prompt": "", "steps": 9, "seed": 5, "batch_size": 3, "width": 40}


def png(*texts: tuple[str, str], itxt: bool = False, compressed: bool = False) -> bytes:
    info = PngImagePlugin.PngInfo()
    for key, text in texts:
        if itxt:
            info.add_itxt(key, text, zip=compressed)
        else:
            info.add_text(key, text, zip=compressed)
    return encoded(PICTURE, pnginfo=info)


def opened(data: bytes) -> PngImagePlugin.PngImageFile:
    image = Image.open(io.BytesIO(data))
    image.load()
    assert isinstance(image, PngImagePlugin.PngImageFile)
    return image


@pytest.mark.parametrize("itxt", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_texts_of_every_chunk_type_are_read(itxt: bool, compressed: bool) -> None:
    data = png(("prompt", "{}"), ("parameters", "caf\xe9\nSteps: 20"), itxt=itxt, compressed=compressed)
    assert read_texts(data) == {"prompt": "{}", "parameters": "caf\xe9\nSteps: 20"}


@pytest.mark.parametrize("text", ["", "plain", "caf\xe9, lines\nand more", "\u5186 \U0001f534", "x" * 100_000])
def test_adding_text_changes_no_pixel(text: str) -> None:
    before = png(("prompt", "{}"))
    after = with_texts(before, {"parameters": text})
    assert read_texts(after) == {"prompt": "{}", "parameters": text}
    image = opened(after)
    assert image.text == {"prompt": "{}", "parameters": text}
    assert image.tobytes() == PICTURE.tobytes()
    # The original chunks are unchanged.
    assert after.endswith(before[33:])


def test_adding_text_twice_has_the_same_result() -> None:
    once = with_texts(png(("parameters", "old")), {"a": "1", "parameters": "new"})
    assert with_texts(once, {"a": "1", "parameters": "new"}) == once
    assert read_texts(once) == {"a": "1", "parameters": "new"}


def test_text_after_the_pixels_is_replaced() -> None:
    data = png()
    content = b"parameters\0old"
    chunk = struct.pack(">I", len(content)) + b"tEXt" + content + struct.pack(">I", zlib.crc32(b"tEXt" + content))
    data = data[:-12] + chunk + data[-12:]
    assert read_texts(data) == {"parameters": "old"}
    assert read_texts(with_texts(data, {"parameters": "new"})) == {"parameters": "new"}


def test_has_text_needs_only_the_first_bytes() -> None:
    data = with_texts(png(("prompt", "x")), {"first": "1" * 5000, "second": "2"})
    assert has_text(data[:60], "first")
    assert not has_text(data[:60], "second")
    assert has_text(data, "second")
    assert not has_text(data, "third")
    assert not has_text(data, "firs")
    assert not has_text(b"", "first")


@pytest.mark.parametrize("data", [b"", b"GIF89a", SIGNATURE, SIGNATURE + b"\0" * 30, encoded(PICTURE, "JPEG")])
def test_other_files_raise_broken_png(data: bytes) -> None:
    with pytest.raises(BrokenPng, match="no PNG"):
        read_texts(data)
    with pytest.raises(BrokenPng):
        with_texts(data, {"parameters": "x"})


def test_the_start_of_a_truncated_png_is_read() -> None:
    data = with_texts(png(), {"parameters": "x"})
    assert read_texts(data[:-20]) == {"parameters": "x"}
    with pytest.raises(BrokenPng, match="cut short"):
        with_texts(data[:-20], {"parameters": "y"})


def test_damage_raises_only_broken_png() -> None:
    data = with_texts(png(("a", "b"), itxt=True, compressed=True), {"parameters": "x", "\xe9": "\u5186"})
    randomness = random.Random(1)
    for _ in range(3000):
        broken = bytearray(data[: randomness.randrange(len(data) + 1)])
        for _ in range(randomness.randrange(4)):
            if broken:
                broken[randomness.randrange(len(broken))] = randomness.randrange(256)
        try:
            read_texts(bytes(broken))
            with_texts(bytes(broken), {"parameters": "y"})
        except BrokenPng:
            continue


def test_a_small_file_does_not_inflate_to_a_huge_text() -> None:
    content = b"parameters\0\0" + zlib.compress(b"x" * 100_000_000)
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + b"\0\0\0\0"
    data = png()
    assert read_texts(data[:33] + chunk + data[33:]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 4])
def test_many_small_chunks_do_not_inflate_to_huge_texts(count: int) -> None:
    chunks = b""
    for number in range(count):
        content = b"%d\0\0" % number + zlib.compress(b"x" * (MAX_TEXT if number < 2 else 100_000_000))
        chunks += struct.pack(">I", len(content)) + b"zTXt" + content + b"\0\0\0\0"
    data = png()
    assert sorted(read_texts(data[:33] + chunks + data[33:])) == ["0", "1"]


@pytest.mark.parametrize("output", ["webp", "jpeg"])
@pytest.mark.parametrize("text", ["a red circle\nSteps: 20", "caf\xe9 \u5186 \U0001f534\nSteps: 1"])
def test_other_formats_have_the_text_as_an_exif_comment(output: Any, text: str) -> None:
    data = convert_png(png(), output, text).content
    assert read_exif(data) == {"parameters": text}
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif().get_ifd(0x8769)[0x9286].startswith(b"UNICODE\0")
    assert read_exif(convert_png(png(), output).content) == {}


def test_a_text_too_long_for_exif_is_left_out() -> None:
    assert comment_exif("x" * 40_000) is None
    converted = convert_png(png(), "jpeg", "x" * 40_000)
    assert read_exif(converted.content) == {}
    assert converted.warnings == ("the metadata is too long for jpeg and was left out",)


@pytest.mark.parametrize(
    "comment",
    [b"UNICODE\0" + "Steps: 1".encode("utf-16-le"), b"ASCII\0\0\0Steps: 1", b"\0" * 8 + b"Steps: 1", b"Steps: 1"],
)
def test_comments_of_other_programs_are_read(comment: bytes) -> None:
    exif = Image.Exif()
    exif[0x8769] = {0x9286: comment}
    assert read_exif(encoded(PICTURE, "JPEG", exif=exif)) == {"parameters": "Steps: 1"}


def test_texts_in_webp_files_of_comfyui_are_read() -> None:
    exif = Image.Exif()
    exif[0x0110] = 'prompt:{"1": {}}'
    exif[0x010F] = "A camera"
    assert read_exif(encoded(PICTURE, "WEBP", exif=exif)) == {"prompt": '{"1": {}}'}
    assert read_exif(b"nonsense") == {}


@pytest.fixture
def row(tmp_path: Path) -> JobRow:
    """A completed job of three pictures."""
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite")
    added, _ = store.add(new_job(spec={"parameters": PARAMETERS, "seeds": [5, 6, 7]}), "me", 10)
    store.close()
    return added


def names(row: JobRow) -> list[str]:
    prefix = filename_prefix(row.id, datetime(2026, 11, 22)).partition("/")[2]
    return [f"{prefix}_00001_.png", f"{prefix}-002_00001_.png", f"{prefix}-003_00001_.png"]


def test_each_picture_of_a_batch_has_its_own_recipe(row: JobRow) -> None:
    for name, seed in zip(names(row), (5, 6, 7), strict=True):
        texts = read_texts(with_parameters(png(("prompt", "{}")), row, name))
        assert list(texts) == ["dream_layer", "parameters", "prompt"]
        ours = json.loads(texts[OURS])
        assert ours["kind"] == "txt2img"
        assert ours["parameters"] == {**PARAMETERS, "seed": seed, "batch_size": 1, "batch_count": 1}
        assert f"Seed: {seed}" in texts["parameters"]


def test_the_recipe_omits_controlnet_units_that_are_off(row: JobRow) -> None:
    units = [{"enabled": False, "input_image": "data:image/png;base64,AAAA"}, {"model": "canny"}]
    guided = replace(row, spec=replace(row.spec, parameters={**PARAMETERS, "controlnet": {"units": units}}))
    texts = read_texts(with_parameters(png(), guided, names(row)[0]))
    assert json.loads(texts[OURS])["parameters"]["controlnet"] == {"units": [{"model": "canny"}]}


def test_without_a_request_or_without_a_png_nothing_changes(row: JobRow) -> None:
    data = png()
    assert with_parameters(data, replace(row, spec=JobSpec()), names(row)[0]) is data
    assert with_parameters(b"nonsense", row, names(row)[0]) == b"nonsense"


@pytest.fixture
def archive(tmp_path: Path) -> JobFiles:
    store = Store(f"sqlite:///{tmp_path}/archive.sqlite")
    return JobFiles(store, UploadFiles(tmp_path), PictureFiles(tmp_path / "out", tmp_path / "in"))


def saved(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / "out" / name[:8] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_parameters_are_embedded_once(row: JobRow, archive: JobFiles, tmp_path: Path) -> None:
    name, other, absent = names(row)
    path, second = saved(tmp_path, name, png()), saved(tmp_path, other, png())
    assert archive.pictures.find(name) == path
    assert not archive.pictures.has_parameters(path)
    archive.embed_parameters(row, [name, other, absent])
    assert archive.pictures.has_parameters(path)
    assert path.read_bytes() == with_parameters(png(), row, name)
    assert json.loads(read_texts(second.read_bytes())[OURS])["parameters"]["seed"] == 6
    before = path.stat()
    archive.embed_parameters(row, [name, other])
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(list(path.parent.iterdir())) == 2


def test_a_failed_write_is_only_logged(
    row: JobRow, archive: JobFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = names(row)[0]
    path = saved(tmp_path, name, png())

    def full(*args: Any) -> Path:
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "replace", full)
    with caplog.at_level(logging.WARNING):
        archive.embed_parameters(row, [name])
    assert "the disk is full" in caplog.text
    assert path.read_bytes() == png()
    assert list(path.parent.iterdir()) == [path]


def test_a_request_that_cannot_be_written_is_logged(
    row: JobRow, archive: JobFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path, names(row)[0], png())
    invalid = replace(row, spec=replace(row.spec, parameters={"prompt": "x", "loras": [{}]}))
    archive.embed_parameters(invalid, [names(row)[0]])
    assert "could not embed the parameters" in caplog.text
    assert path.read_bytes() == png()


def test_the_job_of_a_picture_is_found_by_its_name(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite")
    rows = [store.add(new_job(), "me", 100)[0] for _ in range(20)]
    for row in rows:
        for name in names(row):
            id_prefix = job_id_prefix(name)
            assert id_prefix is not None
            found_row = store.find_by_id_prefix(id_prefix)
            assert found_row is not None
            assert found_row.id == row.id
    assert store.find_by_id_prefix("00000000-0000") is None
    assert job_id_prefix("nonsense.png") is None
    store.close()
