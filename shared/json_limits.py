"""JSON from outside, read only if it has no more values than anybody needs; and JSON that everybody reads. Pure.

Python takes about a microsecond and 60 bytes for each value, so 60 MB of `[],` would be 40 seconds and more than a
gigabyte. How many values there are is told by the commas and opening brackets outside of texts, counted first.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any

# Objects, lists and their members in one text. A graph of 1,000 nodes with 20 inputs each, all linked, has 65,000.
MAX_VALUES = 200_000
MARKS = (",", "[", "{")
# For strings without escapes: a pattern that knows these takes 50 bytes of memory for each.
MARK_OR_STRING = re.compile(r'[,\[{]|"[^"]*"?')


class JsonTooLarge(ValueError):
    """There are more values than are read. Its text ends a sentence that begins with the name of what holds them."""


def load_json(
    text: str | bytes,
    *,
    most: int = MAX_VALUES,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
    parse_constant: Callable[[str], Any] | None = None,
) -> Any:
    """Like `json.loads`. Raises JsonTooLarge for more than `most` values, without having read them; ValueError for what
    is no JSON, RecursionError for what is nested too deeply."""
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    if has_more_values(text, most):
        raise JsonTooLarge(f"has more than {most:,} values")
    return json.loads(text, object_pairs_hook=object_pairs_hook, parse_constant=parse_constant)


def dump_json(value: Any, **options: Any) -> str:
    """Like `json.dumps`, with null for what is no finite number: Python writes NaN and Infinity, which are no JSON."""
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def has_more_values(text: str, most: int) -> bool:
    """Whether a JSON text has more than `most` values, found out by counting, in time proportional to its length."""
    # Most texts are small, and need no second look that leaves out what stands in strings.
    if sum(text.count(mark) for mark in MARKS) <= most:
        return False
    marks = strings = 0
    for match in MARK_OR_STRING.finditer(_unescaped(text)):
        if match[0] in MARKS:
            marks += 1
        else:
            strings += 1
        # Each value may have a name.
        if marks > most or strings > 2 * most + 1:
            return True
    return False


def _unescaped(text: str) -> str:
    """The text without the escapes that decide where its strings end."""
    return text.replace("\\\\", "").replace('\\"', "")
