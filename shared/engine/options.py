"""What a client can choose from, as one JSON object: everything that the engine has, and what each file is."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

from shared.engine.catalog import Catalog
from shared.models.defaults import defaults_for
from shared.models.detect import Family, ModelFile

FOLDERS = (
    "checkpoints",
    "diffusion_models",
    "loras",
    "vae",
    "text_encoders",
    "upscale_models",
    "controlnet",
    "embeddings",
)
# What the engine itself can make control maps with.
BUILT_IN = ("none", "canny")
FACES = ("FaceRestoreModelLoader", "FaceRestoreCFWithModel")
SEAMLESS = ("SeamlessTile", "CircularVAEDecode")
# Seconds. Nodes come and go with a restart of the engine only, and to ask for each takes a request.
NODES_AGE = 10.0
AT_ONCE = 8


def engine_options(catalog: Catalog, preprocessors: Mapping[str, str]) -> dict[str, Any]:
    """All choices; `preprocessors` are the classes of custom nodes by the names that clients know them by.

    Raises EngineUnavailable if the engine is away and was never asked.
    """
    _ask_at_once(catalog, {*preprocessors.values(), *FACES, *SEAMLESS})

    def files(folder: str, *about: Callable[[ModelFile], dict[str, Any]]) -> list[dict[str, Any]]:
        found = [catalog.model_file(folder, name) for name in catalog.names(folder)]
        return [{"name": file.name, **{k: v for tell in about for k, v in tell(file).items()}} for file in found]

    def has(*classes: str) -> bool:
        return all(catalog.has_node(each, NODES_AGE) for each in classes)

    return {
        "samplers": catalog.choices("KSampler", "sampler_name"),
        "schedulers": catalog.choices("KSampler", "scheduler"),
        "checkpoints": files("checkpoints", _model),
        "diffusion_models": files("diffusion_models", _model),
        "loras": catalog.names("loras"),
        "vaes": files("vae", lambda file: {"latent_channels": file.latent_channels}),
        "text_encoders": files("text_encoders", lambda file: {"kind": file.text_encoder.value}),
        "upscalers": catalog.names("upscale_models"),
        "controlnets": files("controlnet", _family, lambda file: {"union": file.union}),
        # A prompt names an embedding without its extension.
        "embeddings": [str(PurePosixPath(name).with_suffix("")) for name in catalog.names("embeddings")],
        "preprocessors": [*BUILT_IN, *(name for name, each in preprocessors.items() if has(each))],
        "face_restoration": {
            "available": has(*FACES),
            "models": catalog.choices(FACES[0], "model_name") if has(*FACES) else [],
        },
        "seamless_tiling": {"available": has(*SEAMLESS)},
    }


def _ask_at_once(catalog: Catalog, classes: set[str]) -> None:
    """Everything that takes a request, side by side, so that the catalog knows it a moment later."""
    questions: list[Callable[[], object]] = [
        *(lambda folder=folder: catalog.names(folder) for folder in FOLDERS),
        lambda: catalog.choices("KSampler", "scheduler"),
        *(lambda each=each: catalog.has_node(each, NODES_AGE) for each in classes),
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for answer in [pool.submit(question) for question in questions]:
            answer.result()


def _model(file: ModelFile) -> dict[str, Any]:
    return {**_family(file), "inpainting": file.inpainting, "defaults": asdict(defaults_for(file))}


def _family(file: ModelFile) -> dict[str, Any]:
    # "unknown" would look like a name to choose.
    return {"family": "other" if file.family is Family.UNKNOWN else file.family.value}
