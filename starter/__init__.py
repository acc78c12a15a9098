"""The built-in starter model: a small Stable Diffusion 1.5 layout checkpoint that draws coloured shapes.

Two halves that never import each other's needs:

* assembly (numpy and safetensors only), what a user's machine runs: `assemble`, `compact`, `layout`, `text`;
* making the weights (torch), what an engineer runs: `scenes`, `narrow`, `autoencoder`, `optimiser`, `train_*`,
  and `evaluate`, which asks a running engine.
"""

CHECKPOINT_NAME = "dream-layer-starter.safetensors"
