"""The folder of named workflows. Each file is one workflow; a changed file is read again."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from pathlib import Path

from shared.errors import DreamLayerError, InvalidValue
from shared.json_limits import JsonTooLarge, load_json
from workflows.templates import WORKFLOW_FIELD, NamedWorkflow, read_workflow

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}", re.ASCII)
LARGEST_FILE = 10_000_000


class WorkflowFolder:
    """Reads the files of the folder, and caches each until it changes. Safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._read: dict[str, tuple[tuple[int, int], NamedWorkflow | DreamLayerError]] = {}

    def all(self) -> Iterable[tuple[str, NamedWorkflow | DreamLayerError]]:
        """All names, sorted, each with its workflow or the error in its file."""
        names = sorted(path.stem for path in self._folder.glob("*.json")) if self._folder.is_dir() else []
        for name in names:
            workflow = self.find(name)
            if workflow is not None:
                yield name, workflow

    def find(self, name: str) -> NamedWorkflow | DreamLayerError | None:
        """The workflow of this name, or the error in its file; None if there is no such file."""
        path = self._folder / f"{name}.json"
        if not NAME.fullmatch(name):
            # The name of a file in the folder: routes refuse such a name from a client.
            return InvalidValue(
                "the name of the file may have only lower-case letters, digits, - and _", field=WORKFLOW_FIELD
            )
        try:
            about = path.stat()
            mark = (about.st_mtime_ns, about.st_size)
            with self._lock:
                known = self._read.get(name)
            if known is None or known[0] != mark:
                known = (mark, _load(name, path, about.st_size))
                with self._lock:
                    self._read[name] = known
            return known[1]
        except FileNotFoundError:
            return None
        except OSError as error:
            return InvalidValue(f"the file cannot be read: {error.strerror}", field=WORKFLOW_FIELD)


def _load(name: str, path: Path, size: int) -> NamedWorkflow | DreamLayerError:
    if size > LARGEST_FILE:
        return InvalidValue(f"the file is larger than {LARGEST_FILE // 1_000_000} MB", field=WORKFLOW_FIELD)
    try:
        return read_workflow(name, load_json(path.read_bytes()))
    except JsonTooLarge as error:
        return InvalidValue(f"the file {error}", field=WORKFLOW_FIELD)
    except (ValueError, RecursionError) as error:
        return InvalidValue(f"the file is not valid JSON: {error}", field=WORKFLOW_FIELD)
    except DreamLayerError as error:
        return error
