"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from shared.errors import StorageFailed


def write_whole(path: Path, content: bytes, what: str) -> None:
    """Writes a file that only its owner may read, whole or not at all, even through a power cut.

    Raises StorageFailed that names it as `what`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Made with owner-only rights, so that nobody can open it before they are set.
        handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        aside = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise StorageFailed(
            f"{what} could not be kept: {error.strerror}", hint="is the disk full, or the data folder not writable?"
        ) from error
