"""The parser of prompts, compared with the engine's own code."""

import contextlib
import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.errors import InvalidValue
from shared.metadata.prompt_syntax import (
    EmbeddingFiles,
    embedding_name,
    find_embeddings,
    find_parentheses,
    parse_segments,
    unescape,
)
from shared.web.parsing.loras import take_lora_tags
from shared.web.parsing.prompts import read_prompt
from tests.engine_prompts import Embedding, EnginePrompts

QUICK = settings(max_examples=600, deadline=None, derandomize=True)
PIECES = st.sampled_from(
    [
        *"()()[]{}<>:,.\\ \n",
        "\\(",
        "\\)",
        "(a:1.2)",
        ":1.2",
        ":-0.5)",
        ":nan)",
        ": 1e3 )",
        "((",
        "))",
        "a",
        "red b",
        "é",
        "圓",
    ]
)
TEXTS = st.lists(PIECES, max_size=25).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\1\2"), max_size=60
)


@QUICK
@given(prompt=TEXTS)
@example(prompt="(a (b:1.2, c (d:1.3)")
@example(prompt="a) (b:1.5) (c:1.5)")
@example(prompt="((a:0.5) b \\(c:2\\):0.7)")
@example(prompt="(movie: Infinity) (:1.2) ()")
def test_weights_match_those_of_the_engine(engine_prompts: EnginePrompts, prompt: str) -> None:
    segments = [(unescape(prompt[part.start : part.end]), part.weight) for part in parse_segments(prompt)]
    assert repr(segments) == repr(engine_prompts.segments(prompt))


@pytest.mark.slow
@QUICK
@given(prompt=TEXTS)
def test_balanced_parentheses_nest_segments_no_deeper(prompt: str) -> None:
    parentheses = find_parentheses(prompt)
    if not parentheses.unclosed and not parentheses.stray:
        assert max((part.depth for part in parse_segments(prompt)), default=0) <= parentheses.depth


FILES = ("ruby.pt", "a/ink.safetensors", "b/ink.pt", "EasyNegative.safetensors", "a,b.pt", "jade (v2).pt", "my moss.pt")
NAMES = st.sampled_from(
    [
        *("ruby", "RUBY.pt", "ruby.pt", "a/ink", "b\\ink.pt", "easynegative", "a,b", "jade", "moss", "none such", ""),
        *("ruby,", ",ruby", "ruby:1.2", "ruby,x", "ruby<x>", "ruby[0]", "ruby\\(x\\)", "jade \\(v2\\)", "ruby."),
    ]
)
MENTIONS = st.tuples(
    st.sampled_from(["", " ", "(", "(x ", "x", ", ", "\n", ") ", "\\("]),
    st.sampled_from(["embedding:", "Embedding:", "embedding: "]),
    NAMES,
    st.sampled_from(["", " ", ")", ":1.3)", ", y", "\n", " (y:0.5)", "\\) z"]),
).map("".join)


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embeddings")
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return folder


@QUICK
@given(prompt=st.lists(MENTIONS | PIECES, max_size=6).map("".join))
@example(prompt="embedding:ruby:1.2, (Embedding:easynegative:1.2)")
@example(prompt="a cat,embedding:a,b, embedding:ruby,x")
@example(prompt="embedding:jade")
def test_embeddings_are_those_that_the_engine_finds(
    engine_prompts: EnginePrompts, embeddings: Path, prompt: str
) -> None:
    results: list[tuple[str, list[str]]] = []
    # Ambiguous names, prompts that would fail the job, and weights that draw noise are refused.
    with contextlib.suppress(InvalidValue):
        results.append(read_prompt(prompt, "prompt", EmbeddingFiles(FILES)))
    if not results:
        return
    text, warnings = results[0]
    tokens = [token for token, _ in engine_prompts.words(text, embeddings)]
    names = [
        embedding_name(text[start:end]) for part in parse_segments(text) for start, end in find_embeddings(text, part)
    ]
    files = [file for name in names for file in EmbeddingFiles(FILES).loaded_by(name)[:1]]
    loaded = [Path(token.file) for token in tokens if isinstance(token, Embedding)]
    assert [path.relative_to(embeddings).as_posix() for path in loaded] == files
    # A warning names each embedding that the engine does not find.
    for name in names:
        assert EmbeddingFiles(FILES).loaded_by(name) or any(repr(name) in warning for warning in warnings)
    words = " ".join(token for token in tokens if isinstance(token, str))
    missed = re.search(r"embedding:\S", words, re.IGNORECASE)
    assert missed is None or "does not exist" in str(warnings) or "cannot read the name" in str(warnings)


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("a cat,embedding:RUBY, b", "a cat, embedding:ruby.pt, b"),
        ("(Embedding:easynegative:1.2)", "(embedding:EasyNegative.safetensors:1.2)"),
        ("x embedding:ruby,y", "x embedding:ruby.pt ,y"),
        ("x embedding:a\\ink y", "x embedding:a/ink.safetensors y"),
        ("x embedding:jade", "x embedding:jade"),
    ],
)
def test_embeddings_are_written_for_the_engine(prompt: str, text: str) -> None:
    assert read_prompt(prompt, "prompt", EmbeddingFiles(FILES))[0] == text


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("x embedding:ink", "'ink' is ambiguous: it may be a/ink.safetensors or b/ink.pt"),
        ("x embedding:c/ink", "'c/ink' does not exist"),
        ("x embedding:ruby.safetensors", "'ruby.safetensors' does not exist"),
        ("x embedding:", "without a name"),
        ("x (embedding:) y", "without a name"),
        ("embedding: embedding:ruby", "without a name"),
        ("(movie: Infinity)", "not a finite number"),
        ("(grandmother:nan)", "not a finite number"),
        (f"{'(' * 51}x{')' * 51}", "nests 51 parentheses"),
        ("<lora:ink:1:1:1>", "more than two strengths"),
    ],
)
def test_prompts_that_would_fail_or_be_misread_are_refused(prompt: str, message: str) -> None:
    with pytest.raises(InvalidValue, match=re.escape(message)) as error:
        read_prompt(take_lora_tags(prompt)[0], "prompt", EmbeddingFiles(FILES))
    assert error.value.field == "prompt"


def test_the_engine_fails_on_prompts_that_are_refused(engine_prompts: EnginePrompts, embeddings: Path) -> None:
    for prompt in ("x embedding:", "x (embedding:) y", "embedding: embedding:ruby"):
        with pytest.raises(IndexError):
            engine_prompts.words(prompt, embeddings)
    with pytest.raises(RecursionError):
        engine_prompts.segments(f"{'(' * 2000}x{')' * 2000}")


def warnings_of(prompt: str) -> list[str]:
    return read_prompt(prompt, "prompt", EmbeddingFiles(FILES))[1]


@pytest.mark.parametrize(
    ("prompt", "part"),
    [
        ("a (red:1.2 circle", "( that is never closed, at '(red:1.2 circle'"),
        ("a (red (blue:1.3) circle", "( that is never closed"),
        ("sad :( (red:1.2)", "( that is never closed"),
        ("1) a (red:1.2) circle", ") that closes nothing, after '1'"),
        ("a red:1.2) circle", ") that closes nothing"),
        ("(Blade Runner:2049)", "2049 is read as a weight"),
        ("(at 5:30) a cat", "30 is read as a weight"),
        ("(16:9)", "9 is read as a weight"),
        ("x embedding:ruby:1.2", "without parentheses"),
        ("x embedding:my moss", "'my moss.pt'"),
        ("a text embedding: study of words", "'study', which does not exist"),
    ],
)
def test_misleading_syntax_is_a_warning(prompt: str, part: str) -> None:
    assert any(part in warning for warning in warnings_of(prompt)), warnings_of(prompt)


def test_an_embedding_name_that_matches_two_files_is_a_warning() -> None:
    text, warnings = read_prompt("embedding:ruby", "prompt", EmbeddingFiles(["ruby.pt", "b/ruby.pt"]))
    assert text == "embedding:ruby.pt"
    assert warnings == [
        "prompt names the embedding 'ruby.pt', for which the engine may load any of ruby.pt, b/ruby.pt; give them "
        "different names"
    ]


@pytest.mark.parametrize(
    ("prompt", "rest"),
    [
        ("a cat, <lora:ink:0.8>, b", "a cat, b"),
        ("a cat, (<lora:ink:0.8>:1.2), b", "a cat, b"),
        ("((<lora:ink:0.8>)) b", "b"),
        ("(a <lora:ink:0.8>:1.2) b", "(a:1.2) b"),
        ("a  ,, b\n<lora:ink:1>\nc", "a  ,, b\n\nc"),
        ("<lora:ink:1>", ""),
        ("a<lora:ink:1>b", "ab"),
        ("\\(<lora:ink:1>\\) b", "\\(\\) b"),
    ],
)
def test_lora_tags_are_removed_without_a_trace(prompt: str, rest: str) -> None:
    assert take_lora_tags(prompt)[0] == rest


@pytest.mark.parametrize(
    "notation",
    [
        # Dynamic prompts, and ComfyUI's own page.
        *("{red|blue}", "{2$$red|blue|green}", "{0.5::red|blue}", "${colour}", "${c=!{red|blue}}", "__colour__"),
        *("__animals/cats__", "__colour*__", "__my_colours__", "{a|{b|c}}", "{2$$ and $$a|b}"),
        # AUTOMATIC1111 and its forks.
        *("[red|blue]", "[red:blue:0.5]", "[red:0.5]", "[red::0.5]", "[red:blue:10]", "[red]", "[[red]]", "BREAK"),
        *("<hypernet:ink:1>", "<lyco:ink:1>", "<lora:ink:0.8", "[red:blue:.5]", "AND", "AND_PERP", "ADDCOL", "ADDBASE"),
        # Novel AI.
        *("{{red}}", "{red}", "1.5::red::", "-1::red::"),
        # SwarmUI, and diffusers.
        *("<random:red,blue>", "<wildcard:colour>", "<segment:face>", "<fromto[0.5]:red,blue>", "<repeat:3,red>"),
        *("<alternate:red,blue>", "<object:0,0,1,1:red>", "<preset:mine>", "<var:x>", "<break>", "<cat-toy>"),
        # Midjourney.
        *(
            "hot::2",
            "hot:: dog",
            "--ar 16:9",
            "--no red",
            "--v 6.1",
            "--niji 6",
            "--stylize 250",
            "\u2014ar 3:2",
            "--tile",
        ),
        # Compel, prompt control, comments, malformed weights.
        *("(red)++", "(red)-", "circle++", "STYLE(comfy)", "MASK(0 0.5, 0 1)", "AREA(0 0.5)", "// a remark"),
        *("/* a remark */", "(red):1.2", "(red:1,2)", "\uff08red:1.2\uff09", "\\[red\\]", "\\{red\\}"),
    ],
)
def test_notations_of_other_programs_are_a_warning(notation: str) -> None:
    for prompt in (f"a cat, {notation} a dog on grass", f"a cat\n{notation} x"):
        warnings = warnings_of(prompt)
        core = notation.split()[0].strip("[]{}\\()<>")[:6]
        assert any(core in warning and "read as words" in warning for warning in warnings), (prompt, warnings)


@pytest.mark.parametrize(
    "prompt", ["# a remark\na cat", "a cat\n# a remark", "a cat\n#remark of mine", "[red]", "{red|blue}"]
)
def test_notations_on_their_own_line_are_a_warning(prompt: str) -> None:
    assert len(warnings_of(prompt)) == 1


@pytest.mark.parametrize(
    "prompt",
    [
        "a red circle on a blue background",
        "masterpiece, (best quality:1.2), ((detailed)), \\(artist name\\), 1girl",
        "portrait of a woman, 50mm f/1.4, 8k, Canon 5D | cinematic | photo",
        'a poster that says "Rock & Roll: 50% off!", $5, it\'s fine; a/b, 3/4',
        "happy :) and sad :(",
        "a) a cat b) a dog",
        "Salt & pepper -- a still life -- well-lit, mid-century, e.g. 1950s...",
        "A CAT AND A DOG, BREAK OF DAWN",
        "#portrait #photography, number 1",
        "#1 dad mug",
        "a clock at 12:30, ratio 16:9, John 3:16, score_9, score_8_up, rating:safe",
        "https://example.com/a//b?x=1&y=2 <3 x < y > z 1<2",
        "5'10\" tall, 100%, ~20, ^_^, @home, *star*, C++ code on a screen, std::vector",
        "snake_case_name, __, ____, a_b, _underlined_",
        "a \u2014 b \u2013 c, na\u00efve caf\u00e9, \u5713 AND\u65b9, \uff08\u7b11\uff09",
        '{"subject": "a cat", "colours": ["red", "blue"], "size": [1, 2]}',
        "artist: someone, style: (oil painting), (a: b), (time:), C:\\pictures\\cats",
        "chapter 2: the (very) long, (long) road; f(x)=x^2, sin(x)+cos(x)",
        "",
    ],
)
def test_ordinary_text_has_no_warning(prompt: str) -> None:
    assert warnings_of(prompt) == []


def test_warnings_of_many_notations_are_limited() -> None:
    warnings = warnings_of(", ".join(f"[word{number}]" for number in range(30)))
    assert len(warnings) == 9
    assert "22 more" in warnings[-1]
    assert all(len(warning) < 200 for warning in warnings_of(f"[{'x' * 5000}]"))


@pytest.mark.slow
def test_a_long_prompt_is_read_in_linear_time() -> None:
    def seconds(text: str) -> float:
        """Return the CPU time of this process, the lower of two measurements."""
        measured = []
        for _ in range(2):
            start = time.process_time()
            with contextlib.suppress(InvalidValue):
                read_prompt(take_lora_tags(text)[0], "prompt", EmbeddingFiles(FILES))
            measured.append(time.process_time() - start)
        return min(measured)

    pieces = [
        "(",
        ")",
        "()",
        "[",
        "{a|",
        "<",
        "<a",
        "<lora:",
        "__a",
        "/*",
        "//",
        "# ",
        ":",
        "::",
        "1",
        "--ar ",
        " ",
        "\\(",
    ]
    pieces += [
        "embedding:",
        " embedding:x",
        "(a:1)",
        "((a))",
        "\uff08",
        " AND",
        "\n",
        "a ",
        "<lora:a:1>,",
        "\n ",
        "(a:1,",
    ]
    for piece in pieces:
        # Eight times the text takes about 8 times as long, not 64. The clock does not resolve shorter times.
        text = piece * (16_000 // len(piece))
        assert seconds(text) < 30 * max(seconds(text[:2_000]), 0.005), piece
