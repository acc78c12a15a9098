"""`models list`, `models add`, `models remove`."""

import argparse
import difflib
import os
import sys
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from launcher.models.download import (
    HEXADECIMAL_256,
    Fetch,
    check_room,
    copy_file,
    hash_file,
    lock_of,
    remove_unfinished,
)
from launcher.models.library import (
    DOWNLOADS,
    Model,
    UnusableFileError,
    check_name,
    choose_kind,
    find_models,
    list_models,
    place,
    read_kind,
    target_of,
)
from launcher.models.sources import STEP, Download, read_source
from launcher.models.tables import NOTHING, describe, known_table, shelf_table
from launcher.terminal import cause, columns, plain, print_error, print_status, size_text
from shared.errors import DreamLayerError, SetupError
from shared.files import restrict_umask
from shared.keys import KeyRing
from shared.models.detect import classify
from shared.models.downloadable import DOWNLOADABLE_MODELS
from shared.models.safetensors import read_header
from shared.settings import load_settings


def run_models(options: argparse.Namespace) -> int:
    """Does what was typed, and returns the exit code."""
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
        # One line, whatever was typed into it.
        print_error(error.step if isinstance(error, SetupError) else STEP, plain(error.message), error.hint)
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        print_error(STEP, cause(error), "is the disk full or a folder not writable?")
        return 1
    return 0


def _list(models_dir: Path) -> None:
    models = list_models(models_dir)
    total = size_text(sum(model.size for model in models))
    sys.stdout.write(f"\n  {models_dir}: " + (f"{_files(len(models))}, {total}\n" if models else "no models yet\n"))
    sys.stdout.write(shelf_table(models) + "\n")
    parts = sorted((models_dir / DOWNLOADS).glob("*.part"))
    if parts:
        size = size_text(sum(part.stat().st_size for part in parts))
        told = f"unfinished: {_files(len(parts))}, {size}; the same `models add` goes on with a download"
        sys.stdout.write(f"\n  {told}\n")
    sys.stdout.write("\n  `models add` knows these by name:\n\n")
    room = columns() if sys.stdout.isatty() else None
    sys.stdout.write(known_table(DOWNLOADABLE_MODELS, (Path(model.name).name for model in models), room) + "\n\n")


def _add(models_dir: Path, keys: KeyRing, options: argparse.Namespace) -> None:
    sha256 = options.sha256.lower() if options.sha256 else None
    if sha256 is not None and not HEXADECIMAL_256.fullmatch(sha256):
        raise SetupError(STEP, "--sha256 is 64 hexadecimal digits")
    options.kind = read_kind(options.kind)
    source = read_source(options.source, keys)
    if isinstance(source, Download):
        _add_download(models_dir, source, sha256, options)
    else:
        _add_file(models_dir, source, sha256, options)


def _add_file(models_dir: Path, source: Path, sha256: str | None, options: argparse.Namespace) -> None:
    name = check_name(options.name or source.name, pickle=options.allow_pickle)
    kind = choose_kind(source, name, options.kind)
    target = target_of(models_dir, kind, name, force=options.force)
    if os.path.lexists(target) and target.resolve() == source:
        raise SetupError(STEP, f"{source} is that file already")
    if sha256 is not None and hash_file(source, "checking") != sha256:
        raise SetupError(STEP, f"{source.name} has another sha256")
    # What a kill leaves of it is found and removed as that of a download is; until then the lock keeps it.
    aside = models_dir / DOWNLOADS / f"{os.getpid()}-{name}.part"
    aside.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_of(aside), timeout=0)
    try:
        with lock:
            # After a kill it may be a second name of the source, and would be written over.
            aside.unlink(missing_ok=True)
            _link_or_copy(source, aside)
            _shelve(aside, target, kind, name, force=options.force)
    finally:
        for path in (aside, lock_of(aside)):
            path.unlink(missing_ok=True)


def _add_download(models_dir: Path, source: Download, sha256: str | None, options: argparse.Namespace) -> None:
    if sha256 is not None:
        source = replace(source, sha256=sha256, size=None)
    kind = options.kind or source.kind
    wanted = options.name or source.name
    # What can be refused now is not refused after an hour.
    if wanted is not None:
        check_name(wanted, pickle=options.allow_pickle)
        if kind is not None:
            target_of(models_dir, kind, wanted, force=options.force)
    print_status(
        "fetching", f"{wanted or 'a file'} from {source.host}" + (f", {size_text(source.size)}" if source.size else "")
    )
    fetch = Fetch(source, models_dir / DOWNLOADS)
    path = fetch.run()
    name = options.name or fetch.name
    if name is None:
        raise SetupError(STEP, "the server gave the file no name", hint="--name gives it one; it is kept meanwhile")
    check_name(name, pickle=options.allow_pickle)
    try:
        kind = choose_kind(path, name, kind)
    except UnusableFileError:
        # The next command must not find it, and take it for fetched.
        fetch.discard()
        raise
    _shelve(path, target_of(models_dir, kind, name, force=options.force), kind, name, force=options.force)
    fetch.discard()


def _link_or_copy(source: Path, aside: Path) -> None:
    """A second name for the file takes no place; on another disk it is copied."""
    try:
        os.link(source, aside)
    except OSError:
        check_room(aside.parent, source.stat().st_size)
        copy_file(source, aside)


def _shelve(aside: Path, target: Path, kind: str, name: str, *, force: bool) -> None:
    replaced = os.path.lexists(target)
    place(aside, target, force=force)
    model = Model(kind, name, target.stat().st_size, target, classify(name, read_header(target)))
    about = [describe(model)] if model.about.known and describe(model) != NOTHING else []
    print_status("added", f"{kind}/{name} ({', '.join([*about, size_text(model.size)])})")
    if replaced:
        print_status("note", "an engine that has the old file in memory draws with it until it is started again")


def _remove(models_dir: Path, options: argparse.Namespace) -> None:
    if options.unfinished:
        size = size_text(sum(part.stat().st_size for part in (models_dir / DOWNLOADS).glob("*.part")))
        if not options.yes:
            _confirm(f"remove what broken-off downloads left ({size})?")
        print_status("removed", f"{_files(len(remove_unfinished(models_dir / DOWNLOADS)))} of unfinished downloads")
    if options.name is None:
        if not options.unfinished:
            raise SetupError(STEP, "which one?", hint="python dream_layer.py models list")
        return
    model = _the_one(list_models(models_dir), options.name)
    if not options.yes:
        _confirm(f"remove {model.kind}/{model.name} ({size_text(model.size)})?")
    model.path.unlink()
    print_status("removed", f"{model.kind}/{model.name} ({size_text(model.size)})")


def _the_one(models: list[Model], text: str) -> Model:
    found = find_models(models, text)
    if len(found) == 1:
        return found[0]
    if found:
        any_of = ", ".join(f"{model.kind}/{model.name}" for model in found)
        raise SetupError(STEP, f"{text} may be any of {any_of}", hint="print_status which, with its folder")
    names = [name for model in models for name in (model.name, model.name.rpartition(".")[0])]
    near = difflib.get_close_matches(text, names, n=1)
    hint = f"did you mean {near[0]}?" if near else "python dream_layer.py models list shows what there is"
    raise SetupError(STEP, f"there is no model {text}", hint=hint)


def _confirm(question: str) -> None:
    """Goes on only after a yes. Raises SetupError."""
    if not sys.stdin.isatty():
        raise SetupError(STEP, "nobody is there to be asked", hint="--yes does it without asking")
    sys.stdout.write(f"  {question} [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise SetupError(STEP, "nothing was removed", hint=None)


def _files(count: int) -> str:
    return f"{count} file" + "s" * (count != 1)
