"""Which model file a name means, by one rule for all kinds of models. Pure.

The strictest of these rules that matches anything decides, and a name that it matches twice is ambiguous:

1. the whole path below the kind's folder (`sdxl/ink.safetensors`), with `/` or `\\` between folders;
2. the same without the file's extension (`sdxl/ink`);
3. both again, whatever the case;
4. the file's name alone, with or without extension, in any folder and case (`ink`).

So a folder or an extension that was named is never passed over: `sd15/ink` does not mean `sdxl/ink.safetensors`, and
`ink.ckpt` does not mean `ink.safetensors`.
"""

import difflib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

# What ComfyUI takes for model files (folder_paths.supported_pt_extensions), and what its common custom nodes add.
EXTENSIONS = (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".gguf")

T = TypeVar("T")


def find_matches(wanted: str, files: Iterable[T], spellings: Callable[[T], Sequence[str]]) -> list[T]:
    """The files that `wanted` may mean: one if it is clear, several if it is ambiguous, none if there is none.

    `spellings` gives the whole paths of a file by which it may be named, the shortest first.
    """
    known = [(file, [_slashes(spelling) for spelling in spellings(file)]) for file in files]
    exact = [file for file in (each for each, _ in known) if wanted in spellings(file)]
    if exact:
        return exact
    asked = _slashes(wanted)
    for simple in (_same, _folded):
        for part in (_same, without_extension):
            found = [file for file, names in known if any(simple(part(name)) == simple(asked) for name in names)]
            if found:
                return found
    if "/" in asked:
        return []
    return [file for file, names in known if _folded(asked) in _names_alone(names[0])]


def match_names(wanted: str, available: Sequence[str]) -> list[str]:
    """The same for files of one kind, which are their paths."""
    return find_matches(wanted, available, lambda name: (name,))


def nearest_names(wanted: str, available: Sequence[str]) -> list[str]:
    """Up to ten paths of files with the same name in other folders or with other extensions; else up to three that
    resemble `wanted`; else the first ten there are."""
    alike = names_with_stem_of(wanted, available)
    if alike:
        return alike[:10]
    by_stem = {_stem(name): name for name in reversed(available)}
    close = difflib.get_close_matches(_stem(wanted), by_stem, n=3, cutoff=0.4)
    return [by_stem[each] for each in close] or list(available[:10])


def names_with_stem_of(wanted: str, available: Sequence[str]) -> list[str]:
    """The paths of files with the same name in any folder, with any extension and case."""
    stem = _stem(wanted)
    return [name for name in available if _stem(name) == stem]


def without_extension(name: str) -> str:
    """The name without the extension of a model file; as it is if it has another, or none."""
    ending = next((each for each in EXTENSIONS if name.lower().endswith(each)), "")
    return name[: len(name) - len(ending)] if len(ending) < len(name) else name


def _names_alone(path: str) -> tuple[str, str]:
    name = path.rpartition("/")[2]
    return _folded(name), _folded(without_extension(name))


def _stem(name: str) -> str:
    return _folded(without_extension(_slashes(name).rpartition("/")[2]))


def _slashes(name: str) -> str:
    return name.replace("\\", "/")


def _folded(name: str) -> str:
    # macOS writes accents apart from their letters.
    return unicodedata.normalize("NFC", name).casefold()


def _same(name: str) -> str:
    return name
