"""`models list`, `models add` and `models remove`, and their output."""

import argparse
import difflib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from filelock import FileLock

from launcher.models.download import (
    HEXADECIMAL_256,
    Downloader,
    check_free_space,
    copy_file,
    hash_file,
    lock_path,
    remove_unfinished,
)
from launcher.models.library import (
    DOWNLOADS,
    InvalidModelFileError,
    LibraryModel,
    check_name,
    choose_kind,
    find_models,
    install_file,
    list_models,
    resolve_kind,
    target_path,
)
from launcher.models.sources import STEP, Download, resolve_source
from launcher.terminal import columns, os_error_text, print_error, print_status, size_text, strip_controls
from shared.errors import DreamLayerError, SetupError
from shared.files import restrict_umask
from shared.models.detect import Family, TextEncoder, classify
from shared.models.downloadable import DOWNLOADABLE_MODELS, DownloadableModel
from shared.models.safetensors import read_header
from shared.settings import load_settings
from shared.site_keys import KeyRing

LIST_HINT = "`python dream_layer.py models list` shows the models"
# Shown in place of an empty description.
NO_DESCRIPTION = "-"


def run_models(options: argparse.Namespace) -> int:
    """Run `models`; returns the exit code."""
    restrict_umask()
    try:
        settings = load_settings()
        models_dir = settings.models_dir
        if options.action == "add":
            _add(models_dir, KeyRing(settings.data_dir), options)
        elif options.action == "remove":
            _remove(models_dir, options)
        else:
            _list(models_dir)
        sys.stdout.flush()
    except DreamLayerError as error:
        print_error(error.step if isinstance(error, SetupError) else STEP, strip_controls(error.message), error.hint)
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        print_error(STEP, os_error_text(error), "is the disk full or a folder not writable?")
        return 1
    return 0


def _list(models_dir: Path) -> None:
    models = list_models(models_dir)
    total = size_text(sum(model.size for model in models))
    sys.stdout.write(f"\n  {models_dir}: " + (f"{_files(len(models))}, {total}\n" if models else "no models yet\n"))
    sys.stdout.write(library_table(models) + "\n")
    parts = sorted((models_dir / DOWNLOADS).glob("*.part"))
    if parts:
        size = size_text(sum(part.stat().st_size for part in parts))
        sys.stdout.write(f"\n  unfinished: {_files(len(parts))}, {size}; the same `models add` continues a download\n")
    sys.stdout.write("\n  `models add` accepts these names:\n\n")
    width = columns() if sys.stdout.isatty() else None
    sys.stdout.write(
        downloadable_table(DOWNLOADABLE_MODELS, (Path(model.name).name for model in models), width) + "\n\n"
    )


def _add(models_dir: Path, keys: KeyRing, options: argparse.Namespace) -> None:
    sha256 = options.sha256.lower() if options.sha256 else None
    if sha256 is not None and not HEXADECIMAL_256.fullmatch(sha256):
        raise SetupError(STEP, "--sha256 must be 64 hexadecimal digits")
    options.kind = resolve_kind(options.kind)
    source = resolve_source(options.source, keys)
    if isinstance(source, Download):
        _add_download(models_dir, source, sha256, options)
    else:
        _add_file(models_dir, source, sha256, options)


def _add_file(models_dir: Path, source: Path, sha256: str | None, options: argparse.Namespace) -> None:
    name = check_name(options.name or source.name, pickle=options.allow_pickle)
    kind = choose_kind(source, name, options.kind)
    target = target_path(models_dir, kind, name, force=options.force)
    if os.path.lexists(target) and target.resolve() == source:
        raise SetupError(STEP, f"{source} is already in the models folder")
    if sha256 is not None and hash_file(source, "checking") != sha256:
        raise SetupError(STEP, f"the sha256 of {source.name} is not the expected one")
    # If this process is killed, the file is removed like that of a download; until then the lock protects it.
    temporary = models_dir / DOWNLOADS / f"{os.getpid()}-{name}.part"
    temporary.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_path(temporary), timeout=0)
    try:
        with lock:
            # After a kill it may be a hard link to the source, which must not be overwritten.
            temporary.unlink(missing_ok=True)
            _link_or_copy(source, temporary)
            _install(temporary, target, kind, name, force=options.force)
    finally:
        for path in (temporary, lock_path(temporary)):
            path.unlink(missing_ok=True)


def _add_download(models_dir: Path, source: Download, sha256: str | None, options: argparse.Namespace) -> None:
    if sha256 is not None:
        source = replace(source, sha256=sha256, size=None)
    kind = options.kind or source.kind
    wanted = options.name or source.name
    # Check everything that is known before the download, which may take an hour.
    if wanted is not None:
        check_name(wanted, pickle=options.allow_pickle)
        if kind is not None:
            target_path(models_dir, kind, wanted, force=options.force)
    print_status(
        "downloading",
        f"{wanted or 'a file'} from {source.host}" + (f", {size_text(source.size)}" if source.size else ""),
    )
    downloader = Downloader(source, models_dir / DOWNLOADS)
    path = downloader.run()
    name = options.name or downloader.name
    if name is None:
        raise SetupError(STEP, "the server sent no file name", hint="repeat with --name; the download is kept")
    check_name(name, pickle=options.allow_pickle)
    try:
        kind = choose_kind(path, name, kind)
    except InvalidModelFileError:
        # The next command must not take it for a finished download.
        downloader.discard()
        raise
    _install(path, target_path(models_dir, kind, name, force=options.force), kind, name, force=options.force)
    downloader.discard()


def _link_or_copy(source: Path, temporary: Path) -> None:
    """Create a hard link to the file, which takes no space; copy it if it is on another disk."""
    try:
        os.link(source, temporary)
    except OSError:
        check_free_space(temporary.parent, source.stat().st_size)
        copy_file(source, temporary)


def _install(temporary: Path, target: Path, kind: str, name: str, *, force: bool) -> None:
    replaced = os.path.lexists(target)
    install_file(temporary, target, force=force)
    model = LibraryModel(kind, name, target.stat().st_size, target, classify(name, read_header(target)))
    about = [describe_model(model)] if model.about.known and describe_model(model) != NO_DESCRIPTION else []
    print_status("added", f"{kind}/{name} ({', '.join([*about, size_text(model.size)])})")
    if replaced:
        print_status("note", "an engine that has loaded the old file uses it until the engine restarts")


def _remove(models_dir: Path, options: argparse.Namespace) -> None:
    if options.unfinished:
        size = size_text(sum(part.stat().st_size for part in (models_dir / DOWNLOADS).glob("*.part")))
        if not options.yes:
            _confirm(f"remove unfinished downloads ({size})?")
        print_status("removed", f"{_files(len(remove_unfinished(models_dir / DOWNLOADS)))} of unfinished downloads")
    if options.name is None:
        if not options.unfinished:
            raise SetupError(STEP, "name the model to remove", hint=LIST_HINT)
        return
    model = _find_one(list_models(models_dir), options.name)
    if not options.yes:
        _confirm(f"remove {model.kind}/{model.name} ({size_text(model.size)})?")
    model.path.unlink()
    print_status("removed", f"{model.kind}/{model.name} ({size_text(model.size)})")


def _find_one(models: list[LibraryModel], text: str) -> LibraryModel:
    matches = find_models(models, text)
    if len(matches) == 1:
        return matches[0]
    if matches:
        any_of = ", ".join(f"{model.kind}/{model.name}" for model in matches)
        raise SetupError(STEP, f"{text} may be any of {any_of}", hint="give the name with its folder")
    names = [name for model in models for name in (model.name, model.name.rpartition(".")[0])]
    closest = difflib.get_close_matches(text, names, n=1)
    hint = f"did you mean {closest[0]}?" if closest else LIST_HINT
    raise SetupError(STEP, f"there is no model {text}", hint=hint)


def _confirm(question: str) -> None:
    """Ask for confirmation. Raises SetupError without a yes."""
    if not sys.stdin.isatty():
        raise SetupError(STEP, "confirmation needs a terminal", hint="use --yes to skip it")
    sys.stdout.write(f"  {question} [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise SetupError(STEP, "nothing was removed", hint=None)


def _files(count: int) -> str:
    return f"{count} file" + "s" * (count != 1)


def describe_model(model: LibraryModel) -> str:
    """Describe a model by its family, or by what else its header contains."""
    about = model.about
    if not about.known:
        return "unreadable header" if model.name.lower().endswith(".safetensors") else "not inspected"
    words = [about.family.label] if about.family is not Family.UNKNOWN else []
    if model.kind == "text_encoders" and about.text_encoder is not TextEncoder.UNKNOWN:
        words.append(about.text_encoder.value)
    if model.kind == "vae" and about.latent_channels is not None:
        words.append(f"{about.latent_channels} channels")
    words += ["inpainting"] * about.inpainting + ["union"] * about.union
    return ", ".join(word for word in words if word) or NO_DESCRIPTION


def library_table(models: Sequence[LibraryModel]) -> str:
    """Return a table of the model files, grouped by kind."""
    rows = {model: (model.name, describe_model(model), size_text(model.size)) for model in models}
    widths = _widths(rows.values())
    lines = []
    for kind, group in groupby(models, key=lambda model: model.kind):
        lines.append(f"\n  {kind}")
        for model in group:
            name, about, size = rows[model]
            lines.append(f"    {name:<{widths[0]}}  {about:<{widths[1]}}  {size:>{widths[2]}}")
    return "\n".join(lines)


def downloadable_table(
    downloadable: Mapping[str, DownloadableModel], existing: Iterable[str], columns: int | None = None
) -> str:
    """Return a table of the models that can be added by name.

    `existing` are the file names in the models folder. Where `columns` are too few, a model takes two lines.
    """
    present = set(existing)
    rows = [
        (
            name,
            model.title,
            size_text(model.size) if model.size else "?",
            model.licence,
            ("known sha256" if model.sha256 else "the hub's sha256") + (", installed" if model.file in present else ""),
        )
        for name, model in downloadable.items()
    ]
    head = ("name", "model", "size", "licence", "verified with")
    a, b, c, d, e = _widths([head, *rows])
    if columns is not None and columns <= 4 + a + b + c + d + e + 8:
        return "\n".join(
            f"    {name:<{a}}  {title}\n    {'':<{a}}  {size if size != '?' else 'unknown size'}, {licence}, {rest}"
            for name, title, size, licence, rest in rows
        )
    return "\n".join(
        f"    {name:<{a}}  {title:<{b}}  {size:>{c}}  {licence:<{d}}  {rest}"
        for name, title, size, licence, rest in [head, *rows]
    )


def _widths(rows: Iterable[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]
