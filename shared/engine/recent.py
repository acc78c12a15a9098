"""Answers that are kept for a moment, and for longer while there are no others."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from shared.errors import EngineUnavailable

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
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
