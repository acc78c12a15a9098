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
    """Read both prompts, and warn of what ComfyUI or the model does not understand in them. Raises InvalidValue."""
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
    """Return the installed embeddings if a text names one; else none, which saves asking the engine."""
    has_mention = any(MENTION.search(text) for text in texts)
    return EmbeddingFiles(catalog.names("embeddings", 0.0) if has_mention else [])


def read_prompt(text: str, field: str, files: EmbeddingFiles) -> tuple[str, list[str]]:
    """Return the text with each embedding named as ComfyUI finds it, and warnings of text that it reads otherwise.

    `files` are the installed embeddings. Raises InvalidValue for text that would fail the job or draw noise.
    """
    check_depth(text, field)
    named, warnings = _name_embeddings(text, field, files)
    warnings += warn_of_weights(named, field, files) + warn_of_syntax(TAG.sub("", named), field)
    return named, list(dict.fromkeys(warnings))


def _name_embeddings(text: str, field: str, files: EmbeddingFiles) -> tuple[str, list[str]]:
    """Replace the names of embeddings by those that ComfyUI finds; warn of embeddings that it would not look for.

    Raises InvalidValue for an ambiguous name.
    """
    mentions = list(MENTION.finditer(text))
    if len(mentions) > MAX_EMBEDDINGS:
        raise InvalidValue(
            f"{field} names {len(mentions)} embeddings, more than {MAX_EMBEDDINGS}", field=field, hint="name fewer"
        )
    pieces: list[str] = []
    warnings: list[str] = []
    # The end of the text that `pieces` holds.
    copied = 0
    segments = parse_segments(text) if mentions else []
    starts = [segment.start for segment in segments]
    next_starts = [*(mention.start() for mention in mentions[1:]), len(text)]
    for mention, next_start in zip(mentions, next_starts, strict=False):
        begin = mention.start()
        segment = segments[max(0, bisect.bisect_right(starts, begin) - 1)]
        end = min(segment.end, next_start)
        after = text[mention.end() : end]
        if mention.end() > segment.end or not after.strip():
            continue
        needs_space_before = begin > segment.start and not text[begin - 1].isspace()
        # ComfyUI skips spaces in front of the name; but "Word embedding: a study" is ordinary text.
        follows_word = needs_space_before and text[begin - 1].isalnum()
        if after[0].isspace() and (mention[0] != IDENTIFIER or follows_word):
            continue
        written = after.split(maxsplit=1)[0]
        name, length = _find_embedding(written, field, files)
        if name is None:
            is_read_by_engine = mention[0] == IDENTIFIER and not needs_space_before
            if not is_read_by_engine:
                warnings.append(missing_embedding(unescape(written).strip(","), field, files))
            continue
        name_end = end - len(after.lstrip()) + length
        rest = text[name_end:end]
        if LOST_RATIO.match(rest):
            warnings.append(
                f"{field} weights the embedding {name} without parentheses, so the number is read as a word; "
                f"write ({IDENTIFIER}{name}:1.2)"
            )
        # ComfyUI removes commas at the end of a word itself.
        needs_space_after = rest[:1] not in ("", "<", "[") and not rest[0].isspace() and not COMMAS.match(rest)
        pieces += [text[copied:begin], " " * needs_space_before, IDENTIFIER, escape(name), " " * needs_space_after]
        copied = name_end
    return "".join([*pieces, text[copied:]]), warnings


def _find_embedding(written: str, field: str, files: EmbeddingFiles) -> tuple[str | None, int]:
    """Return the name by which ComfyUI finds an embedding, and how many characters of `written` it replaces.

    Returns None if there is no such file. Raises InvalidValue for a name that is ambiguous, or that has another folder
    or extension than an installed file.
    """
    candidates = [(unescape(written[:end]), end) for end in _possible_ends(written)]
    for wanted, end in candidates:
        matches = files.matching(wanted)
        if len(matches) > 1:
            raise ambiguous_name(wanted, matches, field, "embedding")
        if matches:
            return _readable_name(matches[0], files), end
    for wanted, _ in candidates:
        similar = names_with_stem_of(wanted, files.available)[:10]
        if similar:
            raise InvalidValue(
                f"the embedding {wanted!r} does not exist",
                field=field,
                hint=f"use {' or '.join(similar)}",
                value=wanted,
                nearest=similar,
            )
    return None, 0


def _possible_ends(written: str) -> list[int]:
    """Return where a name may end, longest first: where ComfyUI ends it, before commas, and at other punctuation."""
    whole = END_OF_NAME.search(written)
    ends = [whole.start() if whole else len(written)]
    ends.append(len(written[: ends[0]].rstrip(",")))
    word = END_OF_WORD.search(written, 1, ends[0])
    ends += [word.start()] if word else []
    return [end for end in dict.fromkeys(ends) if end > 0]


def _readable_name(file: str, files: EmbeddingFiles) -> str | None:
    """Return the path of a file, or its name alone, if ComfyUI can read it in a prompt, where a space ends a name."""
    names = (file, re.split(r"[/\\]", file)[-1])
    return next((name for name in names if not UNNAMEABLE.search(name) and file in files.loaded_by(name)), None)
