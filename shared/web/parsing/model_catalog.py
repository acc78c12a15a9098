"""What reading asks of the engine, and how a file that a client names is found."""

from collections.abc import Sequence
from typing import Protocol

from shared.engine.catalog import FRESH_SECONDS
from shared.errors import InvalidValue
from shared.models.detect import ModelFile
from shared.models.downloadable import download_command
from shared.models.lookup import find_matches, match_names, nearest_names


class ModelCatalog(Protocol):
    """The engine's files and choices, as they were a moment ago (see `shared.engine.catalog`)."""

    def names(self, folder: str, max_age: float = FRESH_SECONDS) -> list[str]:
        """The files of a kind, such as "loras", as they were at most `max_age` seconds ago."""

    def model_file(self, folder: str, name: str) -> ModelFile:
        """What a file is."""

    def choices(self, class_type: str, name: str) -> list[str]:
        """The values that an input of a node may have."""

    def has_node(self, class_type: str) -> bool:
        """Whether the engine has a node of that class."""


def find_file(
    wanted: str, catalog: ModelCatalog, folder: str, field: str, what: str, besides: Sequence[str] = ()
) -> str:
    """The file of a kind that is meant (see `shared.models.lookup`).

    Raises InvalidValue that names `field`, the files that could be meant or the nearest there are, and what else it
    takes `besides` files; `what` says in words what is sought.
    """
    return find_in(wanted, catalog, (folder,), field, what, besides)[1]


def find_in(
    wanted: str, catalog: ModelCatalog, folders: Sequence[str], field: str, what: str, besides: Sequence[str] = ()
) -> tuple[str, str]:
    """Like `find_file`, in several folders, whose names may stand in front of the file's; which one, and the name."""
    found = look_for(wanted, catalog, folders, field, what)
    if found is not None:
        return found
    near = nearest_names(wanted, [name for folder in folders for name in catalog.names(folder)])
    there = f"there is {', '.join([*near, *besides])}" if near or besides else f"the engine has no {what} yet"
    command = download_command(wanted, folders)
    raise InvalidValue(
        f"the {what} {wanted!r} does not exist",
        field=field,
        hint=there if command is None else f"{command} downloads it; {there}",
        value=wanted,
        nearest=near,
    )


def look_for(
    wanted: str, catalog: ModelCatalog, folders: Sequence[str], field: str, what: str
) -> tuple[str, str] | None:
    """The folder that has the file that is meant, and its name there; None if none has.

    Raises InvalidValue with all that could be meant if that is not clear.
    """
    found: list[tuple[str, str]] = []
    # A file may have been added, or removed, a moment ago.
    for max_age in (FRESH_SECONDS, 0.0):
        files = [(folder, name) for folder in folders for name in catalog.names(folder, max_age)]
        # Its own path goes before that of a file whose kind's name stands in front: replies name files by it.
        found = [file for file in files if file[1] == wanted] or find_matches(wanted, files, _spellings)
        if len(found) == 1:
            return found[0]
    if not found:
        return None
    several = len({folder for folder, _ in found}) > 1
    candidates = [f"{folder}/{name}" if several else name for folder, name in found]
    raise ambiguous(wanted, candidates, field, what)


def ambiguous(wanted: str, candidates: Sequence[str], field: str, what: str) -> InvalidValue:
    """The error for a name that may mean several files."""
    return InvalidValue(
        f"the {what} {wanted!r} may be any of {', '.join(candidates[:10])}",
        field=field,
        hint="say which, with its folder and extension",
        value=wanted,
        nearest=list(candidates[:10]),
    )


def match_file(wanted: str, available: Sequence[str]) -> str | None:
    """The one of `available` that is meant; None if there is none, or if it is not clear which."""
    found = match_names(wanted, available)
    return found[0] if len(found) == 1 else None


def _spellings(file: tuple[str, str]) -> tuple[str, str]:
    folder, name = file
    return name, f"{folder}/{name}"
