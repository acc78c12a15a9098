"""Model files from outside: under which name and in which folder they may be put, and that nothing is overwritten."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from shared.errors import AlreadyThere, InvalidValue, StorageFailed
from shared.files import free_bytes, write_error
from shared.models.detect import MODEL_KINDS, detect_kind, find_kind, suggest_kind
from shared.models.safetensors import read_header

LONGEST_NAME = 200
# Letters of any language; no separators, and nothing that a shell, Windows or a browser reads as more than a name.
NAME = re.compile(r"[^\W_][\w .,+@()\[\]-]*")
# Windows takes these for devices, whatever their extension.
DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
# Bytes that stay free on the disk, for pictures and the database.
RESERVED_BYTES = 512 * 1024 * 1024


def parse_kind(kind: object) -> str:
    """The folder for a kind of models; raises InvalidValue for None, and for one that there is not."""
    found = find_kind(kind) if isinstance(kind, str) else None
    if found is None:
        wrong = "model_type is missing" if kind is None else f"model_type {kind!r} does not exist"
        hint = f"{suggest_kind(kind)}one of {', '.join(MODEL_KINDS)}"
        raise InvalidValue(wrong, field="model_type", hint=hint)
    return found


def parse_file_name(given: str, suffixes: Sequence[str]) -> str:
    """The name for an uploaded file, without the folders that some browsers send with it. Raises InvalidValue."""
    name = PurePosixPath(given.replace("\\", "/")).name
    if not name.lower().endswith(tuple(suffixes)):
        raise InvalidValue(
            f"a file of the kind of {name[:LONGEST_NAME]!r} is not taken",
            field="file",
            hint=f"send {' or '.join(suffixes)}; DREAM_LAYER_MODEL_SUFFIXES lets in more",
        )
    if not is_valid_name(name):
        raise InvalidValue(
            f"{name[:LONGEST_NAME]!r} cannot be the name of a model",
            field="file",
            hint=f"start with a letter or digit, go on with those, spaces and _-.,+@()[], {LONGEST_NAME} bytes at most",
        )
    return name


def is_valid_name(name: str) -> bool:
    """Whether a model file may be called so: on every system, and safely wherever it is shown."""
    return (
        NAME.fullmatch(name) is not None
        and len(name.encode()) <= LONGEST_NAME
        and not DEVICE.fullmatch(name)
        and not name.endswith((".", " "))
    )


def check_content(path: Path, name: str, kind: str) -> list[str]:
    """What is odd about the file at `path`, which shall be called `name`, among others of that kind.

    Raises InvalidValue if it is not a whole safetensors file. Of other files nothing is known without loading them,
    and that nobody should do.
    """
    if not name.lower().endswith(".safetensors"):
        return []
    header = read_header(path)
    if header is None or not header.tensors:
        raise InvalidValue(
            f"{name} is not a whole safetensors file",
            field="file",
            hint="was it cut short on its way, or is it another kind of file under this name?",
        )
    told = detect_kind(header)
    return [] if told in (kind, None) else [f"model_type is {kind}, but by its contents {name} belongs to {told}"]


def check_space(folder: Path, size: int) -> None:
    """Raises StorageFailed if a file of `size` bytes does not fit beside what else is needed."""
    free = free_bytes(folder)
    if free is None:
        raise StorageFailed("the disk cannot be asked for its free space")
    if size + RESERVED_BYTES > free:
        raise StorageFailed(
            f"there is not enough room: {size / 1e9:.1f} GB are needed, and {free / 1e9:.1f} GB are free",
            hint=f"{RESERVED_BYTES // 1_000_000} MB always stay free; an upload needs twice its size while it arrives",
        )


def temporary_path(folder: Path) -> Path:
    """A name for a file on its way, in a folder that no list of models shows."""
    return folder / f".{uuid.uuid4().hex}.part"


def move_into_place(path: Path, folder: Path, name: str, *, replace: bool = False) -> Path:
    """Moves the file at `path` to `name` in `folder`, whole or not at all; if that fails, it stays where it was.

    Raises AlreadyThere, and never overwrites unless `replace`, also when two do this at once. Raises StorageFailed.
    """
    target, near = folder / name, temporary_path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            ready = _brought(path, near)
            if replace:
                ready.replace(target)
            else:
                _settle(ready, target)
        finally:
            # Where both were names of one file, nothing was replaced.
            near.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    except FileExistsError as error:
        raise AlreadyThere(
            f"there is a {name} already", field="file", hint="rename yours, or remove the one that is there"
        ) from error
    except OSError as error:
        raise write_error(name, error, folder) from error
    return target


def _brought(path: Path, near: Path) -> Path:
    """What is on the right disk: a second name for the file, or a copy; where there are no links, the file itself."""
    try:
        os.link(path, near)
    except OSError as error:
        if error.errno != errno.EXDEV:
            return path
        shutil.copyfile(path, near)
    return near


def _settle(ready: Path, target: Path) -> None:
    """Raises FileExistsError if the target is there."""
    try:
        # In one step, and it fails when there is such a file.
        os.link(ready, target)
    except FileExistsError:
        raise
    except OSError:
        # This disk has no links: the name is taken first, and then the file put in its place.
        with target.open("xb"):
            pass
        ready.replace(target)
