"""Chooses the model files of a request, and the settings that suit them."""

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
from shared.web.parsing.model_catalog import (
    CHECKPOINT,
    MODEL,
    TEXT_ENCODER,
    VAE,
    ModelCatalog,
    check_vae,
    find_file,
    latent_channels,
    match_file,
)
from shared.web.parsing.parser import Parser

T = TypeVar("T")

# The name that ComfyUI's CLIPLoader has for a family, and the text encoders that the family needs.
ENCODERS: dict[Family, tuple[str, tuple[TextEncoder, ...]]] = {
    Family.SD1: ("stable_diffusion", (TextEncoder.CLIP_L,)),
    Family.SD2: ("stable_diffusion", (TextEncoder.CLIP_H,)),
    Family.SDXL: ("sdxl", (TextEncoder.CLIP_L, TextEncoder.CLIP_G)),
    Family.SD3: ("sd3", (TextEncoder.CLIP_L, TextEncoder.CLIP_G)),
    Family.FLUX_DEV: ("flux", (TextEncoder.CLIP_L, TextEncoder.T5XXL)),
    Family.FLUX_SCHNELL: ("flux", (TextEncoder.CLIP_L, TextEncoder.T5XXL)),
}
# Text encoders that a family uses if they are installed.
OPTIONAL_ENCODERS = {Family.SD3: TextEncoder.T5XXL}


@dataclass(frozen=True)
class ChosenModels:
    """The model files of a request.

    `name` finds the main model again, `file` describes it, and `defaults` are the settings that suit it.
    """

    name: str
    files: Models
    file: ModelFile
    defaults: ModelDefaults


def default_checkpoint(preferred: str | None, catalog: ModelCatalog, max_age: float = FRESH_SECONDS) -> str | None:
    """Return the checkpoint for a request without a model name; None if the engine has no checkpoint.

    `preferred` comes from the settings: it is returned unchanged, and may lack its folder and extension. A checkpoint
    that cannot draw from a prompt alone (inpainting, editing, video, refiner) is chosen only if there is no other.
    """

    def draws(name: str) -> bool:
        return is_text_to_image(catalog.model_file("checkpoints", name))

    return choose_checkpoint(preferred, catalog.names("checkpoints", max_age), draws)


def is_starter_default(preferred: str | None, catalog: ModelCatalog) -> bool:
    """Whether the default checkpoint is the starter model or one of its kit.

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
    """Move the default checkpoint to the front of a list, because menus preselect the first entry.

    `name` returns the file name of an item. A `preferred` checkpoint that does not exist is ignored.
    """
    names = [name(file) for file in files]
    wanted = None if preferred is None else match_file(preferred, names)
    first = wanted or default_checkpoint(None, catalog)
    # Sorting is stable: the others keep their order.
    return sorted(files, key=lambda file: name(file) != first)


def choose_models(parser: Parser, body: GenerationBody) -> ChosenModels:
    """Choose the model files of a request.

    Raises InvalidValue for a file that does not exist, EngineUnavailable if the engine has no model.
    """
    if parser.custom_graph is not None:
        return _model_of_custom_graph(parser.catalog, body)
    folder, name = _main_model(parser, body)
    file = parser.catalog.model_file(folder, name)
    is_checkpoint = folder == "checkpoints"
    parts = _usable_parts(file) if is_checkpoint else frozenset()
    encoders, vae = _named_encoders(parser.catalog, body), _named_vae(parser.catalog, body, file)
    if not encoders and ModelPart.TEXT_ENCODERS not in parts:
        encoders = _choose_encoders(parser, name, file.family)
    if vae is None and ModelPart.VAE not in parts:
        vae = _choose_vae(parser, name, file.family)
    files = Models(
        checkpoint=name if is_checkpoint else None,
        diffusion_model=None if is_checkpoint else name,
        text_encoders=encoders,
        clip_type=ENCODERS[file.family][0] if file.family in ENCODERS else "stable_diffusion",
        vae=vae,
        latent_channels=latent_channels(file.family) or 4,
    )
    return ChosenModels(_unique_name(parser.catalog, folder, name), files, file, defaults_for(file))


def _model_of_custom_graph(catalog: ModelCatalog, body: GenerationBody) -> ChosenModels:
    """Find the model that a custom graph is to load, if the request names one. Raises InvalidValue."""
    name = ""
    if body.model_name is not None:
        # The graph's loader decides on the folder, so an exact name may be that of two files.
        exact = any(body.model_name in catalog.names(folder) for folder in MODEL.folders)
        name = body.model_name if exact else find_file(catalog, MODEL, body.model_name, "model_name")[1]
    unknown = ModelFile(name)
    return ChosenModels(name, Models(checkpoint=name), unknown, defaults_for(unknown))


def _main_model(parser: Parser, body: GenerationBody) -> tuple[str, str]:
    """Return the folder and the name of the checkpoint or diffusion model. Raises InvalidValue, EngineUnavailable."""
    if body.model_name:
        return find_file(parser.catalog, MODEL, body.model_name, "model_name")
    preferred = parser.default_checkpoint
    wanted = _existing_default(preferred, parser.catalog)
    if wanted is None:
        raise EngineUnavailable(
            "the engine has no checkpoint",
            hint="put a .safetensors file into data/models/checkpoints",
        )
    # A default is a checkpoint, even if a diffusion model has the same name; a name in the settings may be either.
    return find_file(parser.catalog, MODEL if preferred else CHECKPOINT, wanted, "model_name")


def _existing_default(preferred: str | None, catalog: ModelCatalog) -> str | None:
    """Return the default checkpoint, from an uncached list if the cached one names a deleted file."""
    wanted = default_checkpoint(preferred, catalog)
    if wanted is None or not catalog.model_file("checkpoints", wanted).known:
        wanted = default_checkpoint(preferred, catalog, 0.0)
    return wanted


def _unique_name(catalog: ModelCatalog, folder: str, name: str) -> str:
    """Return the name, with its folder in front if the other folder has a file of the same name."""
    is_shared = any(name in catalog.names(other) for other in MODEL.folders if other != folder)
    return f"{folder}/{name}" if is_shared else name


def _usable_parts(checkpoint: ModelFile) -> frozenset[ModelPart]:
    """Return the parts that a checkpoint has. One of an unknown family counts as complete."""
    return frozenset(ModelPart) if checkpoint.family is Family.UNKNOWN else checkpoint.parts


def _named_vae(catalog: ModelCatalog, body: GenerationBody, model: ModelFile) -> str | None:
    if body.vae_name is None or is_default_choice(body.vae_name):
        return None
    _, name = find_file(catalog, VAE, body.vae_name, "vae_name")
    check_vae(catalog, name, model)
    return name


def _named_encoders(catalog: ModelCatalog, body: GenerationBody) -> tuple[str, ...]:
    return tuple(
        find_file(catalog, TEXT_ENCODER, name, "text_encoders")[1]
        for name in body.text_encoders or ()
        if not is_default_choice(name)
    )


def _choose_encoders(parser: Parser, model: str, family: Family) -> tuple[str, ...]:
    """Choose a file for each text encoder that the family needs, by what the files contain. Raises InvalidValue."""
    _, needed = ENCODERS.get(family, ("", ()))
    by_type = _encoders_by_type(parser.catalog, FRESH_SECONDS)
    if not by_type.keys() >= {*needed}:
        by_type = _encoders_by_type(parser.catalog, 0.0)
    missing = " and ".join(encoder.value for encoder in needed if encoder not in by_type)
    if missing or not needed:
        reason = f"there is no file for {missing}" if missing else "it is unknown which it needs"
        raise InvalidValue(
            f"{model} has no text encoder, and {reason}",
            field="text_encoders",
            hint="put the text encoders into data/models/text_encoders, or name others in text_encoders",
        )
    optional = [OPTIONAL_ENCODERS[family]] if family in OPTIONAL_ENCODERS else []
    return tuple(
        _take_first(parser, model, by_type[encoder], "text encoder", "text_encoders")
        for encoder in (*needed, *optional)
        if encoder in by_type
    )


def _encoders_by_type(catalog: ModelCatalog, max_age: float) -> dict[TextEncoder, list[str]]:
    by_type: dict[TextEncoder, list[str]] = {}
    for name in catalog.names("text_encoders", max_age):
        by_type.setdefault(catalog.model_file("text_encoders", name).text_encoder, []).append(name)
    return by_type


def _choose_vae(parser: Parser, model: str, family: Family) -> str:
    channels = latent_channels(family) or 4
    for max_age in (FRESH_SECONDS, 0.0):
        names = without_starter_vae(parser.catalog.names("vae", max_age))
        fitting = [name for name in names if parser.catalog.model_file("vae", name).latent_channels == channels]
        if fitting:
            return _take_first(parser, model, fitting, "VAE", "vae_name")
    raise InvalidValue(
        f"{model} has no VAE, and there is none for latents of {channels} channels",
        field="vae_name",
        hint="put a VAE into data/models/vae, or name one in vae_name",
    )


def _take_first(parser: Parser, model: str, names: Sequence[str], label: str, field: str) -> str:
    """Return the first of the files that fit, and warn if there are others."""
    if len(names) > 1:
        parser.warn(f"{model} has no {label}, so {names[0]} is used; {field} may name {' or '.join(names[1:6])}")
    return names[0]
