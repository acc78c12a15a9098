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

    `is_explicit` is true if the weight is a number in the text; `depth` counts the parentheses around the part.
    """

    start: int
    end: int
    weight: float
    is_explicit: bool = False
    depth: int = 0


@dataclass(frozen=True)
class Parentheses:
    """The positions of the parentheses that count, of unclosed and of stray closing ones, and the nesting depth."""

    positions: tuple[int, ...]
    unclosed: tuple[int, ...]
    stray: tuple[int, ...]
    depth: int


def find_parentheses(prompt: str) -> Parentheses:
    """Finds the parentheses of a prompt. Does not read weights."""
    unclosed: list[int] = []
    stray = []
    depth = 0
    positions = _parentheses(prompt)
    for position in positions:
        if prompt[position] == "(":
            unclosed.append(position)
            depth = max(depth, len(unclosed))
        elif unclosed:
            unclosed.pop()
        else:
            stray.append(position)
    return Parentheses(tuple(positions), tuple(unclosed), tuple(stray), depth)


def parse_segments(prompt: str) -> list[Segment]:
    """The parts of a prompt in their order, each with its weight.

    Takes time in proportion to the length times the depth, so callers must limit the depth (see `find_parentheses`).
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


def find_embeddings(prompt: str, segment: Segment) -> Iterator[tuple[int, int]]:
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


def has_embedding_name(word: str) -> bool:
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
        self._matching: dict[str, list[str]] = {}

    def loaded_by(self, name: str) -> list[str]:
        """The files that the engine may load for a name: it searches all folders in no certain order."""
        for wanted in dict.fromkeys((name, name.strip(","))):
            # In each folder, it takes the first ending that exists.
            by_folder: dict[str, str] = {}
            for ending in APPENDED if wanted else ():
                path_end = f"/{wanted}{ending}"
                path_end = path_end.replace("\\", "/") if self._backslashes else path_end
                for file in self._by_name.get(_last(path_end), ()):
                    path = f"/{file}".replace("\\", "/")
                    if path.endswith(path_end):
                        by_folder.setdefault(path.removesuffix(path_end), file)
            if by_folder:
                return list(by_folder.values())
        return []

    def matching(self, name: str) -> list[str]:
        """The files that a name may mean: by the rule for all files (`shared.models.lookup`), else by the engine's."""
        if name not in self._matching:
            self._matching[name] = match_names(name, self.available) or self.loaded_by(name)
        return self._matching[name]


def _last(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _parentheses(prompt: str) -> list[int]:
    return [match.start() for match in PARENTHESIS.finditer(prompt) if match[1]]


def _items(prompt: str, segment: Segment, inside: Sequence[int]) -> Iterator[tuple[int, int, Sequence[int]]]:
    """The groups in parentheses of a segment and the texts between them, each with its parentheses.

    As in ComfyUI, a stray closing parenthesis cancels the next opening one.
    """
    begin, first, level = segment.start, 0, 0
    for index, position in enumerate(inside):
        if prompt[position] == "(":
            if level == 0:
                if begin < position:
                    yield begin, position, inside[first:index]
                begin, first = position, index
            level += 1
        else:
            level -= 1
            if level == 0:
                yield begin, position + 1, inside[first : index + 1]
                begin, first = position + 1, index + 1
    if begin < segment.end:
        yield begin, segment.end, inside[first:]


def _weighted(
    prompt: str, around: Segment, start: int, end: int, inside: Sequence[int]
) -> tuple[Segment, Sequence[int], bool]:
    """An item as a segment, its parentheses, and whether it is whole; a group in parentheses is still to be divided."""
    in_parentheses = len(inside) >= 2 and inside[0] == start and inside[-1] == end - 1
    if not in_parentheses or prompt[start] != "(" or prompt[end - 1] != ")":
        return Segment(start, end, around.weight, around.is_explicit, around.depth), (), True
    start, end, inside = start + 1, end - 1, inside[1:-1]
    weight, is_explicit = around.weight * 1.1, around.is_explicit
    colon = prompt.rfind(":", start, end)
    if colon > start:
        try:
            weight, is_explicit = float(prompt[colon + 1 : end]), True
            end = colon
            inside = [position for position in inside if position < colon]
        except ValueError:
            pass
    return Segment(start, end, weight, is_explicit, around.depth + 1), inside, False
