"""What other programs write in prompts, and ComfyUI takes for words. Pure.

Each of these changes the picture where it comes from, and here only adds odd words to the prompt; so it is named in a
warning. Ordinary text has none of them: what could be either (a `|` between words, a `#` before a hashtag, an `AND` in
a text that is all capitals) is left alone. Weights and embeddings, which ComfyUI knows, are
`shared.metadata.prompt_syntax`' matter.
"""

import json
import re
from collections.abc import Iterator

# Characters of what was found that a warning repeats, and warnings of one text.
LONGEST = 60
MOST = 8

# AUTOMATIC1111's chunks and composed prompts, and those of Regional Prompter and Forge Couple.
KEYWORDS = re.compile(r"\b(?:BREAK|ADDCOL|ADDROW|ADDCOMM|ADDBASE)\b|(?<=\S)\s+(AND(?:_[A-Z]+)?)\b(?=[\s:]+\S)")
# Networks and all that SwarmUI writes so, the words of diffusers' textual inversion too; a tag that never ends.
TAGS = re.compile(r"<[A-Za-z/][^<>]*>|<[A-Za-z]+:[^<>]*$")
# Dynamic prompts and wildcards.
WILDCARDS = re.compile(r"(?<!\w)__[A-Za-z0-9*~@/.-]+(?:[_ ][A-Za-z0-9*~@/.-]+)*__(?!\w)")
# Midjourney: weights behind words, and options. Novel AI: a number, and the text that it weighs.
DOUBLE_COLON = re.compile(r"(?<=[^\s:]):: ?-?\d+(?:\.\d+)?|(?<=[^\s:])::(?=\s|$)|(?<![\w.])-?\d+(?:\.\d+)?::(?=\S)")
OPTIONS = re.compile(
    r"(?:(?<=\s)|^)(?:"
    # Dashes that telephones make of two hyphens.
    r"[\u2013\u2014](?:ar|aspect|s|stylize|v|version|q|quality|c|chaos|iw|w|weird|seed|niji)\s+\d[\d.:]*"
    r"|--(?:ar|aspect|c|chaos|cfg(?:[_-]scale)?|cref|cw|draft|exp|fast|h|hd|height|iw|niji|no|n_iter|negative[_-]prompt|oref|ow"
    r"|p|profile|q|quality|r|raw|relax|repeat|s|sameseed|sampler(?:[_-]name)?|seed|sref|steps|stop|style|stylize|sv|sw|test|testp"
    r"|tile|turbo|upbeta|uplight|v|version|video|w|weird|width)\b(?:[ =]+[\w.:/-]+)?)",
    re.MULTILINE,
)
# InvokeAI (Compel): weights of parentheses and words, and what is done with several prompts.
COMPEL = re.compile(
    r"\)[+-]{1,8}(?=[\s,.)]|$)|(?<![\w+-])[A-Za-z]{3,40}(?<!Notepad)(?<!notepad)\+{2,8}(?=[\s,.)]|$)|\)\.(?:and|blend|swap)\("
)
# ComfyUI's own extension "prompt control".
FUNCTIONS = re.compile(r"\b(?:AREA|ATTN|AVG|COUPLE|FILL|IMASK|MASK|NOISE|SHIFT|SHUFFLE|STYLE|TE_WEIGHT)\([^()]*\)")
# ComfyUI's own page, and others, take comments out before they send a prompt.
COMMENTS = re.compile(
    r"/\*[^*]{0,200}\*/|(?:(?<=\s)|^)//(?=\s|\w).*|^[ \t]*#+[ \t].*|(?<=\n)[ \t]*#\w+[ \t]+[^#\s].*", re.MULTILINE
)
# Weights that ComfyUI does not read: behind the parentheses, with a comma, in the wide parentheses of Chinese texts.
MISPLACED = re.compile(
    r"\):-?\d{1,3}(?:\.\d+)?(?![\d:])|:\s?\d,\d{1,2}\s?\)|\uff08[^\uff08\uff09]*[:\uff1a]\s?\d+(?:\.\d+)?\s?\uff09"
)
# Escapes that only parentheses have here.
ESCAPES = re.compile(r"\\[\[\]{}<>|:]")
PATTERNS = (TAGS, WILDCARDS, OPTIONS, FUNCTIONS, COMMENTS)
# Those that are shown with the word that they belong to.
MARKS = (DOUBLE_COLON, COMPEL, MISPLACED, ESCAPES)


def notations(text: str) -> list[str]:
    """What stands in a prompt that another program would read otherwise, each once, in the order of the text."""
    # Some models take prompts in JSON.
    found = [] if _is_json(text) else [*_enclosed(text, "[", "]"), *_enclosed(text, "{", "}")]
    for pattern in PATTERNS:
        found += [match.span() for match in pattern.finditer(text)]
    for pattern in MARKS:
        found += [_word_around(text, *match.span()) for match in pattern.finditer(text)]
    # In a text that is all in capitals, these are words.
    if any(letter.isalpha() and not letter.isupper() for letter in KEYWORDS.sub("", text)):
        found += [match.span(match.lastindex or 0) for match in KEYWORDS.finditer(text)]
    return list(dict.fromkeys(shortened(text[start:end]) for start, end in _outermost(found)))


def misread(text: str, field: str) -> list[str]:
    """A warning for each notation of other programs that ComfyUI takes for words."""
    found = notations(text)
    warnings = [f"{field} has {each}, which is read as words" for each in found[:MOST]]
    if len(found) > MOST:
        warnings.append(f"{field} has {len(found) - MOST} more notations that are read as words")
    return warnings


def shortened(text: str) -> str:
    """The text, or as much of it as a message can bear."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def _is_json(text: str) -> bool:
    if text.strip()[:1] not in ("{", "["):
        return False
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _enclosed(text: str, opening: str, closing: str) -> Iterator[tuple[int, int]]:
    """The outermost parts of the text between such brackets: alternatives, edits, weights."""
    begin, level = 0, 0
    for match in re.finditer(rf"(?<!\\)[{re.escape(opening + closing)}]", text):
        if match[0] == opening:
            begin = begin if level else match.start()
            level += 1
        elif level:
            level -= 1
            if level == 0 and any(letter.isalnum() for letter in text[begin : match.end()]):
                # A variable of dynamic prompts has a mark in front.
                yield begin - (opening == "{" and text[:begin].endswith("$")), match.end()


def _word_around(text: str, start: int, end: int) -> tuple[int, int]:
    """The span with what stands beside it, up to a space."""
    before = len(text[max(0, start - LONGEST) : start].split(" ")[-1])
    behind = len(text[end : end + LONGEST].split(" ", maxsplit=1)[0])
    return start - before, end + behind


def _outermost(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    outer: list[tuple[int, int]] = []
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if not outer or end > outer[-1][1]:
            outer.append((start, end))
    return outer
