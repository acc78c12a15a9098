"""Changes of low rank to a trained model: a LoRA, or a whole checkpoint that costs a twentieth of one to keep.

A change of a weight matrix is the product of a tall and a wide one, `up @ down`; only those two are trained and kept.
Convolutions count as matrices (outputs, inputs x 3 x 3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from starter.training.narrow import Narrow

UP, DOWN, WHOLE = ".up", ".down", ".whole"
"""Endings of the kept tensors' names: the two factors, or a tensor that is replaced altogether."""
UNTOUCHED = ("table", "time_embed", "input_blocks.0.0", "out.")


class LowRank(nn.Module):
    """A frozen model with a trainable change. `whole`: names of weights that are trained themselves."""

    def __init__(self, base: Narrow, rank: int, whole: tuple[str, ...] = ()) -> None:
        super().__init__()
        # Not a submodule: its weights are no part of what is trained and kept.
        self.base = (base.requires_grad_(False),)
        self.frozen = dict(base.named_parameters())
        self.factors = nn.ParameterDict()
        for name, weight in self.frozen.items():
            if name in whole:
                self.factors[_key(name + WHOLE)] = weight.clone()
            elif weight.ndim >= 2 and not name.startswith(UNTOUCHED):
                columns = weight[0].numel()
                self.factors[_key(name + UP)] = torch.zeros(len(weight), rank)
                self.factors[_key(name + DOWN)] = torch.randn(rank, columns) * columns**-0.5

    def changed(self) -> dict[str, Tensor]:
        """The base's weights with the change made, as far as it changes them."""
        weights: dict[str, Tensor] = {}
        for name, weight in self.frozen.items():
            if _key(name + WHOLE) in self.factors:
                weights[name] = self.factors[_key(name + WHOLE)]
            elif _key(name + UP) in self.factors:
                change = self.factors[_key(name + UP)] @ self.factors[_key(name + DOWN)]
                weights[name] = weight + change.view_as(weight)
        return weights

    def forward(self, x: Tensor, t: Tensor, rows: Tensor, bias: Tensor) -> Tensor:
        """As `Narrow.forward`, with rows of captions for the context."""
        base = self.base[0]
        result: Tensor = functional_call(base, self.changed(), (x, t, base.encode(rows), bias))
        return result


def _key(name: str) -> str:
    """A parameter's name may not hold dots."""
    return name.replace(".", "/")


def plain_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of `LowRank` with the names of the model's own weights and the endings UP, DOWN and WHOLE."""
    return {name.removeprefix("factors.").replace("/", "."): tensor for name, tensor in state.items()}
