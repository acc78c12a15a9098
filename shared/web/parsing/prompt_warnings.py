"""Warns of prompts that ComfyUI reads otherwise than they look, or that the starter model does not understand. Pure.

Three checks: weights and embeddings (`warn_of_weights`), syntax of other programs that ComfyUI takes for words
(`warn_of_syntax`), and words outside the vocabulary of the starter model (`warn_of_unknown_words`).

The syntax check leaves ordinary text alone: a `|` between words, a `#` before a hashtag, an `AND` in capitals.
The starter model was trained with about a hundred words; all others look alike to it, so a prompt that it cannot follow
draws something else, and only a warning says why. Other models know any word.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence

from shared.errors import InvalidValue
from shared.metadata.prompt_syntax import (
    END_OF_NAME,
    IDENTIFIER,
    EmbeddingFiles,
    Segment,
    embedding_name,
    find_embeddings,
    find_parentheses,
    has_embedding_name,
    parse_segments,
    unescape,
)
from shared.models.defaults import is_starter
from shared.models.detect import ModelFile
from shared.models.lookup import nearest_names
from starter.tokenizer import words
from starter.vocabulary import VOCABULARY, is_grammar

# The most characters of a prompt that a warning quotes, and the most warnings or words of one text.
MAX_QUOTED = 60
MAX_WARNINGS = 8

# ComfyUI reads parentheses by recursion, and fails with the whole job at a depth of about a thousand.
MAX_DEPTH = 50
# Above this, a number after a colon is more likely a time, a year or a ratio than a weight, and it breaks the picture.
MAX_PLAUSIBLE_WEIGHT = 3.0
SMILEY = re.compile(r"[:;=8x][-'o^]?$")
LOST_WEIGHT = re.compile(r":\s?-?\d+(?:\.\d+)?\s?$")
# Characters at which ComfyUI ends the name of an embedding.
UNNAMEABLE = re.compile(r"[\s<\[]")
ESCAPE_HINT = "write \\( and \\) for parentheses that are words"

# Chunks and composed prompts of AUTOMATIC1111, Regional Prompter and Forge Couple.
KEYWORDS = re.compile(r"\b(?:BREAK|ADDCOL|ADDROW|ADDCOMM|ADDBASE)\b|(?<=\S)\s+(AND(?:_[A-Z]+)?)\b(?=[\s:]+\S)")
# Tags of networks and of SwarmUI, the tokens of diffusers' textual inversion, and tags without an end.
TAGS = re.compile(r"<[A-Za-z/][^<>]*>|<[A-Za-z]+:[^<>]*$")
# Dynamic prompts and wildcards.
WILDCARDS = re.compile(r"(?<!\w)__[A-Za-z0-9*~@/.-]+(?:[_ ][A-Za-z0-9*~@/.-]+)*__(?!\w)")
# Midjourney: weights after words, and options. NovelAI: a number in front of the text that it weights.
DOUBLE_COLON = re.compile(r"(?<=[^\s:]):: ?-?\d+(?:\.\d+)?|(?<=[^\s:])::(?=\s|$)|(?<![\w.])-?\d+(?:\.\d+)?::(?=\S)")
OPTIONS = re.compile(
    r"(?:(?<=\s)|^)(?:"
    # The dashes that phones substitute for two hyphens.
    r"[\u2013\u2014](?:ar|aspect|s|stylize|v|version|q|quality|c|chaos|iw|w|weird|seed|niji)\s+\d[\d.:]*"
    r"|--(?:ar|aspect|c|chaos|cfg(?:[_-]scale)?|cref|cw|draft|exp|fast|h|hd|height|iw|niji|no|n_iter|negative[_-]prompt|oref|ow"
    r"|p|profile|q|quality|r|raw|relax|repeat|s|sameseed|sampler(?:[_-]name)?|seed|sref|steps|stop|style|stylize|sv|sw|test|testp"
    r"|tile|turbo|upbeta|uplight|v|version|video|w|weird|width)\b(?:[ =]+[\w.:/-]+)?)",
    re.MULTILINE,
)
# InvokeAI (Compel): weights of parentheses and words, and functions of several prompts.
COMPEL = re.compile(
    r"\)[+-]{1,8}(?=[\s,.)]|$)|(?<![\w+-])[A-Za-z]{3,40}(?<!Notepad)(?<!notepad)\+{2,8}(?=[\s,.)]|$)|\)\.(?:and|blend|swap)\("
)
# The ComfyUI extension "prompt control".
FUNCTIONS = re.compile(r"\b(?:AREA|ATTN|AVG|COUPLE|FILL|IMASK|MASK|NOISE|SHIFT|SHUFFLE|STYLE|TE_WEIGHT)\([^()]*\)")
# Comments, which ComfyUI's page and others remove before they send a prompt.
COMMENTS = re.compile(
    r"/\*[^*]{0,200}\*/|(?:(?<=\s)|^)//(?=\s|\w).*|^[ \t]*#+[ \t].*|(?<=\n)[ \t]*#\w+[ \t]+[^#\s].*", re.MULTILINE
)
# Weights that ComfyUI does not read: after the parentheses, with a decimal comma, in full-width parentheses.
MISPLACED = re.compile(
    r"\):-?\d{1,3}(?:\.\d+)?(?![\d:])|:\s?\d,\d{1,2}\s?\)|\uff08[^\uff08\uff09]*[:\uff1a]\s?\d+(?:\.\d+)?\s?\uff09"
)
# Escapes: ComfyUI has them for parentheses only.
ESCAPES = re.compile(r"\\[\[\]{}<>|:]")
PATTERNS = (TAGS, WILDCARDS, OPTIONS, FUNCTIONS, COMMENTS)
# Patterns that are shown together with the word that they belong to.
MARKS = (DOUBLE_COLON, COMPEL, MISPLACED, ESCAPES)

# Kinds of words that a warning lists, each by the first of its synonyms.
KINDS = ("shapes", "colours", "backgrounds", "sizes", "places", "landscapes")
REAL_MODEL = "`python dream_layer.py models add sd15` downloads a model that knows more"


def warn_of_weights(text: str, field: str, files: EmbeddingFiles) -> list[str]:
    """Return warnings of weights and embeddings that ComfyUI reads otherwise than they look.

    `files` are the installed embeddings. Raises InvalidValue for text that would fail the job or draw noise.
    """
    check_depth(text, field)
    parts = parse_segments(text)
    warnings = [*_warn_of_parentheses(text, field), *_warn_of_heavy_weights(text, field, parts)]
    for part in parts:
        for start, end in find_embeddings(text, part):
            if not has_embedding_name(text[start:end]):
                raise InvalidValue(
                    f"{field} has {IDENTIFIER!r} without a name, which fails the job in the engine",
                    field=field,
                    hint=f"write {IDENTIFIER}name, or leave the colon out",
                )
            name = embedding_name(text[start:end])
            found = files.loaded_by(name)
            if not found:
                warnings.append(missing_embedding(name, field, files))
            elif len(found) > 1:
                warnings.append(
                    f"{field} names the embedding {name!r}, for which the engine may load any of {', '.join(found)}; "
                    "give them different names"
                )
    return warnings


def check_depth(text: str, field: str) -> None:
    """Raise InvalidValue for parentheses that are nested more than MAX_DEPTH deep."""
    depth = find_parentheses(text).depth
    if depth > MAX_DEPTH:
        raise InvalidValue(
            f"{field} nests {depth} parentheses, more than {MAX_DEPTH}",
            field=field,
            hint=f"write (text:1.3) for a weight, and {ESCAPE_HINT[6:]}",
        )


def missing_embedding(name: str, field: str, files: EmbeddingFiles) -> str:
    """Return the warning for an embedding that does not exist, or whose name the engine cannot read."""
    unreadable = [
        file for file in files.available if UNNAMEABLE.search(file) and name and name.casefold() in file.casefold()
    ]
    if unreadable:
        return (
            f"{field} names the embedding {name!r}; the engine cannot read the name of {unreadable[0]!r} in a prompt, "
            "because a space, < or [ ends the name: rename the file"
        )
    closest = nearest_names(name, files.available)
    hint = f"use {' or '.join(closest)}" if closest else "no embedding is installed"
    return f"{field} names the embedding {name!r}, which does not exist and has no effect; {hint}"


def warn_of_syntax(text: str, field: str) -> list[str]:
    """Return a warning for each piece of syntax of other programs that ComfyUI takes for words."""
    found = find_syntax(text)
    warnings = [f"{field} has {notation}, which is read as words" for notation in found[:MAX_WARNINGS]]
    if len(found) > MAX_WARNINGS:
        warnings.append(f"{field} has {len(found) - MAX_WARNINGS} more notations that are read as words")
    return warnings


def find_syntax(text: str) -> list[str]:
    """Return the pieces of a prompt that another program would not read as words, each once, in order."""
    # Some models take prompts in JSON.
    spans = [] if _is_json(text) else [*_bracketed(text, "[", "]"), *_bracketed(text, "{", "}")]
    for pattern in PATTERNS:
        spans += [match.span() for match in pattern.finditer(text)]
    for pattern in MARKS:
        spans += [_word_around(text, *match.span()) for match in pattern.finditer(text)]
    # In a text that is all capitals, the keywords are words.
    if any(letter.isalpha() and not letter.isupper() for letter in KEYWORDS.sub("", text)):
        spans += [match.span(match.lastindex or 0) for match in KEYWORDS.finditer(text)]
    return list(dict.fromkeys(shorten_text(text[start:end]) for start, end in _outermost(spans)))


def warn_of_unknown_words(
    file: ModelFile, prompts: Iterable[str], negative_prompts: Iterable[str], files: EmbeddingFiles
) -> list[str]:
    """Return one warning if `file` is the starter or of its kit, and the prompts have words that it does not know.

    In `prompts` each unknown word counts. A negative prompt counts only if the starter knows none of its words, because
    a single unknown word there takes nothing away from the picture. `files` are the installed embeddings.
    """
    if not is_starter(file):
        return []
    unknown = list(dict.fromkeys(word for prompt in prompts for word in unknown_words(prompt)))
    parts = [f"does not know {_list_words(unknown)} of prompt"] if unknown else []
    if any(knows_no_word(prompt, files) for prompt in negative_prompts):
        parts.append("knows no word of negative_prompt")
    return [f"{file.name} {' and '.join(parts)}. It knows {describe_vocabulary()}; {REAL_MODEL}"] if parts else []


def unknown_words(prompt: str) -> list[str]:
    """Return the words of a prompt that the starter does not know, each once, without articles and the like."""
    unknown = (word for text in _tokenized_texts(prompt) for word, is_known in words(text) if not is_known)
    return list(dict.fromkeys(word for word in unknown if not is_grammar(word)))


def knows_no_word(prompt: str, files: EmbeddingFiles) -> bool:
    """Whether a prompt has words, and the starter knows none of them."""
    if any(files.loaded_by(name) for name in _embedding_names(prompt)):
        return False
    known = [
        is_known
        for text in _tokenized_texts(prompt)
        for word, is_known in words(text)
        if is_known or not is_grammar(word)
    ]
    return bool(known) and not any(known)


def describe_vocabulary() -> str:
    """Return the words that the starter knows, by kind."""
    firsts = {kind: [row.split()[0] for row in VOCABULARY[kind]] for kind in KINDS}
    return ", ".join(
        f"{kind} ({', '.join(word for word in words_of_kind if f'{word}s' != kind)})"
        for kind, words_of_kind in firsts.items()
    )


def shorten_text(text: str) -> str:
    """Return the text on one line, cut to MAX_QUOTED characters."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_QUOTED else f"{line[: MAX_QUOTED - 3]}..."


def _warn_of_parentheses(text: str, field: str) -> Iterator[str]:
    """Warn of unbalanced parentheses that change the weights of other text, or lose a weight."""
    found = find_parentheses(text)
    for place in found.unclosed[:1]:
        is_smiley = SMILEY.search(text[max(0, place - 3) : place]) and not text[place + 1 : place + 2].isalnum()
        if not is_smiley or found.positions[-1] > place:
            yield (
                f"{field} has a ( that is never closed, at {shorten_text(text[place:])!r}, so weights from there on "
                f"are not read as they look; {ESCAPE_HINT}"
            )
    for place in found.stray[:1]:
        before = text[max(0, place - 30) : place]
        closed = {*found.positions} - {*found.unclosed}
        opens_later = any(text[other] == "(" and other > place for other in closed)
        if opens_later or LOST_WEIGHT.search(before):
            yield (
                f"{field} has a ) that closes nothing, after {shorten_text(before)!r}, so weights around it are not "
                f"read as they look; {ESCAPE_HINT}"
            )


def _warn_of_heavy_weights(text: str, field: str, parts: Sequence[Segment]) -> Iterator[str]:
    """Warn of numbers that are hardly meant as weights. Raises InvalidValue for a number that is not finite."""
    for part in parts:
        if not part.is_explicit:
            continue
        quoted = f"({shorten_text(text[part.start : part.end])}:{part.weight:g})"
        if not math.isfinite(part.weight):
            raise InvalidValue(
                f"{field} has a weight that is not a finite number: {quoted}",
                field=field,
                hint=f"write a number such as 1.2, or {ESCAPE_HINT[6:]}",
            )
        if abs(part.weight) > MAX_PLAUSIBLE_WEIGHT:
            yield f"{field} has {quoted}, where {part.weight:g} is read as a weight, not as words; {ESCAPE_HINT}"


def _is_json(text: str) -> bool:
    if text.strip()[:1] not in ("{", "["):
        return False
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _bracketed(text: str, opening: str, closing: str) -> Iterator[tuple[int, int]]:
    """Yield the outermost parts of the text in such brackets: alternatives, edits, weights."""
    begin, level = 0, 0
    for match in re.finditer(rf"(?<!\\)[{re.escape(opening + closing)}]", text):
        if match[0] == opening:
            begin = begin if level else match.start()
            level += 1
        elif level:
            level -= 1
            if level == 0 and any(letter.isalnum() for letter in text[begin : match.end()]):
                # A variable of dynamic prompts has a $ in front.
                yield begin - (opening == "{" and text[:begin].endswith("$")), match.end()


def _word_around(text: str, start: int, end: int) -> tuple[int, int]:
    """Extend a span to the next spaces."""
    before = len(text[max(0, start - MAX_QUOTED) : start].split(" ")[-1])
    after = len(text[end : end + MAX_QUOTED].split(" ", maxsplit=1)[0])
    return start - before, end + after


def _outermost(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    outer: list[tuple[int, int]] = []
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if not outer or end > outer[-1][1]:
            outer.append((start, end))
    return outer


def _tokenized_texts(prompt: str) -> Iterator[str]:
    """Yield the parts of a prompt that ComfyUI turns into tokens, without the names of embeddings."""
    for part in parse_segments(prompt):
        spans = list(find_embeddings(prompt, part))
        yield unescape(prompt[part.start : spans[0][0] if spans else part.end])
        for start, end in spans:
            word = unescape(prompt[start:end])[len(IDENTIFIER) :].split(maxsplit=1)
            if word:
                rest = END_OF_NAME.search(word[0])
                yield " ".join([word[0][rest.start() :] if rest else "", *word[1:]])


def _embedding_names(prompt: str) -> Iterator[str]:
    for part in parse_segments(prompt):
        for start, end in find_embeddings(prompt, part):
            yield embedding_name(prompt[start:end])


def _list_words(unknown: list[str]) -> str:
    quoted = ", ".join(repr(shorten_text(word)) for word in unknown[:MAX_WARNINGS])
    if len(unknown) <= MAX_WARNINGS:
        return quoted
    return f"{quoted} and {len(unknown) - MAX_WARNINGS} more words"
