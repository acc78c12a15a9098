"""What the engine has: its checkpoints and its node classes."""

import threading
import time
from collections.abc import Iterable
from typing import Any

from shared.engine.check import Problem, check_graph
from shared.engine.client import EngineClient
from shared.errors import EngineUnavailable


class Catalog:
    """Node definitions are kept, for they rarely change; a value that they do not list is looked up once more.

    What was known before an engine went away serves until it is back: jobs are accepted meanwhile.
    """

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._schemas: dict[str, dict[str, Any]] = {}
        self._checkpoints: list[str] | None = None
        self._listed = 0.0

    def checkpoints(self, max_age: float = 0.0) -> list[str]:
        """Names of all checkpoint files, as they were at most `max_age` seconds ago."""
        now = time.monotonic()
        if self._checkpoints is not None and now - self._listed < max_age:
            return list(self._checkpoints)
        try:
            self._checkpoints = self._engine.models("checkpoints")
            self._listed = now
        except EngineUnavailable:
            if self._checkpoints is None:
                raise
        return list(self._checkpoints)

    def check(self, graph: dict[str, Any]) -> list[Problem]:
        """What the engine would refuse, or silently ignore, in `graph`."""
        classes = {node["class_type"] for node in graph.values()}
        problems = check_graph(graph, self._load(classes))
        if problems:
            # A file may have been added, or the engine replaced, since the definitions were read.
            self._forget(classes)
            self._listed = 0.0
            problems = check_graph(graph, self._load(classes))
        return problems

    def _load(self, classes: Iterable[str]) -> dict[str, dict[str, Any]]:
        with self._lock:
            known = {name: self._schemas[name] for name in classes if name in self._schemas}
        for name in classes:
            if name not in known:
                schema = self._engine.node_schema(name)
                if schema is not None:
                    known[name] = schema
        with self._lock:
            self._schemas.update(known)
        return known

    def _forget(self, classes: Iterable[str]) -> None:
        with self._lock:
            for name in classes:
                self._schemas.pop(name, None)
