"""A text encoder by formula around a small trained table: nothing of CLIP is needed but its shape and its tokenizer.

Layer 0 holds BACK attention heads that copy the 1, 2, .. BACK tokens before each token beside it, so that "circle"
knows it is "red" and "background" that it is "blue"; the other layers add nothing. Channels of the 768:

    0:64     the token's own vector (trained, scaled to length 8)
    64:190   the position, as waves and their negatives, so that it never moves a layer norm's mean
    192:512  the vectors of the tokens before it

A head finds the position p - k because a product of waves, rotated by k steps, peaks there. Where there is none (p < k)
a constant "sink" on position 0 draws it to the beginning of the prompt.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from starter.layout import CONTEXT, text_encoder
from starter.words import PLACES, ROWS, TOKEN_IDS

Array = npt.NDArray[np.float32]

OWN = 64
"""Channels of a token's vector, and of a head of CLIP-L."""
BACK = 5
"""How many tokens back a token can see: "square left of a circle" needs five."""
LENGTH = 8.0
WAVES = 31
POSITION = slice(OWN, OWN + 4 * WAVES + 2)
BEFORE = slice(3 * OWN, (3 + BACK) * OWN)
USED = np.concatenate([np.arange(OWN), np.arange(BEFORE.start, BEFORE.stop)])
"""The channels that the diffusion model reads (384); the narrow model knows only these."""
COPY = 0.4
"""A layer norm in front of the head makes vectors about 2.4 times longer: this takes it back."""
SHARPNESS = 2.0
"""Of queries and keys each; the right position then wins by more than e^30."""
SINK = 0.5


def positions() -> Array:
    """Position channels (77, 126) of every place: waves, the sink, and the negatives of both."""
    place, wave = np.arange(PLACES)[:, None], np.arange(1, WAVES + 1)[None, :]
    angle = 2 * np.pi * place * wave / PLACES
    # Less of the short waves: the peak gets no side lobes that a head could fall for.
    weight = np.exp(-0.5 * (0.6 * 2 * np.pi * wave / PLACES) ** 2)
    weight = np.sqrt(weight / weight.sum())
    half = np.concatenate([weight * np.cos(angle), weight * np.sin(angle), place == 0], 1)
    half[:, -1] *= 0.7
    return np.asarray(np.concatenate([half, -half], 1) * LENGTH / 2**0.5, np.float32)


def normalised(table: Array) -> Array:
    """Rows scaled to LENGTH: every token weighs the same in the layer norms, so heads work for all of them."""
    return np.asarray(table * LENGTH / np.linalg.norm(table, axis=1, keepdims=True), np.float32)


def token_vectors(table: Array, words: str) -> npt.NDArray[np.float16]:
    """What stands in the text encoder's table for some known words: (tokens, 768)."""
    rows = [ROWS[token] for word in words.split() for token in TOKEN_IDS[word]]
    vectors = np.zeros((len(rows), CONTEXT), np.float16)
    vectors[:, :OWN] = normalised(table)[rows]
    return vectors


def text_weights(table: Array) -> dict[str, npt.NDArray[np.float16]]:
    """All tensors of the text encoder for a trained table (rows, OWN); see `starter.words` for its rows."""
    weights = {name: np.zeros(shape, np.float16) for name, shape in text_encoder().items()}
    for name, weight in weights.items():
        if "norm" in name and name.endswith("weight"):
            weight[:] = 1
    vectors = normalised(table)
    tokens = weights["embeddings.token_embedding.weight"]
    tokens[:, :OWN] = vectors[0]
    for token, row in ROWS.items():
        tokens[token, :OWN] = vectors[row]
    weights["embeddings.position_embedding.weight"][:, POSITION] = positions()
    attention = "encoder.layers.0.self_attn."
    query, key = weights[attention + "q_proj.weight"], weights[attention + "k_proj.weight"]
    value, out = weights[attention + "v_proj.weight"], weights[attention + "out_proj.weight"]
    start, wave = OWN, np.arange(1, WAVES + 1)
    cosine, sine = start + np.arange(WAVES), start + WAVES + np.arange(WAVES)
    for head in range(BACK):
        row = OWN * head
        step = 2 * np.pi * wave * (head + 1) / PLACES
        into_cosine, into_sine = row + np.arange(WAVES), row + WAVES + np.arange(WAVES)
        # The query turned back by head + 1 places.
        query[into_cosine, cosine] = query[into_sine, sine] = SHARPNESS * np.cos(step)
        query[into_cosine, sine] = SHARPNESS * np.sin(step)
        query[into_sine, cosine] = -SHARPNESS * np.sin(step)
        key[into_cosine, cosine] = key[into_sine, sine] = SHARPNESS
        key[row + 2 * WAVES, start + 2 * WAVES] = SHARPNESS
        # A layer norm lengthens the waves in the query; the sink's constant stands for a wave product of about SINK.
        weights[attention + "q_proj.bias"][row + 2 * WAVES] = SHARPNESS * SINK * sink_scale()
        value[row + np.arange(OWN), np.arange(OWN)] = 1
        out[BEFORE.start + row + np.arange(OWN), row + np.arange(OWN)] = COPY
    return weights


def sink_scale() -> float:
    """What the query's constant must be for the sink to count as much as a full match of waves does."""
    deviation = (2 * LENGTH**2 / CONTEXT) ** 0.5
    amplitude = LENGTH / 2**0.5
    return float(amplitude / deviation / 0.7)
