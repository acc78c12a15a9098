"""Request bodies of the existing web page: every key, with the initial values of its form."""

from typing import Any

ORIGIN = "http://localhost:8080"

UNIT: dict[str, Any] = {
    "unit_index": 0, "enabled": True, "input_mode": "simple", "input_image": None, "control_type": "canny",
    "preprocessor": "canny", "model": "canny.safetensors", "weight": 1, "guidance_start": 0, "guidance_end": 1,
    "resolution": 512, "control_mode": "balanced", "resize_mode": "crop_resize", "threshold_a": 100, "threshold_b": 200,
    "pixel_perfect": False, "low_vram": False,
}  # fmt: skip


def generation(**changed: Any) -> dict[str, Any]:
    """Return the body that its Generate button sends; img2img adds `input_image`."""
    return {
        "prompt": "a cat", "negative_prompt": "", "model_name": "", "sampler_name": "dpm-2m-karras",
        "scheduler": "normal", "steps": 20, "cfg_scale": 7, "denoising_strength": 0.75, "width": 512, "height": 512,
        "batch_size": 4, "batch_count": 1, "seed": -1, "random_seed": True, "clip_skip": 1, "tiling": False,
        "tile_size": 512, "tile_overlap": 64, "hires_fix": False, "karras_sigmas": False, "lora": None,
        "restore_faces": False, "face_restoration_model": "codeformer", "codeformer_weight": 0.5, "gfpgan_weight": 0.5,
        "hires_fix_enabled": False, "hires_fix_upscale_method": "upscale-by", "hires_fix_upscale_factor": 2.5,
        "hires_fix_hires_steps": 15, "hires_fix_denoising_strength": 0.5, "hires_fix_resize_width": 4000,
        "hires_fix_resize_height": 4000, "hires_fix_upscaler": "4x-ultrasharp", "refiner_enabled": False,
        "refiner_model": "none", "refiner_switch_at": 0.8, "custom_workflow": None,
        **changed,
    }  # fmt: skip
