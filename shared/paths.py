"""Folders and file names that the user chose on the web page. They are stored in the data folder, besides settings."""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from shared.files import write_atomic
from shared.schema.choices import is_placeholder

log = logging.getLogger(__name__)

FILE = "paths.json"
# The text fields of ChosenPaths.
CHOICES = ("output", "models", "controlnet", "upscale_models", "vae", "loras", "filename_format")


class ChosenPaths(BaseModel):
    """The user's choices; None means the default. All paths are absolute.

    `earlier_outputs` are previous output folders: their pictures can still be found.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    output: Path | None = None
    models: Path | None = None
    controlnet: Path | None = None
    upscale_models: Path | None = None
    vae: Path | None = None
    loras: Path | None = None
    filename_format: str | None = None
    save_metadata: bool = True
    earlier_outputs: tuple[Path, ...] = ()

    @field_validator(*CHOICES, mode="before")
    @classmethod
    def _not_a_placeholder(cls, value: object) -> object:
        """Ignore placeholder texts of empty form fields, which older files contain."""
        if isinstance(value, str) and (not value.strip() or is_placeholder(value)):
            return None
        return value

    @property
    def engine_paths(self) -> dict[str, object]:
        """The choices that take effect only when the engine starts."""
        return self.model_dump(include={"output", "models", "controlnet", "upscale_models", "vae", "loras"}) | {
            "save_metadata": self.save_metadata
        }

    def after(self, earlier: ChosenPaths) -> ChosenPaths:
        """Return a copy that also remembers the output folders of the `earlier` choice."""
        saved = [*earlier.earlier_outputs, *([earlier.output] if earlier.output else [])]
        # dict.fromkeys removes duplicates and keeps the order.
        return self.model_copy(update={"earlier_outputs": tuple(dict.fromkeys(p for p in saved if p != self.output))})


class PathsFile:
    """The file that stores the choices. Every process sees what another one wrote."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE
        self._cached: tuple[tuple[int, int] | None, ChosenPaths] = (None, ChosenPaths())

    def read(self) -> ChosenPaths:
        """Return the choices; all defaults if the file is missing or damaged."""
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_ino)
            cached_version, cached = self._cached
            if version == cached_version:
                return cached
            chosen = ChosenPaths.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return ChosenPaths()
        except (OSError, ValidationError) as error:
            log.warning("cannot read %s, so the default folders are used: %s", self._path, error)
            return ChosenPaths()
        self._cached = (version, chosen)
        return chosen

    def write(self, chosen: ChosenPaths) -> None:
        """Store the choices. Raises StorageFailed."""
        write_atomic(self._path, chosen.model_dump_json(indent=2).encode(), FILE)

    def outputs(self) -> tuple[Path, ...]:
        """Return the folders besides the default one that may contain pictures, newest first."""
        chosen = self.read()
        return (*([chosen.output] if chosen.output else []), *reversed(chosen.earlier_outputs))
