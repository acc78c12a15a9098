"""What reading asks of the engine, and how a file that a client names is found."""

import difflib
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Protocol

from shared.engine.catalog import FRESH
from shared.engine.families import ModelFile
from shared.errors import InvalidValue


class Inventory(Protocol):
    """The engine's files and choices, as they were a moment ago (see `shared.engine.catalog`)."""

    def names(self, folder: str, max_age: float = FRESH) -> list[str]:
        """The files of a kind, such as "loras", as they were at most `max_age` seconds ago."""

    def model_file(self, folder: str, name: str) -> ModelFile:
        """What a file is."""

    def choices(self, class_type: str, name: str) -> list[str]:
        """The values that an input of a node may have."""

    def has_node(self, class_type: str) -> bool:
        """Whether the engine has a node of that class."""


def find_file(
    wanted: str, inventory: Inventory, folder: str, field: str, what: str, besides: Sequence[str] = ()
) -> str:
    """The file of a kind that is meant: by its whole name, or without folder, extension and case.

    Raises InvalidValue that names `field`, the nearest there are, and what else it takes `besides` files; `what` says
    in words what is sought.
    """
    return find_in(wanted, inventory, (folder,), field, what, besides)[1]


def find_in(
    wanted: str, inventory: Inventory, folders: Sequence[str], field: str, what: str, besides: Sequence[str] = ()
) -> tuple[str, str]:
    """Like `find_file`, in the first of several folders that has it; which one, and the name."""
    found = look_for(wanted, inventory, folders)
    if found is not None:
        return found
    nearest = near_files(wanted, [name for folder in folders for name in inventory.names(folder)])
    raise InvalidValue(
        f"the {what} {wanted!r} does not exist",
        field=field,
        hint=f"there is {', '.join([*nearest, *besides])}" if nearest or besides else f"the engine has no {what} yet",
        value=wanted,
        nearest=nearest,
    )


def look_for(wanted: str, inventory: Inventory, folders: Sequence[str]) -> tuple[str, str] | None:
    """The first of the folders that has the file that is meant, and its name there; None if none has."""
    # A file may have been added a moment ago.
    for max_age in (FRESH, 0.0):
        for folder in folders:
            found = match_file(wanted, inventory.names(folder, max_age))
            if found is not None:
                return folder, found
    return None


def match_file(wanted: str, available: Sequence[str]) -> str | None:
    """The one of `available` that is meant, or None."""
    if wanted in available:
        return wanted
    for simple in (_posix, _stem):
        found = [name for name in available if simple(name) == simple(wanted)]
        if found:
            return found[0]
    return None


def near_files(wanted: str, available: Sequence[str]) -> list[str]:
    """Up to three names that resemble `wanted`; if none does, the first ten there are."""
    by_stem = {_stem(name): name for name in reversed(available)}
    near = difflib.get_close_matches(_stem(wanted), by_stem, n=3, cutoff=0.4)
    return [by_stem[stem] for stem in near] or list(available[:10])


def _posix(name: str) -> str:
    return name.replace("\\", "/").casefold()


def _stem(name: str) -> str:
    path = PurePosixPath(_posix(name))
    known = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
    return path.stem if path.suffix in known else path.name
