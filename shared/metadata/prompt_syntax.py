"""How ComfyUI reads the text of a prompt, before any of it is turned into tokens. Pure.

It is a second writing of `token_weights` and `_try_get_embedding` in ComfyUI's `comfy/sd1_clip.py`, with places in the
text: tests compare the two. What ComfyUI knows is this, and nothing else:

- `(text)` weighs 1.1 times as much, `(text:1.3)` weighs 1.3; the number stands behind the last colon;
- `\\(` and `\\)` are the parentheses themselves;
- `embedding:name` at the beginning, or behind a space or a parenthesis that opens a weight; the name ends at a space,
  `<` or `[`, and commas around it may be left out.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shared.models.lookup import match_names

# An escaped parenthesis, or one that counts (then it is the group).
PARENTHESIS = re.compile(r"\\[()]|([()])")
IDENTIFIER = "embedding:"
KNOWN_WORD = re.compile(rf"(?<=\s){IDENTIFIER}")
# Where the name of an embedding ends, besides at a space.
END_OF_NAME = re.compile(r"[<\[]")
# What ComfyUI appends to a name, in this order.
APPENDED = ("", ".safetensors", ".pt", ".bin")


@dataclass(frozen=True)
class Segment:
    """A part of a prompt with one weight: from `start` to `end`, with its escapes as they were written.

    `written` says whether the weight is a number in the text; `depth` counts the parentheses around it.
    """

    start: int
    end: int
    weight: float
    written: bool = False
    depth: int = 0


@dataclass(frozen=True)
class Balance:
    """The places of the parentheses that count, of those that are never closed, and of those that close nothing; and
    how many lie in each other."""

    places: tuple[int, ...]
    unclosed: tuple[int, ...]
    stray: tuple[int, ...]
    depth: int


def balance(prompt: str) -> Balance:
    """What a look at the parentheses tells, without reading weights."""
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

    The time that it takes is the length times the depth, so who calls it limits the depth (see `balance`).
    """
    counting = _parentheses(prompt)
    found = []
    # Of a stack, the top comes next.
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
    """The text as ComfyUI passes it on."""
    return text.replace("\\)", ")").replace("\\(", "(")


def escape(text: str) -> str:
    """The text so that ComfyUI takes none of its parentheses for a weight."""
    return text.replace("(", "\\(").replace(")", "\\)")


def embedding_words(prompt: str, segment: Segment) -> Iterator[tuple[int, int]]:
    """Where in a prompt the words that ComfyUI takes for embeddings begin, and where each ends, the words behind it
    included."""
    text = prompt[segment.start : segment.end]
    starts = [0] if text.startswith(IDENTIFIER) else []
    starts += [match.start() for match in KNOWN_WORD.finditer(text)]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=False):
        yield segment.start + start, segment.start + end


def embedding_name(word: str) -> str:
    """The name that ComfyUI looks for, of a text that begins with `embedding:`; empty if there is none."""
    parts = unescape(word)[len(IDENTIFIER) :].strip("\n").split(maxsplit=1)
    return END_OF_NAME.split(parts[0], maxsplit=1)[0] if parts else ""


def has_name(word: str) -> bool:
    """Whether anything but spaces stands behind `embedding:`; if not, ComfyUI fails, and the job with it."""
    return bool(unescape(word)[len(IDENTIFIER) :].strip())


class EmbeddingFiles:
    """The files of embeddings, which are their paths below the folder of their kind, by the names in a prompt."""

    def __init__(self, available: Sequence[str]) -> None:
        self.available = available
        # Of the engine's system, which is not always ours.
        self._backslashes = any("\\" in file for file in available)
        self._by_name: dict[str, list[str]] = {}
        for file in available:
            self._by_name.setdefault(_last(file), []).append(file)
        self._meant: dict[str, list[str]] = {}

    def found(self, name: str) -> list[str]:
        """The files that the engine may find by a name: it looks into every folder, in no certain order."""
        for wanted in dict.fromkeys((name, name.strip(","))):
            # In each folder it takes the first that there is.
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
    """What a segment consists of: groups in parentheses, and what lies between them; with the parentheses in each.

    As in ComfyUI, a parenthesis that closes nothing takes the next one that opens with it.
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
    """An item as what is still to be divided, if it is in parentheses; else as a segment that is whole."""
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
