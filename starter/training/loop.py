"""The training loop: stops after a given time, saves a checkpoint every two minutes, and resumes from it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from starter.training.optimiser import Muon, split

log = logging.getLogger(__name__)

LossFunction = Callable[[np.random.Generator], Tensor]
SAVE_EVERY = 120.0
AVERAGED = 0.995
"""Decay of the running average of the weights, over the last few hundred steps."""


@dataclass(frozen=True)
class TrainingPlan:
    """The parameters of a training run.

    `minutes`: the total training time, including earlier runs; `rate`: the learning rate, which falls to zero in the
    last `decay` of the time; `outer`: name prefixes of first and last layers (see `starter.training.optimiser.split`).
    """

    minutes: float
    rate: float = 2e-3
    decay: float = 0.5
    outer: tuple[str, ...] = ()


def prepare() -> None:
    """Log to the terminal, and use a GPU if there is one."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")


def train(model: nn.Module, loss_fn: LossFunction, path: Path, plan: TrainingPlan) -> None:
    """Train the parameters of `model` that require a gradient; resumes from `path`, and saves there.

    The file contains "average" and "model" (state dicts), "optimisers", "step" and "spent" (seconds).
    """
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    hidden, rest = split(named, plan.outer)
    optimisers: list[torch.optim.Optimizer] = []
    if hidden:
        optimisers.append(Muon(hidden, plan.rate))
    if rest:
        optimisers.append(torch.optim.AdamW(rest, plan.rate, betas=(0.9, 0.98), weight_decay=0.0))
    average = {name: value.clone() for name, value in model.state_dict().items()}
    step, before = 0, 0.0
    if path.exists():
        state = torch.load(path, map_location=torch.get_default_device(), weights_only=True)
        model.load_state_dict(state["model"])
        average, step, before = state["average"], state["step"], state["spent"]
        for optimiser, saved_state in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved_state)
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(time.time_ns())
    began = saved = time.monotonic()
    running: float | None = None

    def save() -> None:
        """Write to a temporary file and rename it, so that a killed run keeps the previous checkpoint."""
        state = {"model": model.state_dict(), "average": average, "step": step}
        state |= {"optimisers": [o.state_dict() for o in optimisers], "spent": before + time.monotonic() - began}
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    while (share := (before + time.monotonic() - began) / (60 * plan.minutes)) < 1:
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = plan.rate * min(1.0, (step + 1) / 40, (1 - share) / plan.decay + 0.01)
        loss = loss_fn(rng)
        model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([weight for _, weight in named], 1.0)
        for optimiser in optimisers:
            optimiser.step()
        step += 1
        for name, value in model.state_dict().items():
            average[name].lerp_(value, 1 - min(AVERAGED, (1 + step) / (10 + step)))
        running = loss.item() if running is None else running + 0.03 * (loss.item() - running)
        if step % 25 == 0:
            log.info("step %d, %.0f %%, loss %.4f", step, 100 * share, running)
        if time.monotonic() - saved > SAVE_EVERY:
            save()
            saved = time.monotonic()
    save()
