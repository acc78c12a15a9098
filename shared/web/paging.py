"""Arguments of lists: which there are, how many are asked for, and before which."""

from flask import request

from shared.errors import InvalidValue
from shared.schema.spellings import meant_field

# Arguments that have no meaning: against caches, and the signature of an address, which was looked at before.
PASSED_OVER = frozenset(("_", "t", "ts", "time", "timestamp", "v", "cb", "nocache", "expires", "signature"))
OTHER_NAMES = {
    **dict.fromkeys(("status", "states", "filter"), ("state",)),
    **dict.fromkeys(("type", "route", "service"), ("kind", "type")),
    **dict.fromkeys(("n", "count", "size", "pagesize", "perpage", "max", "take", "first"), ("limit",)),
    **dict.fromkeys(("page", "offset", "skip", "cursor", "after", "start", "from"), ("before",)),
}


def check_arguments(*known: str) -> None:
    """Raises InvalidValue for an argument in the request's address that is not `known`: left out in silence, it would
    make a longer list look like the one that was asked for."""
    for name in request.args:
        if name in known or name.lower() in PASSED_OVER:
            continue
        near = meant_field(name, known, OTHER_NAMES)
        hint = f"did you mean {near}?" if near else f"there is {', '.join(known)}"
        raise InvalidValue(f"{name[:100]} is not an argument here", field=name[:100], hint=hint)


def number_argument(name: str, largest: int) -> int | None:
    """The whole number, from 1 on, in that argument of the request's address; None without. Raises InvalidValue."""
    text = request.args.get(name)
    return None if text is None else whole_number(name, text, 1, largest)


def whole_number(name: str, text: str, least: int, largest: int) -> int:
    """The whole number that `text` is, which came under that name. Raises InvalidValue."""
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= largest):
        raise InvalidValue(f"{name} must be a whole number from {least} to {largest}, not {text[:100]!r}", field=name)
    return int(text)
