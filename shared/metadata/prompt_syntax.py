"""Parses the text of a prompt as ComfyUI does before it makes tokens. Pure.

This reimplements `token_weights` and `_try_get_embedding` of ComfyUI's `comfy/sd1_clip.py`, with positions in the text;
tests compare the two. ComfyUI knows only this syntax:

- `(text)` has 1.1 times the weight, `(text:1.3)` the weight 1.3, which is the number after the last colon;
- `\\(` and `\\)` are plain parentheses;
- `embedding:name` at the start, or after a space or a parenthesis that opens a weight; the name ends at a space, `<` or
  `[`, and commas around it may be left out.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shared.models.lookup import match_names

# An escaped parenthesis, or one that counts, which is the group.
PARENTHESIS = re.compile(r"\\[()]|([()])")
IDENTIFIER = "embedding:"
KNOWN_WORD = re.compile(rf"(?<=\s){IDENTIFIER}")
# What ends the name of an embedding, besides a space.
END_OF_NAME = re.compile(r"[<\[]")
# What ComfyUI appends to a name, in this order.
APPENDED = ("", ".safetensors", ".pt", ".bin")


@dataclass(frozen=True)
class Segment:
    """A part of a prompt with one weight, from `start` to `end`, escapes included.

    `written` is true if the weight is a number in the text; `depth` counts the parentheses around the part.
    """

    start: int
    end: int
    weight: float
    written: bool = False
    depth: int = 0


@dataclass(frozen=True)
class Balance:
    """The positions of the parentheses that count, of unclosed and of stray closing ones, and the nesting depth."""

    places: tuple[int, ...]
    unclosed: tuple[int, ...]
    stray: tuple[int, ...]
    depth: int


def balance(prompt: str) -> Balance:
    """The balance of a prompt's parentheses. Does not read weights."""
    unclosed: list[int] = []
    stray = []
    depth = 0
    places = _parentheses(prompt)
    for place in places:
        if prompt[place] == "(":
            unclosed.append(place)
            depth = max(depth, len(unclosed))
        elif unclosed:
            unclosed.pop()
        else:
            stray.append(place)
    return Balance(tuple(places), tuple(unclosed), tuple(stray), depth)


def segments(prompt: str) -> list[Segment]:
    """The parts of a prompt in their order, each with its weight.

    Takes time in proportion to the length times the depth, so callers must limit the depth (see `balance`).
    """
    counting = _parentheses(prompt)
    found = []
    # A stack: the last is the next.
    left: list[tuple[Segment, Sequence[int], bool]] = [(Segment(0, len(prompt), 1.0), counting, False)]
    while left:
        segment, inside, whole = left.pop()
        if whole:
            found.append(segment)
            continue
        items = list(_items(prompt, segment, inside))
        left += reversed([_weighted(prompt, segment, start, end, inner) for start, end, inner in items])
    return found


def unescape(text: str) -> str:
    """The text with plain parentheses, as the encoder gets it."""
    return text.replace("\\)", ")").replace("\\(", "(")


def escape(text: str) -> str:
    """The text with its parentheses escaped, so that none is a weight."""
    return text.replace("(", "\\(").replace(")", "\\)")


def embedding_words(prompt: str, segment: Segment) -> Iterator[tuple[int, int]]:
    """The start and end of each embedding in a segment of a prompt, with the words up to the next one."""
    text = prompt[segment.start : segment.end]
    starts = [0] if text.startswith(IDENTIFIER) else []
    starts += [match.start() for match in KNOWN_WORD.finditer(text)]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=False):
        yield segment.start + start, segment.start + end


def embedding_name(word: str) -> str:
    """The name after `embedding:` in a text that begins with it; empty if there is none."""
    parts = unescape(word)[len(IDENTIFIER) :].strip("\n").split(maxsplit=1)
    return END_OF_NAME.split(parts[0], maxsplit=1)[0] if parts else ""


def has_name(word: str) -> bool:
    """Whether a text has more than spaces after `embedding:`. If not, ComfyUI fails, and so does the job."""
    return bool(unescape(word)[len(IDENTIFIER) :].strip())


class EmbeddingFiles:
    """Finds the files of embeddings by the names in a prompt. Files are paths below a folder for embeddings."""

    def __init__(self, available: Sequence[str]) -> None:
        self.available = available
        # The separator of the engine's system, which may be another than this one.
        self._backslashes = any("\\" in file for file in available)
        self._by_name: dict[str, list[str]] = {}
        for file in available:
            self._by_name.setdefault(_last(file), []).append(file)
        self._meant: dict[str, list[str]] = {}

    def found(self, name: str) -> list[str]:
        """The files that the engine may load for a name: it searches all folders in no certain order."""
        for wanted in dict.fromkeys((name, name.strip(","))):
            # In each folder, it takes the first ending that exists.
            by_folder: dict[str, str] = {}
            for ending in APPENDED if wanted else ():
                way = f"/{wanted}{ending}"
                way = way.replace("\\", "/") if self._backslashes else way
                for file in self._by_name.get(_last(way), ()):
                    path = f"/{file}".replace("\\", "/")
                    if path.endswith(way):
                        by_folder.setdefault(path.removesuffix(way), file)
            if by_folder:
                return list(by_folder.values())
        return []

    def meant(self, name: str) -> list[str]:
        """The files that a name may mean: by the rule for all files (`shared.models.lookup`), else by the engine's."""
        if name not in self._meant:
            self._meant[name] = match_names(name, self.available) or self.found(name)
        return self._meant[name]


def _last(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _parentheses(prompt: str) -> list[int]:
    return [match.start() for match in PARENTHESIS.finditer(prompt) if match[1]]


def _items(prompt: str, segment: Segment, inside: Sequence[int]) -> Iterator[tuple[int, int, Sequence[int]]]:
    """The groups in parentheses of a segment and the texts between them, each with its parentheses.

    As in ComfyUI, a stray closing parenthesis cancels the next opening one.
    """
    begin, first, level = segment.start, 0, 0
    for index, place in enumerate(inside):
        if prompt[place] == "(":
            if level == 0:
                if begin < place:
                    yield begin, place, inside[first:index]
                begin, first = place, index
            level += 1
        else:
            level -= 1
            if level == 0:
                yield begin, place + 1, inside[first : index + 1]
                begin, first = place + 1, index + 1
    if begin < segment.end:
        yield begin, segment.end, inside[first:]


def _weighted(
    prompt: str, around: Segment, start: int, end: int, inside: Sequence[int]
) -> tuple[Segment, Sequence[int], bool]:
    """An item as a segment, its parentheses, and whether it is whole; a group in parentheses is still to be divided."""
    in_parentheses = len(inside) >= 2 and inside[0] == start and inside[-1] == end - 1
    if not in_parentheses or prompt[start] != "(" or prompt[end - 1] != ")":
        return Segment(start, end, around.weight, around.written, around.depth), (), True
    start, end, inside = start + 1, end - 1, inside[1:-1]
    weight, written = around.weight * 1.1, around.written
    colon = prompt.rfind(":", start, end)
    if colon > start:
        try:
            weight, written = float(prompt[colon + 1 : end]), True
            end = colon
            inside = [place for place in inside if place < colon]
        except ValueError:
            pass
    return Segment(start, end, weight, written, around.depth + 1), inside, False
