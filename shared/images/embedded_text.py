"""Reads and writes text in picture files: PNG text chunks, and EXIF of JPEG, WebP and AVIF. Pure.

A PNG is a signature and a sequence of chunks (length, type, content, CRC). Text is in tEXt (Latin-1), zTXt (compressed
Latin-1) or iTXt (UTF-8) chunks, each with a key. Stable Diffusion programs use the key `parameters`, ComfyUI `prompt`
and `workflow`. In EXIF, the former is the UserComment.
"""

import io
import itertools
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXT_TYPES = (b"tEXt", b"zTXt", b"iTXt")
LONGEST_KEY = 79
# Bytes of one text, and of all texts of a file together, damaged ones included: a small compressed file must neither
# fill the memory nor take long.
MAX_TEXT = 16_000_000
MAX_TEXTS = 32_000_000
# Compressed bytes that are decompressed at a time, and the largest ratio of zlib.
PIECE, LARGEST_RATIO = 4096, 1032
# Text chunks that are read; real files have fewer than ten.
MOST_CHUNKS = 1000
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
# ComfyUI's nodes for WebP store their JSON in these tags, as "prompt:{...}" and "workflow:{...}".
MAKE, MODEL = 0x010F, 0x0110
UNICODE, ASCII = b"UNICODE\0", b"ASCII\0\0\0"
EXIF_FORMATS = ("JPEG", "WEBP", "AVIF")
# Bytes of a JPEG segment, with room for the rest of the EXIF block.
MAX_EXIF = 65_000


class BrokenPng(ValueError):
    """The bytes are not a PNG, or the file is cut short."""


class _Chunk(NamedTuple):
    kind: bytes
    # Offsets: start of the chunk, start and end of its content, end of the chunk.
    begin: int
    content: int
    content_end: int
    end: int


def read_texts(png: bytes) -> dict[str, str]:
    """Read the texts of a PNG by key; the first one of several with the same key.

    Skips damaged texts and those beyond the limits above. Raises BrokenPng if the bytes are not a PNG.
    """
    texts: dict[str, str] = {}
    room = MAX_TEXTS
    for chunk in itertools.islice((chunk for chunk in _chunks(png) if chunk.kind in TEXT_TYPES), MOST_CHUNKS):
        key, rest = _split_key(png[chunk.content : chunk.content_end])
        if key in texts:
            continue
        text, used = _decode_text(chunk.kind, rest, min(MAX_TEXT, room))
        room -= used
        if text is not None:
            texts[key] = text
    return texts


def read_size(head: bytes) -> tuple[int, int] | None:
    """Read width and height in pixels from the first 24 bytes of a PNG; None for other bytes."""
    if len(head) < 24 or not head.startswith(SIGNATURE + b"\0\0\0\rIHDR"):
        return None
    width, height = struct.unpack_from(">II", head, 16)
    return width, height


def has_text(head: bytes, key: str) -> bool:
    """Whether the start of a PNG contains a text with this key. `head` need not be the whole file."""
    start = len(SIGNATURE)
    while len(head) >= start + 8 and head.startswith(SIGNATURE):
        length, kind = struct.unpack_from(">I4s", head, start)
        if kind in TEXT_TYPES and head.startswith(_key(key), start + 8):
            return True
        start += length + 12
    return False


def with_texts(png: bytes, texts: Mapping[str, str]) -> bytes:
    """Add texts to a PNG, or replace those with the same keys, without decoding its pixels. Raises BrokenPng.

    The texts follow the header, so that `has_text` finds them in the first bytes.
    """
    chunks = list(_chunks(png))
    if chunks[0].kind != b"IHDR" or chunks[-1].kind != b"IEND":
        raise BrokenPng("the PNG is cut short")
    keys = tuple(_key(key) for key in texts)
    unchanged = [
        chunk
        for chunk in chunks[1:]
        if not (chunk.kind in TEXT_TYPES and png.startswith(keys, chunk.content, chunk.content_end))
    ]
    view = memoryview(png)
    header = view[: chunks[0].end]
    return b"".join(
        [
            header,
            *(_encode_text(key, text) for key, text in texts.items()),
            *(view[chunk.begin : chunk.end] for chunk in unchanged),
        ]
    )


def _chunks(png: bytes) -> Iterator[_Chunk]:
    """Yield the complete chunks, up to the end or the first damage."""
    if not png.startswith(SIGNATURE + b"\0\0\0\rIHDR") or len(png) < len(SIGNATURE) + 25:
        raise BrokenPng("this is no PNG")
    begin = len(SIGNATURE)
    while begin + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, begin)
        end = begin + length + 12
        if end > len(png):
            return
        yield _Chunk(kind, begin, begin + 8, end - 4, end)
        if kind == b"IEND":
            return
        begin = end


def _key(key: str) -> bytes:
    """Encode a key as the start of a chunk's content."""
    name = key.encode("latin-1")
    if not 1 <= len(name) <= LONGEST_KEY or b"\0" in name:
        raise ValueError(f"{key!r} is not a valid key of a PNG text")
    return name + b"\0"


def _encode_text(key: str, text: str) -> bytes:
    # Some readers end a text at NUL.
    text = text.replace("\0", "")
    try:
        kind, content = b"tEXt", _key(key) + text.encode("latin-1")
    except UnicodeEncodeError:
        # Not compressed, no language, no translated key.
        kind, content = b"iTXt", _key(key) + b"\0\0\0\0" + text.encode("utf-8", "replace")
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))


def _split_key(content: bytes) -> tuple[str, bytes]:
    key, _, rest = content.partition(b"\0")
    return key[:LONGEST_KEY].decode("latin-1"), rest


def _decode_text(kind: bytes, rest: bytes, limit: int) -> tuple[str | None, int]:
    """Decode the content of a chunk after its key.

    Returns the text, or None if it is damaged or longer than `limit` bytes; and the number of decompressed bytes, which
    count for a damaged text, too.
    """
    if limit <= 0:
        return None, 0  # zlib takes 0 for no limit at all
    encoding, compressed, content = "latin-1", kind == b"zTXt", rest
    if kind == b"zTXt":
        content = rest[1:]
    elif kind == b"iTXt":
        encoding, compressed = "utf-8", rest[:1] == b"\1"
        *names, content = rest[2:].split(b"\0", 2)
        if len(names) != 2:
            return None, 0
    if not compressed:
        fits = len(content) <= limit
        return (content.decode(encoding, "replace") if fits else None), min(limit, len(content))
    text, used, fits = _inflate(content, limit)
    return (text.decode(encoding, "replace") if fits else None), used


def _inflate(content: bytes, limit: int) -> tuple[bytes, int, bool]:
    """Decompress; return the bytes, their number, and whether the data is complete and within `limit`."""
    stream = zlib.decompressobj()
    pieces, used = [], 0
    for start in range(0, len(content), PIECE):
        try:
            pieces.append(stream.decompress(content[start : start + PIECE], limit + 1 - used))
        except zlib.error:
            # zlib does not report how much it decompressed before the damage, so the maximum is counted.
            return b"", min(limit, used + PIECE * LARGEST_RATIO), False
        used += len(pieces[-1])
        if stream.eof or used > limit:
            break
    return b"".join(pieces), min(limit, used), stream.eof and used <= limit


def comment_exif(text: str) -> bytes | None:
    """Return an EXIF block with `text` as its UserComment; None if it is too long for a JPEG segment."""
    exif = Image.Exif()
    exif[EXIF_IFD] = {USER_COMMENT: UNICODE + text.encode("utf-16-be", "replace")}
    block = exif.tobytes()
    return block if len(block) <= MAX_EXIF else None


def read_exif(data: bytes) -> dict[str, str]:
    """Read the texts of a JPEG, WebP or AVIF by the keys that a PNG uses for them; empty for anything else."""
    try:
        with Image.open(io.BytesIO(data), formats=EXIF_FORMATS) as image:
            exif = image.getexif()
            comment = exif.get_ifd(EXIF_IFD).get(USER_COMMENT)
            named = [exif.get(tag) for tag in (MODEL, MAKE)]
    # Pillow reports damaged files with many exception types (OSError, SyntaxError, ValueError, struct.error, ...). All
    # of them mean that there is no text to read.
    except Exception:  # noqa: BLE001
        return {}
    texts = {}
    for value in named:
        key, colon, text = str(value).partition(":")
        if colon and key in ("prompt", "workflow"):
            texts[key] = text
    if isinstance(comment, bytes):
        texts["parameters"] = _decode_comment(comment)
    elif isinstance(comment, str):
        texts["parameters"] = comment
    return {key: text for key, text in texts.items() if text}


def _decode_comment(comment: bytes) -> str:
    code, text = comment[:8], comment[8:]
    if code == UNICODE:
        # Usually big-endian, but some programs write little-endian. In mostly Latin text, the high bytes are zero.
        little = text[1::2].count(0) > text[::2].count(0)
        return text.decode("utf-16-le" if little else "utf-16-be", "replace").strip("\0\ufeff")
    if code in (ASCII, b"\0" * 8):
        comment = text
    return comment.decode("utf-8", "replace").strip("\0")
