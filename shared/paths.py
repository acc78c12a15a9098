"""The folders that a user chose on the web page, kept in the data folder, beyond the settings of the environment."""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from shared.files import write_atomic
from shared.schema.words import is_placeholder

log = logging.getLogger(__name__)

FILE = "paths.json"
# Those of the fields below that are texts.
CHOICES = ("output", "models", "controlnet", "upscale_models", "vae", "loras", "filename_format")


class ChosenPaths(BaseModel):
    """What was chosen; None means the default. All paths are absolute.

    `earlier_outputs` are folders that pictures were saved in before, so that those are still found.
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
        """Files that were written earlier may hold the texts of fields that nobody touched."""
        if isinstance(value, str) and (not value.strip() or is_placeholder(value)):
            return None
        return value

    @property
    def engine_paths(self) -> dict[str, object]:
        """The part that an engine hears of when it is started."""
        return self.model_dump(include={"output", "models", "controlnet", "upscale_models", "vae", "loras"}) | {
            "save_metadata": self.save_metadata
        }

    def after(self, earlier: ChosenPaths) -> ChosenPaths:
        """The same choice, which remembers where pictures were saved until now."""
        saved = [*earlier.earlier_outputs, *([earlier.output] if earlier.output else [])]
        # In order, each once.
        return self.model_copy(update={"earlier_outputs": tuple(dict.fromkeys(p for p in saved if p != self.output))})


class PathsFile:
    """Where the choice is kept. Processes that look at it see what another wrote."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE
        self._kept: tuple[tuple[int, int] | None, ChosenPaths] = (None, ChosenPaths())

    def read(self) -> ChosenPaths:
        """The choice; all defaults when there is none, or when the file was damaged."""
        try:
            about = self._path.stat()
            state = (about.st_mtime_ns, about.st_ino)
            kept_state, kept = self._kept
            if state == kept_state:
                return kept
            chosen = ChosenPaths.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return ChosenPaths()
        except (OSError, ValidationError) as error:
            log.warning("%s cannot be read, so the default folders are used: %s", self._path, error)
            return ChosenPaths()
        self._kept = (state, chosen)
        return chosen

    def write(self, chosen: ChosenPaths) -> None:
        """Keeps the choice. Raises StorageFailed."""
        write_atomic(self._path, chosen.model_dump_json(indent=2).encode(), FILE)

    def outputs(self) -> tuple[Path, ...]:
        """Folders beyond the default one in which pictures may lie, the newest first."""
        chosen = self.read()
        return (*([chosen.output] if chosen.output else []), *reversed(chosen.earlier_outputs))
