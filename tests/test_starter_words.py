"""Warnings report the words that the starter model does not know, as the engine's tokenizer splits them."""

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.metadata.prompt_syntax import EmbeddingFiles
from shared.models.defaults import is_starter
from shared.models.detect import STARTER_MARK, ModelFile, TextEncoder, classify
from shared.models.safetensors import SafetensorsHeader
from shared.web.imported_graph_checks import check_starter_words
from shared.web.parsing.generation import parse_img2img, parse_txt2img
from shared.web.parsing.parser import ParsingContext
from shared.web.parsing.prompt_warnings import describe_vocabulary, knows_no_word, unknown_words
from shared.web.request_body import Fields
from starter import CHECKPOINT_NAME, CHECKPOINT_NAMES
from starter.assemble import FINGERPRINT
from starter.tokenizer import LONGEST, is_known, tokens, words
from starter.vocabulary import PIECES, ROWS, TOKEN_IDS, VOCABULARY
from tests.control import Control
from tests.engine_prompts import EnginePrompts
from tests.imported_graphs import default_graph, to_api
from tests.model_library import OWN, ModelLibrary
from tests.parsing import PICTURE, context, read
from workflows.imported_graph import read_graph

FILES = EmbeddingFiles(["dream-layer-ruby.safetensors"])
LOADER = "CheckpointLoaderSimple"
KIT = ModelLibrary(checkpoints=(OWN, *sorted(CHECKPOINT_NAMES)))
# Rows of the embedding table that have no effect on a picture.
SILENT = {0, *(ROWS[TOKEN_IDS[word][0]] for row in (*VOCABULARY["grammar"], ",") for word in row.split())}
# The start and end tokens, which every prompt has.
SILENT |= {ROWS[49406], ROWS[49407]}
LETTERS = st.sampled_from(
    [*"aerdcyn ,.'-_()\\:1s", "\u2019", "\u00e9", "e\u0301", "\u8d64", "\U0001f534", "RED", "blue", "cyan"]
)


def starter_graph(prompt: str, negative_prompt: str) -> dict[str, Any]:
    return default_graph(
        ckpt=(LOADER, {"ckpt_name": CHECKPOINT_NAME}),
        good=("CLIPTextEncode", {"text": prompt, "clip": ["ckpt", 1]}),
        bad=("CLIPTextEncode", {"text": negative_prompt, "clip": ["ckpt", 1]}),
    )


@pytest.fixture(scope="module")
def encoder(engine_source: Path) -> Any:
    """The engine's tokenizer."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(str(engine_source / "comfy" / "sd1_tokenizer"))


def has_effect(encoder: Any, text: str) -> bool:
    """Return whether the engine's tokenizer finds a token that has an effect."""
    return not SILENT.issuperset(ROWS.get(token, 0) for token in encoder(text)["input_ids"])


def warned(model: str | None = CHECKPOINT_NAME, library: ModelLibrary = KIT, **sent: Any) -> list[str]:
    return [warning for warning in read(library, model_name=model, **sent).warnings if "It knows" in warning]


def test_pieces_equal_those_of_the_engine(encoder: Any) -> None:
    for word, pieces in PIECES.items():
        assert tuple(encoder.tokenize(word)) == pieces == tuple(tokens(word))


@pytest.mark.parametrize(
    "word", ["lighthouse", "herselfring", "darkblue", "\u8d64red", "caf\u00e9", "\u043a\u0440\u0443\u0433", "x" * 40]
)
def test_words_are_split_as_in_the_engine(encoder: Any, word: str) -> None:
    assert tokens(word) == encoder.tokenize(word)


def test_every_word_of_the_engines_vocabulary_is_known_if_it_has_an_effect(encoder: Any) -> None:
    whole = [token.removesuffix("</w>") for token in encoder.get_vocab() if token.endswith("</w>")]
    letters = [word for word in whole if word.isascii() and word.isalpha() and word.islower()]
    assert len(letters) > 30_000
    is_known_by_word = dict(words(" ".join(letters)))
    assert is_known_by_word.keys() == {*letters}
    known = [word for word in letters if is_known_by_word[word]]
    assert all(has_effect(encoder, word) for word in known)
    rest = random.Random(0).sample([word for word in letters if not is_known_by_word[word]], 3000)
    assert not any(has_effect(encoder, word) for word in rest)


def test_words_without_spaces_are_known_if_they_have_an_effect(encoder: Any) -> None:
    source, known = random.Random(1), sorted(TOKEN_IDS)
    others = [token.removesuffix("</w>") for token in encoder.get_vocab() if token.endswith("</w>") and token.isascii()]
    for _ in range(1000):
        pair = [source.choice(known), source.choice(others)]
        source.shuffle(pair)
        # Texts are lower-cased before they are split into words.
        word = "".join(pair).lower()
        if word.isalpha():
            assert is_known(word) == has_effect(encoder, word), word


@settings(max_examples=300, deadline=None)
@given(st.lists(LETTERS, max_size=30).map("".join))
@example("'red circle'")
@example("''red")
@example("red_circle/blue-square")
@example("don't, it's, red's")
@example("RED\u00a0CIRCLE\u200bstar")
@example("<|endoftext|>red")
def test_a_text_has_known_words_if_it_has_an_effect(encoder: Any, text: str) -> None:
    assert any(known for _, known in words(text)) == has_effect(encoder, text)


@settings(max_examples=200, deadline=None)
@given(st.lists(LETTERS, max_size=30).map("".join))
@example("(re)d")
@example("(red:1.2), \\(circle\\)")
@example("((((red))))")
def test_weights_are_removed_as_in_the_engine(encoder: Any, engine_prompts: EnginePrompts, text: str) -> None:
    parts = [part for part, _ in engine_prompts.segments(text)]
    assert knows_no_word(text, FILES) <= (not any(has_effect(encoder, part) for part in parts))
    if any(has_effect(encoder, part) for part in parts):
        assert not knows_no_word(text, FILES)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red circle on a blue background", []),
        ("RED Circle, on the Left of: a BLUE square!!! (star:1.3) [ring] {heart}", []),
        ("an orange-and-pink_triangle; plain/solid. -- 'a' \u201cdisc\u201d \u2026", []),
        ("please draw me a picture of a golden star", []),
        ("a lighthouse in a STORM, a Lighthouse", ["lighthouse", "storm"]),
        ("red circles and two blue hearts", ["circles", "two", "hearts"]),
        ("ein roter Kreis", ["ein", "roter", "kreis"]),
        (
            "\u043a\u0440\u0430\u0441\u043d\u044b\u0439 \u043a\u0440\u0443\u0433",
            ["\u043a\u0440\u0430\u0441\u043d\u044b\u0439", "\u043a\u0440\u0443\u0433"],
        ),
        ("\u8d64\u3044\u4e38\u3001\u9752", ["\u8d64\u3044\u4e38", "\u9752"]),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", ["\u0939\u093f\u0928\u094d\u0926\u0940"]),
        (
            "\U0001f534 \U0001f468\u200d\U0001f469\u200d\U0001f467 on blue \u2665",
            ["\U0001f534", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u2665"],
        ),
        ("8k, red, 50%", ["8k", "50"]),
        # The engine's tokenizer splits off 're.
        ("'red circle'", ["'red"]),
        ("it\u2019s red", []),
        ("(masterpiece:1.2), (red:0.8)", ["masterpiece"]),
        # A weight splits a word.
        ("(re)d", ["re", "d"]),
        ("embedding:dream-layer-ruby on white", []),
        ("(embedding:dream-layer-ruby:1.2) house, dog", ["dog"]),
        ("", []),
        ("123 !!! ???", ["123"]),
    ],
)
def test_unknown_words_are_listed(prompt: str, expected: list[str]) -> None:
    assert unknown_words(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", False),
        ("the, of ...", False),
        ("red", False),
        ("blurry, ugly, red", False),
        ("blurry, low quality", True),
        ("embedding:dream-layer-ruby, blurry", False),
        ("embedding:elsewhere, blurry", True),
    ],
)
def test_a_negative_prompt_without_effect_is_detected(prompt: str, expected: bool) -> None:
    assert knows_no_word(prompt, FILES) == expected


@pytest.mark.parametrize("name", sorted(CHECKPOINT_NAMES))
def test_every_checkpoint_of_the_kit_warns_once(name: str) -> None:
    (warning,) = warned(name, prompt="a dragon, a DRAGON, a wizard", negative_prompt="blurry, text", batch_size=3)
    assert warning.startswith(f"{name} does not know 'dragon', 'wizard' of prompt and knows no word of negative_prompt")
    assert describe_vocabulary() in warning
    assert "python dream_layer.py models add sd15" in warning


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (
            default_graph(ckpt=(LOADER, {"ckpt_name": CHECKPOINT_NAME})),
            ["'old' of prompt and knows no word of negative_prompt"],
        ),
        (starter_graph("a red circle", "blurry"), ["knows no word of negative_prompt"]),
        (starter_graph("a red lighthouse", "blue, blurry"), ["does not know 'lighthouse' of prompt."]),
        (starter_graph("a red circle", "blue, blurry"), []),
        (default_graph(ckpt=(LOADER, {"ckpt_name": OWN})), []),
        ({**starter_graph("a cat", ""), **to_api({"other": (LOADER, {"ckpt_name": OWN})})}, []),
        ({**starter_graph("a cat", ""), **to_api({"clip": ("CLIPLoader", {"clip_name": "l.safetensors"})})}, []),
        (to_api({"save": ("SaveImage", {"images": "x"})}), []),
    ],
)
def test_custom_graphs_warn_too(control: Control, graph: dict[str, Any], expected: list[str]) -> None:
    warnings = check_starter_words(control.backend, read_graph(graph, "custom_workflow"))
    assert len(warnings) == len(expected)
    assert all(part in warning for part, warning in zip(expected, warnings, strict=True))


def test_many_words_are_counted() -> None:
    (warning,) = warned(prompt=" ".join(f"word{letter}" for letter in "abcdefghijkl"))
    assert "'wordh' and 4 more words of prompt" in warning


def test_img2img_warns_too() -> None:
    parsed = parse_img2img(Fields({"prompt": "a cat", "model_name": CHECKPOINT_NAME}, {"image": PICTURE}), context(KIT))
    assert any("does not know 'cat' of prompt" in warning for warning in parsed.warnings)


def test_the_default_model_warns_if_it_is_the_starter() -> None:
    fields = Fields({"prompt": "a cat"}, {})
    for preferred, expected in ((None, OWN), (CHECKPOINT_NAME, CHECKPOINT_NAME)):
        parsed = parse_txt2img(fields, ParsingContext(preferred, KIT, {}.get))
        assert parsed.parameters["model_name"] == expected
        assert any("It knows" in warning for warning in parsed.warnings) == (expected != OWN)


def test_the_described_vocabulary_is_known() -> None:
    assert unknown_words(describe_vocabulary().replace("(", " ").replace(")", " ")) == [
        *("shapes", "colours", "backgrounds", "sizes", "places", "landscapes")
    ]


def test_lora_tags_are_not_words() -> None:
    assert warned(prompt="red circle <lora:glow:0.5>") == []


def test_other_models_and_text_encoders_do_not_warn() -> None:
    assert warned(OWN, prompt="a cat") == []
    assert warned(prompt="a cat", text_encoders=["l.safetensors"]) == []


def test_the_kit_is_recognized_by_its_header_or_its_name() -> None:
    assert STARTER_MARK == FINGERPRINT
    assert is_starter(classify("copy.safetensors", SafetensorsHeader({}, {FINGERPRINT: "0" * 64})))
    assert is_starter(ModelFile(f"mine/{CHECKPOINT_NAME}"))
    assert is_starter(ModelFile(f"mine\\{CHECKPOINT_NAME}"))
    assert not is_starter(ModelFile("dreamshaper.safetensors", text_encoder=TextEncoder.CLIP_L))


@pytest.mark.parametrize(
    "text",
    [
        "'" * 20_000,
        "red" * 7000,
        f"{'x' * (LONGEST - 3)}red " * 300,
        "\U0001f534\u200d" * 10_000,
        "(" * 50 + "a" * 19_000,
    ],
)
def test_long_texts_are_read_quickly(text: str) -> None:
    for _ in words(text[:20_000]):
        pass
    assert isinstance(unknown_words(text[:20_000]), list)
