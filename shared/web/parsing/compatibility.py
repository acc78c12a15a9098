"""Whether files fit together: what was made for one family of models breaks, or does nothing, with another."""

from collections.abc import Mapping

from shared.errors import InvalidValue
from shared.models.detect import Family, ModelFile
from shared.web.parsing.model_catalog import ModelCatalog, find_file

# Families that a file may have been made for in place of another, by the one that stands for both.
SAME_LAYERS: Mapping[Family, Family] = {Family.FLUX_SCHNELL: Family.FLUX_DEV}
SAME_LATENTS: Mapping[Family, Family] = {**SAME_LAYERS, Family.SD2: Family.SD1, Family.SDXL_REFINER: Family.SDXL}


def find_fitting(
    wanted: str,
    catalog: ModelCatalog,
    folder: str,
    field: str,
    what: str,
    model: ModelFile,
    alike: Mapping[Family, Family] = SAME_LAYERS,
) -> str:
    """Like `find_file`, for a file that is to work with `model`.

    Raises InvalidValue for one that was made for another family. Files of which that is not known are let through.
    """
    name = find_file(wanted, catalog, folder, field, what)

    def fits(file: str) -> bool:
        return _fits(catalog.model_file(folder, file).family, model.family, alike)

    if fits(name):
        return name
    family, others = catalog.model_file(folder, name).family, [*filter(fits, catalog.names(folder))]
    raise InvalidValue(
        f"the {what} {name} is for {family.label}, and {model.name} is of {model.family.label}",
        field=field,
        hint=f"there is {', '.join(others[:10])}" if others else f"there is no {what} for {model.family.label}",
        value=wanted,
    )


def check_vae(name: str, catalog: ModelCatalog, model: ModelFile) -> str:
    """The VAE's name. Raises InvalidValue if its latents have other channels than the model's."""
    has, needs = catalog.model_file("vae", name).latent_channels, latent_channels(model.family)
    if has is None or needs is None or has == needs:
        return name
    others = [each for each in catalog.names("vae") if catalog.model_file("vae", each).latent_channels == needs]
    raise InvalidValue(
        f"the VAE {name} is for latents of {has} channels, and those of {model.name} have {needs}",
        field="vae_name",
        hint=f"there is {', '.join(others[:10])}; or leave it out" if others else "leave it out",
        value=name,
    )


def latent_channels(family: Family) -> int | None:
    """Channels of a family's latents; None if they are not known."""
    if family is Family.UNKNOWN:
        return None
    return 16 if family in (Family.SD3, Family.FLUX_DEV, Family.FLUX_SCHNELL) else 4


def _fits(made_for: Family, family: Family, alike: Mapping[Family, Family]) -> bool:
    either_is_unknown = Family.UNKNOWN in (made_for, family)
    return either_is_unknown or alike.get(made_for, made_for) is alike.get(family, family)
