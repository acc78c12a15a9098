"""Prompt ideas: GET /api/fetch-prompt combines phrases at random."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, get_args

from flask import Blueprint, Response, jsonify, request

from shared.errors import EngineUnavailable, InvalidValue
from shared.schema.choices import find_choice
from shared.schema.control_replies import PromptReply
from shared.web.backend import Backend, current_backend
from shared.web.openapi.operation import Example, ParameterSpec, ReplySpec, describe
from shared.web.parsing.models import is_starter_default
from shared.web.request_body import check_arguments
from starter.vocabulary import VOCABULARY

Kind = Literal["positive", "negative"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Subjects and the places that suit them.
SCENES: tuple[tuple[Sequence[str], Sequence[str]], ...] = (
    (
        (
            "a lighthouse on a basalt cliff",
            "a fishing boat with red sails",
            "an abandoned pier",
            "a stone harbour with small boats",
        ),
        (
            "above a calm sea",
            "in a rising storm",
            "half hidden in fog",
            "with gulls circling overhead",
            "in the last light of the day",
        ),
    ),
    (
        (
            "a fox with a white tail tip",
            "an old stag",
            "a barn owl on a mossy branch",
            "a narrow path between birches",
            "a wooden cabin with lit windows",
        ),
        (
            "in a snowy forest",
            "among autumn leaves",
            "in a clearing at dawn",
            "under the first stars",
            "in light summer rain",
        ),
    ),
    (
        (
            "a corner café",
            "a flower seller with a green bicycle",
            "a tram on a steep street",
            "a bookshop with a striped awning",
            "a street musician with a cello",
        ),
        (
            "on a wet evening, neon in the puddles",
            "in the long shadows of the morning",
            "on the day of a street market",
            "beneath strings of paper lanterns",
        ),
    ),
    (
        (
            "an elderly clockmaker",
            "a young woman with freckles and a wool scarf",
            "a violinist before the concert",
            "a baker dusted with flour",
            "a diver with a copper helmet",
        ),
        (
            "by a window with linen curtains",
            "in a workshop full of brass tools",
            "against a plain dark background",
            "looking past the viewer",
        ),
    ),
    (
        (
            "a bowl of figs and pomegranates",
            "a chipped teapot with a blue glaze",
            "three pears on a folded cloth",
            "a jar of wild flowers",
        ),
        (
            "on a worn oak table",
            "in the light of a single candle",
            "beside an open notebook",
            "before a wall of faded plaster",
        ),
    ),
    (
        (
            "a walled city on the back of a giant turtle",
            "a library carved into a glacier",
            "an airship moored to a subscription tower",
            "a garden that floats above the clouds",
            "a greenhouse on the moon",
        ),
        (
            "seen from far away",
            "with tiny figures for scale",
            "under two pale moons",
            "as the morning mist lifts",
            "overgrown with luminous ivy",
        ),
    ),
    (
        (
            "a mountain lake",
            "terraced rice fields",
            "a desert of red dunes",
            "a valley with a winding river",
            "a field of lavender and one lone tree",
        ),
        (
            "under towering clouds",
            "at blue hour",
            "after the rain, a faint rainbow",
            "beneath the Milky Way",
            "in clear winter light",
        ),
    ),
)
STYLES: tuple[Sequence[str], ...] = (
    ("35mm photograph", "shallow depth of field", "natural colours"),
    ("medium format photograph", "fine grain", "soft contrast"),
    ("oil painting", "visible brushwork", "warm earth tones"),
    ("watercolour on rough paper", "loose washes", "plenty of white space"),
    ("gouache illustration", "flat shapes", "limited palette"),
    ("woodblock print", "bold outlines", "three colours"),
    ("ink and wash drawing", "delicate lines", "muted tones"),
    ("pastel drawing", "soft edges", "gentle colours"),
    ("cinematic still", "anamorphic lens", "teal and amber"),
    ("storybook illustration", "rich detail", "cosy mood"),
)
LIGHT = (
    "soft morning light",
    "golden hour",
    "overcast light",
    "dramatic side light",
    "light through leaves",
    "candlelight",
    "moonlight",
    "backlit",
)
FRAMING = ("wide shot", "low angle", "close view", "symmetrical composition", "rule of thirds", "seen from above")

FLAWS = (
    ("blurry", "out of focus"),
    ("low resolution", "pixelated"),
    ("jpeg artifacts", "compression noise"),
    ("overexposed", "washed out"),
    ("oversaturated", "garish colours"),
    ("watermark", "signature"),
    ("text", "caption"),
    ("cropped", "cut off"),
    ("cluttered background", "distracting objects"),
)
ANATOMY = ("deformed hands", "extra fingers", "extra limbs", "distorted face", "crossed eyes", "bad proportions")


def suggest(kind: Kind, source: random.Random) -> str:
    """Make a prompt of this kind. The same state of `source` gives the same prompt."""
    return _negative(source) if kind == "negative" else _positive(source)


def _positive(source: random.Random) -> str:
    subjects, places = source.choice(SCENES)
    parts = [f"{source.choice(subjects)} {source.choice(places)}"]
    if "light" not in parts[0] and source.random() < 0.8:
        parts.append(source.choice(LIGHT))
    if source.random() < 0.5:
        parts.append(source.choice(FRAMING))
    medium, *touches = source.choice(STYLES)
    parts += [medium, *source.sample(touches, source.randint(1, len(touches)))]
    return ", ".join(parts)


def _negative(source: random.Random) -> str:
    flaws = [source.choice(pair) for pair in source.sample(FLAWS, source.randint(4, 6))]
    return ", ".join([*flaws, *source.sample(ANATOMY, source.randint(2, 3))])


def _first_words(kind: str) -> list[str]:
    """The first word of each row of the starter model's vocabulary."""
    return [row.split()[0] for row in VOCABULARY[kind]]


COLOURS = _first_words("colours")
SHAPES = _first_words("shapes")
SIZES = _first_words("sizes")
PLACES = {"left": "on the", "right": "on the", "top": "at the", "bottom": "at the", "center": "in the"}
RELATIONS = ("left of", "right of", "above", "below", "next to")
GROUNDS = (
    *("a hill", "a sea", "a field", "a house on a hill", "a tree on a hill", "a house in a field", "a tree in a field"),
)
TIMES = ("in the day with the sun", "at sunset with the sun", "at night with the moon", "at night", "at sunset")
# Words that no positive prompt has, for the two are requested separately.
UNWANTED = ("striped", "dotted", "checkered", "stripes", "dots", "spotted")


def suggest_for_starter(kind: Kind, source: random.Random) -> str:
    """Make a prompt of this kind from words that the starter model knows."""
    if kind == "negative":
        return ", ".join(source.sample(UNWANTED, source.randint(2, 3)))
    roll = source.random()
    if roll < 0.15:
        return f"{source.choice(GROUNDS)} {source.choice(TIMES)}"
    return _two_shapes(source) if roll < 0.35 else _one_shape(source)


def _one_shape(source: random.Random) -> str:
    behind, colour, second = source.sample(COLOURS, 3)
    size = f"{source.choice(SIZES)} " if source.random() < 0.4 else ""
    place = source.choice(list(PLACES)) if source.random() < 0.3 else ""
    subject = f"{_article(size or colour)} {size}{colour} {source.choice(SHAPES)}"
    if place:
        subject += f" {PLACES[place]} {place}"
    if source.random() < 0.15:
        return f"{subject} on {_article(behind)} {behind} to {second} gradient background"
    return f"{subject} on {_article(behind)} {behind} background"


def _two_shapes(source: random.Random) -> str:
    behind, *colours = source.sample(COLOURS, 3)
    first, second = (f"{_article(colour)} {colour} {source.choice(SHAPES)}" for colour in colours)
    return f"{first} {source.choice(RELATIONS)} {second} on {_article(behind)} {behind} background"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


prompt_routes = Blueprint("prompts", __name__)


@prompt_routes.get("/api/fetch-prompt")
@describe(
    "Web page",
    ReplySpec("the prompt", PromptReply),
    examples=(Example("A negative prompt", query={"type": "negative", "seed": "7"}),),
    parameters=(
        ParameterSpec(
            "type", "query", "the kind of prompt; default: positive", {"type": "string", "enum": list(KINDS)}
        ),
        ParameterSpec("seed", "query", "the same seed gives the same prompt"),
    ),
    errors=(InvalidValue,),
)
def fetch_prompt() -> Response:
    """Suggest a prompt."""
    # The starter model knows few words.
    check_arguments("type", "seed")
    sent = request.args.get("type", "positive")
    kind = next((kind for kind in KINDS if kind == find_choice(sent, KINDS)), None)
    if kind is None:
        raise InvalidValue(f"type {sent!r} does not exist", field="type", hint=f"use one of {', '.join(KINDS)}")
    prompt = (suggest_for_starter if _is_starter_default(current_backend()) else suggest)(kind, _random_source())
    response = jsonify({"status": "success", "type": kind, "prompt": prompt})
    # A browser that caches the response would suggest the same prompt for ever.
    response.headers["Cache-Control"] = "no-store"
    return response


def _is_starter_default(backend: Backend) -> bool:
    try:
        return is_starter_default(backend.settings.checkpoint, backend.catalog)
    except EngineUnavailable:
        # The model is unknown; any prompt will do.
        return False


def _random_source() -> random.Random:
    seed = request.args.get("seed")
    return random.Random(seed) if seed else random.Random()
