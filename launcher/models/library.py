"""The models folder: what is in it, and how a file gets in and out."""

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

SAFE = ".safetensors"
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
DOWNLOADS = ".downloads"


class UnusableFileError(SetupError):
    """The file itself is at fault, and no option would help."""


@dataclass(frozen=True)
class Model:
    """A file in the folder. `name` is relative to its kind's folder, as requests name it."""

    kind: str
    name: str
    size: int
    path: Path
    about: ModelFile


def list_models(models_dir: Path) -> list[Model]:
    """All model files, by kind and name; folders of kinds that we do not know come last."""
    found = []
    for folder in models_dir.iterdir() if models_dir.is_dir() else ():
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        for path in walk_files(folder):
            if path.suffix.lower() in (SAFE, *PICKLES) and not path.name.startswith(".") and path.is_file():
                name = path.relative_to(folder).as_posix()
                about = classify(name, read_header(path))
                found.append(Model(folder.name, name, path.stat().st_size, path, about))
    order = {kind: place for place, kind in enumerate(MODEL_KINDS)}
    return sorted(found, key=lambda model: (order.get(model.kind, len(MODEL_KINDS)), model.kind, model.name.lower()))


def find_models(models: Sequence[Model], text: str) -> list[Model]:
    """The models that `text` may name (see `shared.models.lookup`), also with the kind in front: `loras/ink`."""
    return find_matches(text, models, lambda model: (model.name, f"{model.kind}/{model.name}"))


def check_name(name: str, *, pickle: bool) -> str:
    """`name`, if it can be a model file's everywhere. Raises SetupError."""
    if not is_valid_name(name):
        raise SetupError(STEP, f"{name!r} cannot be a file name", hint="give another with --name")
    suffix = Path(name).suffix.lower()
    if suffix in PICKLES and not pickle:
        raise SetupError(
            STEP,
            f"{name}: files of that kind can hold programs, which run when they are loaded",
            hint=f"is there a {SAFE} of it? if you trust its maker, --allow-pickle takes it",
        )
    if suffix not in (SAFE, *PICKLES):
        raise SetupError(STEP, f"{name} is no model file by its name", hint=f"--name gives it one with {SAFE}")
    return name


def read_kind(text: str | None) -> str | None:
    """The kind that was typed: its name in any spelling, or the path of its folder; None is for the header to tell.

    Raises SetupError if there is no such kind.
    """
    if text is None:
        return None
    *folders, name = text.replace("\\", "/").rstrip("/").split("/")
    kind = find_kind(name) if folders[-1:] in ([], ["models"]) else None
    if kind is None:
        raise SetupError(
            STEP, f"there is no kind {text}", hint=f"{suggest_kind(text)}there are {', '.join(MODEL_KINDS)}"
        )
    return kind


def choose_kind(path: Path, name: str, asked: str | None) -> str:
    """The folder for a file that is to be called `name`. Raises SetupError if there is none or the file is no model."""
    told = None
    if Path(name).suffix.lower() == SAFE:
        header = read_header(path)
        if header is None or not header.tensors:
            raise UnusableFileError(STEP, f"{name} is no whole {SAFE} file", hint="was it cut off? fetch it again")
        told = detect_kind(header)
    kind = asked or told
    if kind is None:
        raise SetupError(STEP, f"what {name} is cannot be told", hint=f"--kind says it: {', '.join(MODEL_KINDS)}")
    return kind


def target_of(models_dir: Path, kind: str, name: str, *, force: bool) -> Path:
    """Where the file will lie. Raises SetupError if one lies there that must not be replaced."""
    target = models_dir / kind / name
    if target.is_dir() or (not force and os.path.lexists(target)):
        raise _taken(kind, name)
    return target


def place(aside: Path, target: Path, *, force: bool) -> None:
    """Moves a finished file to its place: there at once, or not at all, and over nothing unless `force`."""
    try:
        move_into_place(aside, target.parent, target.name, replace=force)
    except AlreadyThere:
        raise _taken(target.parent.name, target.name) from None
    except StorageFailed as error:
        raise SetupError(STEP, error.message, hint=error.hint) from error


def _taken(kind: str, name: str) -> SetupError:
    return SetupError(
        STEP, f"there is a {kind}/{name} already", hint="--name gives it another name, --force replaces the old one"
    )
