"""What the terminal shows of models. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from launcher.models.library import Model
from launcher.terminal import size_text
from shared.models.detect import Family, TextEncoder
from shared.models.downloadable import DownloadableModel

NOTHING = "-"


def describe(model: Model) -> str:
    """Its family, or what else its header tells."""
    about = model.about
    if not about.known:
        return "no header to read" if model.name.lower().endswith(".safetensors") else "not looked into"
    words = [about.family.label] if about.family is not Family.UNKNOWN else []
    if model.kind == "text_encoders" and about.text_encoder is not TextEncoder.UNKNOWN:
        words.append(about.text_encoder.value)
    if model.kind == "vae" and about.latent_channels is not None:
        words.append(f"{about.latent_channels} channels")
    words += ["inpainting"] * about.inpainting + ["union"] * about.union
    return ", ".join(word for word in words if word) or NOTHING


def shelf_table(models: Sequence[Model]) -> str:
    """Every file, below its kind."""
    rows = {model: (model.name, describe(model), size_text(model.size)) for model in models}
    widths = _widths(rows.values())
    lines = []
    for kind, group in groupby(models, key=lambda model: model.kind):
        lines.append(f"\n  {kind}")
        for model in group:
            name, about, size = rows[model]
            lines.append(f"    {name:<{widths[0]}}  {about:<{widths[1]}}  {size:>{widths[2]}}")
    return "\n".join(lines)


def known_table(known: Mapping[str, DownloadableModel], there: Iterable[str], columns: int | None = None) -> str:
    """What can be added by name; `there`: file names that are there already. In a line of `columns` that is too narrow
    for the table, each model has two lines."""
    present = set(there)
    rows = [
        (
            name,
            model.title,
            size_text(model.size) if model.size else "?",
            model.licence,
            ("sha256 known" if model.sha256 else "sha256 as the hub says")
            + (", is here" if model.file in present else ""),
        )
        for name, model in known.items()
    ]
    head = ("name", "model", "size", "licence", "checked against")
    a, b, c, d, e = _widths([head, *rows])
    if columns is not None and columns <= 4 + a + b + c + d + e + 8:
        return "\n".join(
            f"    {name:<{a}}  {title}\n    {'':<{a}}  {size if size != '?' else 'size not sure'}, {licence}, {rest}"
            for name, title, size, licence, rest in rows
        )
    return "\n".join(
        f"    {name:<{a}}  {title:<{b}}  {size:>{c}}  {licence:<{d}}  {rest}"
        for name, title, size, licence, rest in [head, *rows]
    )


def _widths(rows: Iterable[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]
