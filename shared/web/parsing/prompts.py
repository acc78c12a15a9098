"""Reads prompts: names embeddings so that ComfyUI finds their files, and takes LoRA tags out. Pure."""

import bisect
import re
from collections.abc import Iterable
from dataclasses import dataclass

from shared.errors import InvalidValue
from shared.metadata.prompt_syntax import END_OF_NAME, IDENTIFIER, EmbeddingFiles, escape, parse_segments, unescape
from shared.models.lookup import names_with_stem_of
from shared.schema.body import GenerationBody, LoraBody
from shared.web.parsing.loras import TAG, take_lora_tags, warn_of_negative_loras
from shared.web.parsing.model_catalog import ModelCatalog, ambiguous_name
from shared.web.parsing.models import ChosenModels
from shared.web.parsing.parser import Parser
from shared.web.parsing.prompt_warnings import (
    UNNAMEABLE,
    check_depth,
    missing_embedding,
    warn_of_syntax,
    warn_of_unknown_words,
    warn_of_weights,
)

MAX_EMBEDDINGS = 100
MENTION = re.compile(IDENTIFIER, re.IGNORECASE)
# Where a name may end that is not written as ComfyUI reads it.
END_OF_WORD = re.compile(r"[,;:|!?]|\\?[()]|\.+$")
LOST_RATIO = re.compile(r":\s?-?\d+(?:\.\d+)?(?![\w.])")
COMMAS = re.compile(r",+(?:\s|$)")


@dataclass(frozen=True)
class ParsedPrompts:
    """The prompts as the engine gets them, and the LoRAs that were tags in `prompt`."""

    prompt: str
    negative_prompt: str
    tagged_loras: list[LoraBody]


def parse_prompts(parser: Parser, body: GenerationBody, models: ChosenModels) -> ParsedPrompts:
    """Reads both prompts, and warns of what ComfyUI or the model does not understand in them. Raises InvalidValue."""
    embeddings = installed_embeddings(parser.catalog, (body.prompt, body.negative_prompt))
    prompt, loras = take_lora_tags(body.prompt)
    prompt, warnings = read_prompt(prompt, "prompt", embeddings)
    parser.warn(*warnings)
    negative_prompt, warnings = read_prompt(body.negative_prompt, "negative_prompt", embeddings)
    parser.warn(*warn_of_negative_loras(negative_prompt), *warnings)
    if parser.custom_graph is None and not models.files.text_encoders:
        parser.warn(*warn_of_unknown_words(models.file, [prompt], [negative_prompt], embeddings))
    return ParsedPrompts(prompt, negative_prompt, loras)


def installed_embeddings(catalog: ModelCatalog, texts: Iterable[str]) -> EmbeddingFiles:
    """Returns the installed embeddings if a text names one; else none, which saves asking the engine."""
    has_mention = any(MENTION.search(text) for text in texts)
    return EmbeddingFiles(catalog.names("embeddings", 0.0) if has_mention else [])


def read_prompt(text: str, field: str, files: EmbeddingFiles) -> tuple[str, list[str]]:
    """Returns the text with each embedding named as ComfyUI finds it, and warnings of text that it reads otherwise.

    `files` are the installed embeddings. Raises InvalidValue for text that would fail the job or draw noise.
    """
    check_depth(text, field)
    named, warnings = _name_embeddings(text, field, files)
    warnings += warn_of_weights(named, field, files) + warn_of_syntax(TAG.sub("", named), field)
    return named, list(dict.fromkeys(warnings))


def _name_embeddings(text: str, field: str, files: EmbeddingFiles) -> tuple[str, list[str]]:
    """The text with each embedding that is here named so that the engine finds it, and warnings of those that it would
    not look for. Raises InvalidValue for a name that may mean several."""
    pieces, warnings, told = [], [], 0
    mentions = list(MENTION.finditer(text))
    if len(mentions) > MAX_EMBEDDINGS:
        raise InvalidValue(
            f"{field} names {len(mentions)} embeddings, more than {MAX_EMBEDDINGS}", field=field, hint="name fewer"
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
            warnings += [] if looked_for else [missing_embedding(unescape(written).strip(","), field, files)]
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
            raise ambiguous_name(wanted, found, field, "embedding")
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
