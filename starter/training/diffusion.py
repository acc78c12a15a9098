"""Diffusion: the noise schedule of Stable Diffusion 1.5, and what a model that predicts noise is trained on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from starter.training.captions import encode
from starter.training.dataset import LENGTH, Shard
from starter.words import PLACES

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(noisy latents, steps, rows of captions) to the noise that was in them."""

STEPS = 1000
DROPPED = 0.1
"""Share of samples trained without their caption, which is what guidance and negative prompts need."""
LATE = 650
"""A third of the samples come from steps beyond this one, where colours and layout are decided."""


def kept_signal() -> Tensor:
    """Stable Diffusion 1.5's schedule: share of the signal's variance left at each of the 1000 steps."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64).square()
    return (1 - betas).cumprod(0).float()


def token_bias() -> Tensor:
    """Logit bias (LENGTH,): the last of the rows stands for all the END tokens up to PLACES, which are all alike."""
    bias = torch.zeros(LENGTH)
    bias[-1] = float(np.log(PLACES - LENGTH + 1))
    return bias


def sample_steps(rng: np.random.Generator, count: int) -> Tensor:
    """Time steps (count,), spread evenly over the batch, a third of them late."""
    share = (np.arange(count) + rng.random(count)) / count
    late = rng.random(count) < 1 / 3
    return torch.tensor(np.where(late, LATE + share * (STEPS - LATE), share * STEPS).astype(np.int64))


def loss_of(predict: Predict, sample: Shard, rng: np.random.Generator, signal: Tensor) -> Tensor:
    """Squared error of the predicted noise, weighted, for a batch of the bank. `signal` is `kept_signal()`."""
    latents = torch.tensor(sample["latents"]).float()
    rows = torch.tensor(sample["rows"].astype(np.int64))
    rows[torch.tensor(rng.random(len(rows)) < DROPPED)] = torch.tensor(encode("", LENGTH))
    steps = sample_steps(rng, len(rows))
    kept = signal[steps][:, None, None, None]
    noise = torch.randn_like(latents)
    noisy = (kept.sqrt() * latents + (1 - kept).sqrt() * noise).contiguous(memory_format=torch.channels_last)
    # As an error of the picture: never more than 5 (early steps are many and easy), never less than 0.05 (in late ones
    # a small error of noise is a large one of the picture, and that decides the colours).
    ratio = kept / (1 - kept)
    weight = ratio.clamp(0.05, 5) / ratio
    error: Tensor = weight * (predict(noisy, steps, rows) - noise).square()
    return error.mean()
