"""Low-rank changes of a trained model (LoRA), also for a checkpoint that takes a twentieth of the space.

The change of a weight matrix is the product of a tall and a wide matrix, `up @ down`; only these two are trained and
stored. Convolutions count as matrices (outputs, inputs x 3 x 3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from starter.training.unet import NarrowUNet

UP, DOWN, WHOLE = ".up", ".down", ".whole"
"""Suffixes of the stored tensors' names: the two factors, or a replaced tensor."""
UNCHANGED = ("table", "time_embed", "input_blocks.0.0", "out.")


class LowRank(nn.Module):
    """A frozen model with a trainable low-rank change. `whole`: names of weights that are trained directly."""

    def __init__(self, base: NarrowUNet, rank: int, whole: tuple[str, ...] = ()) -> None:
        super().__init__()
        # In a tuple, it is not a submodule: its weights are neither trained nor stored.
        self.base = (base.requires_grad_(False),)
        self.frozen = dict(base.named_parameters())
        self.factors = nn.ParameterDict()
        for name, weight in self.frozen.items():
            if name in whole:
                self.factors[_key(name + WHOLE)] = weight.clone()
            elif weight.ndim >= 2 and not name.startswith(UNCHANGED):
                columns = weight[0].numel()
                self.factors[_key(name + UP)] = torch.zeros(len(weight), rank)
                self.factors[_key(name + DOWN)] = torch.randn(rank, columns) * columns**-0.5

    def changed(self) -> dict[str, Tensor]:
        """Return the changed weights of the base."""
        weights: dict[str, Tensor] = {}
        for name, weight in self.frozen.items():
            if _key(name + WHOLE) in self.factors:
                weights[name] = self.factors[_key(name + WHOLE)]
            elif _key(name + UP) in self.factors:
                change = self.factors[_key(name + UP)] @ self.factors[_key(name + DOWN)]
                weights[name] = weight + change.view_as(weight)
        return weights

    def forward(self, x: Tensor, t: Tensor, rows: Tensor, bias: Tensor) -> Tensor:
        """As `NarrowUNet.forward`, with rows of captions for the context."""
        base = self.base[0]
        result: Tensor = functional_call(base, self.changed(), (x, t, base.encode(rows), bias))
        return result


def _key(name: str) -> str:
    """Return a valid parameter name, which must not contain dots."""
    return name.replace(".", "/")


def plain_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of `LowRank` to the model's own names with the suffixes UP, DOWN and WHOLE."""
    return {name.removeprefix("factors.").replace("/", "."): tensor for name, tensor in state.items()}
