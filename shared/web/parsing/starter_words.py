"""Words that the built-in starter model does not know: they are found, and said. Pure.

It was trained with a hundred words. All others are the same to it, so a prompt that it cannot follow draws something
else, and only a warning tells why. Other models know any word.
"""

from collections.abc import Iterable, Iterator

from shared.metadata.prompt_syntax import (
    END_OF_NAME,
    IDENTIFIER,
    EmbeddingFiles,
    embedding_name,
    find_embeddings,
    parse_segments,
    unescape,
)
from shared.models.defaults import is_starter
from shared.models.detect import ModelFile
from shared.web.parsing.unsupported_syntax import shortened
from starter.tokenizer import words
from starter.vocabulary import VOCABULARY, is_grammar

# Words that a warning names.
MOST = 8
# Kinds of words that a warning lists, each by the first of its synonyms.
KINDS = ("shapes", "colours", "backgrounds", "sizes", "places", "landscapes")
REAL_MODEL = "`python dream_layer.py models add sd15` gets a model that knows more"


def starter_warnings(
    file: ModelFile, prompts: Iterable[str], negative_prompts: Iterable[str], files: EmbeddingFiles
) -> list[str]:
    """One warning if `file` is the starter, or of its kit, and is to draw words that it does not know; else none.

    Of `prompts` each such word counts. A negative prompt counts only if none of its words means anything: what is not
    understood there takes nothing away from the picture. `files` are the embeddings that there are.
    """
    if not is_starter(file):
        return []
    unknown = list(dict.fromkeys(word for prompt in prompts for word in unknown_words(prompt)))
    parts = [f"does not know {_listed(unknown)} of prompt"] if unknown else []
    if any(means_nothing(prompt, files) for prompt in negative_prompts):
        parts.append("knows no word of negative_prompt")
    return [f"{file.name} {' and '.join(parts)}. It knows {vocabulary()}; {REAL_MODEL}"] if parts else []


def unknown_words(prompt: str) -> list[str]:
    """The words of a prompt that mean nothing to the starter, each once; not those that say nothing of a picture."""
    found = (word for text in _texts(prompt) for word, known in words(text) if not known)
    return list(dict.fromkeys(word for word in found if not is_grammar(word)))


def means_nothing(prompt: str, files: EmbeddingFiles) -> bool:
    """Whether there are words in a prompt, and the starter knows none of them."""
    if any(files.loaded_by(name) for name in _embeddings(prompt)):
        return False
    read = [known for text in _texts(prompt) for word, known in words(text) if known or not is_grammar(word)]
    return bool(read) and not any(read)


def vocabulary() -> str:
    """What the starter knows, in a few words."""
    firsts = {kind: [row.split()[0] for row in VOCABULARY[kind]] for kind in KINDS}
    return ", ".join(
        f"{kind} ({', '.join(word for word in words_of_kind if f'{word}s' != kind)})"
        for kind, words_of_kind in firsts.items()
    )


def _texts(prompt: str) -> Iterator[str]:
    """The parts of a prompt that the engine turns into tokens, without the names of embeddings."""
    for part in parse_segments(prompt):
        spans = list(find_embeddings(prompt, part))
        yield unescape(prompt[part.start : spans[0][0] if spans else part.end])
        for start, end in spans:
            word = unescape(prompt[start:end])[len(IDENTIFIER) :].split(maxsplit=1)
            if word:
                rest = END_OF_NAME.search(word[0])
                yield " ".join([word[0][rest.start() :] if rest else "", *word[1:]])


def _embeddings(prompt: str) -> Iterator[str]:
    """The names of embeddings in a prompt."""
    for part in parse_segments(prompt):
        for start, end in find_embeddings(prompt, part):
            yield embedding_name(prompt[start:end])


def _listed(words: list[str]) -> str:
    """Some words in quotation marks, and how many there are besides."""
    named = ", ".join(repr(shortened(word)) for word in words[:MOST])
    return named if len(words) <= MOST else f"{named} and {len(words) - MOST} more words"
