"""Arguments of lists: how many, and before which."""

from flask import request

from shared.errors import InvalidValue


def number_argument(name: str, largest: int) -> int | None:
    """The whole number, from 1 on, in that argument of the request's address; None without. Raises InvalidValue."""
    text = request.args.get(name)
    return None if text is None else whole_number(name, text, 1, largest)


def whole_number(name: str, text: str, least: int, largest: int) -> int:
    """The whole number that `text` is, which came under that name. Raises InvalidValue."""
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= largest):
        raise InvalidValue(f"{name} must be a whole number from {least} to {largest}, not {text[:100]!r}", field=name)
    return int(text)
