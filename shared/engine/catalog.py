"""What the engine has: model files, node classes and their choices, cached for a short time."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, Generic, TypeVar

from shared.engine.client import EngineClient
from shared.engine.validate import Problem, check_graph, choices
from shared.errors import EngineError, EngineUnavailable
from shared.graphs import class_of
from shared.models.defaults import defaults_for
from shared.models.detect import Family, ModelFile, classify
from shared.models.safetensors import read_header

K = TypeVar("K")
V = TypeVar("V")


class TtlCache(Generic[K, V]):
    """What `ask` answered to each key. While the engine is away, its last answer serves."""

    def __init__(self, ask: Callable[[K], V]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._answers: dict[K, tuple[float, V]] = {}

    def get(self, key: K, max_age: float) -> V:
        """The answer, at most `max_age` seconds old. Raises EngineUnavailable if there never was one."""
        asked = time.monotonic()
        with self._lock:
            kept = self._answers.get(key)
        if kept is not None and asked - kept[0] < max_age:
            return kept[1]
        try:
            answer = self._ask(key)
        except EngineUnavailable:
            if kept is None:
                raise
            return kept[1]
        with self._lock:
            self._answers[key] = (asked, answer)
        return answer

    def expire(self) -> None:
        """From now on no answer is new enough."""
        with self._lock:
            self._answers = {key: (-float("inf"), answer) for key, (_, answer) in self._answers.items()}


# Seconds for which an answer is new enough: a file that was just added is found.
FRESH_SECONDS = 1.0


class EngineCatalog:
    """Everything is at most a second old, but for the definitions that graphs are checked against: those rarely change,
    and a value that they do not list is looked up once more.

    What was known before an engine went away serves until it is back: jobs are accepted meanwhile.
    """

    def __init__(self, engine: EngineClient) -> None:
        self._names = TtlCache(engine.models)
        self._schemas = TtlCache(engine.node_schema)
        self._folders: TtlCache[None, dict[str, list[str]]] = TtlCache(lambda _: engine.model_folders())
        self._files: dict[Path, tuple[tuple[int, int], ModelFile]] = {}

    def names(self, folder: str, max_age: float = FRESH_SECONDS) -> list[str]:
        """The files of a kind, such as "loras", by the names that the engine knows them by; empty for a kind that it
        does not know."""
        return list(self._names.get(folder, max_age))

    def model_file(self, folder: str, name: str) -> ModelFile:
        """What a file is; unknown if it is not there, or on another machine."""
        path = self._find(folder, name)
        try:
            about = path.stat() if path is not None else None
        except OSError:
            about = None
        if path is None or about is None:
            return ModelFile(name)
        state = (about.st_mtime_ns, about.st_size)
        kept = self._files.get(path)
        if kept is None or kept[0] != state or kept[1].name != name:
            kept = self._files[path] = (state, classify(name, read_header(path)))
        return kept[1]

    def has_node(self, class_type: str, max_age: float = FRESH_SECONDS) -> bool:
        """Whether the engine has a node of that class: some come with custom nodes."""
        return self._schemas.get(class_type, max_age) is not None

    def choices(self, class_type: str, name: str) -> list[str]:
        """The values that an input of a node may have; empty if the engine has no such node or input."""
        schema = self._schemas.get(class_type, FRESH_SECONDS)
        inputs = (
            {} if schema is None else {**schema["input"].get("required", {}), **schema["input"].get("optional", {})}
        )
        return [str(choice) for choice in choices(inputs[name])] if name in inputs else []

    def check(self, graph: dict[str, Any]) -> list[Problem]:
        """What the engine would refuse, or silently ignore, in `graph`."""
        classes = {name for name in map(class_of, graph.values()) if name is not None}
        problems = check_graph(graph, self.definitions(classes))
        if problems:
            # A file may have been added, or the engine replaced, since the definitions were read.
            self._names.expire()
            problems = check_graph(graph, self.definitions(classes, 0.0))
        return problems

    def definitions(self, classes: Iterable[str], max_age: float = math.inf) -> dict[str, dict[str, Any]]:
        """What the engine says of these node classes, of those that it has."""
        found = {name: self._schemas.get(name, max_age) for name in classes}
        return {name: schema for name, schema in found.items() if schema is not None}

    def _find(self, folder: str, name: str) -> Path | None:
        """Where a file of the engine's list is, if on this machine: in the first of its folders that has it."""
        # The list is the engine's, and so are the paths; a name that leads out of them is neither's.
        if name not in self.names(folder) or PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            return None
        try:
            folders = self._folders.get(None, FRESH_SECONDS).get(folder, [])
        except EngineUnavailable:
            raise
        except EngineError:
            # This engine does not tell where its files are.
            return None
        paths = (Path(base) / name for base in folders if PurePath(base).is_absolute())
        return next((path for path in paths if path.is_file()), None)


LISTED_FOLDERS = (
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


def engine_options(catalog: EngineCatalog, preprocessors: Mapping[str, str]) -> dict[str, Any]:
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
        "checkpoints": files("checkpoints", _model_entry),
        "diffusion_models": files("diffusion_models", _model_entry),
        "loras": catalog.names("loras"),
        "vaes": files("vae", lambda file: {"latent_channels": file.latent_channels}),
        "text_encoders": files("text_encoders", lambda file: {"kind": file.text_encoder.value}),
        "upscalers": catalog.names("upscale_models"),
        "controlnets": files("controlnet", _family_entry, lambda file: {"union": file.union}),
        # A prompt names an embedding without its extension.
        "embeddings": [str(PurePosixPath(name).with_suffix("")) for name in catalog.names("embeddings")],
        "preprocessors": [*BUILT_IN, *(name for name, each in preprocessors.items() if has(each))],
        "face_restoration": {
            "available": has(*FACES),
            "models": catalog.choices(FACES[0], "model_name") if has(*FACES) else [],
        },
        "seamless_tiling": {"available": has(*SEAMLESS)},
    }


def _ask_at_once(catalog: EngineCatalog, classes: set[str]) -> None:
    """Everything that takes a request, side by side, so that the catalog knows it a moment later."""
    questions: list[Callable[[], object]] = [
        *(lambda folder=folder: catalog.names(folder) for folder in LISTED_FOLDERS),
        lambda: catalog.choices("KSampler", "scheduler"),
        *(lambda each=each: catalog.has_node(each, NODES_AGE) for each in classes),
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for answer in [pool.submit(question) for question in questions]:
            answer.result()


def _model_entry(file: ModelFile) -> dict[str, Any]:
    return {**_family_entry(file), "inpainting": file.inpainting, "defaults": asdict(defaults_for(file))}


def _family_entry(file: ModelFile) -> dict[str, Any]:
    # "unknown" would look like a name to choose.
    return {"family": "other" if file.family is Family.UNKNOWN else file.family.value}
