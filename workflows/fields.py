"""Which field of a request an input of a node comes from, so that an objection to the graph names the field."""

FIELD_OF_INPUT = {
    ("CheckpointLoaderSimple", "ckpt_name"): "model_name",
    ("CLIPTextEncode", "text"): "prompt",
    ("EmptyLatentImage", "width"): "width",
    ("EmptyLatentImage", "height"): "height",
    ("EmptyLatentImage", "batch_size"): "batch_size",
    ("ImageCrop", "width"): "width",
    ("ImageCrop", "height"): "height",
    ("RepeatLatentBatch", "amount"): "batch_size",
    ("RepeatImageBatch", "amount"): "batch_size",
    ("LoadImage", "image"): "input_image",
    ("LoadImageMask", "image"): "mask",
    ("VAEEncodeForInpaint", "grow_mask_by"): "grow_mask_by",
    ("KSampler", "seed"): "seed",
    ("KSampler", "steps"): "steps",
    ("KSampler", "cfg"): "cfg_scale",
    ("KSampler", "sampler_name"): "sampler_name",
    ("KSampler", "scheduler"): "scheduler",
    ("KSampler", "denoise"): "denoising_strength",
}
