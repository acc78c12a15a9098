"""The training of the starter's weights. Needs torch and hours of two cores; nothing here runs on a user's machine.

In this order: `train_autoencoder` (with `autoencoder`, `textures`), `dataset` (with `captions`), `train_model` (with
`unet`), then `train_kit` (with `low_rank`, `controlnet`). All use `loop`, `optimiser` and `diffusion`. `pack_weights`
packs the results for the repository.
"""
