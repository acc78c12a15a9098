"""Which files a request is drawn with, and the settings that suit them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from shared.engine.catalog import FRESH_SECONDS
from shared.errors import EngineUnavailable, InvalidValue
from shared.models.defaults import (
    ModelDefaults,
    choose_checkpoint,
    defaults_for,
    is_starter,
    is_text_to_image,
    without_starter_vae,
)
from shared.models.detect import Family, ModelFile, ModelPart, TextEncoder
from shared.schema.body import GenerationBody
from shared.schema.choices import is_default_choice
from shared.schema.request import Models
from shared.web.parsing.compatibility import check_vae, latent_channels
from shared.web.parsing.model_catalog import ModelCatalog, find_file, find_in, match_file

T = TypeVar("T")


def default_checkpoint(preferred: str | None, catalog: ModelCatalog, max_age: float = FRESH_SECONDS) -> str | None:
    """The checkpoint for a request that names none; None if there is nothing to choose from.

    `preferred` is that of the settings: it is taken as it is, and may lack its folder and extension. A checkpoint that
    does not draw from words alone (for inpainting, editing or video, a refiner) is chosen only where there is no other.
    """

    def draws(name: str) -> bool:
        return is_text_to_image(catalog.model_file("checkpoints", name))

    return choose_checkpoint(preferred, catalog.names("checkpoints", max_age), draws)


def is_starter_default(preferred: str | None, catalog: ModelCatalog) -> bool:
    """Whether a request that names no checkpoint is drawn by the starter model or its kit, or there is nothing else.

    Raises EngineUnavailable.
    """
    names = catalog.names("checkpoints")
    wanted = default_checkpoint(preferred, catalog)
    if wanted is not None:
        names = [match_file(wanted, names) or wanted]
    return bool(names) and all(is_starter(catalog.model_file("checkpoints", name)) for name in names)


def default_first(
    files: Sequence[T], preferred: str | None, catalog: ModelCatalog, name: Callable[[T], str]
) -> list[T]:
    """The same checkpoints, the default one in front: menus preselect the first. `name` tells the name of a file.

    A `preferred` one that does not exist does not count here.
    """
    names = [name(file) for file in files]
    wanted = None if preferred is None else match_file(preferred, names)
    first = wanted or default_checkpoint(None, catalog)
    # Sorting keeps the order of all others.
    return sorted(files, key=lambda file: name(file) != first)


# What the loader of text encoders calls a family, and the encoders that it needs.
ENCODERS: dict[Family, tuple[str, tuple[TextEncoder, ...]]] = {
    Family.SD1: ("stable_diffusion", (TextEncoder.CLIP_L,)),
    Family.SD2: ("stable_diffusion", (TextEncoder.CLIP_H,)),
    Family.SDXL: ("sdxl", (TextEncoder.CLIP_L, TextEncoder.CLIP_G)),
    Family.SD3: ("sd3", (TextEncoder.CLIP_L, TextEncoder.CLIP_G)),
    Family.FLUX_DEV: ("flux", (TextEncoder.CLIP_L, TextEncoder.T5XXL)),
    Family.FLUX_SCHNELL: ("flux", (TextEncoder.CLIP_L, TextEncoder.T5XXL)),
}
# Used where it is there: the prompt is read better with it.
WELCOME = {Family.SD3: TextEncoder.T5XXL}
# Where the file that draws may lie.
MAIN = ("checkpoints", "diffusion_models")


@dataclass(frozen=True)
class Chosen:
    """The files, what the diffusion model's file is, and the settings that suit it. `name` finds that file again.

    `warnings`: what was taken where more than one file would do.
    """

    name: str
    models: Models
    file: ModelFile
    defaults: ModelDefaults
    warnings: tuple[str, ...] = ()


def choose_models(body: GenerationBody, preferred: str | None, catalog: ModelCatalog) -> Chosen:
    """The files for `body`; `preferred` is the checkpoint of the settings.

    Raises InvalidValue for what does not exist, EngineUnavailable if there is nothing to draw with.
    """
    folder, name = _main_model(body, preferred, catalog)
    file = catalog.model_file(folder, name)
    clip_type, needed = ENCODERS.get(file.family, ("stable_diffusion", ()))
    is_checkpoint = folder == "checkpoints"
    holds = _usable_parts(file) if is_checkpoint else frozenset()
    encoders, vae = _named_encoders(body, catalog), _named_vae(body, catalog, file)
    warnings: list[str] = []
    if not encoders and ModelPart.TEXT_ENCODERS not in holds:
        fitting = _fitting_encoders(name, needed, WELCOME.get(file.family), catalog)
        encoders = tuple(names[0] for names in fitting)
        warnings += [_also_fitting(name, names, "text encoder", "text_encoders") for names in fitting if len(names) > 1]
    if vae is None and ModelPart.VAE not in holds:
        vaes = _fitting_vaes(name, file.family, catalog)
        vae = vaes[0]
        if len(vaes) > 1:
            warnings.append(_also_fitting(name, vaes, "VAE", "vae_name"))
    models = Models(
        checkpoint=name if is_checkpoint else None,
        diffusion_model=None if is_checkpoint else name,
        text_encoders=encoders,
        clip_type=clip_type,
        vae=vae,
        latent_channels=latent_channels(file.family) or 4,
    )
    return Chosen(_unmistakable(folder, name, catalog), models, file, defaults_for(file), tuple(warnings))


def models_of_a_graph(body: GenerationBody, catalog: ModelCatalog) -> Chosen:
    """What is chosen for a graph of the client's own, which has loaders of its own: a name to place, if one was sent.

    Raises InvalidValue for one that does not exist.
    """
    name = ""
    if body.model_name is not None:
        # Of which kind it is, the graph's loader says.
        both = [file for folder in MAIN for file in catalog.names(folder)]
        if body.model_name in both:
            name = body.model_name
        else:
            name = find_in(body.model_name, catalog, MAIN, "model_name", "model")[1]
    unknown = ModelFile(name)
    return Chosen(name, Models(checkpoint=name), unknown, defaults_for(unknown))


def _main_model(body: GenerationBody, preferred: str | None, catalog: ModelCatalog) -> tuple[str, str]:
    """The folder and the name of the checkpoint, or diffusion model. Raises InvalidValue, EngineUnavailable."""
    if body.model_name:
        return find_in(body.model_name, catalog, MAIN, "model_name", "model")
    wanted = _choose(preferred, catalog)
    if wanted is None:
        raise EngineUnavailable(
            "the engine has no checkpoint to draw with",
            hint="put a .safetensors file into data/models/checkpoints",
        )
    # What was chosen of the checkpoints is one, even if a diffusion model has the same name.
    return find_in(wanted, catalog, MAIN if preferred else MAIN[:1], "model_name", "model")


def _unmistakable(folder: str, name: str, catalog: ModelCatalog) -> str:
    """The name, with its kind in front if another kind has a file of the same name."""
    elsewhere = any(name in catalog.names(other) for other in MAIN if other != folder)
    return f"{folder}/{name}" if elsewhere else name


def _also_fitting(model: str, names: Sequence[str], what: str, field: str) -> str:
    """The warning that another of these files would fit as well as the first, which was taken."""
    return f"{model} holds no {what}, so {names[0]} was taken; {field} may name {' or '.join(names[1:6])}"


def _usable_parts(checkpoint: ModelFile) -> frozenset[ModelPart]:
    """What need not be sought elsewhere. Of a checkpoint of an unknown kind nobody knows where it holds what."""
    return frozenset(ModelPart) if checkpoint.family is Family.UNKNOWN else checkpoint.parts


def _choose(preferred: str | None, catalog: ModelCatalog) -> str | None:
    """The checkpoint for a request that leaves the choice to us: never a file that was deleted a moment ago."""
    wanted = default_checkpoint(preferred, catalog)
    if wanted is None or not catalog.model_file("checkpoints", wanted).known:
        wanted = default_checkpoint(preferred, catalog, 0.0)
    return wanted


def _named_vae(body: GenerationBody, catalog: ModelCatalog, model: ModelFile) -> str | None:
    if body.vae_name is None or is_default_choice(body.vae_name):
        return None
    return check_vae(find_file(body.vae_name, catalog, "vae", "vae_name", "VAE"), catalog, model)


def _named_encoders(body: GenerationBody, catalog: ModelCatalog) -> tuple[str, ...]:
    return tuple(
        find_file(name, catalog, "text_encoders", "text_encoders", "text encoder")
        for name in body.text_encoders or ()
        if not is_default_choice(name)
    )


def _fitting_encoders(
    model: str, needed: tuple[TextEncoder, ...], welcome: TextEncoder | None, catalog: ModelCatalog
) -> list[list[str]]:
    """The files for each text encoder that the model needs, by what the files are."""
    found = _encoders(catalog, FRESH_SECONDS)
    if not found.keys() >= {*needed}:
        # A file may have been added a moment ago.
        found = _encoders(catalog, 0.0)
    missing = " and ".join(kind.value for kind in needed if kind not in found)
    if missing or not needed:
        lack = f"there is no file for {missing}" if missing else "it is not known which it needs"
        raise InvalidValue(
            f"{model} holds no text encoder, and {lack}",
            field="text_encoders",
            hint="put them into data/models/text_encoders, or name others in text_encoders",
        )
    return [found[kind] for kind in (*needed, welcome) if kind in found]


def _encoders(catalog: ModelCatalog, max_age: float) -> dict[TextEncoder, list[str]]:
    found: dict[TextEncoder, list[str]] = {}
    for name in catalog.names("text_encoders", max_age):
        found.setdefault(catalog.model_file("text_encoders", name).text_encoder, []).append(name)
    return found


def _fitting_vaes(model: str, family: Family, catalog: ModelCatalog) -> list[str]:
    channels = latent_channels(family) or 4
    for max_age in (FRESH_SECONDS, 0.0):
        names = without_starter_vae(catalog.names("vae", max_age))
        found = [name for name in names if catalog.model_file("vae", name).latent_channels == channels]
        if found:
            return found
    raise InvalidValue(
        f"{model} holds no VAE, and there is none for latents of {channels} channels",
        field="vae_name",
        hint="put one into data/models/vae, or name one in vae_name",
    )
