"""CLIP's tokenizer, and the words of a text that the starter's text encoder knows. The only I/O is reading the merges.

The services use it because they may run without the engine and must not load a large library. A test compares it with
the engine's tokenizer. The merges are CLIP's (Copyright (c) 2021 OpenAI, MIT licence).
"""

from __future__ import annotations

import bisect
import functools
import gzip
import itertools
import unicodedata
from array import array
from collections.abc import Iterator
from pathlib import Path

import regex

from starter.vocabulary import END_OF_WORD, KNOWN_TOKENS

MERGES = Path(__file__).parent / "weights" / "merges.txt.gz"
# CLIP's pattern, which splits a text before the merges are applied.
CHUNK = regex.compile(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
# A word: letters and digits, with apostrophes between them, or pictograms.
WORD = regex.compile(
    r"['\u2019]?[\p{L}\p{N}](?:[\p{L}\p{M}\p{N}]|['\u2019](?=[\p{L}\p{N}]))*|\p{So}[\p{So}\p{Sk}\p{M}\p{Cf}]*"
)
# Most words match none of the known tokens, and so need no merges.
KNOWN_TOKEN = regex.compile(
    "|".join(f"{token.removesuffix(END_OF_WORD)}{'$' * token.endswith(END_OF_WORD)}" for token in sorted(KNOWN_TOKENS))
)
# The rank of a pair that is never merged; all other ranks are smaller, and have 16 bits.
NEVER = 0xFFFF
# Characters; merging takes quadratic time, and no known word is longer.
LONGEST = 64


def words(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the words of a text in lower case, each with whether the text encoder knows one of its tokens.

    Punctuation is not a word. The caller removes weights, embeddings and other syntax.
    """
    text = unicodedata.normalize("NFC", text).lower()
    chunks = CHUNK.finditer(text)
    chunk = next(chunks, None)
    for word in WORD.finditer(text):
        known = False
        while chunk is not None and chunk.start() < word.end():
            known |= chunk.end() > word.start() and is_known(chunk[0])
            if chunk.end() > word.end():
                break
            chunk = next(chunks, None)
        yield word[0], known


def is_known(chunk: str) -> bool:
    """Whether the encoder knows one of the tokens of this chunk."""
    if chunk + END_OF_WORD in KNOWN_TOKENS:
        return True
    if len(chunk) > LONGEST or not KNOWN_TOKEN.search(chunk):
        return False
    return not KNOWN_TOKENS.isdisjoint(tokens(chunk))


def tokens(chunk: str) -> list[str]:
    """Return the tokens of a chunk without spaces: byte-pair encoding with CLIP's merges."""
    parts = [_symbols()[byte] for byte in chunk.encode()]
    parts[-1] += END_OF_WORD
    while len(parts) > 1:
        pairs = [f"{left} {right}" for left, right in itertools.pairwise(parts)]
        ranks = [_rank(pair) for pair in pairs]
        if min(ranks) == NEVER:
            break
        parts = _merged(parts, pairs[ranks.index(min(ranks))])
    return parts


def _merged(parts: list[str], pair: str) -> list[str]:
    left, right = pair.split(" ")
    merged: list[str] = []
    for part in parts:
        if merged and merged[-1] == left and part == right:
            merged[-1] = left + right
        else:
            merged.append(part)
    return merged


def _rank(pair: str) -> int:
    """Return the rank of a merge; NEVER if CLIP does not merge this pair."""
    key, ranks = hash(pair) & ~NEVER, _ranks()
    index = bisect.bisect_left(ranks, key)
    return ranks[index] & NEVER if index < len(ranks) and ranks[index] & ~NEVER == key else NEVER


@functools.cache
def _ranks() -> array[int]:
    """Return all merges, sorted, as integers: 48 bits of the pair's hash and 16 bits of its rank.

    A dictionary of the 48,894 pairs would take 7 MB of the service's 80 MB; this takes 0.4.
    """
    with gzip.open(MERGES, "rt", encoding="utf-8") as lines:
        next(lines)
        return array("q", sorted(hash(line.rstrip("\n")) & ~NEVER | rank for rank, line in enumerate(lines)))


@functools.cache
def _symbols() -> dict[int, str]:
    """Return the letter for each byte in tokens: its own in Latin-1 if that is visible, else one from U+0100 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(0x100 + index) for index, byte in enumerate(others)}
