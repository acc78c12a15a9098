"""The files that jobs leave in the folders of the engine that we start. An engine elsewhere keeps its own."""

from __future__ import annotations

import io
import os
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.files import lies_within
from shared.images.embedded_text import has_text, read_size
from shared.jobs.database import JobRow
from shared.jobs.names import locate, save_prefixes
from shared.jobs.picture_metadata import OURS, picture_parameters, with_parameters

# Bytes in which a recipe begins, if there is one.
HEAD = 256


class Pictures:
    """The engine's output folder, and its input folder for uploads; `chosen` tells of other folders for output, which
    may change while this runs.

    These folders may be links. A link inside of one that leads out of it is no picture: it is neither read nor written
    to, and nothing behind it is deleted.
    """

    def __init__(self, output_dir: Path, input_dir: Path, chosen: Callable[[], Sequence[Path]] = tuple) -> None:
        self._output_dir = output_dir
        self._chosen = chosen
        self._input_dir = input_dir

    def find(self, name: str) -> Path | None:
        """The file of a picture of ours, if it is here."""
        places = ((path, folder) for path, folder in self._places(name) if path.is_file())
        return next((path for path, folder in places if lies_within(path, folder)), None)

    def leads_out(self, name: str) -> bool:
        """Whether a link stands in a picture's place and leads out of the folder: our engine would follow it."""
        there = [(path, folder) for path, folder in self._places(name) if os.path.lexists(path)]
        return bool(there) and not any(lies_within(path, folder) for path, folder in there)

    def dimensions(self, name: str) -> tuple[int, int] | None:
        """Width and height of a picture of ours in pixels, as its file says; None if it is not here."""
        path = self.find(name)
        try:
            with path.open("rb") if path is not None else io.BytesIO() as file:
                return read_size(file.read(HEAD))
        except OSError:
            return None

    def finished(self, name: str) -> Path | None:
        """The file of a picture of ours, if it is here with its recipe."""
        path = self.find(name)
        return path if path is not None and _has_parameters(path) else None

    def embed_parameters(self, row: JobRow, name: str) -> None:
        """Puts the recipe into a job's picture, if its file is here without; whole or not at all. Raises OSError."""
        if picture_parameters(row, name) is None:
            return
        path = self.find(name)
        if path is None or _has_parameters(path):
            return
        before = path.read_bytes()
        after = with_parameters(before, row, name)
        if after is before:
            return
        aside = path.with_name(f".{uuid.uuid4().hex}.part")
        try:
            aside.write_bytes(after)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    def size(self, images: Iterable[Mapping[str, str]]) -> int:
        """Bytes of a job's pictures."""
        paths = (self.find(image["filename"]) for image in images)
        return sum(path.stat().st_size for path in paths if path is not None)

    def remove(self, graph: Mapping[str, Any]) -> None:
        """Deletes every picture that the job of this graph saved, those too that it had not finished with."""
        for prefix in save_prefixes(graph):
            folder, _, start = prefix.rpartition("/")
            if not folder or not start:
                continue
            ours = re.compile(re.escape(start) + r"_\d+_\.png")
            for output in self._outputs():
                inside = (output / folder).is_dir() and lies_within(output / folder, output)
                for path in (output / folder).iterdir() if inside else ():
                    if ours.fullmatch(path.name):
                        path.unlink(missing_ok=True)

    def remove_upload(self, folder: str, name: str) -> None:
        """Deletes the engine's copy of an upload."""
        if lies_within(self._input_dir / folder, self._input_dir):
            (self._input_dir / folder / name).unlink(missing_ok=True)

    def _places(self, name: str) -> list[tuple[Path, Path]]:
        """Where a picture of ours may lie, each with the output folder that it is below."""
        image = locate(name)
        if image is None:
            return []
        return [(folder / image.subfolder / image.filename, folder) for folder in self._outputs()]

    def _outputs(self) -> tuple[Path, ...]:
        return (*self._chosen(), self._output_dir)


def _has_parameters(path: Path) -> bool:
    with path.open("rb") as file:
        return has_text(file.read(HEAD), OURS)
