"""JSON with limits: refuses documents with too many values, and never writes NaN or Infinity. Pure.

Python needs about a microsecond and 60 bytes for each value, so 60 MB of `[],` would take 40 seconds and more than a
gigabyte. So the values are counted before parsing: by the commas and opening brackets outside of strings.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any

# Objects, lists and their members in one document. A graph of 1,000 nodes with 20 linked inputs each has 65,000.
MAX_VALUES = 200_000
MARKS = (",", "[", "{")
# Only for text without escapes: a pattern that handles them needs 50 bytes of memory for each.
MARK_OR_STRING = re.compile(r'[,\[{]|"[^"]*"?')


class JsonTooLarge(ValueError):
    """The document has too many values. The message completes a sentence: "<the field> has more than ... values"."""


def load_json(
    text: str | bytes,
    *,
    most: int = MAX_VALUES,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
    parse_constant: Callable[[str], Any] | None = None,
) -> Any:
    """Parse JSON like `json.loads`.

    Raises JsonTooLarge, before parsing, for more than `most` values; ValueError for invalid JSON, and RecursionError
    for JSON that is nested too deeply.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    if has_more_values(text, most):
        raise JsonTooLarge(f"has more than {most:,} values")
    return json.loads(text, object_pairs_hook=object_pairs_hook, parse_constant=parse_constant)


def dump_json(value: Any, **options: Any) -> str:
    """Serialise like `json.dumps`, with null for NaN and infinite numbers, which Python writes but JSON lacks."""
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def has_more_values(text: str, most: int) -> bool:
    """Whether a JSON text has more than `most` values. Takes time proportional to the length of the text."""
    # This count includes marks inside strings, but is enough for most texts, which are small.
    if sum(text.count(mark) for mark in MARKS) <= most:
        return False
    marks = strings = 0
    for match in MARK_OR_STRING.finditer(_unescaped(text)):
        if match[0] in MARKS:
            marks += 1
        else:
            strings += 1
        # A value may come with a name.
        if marks > most or strings > 2 * most + 1:
            return True
    return False


def _unescaped(text: str) -> str:
    """Remove the escapes that decide where strings end."""
    return text.replace("\\\\", "").replace('\\"', "")
