"""What the engine has: its model files, what they are, and its node classes."""

import math
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

from shared.engine.check import Problem, check_graph, choices, class_of
from shared.engine.client import EngineClient
from shared.engine.families import ModelFile, classify
from shared.engine.headers import read_header
from shared.engine.recent import Recent
from shared.errors import EngineError, EngineUnavailable

# Seconds for which an answer is new enough: a file that was just added is found.
FRESH = 1.0


class Catalog:
    """Everything is at most a second old, but for the definitions that graphs are checked against: those rarely change,
    and a value that they do not list is looked up once more.

    What was known before an engine went away serves until it is back: jobs are accepted meanwhile.
    """

    def __init__(self, engine: EngineClient) -> None:
        self._names = Recent(engine.models)
        self._schemas = Recent(engine.node_schema)
        self._folders: Recent[None, dict[str, list[str]]] = Recent(lambda _: engine.model_folders())
        self._files: dict[Path, tuple[tuple[int, int], ModelFile]] = {}

    def names(self, folder: str, max_age: float = FRESH) -> list[str]:
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

    def has_node(self, class_type: str, max_age: float = FRESH) -> bool:
        """Whether the engine has a node of that class: some come with custom nodes."""
        return self._schemas.get(class_type, max_age) is not None

    def choices(self, class_type: str, name: str) -> list[str]:
        """The values that an input of a node may have; empty if the engine has no such node or input."""
        schema = self._schemas.get(class_type, FRESH)
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
            folders = self._folders.get(None, FRESH).get(folder, [])
        except EngineUnavailable:
            raise
        except EngineError:
            # This engine does not tell where its files are.
            return None
        paths = (Path(base) / name for base in folders if PurePath(base).is_absolute())
        return next((path for path in paths if path.is_file()), None)
