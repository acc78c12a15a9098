"""The trainable 2x upscaler, in the compact layout of Real-ESRGAN's small models, which the engine's loader knows.

Convolutions at the small size, then each pixel's last channels are laid out as 2 x 2 pixels and added to the picture
that was enlarged by repetition: the network only has to draw what is missing, the edges.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

SCALE = 2
WIDTH = 24
DEPTH = 5
"""Convolutions between the first and the last."""


class Upscaler(nn.Module):
    """Pictures (n, 3, h, w) in 0..1 to (n, 3, 2h, 2w)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 3, padding=1), nn.PReLU(WIDTH)]
        for _ in range(DEPTH):
            layers += [nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.PReLU(WIDTH)]
        last = nn.Conv2d(WIDTH, 3 * SCALE * SCALE, 3, padding=1)
        nn.init.zeros_(last.weight)
        self.body = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) to (n, 3, 2h, 2w)."""
        drawn = functional.pixel_shuffle(self.body(x), SCALE)
        return drawn + functional.interpolate(x, scale_factor=float(SCALE), mode="nearest")
