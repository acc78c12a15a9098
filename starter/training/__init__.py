"""What made the starter's weights. Needs torch and hours of two cores; nothing here runs on a user's machine.

In this order: `train_autoencoder` (with `autoencoder`, `textures`), `dataset` (`captions`; banks of latents),
`train_model` (`narrow`, the model), then `train_kit` (`lowrank`, `control`, `upscaler`), each on `loop` with
`optimiser`; what a diffusion model is trained on is in `diffusion`. `compact` packs what a run made for the repository.
"""
