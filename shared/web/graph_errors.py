"""Translates graph errors into errors of the request's fields."""

from collections.abc import Sequence
from typing import Any

from shared.engine.check_graph import Problem
from shared.errors import DreamLayerError, EngineRejected, InvalidValue
from shared.graph_walk import ApiGraph
from shared.web.backend import Backend
from workflows.graph_builder import Graph


def checked(backend: Backend, graph: Graph) -> ApiGraph:
    """Convert a graph to the API format and check it against the engine. Raises the error of `graph_error`."""
    nodes = graph.to_api()
    problems = backend.catalog.check(nodes)
    if problems:
        raise graph_error(problems)
    return nodes


def graph_error(problems: Sequence[Problem]) -> DreamLayerError:
    """Return the error for the problems (one or more) that the engine's node definitions show in our own graph.

    For a value that the client sent, it is InvalidValue with the field, the value and the closest ones. Anything else
    means that this engine is incompatible.
    """
    for problem in problems:
        if problem.kind == "unknown_node" and (missing := _missing_node(problem)) is not None:
            return missing
        field = FIELD_OF_INPUT.get((problem.class_type, problem.input or ""))
        if field is not None and problem.kind in ("not_in_list", "out_of_range", "wrong_type"):
            return _invalid_value(problem, field)
    return EngineRejected(
        f"this engine is incompatible: {problems[0].message}",
        hint="use ComfyUI 0.30, which `up` installs unless a setting names another engine",
        problems=[{"node": problem.node, "message": problem.message} for problem in problems],
    )


def _missing_node(problem: Problem) -> InvalidValue | None:
    """Return the error for a missing custom node that a field needs; None for any other node."""
    field, source = FIELD_OF_NODE.get(problem.class_type, ("", ""))
    if not field:
        return None
    return InvalidValue(
        f"{field} needs the node {problem.class_type}, which this engine does not have",
        field=field,
        hint=f"put {source} into data/custom_nodes and restart, or leave {field} out",
        node=problem.class_type,
    )


def _invalid_value(problem: Problem, field: str) -> InvalidValue:
    if problem.kind != "not_in_list":
        return InvalidValue(problem.message.replace(str(problem.input), field, 1), field=field, value=problem.value)
    nearest: list[Any] = problem.nearest or list(problem.options[:10])
    return InvalidValue(
        f"{field} {problem.value!r} does not exist",
        field=field,
        hint=f"use {' or '.join(map(str, nearest))}" if nearest else "install one: the engine has none yet",
        value=problem.value,
        nearest=nearest,
    )


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
