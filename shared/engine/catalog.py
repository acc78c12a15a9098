"""What the engine has: model files, node classes and their choices, cached for a short time."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, Generic, TypeVar

from shared.engine.check_graph import Problem, check_graph, choices
from shared.engine.client import EngineClient
from shared.errors import EngineError, EngineUnavailable
from shared.graph_walk import class_of
from shared.models.defaults import defaults_for
from shared.models.detect import Family, ModelFile, classify
from shared.models.safetensors import read_header

K = TypeVar("K")
V = TypeVar("V")

# Seconds that an answer about files stays valid: new files show up after that.
FRESH_SECONDS = 1.0
# Seconds that an answer about node classes stays valid for `engine_options`: they change only when the engine restarts.
NODE_SECONDS = 10.0
OPTION_FOLDERS = (
    "checkpoints",
    "diffusion_models",
    "loras",
    "vae",
    "text_encoders",
    "upscale_models",
    "controlnet",
    "embeddings",
)
# Preprocessors for control maps that need no custom node.
BUILT_IN_PREPROCESSORS = ("none", "canny")
FACE_NODES = ("FaceRestoreModelLoader", "FaceRestoreCFWithModel")
SEAMLESS_NODES = ("SeamlessTile", "CircularVAEDecode")
PARALLEL_REQUESTS = 8


class TtlCache(Generic[K, V]):
    """Caches the result of `fetch` for each key. While the engine is unavailable, the last result stays valid."""

    def __init__(self, fetch: Callable[[K], V]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._entries: dict[K, tuple[float, V]] = {}

    def get(self, key: K, max_age: float) -> V:
        """Return the value, at most `max_age` seconds old. Raises EngineUnavailable if there never was one."""
        now = time.monotonic()
        with self._lock:
            entry = self._entries.get(key)
        if entry is not None and now - entry[0] < max_age:
            return entry[1]
        try:
            value = self._fetch(key)
        except EngineUnavailable:
            if entry is None:
                raise
            return entry[1]
        with self._lock:
            self._entries[key] = (now, value)
        return value

    def expire(self) -> None:
        """Mark all values as too old, but keep them for when the engine is unavailable."""
        with self._lock:
            self._entries = {key: (-float("inf"), value) for key, (_, value) in self._entries.items()}


class EngineCatalog:
    """The models and node classes of an engine. Thread-safe.

    Answers are at most a second old, except node definitions for checking graphs: those rarely change, and a value that
    they do not list is looked up once more. While the engine is unavailable, the last answers are used, so that jobs
    are still accepted.
    """

    def __init__(self, engine: EngineClient) -> None:
        self._names = TtlCache(engine.list_models)
        self._schemas = TtlCache(engine.get_node_schema)
        self._folders: TtlCache[None, dict[str, list[str]]] = TtlCache(lambda _: engine.list_model_folders())
        self._files: dict[Path, tuple[tuple[int, int], ModelFile]] = {}

    def names(self, folder: str, max_age: float = FRESH_SECONDS) -> list[str]:
        """Return the engine's names of the files in a model folder such as "loras"; empty for an unknown folder."""
        return list(self._names.get(folder, max_age))

    def model_file(self, folder: str, name: str) -> ModelFile:
        """Detect what a file is. The result is unknown if the file is missing or on another machine."""
        path = self._find(folder, name)
        try:
            status = path.stat() if path is not None else None
        except OSError:
            status = None
        if path is None or status is None:
            return ModelFile(name)
        version = (status.st_mtime_ns, status.st_size)
        cached = self._files.get(path)
        if cached is None or cached[0] != version or cached[1].name != name:
            cached = self._files[path] = (version, classify(name, read_header(path)))
        return cached[1]

    def has_node(self, class_type: str, max_age: float = FRESH_SECONDS) -> bool:
        """Whether the engine has this node class. Some come with custom nodes."""
        return self._schemas.get(class_type, max_age) is not None

    def choices(self, class_type: str, name: str) -> list[str]:
        """Return the allowed values of a node's input; empty if the engine has no such node or input."""
        schema = self._schemas.get(class_type, FRESH_SECONDS)
        inputs = (
            {} if schema is None else {**schema["input"].get("required", {}), **schema["input"].get("optional", {})}
        )
        return [str(choice) for choice in choices(inputs[name])] if name in inputs else []

    def check(self, graph: dict[str, Any]) -> list[Problem]:
        """List what the engine would refuse, or silently ignore, in `graph`."""
        classes = {name for name in map(class_of, graph.values()) if name is not None}
        problems = check_graph(graph, self.definitions(classes))
        if problems:
            # A file may have been added, or the engine replaced, since the definitions were read.
            self._names.expire()
            problems = check_graph(graph, self.definitions(classes, 0.0))
        return problems

    def definitions(self, classes: Iterable[str], max_age: float = math.inf) -> dict[str, dict[str, Any]]:
        """Return the definitions of those of these node classes that the engine has."""
        schemas = {name: self._schemas.get(name, max_age) for name in classes}
        return {name: schema for name, schema in schemas.items() if schema is not None}

    def _find(self, folder: str, name: str) -> Path | None:
        """Return the path of a file in the engine's list, if it is on this machine; the first folder wins."""
        # The name must be in the list, and must not lead out of the folder.
        if name not in self.names(folder) or PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            return None
        try:
            folders = self._folders.get(None, FRESH_SECONDS).get(folder, [])
        except EngineUnavailable:
            raise
        except EngineError:
            # An older engine, which does not report its folders.
            return None
        paths = (Path(base) / name for base in folders if PurePath(base).is_absolute())
        return next((path for path in paths if path.is_file()), None)


def engine_options(catalog: EngineCatalog, preprocessors: Mapping[str, str]) -> dict[str, Any]:
    """Return everything that a client can choose from, as one JSON object.

    `preprocessors` maps the names that clients use to the node classes of custom nodes. Raises EngineUnavailable if the
    engine does not answer and has never answered.
    """
    _prefetch(catalog, {*preprocessors.values(), *FACE_NODES, *SEAMLESS_NODES})

    def files(folder: str, *describe: Callable[[ModelFile], dict[str, Any]]) -> list[dict[str, Any]]:
        models = [catalog.model_file(folder, name) for name in catalog.names(folder)]
        return [{"name": model.name} | {k: v for part in describe for k, v in part(model).items()} for model in models]

    def has(*classes: str) -> bool:
        return all(catalog.has_node(name, NODE_SECONDS) for name in classes)

    return {
        "samplers": catalog.choices("KSampler", "sampler_name"),
        "schedulers": catalog.choices("KSampler", "scheduler"),
        "checkpoints": files("checkpoints", _describe_model),
        "diffusion_models": files("diffusion_models", _describe_model),
        "loras": catalog.names("loras"),
        "vaes": files("vae", lambda file: {"latent_channels": file.latent_channels}),
        "text_encoders": files("text_encoders", lambda file: {"kind": file.text_encoder.value}),
        "upscalers": catalog.names("upscale_models"),
        "controlnets": files("controlnet", _describe_family, lambda file: {"union": file.union}),
        # Prompts name embeddings without an extension.
        "embeddings": [str(PurePosixPath(name).with_suffix("")) for name in catalog.names("embeddings")],
        "preprocessors": [
            *BUILT_IN_PREPROCESSORS,
            *(name for name, class_type in preprocessors.items() if has(class_type)),
        ],
        "face_restoration": {
            "available": has(*FACE_NODES),
            "models": catalog.choices(FACE_NODES[0], "model_name") if has(*FACE_NODES) else [],
        },
        "seamless_tiling": {"available": has(*SEAMLESS_NODES)},
    }


def _prefetch(catalog: EngineCatalog, classes: set[str]) -> None:
    """Send all requests of `engine_options` in parallel, so that the catalog has the answers cached."""
    requests: list[Callable[[], object]] = [
        *(lambda folder=folder: catalog.names(folder) for folder in OPTION_FOLDERS),
        lambda: catalog.choices("KSampler", "scheduler"),
        *(lambda name=name: catalog.has_node(name, NODE_SECONDS) for name in classes),
    ]
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        for future in [pool.submit(request) for request in requests]:
            future.result()


def _describe_model(file: ModelFile) -> dict[str, Any]:
    return {**_describe_family(file), "inpainting": file.inpainting, "defaults": asdict(defaults_for(file))}


def _describe_family(file: ModelFile) -> dict[str, Any]:
    # "unknown" would look like a family that can be chosen.
    return {"family": "other" if file.family is Family.UNKNOWN else file.family.value}
