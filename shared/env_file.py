"""The file `.env`: settings as lines `NAME=value`, in the encodings that editors save."""

import codecs
import io
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from shared.errors import SetupError

STEP = "settings"
# Notepad and PowerShell put these marks in front. UTF-32 comes first, for its mark begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_env_file(path: Path, prefix: str) -> dict[str, str]:
    """The values whose names begin with `prefix`, in any case, by name; empty if there is no such file.

    Raises SetupError for a file that cannot be read, and for a line that names such a setting without setting it.
    """
    try:
        text = _decode(path.read_bytes(), path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SetupError(STEP, f"{path} cannot be read: {error.strerror}", hint="it has lines NAME=value") from error
    for binding in parse_stream(io.StringIO(text)):
        # Only what stands before the value is looked at and shown: the value may be a secret.
        begin = binding.original.string
        name = begin.strip().partition("=")[0].strip()
        is_set = (binding.key or "").upper().startswith(prefix) and binding.value is not None
        if prefix in name.upper() and not name.startswith("#") and not is_set:
            line = binding.original.line + begin.count("\n", 0, len(begin) - len(begin.lstrip()))
            raise SetupError(
                STEP,
                f"line {line} of {path} is not understood: {name[:60]}",
                hint="write NAME=value, with nothing in front",
            )
    values = dotenv_values(stream=io.StringIO(text))
    return {name: value for name, value in values.items() if name.upper().startswith(prefix) and value is not None}


def _decode(content: bytes, path: Path) -> str:
    encoding = next((encoding for mark, encoding in MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SetupError(
            STEP,
            f"line {line} of {path} is not valid {encoding.upper().removesuffix('-SIG')}",
            hint="save the file as UTF-8",
        ) from error
    if "\0" in text:
        raise SetupError(STEP, f"{path} is not UTF-8: it has zero bytes", hint="save the file as UTF-8")
    return text
