"""Graphs as clients send them."""

from typing import Any

ShortGraph = dict[str, tuple[str, dict[str, Any]]]


def to_api(nodes: ShortGraph) -> dict[str, Any]:
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def default_graph(**more: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """The default graph of ComfyUI, with nodes added or replaced."""
    nodes: ShortGraph = {
        "ckpt": ("CheckpointLoaderSimple", {"ckpt_name": "old.safetensors"}),
        "good": ("CLIPTextEncode", {"text": "old", "clip": ["ckpt", 1]}),
        "bad": ("CLIPTextEncode", {"text": "old bad", "clip": ["ckpt", 1]}),
        "empty": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "sampler": ("KSampler", sampling("empty")),
        "decode": ("VAEDecode", {"samples": ["sampler", 0], "vae": ["ckpt", 2]}),
        "save": ("SaveImage", {"images": ["decode", 0], "filename_prefix": "theirs"}),
    }
    return to_api({**nodes, **more})


def sampling(latent: str, **more: Any) -> dict[str, Any]:
    return {
        "model": ["ckpt", 0],
        "positive": ["good", 0],
        "negative": ["bad", 0],
        "latent_image": [latent, 0],
        "seed": 1,
        "steps": 20,
        "cfg": 8.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
        **more,
    }
