"""The built-in starter model: small checkpoints in Stable Diffusion 1.5 layout and a kit of parts that work with them,
so that everything runs, and is tested, without a download.

On a user's machine, only numpy and safetensors are needed: `assemble` writes the files, `builders` computes their
tensors, `layout` has the tensor names and shapes, `text_encoder` computes the text encoder around a small table of the
known words (`vocabulary`), `widening` pads the trained narrow layers, and `quantisation` reads the compact weights in
`weights/`. The services use `tokenizer` to find the words of a prompt that the model knows.

`scenes` defines what the model learned to draw. `evaluate` requests pictures from the running services and checks them
with `shape_detection`. `training` has the code that produced the weights.
"""

CHECKPOINT_NAME = "dream-layer-starter.safetensors"
PASTEL_NAME = "dream-layer-pastel.safetensors"
INPAINTING_NAME = "dream-layer-inpainting.safetensors"
VAE_NAME = "dream-layer-sepia.safetensors"
CHECKPOINT_NAMES = frozenset({CHECKPOINT_NAME, PASTEL_NAME, INPAINTING_NAME})
