"""The trainable ControlNet: a copy of the diffusion model's encoder that also sees a picture of edges.

Its outputs are added to the skip connections of the model. Names and order are those of the layout, so
`starter.widening` can widen it. Its last layers start at zero, so that it has no effect at first.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from starter.training.unet import NarrowUNet, UNetEncoder
from starter.widening import HINT_WIDTHS, WIDTHS

STRIDES = (1, 1, 2, 1, 2, 1, 2, 1)


class NarrowControlNet(UNetEncoder):
    """Edges (n, 3, 8h, 8w) in 0..1 and noisy latents (n, 4, h, w) to the additions of `NarrowUNet.forward`."""

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
    def for_model(cls, model: NarrowUNet) -> NarrowControlNet:
        """Create an untrained ControlNet for a trained model."""
        control = cls()
        own = control.state_dict()
        control.load_state_dict(own | {name: weight for name, weight in model.state_dict().items() if name in own})
        return control

    def forward(self, x: Tensor, t: Tensor, context: Tensor, bias: Tensor, edges: Tensor) -> list[Tensor]:
        """Return what to add to each tensor of `UNetEncoder.encode_latents`."""
        features = self.encode_latents(x, self.conditioning(t, context, bias), self.input_hint_block(edges))
        last = [*(zero[0] for zero in self.zero_convs), self.middle_block_out[0]]  # type: ignore[index]
        return [convolution(tensor) for convolution, tensor in zip(last, features, strict=True)]
