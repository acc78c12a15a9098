"""Captions of scenes, sampled with different wordings, synonyms and omissions, and their encoding as table rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from starter.scenes import Background, Landscape, Scene, SceneShape
from starter.vocabulary import BEGIN, END, PROMPT_LENGTH, ROWS, TOKEN_IDS, synonyms

Ids = npt.NDArray[np.int64]

FILLERS = ("picture", "nice", "very", "drawing", "photo", "detailed")
"""Words without a row: they teach the network that unknown words have no effect."""
BARE = 0.05
"""Share of captions of one or two words, as in most negative prompts."""


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """Return a caption in lower case, words and commas separated by single spaces."""
    if scene.things and rng.random() < BARE:
        thing = scene.things[int(rng.integers(len(scene.things)))]
        return str(rng.choice([thing.colour, thing.shape, f"{thing.colour} {thing.shape}", scene.background.colour]))
    if scene.landscape is not None:
        text = _landscape(scene.landscape, rng)
    else:
        parts = [_thing(thing, rng, bare=len(scene.things) > 1) for thing in scene.things]
        behind = _background(scene.background, rng)
        subject = f" {scene.relation} ".join(parts)
        roll = rng.random()
        if not parts:
            text = behind
        elif roll < 0.1:
            # People omit parts of a scene; anything may be there.
            text = subject
        elif roll < 0.15 and len(parts) == 1:
            text = behind
        else:
            text = subject + (" , " if rng.random() < 0.15 else " on ") + behind
    if rng.random() < 0.06:
        text = "a " + str(rng.choice(FILLERS)) + " of " + text
    words = [w for w in text.split() if w not in ("a", "the", "an") or rng.random() < 0.92]
    if rng.random() < 0.05:
        words.insert(int(rng.integers(0, len(words) + 1)), str(rng.choice(FILLERS)))
    return " ".join(_vary_word(word, rng) for word in words)


def _vary_word(word: str, rng: np.random.Generator) -> str:
    """Return a synonym now and then. Synonyms share vectors, so only words of several tokens differ."""
    others = synonyms(word)
    return str(rng.choice(others)) if len(others) > 1 and word == "cyan" and rng.random() < 0.6 else word


def _thing(thing: SceneShape, rng: np.random.Generator, bare: bool) -> str:
    roll = rng.random()
    colour = "" if roll < 0.04 else thing.colour
    shape = "shape" if 0.04 <= roll < 0.08 else thing.shape
    size = thing.size or ""
    text = " ".join(["a", *f"{size} {colour} {shape}".split()])
    if thing.place is None or bare:
        return text
    if thing.place == "center":
        return text + " in the center"
    return text + (" at the " if thing.place in ("top", "bottom") else " on the ") + thing.place


def _background(ground: Background, rng: np.random.Generator) -> str:
    first, second, style = ground.colour, ground.second, ground.style
    if style == "plain":
        return f"a plain {first} background" if rng.random() < 0.1 else f"a {first} background"
    if style == "gradient":
        if rng.random() < 0.5:
            return f"a {first} to {second} gradient background"
        return f"a gradient from {first} to {second}"
    noun = {"striped": "stripes", "dotted": "dots"}.get(style)
    if noun and rng.random() < 0.5:
        return f"a {first} background with {second} {noun}"
    return f"a {first} and {second} {style} background"


def _landscape(land: Landscape, rng: np.random.Generator) -> str:
    where = {"hill": "on a hill", "sea": "by the sea", "field": "in a field"}[land.ground]
    light = "moon" if land.time == "night" else "sun"
    what = [f"a {land.thing} {where}" if land.thing else f"a {land.ground}"]
    what.append({"day": "in the day", "night": "at night", "sunset": "at sunset"}[land.time])
    if land.light:
        what.append(f"with the {light}")
    if rng.random() < 0.3:
        what.insert(0, "landscape ,")
    return " ".join(what)


def encode_caption(caption: str, length: int = PROMPT_LENGTH) -> Ids:
    """Return the table rows (length,) of a caption: BEGIN, its words, padded with END."""
    rows = [ROWS[BEGIN]]
    for word in caption.split():
        rows += [ROWS[token] for token in TOKEN_IDS[word]] if word in TOKEN_IDS else [0]
    rows = rows[: length - 1]
    return np.array(rows + [ROWS[END]] * (length - len(rows)), np.int64)
