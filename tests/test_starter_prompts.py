"""Prompts suggested for the starter model contain only words that it knows."""

import random

import pytest

from shared.errors import EngineUnavailable
from shared.models.detect import ModelFile
from shared.web.parsing.prompt_warnings import unknown_words
from shared.web.routes.prompts import KINDS, UNWANTED, Kind, suggest, suggest_for_starter
from starter import CHECKPOINT_NAME, INPAINTING_NAME, PASTEL_NAME
from starter.tokenizer import words
from starter.vocabulary import VOCABULARY, is_grammar, synonyms
from tests.control import Control, body

OWN = "dreamshaper.safetensors"


@pytest.mark.parametrize("kind", KINDS)
def test_every_word_of_a_suggestion_is_known(kind: Kind) -> None:
    prompts = [suggest_for_starter(kind, random.Random(seed)) for seed in range(500)]
    assert len(set(prompts)) > (400 if kind == "positive" else 30)
    assert suggest_for_starter(kind, random.Random(7)) == prompts[7]
    for prompt in prompts:
        assert [word for word, known in words(prompt) if not known and not _is_own_grammar(word)] == [], prompt


def _is_own_grammar(word: str) -> bool:
    return is_grammar(word) and bool(synonyms(word))


def test_suggestions_cover_the_vocabulary() -> None:
    suggested = " ".join(suggest_for_starter("positive", random.Random(seed)) for seed in range(1000)).split()
    for kind in ("shapes", "colours", "sizes", "places"):
        assert {row.split()[0] for row in VOCABULARY[kind]} <= {*suggested}


def test_no_suggestion_contains_an_unwanted_word() -> None:
    suggested = {word for seed in range(1000) for word in suggest_for_starter("positive", random.Random(seed)).split()}
    assert suggested.isdisjoint(UNWANTED)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("files", "preferred", "known"),
    [
        ([CHECKPOINT_NAME], None, True),
        ([INPAINTING_NAME, PASTEL_NAME, CHECKPOINT_NAME], None, True),
        ([PASTEL_NAME], None, True),
        ([OWN, CHECKPOINT_NAME], None, False),
        ([OWN, CHECKPOINT_NAME], CHECKPOINT_NAME, True),
        ([OWN, CHECKPOINT_NAME], "dream-layer-starter", True),
        ([OWN, CHECKPOINT_NAME], "dreamshaper", False),
        ([CHECKPOINT_NAME], "gone", False),
        (["copy.safetensors", CHECKPOINT_NAME], None, True),
        ([], None, False),
    ],
)
def test_suggestions_depend_on_the_default_model(
    control: Control, kind: Kind, files: list[str], preferred: str | None, known: bool
) -> None:
    control.files["checkpoints"] = files
    control.known["copy.safetensors"] = ModelFile("copy.safetensors", known=True, starter=True)
    control.backend.settings = control.backend.settings.model_copy(update={"checkpoint": preferred})
    prompt = body(control.client.get(f"/api/fetch-prompt?type={kind}&seed=7"))["prompt"]
    assert prompt == (suggest_for_starter if known else suggest)(kind, random.Random("7"))
    assert (unknown_words(prompt) == []) == known


def test_prompts_are_suggested_without_an_engine(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    def names(_folder: str, _age: float = 1.0) -> list[str]:
        raise EngineUnavailable("the engine does not answer")

    monkeypatch.setattr(control.backend.catalog, "names", names)
    assert body(control.client.get("/api/fetch-prompt?type=positive&seed=7"))["prompt"] == suggest(
        "positive", random.Random("7")
    )
