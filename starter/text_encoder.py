"""Computes the weights of the text encoder around a small trained table; only CLIP's shape and tokenizer are needed.

Layer 0 has LOOKBACK attention heads. Head k copies the vector of the token k places back, so that "circle" is known to
be "red" and "background" to be "blue". The other layers have no effect. The 768 channels:

    0:64     the token's own vector (trained, scaled to length 8)
    64:190   the position, as waves and their negatives, so that it does not change a layer norm's mean
    192:512  the vectors of the tokens before it

A head attends to position p - k because the product of the waves, rotated by k steps, has its maximum there. Where no
such position exists (p < k), a constant "sink" attracts the head to position 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from starter.layout import CONTEXT, text_encoder_shapes
from starter.vocabulary import PROMPT_LENGTH, ROWS, TOKEN_IDS

Array = npt.NDArray[np.float32]

TOKEN_WIDTH = 64
"""Channels of a token's vector, and of a head of CLIP-L."""
LOOKBACK = 5
"""Tokens that a token can look back; "square left of a circle" needs five."""
VECTOR_LENGTH = 8.0
WAVES = 31
POSITION_CHANNELS = slice(TOKEN_WIDTH, TOKEN_WIDTH + 4 * WAVES + 2)
CONTEXT_CHANNELS = slice(3 * TOKEN_WIDTH, (3 + LOOKBACK) * TOKEN_WIDTH)
USED_CHANNELS = np.concatenate([np.arange(TOKEN_WIDTH), np.arange(CONTEXT_CHANNELS.start, CONTEXT_CHANNELS.stop)])
"""The 384 channels that the diffusion model uses; the narrow model has only these."""
COPY = 0.4
"""Compensates the layer norm before the head, which makes vectors about 2.4 times longer."""
SHARPNESS = 2.0
"""Scale of queries and of keys; the right position then has an attention weight e^30 times that of others."""
SINK = 0.5


def position_channels() -> Array:
    """Position channels (77, 126): waves, the sink, and the negatives of both."""
    place, wave = np.arange(PROMPT_LENGTH)[:, None], np.arange(1, WAVES + 1)[None, :]
    angle = 2 * np.pi * place * wave / PROMPT_LENGTH
    # Damp the short waves, so that the maximum has no side lobes that could attract a head.
    weight = np.exp(-0.5 * (0.6 * 2 * np.pi * wave / PROMPT_LENGTH) ** 2)
    weight = np.sqrt(weight / weight.sum())
    half = np.concatenate([weight * np.cos(angle), weight * np.sin(angle), place == 0], 1)
    half[:, -1] *= 0.7
    return np.asarray(np.concatenate([half, -half], 1) * VECTOR_LENGTH / 2**0.5, np.float32)


def normalise_rows(table: Array) -> Array:
    """Scale the rows to VECTOR_LENGTH: all tokens have the same effect in the layer norms, so heads work for all."""
    return np.asarray(table * VECTOR_LENGTH / np.linalg.norm(table, axis=1, keepdims=True), np.float32)


def token_vectors(table: Array, words: str) -> npt.NDArray[np.float16]:
    """Return the token embeddings of known words: (tokens, 768)."""
    rows = [ROWS[token] for word in words.split() for token in TOKEN_IDS[word]]
    vectors = np.zeros((len(rows), CONTEXT), np.float16)
    vectors[:, :TOKEN_WIDTH] = normalise_rows(table)[rows]
    return vectors


def build_text_encoder(table: Array) -> dict[str, npt.NDArray[np.float16]]:
    """Build the text encoder from a trained table (rows, TOKEN_WIDTH); `starter.vocabulary` has its rows."""
    weights = {name: np.zeros(shape, np.float16) for name, shape in text_encoder_shapes().items()}
    for name, weight in weights.items():
        if "norm" in name and name.endswith("weight"):
            weight[:] = 1
    vectors = normalise_rows(table)
    tokens = weights["embeddings.token_embedding.weight"]
    tokens[:, :TOKEN_WIDTH] = vectors[0]
    for token, row in ROWS.items():
        tokens[token, :TOKEN_WIDTH] = vectors[row]
    weights["embeddings.position_embedding.weight"][:, POSITION_CHANNELS] = position_channels()
    attention = "encoder.layers.0.self_attn."
    query, key = weights[attention + "q_proj.weight"], weights[attention + "k_proj.weight"]
    value, out = weights[attention + "v_proj.weight"], weights[attention + "out_proj.weight"]
    start, wave = TOKEN_WIDTH, np.arange(1, WAVES + 1)
    cosine, sine = start + np.arange(WAVES), start + WAVES + np.arange(WAVES)
    for head in range(LOOKBACK):
        row = TOKEN_WIDTH * head
        step = 2 * np.pi * wave * (head + 1) / PROMPT_LENGTH
        into_cosine, into_sine = row + np.arange(WAVES), row + WAVES + np.arange(WAVES)
        # The query is rotated back by head + 1 positions.
        query[into_cosine, cosine] = query[into_sine, sine] = SHARPNESS * np.cos(step)
        query[into_cosine, sine] = SHARPNESS * np.sin(step)
        query[into_sine, cosine] = -SHARPNESS * np.sin(step)
        key[into_cosine, cosine] = key[into_sine, sine] = SHARPNESS
        key[row + 2 * WAVES, start + 2 * WAVES] = SHARPNESS
        # The layer norm scales the waves in the query; the sink's constant equals a wave product of about SINK.
        weights[attention + "q_proj.bias"][row + 2 * WAVES] = SHARPNESS * SINK * sink_scale()
        value[row + np.arange(TOKEN_WIDTH), np.arange(TOKEN_WIDTH)] = 1
        out[CONTEXT_CHANNELS.start + row + np.arange(TOKEN_WIDTH), row + np.arange(TOKEN_WIDTH)] = COPY
    return weights


def sink_scale() -> float:
    """Return the query's constant with which the sink counts as much as a full match of the waves."""
    deviation = (2 * VECTOR_LENGTH**2 / CONTEXT) ** 0.5
    amplitude = VECTOR_LENGTH / 2**0.5
    return float(amplitude / deviation / 0.7)
