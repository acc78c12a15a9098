"""The Muon optimiser: momentum with orthogonal updates for hidden weight matrices; Adam trains everything else.

An orthogonal update changes all directions of a weight matrix equally, not only the few dominant ones. That roughly
halves the samples that a small network needs, for a tenth more time per step.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_STEPS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
"""Polynomials p(s) = a s + b s^3 + c s^5; applied in order, they map singular values in 0.01..1 to about 1."""


def orthogonalise(matrix: Tensor) -> Tensor:
    """Return approximately the nearest (semi-)orthogonal matrix.

    All five iterations work on the small Gram matrix, so the long side is used only twice.
    """
    wide: Tensor = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (torch.linalg.matrix_norm(wide) * 1.02 + 1e-8)
    gram = wide @ wide.T
    eye = torch.eye(gram.shape[0])
    product = eye
    for a, b, c in _STEPS:
        factor = a * eye + b * gram + c * (gram @ gram)
        product = factor @ product
        gram = factor @ gram @ factor
    result: Tensor = product @ wide
    return result if matrix.shape[0] <= matrix.shape[1] else result.T


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum, scaled so that Adam's learning rates fit (RMS of an update about 0.2 lr)."""

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, _closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                buffer = state["momentum"]
                buffer.lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(buffer, group["momentum"])
                flat = update.reshape(update.shape[0], -1)
                update = orthogonalise(flat).reshape(weight.shape)
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-group["lr"] * 0.2 * max(flat.shape) ** 0.5)


def split(named: Iterable[tuple[str, torch.nn.Parameter]], outer: tuple[str, ...]) -> tuple[list[Tensor], list[Tensor]]:
    """Split parameters into hidden matrices for Muon and everything else for Adam.

    Names that start with one of `outer` (first and last layers, embeddings) go to Adam: their rows have a meaning of
    their own, and must not be mixed.
    """
    hidden: list[Tensor] = []
    rest: list[Tensor] = []
    for name, weight in named:
        (hidden if weight.ndim >= 2 and not name.startswith(outer) else rest).append(weight)
    return hidden, rest
