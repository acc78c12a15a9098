"""What a prompt says besides words: `<lora:name:0.8>`, and embeddings by name; and what ComfyUI would read otherwise
than it looks. Pure."""

import bisect
import math
import re
from collections.abc import Iterator, Sequence

from shared.errors import InvalidValue
from shared.metadata.prompt_syntax import (
    END_OF_NAME,
    IDENTIFIER,
    EmbeddingFiles,
    Segment,
    embedding_name,
    escape,
    find_embeddings,
    find_parentheses,
    has_embedding_name,
    parse_segments,
    unescape,
)
from shared.models.lookup import names_with_stem_of, nearest_names
from shared.schema.body import LoraBody
from shared.web.parsing.model_catalog import ModelCatalog, ambiguous
from shared.web.parsing.unsupported_syntax import misread, shortened

LORA = re.compile(r"<lora:([^:<>]+)((?::[^:<>]*)*)>", re.IGNORECASE)
STRONGEST = 10.0
# The engine reads parentheses by recursion, and gives up, with the whole job, at about a thousand.
DEEPEST = 50
# Over this, a number behind a colon is rather a time, a year or a ratio than a weight; and the picture breaks.
HEAVIEST = 3.0
MOST_EMBEDDINGS = 100
MENTION = re.compile(IDENTIFIER, re.IGNORECASE)
# Where a name may end that was not written as the engine reads it.
END_OF_WORD = re.compile(r"[,;:|!?]|\\?[()]|\.+$")
SMILEY = re.compile(r"[:;=8x][-'o^]?$")
LOST_WEIGHT = re.compile(r":\s?-?\d+(?:\.\d+)?\s?$")
LOST_RATIO = re.compile(r":\s?-?\d+(?:\.\d+)?(?![\w.])")
COMMAS = re.compile(r",+(?:\s|$)")
UNNAMEABLE = re.compile(r"[\s<\[]")
# What is left of a weight around a tag.
EMPTIED = re.compile(r"[ \t]*(?::[ \t]*-?[\d.]+[ \t]*)?\)")
ALONE = "write \\( and \\) for parentheses that are words"


def take_loras(prompt: str) -> tuple[str, list[LoraBody]]:
    """The prompt without its LoRA tags, and the LoRAs: `<lora:name>`, `<lora:name:both>` or `<lora:name:clip:model>`.

    The order of two strengths is that of the web UI from which the notation comes. Raises InvalidValue for a strength
    that is no number from -10 to 10.
    """
    loras = []
    for tag in LORA.finditer(prompt):
        strengths = [_strength(text, tag[0]) for text in tag[2].split(":")[1:]]
        if len(strengths) > 2:
            raise InvalidValue(
                f"{tag[0]} has more than two strengths",
                field="prompt",
                hint="write <lora:name:0.8>, or <lora:name:clip:model>",
            )
        loras.append(
            LoraBody(
                lora_name=tag[1].strip(),
                strength_model=strengths[-1] if strengths else 1.0,
                strength_clip=strengths[0] if strengths else None,
            )
        )
    return (_without_tags(prompt), loras) if loras else (prompt, [])


def misplaced_loras(negative_prompt: str) -> list[str]:
    """A warning for each LoRA tag that stands where none counts."""
    found = dict.fromkeys(match[0] for match in LORA.finditer(negative_prompt))
    return [f"negative_prompt has {tag}, which has no effect there: a LoRA belongs into prompt" for tag in found]


def embedding_files(catalog: ModelCatalog, *texts: str) -> EmbeddingFiles:
    """The embeddings that there are now, if any of the texts names one."""
    named = any(MENTION.search(text) for text in texts)
    return EmbeddingFiles(catalog.names("embeddings", 0.0) if named else [])


def read_prompt(text: str, field: str, files: EmbeddingFiles) -> tuple[str, list[str]]:
    """The text as the engine is to get it, with its embeddings named as the engine finds them, and warnings of all
    that it would read otherwise than it looks; `files` are the embeddings that there are.

    Raises InvalidValue for what would end the job, or draw noise.
    """
    _check_depth(text, field)
    found, warnings = _name_embeddings(text, field, files)
    return found, list(dict.fromkeys([*warnings, *heard(found, field, files), *misread(LORA.sub("", found), field)]))


def heard(text: str, field: str, files: EmbeddingFiles) -> list[str]:
    """Warnings of what the engine makes of weights and embeddings in a text. Raises InvalidValue."""
    _check_depth(text, field)
    parts = parse_segments(text)
    warnings = [*_unbalanced(text, field), *_heavy(text, field, parts)]
    for part in parts:
        for start, end in find_embeddings(text, part):
            if not has_embedding_name(text[start:end]):
                raise InvalidValue(
                    f"{field} has {IDENTIFIER!r} with no name behind it, which ends the job in the engine",
                    field=field,
                    hint=f"write {IDENTIFIER}name, or leave the colon out",
                )
            name = embedding_name(text[start:end])
            found = files.loaded_by(name)
            if not found:
                warnings.append(_missing(name, field, files))
            elif len(found) > 1:
                warnings.append(
                    f"{field} names the embedding {name!r}, by which the engine may take any of {', '.join(found)}; "
                    "give them different names"
                )
    return warnings


def _check_depth(text: str, field: str) -> None:
    depth = find_parentheses(text).depth
    if depth > DEEPEST:
        raise InvalidValue(
            f"{field} has {depth} parentheses in each other, more than {DEEPEST}",
            field=field,
            hint=f"write (text:1.3) for a weight, and {ALONE[6:]}",
        )


def _name_embeddings(text: str, field: str, files: EmbeddingFiles) -> tuple[str, list[str]]:
    """The text with each embedding that is here named so that the engine finds it, and warnings of those that it would
    not look for. Raises InvalidValue for a name that may mean several."""
    pieces, warnings, told = [], [], 0
    mentions = list(MENTION.finditer(text))
    if len(mentions) > MOST_EMBEDDINGS:
        raise InvalidValue(
            f"{field} names {len(mentions)} embeddings, more than {MOST_EMBEDDINGS}", field=field, hint="name fewer"
        )
    parts = parse_segments(text) if mentions else []
    starts = [part.start for part in parts]
    ends = [*(mention.start() for mention in mentions[1:]), len(text)]
    for mention, next_one in zip(mentions, ends, strict=False):
        begin = mention.start()
        part = parts[max(0, bisect.bisect_right(starts, begin) - 1)]
        end = min(part.end, next_one)
        after = text[mention.end() : end]
        if mention.end() > part.end or not after.strip():
            continue
        glued = begin > part.start and not text[begin - 1].isspace()
        looked_for = mention[0] == IDENTIFIER and not glued
        # Spaces in front of the name are nothing to the engine; but "Word embedding: a study" is ordinary text.
        if after[0].isspace() and (mention[0] != IDENTIFIER or (glued and text[begin - 1].isalnum())):
            continue
        written = after.split(maxsplit=1)[0]
        name, length = _find(written, field, files)
        if name is None:
            warnings += [] if looked_for else [_missing(unescape(written).strip(","), field, files)]
            continue
        told_to = end - len(after.lstrip()) + length
        rest = text[told_to:end]
        if LOST_RATIO.match(rest):
            warnings.append(
                f"{field} weighs the embedding {name} without parentheses, so the number is read as a word; "
                f"write ({IDENTIFIER}{name}:1.2)"
            )
        # The engine takes commas off by itself, if nothing stands behind them.
        apart = rest[:1] not in ("", "<", "[") and not rest[0].isspace() and not COMMAS.match(rest)
        pieces += [text[told:begin], " " * glued, IDENTIFIER, escape(name), " " * apart]
        told = told_to
    return "".join([*pieces, text[told:]]), warnings


def _find(written: str, field: str, files: EmbeddingFiles) -> tuple[str | None, int]:
    """The name by which the engine finds the embedding that is meant, and how much of what is `written` it takes.

    Raises InvalidValue for a name that may mean several files, or that of one with another folder or extension.
    """
    names = [(unescape(written[:end]), end) for end in _ends(written)]
    for wanted, end in names:
        found = files.matching(wanted)
        if len(found) > 1:
            raise ambiguous(wanted, found, field, "embedding")
        if found:
            return _nameable(found[0], files), end
    for wanted, _ in names:
        alike = names_with_stem_of(wanted, files.available)[:10]
        if alike:
            raise InvalidValue(
                f"the embedding {wanted!r} does not exist",
                field=field,
                hint=f"there is {', '.join(alike)}",
                value=wanted,
                nearest=alike,
            )
    return None, 0


def _ends(written: str) -> list[int]:
    """Where the name may end, the longest first: as the engine reads it, without commas, at what rather ends a word."""
    whole = END_OF_NAME.search(written)
    ends = [whole.start() if whole else len(written)]
    ends.append(len(written[: ends[0]].rstrip(",")))
    word = END_OF_WORD.search(written, 1, ends[0])
    ends += [word.start()] if word else []
    return [end for end in dict.fromkeys(ends) if end > 0]


def _nameable(file: str, files: EmbeddingFiles) -> str | None:
    """The path of an embedding's file, or its name alone, if the engine can read that in a prompt: it ends a name at a
    space."""
    names = (file, re.split(r"[/\\]", file)[-1])
    return next((name for name in names if not UNNAMEABLE.search(name) and file in files.loaded_by(name)), None)


def _missing(name: str, field: str, files: EmbeddingFiles) -> str:
    spaced = [
        file for file in files.available if UNNAMEABLE.search(file) and name and name.casefold() in file.casefold()
    ]
    if spaced:
        return (
            f"{field} names the embedding {name!r}; the engine cannot read the name of {spaced[0]!r} in a prompt, "
            "for a space, < or [ ends it there: rename the file"
        )
    near = nearest_names(name, files.available)
    hint = f"there is {', '.join(near)}" if near else "there is none"
    return f"{field} names the embedding {name!r}, which does not exist, so it does nothing; {hint}"


def _unbalanced(text: str, field: str) -> Iterator[str]:
    """Warnings of parentheses that are no pairs, where that changes what others mean or loses a weight."""
    told = find_parentheses(text)
    for place in told.unclosed[:1]:
        smiley = SMILEY.search(text[max(0, place - 3) : place]) and not text[place + 1 : place + 2].isalnum()
        if not smiley or told.positions[-1] > place:
            yield (
                f"{field} has a ( that is never closed, at {shortened(text[place:])!r}, so weights from there on are "
                f"not read as they look; {ALONE}"
            )
    for place in told.stray[:1]:
        before = text[max(0, place - 30) : place]
        closed = {*told.positions} - {*told.unclosed}
        if any(text[each] == "(" and each > place for each in closed) or LOST_WEIGHT.search(before):
            yield (
                f"{field} has a ) that closes nothing, behind {shortened(before)!r}, so weights around it are not read "
                f"as they look; {ALONE}"
            )


def _heavy(text: str, field: str, parts: Sequence[Segment]) -> Iterator[str]:
    """Warnings of numbers that are hardly meant as weights. Raises InvalidValue for what is no finite number."""
    for part in parts:
        if not part.is_explicit:
            continue
        words = f"({shortened(text[part.start : part.end])}:{part.weight:g})"
        if not math.isfinite(part.weight):
            raise InvalidValue(
                f"{field} has a weight that is no finite number: {words}",
                field=field,
                hint=f"write a number such as 1.2, or {ALONE[6:]}",
            )
        if abs(part.weight) > HEAVIEST:
            yield f"{field} has {words}, where {part.weight:g} is read as a weight, not as words; {ALONE}"


def _without_tags(prompt: str) -> str:
    """The prompt without its tags, without weights that were around them alone, and without doubled commas there."""
    pieces = LORA.split(prompt)
    # Between the pieces stand the tag's two groups.
    text = pieces[0]
    for piece in pieces[3::3]:
        left, right = text.rstrip(" \t"), piece.lstrip(" \t")
        while left.endswith("(") and not left.endswith("\\(") and (emptied := EMPTIED.match(right)):
            left, right = left[:-1].rstrip(" \t"), right[emptied.end() :].lstrip(" \t")
        if right.startswith(",") and (not left or left[-1] in ",("):
            right = right[1:].lstrip(" \t")
        spaced = len(left) < len(text) or len(right) < len(piece)
        text = (
            left
            + (" " if spaced and left and right and left[-1] not in "\n(" and right[0] not in ",:)\n" else "")
            + right
        )
    return text.strip(" ,")


def _strength(text: str, tag: str) -> float:
    try:
        strength = float(text)
    except ValueError:
        strength = float("nan")
    if not -STRONGEST <= strength <= STRONGEST:
        raise InvalidValue(
            f"the strength in {tag} must be a number from -10 to 10, not {text!r}",
            field="prompt",
            hint="write <lora:name:0.8>",
        )
    return strength
