"""Procedural scenes: the training data of the starter model.

A `Scene` is plain data. `sample_scene` samples one from a seeded generator, `render` turns it into pixels, and
`starter.training.captions` into text. All measures are fractions (of the width, the height, or the shorter side), so a
scene can be rendered at any size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.floating[Any]]

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (220, 28, 36),
    "orange": (250, 135, 15),
    "yellow": (250, 222, 40),
    "green": (38, 160, 58),
    "cyan": (45, 205, 215),
    "blue": (32, 70, 212),
    "purple": (125, 45, 170),
    "pink": (250, 140, 190),
    "brown": (122, 74, 38),
    "black": (15, 15, 18),
    "gray": (128, 128, 128),
    "white": (248, 248, 248),
}
"""The twelve colours as sRGB bytes, different enough to be detected in pictures."""

COLOURS = tuple(PALETTE)
SHAPES = ("circle", "square", "triangle", "diamond", "star", "heart", "cross", "ring")
STYLES = ("plain", "striped", "dotted", "checkered", "gradient")
SIZES = {"small": 0.16, "medium": 0.26, "large": 0.37}
"""Radius of a shape, as a fraction of the shorter side."""
PLACES = {
    "left": (0.27, 0.5),
    "right": (0.73, 0.5),
    "top": (0.5, 0.27),
    "bottom": (0.5, 0.73),
    "center": (0.5, 0.5),
}
RELATIONS = ("left of", "right of", "above", "below", "next to", "and")
TIMES = ("day", "night", "sunset")
GROUNDS = ("hill", "sea", "field")


@dataclass(frozen=True)
class SceneShape:
    """A shape. `x`, `y`: centre, fractions of width and height; `radius`: fraction of the shorter side.

    `size` and `place` are words for the caption; None if size or place is free.
    """

    shape: str
    colour: str
    x: float
    y: float
    radius: float
    size: str | None = None
    place: str | None = None


@dataclass(frozen=True)
class Background:
    """A background: a style, its colour, and for all but `plain` a second one. `phase`: 0..1, shifts patterns."""

    style: str
    colour: str
    second: str
    phase: float = 0.0


@dataclass(frozen=True)
class Landscape:
    """A simple landscape. `thing` is house, tree or \"\"; `horizon` is a fraction of the height."""

    time: str
    ground: str
    thing: str
    light: bool
    horizon: float
    x: float
    light_x: float


@dataclass(frozen=True)
class Scene:
    """A landscape, or a background with at most two shapes and their relation."""

    background: Background
    things: tuple[SceneShape, ...] = ()
    relation: str | None = None
    landscape: Landscape | None = None


@dataclass(frozen=True)
class Mix:
    """Weights of the kinds of scenes (they need not sum to 1); changing them makes a curriculum."""

    one: float = 0.54
    two: float = 0.30
    empty: float = 0.04
    landscape: float = 0.12
    patterned: float = 0.35
    """Share of patterned backgrounds."""
    sized: float = 0.35
    placed: float = 0.3


@dataclass(frozen=True)
class Look:
    """The drawing style.

    `stroke`: half the line width of hollow shapes, 0 for filled ones; `contour`: width of a black outline (both are
    fractions of the shorter side); `pale`: share of white in all colours.
    """

    stroke: float = 0.0
    contour: float = 0.0
    pale: float = 0.0


PLAIN = Look()
OUTLINE = Look(stroke=0.03)
PASTEL = Look(contour=0.03, pale=0.5)


def held_out(shape: str, colour: str, background: str) -> bool:
    """Whether this combination is reserved for evaluation: an eleventh of them never occurs in training.

    Every pair of shape, colour and background occurs in other combinations, so a model that generalises can draw it.
    """
    return (SHAPES.index(shape) + 3 * COLOURS.index(colour) + 5 * COLOURS.index(background)) % 11 == 0


def sample_scene(rng: np.random.Generator, mix: Mix) -> Scene:
    """Sample a scene without held-out combinations; deterministic for a generator state."""
    while True:
        scene = _sample_any(rng, mix)
        if not any(held_out(thing.shape, thing.colour, scene.background.colour) for thing in scene.things):
            return scene


def _sample_any(rng: np.random.Generator, mix: Mix) -> Scene:
    kinds = np.array([mix.one, mix.two, mix.empty, mix.landscape])
    kind = int(rng.choice(4, p=kinds / kinds.sum()))
    if kind == 3:
        return Scene(Background("plain", "blue", "white"), landscape=_sample_landscape(rng))
    count = (1, 2, 0)[kind]
    names = [str(name) for name in rng.permutation(COLOURS)]
    background = _sample_background(rng, names[0], names[1], mix.patterned)
    if count == 2:
        things, relation = _sample_pair(rng, names[2], names[3])
        return Scene(background, things, relation)
    if count == 1:
        return Scene(background, (_sample_thing(rng, names[2], mix),))
    return Scene(background)


def _sample_background(rng: np.random.Generator, first: str, second: str, patterned: float) -> Background:
    if rng.random() >= patterned:
        return Background("plain", first, second)
    return Background(str(rng.choice(STYLES[1:])), first, second, float(rng.random()))


def _sample_thing(rng: np.random.Generator, colour: str, mix: Mix) -> SceneShape:
    size = str(rng.choice(list(SIZES))) if rng.random() < mix.sized else None
    place = str(rng.choice(list(PLACES))) if rng.random() < mix.placed else None
    # Without a word for it, size and place stay near the middle of their range: less to learn, and what people expect.
    radius = SIZES[size] * rng.uniform(0.93, 1.07) if size else rng.uniform(0.22, 0.34)
    if place and radius > 0.3 and size is None:
        radius = 0.26
    x, y = PLACES[place] if place else (0.5, 0.5)
    spread = 0.02 if place else 0.05
    return SceneShape(
        str(rng.choice(SHAPES)),
        colour,
        x + rng.uniform(-spread, spread),
        y + rng.uniform(-spread, spread),
        float(radius),
        size,
        place,
    )


def _sample_pair(rng: np.random.Generator, first: str, second: str) -> tuple[tuple[SceneShape, ...], str]:
    """Sample two shapes side by side or one above the other, in the order of the caption."""
    relation = str(rng.choice(RELATIONS, p=(0.2, 0.2, 0.2, 0.1, 0.1, 0.2)))
    shapes = [str(rng.choice(SHAPES)) for _ in range(2)]
    near, far = 0.27 + rng.uniform(-0.02, 0.02), 0.73 + rng.uniform(-0.02, 0.02)
    if relation in ("right of", "below"):
        near, far = far, near
    things = []
    for shape, colour, along in zip(shapes, (first, second), (near, far), strict=True):
        across = 0.5 + rng.uniform(-0.03, 0.03)
        x, y = (across, along) if relation in ("above", "below") else (along, across)
        things.append(SceneShape(shape, colour, x, y, float(rng.uniform(0.17, 0.21))))
    return tuple(things), relation


def _sample_landscape(rng: np.random.Generator) -> Landscape:
    return Landscape(
        time=str(rng.choice(TIMES)),
        ground=str(rng.choice(GROUNDS)),
        thing=str(rng.choice(["", "house", "tree"])),
        light=bool(rng.random() < 0.6),
        horizon=float(rng.uniform(0.55, 0.68)),
        x=float(rng.uniform(0.25, 0.75)),
        light_x=float(rng.uniform(0.2, 0.8)),
    )


def render(scene: Scene, height: int, width: int, look: Look = PLAIN) -> Pixels:
    """Render a scene: float32 (height, width, 3) in 0..1, with antialiased edges."""
    canvas = _Canvas(height, width)
    if scene.landscape is not None:
        _paint_landscape(canvas, scene.landscape)
    else:
        _paint_background(canvas, scene.background)
    distances = [_distance(canvas, thing) for thing in scene.things]
    for thing, distance in zip(scene.things, distances, strict=True):
        stroke = look.stroke * canvas.side
        canvas.fill(np.abs(distance + stroke) - stroke if stroke else distance, thing.colour)
    canvas.pixels = canvas.pixels + np.float32(look.pale) * (1 - canvas.pixels)
    for distance in distances if look.contour else ():
        canvas.fill(np.abs(distance) - look.contour * canvas.side / 2, "black")
    return canvas.pixels


def _distance(canvas: _Canvas, thing: SceneShape) -> Pixels:
    """Signed distance to a shape's outline, in pixels."""
    radius = canvas.side * thing.radius
    u, v = (canvas.x - thing.x * canvas.width) / radius, (canvas.y - thing.y * canvas.height) / radius
    return SHAPE_DISTANCES[thing.shape](u, v) * radius


class _Canvas:
    """A picture being drawn: `x`, `y` are pixel centres, `side` is the shorter side, all in pixels."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width, self.side = height, width, min(height, width)
        self.x = np.arange(width, dtype=np.float32)[None, :] + np.float32(0.5)
        self.y = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5)
        self.pixels: Pixels = np.zeros((height, width, 3), np.float32)

    def fill(self, distance: Pixels, colour: str | Pixels) -> None:
        """Paint where `distance` (signed, in pixels) is negative; the edge fades over one pixel."""
        alpha = np.broadcast_to(np.clip(np.float32(0.5) - distance, 0, 1), (self.height, self.width))[..., None]
        self.pixels = (self.pixels + alpha * (rgb(colour) - self.pixels)).astype(np.float32)


def rgb(colour: str | Pixels) -> Pixels:
    """Return a colour, given by its palette name or as three floats, as float32 (3,) in 0..1."""
    if isinstance(colour, str):
        return np.asarray(PALETTE[colour], np.float32) / np.float32(255)
    return colour


def _paint_background(canvas: _Canvas, ground: Background) -> None:
    side, period = canvas.side, canvas.side / 3
    canvas.fill(np.float32(-1.0) + np.zeros_like(canvas.x), ground.colour)
    if ground.style == "gradient":
        share = (canvas.y / canvas.height)[..., None] + np.zeros_like(canvas.x)[..., None]
        canvas.pixels = (canvas.pixels + share * (rgb(ground.second) - canvas.pixels)).astype(np.float32)
        return
    x = (canvas.x / period + ground.phase) % 1 - 0.5
    y = (canvas.y / period + ground.phase * 3) % 1 - 0.5
    if ground.style == "striped":
        canvas.fill((np.abs(x) - 0.25) * period, ground.second)
    elif ground.style == "dotted":
        canvas.fill(np.hypot(x, y) * period - 0.09 * side, ground.second)
    elif ground.style == "checkered":
        # The product of the two signed distances is negative in every second cell.
        across, down = (np.abs(x) - 0.25) * period, (np.abs(y) - 0.25) * period
        nearest = np.minimum(np.abs(across), np.abs(down))
        canvas.fill(np.sign(across * down) * nearest, ground.second)


def _paint_landscape(canvas: _Canvas, land: Landscape) -> None:
    """Paint the sky with sun or moon, the ground, and what stands on it."""
    top, low = {"day": ("blue", "cyan"), "night": ("black", "blue"), "sunset": ("purple", "orange")}[land.time]
    _paint_background(canvas, Background("gradient", top, low))
    side, height, width = canvas.side, canvas.height, canvas.width
    dark = np.float32(0.45 if land.time == "night" else 1.0)
    light_y = (0.42 if land.time == "sunset" else 0.2) * height
    if land.light:
        hue = {"day": "yellow", "night": "white", "sunset": "red"}[land.time]
        canvas.fill(np.hypot(canvas.x - land.light_x * width, canvas.y - light_y) - 0.1 * side, hue)
    rise = np.zeros_like(canvas.x)
    if land.ground == "hill":
        rise = (0.16 * side * np.exp(-(((canvas.x / width - land.x) / 0.28) ** 2))).astype(np.float32)
    line = land.horizon * height - rise
    hue_ground = "blue" if land.ground == "sea" else "green"
    shade = rgb(hue_ground) * dark * (0.8 if land.ground == "sea" else 1.0)
    canvas.fill(line - canvas.y, shade)
    foot = land.horizon * height - (0.13 * side if land.ground == "hill" else -0.04 * side)
    x, y = (canvas.x - land.x * width) / side, (canvas.y - foot) / side
    if land.thing == "house":
        canvas.fill(box(x, y + 0.09, 0.12, 0.11) * side, rgb("white") * dark)
        canvas.fill(polygon(x, y, ((-0.15, -0.2), (0.15, -0.2), (0.0, -0.34))) * side, rgb("red") * dark)
        canvas.fill(box(x, y + 0.05, 0.03, 0.07) * side, rgb("brown") * dark)
    elif land.thing == "tree":
        canvas.fill(box(x, y + 0.08, 0.025, 0.11) * side, rgb("brown") * dark)
        canvas.fill((np.hypot(x, y + 0.26) - 0.13) * side, rgb("green") * np.float32(0.6) * dark)


def box(x: Pixels, y: Pixels, half_width: float, half_height: float) -> Pixels:
    """Signed distance to an axis-aligned box around the origin (approximate away from its edges)."""
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def polygon(x: Pixels, y: Pixels, corners: tuple[tuple[float, float], ...]) -> Pixels:
    """Signed distance to a simple polygon: the nearest edge gives its size, a ray's crossings its sign."""
    x, y = np.broadcast_arrays(x, y)
    nearest = np.full(x.shape, np.float32(1e9))
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey = bx - ax, by - ay
        along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, (x - ax - along * ex) ** 2 + (y - ay - along * ey) ** 2)
        if ey:
            inside ^= ((y < ay) != (y < by)) & (x < ax + (y - ay) / ey * ex)
    return np.where(inside, -1, 1) * np.sqrt(nearest)


def _star(points: int, outer: float, inner: float) -> tuple[tuple[float, float], ...]:
    angles = np.arange(2 * points) * np.pi / points
    radii = np.where(np.arange(2 * points) % 2 == 0, outer, inner)
    return tuple((float(r * np.sin(a)), float(-r * np.cos(a))) for r, a in zip(radii, angles, strict=True))


_STAR = tuple((x, y + 0.08) for x, y in _star(5, 1.12, 0.46))
_TRIANGLE = ((0.0, -0.95), (1.0, 0.8), (-1.0, 0.8))
_DIAMOND = ((0.0, -1.1), (0.8, 0.0), (0.0, 1.1), (-0.8, 0.0))


def _heart(u: Pixels, v: Pixels) -> Pixels:
    """A square standing on its corner, with a disc on each upper side."""
    w = v - 0.1
    tip = (np.abs(u) + np.abs(w - 0.0)) / np.sqrt(2) - 0.62
    lobes = np.hypot(np.abs(u) - 0.438, w + 0.438) - 0.62
    heart: Pixels = np.minimum(tip, lobes)
    return heart


SHAPE_DISTANCES: dict[str, Callable[[Pixels, Pixels], Pixels]] = {
    "circle": lambda u, v: np.hypot(u, v) - 0.95,
    "square": lambda u, v: box(u, v, 0.85, 0.85),
    "triangle": lambda u, v: polygon(u, v, _TRIANGLE),
    "diamond": lambda u, v: polygon(u, v, _DIAMOND),
    "star": lambda u, v: polygon(u, v, _STAR),
    "heart": _heart,
    "cross": lambda u, v: np.minimum(box(u, v, 0.33, 0.98), box(u, v, 0.98, 0.33)),
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.72) - 0.25,
}
"""Signed distance of each shape of radius about 1 around the origin, y downwards."""
