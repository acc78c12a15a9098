"""Detects the shapes, their colours and the background in a picture; used by tests and `starter.evaluate`."""

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
"""Masks are compared at this size, in cells."""
_REACH = 2.2
"""The side of the compared square, in square roots of a shape's area: a star or a ring just fits."""


@dataclass(frozen=True)
class DetectedShape:
    """A shape in a picture.

    `match`: overlap with the perfect shape, 0..1; a clean shape has at least 0.8. `x`, `y`: its centre, as fractions of
    width and height; `area`: its fraction of the picture.
    """

    colour: str
    shape: str
    match: float
    x: float
    y: float
    area: float


@dataclass(frozen=True)
class DetectedScene:
    """The background colour and the shapes of a picture, the largest shape first."""

    background: str
    things: tuple[DetectedShape, ...]

    def shows(self, colour: str, shape: str) -> bool:
        """Whether the picture has a clean shape of that kind and colour."""
        return any((thing.colour, thing.shape) == (colour, shape) and thing.match > 0.6 for thing in self.things)


def detect_shapes(picture: Picture) -> DetectedScene:
    """Detect shapes on a plain background in a picture (h, w, 3). Specks below a hundredth of the area are ignored."""
    names = nearest_colours(picture)
    edge = np.concatenate([names[0], names[-1], names[:, 0], names[:, -1]])
    background = int(np.bincount(edge, minlength=len(COLOURS)).argmax())
    ground = np.median(picture[names == background].astype(np.float32), 0)
    # By the distance to the background's colour, not by the nearest colour: edges and shades belong to the shape.
    mask = np.linalg.norm(picture.astype(np.float32) - ground, axis=-1) > 70
    parts, count = ndimage.label(mask)
    things = [_detect_shape(names, parts == part, background) for part in range(1, count + 1)]
    large = sorted((thing for thing in things if thing.area > 0.01), key=lambda thing: -thing.area)
    return DetectedScene(COLOURS[background], tuple(large))


def _detect_shape(names: npt.NDArray[np.int_], mask: Mask, background: int) -> DetectedShape:
    # Colours are mixed along the edge, so the inside decides if there is one.
    inside = ndimage.binary_erosion(mask, iterations=max(1, len(mask) // 64))
    seen = names[inside if inside.any() else mask]
    colours = np.bincount(seen[seen != background] if (seen != background).any() else seen, minlength=len(COLOURS))
    scores = {shape: overlap(centre_mask(mask), shape_template(shape)) for shape in SHAPES}
    shape = max(scores, key=lambda name: scores[name])
    y, x = (float(axis.mean()) / size for axis, size in zip(np.nonzero(mask), mask.shape, strict=True))
    return DetectedShape(COLOURS[int(colours.argmax())], shape, scores[shape], x, y, float(mask.mean()))


def nearest_colours(picture: Picture) -> npt.NDArray[np.int_]:
    """Return the index into COLOURS of the nearest palette colour for every pixel (h, w)."""
    palette = np.array([PALETTE[name] for name in COLOURS], np.float32)
    distance = np.linalg.norm(picture.astype(np.float32)[..., None, :] - palette, axis=-1)
    return np.asarray(distance.argmin(-1))


def centre_mask(mask: Mask) -> Mask:
    """Scale a mask to a fixed area and centre it in _SIDE x _SIDE cells.

    Small defects of the outline hardly change the result. Proportions are kept, so a rectangle is not a square.
    """
    ys, xs = np.nonzero(mask)
    if not len(ys):
        return np.zeros((_SIDE, _SIDE), bool)
    cells = (np.arange(_SIDE) + 0.5 - _SIDE / 2) * _REACH * len(ys) ** 0.5 / _SIDE
    y, x = (np.rint(cells + axis.mean()).astype(int) for axis in (ys, xs))
    inside = ((y >= 0) & (y < mask.shape[0]))[:, None] & ((x >= 0) & (x < mask.shape[1]))
    return np.asarray(mask[np.ix_(y.clip(0, mask.shape[0] - 1), x.clip(0, mask.shape[1] - 1))] & inside, bool)


@functools.cache
def shape_template(shape: str) -> Mask:
    """Return the mask of a perfect shape."""
    scene = Scene(Background("plain", "black", "black"), (scenes.SceneShape(shape, "white", 0.5, 0.5, 0.4),))
    return centre_mask(render(scene, 192, 192)[..., 0] > 0.5)


def overlap(a: Mask, b: Mask) -> float:
    """Return the intersection over union of two masks."""
    return float((a & b).sum() / max(1, (a | b).sum()))
