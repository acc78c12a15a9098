"""A diffusion model and a text encoder by formula, without any training: soft clouds in the colours a prompt names.

The text encoder passes token vectors through: all its layers are zero but for the identity. A colour's token lights one
dimension, any other token one of many; both are read by a single cross-attention, which looks for colours first.

The diffusion model predicts noise as the latent itself, shifted away from the latents of the colours that attention
brings, normalised, and slightly blurred, so that some of the coarse noise survives as clouds:

    noise = K * (x - colour) / rms(x - colour)        K: see BLUR

Written in the layers that the loader demands: conv_in copies each latent channel x into a pair (x, -x) of a group of
its own; GroupNorm divides by the root mean square (the pair has mean 0); SiLU passes the sign through the pair, since
silu(x) - silu(-x) = x; and the last convolution takes the difference. Everything between adds zero.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from starter.layout import CHANNELS, CONTEXT, TOKENS, text_encoder, unet

Weights = dict[str, npt.NDArray[np.float16]]
Array = npt.NDArray[np.float32]

COLOUR_TOKENS = {
    "red": (736, 19437, 20389, 20501),
    "orange": (4287,),
    "yellow": (4481, 2209),
    "green": (1901, 11193),
    "cyan": (1470, 22821, 19899),
    "blue": (1746, 5598),
    "purple": (5496, 16118, 38091),
    "pink": (3360,),
    "brown": (2866,),
    "black": (1449,),
    "gray": (7048, 5046, 3467),
    "white": (1579, 26677),
}
"""Ids of the colours' words and of some synonyms in CLIP's vocabulary (such as crimson, teal, navy, gold)."""

GROUP = CHANNELS // 32
HEAD = CHANNELS // 8
OTHER_WORDS = 512
"""Words that are no colours share this many dimensions; each of those tints a little, so that every word counts."""
FIRST_OTHER = 64
SILENT = 63
LIT = CONTEXT**0.5
"""What a layer norm makes of a vector with a single one in it."""
PULL = 0.13
"""How strongly a colour pulls. Guidance multiplies the shift by the cfg scale, and ten steps of a sampler by about two:
at the usual 5 this brings the mean of a picture a little past the colour, which looks best."""
BLUR = 0.055
"""The kernel K is the identity minus BLUR times a box of 3 x 3: of the noise that sampling starts from, some twentieth
is left as clouds."""


def text_weights() -> Weights:
    """The text encoder: token vectors in, token vectors out."""
    weights = {name: np.zeros(shape, np.float16) for name, shape in text_encoder().items()}
    for name in weights:
        if "norm" in name and name.endswith("weight"):
            weights[name][:] = 1
    table = weights["embeddings.token_embedding.weight"]
    words = np.arange(TOKENS - 2)
    table[words, FIRST_OTHER + words % OTHER_WORDS] = 1
    # The last two mark the beginning and the end, and fill a prompt up: they say nothing.
    table[TOKENS - 2 :, SILENT] = 1
    for dimension, tokens in enumerate(COLOUR_TOKENS.values()):
        for token in tokens:
            table[token] = 0
            table[token, dimension] = 1
    return weights


def unet_weights(colour_latents: Array) -> Weights:
    """The diffusion model, given the latents (12, 4) of the colours in the order of COLOUR_TOKENS."""
    weights = {name: np.zeros(shape, np.float16) for name, shape in unet().items()}
    for name in weights:
        # The only weights of one dimension are those of norms.
        if name.endswith("weight") and weights[name].ndim == 1:
            weights[name][:] = 1
    positive, negative = GROUP * np.arange(4), GROUP * np.arange(4) + 1
    centre = (slice(None), slice(None), 1, 1)
    conv_in = weights["input_blocks.0.0.weight"][centre]
    conv_in[positive, np.arange(4)] = 1
    conv_in[negative, np.arange(4)] = -1
    # The last block gets what conv_in made, by the skip, in the second half of its input.
    skip = weights["output_blocks.1.0.skip_connection.weight"][..., 0, 0]
    skip[np.arange(CHANNELS), CHANNELS + np.arange(CHANNELS)] = 1
    _attend_to_colours(weights, "output_blocks.1.1", colour_latents, positive, negative)
    kernel = np.full((3, 3), -BLUR / 9)
    kernel[1, 1] += 1
    # A pair in a group of ten has a fifth of the group's variance each way: GroupNorm makes it sqrt(5) too large.
    kernel /= (GROUP / 2) ** 0.5
    weights["out.2.weight"][np.arange(4), positive] = kernel
    weights["out.2.weight"][np.arange(4), negative] = -kernel
    return weights


def _attend_to_colours(
    weights: Weights, name: str, colour_latents: Array, positive: npt.NDArray[np.int_], negative: npt.NDArray[np.int_]
) -> None:
    """Cross-attention that brings the mean latent of the colours in the prompt and subtracts it from every pixel."""
    block = f"{name}.transformer_blocks.0"
    colours = len(colour_latents)
    # proj_in is zero, so the query is what the layer norm's bias says: the same everywhere, and always "colours?".
    weights[f"{block}.norm2.bias"][0] = 1
    weights[f"{block}.attn2.to_q.weight"][0, 0] = 8
    weights[f"{block}.attn2.to_k.weight"][0, :colours] = 1
    values = weights[f"{block}.attn2.to_v.weight"]
    values[:4, :colours] = PULL * colour_latents.T / LIT
    # The other words are spread over the 77 places of a prompt, so each of them must speak louder.
    random = np.random.RandomState(1).standard_normal((4, OTHER_WORDS))
    values[:4, FIRST_OTHER : FIRST_OTHER + OTHER_WORDS] = PULL * 12 * random / LIT
    weights[f"{block}.attn2.to_out.0.weight"][np.arange(HEAD), np.arange(HEAD)] = 1
    proj_out = weights[f"{name}.proj_out.weight"][..., 0, 0]
    proj_out[positive, np.arange(4)] = -1
    proj_out[negative, np.arange(4)] = 1
