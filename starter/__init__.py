"""The built-in starter model: a small checkpoint in Stable Diffusion 1.5 layout, so that all runs with no download.

What a user's machine runs needs numpy and safetensors alone: `assemble` writes the file, `layout` names its tensors,
`text` computes the text encoder around a small table for the known `words`, `wide` puts the trained narrow layers where
the loader wants them, and `quantise` reads their compact file.

What made the weights needs torch, in this order: `train_autoencoder` (with `autoencoder`, `scenes`, `textures`),
`dataset` (`captions`), `train_model` (`narrow`, `optimiser`), and `compact`. `evaluate` then asks a running engine and
reads the answers off the pixels (`reading`).
"""

CHECKPOINT_NAME = "dream-layer-starter.safetensors"
