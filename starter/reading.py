"""Read a picture of one shape: which colour, which shape, on which ground. For tests and for `starter.evaluate`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from starter.scenes import COLOURS, PALETTE, SHAPES, Background, Scene, Thing, render

Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_SIDE = 24
"""Shapes are compared at this size, in cells."""


@dataclass(frozen=True)
class Reading:
    """What a picture shows. `match`: overlap with that shape's outline, 0..1; a clean one has 0.8 and more."""

    background: str
    colour: str
    shape: str
    match: float


def read(picture: Picture) -> Reading | None:
    """Read a picture (h, w, 3) of one shape on a plain ground; None if there is nothing on the ground."""
    names = nearest_colours(picture)
    edge = np.concatenate([names[0], names[-1], names[:, 0], names[:, -1]])
    background = int(np.bincount(edge, minlength=len(COLOURS)).argmax())
    ground = np.median(picture[names == background].astype(np.float32), 0)
    # Not the nearest colour but the distance to the ground decides: edges and shades belong to the shape's outline.
    mask = np.linalg.norm(picture.astype(np.float32) - ground, axis=-1) > 70
    if mask.sum() < 0.01 * mask.size:
        return None
    inside = np.bincount(names[mask & (names != background)], minlength=len(COLOURS))
    scores = {shape: overlap(cropped(mask), template(shape)) for shape in SHAPES}
    shape = max(scores, key=lambda name: scores[name])
    return Reading(COLOURS[background], COLOURS[int(inside.argmax())], shape, scores[shape])


def nearest_colours(picture: Picture) -> npt.NDArray[np.int_]:
    """Index into COLOURS of the palette's nearest colour for every pixel (h, w)."""
    palette = np.array([PALETTE[name] for name in COLOURS], np.float32)
    distance = np.linalg.norm(picture.astype(np.float32)[..., None, :] - palette, axis=-1)
    return np.asarray(distance.argmin(-1))


def cropped(mask: Mask) -> Mask:
    """The part of a mask that is set, scaled to a square of _SIDE cells; specks far from the rest are left out."""
    rows, columns = (np.flatnonzero(mask.mean(axis) > 0.02) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return np.zeros((_SIDE, _SIDE), bool)
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    y, x = (np.linspace(0, size - 1, _SIDE).round().astype(int) for size in part.shape)
    return np.asarray(part[np.ix_(y, x)], bool)


def template(shape: str) -> Mask:
    """The mask of a perfect shape."""
    scene = Scene(Background("plain", "black", "black"), (Thing(shape, "white", 0.5, 0.5, 0.4),))
    return cropped(render(scene, 96, 96)[..., 0] > 0.5)


def overlap(a: Mask, b: Mask) -> float:
    """Intersection over union."""
    return float((a & b).sum() / max(1, (a | b).sum()))
