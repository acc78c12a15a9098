"""How CLIP cuts a text into tokens, and which words of it the starter's text encoder knows. No I/O but its merges.

The engine's tokenizer does the same, and a test compares the two; but a service may run where there is no engine, and
loads no large library. The merges are CLIP's (Copyright (c) 2021 OpenAI, MIT licence).
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

from starter.words import END_OF_WORD, KNOWN_TOKENS

MERGES = Path(__file__).parent / "weights" / "merges.txt.gz"
# CLIP's own pattern: what it cuts a text into, before merges come in.
CHUNK = regex.compile(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
# What people take for a word: letters and digits with apostrophes inside, or pictograms.
WORD = regex.compile(
    r"['\u2019]?[\p{L}\p{N}](?:[\p{L}\p{M}\p{N}]|['\u2019](?=[\p{L}\p{N}]))*|\p{So}[\p{So}\p{Sk}\p{M}\p{Cf}]*"
)
# Most words have none of these, so they are judged without the merges.
HINT = regex.compile(
    "|".join(f"{token.removesuffix(END_OF_WORD)}{'$' * token.endswith(END_OF_WORD)}" for token in sorted(KNOWN_TOKENS))
)
# Of a pair that is not merged; the rank of any other has fewer than 16 bits, and is another.
NEVER = 0xFFFF
# Letters; merging takes the square of it, and no word is longer.
LONGEST = 64


def words(text: str) -> Iterator[tuple[str, bool]]:
    """The words of a text, in lower case, and whether the starter's text encoder knows any token of each.

    Punctuation is no word. Weights, embeddings and other notations are the caller's matter.
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
    """Whether the encoder knows one of the tokens that it gets of these letters."""
    if chunk + END_OF_WORD in KNOWN_TOKENS:
        return True
    if len(chunk) > LONGEST or not HINT.search(chunk):
        return False
    return not KNOWN_TOKENS.isdisjoint(tokens(chunk))


def tokens(chunk: str) -> list[str]:
    """The tokens of some letters without a space: of all neighbours, those are merged first that CLIP merged first."""
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
    """When CLIP merges that pair of tokens; NEVER if it does not."""
    mark, ranks = hash(pair) & ~NEVER, _ranks()
    place = bisect.bisect_left(ranks, mark)
    return ranks[place] & NEVER if place < len(ranks) and ranks[place] & ~NEVER == mark else NEVER


@functools.cache
def _ranks() -> array[int]:
    """Each pair that CLIP merges: 48 bits of its hash, and 16 of its rank; sorted.

    A dictionary of the 48,894 pairs would take 7 MB of a service that has 80, and this takes 0.4.
    """
    with gzip.open(MERGES, "rt", encoding="utf-8") as lines:
        next(lines)
        return array("q", sorted(hash(line.rstrip("\n")) & ~NEVER | rank for rank, line in enumerate(lines)))


@functools.cache
def _symbols() -> dict[int, str]:
    """The letter that stands for each byte in tokens: its own in Latin-1, if that can be seen, else one further on."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {byte: chr(0x100 + place) for place, byte in enumerate(others)}
