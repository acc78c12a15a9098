"""The checkpoint of a request that names none, and lists of checkpoints that begin with it."""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from shared.defaults import choose_checkpoint
from shared.engine.catalog import FRESH
from shared.engine.families import Family, ModelFile
from shared.web.reading.inventory import Inventory, match_file

T = TypeVar("T")

# Where the file cannot be read, its name has to do.
SPECIAL_NAME = re.compile(r"inpaint|refiner", re.I)


def default_checkpoint(preferred: str | None, inventory: Inventory, max_age: float = FRESH) -> str | None:
    """The checkpoint for a request that names none; None if there is nothing to choose from.

    `preferred` is that of the settings: it is taken as it is, and may lack its folder and extension. A checkpoint for
    inpainting, or a refiner, is chosen only where there is no other.
    """

    def draws_alone(name: str) -> bool:
        return not _is_special(inventory.model_file("checkpoints", name))

    return choose_checkpoint(preferred, inventory.names("checkpoints", max_age), draws_alone)


def default_first(files: Sequence[T], preferred: str | None, inventory: Inventory, name: Callable[[T], str]) -> list[T]:
    """The same checkpoints, the default one in front: menus preselect the first. `name` tells the name of a file.

    A `preferred` one that does not exist does not count here.
    """
    names = [name(file) for file in files]
    wanted = None if preferred is None else match_file(preferred, names)
    first = wanted or default_checkpoint(None, inventory)
    # Sorting keeps the order of all others.
    return sorted(files, key=lambda file: name(file) != first)


def _is_special(file: ModelFile) -> bool:
    """Whether it was made for one purpose, and draws badly from a prompt alone."""
    if not file.known:
        return SPECIAL_NAME.search(file.name) is not None
    return file.inpainting or file.family is Family.SDXL_REFINER
