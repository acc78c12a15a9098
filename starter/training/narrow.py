"""The trainable diffusion model: Stable Diffusion 1.5's layout, narrow, and exactly embeddable in the wide one.

The loader wants 320 channels; training that many on a CPU takes days. So each resolution has a width of its own
(WIDTHS), and `starter.wide` puts the trained tensors into zeros. That is exact because here

* group norms keep the wide model's group sizes (10 channels of 320, 20 of 640): a group is all used or all zero;
* layer norms count the zero channels in their mean and variance;
* attention has the wide model's 8 heads and its scale (40 channels a head), with fewer channels used in each.

Module names are those of the layout, so that the state dict carries over by name.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from starter.layout import CHANNELS, CONTEXT
from starter.text import BACK, BEFORE, COPY, LENGTH, OWN, POSITION, USED, positions
from starter.wide import HEADS, TIME_WIDTH, WIDTHS
from starter.words import ROW_COUNT


class Hints(NamedTuple):
    """What every layer is told beside its input: the time (n, TIME_WIDTH), the context (n, tokens, 384) and a bias of
    attention's logits (tokens,), which counts tokens that stand for several."""

    time: Tensor
    context: Tensor
    bias: Tensor


class WideLayerNorm(nn.LayerNorm):
    """A layer norm over `width` channels as if there were `wide`, the others zero."""

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


class Gated(nn.Module):
    """Half of the projection, gated by the other half."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 8 * width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., 4 width)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        result: Tensor = value * functional.gelu(gate)
        return result


class Feed(nn.Module):
    """The feed-forward part of a transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([Gated(width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same."""
        result: Tensor = self.net[2](self.net[0](x))
        return result


class Block(nn.Module):
    """Self-attention, attention to the words, feed-forward."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn1, self.attn2 = Attention(width, width), Attention(width, len(USED))
        self.ff = Feed(width)
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
        self.transformer_blocks = nn.ModuleList([Block(width)])
        nn.init.zeros_(self.proj_out.weight)

    def forward(self, x: Tensor, hints: Hints) -> Tensor:
        """(n, width, h, w) to the same."""
        y = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        y = self.transformer_blocks[0](y, hints.context, hints.bias).transpose(1, 2).unflatten(2, x.shape[2:])
        result: Tensor = x + self.proj_out(y)
        return result


class Residual(nn.Module):
    """Two convolutions with the time between them. `joined`: the input is a concatenation, in groups of 20."""

    def __init__(self, inputs: int, outputs: int, joined: bool = False) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(inputs // (20 if joined else 10), inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(TIME_WIDTH, outputs))
        last = nn.Conv2d(outputs, outputs, 3, padding=1)
        nn.init.zeros_(last.weight)
        self.out_layers = nn.Sequential(nn.GroupNorm(outputs // 10, outputs), nn.SiLU(), nn.Identity(), last)
        # The wide model has 320 channels on both sides, so it joins without a convolution unless the input is joined.
        self.skip_connection = nn.Conv2d(inputs, outputs, 1) if joined else nn.Identity()
        self.more = outputs - inputs

    def forward(self, x: Tensor, hints: Hints) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h, w)."""
        y = self.out_layers(self.in_layers(x) + self.emb_layers(hints.time)[..., None, None])
        kept = self.skip_connection(x)
        result: Tensor = (functional.pad(kept, (0, 0, 0, 0, 0, self.more)) if kept.shape[1] < y.shape[1] else kept) + y
        return result


class Down(nn.Module):
    """Half the size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor, _: Hints) -> Tensor:
        """(n, width, h, w) to (n, width, h/2, w/2)."""
        result: Tensor = self.op(x)
        return result


class Up(nn.Module):
    """Twice the size, and the width of the level it arrives at."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor, _: Hints) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, 2h, 2w)."""
        result: Tensor = self.conv(functional.interpolate(x, scale_factor=2.0))
        return result


class First(nn.Conv2d):
    """The first convolution, which needs no time."""

    def forward(self, x: Tensor, _: Hints) -> Tensor:  # type: ignore[override]
        """(n, 4, h, w) to (n, width, h, w)."""
        return super().forward(x)


def timestep_embedding(t: Tensor) -> Tensor:
    """Time steps (n,) of 0..999 as CHANNELS cosines and sines of falling frequency."""
    half = CHANNELS // 2
    angle = t[:, None].float() * torch.exp(torch.arange(half) * (-math.log(10000) / half))
    return torch.cat([angle.cos(), angle.sin()], -1)


class Trunk(nn.Module):
    """The first half of the diffusion model, down to the middle; a ControlNet is a second one beside it."""

    def __init__(self, inputs: int = 4) -> None:
        super().__init__()
        a, b, c = WIDTHS
        self.time_embed = nn.Sequential(nn.Linear(CHANNELS, TIME_WIDTH), nn.SiLU(), nn.Linear(TIME_WIDTH, TIME_WIDTH))
        blocks: list[list[nn.Module]] = [
            [First(inputs, a, 3, padding=1)], [Residual(a, a)], [Down(a)],
            [Residual(a, b), Transformer(b)], [Down(b)], [Residual(b, c)],
        ]  # fmt: skip
        self.input_blocks = nn.ModuleList(nn.ModuleList(block) for block in blocks)
        self.middle_block = nn.ModuleList([Residual(c, c), Transformer(c), Residual(c, c)])

    def descend(self, x: Tensor, hints: Hints, guide: Tensor | None = None) -> list[Tensor]:
        """What each input block leaves for the way back up, and the middle. `guide` is added after the first block."""
        kept: list[Tensor] = []
        for block in self.input_blocks:
            for layer in block:  # type: ignore[attr-defined]
                x = layer(x, hints)
            if guide is not None and not kept:
                x = x + guide
            kept.append(x)
        for layer in self.middle_block:
            x = layer(x, hints)
        return [*kept, x]

    def hints(self, t: Tensor, context: Tensor, bias: Tensor) -> Hints:
        """Steps t (n,), the context and its bias as the layers take them."""
        return Hints(self.time_embed(timestep_embedding(t)), context, bias)


class Narrow(Trunk):
    """The diffusion model together with its table of token vectors (`table`).

    `inputs`: 4, or 9 for an inpainting model (noisy latents, mask, and the latents of the picture without the hole).
    """

    waves: Tensor

    def __init__(self, inputs: int = 4) -> None:
        super().__init__(inputs)
        a, b, c = WIDTHS
        blocks: list[list[nn.Module]] = [
            [Residual(c + c, c, True)], [Residual(c + b, c, True), Up(c, b)],
            [Residual(b + b, b, True), Transformer(b)], [Residual(b + a, b, True), Transformer(b), Up(b, a)],
            [Residual(a + a, a, True)], [Residual(a + a, a, True)],
        ]  # fmt: skip
        self.output_blocks = nn.ModuleList(nn.ModuleList(block) for block in blocks)
        self.out = nn.Sequential(nn.GroupNorm(a // 10, a), nn.SiLU(), nn.Conv2d(a, 4, 3, padding=1))
        self.table = nn.Parameter(torch.randn(ROW_COUNT, OWN))
        self.register_buffer("waves", torch.tensor(positions()), persistent=False)

    def encode(self, rows: Tensor) -> Tensor:
        """What the text encoder by formula makes of rows (n, length): context (n, length, 384)."""
        vectors = functional.normalize(self.table, dim=1)[rows] * LENGTH
        n, length, _ = vectors.shape
        first = vectors.new_zeros(n, length, CONTEXT)
        first[..., :OWN] = vectors
        first[..., POSITION] = self.waves[:length]
        copied = functional.layer_norm(first, (CONTEXT,))[..., :OWN] * COPY
        place = torch.arange(length)
        before = [copied[:, (place - back).clamp(min=0)] for back in range(1, BACK + 1)]
        full = torch.cat([first[..., : BEFORE.start], *before, first[..., BEFORE.stop :]], -1)
        return functional.layer_norm(full, (CONTEXT,))[..., torch.tensor(USED)]

    def forward(
        self, x: Tensor, t: Tensor, context: Tensor, bias: Tensor, control: list[Tensor] | None = None
    ) -> Tensor:
        """Noisy latents (n, inputs, h, w) at steps t (n,), context, its logit bias (tokens,): the noise (n, 4, h, w).

        `control` is what a ControlNet adds to each of the tensors that `descend` returns.
        """
        hints = self.hints(t, context, bias)
        kept = self.descend(x, hints)
        if control is not None:
            kept = [own + added for own, added in zip(kept, control, strict=True)]
        x = kept.pop()
        for block in self.output_blocks:
            x = torch.cat([x, kept.pop()], 1)
            for layer in block:  # type: ignore[attr-defined]
                x = layer(x, hints)
        result: Tensor = self.out(x)
        return result
