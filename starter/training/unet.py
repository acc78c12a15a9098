"""The trainable diffusion model: Stable Diffusion 1.5's layout with fewer channels.

The loader requires 320 channels; training that many on a CPU takes days. So each resolution has its own, smaller width
(WIDTHS), and `starter.widening` pads the trained tensors with zeros. The result is exactly equivalent, because here

* group norms keep the wide model's group sizes (10 channels of 320, 20 of 640), so a group is used completely or zero;
* layer norms include the zero channels in their mean and variance;
* attention has the wide model's 8 heads and its scale (40 channels per head), with fewer channels in use.

Module names are those of the layout, so the names in the state dict fit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from starter.layout import CHANNELS, CONTEXT
from starter.text_encoder import (
    CONTEXT_CHANNELS,
    COPY,
    LOOKBACK,
    POSITION_CHANNELS,
    TOKEN_WIDTH,
    USED_CHANNELS,
    VECTOR_LENGTH,
    position_channels,
)
from starter.vocabulary import ROW_COUNT
from starter.widening import HEADS, TIME_WIDTH, WIDTHS


class UNetConditioning(NamedTuple):
    """The conditioning of every layer.

    Time embedding (n, TIME_WIDTH), context (n, tokens, 384), and a bias of the attention logits (tokens,), which
    accounts for tokens that stand for several.
    """

    time: Tensor
    context: Tensor
    bias: Tensor


class WideLayerNorm(nn.LayerNorm):
    """A layer norm over `width` channels as if there were `wide` channels, the others zero."""

    def __init__(self, width: int, wide: int) -> None:
        super().__init__(width)
        self.share = width / wide

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same."""
        mean = x.mean(-1, keepdim=True) * self.share
        variance = x.square().mean(-1, keepdim=True) * self.share - mean.square()
        return (x - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias


class Attention(nn.Module):
    """Attention with HEADS heads; `bias` (tokens,) is added to the logits."""

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, context: Tensor, bias: Tensor | None = None) -> Tensor:
        """x (n, pixels, width), context (n, tokens, channels) to (n, pixels, width)."""
        q, k, v = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        scale = (CHANNELS // HEADS) ** -0.5
        weights = q @ k.transpose(-1, -2) * scale
        if bias is not None:
            weights = weights + bias
        result: Tensor = self.to_out[0]((weights.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return result


class GatedLinear(nn.Module):
    """A projection whose one half gates the other (GEGLU)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 8 * width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., 4 width)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        result: Tensor = value * functional.gelu(gate)
        return result


class FeedForward(nn.Module):
    """The feed-forward part of a transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([GatedLinear(width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same."""
        result: Tensor = self.net[2](self.net[0](x))
        return result


class TransformerBlock(nn.Module):
    """Self-attention, attention to the words, feed-forward."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn1, self.attn2 = Attention(width, width), Attention(width, len(USED_CHANNELS))
        self.ff = FeedForward(width)
        self.norm1, self.norm2, self.norm3 = (WideLayerNorm(width, CHANNELS) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor, bias: Tensor) -> Tensor:
        """x (n, pixels, width) to the same."""
        y = self.norm1(x)
        x = x + self.attn1(y, y)
        x = x + self.attn2(self.norm2(x), context, bias)
        result: Tensor = x + self.ff(self.norm3(x))
        return result


class Transformer(nn.Module):
    """A transformer block over the pixels of a feature map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(width // 10, width, eps=1e-6)
        self.proj_in, self.proj_out = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width)])
        nn.init.zeros_(self.proj_out.weight)

    def forward(self, x: Tensor, conditioning: UNetConditioning) -> Tensor:
        """(n, width, h, w) to the same."""
        y = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        y = (
            self.transformer_blocks[0](y, conditioning.context, conditioning.bias)
            .transpose(1, 2)
            .unflatten(2, x.shape[2:])
        )
        result: Tensor = x + self.proj_out(y)
        return result


class ResidualBlock(nn.Module):
    """Two convolutions with the time embedding added between them. `joined`: the input is a concatenation."""

    def __init__(self, inputs: int, outputs: int, joined: bool = False) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(inputs // (20 if joined else 10), inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(TIME_WIDTH, outputs))
        last = nn.Conv2d(outputs, outputs, 3, padding=1)
        nn.init.zeros_(last.weight)
        self.out_layers = nn.Sequential(nn.GroupNorm(outputs // 10, outputs), nn.SiLU(), nn.Identity(), last)
        # The wide model has 320 channels on both sides, so only a joined input needs a convolution.
        self.skip_connection = nn.Conv2d(inputs, outputs, 1) if joined else nn.Identity()
        self.more = outputs - inputs

    def forward(self, x: Tensor, conditioning: UNetConditioning) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h, w)."""
        y = self.out_layers(self.in_layers(x) + self.emb_layers(conditioning.time)[..., None, None])
        kept = self.skip_connection(x)
        result: Tensor = (functional.pad(kept, (0, 0, 0, 0, 0, self.more)) if kept.shape[1] < y.shape[1] else kept) + y
        return result


class Downsample(nn.Module):
    """Halves the resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor, _: UNetConditioning) -> Tensor:
        """(n, width, h, w) to (n, width, h/2, w/2)."""
        result: Tensor = self.op(x)
        return result


class Upsample(nn.Module):
    """Doubles the resolution and changes the width to that of the next level."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor, _: UNetConditioning) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, 2h, 2w)."""
        result: Tensor = self.conv(functional.interpolate(x, scale_factor=2.0))
        return result


class InputConvolution(nn.Conv2d):
    """The first convolution, which ignores the conditioning."""

    def forward(self, x: Tensor, _: UNetConditioning) -> Tensor:  # type: ignore[override]
        """(n, 4, h, w) to (n, width, h, w)."""
        return super().forward(x)


def timestep_embedding(t: Tensor) -> Tensor:
    """Time steps (n,) of 0..999 as CHANNELS cosines and sines of falling frequency."""
    half = CHANNELS // 2
    angle = t[:, None].float() * torch.exp(torch.arange(half) * (-math.log(10000) / half))
    return torch.cat([angle.cos(), angle.sin()], -1)


class UNetEncoder(nn.Module):
    """The encoder half of the diffusion model, down to the middle; a ControlNet has a copy of it."""

    def __init__(self, inputs: int = 4) -> None:
        super().__init__()
        a, b, c = WIDTHS
        self.time_embed = nn.Sequential(nn.Linear(CHANNELS, TIME_WIDTH), nn.SiLU(), nn.Linear(TIME_WIDTH, TIME_WIDTH))
        blocks: list[list[nn.Module]] = [
            [InputConvolution(inputs, a, 3, padding=1)], [ResidualBlock(a, a)], [Downsample(a)],
            [ResidualBlock(a, b), Transformer(b)], [Downsample(b)], [ResidualBlock(b, c)],
        ]  # fmt: skip
        self.input_blocks = nn.ModuleList(nn.ModuleList(block) for block in blocks)
        self.middle_block = nn.ModuleList([ResidualBlock(c, c), Transformer(c), ResidualBlock(c, c)])

    def encode_latents(self, x: Tensor, conditioning: UNetConditioning, guide: Tensor | None = None) -> list[Tensor]:
        """Return the skip connection of each input block, and the middle. `guide` is added after the first block."""
        kept: list[Tensor] = []
        for block in self.input_blocks:
            for layer in block:  # type: ignore[attr-defined]
                x = layer(x, conditioning)
            if guide is not None and not kept:
                x = x + guide
            kept.append(x)
        for layer in self.middle_block:
            x = layer(x, conditioning)
        return [*kept, x]

    def conditioning(self, t: Tensor, context: Tensor, bias: Tensor) -> UNetConditioning:
        """Return the conditioning for the steps t (n,), the context and its bias."""
        return UNetConditioning(self.time_embed(timestep_embedding(t)), context, bias)


class NarrowUNet(UNetEncoder):
    """The diffusion model together with its table of token vectors (`table`).

    `inputs`: 4, or 9 for an inpainting model (noisy latents, mask, latents of the masked picture).
    """

    waves: Tensor

    def __init__(self, inputs: int = 4) -> None:
        super().__init__(inputs)
        a, b, c = WIDTHS
        blocks: list[list[nn.Module]] = [
            [ResidualBlock(c + c, c, True)], [ResidualBlock(c + b, c, True), Upsample(c, b)],
            [ResidualBlock(b + b, b, True), Transformer(b)],
            [ResidualBlock(b + a, b, True), Transformer(b), Upsample(b, a)],
            [ResidualBlock(a + a, a, True)], [ResidualBlock(a + a, a, True)],
        ]  # fmt: skip
        self.output_blocks = nn.ModuleList(nn.ModuleList(block) for block in blocks)
        self.out = nn.Sequential(nn.GroupNorm(a // 10, a), nn.SiLU(), nn.Conv2d(a, 4, 3, padding=1))
        self.table = nn.Parameter(torch.randn(ROW_COUNT, TOKEN_WIDTH))
        self.register_buffer("waves", torch.tensor(position_channels()), persistent=False)

    def encode(self, rows: Tensor) -> Tensor:
        """Encode rows (n, length) as the computed text encoder does: context (n, length, 384)."""
        vectors = functional.normalize(self.table, dim=1)[rows] * VECTOR_LENGTH
        n, length, _ = vectors.shape
        first = vectors.new_zeros(n, length, CONTEXT)
        first[..., :TOKEN_WIDTH] = vectors
        first[..., POSITION_CHANNELS] = self.waves[:length]
        copied = functional.layer_norm(first, (CONTEXT,))[..., :TOKEN_WIDTH] * COPY
        place = torch.arange(length)
        before = [copied[:, (place - back).clamp(min=0)] for back in range(1, LOOKBACK + 1)]
        full = torch.cat([first[..., : CONTEXT_CHANNELS.start], *before, first[..., CONTEXT_CHANNELS.stop :]], -1)
        return functional.layer_norm(full, (CONTEXT,))[..., torch.tensor(USED_CHANNELS)]

    def forward(
        self, x: Tensor, t: Tensor, context: Tensor, bias: Tensor, control: list[Tensor] | None = None
    ) -> Tensor:
        """Noisy latents (n, inputs, h, w) at steps t (n,), context, its logit bias (tokens,): the noise (n, 4, h, w).

        `control` are the additions of a ControlNet to each tensor of `encode_latents`.
        """
        conditioning = self.conditioning(t, context, bias)
        kept = self.encode_latents(x, conditioning)
        if control is not None:
            kept = [own + added for own, added in zip(kept, control, strict=True)]
        x = kept.pop()
        for block in self.output_blocks:
            x = torch.cat([x, kept.pop()], 1)
            for layer in block:  # type: ignore[attr-defined]
                x = layer(x, conditioning)
        result: Tensor = self.out(x)
        return result
