"""The noise schedule of Stable Diffusion 1.5, and the loss of a model that predicts noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from starter.training.captions import encode_caption
from starter.training.dataset import LENGTH, Shard
from starter.vocabulary import PROMPT_LENGTH

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(noisy latents, steps, rows of captions) to the noise that was in them."""

STEPS = 1000
DROPPED = 0.1
"""Share of samples without a caption, for classifier-free guidance and negative prompts."""
LATE = 650
"""A third of the samples have later steps than this one, where colours and layout are decided."""


def signal_schedule() -> Tensor:
    """Stable Diffusion 1.5's schedule: the remaining share of the signal's variance at each of the 1000 steps."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64).square()
    return (1 - betas).cumprod(0).float()


def token_bias() -> Tensor:
    """Logit bias (LENGTH,): the last row stands for all END tokens up to PROMPT_LENGTH, which are equal."""
    bias = torch.zeros(LENGTH)
    bias[-1] = float(np.log(PROMPT_LENGTH - LENGTH + 1))
    return bias


def sample_steps(rng: np.random.Generator, count: int) -> Tensor:
    """Sample time steps (count,), spread evenly over the batch, a third of them late."""
    share = (np.arange(count) + rng.random(count)) / count
    late = rng.random(count) < 1 / 3
    return torch.tensor(np.where(late, LATE + share * (STEPS - LATE), share * STEPS).astype(np.int64))


def noise_loss(predict: Predict, sample: Shard, rng: np.random.Generator, signal: Tensor) -> Tensor:
    """Squared error of the predicted noise, weighted, for a batch of the dataset. `signal` is `signal_schedule()`."""
    latents = torch.tensor(sample["latents"]).float()
    rows = torch.tensor(sample["rows"].astype(np.int64))
    rows[torch.tensor(rng.random(len(rows)) < DROPPED)] = torch.tensor(encode_caption("", LENGTH))
    steps = sample_steps(rng, len(rows))
    kept = signal[steps][:, None, None, None]
    noise = torch.randn_like(latents)
    noisy = (kept.sqrt() * latents + (1 - kept).sqrt() * noise).contiguous(memory_format=torch.channels_last)
    # Weights as for an error of the picture, between 0.05 and 5: early steps are many and easy; in late steps, a small
    # error of the noise is a large one of the picture, and decides the colours.
    ratio = kept / (1 - kept)
    weight = ratio.clamp(0.05, 5) / ratio
    error: Tensor = weight * (predict(noisy, steps, rows) - noise).square()
    return error.mean()
