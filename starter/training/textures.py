"""Synthetic pictures with the statistics of photographs, so that the autoencoder learns more than flat shapes.

Overlapping leaves of all sizes (sharp edges, occlusion) with shading, and coloured noise whose power falls with
frequency: most of what a small autoencoder can learn from photographs.
"""

from __future__ import annotations

import numpy as np

from starter.scenes import Pixels


def noise(rng: np.random.Generator, height: int, width: int, slope: float) -> Pixels:
    """Return coloured noise (height, width, 3): unit variance, power ~ 1 / frequency^(2 slope), correlated channels."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    filter_ = 1 / np.maximum(np.hypot(fx, fy), 1 / max(height, width)) ** slope
    spectrum = np.fft.rfft2(rng.standard_normal((3, height, width))) * filter_
    fields = np.moveaxis(np.fft.irfft2(spectrum, (height, width)), 0, -1)
    mixed = fields * 0.3 + fields[..., :1]
    return np.asarray((mixed - mixed.mean()) / (mixed.std() + 1e-6), np.float32)


def texture(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Return a synthetic photograph, float32 (height, width, 3) in 0..1."""
    picture = 0.5 + 0.25 * noise(rng, height, width, rng.uniform(0.8, 1.8))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    side = min(height, width)
    for _ in range(int(rng.integers(0, 24))):
        radius = side * 0.5 * rng.random() ** 2 + 2
        u, v = x - rng.uniform(0, width), y - rng.uniform(0, height)
        angle = rng.uniform(0, np.pi)
        u, v = (
            u * np.cos(angle) + v * np.sin(angle),
            (v * np.cos(angle) - u * np.sin(angle)) * rng.uniform(1, 3),
        )
        distance = np.hypot(u, v) - radius if rng.random() < 0.6 else np.maximum(np.abs(u), np.abs(v)) - radius
        colour = rng.random(3) * 0.6 + rng.random() * 0.4 + rng.uniform(-0.3, 0.3) * u[..., None] / radius
        if rng.random() < 0.4:
            colour = colour + rng.uniform(0.02, 0.12) * noise(rng, height, width, rng.uniform(0.2, 1.2))
        # Some leaves are out of focus.
        alpha = np.clip(0.5 - distance / (1.0 if rng.random() < 0.7 else rng.uniform(1, 8)), 0, 1)[..., None]
        picture = picture + alpha * (colour - picture)
    return np.asarray(np.clip(picture, 0, 1), np.float32)
