"""Prompts for those who look at an empty box: put together from lists of our own. Pure; the randomness is given."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, get_args

Kind = Literal["positive", "negative"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# A subject fits certain places; so each scene has its own, and nothing is put together that would look absurd.
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
            "an airship moored to a bell tower",
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
    """A prompt of that kind; the same source in the same state gives the same one."""
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
