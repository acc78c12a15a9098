"""Prompts for the starter model, in no words but those that it knows. Pure; the randomness is given."""

from __future__ import annotations

import random

from shared.web.control.prompts import Kind
from starter.words import VOCABULARY


def _first_words(kind: str) -> list[str]:
    """One word of each row."""
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
# A negative prompt is asked for apart from the other, so it forbids what the other never asks for.
UNWANTED = ("striped", "dotted", "checkered", "stripes", "dots", "spotted")


def suggest_known(kind: Kind, source: random.Random) -> str:
    """A prompt of that kind that the starter can follow; the same source in the same state gives the same one."""
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
