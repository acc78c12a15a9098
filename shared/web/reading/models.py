"""Which files a request is drawn with, and the settings that suit them."""

from dataclasses import dataclass

from shared.defaults import Defaults, choose_checkpoint, defaults_for
from shared.engine.families import Family, ModelFile, TextEncoder
from shared.errors import EngineUnavailable, InvalidValue
from shared.schema.body import GenerationBody
from shared.schema.request import Models
from shared.web.reading.inventory import Inventory, find_file, find_in

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
WIDE = {Family.SD3, Family.FLUX_DEV, Family.FLUX_SCHNELL}
CHECKPOINTS_OWN = ("automatic", "none", "default")


@dataclass(frozen=True)
class Chosen:
    """The files, what the diffusion model's file is, and the settings that suit it. `name` is the engine's."""

    name: str
    models: Models
    file: ModelFile
    defaults: Defaults


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
    encoders, vae, wide = _named_encoders(body, inventory), _vae(body, inventory), file.family in WIDE
    if folder == "checkpoints":
        models = Models(checkpoint=name, text_encoders=encoders, clip_type=clip_type, vae=vae, wide_latents=wide)
    else:
        models = Models(
            diffusion_model=name,
            text_encoders=encoders or _fitting_encoders(name, needed, WELCOME.get(file.family), inventory),
            clip_type=clip_type,
            vae=vae or _fitting_vae(name, file.family, inventory),
            wide_latents=wide,
        )
    return Chosen(name, models, file, defaults_for(file))


def _choose(preferred: str | None, inventory: Inventory) -> str | None:
    """The checkpoint for a request that leaves the choice to us: never a file that was deleted a moment ago."""
    wanted = choose_checkpoint(preferred, inventory.names("checkpoints"))
    if wanted is None or not inventory.model_file("checkpoints", wanted).known:
        wanted = choose_checkpoint(preferred, inventory.names("checkpoints", 0.0))
    return wanted


def _vae(body: GenerationBody, inventory: Inventory) -> str | None:
    if body.vae_name is None or body.vae_name.lower() in CHECKPOINTS_OWN:
        return None
    return find_file(body.vae_name, inventory, "vae", "vae_name", "VAE")


def _named_encoders(body: GenerationBody, inventory: Inventory) -> tuple[str, ...]:
    return tuple(
        find_file(name, inventory, "text_encoders", "text_encoders", "text encoder")
        for name in body.text_encoders or ()
    )


def _fitting_encoders(
    model: str, needed: tuple[TextEncoder, ...], welcome: TextEncoder | None, inventory: Inventory
) -> tuple[str, ...]:
    """A file for each text encoder that the model needs, by what the files are."""
    by_kind = {
        inventory.model_file("text_encoders", name).text_encoder: name for name in inventory.names("text_encoders")
    }
    missing = [kind.value for kind in needed if kind not in by_kind]
    if missing or not needed:
        raise InvalidValue(
            f"{model} is a diffusion model alone, and its text encoder{'s' if len(missing) > 1 else ''} "
            f"{' and '.join(missing) or 'must be named'}{' are not there' if missing else ''}",
            field="text_encoders",
            hint="put them into data/models/text_encoders, or name others in text_encoders",
        )
    return tuple(by_kind[kind] for kind in (*needed, welcome) if kind in by_kind)


def _fitting_vae(model: str, family: Family, inventory: Inventory) -> str:
    channels = 16 if family in WIDE else 4
    for name in inventory.names("vae"):
        if inventory.model_file("vae", name).latent_channels == channels:
            return name
    raise InvalidValue(
        f"{model} is a diffusion model alone, and no VAE with {channels} latent channels is there",
        field="vae_name",
        hint="put one into data/models/vae, or name one in vae_name",
    )
