"""How large the pictures are that a graph of somebody else loads by name, from the heads of their files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from shared.engine.client import SavedImage
from shared.engine.node_policy import OWN_UPLOAD
from shared.engine.validate import declared_inputs, extra_of
from shared.errors import EngineError
from shared.web.backend import Backend

# Frames, width, height.
Loaded = tuple[int, int, int]
# Of a file that is too large for Pillow to say how large it is.
HUGE: Loaded = (1, 20_000, 20_000)


def loaded_sizes(
    backend: Backend, graph: Mapping[str, Any], definitions: Mapping[str, Any], sent: Mapping[str, bytes]
) -> dict[str, Loaded]:
    """The size of each picture that `graph` loads, by its name; those that cannot be told are left out.

    `sent` has the pictures of the request at hand, by their names in the graph. All names were checked: they are ours,
    or those of files at the top of the engine's input folder.
    """
    sizes = {
        name: _measured(io.BytesIO(sent[name])) if name in sent else _stored(backend, name)
        for name in loaded_names(graph, definitions)
    }
    return {name: size for name, size in sizes.items() if size is not None}


def loaded_names(graph: Mapping[str, Any], definitions: Mapping[str, Any]) -> set[str]:
    """The names of the pictures that a graph loads."""
    return {
        value
        for node in graph.values()
        for key, declaration in declared_inputs(definitions[node["class_type"]], node["inputs"]).items()
        if extra_of(declaration).get("image_upload")
        if isinstance(value := node["inputs"].get(key), str) and value
    }


def _stored(backend: Backend, name: str) -> Loaded | None:
    """Of a file that was sent earlier, or that whoever runs the engine put into its input folder."""
    if OWN_UPLOAD.fullmatch(name):
        sides = backend.jobs.upload_size(name.rpartition("/")[2])
        return None if sides is None else (1, *sides)
    if backend.settings.engine_url is None:
        return _measured(backend.settings.input_dir / name)
    try:
        shown = backend.engine.download_image(SavedImage(name, "", "input"))
    except EngineError:
        return None
    return None if shown is None else _measured(io.BytesIO(shown))


def _measured(file: Path | io.BytesIO) -> Loaded | None:
    """Of no more than its head, except for how many pictures an animation has."""
    try:
        with Image.open(file) as image:
            return getattr(image, "n_frames", 1), *image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return HUGE
    except (OSError, ValueError, SyntaxError):
        return None
