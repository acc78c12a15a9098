"""Finds the files that a request names in the engine's catalog, and checks that they fit the model."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from shared.engine.catalog import FRESH_SECONDS
from shared.errors import InvalidValue
from shared.models.detect import Family, ModelFile
from shared.models.downloadable import download_command
from shared.models.lookup import find_matches, match_names, nearest_names


class ModelCatalog(Protocol):
    """The engine's files and choices, at most some seconds old (see `shared.engine.catalog`)."""

    def names(self, folder: str, max_age: float = FRESH_SECONDS) -> list[str]:
        """Return the files in a folder, such as "loras"; the list is at most `max_age` seconds old."""

    def model_file(self, folder: str, name: str) -> ModelFile:
        """Return the family and type of a file."""

    def choices(self, class_type: str, name: str) -> list[str]:
        """Return the values that an input of a node accepts."""

    def has_node(self, class_type: str) -> bool:
        """Whether the engine has a node of that class."""


class FileKind(NamedTuple):
    """A kind of model file: its name in messages, and the folders that hold it."""

    label: str
    folders: tuple[str, ...]


MODEL = FileKind("model", ("checkpoints", "diffusion_models"))
CHECKPOINT = FileKind("checkpoint", ("checkpoints",))
VAE = FileKind("VAE", ("vae",))
TEXT_ENCODER = FileKind("text encoder", ("text_encoders",))
LORA = FileKind("LoRA", ("loras",))
CONTROLNET = FileKind("ControlNet", ("controlnet",))
UPSCALE_MODEL = FileKind("upscale model", ("upscale_models",))

# Families that share a file format, mapped to the one that represents both.
SAME_LAYERS: Mapping[Family, Family] = {Family.FLUX_SCHNELL: Family.FLUX_DEV}
SAME_LATENTS: Mapping[Family, Family] = {**SAME_LAYERS, Family.SD2: Family.SD1, Family.SDXL_REFINER: Family.SDXL}


def find_file(
    catalog: ModelCatalog, kind: FileKind, wanted: str, field: str, other_choices: Sequence[str] = ()
) -> tuple[str, str]:
    """Return the folder and the name of the file that `wanted` means (see `shared.models.lookup`).

    Raises InvalidValue that names `field`, and lists the candidates, or the closest names and `other_choices`.
    """
    found = search_file(catalog, kind, wanted, field)
    if found is not None:
        return found
    closest = nearest_names(wanted, [name for folder in kind.folders for name in catalog.names(folder)])
    choices = [*closest, *other_choices]
    hint = f"use {' or '.join(choices)}" if choices else f"the engine has no {kind.label} yet"
    command = download_command(wanted, kind.folders)
    if command is not None:
        hint = f"{command} downloads it" + (f"; or {hint}" if choices else "")
    raise InvalidValue(
        f"the {kind.label} {wanted!r} does not exist",
        field=field,
        hint=hint,
        value=wanted,
        nearest=closest,
    )


def search_file(catalog: ModelCatalog, kind: FileKind, wanted: str, field: str) -> tuple[str, str] | None:
    """Like `find_file`, but returns None if no file matches. Raises InvalidValue if several do."""
    matches: list[tuple[str, str]] = []
    # The second, uncached look finds files that were added or removed within the last seconds.
    for max_age in (FRESH_SECONDS, 0.0):
        files = [(folder, name) for folder in kind.folders for name in catalog.names(folder, max_age)]
        # An exact path wins over a path with the folder of its kind in front: replies name files by their exact path.
        matches = [file for file in files if file[1] == wanted] or find_matches(wanted, files, _spellings)
        if len(matches) == 1:
            return matches[0]
    if not matches:
        return None
    has_several_folders = len({folder for folder, _ in matches}) > 1
    raise ambiguous_name(
        wanted, [f"{folder}/{name}" if has_several_folders else name for folder, name in matches], field, kind.label
    )


def ambiguous_name(wanted: str, candidates: Sequence[str], field: str, label: str) -> InvalidValue:
    """The error for a name that matches several files."""
    return InvalidValue(
        f"the {label} {wanted!r} is ambiguous: it may be {' or '.join(candidates[:10])}",
        field=field,
        hint="use the full name, with folder and extension",
        value=wanted,
        nearest=list(candidates[:10]),
    )


def match_file(wanted: str, available: Sequence[str]) -> str | None:
    """Return the only one of `available` that `wanted` means; None if no name or several names match."""
    matches = match_names(wanted, available)
    return matches[0] if len(matches) == 1 else None


def find_fitting_file(
    catalog: ModelCatalog,
    kind: FileKind,
    wanted: str,
    field: str,
    model: ModelFile,
    same: Mapping[Family, Family] = SAME_LAYERS,
) -> str:
    """Like `find_file`, for a file that is used together with `model`; returns its name.

    Raises InvalidValue if the file was made for another family. Files of unknown families pass.
    """
    folder, name = find_file(catalog, kind, wanted, field)

    def fits(file: str) -> bool:
        return _fits(catalog.model_file(folder, file).family, model.family, same)

    if fits(name):
        return name
    family, fitting = catalog.model_file(folder, name).family, [*filter(fits, catalog.names(folder))]
    raise InvalidValue(
        f"the {kind.label} {name} is for {family.label}, but the model {model.name} is {model.family.label}",
        field=field,
        hint=f"use {' or '.join(fitting[:10])}"
        if fitting
        else f"the engine has no {kind.label} for {model.family.label}",
        value=wanted,
    )


def check_vae(catalog: ModelCatalog, name: str, model: ModelFile) -> None:
    """Raise InvalidValue if the latents of a VAE have another number of channels than those of the model."""
    channels, needed = catalog.model_file("vae", name).latent_channels, latent_channels(model.family)
    if channels is None or needed is None or channels == needed:
        return
    fitting = [file for file in catalog.names("vae") if catalog.model_file("vae", file).latent_channels == needed]
    raise InvalidValue(
        f"the VAE {name} decodes latents of {channels} channels, but those of {model.name} have {needed}",
        field="vae_name",
        hint=f"use {' or '.join(fitting[:10])}, or leave vae_name out" if fitting else "leave vae_name out",
        value=name,
    )


def latent_channels(family: Family) -> int | None:
    """Return the number of channels of a family's latents; None for an unknown family."""
    if family is Family.UNKNOWN:
        return None
    return 16 if family in (Family.SD3, Family.FLUX_DEV, Family.FLUX_SCHNELL) else 4


def _fits(made_for: Family, family: Family, same: Mapping[Family, Family]) -> bool:
    is_unknown = Family.UNKNOWN in (made_for, family)
    return is_unknown or same.get(made_for, made_for) is same.get(family, family)


def _spellings(file: tuple[str, str]) -> tuple[str, str]:
    folder, name = file
    return name, f"{folder}/{name}"
