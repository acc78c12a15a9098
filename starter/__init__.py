"""The built-in starter model: small checkpoints in Stable Diffusion 1.5 layout and a kit of parts that go with them,
so that everything runs, and is tested, with no download.

What a user's machine runs needs numpy and safetensors alone: `assemble` writes the files, `recipes` says what is in
them, `layout` names their tensors, `text` computes the text encoder around a small table for the known `words`, `wide`
puts the trained narrow layers where the loader wants them, `quantise` reads their compact files (`weights/`).
The services ask `tokenizer` which words of a prompt it knows.

`scenes` is what the model learned to draw; `evaluate` asks the running services for pictures and reads the answers off
the pixels (`reading`). What made the weights is in `training`.
"""

CHECKPOINT_NAME = "dream-layer-starter.safetensors"
PASTEL_NAME = "dream-layer-pastel.safetensors"
INPAINTING_NAME = "dream-layer-inpainting.safetensors"
VAE_NAME = "dream-layer-sepia.safetensors"
CHECKPOINT_NAMES = frozenset({CHECKPOINT_NAME, PASTEL_NAME, INPAINTING_NAME})
