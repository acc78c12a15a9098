"""The trainable autoencoder: the engine's tiny-autoencoder layout, with narrower layers.

Module names and order are those of the engine's file (`taesd_encoder.N`, `taesd_decoder.N`), so a state dict differs
from it only in widths. `starter.builders` pads them with zeros: a channel whose weights and bias are zero stays zero
through ReLU and has no effect.

Pictures are float (n, 3, h, w) in 0..1, latents (n, 4, h/8, w/8) of about unit variance.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

ENCODER_WIDTHS = (24, 32, 48, 64)
DECODER_WIDTHS = (64, 64, 48, 24)
"""Channels at full, half, quarter and eighth resolution (encoder), and back (decoder); at most 64, the wide file's."""


def conv(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size (or halves it with stride 2)."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, stride=stride, bias=bias)


class ResBlock(nn.Module):
    """Three convolutions with a skip connection. The last one starts small, so that a deep network trains well."""

    def __init__(self, width: int) -> None:
        super().__init__()
        last = conv(width, width)
        nn.init.normal_(last.weight, std=0.1 / (width * 9) ** 0.5)
        self.conv = nn.Sequential(conv(width, width), nn.ReLU(), conv(width, width), nn.ReLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) to the same."""
        result: Tensor = torch.relu(self.conv(x) + x)
        return result


class LatentClamp(nn.Module):
    """Limits latents softly to -3..3, the range that the decoder was trained on."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return torch.tanh(x / 3) * 3


def build_encoder() -> nn.Sequential:
    """Pictures to latents, eight times smaller each way."""
    a, b, c, d = ENCODER_WIDTHS
    return nn.Sequential(
        conv(3, a), ResBlock(a),
        conv(a, b, 2, bias=False), ResBlock(b), ResBlock(b), ResBlock(b),
        conv(b, c, 2, bias=False), ResBlock(c), ResBlock(c), ResBlock(c),
        conv(c, d, 2, bias=False), ResBlock(d), ResBlock(d), ResBlock(d),
        conv(d, 4),
    )  # fmt: skip


def build_decoder() -> nn.Sequential:
    """Latents to pictures."""
    a, b, c, d = DECODER_WIDTHS
    return nn.Sequential(
        LatentClamp(), conv(4, a), nn.ReLU(),
        ResBlock(a), ResBlock(a), ResBlock(a), nn.Upsample(scale_factor=2), conv(a, b, bias=False),
        ResBlock(b), ResBlock(b), ResBlock(b), nn.Upsample(scale_factor=2), conv(b, c, bias=False),
        ResBlock(c), ResBlock(c), ResBlock(c), nn.Upsample(scale_factor=2), conv(c, d, bias=False),
        ResBlock(d), conv(d, 3),
    )  # fmt: skip


class Autoencoder(nn.Module):
    """Encoder and decoder, named as in the engine's file."""

    def __init__(self) -> None:
        super().__init__()
        self.taesd_encoder = build_encoder()
        self.taesd_decoder = build_decoder()

    def encode(self, pixels: Tensor) -> Tensor:
        """Pictures in 0..1 to latents."""
        result: Tensor = self.taesd_encoder(pixels)
        return result

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to pictures, about 0..1 (not clipped, so that gradients pass)."""
        result: Tensor = self.taesd_decoder(latents)
        return result
