"""The trainable ControlNet: a second first half of the diffusion model that sees a picture of edges, at full size.

What it finds is added to what the model itself leaves for its way back up. Names and order are those of the layout, so
`starter.wide` can widen it; it starts as a copy of the model's own first half, and its last layers start at zero, so
that at first it changes nothing.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from starter.training.narrow import Narrow, Trunk
from starter.wide import HINT_WIDTHS, WIDTHS

STRIDES = (1, 1, 2, 1, 2, 1, 2, 1)


class Control(Trunk):
    """Edges (n, 3, 8h, 8w) in 0..1 beside noisy latents (n, 4, h, w) to what is added in `Narrow.forward`."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c = WIDTHS
        widths = (3, *HINT_WIDTHS, a)
        layers: list[nn.Module] = []
        for (inputs, outputs), stride in zip(itertools.pairwise(widths), STRIDES, strict=True):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, stride=stride), nn.SiLU()]
        self.input_hint_block = nn.Sequential(*layers[:-1])
        self.zero_convs = nn.ModuleList(nn.ModuleList([nn.Conv2d(w, w, 1)]) for w in (a, a, a, b, b, c))
        self.middle_block_out = nn.ModuleList([nn.Conv2d(c, c, 1)])
        for zero in [*self.zero_convs, self.middle_block_out]:
            for weight in zero.parameters():
                nn.init.zeros_(weight)

    @classmethod
    def beside(cls, model: Narrow) -> Control:
        """A fresh one for a trained model."""
        control = cls()
        mine = control.state_dict()
        control.load_state_dict(mine | {name: weight for name, weight in model.state_dict().items() if name in mine})
        return control

    def forward(self, x: Tensor, t: Tensor, context: Tensor, bias: Tensor, edges: Tensor) -> list[Tensor]:
        """What to add to each of the tensors of `Trunk.descend`."""
        kept = self.descend(x, self.hints(t, context, bias), self.input_hint_block(edges))
        last = [*(zero[0] for zero in self.zero_convs), self.middle_block_out[0]]  # type: ignore[index]
        return [convolution(tensor) for convolution, tensor in zip(last, kept, strict=True)]
