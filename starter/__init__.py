"""The built-in starter model: a small checkpoint in Stable Diffusion 1.5 layout, so that all runs with no download.

What a user's machine runs needs numpy and safetensors alone: `assemble` writes the file, `layout` names its tensors,
`formula` computes the diffusion model and the text encoder. What made the weights of the autoencoder needs torch:
`train_autoencoder` with `autoencoder`, `optimiser`, `scenes` and `textures`, then `compact`.
"""

CHECKPOINT_NAME = "dream-layer-starter.safetensors"
