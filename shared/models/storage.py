"""Stores model files: checks name, kind, content and free space, and moves a file into place without overwriting."""

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
# Letters of any language; no separators, and no characters with a meaning in a shell, on Windows or in a browser.
NAME = re.compile(r"[^\W_][\w .,+@()\[\]-]*")
# Windows treats these names as devices, with any extension.
DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
# Bytes to keep free on the disk for pictures and the database.
RESERVED_BYTES = 512 * 1024 * 1024


def parse_model_type(kind: object) -> str:
    """Parse the kind of a model, which is also the name of its folder. Raises InvalidValue if missing or unknown."""
    parsed = find_kind(kind) if isinstance(kind, str) else None
    if parsed is None:
        message = "model_type is missing" if kind is None else f"model_type {kind!r} does not exist"
        hint = f"{suggest_kind(kind)}use one of {', '.join(MODEL_KINDS)}"
        raise InvalidValue(message, field="model_type", hint=hint)
    return parsed


def parse_file_name(path: str, suffixes: Sequence[str]) -> str:
    """Return the name of an uploaded file, without the folders that some browsers send. Raises InvalidValue."""
    name = PurePosixPath(path.replace("\\", "/")).name
    if not name.lower().endswith(tuple(suffixes)):
        raise InvalidValue(
            f"files like {name[:LONGEST_NAME]!r} are not accepted",
            field="file",
            hint=f"send {' or '.join(suffixes)}; DREAM_LAYER_MODEL_SUFFIXES can allow more",
        )
    if not is_valid_name(name):
        raise InvalidValue(
            f"{name[:LONGEST_NAME]!r} is not a valid name for a model",
            field="file",
            hint="start with a letter or digit; use letters, digits, spaces and _-.,+@()[], at most "
            f"{LONGEST_NAME} bytes",
        )
    return name


def is_valid_name(name: str) -> bool:
    """Whether the name of a model file is valid on every system, and safe wherever it is shown."""
    return (
        NAME.fullmatch(name) is not None
        and len(name.encode()) <= LONGEST_NAME
        and not DEVICE.fullmatch(name)
        and not name.endswith((".", " "))
    )


def check_content(path: Path, name: str, kind: str) -> list[str]:
    """Return warnings about the file at `path`, which is to be stored as `name` among models of that kind.

    Raises InvalidValue for an incomplete safetensors file. Files of other types are not checked: loading
    them can run code.
    """
    if not name.lower().endswith(".safetensors"):
        return []
    header = read_header(path)
    if header is None or not header.tensors:
        raise InvalidValue(
            f"{name} is not a complete safetensors file",
            field="file",
            hint="check that the whole file was sent, and that it is a safetensors file",
        )
    detected = detect_kind(header)
    return [] if detected in (kind, None) else [f"model_type is {kind}, but the contents of {name} are {detected}"]


def check_space(folder: Path, size: int) -> None:
    """Raise StorageFailed if a file of `size` bytes does not leave RESERVED_BYTES free."""
    free = free_bytes(folder)
    if free is None:
        raise StorageFailed("the system does not report the free space of the disk")
    if size + RESERVED_BYTES > free:
        raise StorageFailed(
            f"not enough free space: {size / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free",
            hint=f"{RESERVED_BYTES // 1_000_000} MB always stay free; an upload needs twice its size while it arrives",
        )


def temporary_path(folder: Path) -> Path:
    """Return a path for an incomplete file in `folder`. Lists of models leave it out."""
    return folder / f".{uuid.uuid4().hex}.part"


def move_into_place(path: Path, folder: Path, name: str, *, replace: bool = False) -> Path:
    """Move a file to `name` in `folder`, completely or not at all; if that fails, it stays where it is.

    Raises AlreadyThere if the name exists, unless `replace`, even if two processes do this at the same time. Raises
    StorageFailed.
    """
    target, temporary = folder / name, temporary_path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            ready = _bring_to_disk(path, temporary)
            if replace:
                ready.replace(target)
            else:
                _rename_new(ready, target)
        finally:
            # If both names were links to the same file, `replace` did nothing and left this one.
            temporary.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    except FileExistsError as error:
        raise AlreadyThere(
            f"{name} exists already", field="file", hint="rename your file, or remove the existing one"
        ) from error
    except OSError as error:
        raise write_error(name, error, folder) from error
    return target


def _bring_to_disk(path: Path, temporary: Path) -> Path:
    """Link or copy the file to `temporary`, on the right disk; if the disk supports no links, return `path` itself."""
    try:
        os.link(path, temporary)
    except OSError as error:
        if error.errno != errno.EXDEV:
            return path
        shutil.copyfile(path, temporary)
    return temporary


def _rename_new(ready: Path, target: Path) -> None:
    """Rename a file to a new name. Raises FileExistsError if the target exists."""
    try:
        # Atomic: it fails if the target exists.
        os.link(ready, target)
    except FileExistsError:
        raise
    except OSError:
        # The disk supports no hard links: reserve the name first, then replace it.
        with target.open("xb"):
            pass
        ready.replace(target)
