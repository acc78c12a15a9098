"""The checkpoint of a request that names none, and lists of checkpoints that begin with it."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from shared.defaults import choose_checkpoint, draws_alone, is_starter
from shared.engine.catalog import FRESH
from shared.web.reading.inventory import Inventory, match_file

T = TypeVar("T")


def default_checkpoint(preferred: str | None, inventory: Inventory, max_age: float = FRESH) -> str | None:
    """The checkpoint for a request that names none; None if there is nothing to choose from.

    `preferred` is that of the settings: it is taken as it is, and may lack its folder and extension. A checkpoint that
    does not draw from words alone (for inpainting, editing or video, a refiner) is chosen only where there is no other.
    """

    def draws(name: str) -> bool:
        return draws_alone(inventory.model_file("checkpoints", name))

    return choose_checkpoint(preferred, inventory.names("checkpoints", max_age), draws)


def is_starter_default(preferred: str | None, inventory: Inventory) -> bool:
    """Whether a request that names no checkpoint is drawn by the starter model or its kit, or there is nothing else.

    Raises EngineUnavailable.
    """
    names = inventory.names("checkpoints")
    wanted = default_checkpoint(preferred, inventory)
    if wanted is not None:
        names = [match_file(wanted, names) or wanted]
    return bool(names) and all(is_starter(inventory.model_file("checkpoints", name)) for name in names)


def default_first(files: Sequence[T], preferred: str | None, inventory: Inventory, name: Callable[[T], str]) -> list[T]:
    """The same checkpoints, the default one in front: menus preselect the first. `name` tells the name of a file.

    A `preferred` one that does not exist does not count here.
    """
    names = [name(file) for file in files]
    wanted = None if preferred is None else match_file(preferred, names)
    first = wanted or default_checkpoint(None, inventory)
    # Sorting keeps the order of all others.
    return sorted(files, key=lambda file: name(file) != first)
