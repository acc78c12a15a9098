"""Resolves the name of a model to files, by the same rules for all kinds of models. Pure.

The first of these rules that matches a file decides. If it matches several files, the name is ambiguous:

1. the whole path below the kind's folder (`sdxl/ink.safetensors`), with `/` or `\\` between folders;
2. the same without the file's extension (`sdxl/ink`);
3. both rules again, ignoring case;
4. only the file's name, with or without extension, in any folder and case (`ink`).

So a folder or an extension in the name always counts: `sd15/ink` does not match `sdxl/ink.safetensors`, and `ink.ckpt`
does not match `ink.safetensors`.
"""

import difflib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

# ComfyUI's extensions of model files (folder_paths.supported_pt_extensions), and those of common custom nodes.
EXTENSIONS = (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".gguf")

T = TypeVar("T")


def find_matches(wanted: str, files: Iterable[T], spellings: Callable[[T], Sequence[str]]) -> list[T]:
    """Return the files that `wanted` matches: one if it is clear, several if it is ambiguous, or none.

    `spellings` returns the paths by which a file may be named, the shortest first.
    """
    candidates = [(file, [_slashes(spelling) for spelling in spellings(file)]) for file in files]
    exact = [file for file, _ in candidates if wanted in spellings(file)]
    if exact:
        return exact
    name = _slashes(wanted)
    for fold in (_unchanged, _fold):
        for shorten in (_unchanged, without_extension):
            matches = [file for file, paths in candidates if any(fold(shorten(path)) == fold(name) for path in paths)]
            if matches:
                return matches
    if "/" in name:
        return []
    return [file for file, paths in candidates if _fold(name) in _file_names(paths[0])]


def match_names(wanted: str, available: Sequence[str]) -> list[str]:
    """Return the paths in `available`, all of one kind, that `wanted` matches (see `find_matches`)."""
    return find_matches(wanted, available, lambda name: (name,))


def nearest_names(wanted: str, available: Sequence[str]) -> list[str]:
    """Return suggestions for a name without a match.

    These are up to ten files with the same name in other folders or with other extensions; else up to three with
    similar names; else the first ten of all.
    """
    same_stem = names_with_stem_of(wanted, available)
    if same_stem:
        return same_stem[:10]
    by_stem = {_stem(name): name for name in reversed(available)}
    similar = difflib.get_close_matches(_stem(wanted), by_stem, n=3, cutoff=0.4)
    return [by_stem[stem] for stem in similar] or list(available[:10])


def names_with_stem_of(wanted: str, available: Sequence[str]) -> list[str]:
    """Return the paths of files with the same name in any folder, with any extension and case."""
    stem = _stem(wanted)
    return [name for name in available if _stem(name) == stem]


def without_extension(name: str) -> str:
    """Return the name without the extension of a model file; unchanged if it has none, or another one."""
    extension = next((extension for extension in EXTENSIONS if name.lower().endswith(extension)), "")
    return name[: len(name) - len(extension)] if len(extension) < len(name) else name


def _file_names(path: str) -> tuple[str, str]:
    name = path.rpartition("/")[2]
    return _fold(name), _fold(without_extension(name))


def _stem(name: str) -> str:
    return _fold(without_extension(_slashes(name).rpartition("/")[2]))


def _slashes(name: str) -> str:
    return name.replace("\\", "/")


def _fold(name: str) -> str:
    # macOS stores accents separately from their letters.
    return unicodedata.normalize("NFC", name).casefold()


def _unchanged(name: str) -> str:
    return name
