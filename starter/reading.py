"""Read a picture of shapes: which colours, which shapes, on which ground. For tests and for `starter.evaluate`."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from starter import scenes
from starter.scenes import COLOURS, PALETTE, SHAPES, Background, Scene, render

Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_SIDE = 48
"""Shapes are compared at this size, in cells."""
_REACH = 2.2
"""The side of that square, in roots of a shape's area: a star or a ring just fits."""


@dataclass(frozen=True)
class Thing:
    """One shape in a picture. `match`: overlap with the perfect shape, 0..1; a clean one has 0.8 and more. `x`, `y`:
    its middle, as fractions of width and height; `area`: its share of the picture."""

    colour: str
    shape: str
    match: float
    x: float
    y: float
    area: float


@dataclass(frozen=True)
class Reading:
    """What a picture shows: the colour behind, and the shapes in front, the largest first."""

    background: str
    things: tuple[Thing, ...]

    def shows(self, colour: str, shape: str) -> bool:
        """Whether a clean shape of that kind and colour is among them."""
        return any((thing.colour, thing.shape) == (colour, shape) and thing.match > 0.6 for thing in self.things)


def read(picture: Picture) -> Reading:
    """Read a picture (h, w, 3) of shapes on a plain ground. Specks of less than a hundredth of it count for nothing."""
    names = nearest_colours(picture)
    edge = np.concatenate([names[0], names[-1], names[:, 0], names[:, -1]])
    background = int(np.bincount(edge, minlength=len(COLOURS)).argmax())
    ground = np.median(picture[names == background].astype(np.float32), 0)
    # Not the nearest colour but the distance to the ground decides: edges and shades belong to the shape's outline.
    mask = np.linalg.norm(picture.astype(np.float32) - ground, axis=-1) > 70
    parts, count = ndimage.label(mask)
    things = [_thing(names, parts == part, background) for part in range(1, count + 1)]
    large = sorted((thing for thing in things if thing.area > 0.01), key=lambda thing: -thing.area)
    return Reading(COLOURS[background], tuple(large))


def _thing(names: npt.NDArray[np.int_], mask: Mask, background: int) -> Thing:
    # Colours along the edge are mixed, so the inside decides if there is one.
    inside = ndimage.binary_erosion(mask, iterations=max(1, len(mask) // 64))
    seen = names[inside if inside.any() else mask]
    colours = np.bincount(seen[seen != background] if (seen != background).any() else seen, minlength=len(COLOURS))
    scores = {shape: overlap(centred(mask), template(shape)) for shape in SHAPES}
    shape = max(scores, key=lambda name: scores[name])
    y, x = (float(axis.mean()) / size for axis, size in zip(np.nonzero(mask), mask.shape, strict=True))
    return Thing(COLOURS[int(colours.argmax())], shape, scores[shape], x, y, float(mask.mean()))


def nearest_colours(picture: Picture) -> npt.NDArray[np.int_]:
    """Index into COLOURS of the palette's nearest colour for every pixel (h, w)."""
    palette = np.array([PALETTE[name] for name in COLOURS], np.float32)
    distance = np.linalg.norm(picture.astype(np.float32)[..., None, :] - palette, axis=-1)
    return np.asarray(distance.argmin(-1))


def centred(mask: Mask) -> Mask:
    """The part that is set, scaled to the same area whatever its size, its middle in the middle of _SIDE x _SIDE cells.

    A corner that sticks out, or a side that is a little bent, hardly changes it; proportions stay, so a rectangle is no
    square.
    """
    ys, xs = np.nonzero(mask)
    if not len(ys):
        return np.zeros((_SIDE, _SIDE), bool)
    cells = (np.arange(_SIDE) + 0.5 - _SIDE / 2) * _REACH * len(ys) ** 0.5 / _SIDE
    y, x = (np.rint(cells + axis.mean()).astype(int) for axis in (ys, xs))
    there = ((y >= 0) & (y < mask.shape[0]))[:, None] & ((x >= 0) & (x < mask.shape[1]))
    return np.asarray(mask[np.ix_(y.clip(0, mask.shape[0] - 1), x.clip(0, mask.shape[1] - 1))] & there, bool)


@functools.cache
def template(shape: str) -> Mask:
    """The mask of a perfect shape."""
    scene = Scene(Background("plain", "black", "black"), (scenes.Thing(shape, "white", 0.5, 0.5, 0.4),))
    return centred(render(scene, 192, 192)[..., 0] > 0.5)


def overlap(a: Mask, b: Mask) -> float:
    """Intersection over union."""
    return float((a & b).sum() / max(1, (a | b).sum()))
