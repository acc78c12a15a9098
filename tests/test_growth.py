"""Every text, file and header from outside is read in linear time and bounded memory."""

import contextlib
import json
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waitress.adjustments import Adjustments

from shared.errors import DreamLayerError, InvalidValue, RequestError
from shared.images import embedded_text
from shared.images.decode import decode_base64
from shared.images.embedded_text import SIGNATURE, read_texts
from shared.json_limits import MAX_VALUES, JsonTooLarge, has_more_values, load_json
from shared.metadata import infotext
from shared.metadata.prompt_syntax import EmbeddingFiles
from shared.models.safetensors import read_header
from shared.web.parsing.loras import take_lora_tags
from shared.web.parsing.prompts import read_prompt
from shared.web.picture_reply import download_name
from shared.web.request_body import MAX_FIELDS, parse_json
from shared.web.routes.report import cell
from shared.web.server.request_parser import BodyLimits, RequestParser
from workflows.bindings import find_bindings
from workflows.imported_graph import read_graph

Make = Callable[[int], Any]
PICTURE = "20261122-143210-3f2a9c1e0b7d_00001_.png"


def seconds(work: Callable[[Any], Any], value: Any) -> float:
    """Return the CPU time of this process that `work(value)` takes."""
    start = time.process_time()
    with contextlib.suppress(DreamLayerError):
        work(value)
    return time.process_time() - start


def assert_linear(work: Callable[[Any], Any], make: Make, size: int) -> None:
    """Assert that eight times the input takes about eight times as long. Quadratic work would take 64 times."""
    small, large = make(size), make(8 * size)
    shorter, longer = seconds(work, small), seconds(work, large)
    for _ in range(5):
        # A few milliseconds are noise and do no harm.
        if longer < max(24 * shorter, 0.004):
            return
        shorter, longer = max(shorter, seconds(work, small)), min(longer, seconds(work, large))
    pytest.fail(f"{shorter * 1000:.1f} ms for {size}, and {longer * 1000:.1f} ms for eight times as much")


@pytest.mark.parametrize(
    "piece",
    [
        *("a,", "{", "[", "[1,", "(x,", '"b,', '\\"', " ", "\t ", "\n", ":", "1", "[aaaaaa", "Steps: 1\n"),
        *("A: [", 'A: {"x":1, ', "A: {,", 'A: "x', "A: (x, ", "A: x, ", "Negative prompt:\n", "ControlNet 1: x, "),
    ],
)
@pytest.mark.parametrize("beginning", ["Steps: 20, A: b,", "Steps: 20, A: ", 'Steps: 20, A: "', "", "ControlNet 0: "])
def test_infotexts_are_read_in_linear_time(beginning: str, piece: str) -> None:
    assert_linear(infotext.read_infotext, lambda size: beginning + piece * (size // len(piece)), 12_000)


def test_labels_with_unclosed_brackets_are_ignored() -> None:
    labels = ", ".join(f"Label {number}: [1, 2" for number in range(20))
    recipe = infotext.read_infotext(f"a cat\nSteps: 20, Seed: 3, {labels}")
    assert recipe is not None
    assert recipe.parameters == {"prompt": "a cat", "negative_prompt": "", "steps": 20, "seed": 3}


def test_a_value_in_closed_brackets_is_one_value() -> None:
    recipe = infotext.read_infotext('a cat\nSteps: 20, Hashes: {"model": "a, b", "x": [1, 2]}, Other: [1, 2], Seed: 3')
    assert recipe is not None
    assert recipe.parameters["seed"] == 3
    assert recipe.warnings == ["ignored unknown labels: Other"]


def test_a_comma_inside_a_value_is_part_of_it() -> None:
    recipe = infotext.read_infotext("a cat\nSteps: 20, Sampler: one, two, three, Seed: 3")
    assert recipe is not None
    assert recipe.parameters["sampler_name"] == "one, two, three"


def test_an_infotext_over_the_limit_is_not_read() -> None:
    text = "a cat\nSteps: 20, Seed: 3, A: "
    assert infotext.read_infotext(text + "b" * (infotext.LONGEST_INFOTEXT - len(text))) is not None
    assert infotext.read_infotext(text + "b" * (infotext.LONGEST_INFOTEXT - len(text) + 1)) is None


def test_unknown_labels_are_named_up_to_a_limit() -> None:
    recipe = infotext.read_infotext("a\nSteps: 20, " + ", ".join(f"L{number}: x" for number in range(500)))
    assert recipe is not None
    assert recipe.warnings[0].endswith("L18, L19 and 480 more")


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    [
        *(
            "<lora:",
            "<lora:a:",
            "<lora:a>",
            ":",
            " ",
            "\n",
            ",",
            " ,",
            ", \t",
            "[",
            "[a:",
            "[a|",
            "{a|",
            "__",
            "(",
            "a",
        ),
        *(
            "<hypernet:",
            "<random:",
            "embedding:",
            "embedding:a ",
            "AND ",
            "BREAK",
            "//",
            "#",
            "%a",
            "%a%",
            "--a ",
            "a::",
        ),
        *("1", ".", "\\", "\\(", "<", ">"),
    ],
)
@pytest.mark.parametrize("beginning", ["", "<lora:a>", "<lora:", "[a:", "[a:b:1", "<lyco:", "x"])
def test_prompts_are_read_in_linear_time(beginning: str, piece: str) -> None:
    def work(text: str) -> None:
        with contextlib.suppress(InvalidValue):
            read_prompt(text, "prompt", EmbeddingFiles(["a.pt", "b.pt"]))
        with contextlib.suppress(InvalidValue):
            take_lora_tags(text)

    assert_linear(work, lambda size: beginning + piece * (size // len(piece)) + "x", 2_500)


@pytest.mark.parametrize("piece", ["a ", "a", "a.aa~", "data:", ";base64", " ", "=", "-_"])
def test_base64_is_read_in_linear_time(piece: str) -> None:
    for beginning in ("", "data:", "data:image/png;base64,"):
        assert_linear(lambda text: decode_base64(text, "x"), lambda size, b=beginning: b + piece * size, 5_000)


@pytest.mark.parametrize("piece", ["a -.", " ", ".", "{prompt", "[", "%a", "=", "\t"])
def test_file_names_and_cells_are_built_in_linear_time(piece: str) -> None:
    assert_linear(
        lambda text: download_name("{prompt}", PICTURE, {"prompt": text}), lambda size: piece * size + "x", 20_000
    )
    assert_linear(lambda text: download_name(text, PICTURE, {"prompt": "x"}), lambda size: piece * size + "x", 20_000)
    assert_linear(cell, lambda size: piece * size + "x", 20_000)


def samplers(size: int) -> dict[str, Any]:
    """Return a graph of samplers, each linked to the samplers before it."""
    nodes: dict[str, Any] = {"save": {"class_type": "SaveImage", "inputs": {"images": ["0", 0]}}}
    for index in range(size):
        links = [[str((index * step) % index), 0] if index else 1 for step in range(1, 13)]
        names = ("guider", "noise", "sampler", "sigmas", "positive", "negative", "latent_image", "model")
        inputs = dict(zip((*names, "model2", "positive2", "cond1", "conditioning"), links, strict=True))

        nodes[str(index)] = {"class_type": "KSampler", "inputs": {**inputs, "text": "x", "seed": 1, "steps": 2}}
    return nodes


def test_graphs_are_read_in_linear_time() -> None:
    def links(size: int) -> dict[str, Any]:
        inputs = {f"positive{index}": [str(index % 9), 0] for index in range(size)}
        nodes = {str(index): {"class_type": "A", "inputs": {}} for index in range(9)}
        nodes["s"] = {"class_type": "KSampler", "inputs": {"latent_image": ["0", 0], "positive": ["1", 0], **inputs}}
        return {**nodes, "save": {"class_type": "SaveImage", "inputs": {"images": ["s", 0]}}}

    for make, size in ((samplers, 20), (links, 2_000)):
        assert_linear(lambda graph: find_bindings(read_graph(graph)), make, size)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(*chunks: bytes) -> bytes:
    return SIGNATURE + chunk(b"IHDR", b"\0" * 13) + b"".join(chunks)


class CountingZlib:
    """A zlib that counts the bytes it inflates."""

    def __init__(self) -> None:
        self.inflated_bytes = 0
        self.error = zlib.error
        self.crc32 = zlib.crc32

    def decompressobj(self) -> Any:
        inner = zlib.decompressobj()
        counting = self

        class Stream:
            @property
            def eof(self) -> bool:
                return inner.eof

            def decompress(self, data: bytes, limit: int) -> bytes:
                content = inner.decompress(data, limit)
                counting.inflated_bytes += len(content)
                return content

        return Stream()


@pytest.mark.parametrize("key", ["different", "the same"])
@pytest.mark.parametrize("damage", ["cut short", "bad checksum", "bad content", "too long", "none"])
@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_all_inflated_bytes_of_a_png_count_towards_the_limit(
    monkeypatch: pytest.MonkeyPatch, kind: bytes, damage: str, key: str
) -> None:
    counting = CountingZlib()
    monkeypatch.setattr(embedded_text, "zlib", counting)
    monkeypatch.setattr(embedded_text, "MAX_TEXT", 1_600_000)
    monkeypatch.setattr(embedded_text, "MAX_TEXTS", 3_200_000)
    text = zlib.compress(b"\0" * (1_700_000 if damage == "too long" else 900_000))
    if damage == "cut short":
        text = text[:-5]
    elif damage == "bad checksum":
        text = text[:-4] + b"\0" * 4
    elif damage == "bad content":
        text = text[:-30] + b"\xff" * 30
    begin = b"\0\0" if kind == b"zTXt" else b"\0\1\0\0\0"
    chunks = [chunk(kind, (b"%d" % number if key == "different" else b"key") + begin + text) for number in range(150)]
    read_texts(png_of(*chunks))
    # The call that finds the damage returns no size, so the largest possible size counts.
    assert counting.inflated_bytes <= embedded_text.MAX_TEXTS + embedded_text.PIECE * embedded_text.LARGEST_RATIO


def test_the_number_of_text_chunks_read_is_limited() -> None:
    chunks = [chunk(b"tEXt", b"key%d\0x" % number) for number in range(embedded_text.MOST_CHUNKS + 10)]
    assert len(read_texts(png_of(*chunks))) == embedded_text.MOST_CHUNKS


def count(value: Any) -> int:
    """Count the objects and lists in `value` and their members."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + len(inner) + sum(count(member) for member in inner)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(['"', "\\", '[],"{', '\\",']),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=15,
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(JSON, st.booleans())
def test_values_are_counted_without_parsing(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    members = count(value)
    # The count is at most the real number, so no valid text is refused, and at least half of it.
    assert not has_more_values(text, members)
    assert members < 2 or has_more_values(text, members // 2 - 1)
    assert load_json(text) == value
    assert load_json(text.encode("utf-16", "surrogatepass")) == value


@pytest.mark.parametrize("piece", ["[],", "{},", "1,", '"",', "[[]],", '{"a":[]},', "[,"])
def test_json_with_too_many_values_is_refused_before_parsing(piece: str) -> None:
    text = "[" + piece * (MAX_VALUES + 1) + "1]"
    with pytest.raises(JsonTooLarge, match="more than 200,000 values"):
        load_json(text)
    with pytest.raises(JsonTooLarge):
        parse_json(text.encode())
    for encoding in ("utf-16", "utf-32", "utf-8-sig"):
        with pytest.raises(JsonTooLarge):
            parse_json(text.encode(encoding))


def test_punctuation_in_strings_does_not_count() -> None:
    prompt = 'a [b], {c} \\ "d", ' * MAX_VALUES
    assert parse_json(json.dumps({"prompt": prompt})) == {"prompt": prompt}


@pytest.mark.parametrize("piece", ['"', '"[],', '\\"', '"\\', " ", "\\u0041", "1", "[],"])
def test_json_is_counted_in_linear_time(piece: str) -> None:
    assert_linear(lambda text: has_more_values(text, 10), lambda size: '["' + piece * size, 50_000)


@pytest.mark.parametrize("piece", ["\\\\", '\\"', "\\n", "\\u0041", "[", '","'])
def test_counting_takes_little_memory(piece: str) -> None:
    text = '["' + piece * (2_000_000 // len(piece)) + '"' + "," * 200
    tracemalloc.start()
    try:
        has_more_values(text, 100)
        # This includes the stack of the regular expressions.
        assert tracemalloc.get_traced_memory()[1] < 5 * len(text)
    finally:
        tracemalloc.stop()


def test_an_object_with_too_many_names_is_refused_at_any_depth() -> None:
    names = {f"name{number}": 1 for number in range(MAX_FIELDS + 1)}
    for body in (names, {"prompt": "x", "lora": names}, {"controlnet": {"units": [names]}}):
        with pytest.raises(RequestError, match="1,001 names") as caught:
            parse_json(json.dumps(body))
        assert caught.value.status == 400
    del names["name0"]
    assert parse_json(json.dumps(names)) == names


def test_a_safetensors_header_with_too_many_values_is_invalid(tmp_path: Path) -> None:
    def write_header(header: bytes) -> Path:
        path = tmp_path / "x.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        return path

    entry = b'"a":{"dtype":"F32","shape":[1,1],"data_offsets":[0,0]}'
    tags = json.dumps(json.dumps([1] * 600_000)).encode()
    assert read_header(write_header(b'{"__metadata__":{"tags":%s},%s}' % (tags, entry))) is not None
    assert read_header(write_header(b"{" + entry.replace(b"[1,1]", b"[" + b"1," * 600_000 + b"1]") + b"}")) is None


HEADS = {
    "no third word in the first line": lambda size: b"GET a://" + b"1" * size + b" x",
    "no version in the first line": lambda size: b"GET a://" + b"1" * size + b" HTTP/11",
    "a method that is none": lambda size: b"G" * size + b"\x01 / HTTP/1.1",
    "a value behind blanks": lambda size: b"GET / HTTP/1.1\r\nX:" + b" " * size + b"a",
    "a value behind tabs": lambda size: b"GET / HTTP/1.1\r\nX:" + b"\t" * size + b"a" + b" " * size,
    "NUL behind blanks": lambda size: b"GET / HTTP/1.1\r\nX:" + b" " * size + b"\0",
    "DEL behind words": lambda size: b"GET / HTTP/1.1\r\nX:" + b"a " * size + b"\x7f",
    "a value on a second line": lambda size: b"GET / HTTP/1.1\r\nX:\r\n" + b" " * size + b"a",
    "a name that is none": lambda size: b"GET / HTTP/1.1\r\n" + b"a" * size + b" : x",
    "many headers": lambda size: b"GET / HTTP/1.1" + b"\r\na: \r\nb:" * (size // 10),
    "many codings": lambda size: b"GET / HTTP/1.1\r\nTransfer-Encoding:" + b"," * size + b"chunked",
}


@pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)
def test_request_heads_are_parsed_in_linear_time(make: Make) -> None:
    no_limits = BodyLimits(lambda _path, _headers: None, lambda _environ: None, lambda _size: True)

    def read(head: bytes) -> None:
        RequestParser(Adjustments(max_request_header_size=1_000_000), no_limits, "127.0.0.1").received(head)

    assert_linear(read, lambda size: make(size) + b"\r\nHost: localhost\r\n\r\n", 4_000)


CHUNKS = {
    "extensions": lambda size: b"5" + b";a=b" * size + b"\0",
    "a quote that never ends": lambda size: b'5;a="' + b"\\a" * size + b"\0",
    "a text that never ends": lambda size: b'5;a="' + b"a" * size + b"\0",
    "no number": lambda size: b"f" * size + b"g",
}


@pytest.mark.parametrize("make", CHUNKS.values(), ids=CHUNKS)
def test_chunk_headers_are_parsed_in_linear_time(make: Make) -> None:
    no_limits = BodyLimits(lambda _path, _headers: None, lambda _environ: None, lambda _size: True)

    def read(line: bytes) -> None:
        parser = RequestParser(Adjustments(), no_limits, "127.0.0.1")
        parser.received(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        parser.received(line + b"\r\n")

    assert_linear(read, make, 1_000)
