"""The models folder: lists its files, chooses a file's folder and name, and moves it into place."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.models.sources import STEP
from shared.errors import AlreadyThere, SetupError, StorageFailed
from shared.files import walk_files
from shared.models.detect import MODEL_KINDS, ModelFile, classify, detect_kind, find_kind, suggest_kind
from shared.models.lookup import find_matches
from shared.models.safetensors import read_header
from shared.models.storage import is_valid_name, move_into_place

SAFETENSORS = ".safetensors"
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
DOWNLOADS = ".downloads"


class InvalidModelFileError(SetupError):
    """The file is not a usable model; no option would help."""


@dataclass(frozen=True)
class LibraryModel:
    """A model file. `name` is relative to the folder of its kind, as in requests."""

    kind: str
    name: str
    size: int
    path: Path
    about: ModelFile


def list_models(models_dir: Path) -> list[LibraryModel]:
    """Return all model files, sorted by kind and name; folders that are not a known kind come last."""
    found = []
    for folder in models_dir.iterdir() if models_dir.is_dir() else ():
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        for path in walk_files(folder):
            if path.suffix.lower() in (SAFETENSORS, *PICKLES) and not path.name.startswith(".") and path.is_file():
                name = path.relative_to(folder).as_posix()
                about = classify(name, read_header(path))
                found.append(LibraryModel(folder.name, name, path.stat().st_size, path, about))
    order = {kind: place for place, kind in enumerate(MODEL_KINDS)}
    return sorted(found, key=lambda model: (order.get(model.kind, len(MODEL_KINDS)), model.kind, model.name.lower()))


def find_models(models: Sequence[LibraryModel], text: str) -> list[LibraryModel]:
    """The models that `text` may name (see `shared.models.lookup`), also with the kind in front: `loras/ink`."""
    return find_matches(text, models, lambda model: (model.name, f"{model.kind}/{model.name}"))


def check_name(name: str, *, pickle: bool) -> str:
    """Return `name` if it is valid for a model file on every system. Raises SetupError otherwise."""
    if not is_valid_name(name):
        raise SetupError(STEP, f"{name!r} is not a valid file name", hint="give another one with --name")
    suffix = Path(name).suffix.lower()
    if suffix in PICKLES and not pickle:
        raise SetupError(
            STEP,
            f"{name}: files of this type can contain programs, which run when the model is loaded",
            hint=f"use a {SAFETENSORS} file instead; if you trust the author, --allow-pickle accepts it",
        )
    if suffix not in (SAFETENSORS, *PICKLES):
        raise SetupError(
            STEP,
            f"{name} does not have the extension of a model file",
            hint=f"give one with --name: NAME{SAFETENSORS}",
        )
    return name


def resolve_kind(text: str | None) -> str | None:
    """Return the kind with that name, in any spelling or as the path of its folder; None for None.

    Raises SetupError if there is no such kind.
    """
    if text is None:
        return None
    *folders, name = text.replace("\\", "/").rstrip("/").split("/")
    kind = find_kind(name) if folders[-1:] in ([], ["models"]) else None
    if kind is None:
        raise SetupError(
            STEP, f"there is no kind {text}", hint=f"{suggest_kind(text)}the kinds are {', '.join(MODEL_KINDS)}"
        )
    return kind


def choose_kind(path: Path, name: str, asked: str | None) -> str:
    """Return the kind of the file, which is also its folder: the one asked for, else the one in its header.

    Raises SetupError if the kind is unknown, InvalidModelFileError if the file is not a model.
    """
    detected = None
    if Path(name).suffix.lower() == SAFETENSORS:
        header = read_header(path)
        if header is None or not header.tensors:
            raise InvalidModelFileError(STEP, f"{name} is not a complete {SAFETENSORS} file", hint="download it again")
        detected = detect_kind(header)
    kind = asked or detected
    if kind is None:
        raise SetupError(
            STEP, f"the kind of {name} cannot be detected", hint=f"give it with --kind: {', '.join(MODEL_KINDS)}"
        )
    return kind


def target_path(models_dir: Path, kind: str, name: str, *, force: bool) -> Path:
    """Return the path for a new file. Raises SetupError if a file is there and must not be replaced."""
    target = models_dir / kind / name
    if target.is_dir() or (not force and os.path.lexists(target)):
        raise _exists_error(kind, name)
    return target


def install_file(temporary: Path, target: Path, *, force: bool) -> None:
    """Move a finished file to its path in one step; replaces a file only with `force`. Raises SetupError."""
    try:
        move_into_place(temporary, target.parent, target.name, replace=force)
    except AlreadyThere:
        raise _exists_error(target.parent.name, target.name) from None
    except StorageFailed as error:
        raise SetupError(STEP, error.message, hint=error.hint) from error


def _exists_error(kind: str, name: str) -> SetupError:
    return SetupError(
        STEP, f"{kind}/{name} already exists", hint="give another name with --name, or replace the file with --force"
    )
