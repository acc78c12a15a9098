"""Which files a request is drawn with, and the settings that suit them."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.defaults import Defaults, defaults_for, own_vaes
from shared.engine.catalog import FRESH
from shared.engine.families import Family, ModelFile, Part, TextEncoder
from shared.errors import EngineUnavailable, InvalidValue
from shared.schema.body import GenerationBody
from shared.schema.request import Models
from shared.schema.words import is_default
from shared.web.reading.default_checkpoint import default_checkpoint
from shared.web.reading.inventory import Inventory, find_file, find_in
from shared.web.reading.matching import check_vae, latent_channels

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
    defaults: Defaults
    warnings: tuple[str, ...] = ()


def choose_models(body: GenerationBody, preferred: str | None, inventory: Inventory) -> Chosen:
    """The files for `body`; `preferred` is the checkpoint of the settings.

    Raises InvalidValue for what does not exist, EngineUnavailable if there is nothing to draw with.
    """
    folder, name = _main_model(body, preferred, inventory)
    file = inventory.model_file(folder, name)
    clip_type, needed = ENCODERS.get(file.family, ("stable_diffusion", ()))
    is_checkpoint = folder == "checkpoints"
    holds = _usable_parts(file) if is_checkpoint else frozenset()
    encoders, vae = _named_encoders(body, inventory), _named_vae(body, inventory, file)
    warnings: list[str] = []
    if not encoders and Part.TEXT_ENCODERS not in holds:
        fitting = _fitting_encoders(name, needed, WELCOME.get(file.family), inventory)
        encoders = tuple(names[0] for names in fitting)
        warnings += [_also_fitting(name, names, "text encoder", "text_encoders") for names in fitting if len(names) > 1]
    if vae is None and Part.VAE not in holds:
        vaes = _fitting_vaes(name, file.family, inventory)
        vae = vaes[0]
        if len(vaes) > 1:
            warnings.append(_also_fitting(name, vaes, "VAE", "vae_name"))
    models = Models(
        checkpoint=name if is_checkpoint else None,
        diffusion_model=None if is_checkpoint else name,
        text_encoders=encoders,
        clip_type=clip_type,
        vae=vae,
        wide_latents=latent_channels(file.family) == 16,
    )
    return Chosen(_unmistakable(folder, name, inventory), models, file, defaults_for(file), tuple(warnings))


def models_of_a_graph(body: GenerationBody, inventory: Inventory) -> Chosen:
    """What is chosen for a graph of the client's own, which has loaders of its own: a name to place, if one was sent.

    Raises InvalidValue for one that does not exist.
    """
    name = ""
    if body.model_name is not None:
        # Of which kind it is, the graph's loader says.
        both = [file for folder in MAIN for file in inventory.names(folder)]
        if body.model_name in both:
            name = body.model_name
        else:
            name = find_in(body.model_name, inventory, MAIN, "model_name", "model")[1]
    unknown = ModelFile(name)
    return Chosen(name, Models(checkpoint=name), unknown, defaults_for(unknown))


def _main_model(body: GenerationBody, preferred: str | None, inventory: Inventory) -> tuple[str, str]:
    """The folder and the name of the checkpoint, or diffusion model. Raises InvalidValue, EngineUnavailable."""
    if body.model_name:
        return find_in(body.model_name, inventory, MAIN, "model_name", "model")
    wanted = _choose(preferred, inventory)
    if wanted is None:
        raise EngineUnavailable(
            "the engine has no checkpoint to draw with",
            hint="put a .safetensors file into data/models/checkpoints",
        )
    # What was chosen of the checkpoints is one, even if a diffusion model has the same name.
    return find_in(wanted, inventory, MAIN if preferred else MAIN[:1], "model_name", "model")


def _unmistakable(folder: str, name: str, inventory: Inventory) -> str:
    """The name, with its kind in front if another kind has a file of the same name."""
    elsewhere = any(name in inventory.names(other) for other in MAIN if other != folder)
    return f"{folder}/{name}" if elsewhere else name


def _also_fitting(model: str, names: Sequence[str], what: str, field: str) -> str:
    """The warning that another of these files would fit as well as the first, which was taken."""
    return f"{model} holds no {what}, so {names[0]} was taken; {field} may name {' or '.join(names[1:6])}"


def _usable_parts(checkpoint: ModelFile) -> frozenset[Part]:
    """What need not be sought elsewhere. Of a checkpoint of an unknown kind nobody knows where it holds what."""
    return frozenset(Part) if checkpoint.family is Family.UNKNOWN else checkpoint.parts


def _choose(preferred: str | None, inventory: Inventory) -> str | None:
    """The checkpoint for a request that leaves the choice to us: never a file that was deleted a moment ago."""
    wanted = default_checkpoint(preferred, inventory)
    if wanted is None or not inventory.model_file("checkpoints", wanted).known:
        wanted = default_checkpoint(preferred, inventory, 0.0)
    return wanted


def _named_vae(body: GenerationBody, inventory: Inventory, model: ModelFile) -> str | None:
    if body.vae_name is None or is_default(body.vae_name):
        return None
    return check_vae(find_file(body.vae_name, inventory, "vae", "vae_name", "VAE"), inventory, model)


def _named_encoders(body: GenerationBody, inventory: Inventory) -> tuple[str, ...]:
    return tuple(
        find_file(name, inventory, "text_encoders", "text_encoders", "text encoder")
        for name in body.text_encoders or ()
        if not is_default(name)
    )


def _fitting_encoders(
    model: str, needed: tuple[TextEncoder, ...], welcome: TextEncoder | None, inventory: Inventory
) -> list[list[str]]:
    """The files for each text encoder that the model needs, by what the files are."""
    found = _encoders(inventory, FRESH)
    if not found.keys() >= {*needed}:
        # A file may have been added a moment ago.
        found = _encoders(inventory, 0.0)
    missing = " and ".join(kind.value for kind in needed if kind not in found)
    if missing or not needed:
        lack = f"there is no file for {missing}" if missing else "it is not known which it needs"
        raise InvalidValue(
            f"{model} holds no text encoder, and {lack}",
            field="text_encoders",
            hint="put them into data/models/text_encoders, or name others in text_encoders",
        )
    return [found[kind] for kind in (*needed, welcome) if kind in found]


def _encoders(inventory: Inventory, max_age: float) -> dict[TextEncoder, list[str]]:
    found: dict[TextEncoder, list[str]] = {}
    for name in inventory.names("text_encoders", max_age):
        found.setdefault(inventory.model_file("text_encoders", name).text_encoder, []).append(name)
    return found


def _fitting_vaes(model: str, family: Family, inventory: Inventory) -> list[str]:
    channels = latent_channels(family) or 4
    for max_age in (FRESH, 0.0):
        names = own_vaes(inventory.names("vae", max_age))
        found = [name for name in names if inventory.model_file("vae", name).latent_channels == channels]
        if found:
            return found
    raise InvalidValue(
        f"{model} holds no VAE, and there is none for latents of {channels} channels",
        field="vae_name",
        hint="put one into data/models/vae, or name one in vae_name",
    )
