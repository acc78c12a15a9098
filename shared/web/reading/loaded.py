"""How large the pictures are that a graph of somebody else loads by name, from the heads of their files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from PIL import Image

from shared.engine.client import SavedImage
from shared.engine.declared import declared_inputs
from shared.engine.trust import OWN_UPLOAD
from shared.errors import EngineError
from shared.web.backend import Backend

# Frames, width, height.
Loaded = tuple[int, int, int]


def loaded_sizes(
    backend: Backend, graph: Mapping[str, Any], definitions: Mapping[str, Any], sent: Mapping[str, bytes]
) -> dict[str, Loaded]:
    """The size of each picture that `graph` loads, by its name; those that cannot be told are left out.

    `sent` has the pictures of the request at hand, by their names in the graph. All names were checked: they are ours,
    or those of files at the top of the engine's input folder.
    """
    found = {}
    for name in loaded_names(graph, definitions):
        content = sent[name] if name in sent else _stored(backend, name)
        size = None if content is None else _measured(content)
        if size is not None:
            found[name] = size
    return found


def loaded_names(graph: Mapping[str, Any], definitions: Mapping[str, Any]) -> set[str]:
    """The names of the pictures that a graph loads."""
    return {
        value
        for node in graph.values()
        for key, declaration in declared_inputs(definitions[node["class_type"]], node["inputs"]).items()
        if len(declaration) > 1 and declaration[1].get("image_upload")
        if isinstance(value := node["inputs"].get(key), str) and value
    }


def _stored(backend: Backend, name: str) -> bytes | None:
    """A file that was sent earlier, or that whoever runs the engine put into its input folder."""
    if OWN_UPLOAD.fullmatch(name):
        return backend.archive.uploads.find(name.rpartition("/")[2])
    try:
        if backend.settings.engine_url is None:
            path = backend.settings.input_dir / name
            return path.read_bytes() if path.is_file() else None
        return backend.engine.view(SavedImage(name, "", "input"))
    except (OSError, EngineError):
        return None


def _measured(content: bytes) -> Loaded | None:
    try:
        with Image.open(io.BytesIO(content)) as image:
            return getattr(image, "n_frames", 1), *image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
