"""Which field of a request an input of a node comes from, so that an objection to the graph names the field."""

FIELD_OF_INPUT = {
    ("CheckpointLoaderSimple", "ckpt_name"): "model_name",
    ("UNETLoader", "unet_name"): "model_name",
    ("CLIPLoader", "clip_name"): "text_encoders",
    ("CLIPLoader", "type"): "text_encoders",
    ("DualCLIPLoader", "type"): "text_encoders",
    ("DualCLIPLoader", "clip_name1"): "text_encoders",
    ("DualCLIPLoader", "clip_name2"): "text_encoders",
    ("TripleCLIPLoader", "clip_name1"): "text_encoders",
    ("TripleCLIPLoader", "clip_name2"): "text_encoders",
    ("TripleCLIPLoader", "clip_name3"): "text_encoders",
    ("VAELoader", "vae_name"): "vae_name",
    ("LoraLoader", "lora_name"): "lora.lora_name",
    ("CLIPTextEncode", "text"): "prompt",
    ("ControlNetLoader", "control_net_name"): "controlnet.units.model",
    ("EmptyLatentImage", "width"): "width",
    ("EmptyLatentImage", "height"): "height",
    ("ImageCrop", "width"): "width",
    ("ImageCrop", "height"): "height",
    ("LoadImage", "image"): "input_image",
    ("LoadImageMask", "image"): "mask",
    ("VAEEncodeForInpaint", "grow_mask_by"): "grow_mask_by",
    ("KSampler", "seed"): "seed",
    ("KSampler", "steps"): "steps",
    ("KSampler", "cfg"): "cfg_scale",
    ("KSampler", "sampler_name"): "sampler_name",
    ("KSampler", "scheduler"): "scheduler",
    ("KSampler", "denoise"): "denoising_strength",
    ("KSamplerAdvanced", "sampler_name"): "sampler_name",
    ("KSamplerAdvanced", "scheduler"): "scheduler",
    ("BasicScheduler", "scheduler"): "scheduler",
    ("UpscaleModelLoader", "model_name"): "upscaler",
    ("FaceRestoreModelLoader", "model_name"): "face_restoration_model",
}

# Nodes that a stock engine does not have: the field that asks for them, and where they come from.
FIELD_OF_NODE = {
    "SeamlessTile": ("tiling", "the custom nodes ComfyUI-seamless-tiling"),
    "CircularVAEDecode": ("tiling", "the custom nodes ComfyUI-seamless-tiling"),
    "FaceRestoreModelLoader": ("restore_faces", "the custom nodes facerestore_cf"),
    "FaceRestoreCFWithModel": ("restore_faces", "the custom nodes facerestore_cf"),
}
