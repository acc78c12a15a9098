"""Which files a request is drawn with, and the settings that suit them."""

from dataclasses import dataclass

from shared.defaults import Defaults, choose_checkpoint, defaults_for, own_vaes
from shared.engine.catalog import FRESH
from shared.engine.families import Family, ModelFile, Part, TextEncoder
from shared.errors import EngineUnavailable, InvalidValue
from shared.schema.body import GenerationBody
from shared.schema.request import Models
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
CHECKPOINTS_OWN = ("automatic", "none", "default")


@dataclass(frozen=True)
class Chosen:
    """The files, what the diffusion model's file is, and the settings that suit it. `name` is the engine's.

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
    wanted = body.model_name or _choose(preferred, inventory)
    if wanted is None:
        raise EngineUnavailable(
            "the engine has no checkpoint to draw with",
            hint="put a .safetensors file into data/models/checkpoints",
        )
    folder, name = find_in(wanted, inventory, ("checkpoints", "diffusion_models"), "model_name", "model")
    file = inventory.model_file(folder, name)
    clip_type, needed = ENCODERS.get(file.family, ("stable_diffusion", ()))
    is_checkpoint = folder == "checkpoints"
    holds = _usable_parts(file) if is_checkpoint else frozenset()
    encoders, vae = _named_encoders(body, inventory), _named_vae(body, inventory, file)
    if not encoders and Part.TEXT_ENCODERS not in holds:
        encoders = _fitting_encoders(name, needed, WELCOME.get(file.family), inventory)
    warnings: tuple[str, ...] = ()
    if vae is None and Part.VAE not in holds:
        vae, *others = _fitting_vaes(name, file.family, inventory)
        if others:
            warnings = (f"{name} holds no VAE, so {vae} was taken; vae_name may name {' or '.join(others[:5])}",)
    models = Models(
        checkpoint=name if is_checkpoint else None,
        diffusion_model=None if is_checkpoint else name,
        text_encoders=encoders,
        clip_type=clip_type,
        vae=vae,
        wide_latents=latent_channels(file.family) == 16,
    )
    return Chosen(name, models, file, defaults_for(file), warnings)


def models_of_a_graph(body: GenerationBody, inventory: Inventory) -> Chosen:
    """What is chosen for a graph of the client's own, which has loaders of its own: a name to place, if one was sent.

    Raises InvalidValue for one that does not exist.
    """
    name = ""
    if body.model_name is not None:
        name = find_in(body.model_name, inventory, ("checkpoints", "diffusion_models"), "model_name", "model")[1]
    unknown = ModelFile(name)
    return Chosen(name, Models(checkpoint=name), unknown, defaults_for(unknown))


def _usable_parts(checkpoint: ModelFile) -> frozenset[Part]:
    """What need not be sought elsewhere. Of a checkpoint of an unknown kind nobody knows where it holds what."""
    return frozenset(Part) if checkpoint.family is Family.UNKNOWN else checkpoint.parts


def _choose(preferred: str | None, inventory: Inventory) -> str | None:
    """The checkpoint for a request that leaves the choice to us: never a file that was deleted a moment ago."""
    wanted = choose_checkpoint(preferred, inventory.names("checkpoints"))
    if wanted is None or not inventory.model_file("checkpoints", wanted).known:
        wanted = choose_checkpoint(preferred, inventory.names("checkpoints", 0.0))
    return wanted


def _named_vae(body: GenerationBody, inventory: Inventory, model: ModelFile) -> str | None:
    if body.vae_name is None or body.vae_name.lower() in CHECKPOINTS_OWN:
        return None
    return check_vae(find_file(body.vae_name, inventory, "vae", "vae_name", "VAE"), inventory, model)


def _named_encoders(body: GenerationBody, inventory: Inventory) -> tuple[str, ...]:
    return tuple(
        find_file(name, inventory, "text_encoders", "text_encoders", "text encoder")
        for name in body.text_encoders or ()
    )


def _fitting_encoders(
    model: str, needed: tuple[TextEncoder, ...], welcome: TextEncoder | None, inventory: Inventory
) -> tuple[str, ...]:
    """A file for each text encoder that the model needs, by what the files are."""
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
    return tuple(found[kind] for kind in (*needed, welcome) if kind in found)


def _encoders(inventory: Inventory, max_age: float) -> dict[TextEncoder, str]:
    # Of several of a kind, the first.
    names = reversed(inventory.names("text_encoders", max_age))
    return {inventory.model_file("text_encoders", name).text_encoder: name for name in names}


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
